"""The bank: its accounts, guardrails, people, roles, keys, buckets and its trail, founded by AWS's API calls."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import boto3
import botocore.config

from bastide.commands.client import Credentials, Platform
from bastide.commands.demo.telling import StoryError, Telling

ACCOUNTS = ("shared-services", "data-science", "test", "production")
GROUP = "mortgage-denial"
ENDPOINT = "mortgage-denial"
TRAIL = "organization-trail"
FOUNDER = "founder"
_DOCUMENTS = resources.files("bastide.commands.demo") / "policies"
_CONFIG = botocore.config.Config(retries={"max_attempts": 1, "mode": "standard"}, connect_timeout=5, read_timeout=90)
_GUARDRAILS = {
    "job-encryption": ("Volumes of jobs are encrypted under a customer key", "scp-job-encryption"),
    "network-isolation": ("Training is isolated from the network", "scp-network-isolation"),
    "instance-types": ("Jobs and endpoints run on approved instance types", "scp-instance-types"),
}


def document(name: str, **values: str) -> str:
    """A policy of the package with its <PLACEHOLDERS> filled in; raises StoryError if one is left."""
    text = (_DOCUMENTS / f"{name}.json").read_text()
    for key, value in values.items():
        text = text.replace(f"<{key.upper()}>", value)
    left = re.search(r"<[A-Z_]+>", text)
    if left is not None:
        raise StoryError(f"policy {name} still has the placeholder {left[0]}")
    return json.dumps(json.loads(text))


class Desk:
    """Clients of one platform, made once for each service and signer."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self._session = boto3.session.Session(region_name=platform.region)
        self._made: dict[tuple[str, str], Any] = {}

    def client(self, service: str, signer: Credentials) -> Any:
        """A boto3 client over TLS that trusts the platform's authority."""
        key = (service, signer.access_key)
        if key not in self._made:
            self._made[key] = self._session.client(
                service,
                endpoint_url=self.platform.url,
                verify=str(self.platform.directory.authority),
                aws_access_key_id=signer.access_key,
                aws_secret_access_key=signer.secret,
                aws_session_token=signer.token,
                config=_CONFIG,
            )
        return self._made[key]

    def assume(self, signer: Credentials, role: str, session: str) -> Credentials:
        """A role's session."""
        answer = self.client("sts", signer).assume_role(RoleArn=role, RoleSessionName=session)["Credentials"]
        return Credentials(answer["AccessKeyId"], answer["SecretAccessKey"], answer["SessionToken"])


@dataclass
class Bank:
    """What stands when the story begins."""

    desk: Desk
    administrator: Credentials
    administrator_arn: str
    management: str
    region: str
    ids: dict[str, str] = field(default_factory=dict)
    inside: dict[str, Credentials] = field(default_factory=dict)
    """Each account's OrganizationAccountAccessRole; used for founding, not in the story."""
    people: dict[str, Credentials] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    guardrails: dict[str, str] = field(default_factory=dict)

    @property
    def data_bucket(self) -> str:
        return f"mortgage-data-{self.ids['data-science']}"

    @property
    def model_bucket(self) -> str:
        return f"mortgage-models-{self.ids['data-science']}"

    @property
    def decision_bucket(self) -> str:
        return f"mortgage-decisions-{self.ids['production']}"

    @property
    def log_bucket(self) -> str:
        return f"bank-trail-{self.management}"

    @property
    def group_arn(self) -> str:
        return f"arn:aws:sagemaker:{self.region}:{self.ids['shared-services']}:model-package-group/{GROUP}"

    def name(self, account: str) -> str:
        """An account's name."""
        return next((name for name, one in self.ids.items() if one == account), "management")

    def client(self, service: str, account: str) -> Any:
        """An account's administrator's client, for founding."""
        return self.desk.client(service, self.inside[account])

    def be(self, person: str, role: str) -> Credentials:
        """A person takes on a role, their name being the session's."""
        return self.desk.assume(self.people[person], self.roles[role], person)


# Who may take on which role, and where it stands. Until people are federated they are users of the management account
# that may do nothing but take on their role.
_PEOPLE = {
    "ada": ("DataScientist", "data-science"),
    "rita": ("ModelRiskManager", "shared-services"),
    "paul": ("ModelApprover", "shared-services"),
    "otto": ("MLOps", "shared-services"),
    "loan-desk": ("LoanOrigination", "production"),
    "iris": ("Auditor", ""),
}


def found(platform: Platform, telling: Telling) -> Bank:
    """Founds the bank; raises StoryError or botocore's ClientError if a call is refused."""
    desk = Desk(platform)
    administrator = platform.administrator()
    told = desk.client("sts", administrator).get_caller_identity()
    bank = Bank(desk, administrator, told["Arn"], told["Account"], platform.region)
    _accounts(bank)
    telling.done(f"accounts {', '.join(ACCOUNTS)} below the organizational unit workloads")
    _people(bank)
    _roles(bank)
    telling.done(f"{len(_PEOPLE)} people, {len(bank.roles)} roles; nobody has more than their task needs")
    _keys(bank)
    _buckets(bank)
    telling.done(f"{len(bank.keys)} customer keys, 4 encrypted and versioned buckets that refuse plain HTTP")
    _grants(bank)
    _registry(bank)
    telling.done(f"model registry: group {GROUP} in shared-services")
    _trail(bank)
    telling.done(f"organization trail with data events into {bank.log_bucket}")
    _guardrails(bank)
    telling.done(f"guardrails (SCPs): {', '.join(bank.guardrails)}")
    return bank


def _accounts(bank: Bank) -> None:
    organizations = bank.desk.client("organizations", bank.administrator)
    organizations.create_organization(FeatureSet="ALL")
    root = organizations.list_roots()["Roots"][0]
    if not any(one["Type"] == "SERVICE_CONTROL_POLICY" for one in root.get("PolicyTypes", ())):
        organizations.enable_policy_type(RootId=root["Id"], PolicyType="SERVICE_CONTROL_POLICY")
    unit = organizations.create_organizational_unit(ParentId=root["Id"], Name="workloads")["OrganizationalUnit"]["Id"]
    bank.guardrails["workloads"] = unit
    for name in ACCOUNTS:
        status = organizations.create_account(AccountName=name, Email=f"{name}@bank.example")["CreateAccountStatus"]
        deadline = time.monotonic() + 20
        while status["State"] == "IN_PROGRESS" and time.monotonic() < deadline:
            time.sleep(0.05)
            status = organizations.describe_create_account_status(CreateAccountRequestId=status["Id"])[
                "CreateAccountStatus"
            ]
        if status["State"] != "SUCCEEDED":
            raise StoryError(f"account {name} was not made: {status}")
        account = status["AccountId"]
        organizations.move_account(AccountId=account, SourceParentId=root["Id"], DestinationParentId=unit)
        bank.ids[name] = account
        bank.inside[name] = bank.desk.assume(
            bank.administrator, f"arn:aws:iam::{account}:role/OrganizationAccountAccessRole", FOUNDER
        )


def _people(bank: Bank) -> None:
    iam = bank.desk.client("iam", bank.administrator)
    for person, (role, account) in _PEOPLE.items():
        iam.create_user(UserName=person)
        if account:
            arn = f"arn:aws:iam::{bank.ids[account]}:role/{role}"
            iam.put_user_policy(UserName=person, PolicyName="task", PolicyDocument=document("person", role_arn=arn))
        key = iam.create_access_key(UserName=person)["AccessKey"]
        bank.people[person] = Credentials(key["AccessKeyId"], key["SecretAccessKey"])


def _roles(bank: Bank) -> None:
    def make(name: str, account: str, trust: str) -> None:
        role = bank.client("iam", account).create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]
        bank.roles.setdefault(name, role["Arn"])

    for person, (role, account) in _PEOPLE.items():
        trust = document(
            "trust-person",
            management_account_id=bank.management,
            person=person,
            administrator_arn=bank.administrator_arn,
        )
        for one in (account,) if account else ACCOUNTS:
            make(role, one, trust)
    for name, account in (
        ("SageMakerJobRole", "data-science"),
        ("ModelExecutionRole", "production"),
        ("ModelExecutionRole", "test"),
    ):
        make(name, account, document("trust-sagemaker", account_id=bank.ids[account]))
    make("Deployer", "production", document("trust-role", trusted_role_arn=bank.roles["MLOps"]))
    for account in ACCOUNTS:
        bank.client("iam", account).put_role_policy(
            RoleName="Auditor", PolicyName="task", PolicyDocument=document("auditor")
        )


def _keys(bank: Bank) -> None:
    science, production = bank.ids["data-science"], bank.ids["production"]
    reviewers = {
        "model_role_arn": bank.roles["ModelExecutionRole"],
        "risk_role_arn": bank.roles["ModelRiskManager"],
        "approver_role_arn": bank.roles["ModelApprover"],
    }
    wanted = {
        "data": ("data-science", document("key", account_id=science)),
        "models": ("data-science", document("key-models", account_id=science, **reviewers)),
        "production": ("production", document("key", account_id=production)),
        "log": ("", document("key-log", account_id=bank.management)),
    }
    for name, (account, policy) in wanted.items():
        kms = bank.client("kms", account) if account else bank.desk.client("kms", bank.administrator)
        made = kms.create_key(Description=f"The bank's key for {name}", Policy=policy)["KeyMetadata"]
        kms.create_alias(AliasName=f"alias/mortgage-{name}", TargetKeyId=made["KeyId"])
        bank.keys[name] = made["Arn"]


def _buckets(bank: Bank) -> None:
    trail = f"arn:aws:cloudtrail:{bank.region}:{bank.management}:trail/{TRAIL}"
    readers = {
        "model_role_arn": bank.roles["ModelExecutionRole"],
        "risk_role_arn": bank.roles["ModelRiskManager"],
        "approver_role_arn": bank.roles["ModelApprover"],
    }
    wanted: list[tuple[str, str, str, str, dict[str, str]]] = [
        ("data-science", bank.data_bucket, "data", "bucket", {}),
        ("data-science", bank.model_bucket, "models", "bucket-models", readers),
        ("production", bank.decision_bucket, "production", "bucket", {}),
        ("", bank.log_bucket, "log", "bucket-log", {"trail_arn": trail}),
    ]
    for account, bucket, key, policy, more in wanted:
        s3 = bank.client("s3", account) if account else bank.desk.client("s3", bank.administrator)
        s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        rule = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": bank.keys[key]}
        s3.put_bucket_encryption(
            Bucket=bucket,
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": rule, "BucketKeyEnabled": False}]
            },
        )
        s3.put_bucket_policy(Bucket=bucket, Policy=document(policy, bucket=bucket, key_arn=bank.keys[key], **more))
    bank.client("s3", "production").put_object(
        Bucket=bank.decision_bucket, Key="decisions/first.csv", Body=b"application,denied\n1,no\n"
    )


def _grants(bank: Bank) -> None:
    common = {
        "region": bank.region,
        "shared_account_id": bank.ids["shared-services"],
        "production_account_id": bank.ids["production"],
        "group": GROUP,
        "endpoint": ENDPOINT,
        "data_bucket": bank.data_bucket,
        "model_bucket": bank.model_bucket,
        "decision_bucket": bank.decision_bucket,
        "data_key_arn": bank.keys["data"],
        "model_key_arn": bank.keys["models"],
        "production_key_arn": bank.keys["production"],
        "job_role_arn": bank.roles["SageMakerJobRole"],
        "model_role_arn": bank.roles["ModelExecutionRole"],
    }
    tasks = {
        "DataScientist": ("data-science", "data-scientist"),
        "SageMakerJobRole": ("data-science", "job-role"),
        "ModelRiskManager": ("shared-services", "model-risk-manager"),
        "ModelApprover": ("shared-services", "model-approver"),
        "MLOps": ("shared-services", "mlops"),
        "Deployer": ("production", "deployer"),
        "ModelExecutionRole": ("production", "model-role"),
        "LoanOrigination": ("production", "loan-origination"),
    }
    for role, (account, policy) in tasks.items():
        bank.client("iam", account).put_role_policy(
            RoleName=role, PolicyName="task", PolicyDocument=document(policy, account_id=bank.ids[account], **common)
        )
    bank.desk.client("iam", bank.administrator).put_user_policy(
        UserName="iris",
        PolicyName="task",
        PolicyDocument=document("auditor-in-management", log_bucket=bank.log_bucket, log_key_arn=bank.keys["log"]),
    )


def _registry(bank: Bank) -> None:
    sagemaker = bank.client("sagemaker", "shared-services")
    sagemaker.create_model_package_group(
        ModelPackageGroupName=GROUP, ModelPackageGroupDescription="Who is likely to be denied a mortgage"
    )
    sagemaker.put_model_package_group_policy(
        ModelPackageGroupName=GROUP,
        ResourcePolicy=document(
            "group",
            region=bank.region,
            shared_account_id=bank.ids["shared-services"],
            group=GROUP,
            scientist_role_arn=bank.roles["DataScientist"],
            deployer_role_arn=bank.roles["Deployer"],
        ),
    )


def _trail(bank: Bank) -> None:
    cloudtrail = bank.desk.client("cloudtrail", bank.administrator)
    cloudtrail.create_trail(Name=TRAIL, S3BucketName=bank.log_bucket, IsMultiRegionTrail=True, IsOrganizationTrail=True)
    cloudtrail.put_event_selectors(
        TrailName=TRAIL,
        EventSelectors=[
            {
                "ReadWriteType": "All",
                "IncludeManagementEvents": True,
                "DataResources": [
                    {"Type": "AWS::S3::Object", "Values": ["arn:aws:s3"]},
                    {"Type": "AWS::SageMaker::Endpoint", "Values": ["arn:aws:sagemaker"]},
                ],
            }
        ],
    )
    cloudtrail.start_logging(Name=TRAIL)


def _guardrails(bank: Bank) -> None:
    organizations = bank.desk.client("organizations", bank.administrator)
    unit = bank.guardrails.pop("workloads")

    def attach(name: str, description: str, policy: str, target: str) -> None:
        made = organizations.create_policy(
            Name=name, Description=description, Type="SERVICE_CONTROL_POLICY", Content=document(policy)
        )["Policy"]["PolicySummary"]
        organizations.attach_policy(PolicyId=made["Id"], TargetId=target)
        bank.guardrails[name] = made["Arn"]

    for name, (description, policy) in _GUARDRAILS.items():
        attach(name, description, policy, unit)
    attach(
        "registered-models",
        "Models in production come from a version in the registry",
        "scp-registered-models",
        bank.ids["production"],
    )

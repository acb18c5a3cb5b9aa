"""The pipeline's roles, bucket and key as the paper describes them, attached for real: documents 70 to 80, 82 and 83.

The services that take on some of the roles are not there yet: these sessions are begun while the account itself is
trusted, and the real trust policy is put in force afterwards.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import REGION, Account, Keys, Running
from tests.stories.sagemaker.conftest import IMAGE
from tests.stories.sagemaker.test_guardrails import refused

ANYTHING = ("REPOSITORY_NAME", "BUILD_PROJECT_NAME", "RELEASE_APPROVAL_TOPIC", "STACK_NAME", "STATE_MACHINE_ROLE_NAME")


@dataclass
class Pipeline:
    """Three accounts with the paper's roles; a session of each by the name of its placeholder."""

    platform: Running
    folder: Path
    shared: Account
    test: Account
    production: Account
    names: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, Keys] = field(default_factory=dict)

    @property
    def bucket(self) -> str:
        return self.names["ARTIFACT_BUCKET_NAME"]

    @property
    def key(self) -> str:
        return f"arn:aws:kms:{REGION}:{self.shared.id}:key/{self.names['ARTIFACT_KEY_ID']}"

    def document(self, number: str, **more: str) -> str:
        """A sample document with its placeholders filled in; none may be left."""
        [path] = self.folder.glob(f"{number}-*.json")
        names = {**self.names, **more}
        text = re.sub(r"<([A-Z0-9_]+)>", lambda found: names[found[1]], path.read_text())
        assert "<" not in text
        return text

    def role(self, account: Account, path: str, placeholder: str) -> None:
        """A role that trusts its account for now, and a session of it."""
        trust = {"Effect": "Allow", "Principal": {"AWS": account.id}, "Action": "sts:AssumeRole"}
        name = self.names[placeholder]
        arn = account.client("iam").create_role(
            Path=path,
            RoleName=name,
            AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": trust}),
        )["Role"]["Arn"]
        self.sessions[f"{placeholder} {account.id}"] = self.platform.assume(arn, account.keys)

    def fill(self, account: Account, placeholder: str, policy: str, trust: str) -> None:
        """Its identity policy, and the trust policy that is meant."""
        iam, name = account.client("iam"), self.names[placeholder]
        document = self.document(policy)
        iam.put_role_policy(RoleName=name, PolicyName="its", PolicyDocument=document)
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=self.document(trust, ACCOUNT_ID=account.id))

    def client(self, service: str, placeholder: str, account: Account, **more: Any) -> Any:
        return self.platform.client(service, self.sessions[f"{placeholder} {account.id}"], **more)


@pytest.fixture(scope="module")
def pipeline(platform: Running, mission: Path) -> Pipeline:
    shared, test, production = platform.account(), platform.account(), platform.account()
    made = Pipeline(platform, mission / "policies", shared, test, production)
    made.names = {name: name.lower().replace("_", "-") for name in ANYTHING} | {
        "REGION": REGION,
        "SHARED_SERVICES_ACCOUNT_ID": shared.id,
        "TEST_ACCOUNT_ID": test.id,
        "PRODUCTION_ACCOUNT_ID": production.id,
        "CODEPIPELINE_ROLE_A": "RoleA",
        "CODEPIPELINE_ROLE_A2": "RoleA2",
        "CODEBUILD_ROLE": "Build",
        "CROSS_ACCOUNT_ROLE_B": "RoleB",
        "CROSS_ACCOUNT_ROLE_C": "RoleC",
        "CLOUDFORMATION_ROLE_NAME": "Stack",
        "STATE_MACHINE_ROLE_NAME": "Workflow",
        "ARTIFACT_BUCKET_NAME": f"artifacts-{shared.id}",
    }
    for job in ("PROCESSING", "TRAINING", "MODEL"):
        trust = {"Service": "sagemaker.amazonaws.com"}
        made.names[f"SAGEMAKER_{job}_EXECUTION_ROLE_ARN"] = test.role(job.title(), trust=trust)
    for placeholder in ("CODEPIPELINE_ROLE_A", "CODEPIPELINE_ROLE_A2", "CODEBUILD_ROLE"):
        made.role(shared, "/service-role/", placeholder)
    made.role(test, "/", "CROSS_ACCOUNT_ROLE_B")
    made.role(production, "/", "CROSS_ACCOUNT_ROLE_C")
    for account in (test, production):
        made.role(account, "/", "CLOUDFORMATION_ROLE_NAME")
    made.role(test, "/", "STATE_MACHINE_ROLE_NAME")
    kms, s3 = shared.client("kms"), shared.client("s3")
    s3.create_bucket(Bucket=made.bucket)
    s3.put_object(Bucket=made.bucket, Key="before", Body=b"x")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    made.names["ARTIFACT_KEY_ID"] = key
    kms.put_key_policy(KeyId=key, Policy=made.document("71"))
    s3.put_bucket_policy(Bucket=made.bucket, Policy=made.document("70"))
    made.fill(shared, "CODEPIPELINE_ROLE_A", "72", "78")
    made.fill(shared, "CODEPIPELINE_ROLE_A2", "73", "78")
    made.fill(test, "CROSS_ACCOUNT_ROLE_B", "74", "79")
    made.fill(production, "CROSS_ACCOUNT_ROLE_C", "75", "80")
    made.fill(test, "CLOUDFORMATION_ROLE_NAME", "76", "82")
    made.fill(test, "STATE_MACHINE_ROLE_NAME", "77", "83")
    return made


def test_each_pipeline_role_reaches_its_own_account_and_nobody_else_does(pipeline: Pipeline) -> None:
    shared, test, production = pipeline.shared, pipeline.test, pipeline.production
    a = pipeline.client("sts", "CODEPIPELINE_ROLE_A", shared)
    a2 = pipeline.client("sts", "CODEPIPELINE_ROLE_A2", shared)
    b = {"RoleArn": f"arn:aws:iam::{test.id}:role/RoleB", "RoleSessionName": "release"}
    c = {"RoleArn": f"arn:aws:iam::{production.id}:role/RoleC", "RoleSessionName": "release"}
    assert a.assume_role(**b)["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{test.id}:assumed-role/RoleB/release"
    assert a2.assume_role(**c)["AssumedRoleUser"]["Arn"].endswith(":assumed-role/RoleC/release")
    refused(a.assume_role, **c)
    refused(a2.assume_role, **b)
    for administrator, given in ((shared, b), (test, b), (shared, c), (production, c)):
        message = refused(administrator.client("sts").assume_role, **given)
        assert "sts:AssumeRole" in message


@pytest.mark.parametrize("role", ["service-role/RoleA", "service-role/RoleA2", "Stack", "Workflow"])
def test_a_services_role_is_nobodys(pipeline: Pipeline, role: str) -> None:
    account = pipeline.shared if "/" in role else pipeline.test
    arn = f"arn:aws:iam::{account.id}:role/{role}"
    message = refused(account.client("sts").assume_role, RoleArn=arn, RoleSessionName="me")
    assert "because no role trust policy allows" in message


@pytest.mark.control("XAC-08")
def test_artifacts_pass_between_the_accounts_and_no_person_sees_them(pipeline: Pipeline, account: Account) -> None:
    shared, test, production = pipeline.shared, pipeline.test, pipeline.production
    a = pipeline.client("s3", "CODEPIPELINE_ROLE_A", shared)
    b = pipeline.client("s3", "CROSS_ACCOUNT_ROLE_B", test)
    c = pipeline.client("s3", "CROSS_ACCOUNT_ROLE_C", production)
    stack = pipeline.client("s3", "CLOUDFORMATION_ROLE_NAME", test)
    sealed = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": pipeline.key}
    where = {"Bucket": pipeline.bucket, "Key": "source.zip"}
    a.put_object(**where, Body=b"artifact", **sealed)
    for one in (a, b, c, stack):
        answer = one.get_object(**where)
        assert (answer["Body"].read(), answer["SSEKMSKeyId"]) == (b"artifact", pipeline.key)
    b.put_object(Bucket=pipeline.bucket, Key="from-test", Body=b"x", **sealed)
    assert {one["Key"] for one in c.list_objects_v2(Bucket=pipeline.bucket)["Contents"]} >= {"source.zip", "from-test"}
    # Not unencrypted, not by people, administrators included, not more than the role's own policy says.
    message = refused(a.put_object, **where, Body=b"x")
    assert "explicit deny in a resource-based policy" in message
    refused(a.put_object, **where, Body=b"x", ServerSideEncryption="AES256")
    refused(b.put_object, **where, Body=b"x", ServerSideEncryption="AES256")
    for administrator in (shared, test, production, account):
        refused(administrator.client("s3").get_object, **where)
    refused(b.delete_object, **where)
    refused(stack.put_object, **where, Body=b"x", **sealed)
    refused(stack.list_objects_v2, Bucket=pipeline.bucket)
    a.delete_object(Bucket=pipeline.bucket, Key="from-test")


@pytest.mark.control("XAC-08")
def test_the_bucket_is_read_over_tls_only(pipeline: Pipeline) -> None:
    given = {"Bucket": pipeline.bucket}
    pipeline.client("s3", "CODEPIPELINE_ROLE_A", pipeline.shared).list_objects_v2(**given)
    plain = pipeline.client("s3", "CODEPIPELINE_ROLE_A", pipeline.shared, plain=True)
    assert "explicit deny in a resource-based policy" in refused(plain.list_objects_v2, **given)


def test_the_key_is_used_by_the_pipelines_roles_as_far_as_each_may(pipeline: Pipeline) -> None:
    shared, test, production = pipeline.shared, pipeline.test, pipeline.production
    build = pipeline.client("kms", "CODEBUILD_ROLE", shared)
    sealed = build.encrypt(KeyId=pipeline.key, Plaintext=b"secret")["CiphertextBlob"]
    for account, role in ((test, "CROSS_ACCOUNT_ROLE_B"), (production, "CROSS_ACCOUNT_ROLE_C")):
        assert pipeline.client("kms", role, account).decrypt(CiphertextBlob=sealed)["Plaintext"] == b"secret"
    stack = pipeline.client("kms", "CLOUDFORMATION_ROLE_NAME", test)
    assert stack.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"secret"
    refused(stack.encrypt, KeyId=pipeline.key, Plaintext=b"x")
    # The other account's half: production's stack role has no policy of its own that names the key.
    refused(pipeline.client("kms", "CLOUDFORMATION_ROLE_NAME", production).decrypt, CiphertextBlob=sealed)
    refused(build.schedule_key_deletion, KeyId=pipeline.key)
    # Grants are made for AWS services only, by whoever in those accounts may make grants at all.
    granted = {"KeyId": pipeline.key, "GranteePrincipal": f"arn:aws:iam::{test.id}:root", "Operations": ["Decrypt"]}
    refused(test.client("kms").create_grant, **granted)
    refused(pipeline.client("kms", "CROSS_ACCOUNT_ROLE_B", test).create_grant, **granted)
    shared.client("kms").create_grant(**granted)


def test_the_workflow_runs_jobs_under_the_roles_it_was_given(pipeline: Pipeline) -> None:
    test = pipeline.test
    workflow = pipeline.client("sagemaker", "STATE_MACHINE_ROLE_NAME", test)
    tags = [{"Key": "stage", "Value": "test"}]
    model = {"PrimaryContainer": {"Image": IMAGE}, "Tags": tags}
    own, other = pipeline.names["SAGEMAKER_MODEL_EXECUTION_ROLE_ARN"], f"arn:aws:iam::{test.id}:role/Stack"
    arn = workflow.create_model(ModelName="m", ExecutionRoleArn=own, **model)["ModelArn"]
    assert test.client("sagemaker").list_tags(ResourceArn=arn)["Tags"] == tags
    assert "iam:PassRole" in refused(workflow.create_model, ModelName="n", ExecutionRoleArn=other, **model)
    assert "sagemaker:AddTags" in refused(workflow.add_tags, ResourceArn=arn, Tags=tags)
    refused(workflow.delete_model, ModelName="m")
    config = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1}
    workflow.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[config], Tags=tags)
    refused(workflow.describe_endpoint_config, EndpointConfigName="c")
    # A role that SageMaker may not take on is refused to whoever may pass anything.
    with pytest.raises(ClientError, match="Could not assume role"):
        test.client("sagemaker").create_model(ModelName="n", ExecutionRoleArn=other, **model)

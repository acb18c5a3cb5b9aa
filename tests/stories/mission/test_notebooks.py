"""A notebook instance from the catalogue, as the paper's own template and guardrails want it, and what is done with it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import websocket
from botocore.exceptions import ClientError

from bastide.engines import images
from tests.moved import Moved, moved, until
from tests.platform import HOME, REGION, Account, Keys, Running, allow, lies_in, on_disk
from tests.stories.cloudformation.stacks import Stacks
from tests.stories.ec2.conftest import Vpc, make_vpc
from tests.stories.mission.jupyter import Browser
from tests.stories.sagemaker.conftest import IMAGE
from tests.stories.sagemaker.test_guardrails import refused
from tests.stories.sagemaker.test_job_role import policy
from tests.stories.servicecatalog.catalog import LAUNCH, USER, Catalog, Person

SERVICE = {"Service": "sagemaker.amazonaws.com"}
GUARDRAILS = (
    "20-guardrail-notebook-volume-encryption", "24-guardrail-vpc-deployment", "28-guardrail-notebook-direct-internet",
    "30-guardrail-notebook-root-access", "33-guardrail-notebook-instance-types",
)  # fmt: skip
SECONDS = 180
NAME = "ann"


@dataclass
class Room:
    """An account under guardrails, its network, keys and roles, and the instance that Ann launched."""

    platform: Running
    account: Account
    mission: Path
    vpc: Vpc
    key: str
    role: str
    catalog: Catalog
    product: str
    version: str
    ann: Keys
    owner: str
    record: dict[str, Any]

    @property
    def sagemaker(self) -> Any:
        return self.account.client("sagemaker")

    def settled(self, name: str = NAME) -> dict[str, Any]:
        """The description once nothing is done for it."""

        def told() -> dict[str, Any]:
            found: dict[str, Any] = self.sagemaker.describe_notebook_instance(NotebookInstanceName=name)
            return found

        until(lambda: told()["NotebookInstanceStatus"] in ("InService", "Stopped", "Failed"), SECONDS)
        return told()

    def given(self, **more: Any) -> dict[str, Any]:
        """What complies with all guardrails."""
        return {
            "NotebookInstanceName": "other", "InstanceType": "ml.t3.medium", "RoleArn": self.role,
            "SubnetId": self.vpc.subnet, "SecurityGroupIds": [self.vpc.group], "KmsKeyId": self.key,
            "DirectInternetAccess": "Disabled", "RootAccess": "Disabled", **more,
        }  # fmt: skip

    def url(self, keys: Keys | None = None) -> str:
        """An address that opens Ann's."""
        client = self.account.client("sagemaker", keys or self.ann)
        address: str = client.create_presigned_notebook_instance_url(NotebookInstanceName=NAME)["AuthorizedUrl"]
        return address

    def opened(self) -> Browser:
        """A browser that is in."""
        browser = Browser(self.platform, self.url())
        assert browser.open() == 302
        return browser


def _guarded(running: Running, account: Account, mission: Path, vpc: str) -> None:
    """The paper's guardrails, on the account."""
    organizations = running.client("organizations")
    sources = {"ALLOWED_PUBLIC_CIDR": "127.0.0.1/32", "DATA_SCIENCE_VPC_ID": vpc}
    documents = [[policy(mission, f"{one}.json") for one in GUARDRAILS]]
    documents += [[policy(mission, "27-guardrail-presigned-url-source-ip.json", **sources)]]
    for number, held in enumerate(documents):
        statements = [one for document in held for one in document["Statement"]]
        made = organizations.create_policy(
            Name=f"notebooks-{number}-{account.id}", Description="", Type="SERVICE_CONTROL_POLICY",
            Content=json.dumps({"Version": "2012-10-17", "Statement": statements}),
        )["Policy"]["PolicySummary"]["Id"]  # fmt: skip
        organizations.attach_policy(PolicyId=made, TargetId=account.id)


def _network(account: Account) -> Vpc:
    vpc = make_vpc(account)
    vpc.ec2.create_vpc_endpoint(
        VpcId=vpc.id, ServiceName=f"com.amazonaws.{REGION}.s3", RouteTableIds=[vpc.main_table()]
    )
    services = [f"com.amazonaws.{REGION}.{one}" for one in ("sts", "sagemaker.api", "git-codecommit", "ssm")]
    for service in (*services, f"aws.sagemaker.{REGION}.notebook"):
        vpc.ec2.create_vpc_endpoint(
            VpcId=vpc.id,
            VpcEndpointType="Interface",
            ServiceName=service,
            SubnetIds=[vpc.subnet],
            PrivateDnsEnabled=True,
        )
    return vpc


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A platform that may be killed."""
    images.build("notebook")
    found = Running(tmp_path_factory.mktemp("notebooks") / "data")
    found.start()
    found.found()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def room(running: Running, mission: Path) -> Iterator[Room]:
    account = running.account()
    vpc = _network(account)
    _guarded(running, account, mission, vpc.id)
    key = account.client("kms").create_key()["KeyMetadata"]["Arn"]
    code = account.client("codecommit")
    code.create_repository(repositoryName="code")
    code.put_file(repositoryName="code", branchName="main", filePath="a.py", fileContent=b"print('cloned')\n")
    run = allow(
        "ec2:*NetworkInterface*", "ec2:DescribeSubnets", "ec2:DescribeSecurityGroups", "kms:GenerateDataKey", "kms:Decrypt",
        "logs:*", "codecommit:GitPull", "codecommit:GitPush", "sagemaker:CreateTrainingJob",
        "ssm:GetParameter", "ssm:GetParametersByPath",
    )  # fmt: skip
    own = f"arn:aws:sagemaker:{REGION}:{account.id}:notebook-instance/{NAME}"
    run["Statement"] += allow("sagemaker:CreatePresignedNotebookInstanceUrl", resource=own)["Statement"]
    run["Statement"] += allow("iam:PassRole", resource=f"arn:aws:iam::{account.id}:role/Job")["Statement"]
    role = account.role("Execution", run, trust=SERVICE)
    _settings(account, vpc, key)
    catalog = Catalog(account)
    portfolio = catalog.portfolio()
    body = (mission / "policies" / "85-cloudformation-notebook-lifecycle.json").read_text()
    product, version = catalog.product(body, portfolio, name="notebook")
    more = ("sagemaker:*", "iam:PassRole", "s3:GetObject", "ec2:Describe*")
    launch = account.role("Launch", allow(*LAUNCH, *more), trust={"Service": "servicecatalog.amazonaws.com"})
    catalog.constrain(portfolio, product, "LAUNCH", {"RoleArn": launch})
    scientist = account.role("Scientist", USER)
    account.client("iam").put_role_policy(
        RoleName="Scientist", PolicyName="owner",
        PolicyDocument=json.dumps(policy(mission, "02-notebook-access-by-owner-userid.json")),
    )  # fmt: skip
    catalog.principal(portfolio, scientist)
    ann = account.as_role("Scientist", "ann")
    owner = account.client("sts", ann).get_caller_identity()["UserId"]
    room = Room(running, account, mission, vpc, key, role, catalog, product, version, ann, owner, {})
    room.record = _launched(room, NAME, version)
    assert room.record["RecordDetail"]["Status"] == "SUCCEEDED", room.record
    yield room
    person = Person(account, ann)
    person.client.terminate_provisioned_product(ProvisionedProductName=NAME, TerminateToken="t")
    until(lambda: NAME not in _launches(person), SECONDS)
    names = [one["NotebookInstanceName"] for one in room.sagemaker.list_notebook_instances()["NotebookInstances"]]
    assert NAME not in names
    interfaces = room.vpc.ec2.describe_network_interfaces(Filters=[{"Name": "vpc-id", "Values": [vpc.id]}])
    assert not [one for one in interfaces["NetworkInterfaces"] if "notebook-instance" in one["Description"]]


def _launches(person: Person) -> list[str]:
    return [one["Name"] for one in person.client.scan_provisioned_products()["ProvisionedProducts"]]


def _settings(account: Account, vpc: Vpc, key: str) -> None:
    """What jobs are to be made with, in the parameter store."""
    bucket = f"models-{account.id}"
    account.client("s3").create_bucket(Bucket=bucket)
    job = allow("s3:PutObject", "kms:GenerateDataKey", "logs:*", "ec2:*NetworkInterface*", "ec2:Describe*")
    given = {
        "role": account.role("Job", job, trust=SERVICE), "subnet": vpc.subnet, "group": vpc.group, "key": key,
        "models": f"s3://{bucket}/",
    }  # fmt: skip
    for name, value in given.items():
        account.client("ssm").put_parameter(Name=f"/ml/{name}", Value=value, Type="SecureString", KeyId=key)


def _values(room: Room, name: str) -> dict[str, str]:
    """The template's parameters."""
    return {
        "NotebookName": name, "ExecutionRoleArn": room.role, "SubnetId": room.vpc.subnet, "SubnetIds": room.vpc.subnet,
        "SecurityGroupIds": room.vpc.group, "KmsKeyArn": room.key, "OwnerId": room.owner, "OwnerName": "Ann",
        "RepositoryUrl": f"https://git-codecommit.{REGION}.amazonaws.com/v1/repos/code", "Dept": "risk",
        "PackageIndexUrl": "https://packages.example.com/simple/",
    }  # fmt: skip


def _launched(room: Room, name: str, version: str) -> dict[str, Any]:
    """The record of Ann's launch."""
    person = Person(room.account, room.ann)
    asked = person.client.provision_product(
        ProductId=room.product, ProvisioningArtifactId=version, ProvisionedProductName=name,
        ProvisioningParameters=[{"Key": key, "Value": value} for key, value in _values(room, name).items()],
    )["RecordDetail"]["RecordId"]  # fmt: skip

    def told() -> dict[str, Any]:
        found: dict[str, Any] = person.client.describe_record(Id=asked)
        return found

    until(lambda: told()["RecordDetail"]["Status"] in ("SUCCEEDED", "FAILED"), SECONDS)
    return told()


@pytest.mark.control("GRD-03", "GRD-11", "GRD-13", "GRD-16", "SSV-02", "SSV-03", "TAG-05")
def test_what_the_catalogue_launches_complies_and_what_does_not_is_refused(room: Room) -> None:
    outputs = {one["OutputKey"]: one["OutputValue"] for one in room.record["RecordOutputs"]}
    assert outputs["NotebookName"] == NAME
    told = room.settled()
    assert (told["NotebookInstanceStatus"], told["SubnetId"], told["SecurityGroups"], told["KmsKeyId"]) == (
        "InService", room.vpc.subnet, [room.vpc.group], room.key,
    )  # fmt: skip
    assert (told["DirectInternetAccess"], told["RootAccess"]) == ("Disabled", "Disabled")
    listed = room.sagemaker.list_tags(ResourceArn=told["NotebookInstanceArn"])["Tags"]
    tags = {one["Key"]: one["Value"] for one in listed}
    assert {
        "owner": room.owner,
        "owner-name": "Ann",
        "dept": "risk",
        "environment": "dev",
        "Project": "data_science",
    } == {key: value for key, value in tags.items() if ":" not in key}
    interfaces = room.vpc.ec2.describe_network_interfaces(NetworkInterfaceIds=[told["NetworkInterfaceId"]])
    [interface] = interfaces["NetworkInterfaces"]
    assert (interface["SubnetId"], interface["Groups"][0]["GroupId"]) == (room.vpc.subnet, room.vpc.group)

    # Ann may not make one herself, and who may, may make none that the guardrails forbid.
    own = room.account.client("sagemaker", room.ann)
    refused(own.create_notebook_instance, **room.given())
    with pytest.raises(ClientError, match="AccessDenied"):
        room.account.client("cloudformation", room.ann).create_stack(StackName="s", TemplateBody="{}")
    may = room.sagemaker
    for without in ("KmsKeyId", "SubnetId", "SecurityGroupIds", "DirectInternetAccess", "RootAccess"):
        given = {key: value for key, value in room.given().items() if key != without}
        assert "service control policy" in refused(may.create_notebook_instance, **given)
    for more in ({"DirectInternetAccess": "Enabled"}, {"RootAccess": "Enabled"}, {"InstanceType": "ml.p3.2xlarge"}):
        refused(may.create_notebook_instance, **room.given(**more))
    for more in ({"RootAccess": "Enabled"}, {"InstanceType": "ml.p3.2xlarge"}):
        refused(may.update_notebook_instance, NotebookInstanceName=NAME, **more)
    with pytest.raises(ClientError, match="Unable to transition to"):  # allowed, and not while it is in service
        may.update_notebook_instance(NotebookInstanceName=NAME, VolumeSizeInGB=6)
    with pytest.raises(ClientError, match="ValidationException"):
        may.create_notebook_instance(**room.given(InstanceType="ml.none"))

    # A version of the product that violates a guardrail fails, and says which action was denied.
    body = json.loads((room.mission / "policies" / "85-cloudformation-notebook-lifecycle.json").read_text())
    body["Resources"]["Notebook"]["Properties"]["RootAccess"] = "Enabled"
    room.catalog.client = room.account.client("servicecatalog")
    record = _launched(room, "rooted", room.catalog.version(room.product, json.dumps(body)))
    assert record["RecordDetail"]["Status"] == "FAILED"
    errors = json.dumps(record["RecordDetail"]["RecordErrors"])
    assert "sagemaker:CreateNotebookInstance" in errors and "service control policy" in errors


@pytest.mark.control("GRD-10", "PRM-03", "PRM-04", "EXP-03")
def test_it_is_opened_once_by_its_owner_from_where_it_may_be(room: Room) -> None:
    bob = room.account.as_role("Scientist", "bob")
    room.account.role("Tagged", policy(room.mission, "03-notebook-access-by-owner-principal-tag.json"))
    arn = f"arn:aws:iam::{room.account.id}:role/Tagged"
    tagged = room.platform.assume(arn, room.account.keys, Tags=[{"Key": "owner", "Value": room.owner}])
    another = room.platform.assume(arn, room.account.keys, Tags=[{"Key": "owner", "Value": "bob"}])
    for keys in (bob, another, room.platform.assume(arn, room.account.keys)):
        with pytest.raises(ClientError, match="AccessDenied"):
            room.url(keys)
        refused(room.account.client("sagemaker", keys).stop_notebook_instance, NotebookInstanceName=NAME)
    stranger = Browser(room.platform, room.url(tagged))
    assert stranger.ask("GET", "/lab")[0] == 403
    assert stranger.open() == 302 and stranger.ask("GET", "/api")[0] == 200
    untaggable = {"Effect": "Allow", "Principal": {"AWS": room.account.id}, "Action": "sts:AssumeRole"}
    room.account.client("iam").create_role(
        RoleName="Untaggable", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [untaggable]})
    )
    with pytest.raises(ClientError, match="sts:TagSession"):
        room.platform.assume(
            arn.replace("Tagged", "Untaggable"), room.account.keys, Tags=[{"Key": "owner", "Value": room.owner}]
        )
    # Used up, altered, of another address: nobody gets in.
    again = Browser(room.platform, stranger.url)
    assert (again.open(), again.cookies) == (403, {})
    altered = Browser(room.platform, room.url()[:-2] + "xx")
    assert altered.open() == 403
    outside = Browser(room.platform, room.url(), "127.0.0.2")
    assert outside.open() == 403
    inside = Browser(room.platform, outside.url)
    assert inside.open() == 302, "what was refused elsewhere is not used up"
    outside.cookies = dict(inside.cookies)
    assert outside.ask("GET", "/lab")[0] == 403
    with pytest.raises(websocket.WebSocketBadStatusException) as shut:
        outside.socket("/api/events/subscribe")
    assert shut.value.status_code == 403
    with pytest.raises(websocket.WebSocketBadStatusException):
        inside.socket("/api/events/subscribe", origin="https://evil.example.com")
    inside.socket("/api/events/subscribe").close()
    assert inside.ask("POST", "/api/terminals", headers={"Origin": "https://evil.example.com"})[0] == 403
    # Of a session nothing is left when its role may no longer open the instance.
    iam = room.account.client("iam")
    iam.delete_role_policy(RoleName="Tagged", PolicyName="inline")
    assert stranger.ask("GET", "/api")[0] == 403
    with pytest.raises(ClientError, match="Unable to transition to"):
        room.sagemaker.delete_notebook_instance(NotebookInstanceName=NAME)
    with pytest.raises(ClientError, match="Unable to transition to"):
        room.account.client("sagemaker", room.ann).start_notebook_instance(NotebookInstanceName=NAME)
    for one in (stranger, again, altered, outside, inside):
        one.close()


INSIDE = """
import boto3, os, socket, subprocess, ssl, urllib.request
def shell(text):
    done = subprocess.run(["bash", "-lc", text], capture_output=True, text=True)
    print(done.stdout.strip(), done.stderr.strip()[-300:], done.returncode, sep="|")
def reaches(host):
    try:
        socket.create_connection((host, 443), 0.5)
        return True
    except OSError:
        return False
print(boto3.client("sts").get_caller_identity()["Arn"], os.environ["KMS_KEY_ARN"], os.getcwd(), sep="|")
def settings():
    found = boto3.client("ssm").get_parameters_by_path(Path="/ml", WithDecryption=True)["Parameters"]
    return {one["Name"].removeprefix("/ml/"): one["Value"] for one in found}
print([reaches(one) for one in ("8.8.8.8", "169.254.169.254")])
shell("echo $SUBNET_IDS $SECURITY_GROUP_IDS; cat ~/SageMaker/code/a.py; pip config get global.index-url; whoami")
shell("sudo id")
shell("cd ~/SageMaker/code && git config user.name Ann && git config user.email a@example.com && echo 2 > b && git add b"
      " && git commit -qm b && git push -q && git rev-parse HEAD")
open("kept.txt", "w").write("kept")
sagemaker, held = boto3.client("sagemaker"), settings()
for call in (
    lambda: sagemaker.list_training_jobs(),
    lambda: sagemaker.create_presigned_notebook_instance_url(NotebookInstanceName="bob"),
):
    try:
        call()
    except Exception as error:
        print(type(error).__name__, "is not authorized to perform" in str(error))
sagemaker.create_training_job(
    TrainingJobName="from-a-cell", RoleArn=held["role"], OutputDataConfig={"S3OutputPath": held["models"]},
    AlgorithmSpecification={"TrainingInputMode": "File", "ContainerEntrypoint": ["touch", "/opt/ml/model/made"],
        "TrainingImage": "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"},
    ResourceConfig={"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1, "VolumeKmsKeyId": held["key"]},
    VpcConfig={"Subnets": [held["subnet"]], "SecurityGroupIds": [held["group"]]},
    StoppingCondition={"MaxRuntimeInSeconds": 600},
)
url = sagemaker.create_presigned_notebook_instance_url(NotebookInstanceName="ann")["AuthorizedUrl"]
class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None
trusted = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"]))
try:
    urllib.request.build_opener(trusted, Stay).open(url, timeout=20)
except urllib.error.HTTPError as error:
    print(url.partition("?")[0].partition(".")[2], error.code, error.headers["location"])
"""


@pytest.mark.control("SVR-01", lacking="credentials that are seen to rotate")
@pytest.mark.control("EXP-06", "EXP-08", "GRD-11", "GRD-13", "SVR-02")
def test_a_cell_acts_as_the_role_in_the_vpc_alone(room: Room) -> None:
    browser = room.opened()
    kernel = browser.kernel()
    lines = kernel.run(INSIDE).splitlines()
    kernel.close()
    browser.close()
    account = room.account.id
    assert lines[0] == (
        f"arn:aws:sts::{account}:assumed-role/Execution/SageMaker|{room.key}|/home/ec2-user/SageMaker"
    ), lines
    assert lines[1] == "[False, False]"
    assert lines[2:6] == [
        f"{room.vpc.subnet} {room.vpc.group}", "print('cloned')", "https://packages.example.com/simple/", "ec2-user||0",
    ]  # fmt: skip
    assert lines[6].startswith("|sudo: ec2-user is not in the sudoers file") and lines[6].endswith("|1")
    head, complaint, status = lines[7].split("|")
    assert (complaint, status) == ("", "0")
    branch = room.account.client("codecommit").get_branch(repositoryName="code", branchName="main")["branch"]
    assert branch["commitId"] == head
    assert lines[8:10] == ["ClientError True", "ClientError True"]
    assert lines[10] == f"notebook.{REGION}.sagemaker.aws 302 /lab", lines
    logs = room.account.client("logs")
    streams = logs.describe_log_streams(logGroupName="/aws/sagemaker/NotebookInstances")["logStreams"]
    assert f"{NAME}/jupyter.log" in {one["logStreamName"] for one in streams}

    # What the notebook may, Ann may not, and she cannot become its role.
    ann = room.account.client("sagemaker", room.ann)
    refused(ann.create_training_job, **_job(room))
    refused(room.account.client("sts", room.ann).assume_role, RoleArn=room.role, RoleSessionName="ann")

    def trained() -> dict[str, Any]:
        found: dict[str, Any] = room.sagemaker.describe_training_job(TrainingJobName="from-a-cell")
        return found

    until(lambda: trained()["TrainingJobStatus"] != "InProgress", SECONDS)
    job = trained()
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert (job["VpcConfig"]["Subnets"], job["ResourceConfig"]["VolumeKmsKeyId"]) == ([room.vpc.subnet], room.key)
    bucket, _, path = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").partition("/")
    assert room.account.client("s3").head_object(Bucket=bucket, Key=path)["ContentLength"]


def _job(room: Room) -> dict[str, Any]:
    return {
        "TrainingJobName": "by-hand", "RoleArn": f"arn:aws:iam::{room.account.id}:role/Job",
        "AlgorithmSpecification": {"TrainingInputMode": "File", "TrainingImage": IMAGE},
        "OutputDataConfig": {"S3OutputPath": f"s3://models-{room.account.id}/"},
        "ResourceConfig": {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }  # fmt: skip


def _config(room: Room, name: str, text: str) -> None:
    content = base64.b64encode(text.encode()).decode()
    room.sagemaker.create_notebook_instance_lifecycle_config(
        NotebookInstanceLifecycleConfigName=name, OnCreate=[{"Content": content}]
    )


@pytest.mark.control("EXP-06", "GRD-16", "PRM-03")
@pytest.mark.control("ENC-05", lacking="file systems of Studio, feature stores")
@pytest.mark.control("SVR-01", lacking="credentials that are seen to rotate")
def test_what_cannot_be_made_fails_and_says_why(room: Room) -> None:
    _config(room, "broken", "#!/bin/bash\necho about to fail as $(whoami)\nexit 3\n")
    room.sagemaker.create_notebook_instance(**room.given(NotebookInstanceName="broken", LifecycleConfigName="broken"))
    told = room.settled("broken")
    assert (
        told["NotebookInstanceStatus"] == "Failed" and "failed with exit status 3 (OnCreate)" in told["FailureReason"]
    )
    logs = room.account.client("logs")
    [event] = logs.get_log_events(
        logGroupName="/aws/sagemaker/NotebookInstances", logStreamName="broken/LifecycleConfigOnCreate"
    )["events"]
    assert event["message"] == "about to fail as root"
    room.sagemaker.delete_notebook_instance(NotebookInstanceName="broken")

    kms = room.account.client("kms")
    dead = kms.create_key()["KeyMetadata"]["Arn"]
    kms.disable_key(KeyId=dead)
    foreign = room.platform.account().client("kms").create_key()["KeyMetadata"]["Arn"]
    for name, key, type, why in (
        ("dead", dead, "ml.m5.xlarge", "DisabledException"), ("foreign", foreign, "ml.c5.xlarge", "AccessDenied"),
    ):  # fmt: skip
        given = room.given(NotebookInstanceName=name, KmsKeyId=key, InstanceType=type)
        room.sagemaker.create_notebook_instance(**given)
        told = room.settled(name)
        assert told["NotebookInstanceStatus"] == "Failed" and why in told["FailureReason"], told
    ann = room.account.client("sagemaker", room.ann)
    refused(ann.start_notebook_instance, NotebookInstanceName="dead")  # nobody's: it has no owner
    arn = room.account.role("Untrusting", allow("*"))
    with pytest.raises(ClientError, match="Could not assume role"):
        room.sagemaker.create_notebook_instance(**room.given(RoleArn=arn))
    # A stack of whoever may not hand the role over is undone, and its events say why.
    maker = room.account.role("Maker", allow("cloudformation:*", "sagemaker:*", "ec2:Describe*"))
    stacks = Stacks(room.account, room.account.as_role("Maker"))
    body = (room.mission / "policies" / "85-cloudformation-notebook-lifecycle.json").read_text()
    values = {**_values(room, "mine"), "ExecutionRoleArn": room.role}
    parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]
    assert stacks.create("mine", body, Parameters=parameters)["StackStatus"] == "ROLLBACK_COMPLETE", maker
    assert any(name == "Notebook" and "iam:PassRole" in str(why) for name, _, why in stacks.story("mine"))
    listed = room.sagemaker.list_notebook_instances(StatusEquals="Failed", SortOrder="Descending")
    assert [one["NotebookInstanceName"] for one in listed["NotebookInstances"]][-2:] == ["foreign", "dead"]


def test_what_is_not_there_is_refused_by_name(room: Room) -> None:
    for member, value in (
        ("AcceleratorTypes", ["ml.eia2.medium"]), ("IpAddressType", "dualstack"), ("PlatformIdentifier", "notebook-al1-v1"),
    ):  # fmt: skip
        with pytest.raises(ClientError, match=member):
            room.sagemaker.create_notebook_instance(**room.given(**{member: value}))
    for more in ({"LifecycleConfigName": "none"}, {"DefaultCodeRepository": "none"}):
        with pytest.raises(ClientError, match="Could not find"):
            room.sagemaker.create_notebook_instance(**room.given(**more))


@pytest.mark.control("EXP-03")
def test_files_survive_a_kill_and_a_stop(room: Room, running: Running) -> None:
    browser = room.opened()
    kernel = browser.kernel()
    kernel.run("import os; open('killed.txt', 'w').write('there in the clear'); os.sync()")
    kernel.close()
    browser.close()
    running.kill()
    running.launch()
    assert room.settled()["NotebookInstanceStatus"] == "InService"
    browser = room.opened()
    status, told = browser.ask("GET", "/api/contents/killed.txt")
    browser.close()
    assert status == 200 and json.loads(told)["content"] == "there in the clear"
    ann = room.account.client("sagemaker", room.ann)
    ann.stop_notebook_instance(NotebookInstanceName=NAME)
    assert room.settled()["NotebookInstanceStatus"] == "Stopped"
    with pytest.raises(ClientError, match="InService"):
        room.url()
    kept = on_disk(running.data / "notebooks")
    assert kept and not any(lies_in(one, b"there in the clear") for one in kept)
    room.sagemaker.update_notebook_instance(NotebookInstanceName=NAME, VolumeSizeInGB=6)
    assert room.settled()["NotebookInstanceStatus"] == "Stopped"
    ann.start_notebook_instance(NotebookInstanceName=NAME)
    assert room.settled()["NotebookInstanceStatus"] == "InService"
    browser = room.opened()
    status, told = browser.ask("GET", "/api/contents/killed.txt")
    browser.close()
    assert status == 200 and json.loads(told)["content"] == "there in the clear"


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    images.build("notebook")
    yield from moved(tmp_path_factory.mktemp("timed"))


@pytest.mark.control("EXP-06")
def test_a_script_has_five_minutes(timed: Moved) -> None:
    role = Account(timed, HOME, "home", timed.administrator).role("Execution", allow("logs:*"), trust=SERVICE)
    client = timed.client("sagemaker")
    content = base64.b64encode(b"#!/bin/bash\necho waiting\nsleep 3000\n").decode()
    client.create_notebook_instance_lifecycle_config(
        NotebookInstanceLifecycleConfigName="slow", OnStart=[{"Content": content}]
    )
    given = {"NotebookInstanceName": "slow", "InstanceType": "ml.t3.medium", "RoleArn": role}
    client.create_notebook_instance(**given, LifecycleConfigName="slow")
    logs = timed.client("logs")

    def waiting() -> bool:
        try:
            found = logs.get_log_events(
                logGroupName="/aws/sagemaker/NotebookInstances", logStreamName="slow/LifecycleConfigOnStart"
            )["events"]
        except ClientError:
            return False
        return [one["message"] for one in found] == ["waiting"]

    until(waiting, SECONDS)

    def told() -> list[str]:
        return [
            one["detail"]["NotebookInstanceStatus"]
            for one in timed.told
            if one.get("detail-type") == "SageMaker Notebook Instance State Change"
        ]

    with timed.days_later(301 / 86400):
        until(lambda: told() == ["Pending", "Failed"], SECONDS)
    reason = client.describe_notebook_instance(NotebookInstanceName="slow")["FailureReason"]
    assert "notebook-instance-lifecycle-config/slow" in reason and "took longer than 5 minutes (OnStart)" in reason

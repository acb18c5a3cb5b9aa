"""The pipeline's chain of roles, its bucket and its key, with real sessions: what each may, and that the next may not.

Services take roles A and A2 on in their own tests; here each trusts the account's deploying role for the moment in which a
session is made.
"""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest

from tests.platform import Keys
from tests.stories.landing.zone import DENIED, Zone, refused
from tests.stories.sagemaker.conftest import IMAGE, archive
from tests.waiting import until

KMS: dict[str, Any] = {"ServerSideEncryption": "aws:kms"}


def _then(zone: Zone, arn: str, keys: Keys) -> Keys:
    return zone.platform.assume(arn, keys, "pipeline")


@pytest.mark.control("XAC-02", "XAC-04", "XAC-05", "XAC-06")
@pytest.mark.control("SVR-06", lacking="Glue")
def test_a_leads_to_b_and_a2_to_c(zone: Zone) -> None:
    a, a2 = (zone.service("shared-services", zone.pipeline_role(f"CodePipelineRole{one}")) for one in ("A", "A2"))
    b, c = zone.arn("test", "CrossAccountRoleB"), zone.arn("production", "CrossAccountRoleC")
    in_test = _then(zone, b, a)
    in_production = _then(zone, c, a2)
    told = zone.platform.client("sts", in_test).get_caller_identity()
    assert told["Account"] == zone.ids["test"] and "CrossAccountRoleB" in told["Arn"]
    for arn, keys in ((c, a), (b, a2), (c, in_test), (b, in_production)):
        refused(DENIED, zone.platform.client("sts", keys).assume_role, RoleArn=arn, RoleSessionName="thief")
    # Neither the accounts' administrators nor people take them on, nor the roles that only services are for.
    for account, arn in (
        ("shared-services", b), ("test", b), ("production", c),
        ("shared-services", zone.pipeline_role("CodePipelineRoleA")),
        ("test", zone.arn("test", "StackRole")), ("test", zone.arn("test", "StateMachineRole")),
        ("test", zone.arn("test", "TrainingRole")), ("production", zone.arn("production", "FunctionRole")),
    ):  # fmt: skip
        asked = {"RoleArn": arn, "RoleSessionName": "thief"}
        refused(DENIED, zone.account(account).client("sts").assume_role, **asked)
    mlops = zone.platform.client("sts", zone.person("shared-services", "MLOps"))
    refused(DENIED, mlops.assume_role, RoleArn=b, RoleSessionName="thief")
    # Role B runs its stack with the stack role, and no other; what the stack makes, the stack role makes.
    stacks = zone.platform.client("cloudformation", in_test)
    states = zone.platform.client("stepfunctions", in_test)
    definition = {"StartAt": "End", "States": {"End": {"Type": "Succeed"}}}
    machine = {
        "Type": "AWS::StepFunctions::StateMachine",
        "Properties": {
            "StateMachineName": "bank-train-chain", "RoleArn": zone.arn("test", "StateMachineRole"),
            "DefinitionString": json.dumps(definition),
        },
    }  # fmt: skip
    asked = {
        "StackName": "bank-train-chain",
        "TemplateBody": json.dumps({"Resources": {"Machine": machine}}),
        "Tags": [{"Key": name, "Value": "mortgage"} for name in ("owner", "environment", "project")],
    }
    refused(DENIED, stacks.create_stack, **asked, RoleARN=zone.arn("test", "StateMachineRole"))
    refused(DENIED, stacks.create_stack, **{**asked, "StackName": "other"}, RoleARN=zone.arn("test", "StackRole"))
    refused(
        DENIED, states.create_state_machine, name="mine", definition="{}", roleArn=zone.arn("test", "StateMachineRole")
    )
    id_ = stacks.create_stack(**asked, RoleARN=zone.arn("test", "StackRole"))["StackId"]
    stacks.get_waiter("stack_create_complete").wait(StackName=id_, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    arn = f"arn:aws:states:us-east-1:{zone.ids['test']}:stateMachine:bank-train-chain"
    assert states.start_execution(stateMachineArn=arn)["executionArn"]
    other = arn.replace("bank-train-chain", "other")
    refused(DENIED, states.start_execution, stateMachineArn=other)
    refused(DENIED, states.delete_state_machine, stateMachineArn=arn)
    refused(DENIED, states.update_state_machine, stateMachineArn=arn, definition=json.dumps(definition))


@pytest.mark.control("DAT-08", "XAC-07")
@pytest.mark.control("XAC-08")
@pytest.mark.control("XAC-01", "XAC-03", "XAC-09")
def test_the_artifact_bucket_is_the_pipelines(zone: Zone) -> None:
    bucket = zone.bucket("artifacts", "shared-services")
    a = zone.service("shared-services", zone.pipeline_role("CodePipelineRoleA"))
    a2 = zone.service("shared-services", zone.pipeline_role("CodePipelineRoleA2"))
    b, c = zone.arn("test", "CrossAccountRoleB"), zone.arn("production", "CrossAccountRoleC")
    in_test, in_production = _then(zone, b, a), _then(zone, c, a2)
    clients = {
        name: zone.platform.client("s3", keys)
        for name, keys in (("a", a), ("a2", a2), ("b", in_test), ("c", in_production))
    }
    given = {"Bucket": bucket, "Key": "run/source.zip"}
    clients["a"].put_object(**given, Body=b"source", **KMS)
    for client in clients.values():
        assert client.get_object(**given)["Body"].read() == b"source"
    clients["b"].put_object(Bucket=bucket, Key="run/out.json", Body=b"{}", **KMS)
    assert clients["a"].get_object(Bucket=bucket, Key="run/out.json")["Body"].read() == b"{}"
    refused(DENIED, clients["b"].put_object, Bucket=bucket, Key="run/bare", Body=b"x")
    refused(DENIED, clients["b"].delete_object, **given)
    plain = zone.platform.client("s3", in_test, plain=True)
    refused(DENIED, plain.get_object, **given)
    # No person: an administrator of the account, the auditor, MLOps, a fourth account, Role A beyond its bucket.
    for keys in (
        zone.account("shared-services").keys, zone.person("shared-services", "Auditor"),
        zone.person("shared-services", "MLOps"), zone.account("data-management").keys,
        zone.person("data-science", "DataScientist-mortgage"),
    ):  # fmt: skip
        refused(DENIED, zone.platform.client("s3", keys).get_object, **given)
    refused(DENIED, clients["a"].get_object, Bucket=zone.bucket("models", "shared-services"), Key="x")
    # All three are needed: identity, bucket and key. Without Test in the key's policy the same read is refused.
    kms, key = zone.account("shared-services").client("kms"), zone.key("shared-services", "artifact")
    before = kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"]
    held = json.loads(before)
    for one in held["Statement"]:
        if one["Sid"] == "UseByTestAndProductionAccounts":
            one["Principal"]["AWS"] = f"arn:aws:iam::{zone.ids['production']}:root"
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=json.dumps(held))
    try:
        assert "kms" in refused(DENIED, clients["b"].get_object, **given).lower()
        assert clients["c"].get_object(**given)["Body"].read() == b"source"
    finally:
        kms.put_key_policy(KeyId=key, PolicyName="default", Policy=before)
    assert clients["b"].get_object(**given)["Body"].read() == b"source"


@pytest.mark.control("ACC-06", lacking="tables")
@pytest.mark.control("XVE-03")
@pytest.mark.control("ACC-02")
def test_data_models_and_images_cross_accounts_as_declared(zone: Zone) -> None:
    published, models = zone.bucket("published", "data-management"), zone.bucket("models", "shared-services")
    engineer = zone.platform.client("s3", zone.person("data-management", "DataEngineer"))
    for name in ("mortgage/x.csv", "secret/y.csv"):
        engineer.put_object(Bucket=published, Key=name, Body=b"1,2")
    notebook = zone.platform.client("s3", zone.service("data-science", zone.arn("data-science", "NotebookRole")))
    assert notebook.get_object(Bucket=published, Key="mortgage/x.csv")["Body"].read() == b"1,2"
    assert notebook.list_objects_v2(Bucket=published, Prefix="mortgage/")["KeyCount"] == 1
    refused(DENIED, notebook.get_object, Bucket=published, Key="secret/y.csv")
    refused(DENIED, notebook.list_objects_v2, Bucket=published, Prefix="secret/")
    refused(DENIED, notebook.put_object, Bucket=published, Key="mortgage/z.csv", Body=b"x", **KMS)
    # Test's training role writes a model into Shared Services, Production's model role reads it and changes nothing.
    train = zone.platform.client("s3", zone.service("test", zone.arn("test", "TrainingRole")))
    serve = zone.platform.client("s3", zone.service("production", zone.arn("production", "ModelRole")))
    name = f"{zone.ids['test']}/job/output/model.tar.gz"
    train.put_object(Bucket=models, Key=name, Body=b"model")
    refused(DENIED, serve.get_object, Bucket=models, Key=name)
    tags = [{"Key": key, "Value": "mortgage"} for key in ("owner", "environment", "project")]
    workflow = zone.platform.client("s3", zone.service("test", zone.arn("test", "StateMachineRole")))
    workflow.put_object_tagging(Bucket=models, Key=name, Tagging={"TagSet": tags})
    assert serve.get_object(Bucket=models, Key=name)["Body"].read() == b"model"
    refused(DENIED, serve.put_object, Bucket=models, Key=name, Body=b"other")
    refused(DENIED, train.put_object, Bucket=models, Key="elsewhere", Body=b"x")
    refused(DENIED, train.get_object, Bucket=published, Key="mortgage/x.csv")
    # The registry: Test registers, Production reads, a fourth account sees nothing.
    group = f"arn:aws:sagemaker:us-east-1:{zone.ids['shared-services']}:model-package-group/mortgage-denial"
    stack = zone.platform.client("sagemaker", zone.service("production", zone.arn("production", "StackRole")))
    assert isinstance(stack.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"], list)
    refused(
        DENIED, zone.account("data-management").client("sagemaker").list_model_packages, ModelPackageGroupName=group
    )
    registry = zone.ids["shared-services"]
    pull = {"registryId": registry, "repositoryName": "mortgage/training", "imageIds": [{"imageTag": "none"}]}
    puller = zone.platform.client("ecr", zone.service("test", zone.arn("test", "TrainingRole")))
    assert puller.batch_get_image(**pull)["failures"][0]["failureCode"] == "ImageNotFound"
    refused(DENIED, zone.account("data-management").client("ecr").batch_get_image, **pull)
    science = zone.account("data-science").client("ecr")
    refused(DENIED, science.delete_repository, registryId=registry, repositoryName="mortgage/training")


def _training(zone: Zone, account: str, name: str, ssm: Any, sources: dict[str, str]) -> dict[str, Any]:
    """A job in the account's network, under its key, with a channel from each source; ssm: of who may know where those
    are. It runs train.py of `code`."""
    told = ssm.get_parameters_by_path(Path="/bank/network")["Parameters"]
    where = {one["Name"].rpartition("/")[2]: one["Value"] for one in told}
    kind = {"S3DataType": "S3Prefix"}
    channels = [
        {"ChannelName": name, "DataSource": {"S3DataSource": {**kind, "S3Uri": uri}}} for name, uri in sources.items()
    ]
    return {
        "TrainingJobName": name, "RoleArn": zone.arn(account, "TrainingRole"), "EnableNetworkIsolation": True,
        "EnableInterContainerTrafficEncryption": True, "InputDataConfig": channels,
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "VpcConfig": {"Subnets": where["subnets"].split(","), "SecurityGroupIds": [where["security-group"]]},
        "OutputDataConfig": {"S3OutputPath": f"s3://{zone.bucket('models', 'shared-services')}/{zone.ids[account]}"},
        "ResourceConfig": {
            "InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1,
            "VolumeKmsKeyId": ssm.get_parameter(Name="/bank/key")["Parameter"]["Value"],
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 120},
        "HyperParameters": {
            "sagemaker_program": '"train.py"',
            "sagemaker_submit_directory": '"/opt/ml/input/data/code/sourcedir.tar.gz"',
        },
        "Tags": [{"Key": name, "Value": "test"} for name in ("owner", "environment", "project")],
    }  # fmt: skip


def _trained(client: Any, name: str) -> str:
    """Where the model lies of a job that succeeds."""

    def over() -> Any:
        job = client.describe_training_job(TrainingJobName=name)
        return job if job["TrainingJobStatus"] != "InProgress" else None

    job = until(over, 120)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    return str(job["ModelArtifacts"]["S3ModelArtifacts"])


@pytest.mark.control("ACC-10")
@pytest.mark.control("ACC-11", "XVE-03")
def test_a_job_trains_in_test_under_all_guardrails(zone: Zone) -> None:
    """Started by the state machine's role, in the account's network, with a channel from each of two accounts."""
    data, models, test = zone.bucket("data", "test"), zone.bucket("models", "shared-services"), zone.ids["test"]
    prepare = zone.platform.client("s3", zone.service("test", zone.arn("test", "ProcessingRole")))
    script = "import os, shutil\nprint('rows', len(open('/opt/ml/input/data/train/a.csv').readlines()))\n"
    script += "shutil.copy('/opt/ml/input/data/before/model.txt', '/opt/ml/model/model.txt')\n"
    prepare.put_object(Bucket=data, Key="code/sourcedir.tar.gz", Body=archive(train__py=script.encode()))
    prepare.put_object(Bucket=data, Key="train/a.csv", Body=b"1,2\n3,4\n")
    train = zone.platform.client("s3", zone.service("test", zone.arn("test", "TrainingRole")))
    train.put_object(Bucket=models, Key=f"{test}/before/model.txt", Body=b"before")
    sources = {"train": f"s3://{data}/train/", "before": f"s3://{models}/{test}/before/", "code": f"s3://{data}/code/"}
    given = _training(zone, "test", "mortgage-1", zone.account("test").client("ssm"), sources)
    workflow = zone.platform.client("sagemaker", zone.service("test", zone.arn("test", "StateMachineRole")))
    workflow.create_training_job(**given)
    reader = zone.person("test", "TestReader-mortgage")
    looking = zone.platform.client("sagemaker", reader)
    name = _trained(looking, "mortgage-1").partition(f"{models}/")[2]
    serve = zone.platform.client("s3", zone.service("production", zone.arn("production", "ModelRole")))
    tagging = zone.platform.client("s3", zone.service("test", zone.arn("test", "StateMachineRole")))
    tagging.put_object_tagging(Bucket=models, Key=name, Tagging={"TagSet": given["Tags"]})
    told_of = serve.head_object(Bucket=models, Key=name)
    assert told_of["ServerSideEncryption"] == "aws:kms" and told_of["SSEKMSKeyId"] == zone.key(
        "shared-services", "model"
    )
    logs, group = zone.platform.client("logs", reader), "/aws/sagemaker/TrainingJobs"
    [stream] = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="mortgage-1/")["logStreams"]
    lines = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
    assert any("rows 2" in one["message"] for one in lines)
    for call, asked in (
        ("stop_training_job", {"TrainingJobName": "mortgage-1"}),
        ("create_training_job", {**given, "TrainingJobName": "m2"}),
        ("delete_model", {"ModelName": "m"}), ("create_endpoint", {"EndpointName": "e", "EndpointConfigName": "c"}),
    ):  # fmt: skip
        refused(DENIED, getattr(looking, call), **asked)
    refused(DENIED, zone.platform.client("s3", reader).put_object, Bucket=models, Key="x", Body=b"x")


_LEARNS = """
import csv, json
from sklearn.linear_model import LogisticRegression
rows = [[float(one) for one in row] for row in csv.reader(open("/opt/ml/input/data/train/a.csv"))]
found = LogisticRegression().fit([[income] for income, _ in rows], [paid for _, paid in rows])
held = {"slope": found.coef_[0][0], "border": -found.intercept_[0] / found.coef_[0][0]}
json.dump(held, open("/opt/ml/model/model.json", "w"))
"""


@pytest.mark.control("ACC-07")
def test_a_notebook_in_data_science_trains_on_its_accounts_data_and_nowhere_else(zone: Zone) -> None:
    """What a scientist's notebook does: looks at data, has a job learn from it, and reads back what it learnt."""
    data, role = zone.bucket("data", "data-science"), zone.arn("data-science", "NotebookRole")
    keys = zone.service("data-science", role)
    s3, sagemaker = zone.platform.client("s3", keys), zone.platform.client("sagemaker", keys)
    s3.put_object(Bucket=data, Key="loans/a.csv", Body="".join(f"{one},{int(one > 40)}\n" for one in range(80)))
    s3.put_object(Bucket=data, Key="loans-code/sourcedir.tar.gz", Body=archive(train__py=_LEARNS.encode()))
    [found] = s3.list_objects_v2(Bucket=data, Prefix="loans/")["Contents"]
    assert s3.get_object(Bucket=data, Key=found["Key"])["Body"].read().startswith(b"0,0\n1,0\n")
    sources = {"train": f"s3://{data}/loans/", "code": f"s3://{data}/loans-code/"}
    given = _training(zone, "data-science", "loans", zone.platform.client("ssm", keys), sources)
    sagemaker.create_training_job(**given)
    bucket, _, name = _trained(sagemaker, "loans").removeprefix("s3://").partition("/")
    with tarfile.open(fileobj=io.BytesIO(s3.get_object(Bucket=bucket, Key=name)["Body"].read())) as model:
        file = model.extractfile("model.json")
        assert file is not None
        learnt = json.load(file)
    assert learnt["slope"] > 0 and 38 < learnt["border"] < 43  # who has more than 40 pays

    # Not in Test, where a scientist may look, nor in Production, where there is nothing for one; nor by its role elsewhere.
    there = {**given, "RoleArn": zone.arn("test", "TrainingRole")}
    reader = zone.platform.client("sagemaker", zone.person("test", "TestReader-mortgage"))
    refused(DENIED, reader.create_training_job, **there)
    refused("ForbiddenException", zone.person, "production", "DataScientist-mortgage")
    for account in ("test", "production"):
        asked = {"RoleArn": zone.arn(account, "ModelRole"), "RoleSessionName": "scientist"}
        refused(DENIED, zone.platform.client("sts", keys).assume_role, **asked)
    refused(DENIED, s3.get_object, Bucket=bucket, Key=f"{zone.ids['test']}/job/output/model.tar.gz")

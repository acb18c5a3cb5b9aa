"""The mission's own state machine and template, as they are printed: a stack makes the machine of a definition in another
account's bucket; it processes, trains, makes a model and an endpoint, with the printed roles; and takes its Catch path when
a job fails."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.cloudformation.stacks import Stacks
from tests.stories.codepipeline.releases import CODEPIPELINE, Releases, action, stage
from tests.stories.ec2.conftest import make_vpc
from tests.stories.ecr import oci
from tests.stories.ecr.registry import Registry
from tests.stories.sagemaker import serving  # noqa: F401 - its answer is that of the endpoint
from tests.stories.sagemaker.conftest import Workshop
from tests.stories.sagemaker.test_own_images import ANSWER, SERVE
from tests.stories.states.conftest import Machines

PROCESS = """
set -e
mkdir -p /opt/ml/processing/train
sed 's/raw/fit/' /opt/ml/processing/input/a.csv >/opt/ml/processing/train/a.csv
"""
TRAIN = "set -e; mkdir -p /opt/ml/model; cp /opt/ml/input/data/train/a.csv /opt/ml/model/weights"


def _filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


@pytest.fixture
def printed(workshop: Workshop, neighbour: Account, mission: Path, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The printed definition and roles, filled in for an account of ours."""
    account: Account = workshop.account
    folder = mission / "policies"
    registry = Registry(account, tmp_path)
    images = {}
    env = {"Env": ["PATH=/usr/local/bin:/bin", "GREETING=hello"]}
    for name, scripts in (
        ("process", {"program": PROCESS}),
        ("train", {"train": TRAIN}),
        ("serve", {"program": SERVE, "answer": ANSWER}),
    ):
        uri = registry.create(f"team/{name}")
        entry = {"Entrypoint": ["program"]} if name != "train" else {}
        registry.push(f"{uri}:one", [oci.system, oci.scripts(**scripts)], {**env, **entry})
        images[name] = f"{uri}:one"
    vpc = make_vpc(account)
    key = account.client("kms").create_key()["KeyMetadata"]["Arn"]
    pull = (
        "ecr:BatchGetImage",
        "ecr:GetDownloadUrlForLayer",
        "ecr:BatchCheckLayerAvailability",
        "ecr:GetAuthorizationToken",
    )
    network = ("ec2:Describe*", "ec2:CreateNetworkInterface*", "ec2:DeleteNetworkInterface*")
    account.client("iam").put_role_policy(
        RoleName="Execution",
        PolicyName="more",
        PolicyDocument=json.dumps(allow(*pull, *network, "cloudwatch:PutMetricData")),
    )
    values = {
        "<REGION>": "us-east-1",
        "<TEST_ACCOUNT_ID>": account.id,
        "<ACCOUNT_ID>": account.id,
        "<SAGEMAKER_PROCESSING_EXECUTION_ROLE_ARN>": workshop.role,
        "<SAGEMAKER_TRAINING_EXECUTION_ROLE_ARN>": workshop.role,
        "<SAGEMAKER_MODEL_EXECUTION_ROLE_ARN>": workshop.role,
        "<STATE_MACHINE_ROLE_NAME>": "StepFunctions",
        "<SHARED_SERVICES_ACCOUNT_ID>": neighbour.id,
        "<ARTIFACT_BUCKET_NAME>": f"artifacts-{neighbour.id}",
    }
    given = {
        "ProcessingRoleArn": workshop.role,
        "TrainingRoleArn": workshop.role,
        "ModelRoleArn": workshop.role,
        "ProcessingImageURL": images["process"],
        "TrainingImageURL": images["train"],
        "InferenceImageURL": images["serve"],
        "InstanceType": "ml.m5.large",
        "KmsKeyArn": key,
        "RawDataS3Uri": f"s3://{workshop.bucket}/raw/",
        "TrainDataS3Uri": f"s3://{workshop.bucket}/train/",
        "ModelS3OutputPath": f"s3://{workshop.bucket}/models",
        "SubnetId1": vpc.subnet,
        "SubnetId2": vpc.subnet,
        "SecurityGroupId": vpc.group,
        "Owner": "ann",
        "Environment": "test",
        "Project": "mortgages",
    }
    iam = account.client("iam")
    roles = {}
    for name, trust, policy in (
        ("StepFunctions", "83-trust-step-functions-role.json", "77-step-functions-role-test.json"),
        ("CloudFormation", "82-trust-cloudformation-roles.json", "76-cloudformation-role-test.json"),
    ):
        trusted = _filled((folder / trust).read_text(), values)
        roles[name] = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trusted)["Role"]["Arn"]
        document = _filled((folder / policy).read_text(), values)
        iam.put_role_policy(RoleName=name, PolicyName="printed", PolicyDocument=document)
    s3, bucket = neighbour.client("s3"), values["<ARTIFACT_BUCKET_NAME>"]
    s3.create_bucket(Bucket=bucket)
    reads = {
        "Effect": "Allow",
        "Principal": {"AWS": roles["CloudFormation"]},
        "Action": "s3:GetObject*",
        "Resource": f"arn:aws:s3:::{bucket}/open/*",
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [reads]}))
    # Nothing is changed but the half minute that it waits for the endpoint.
    definition = (folder / "62-training-state-machine.asl.json").read_text().replace('"Seconds": 30', '"Seconds": 1')
    for name, body in (("open/machine", definition), ("open/wrong", "{}"), ("closed/machine", definition)):
        s3.put_object(Bucket=bucket, Key=f"{name}.asl.json", Body=body.encode())
    template = (folder / "61-cloudformation-training-state-machine.json").read_text()
    parameters = {**given, "DefinitionBucket": bucket, "StateMachineRoleArn": roles["StepFunctions"]}
    yield {"template": template, "parameters": parameters, "roles": roles, "vpc": vpc}


def _stack(stacks: Stacks, printed: dict[str, Any], name: str, key: str, template: str = "") -> dict[str, Any]:
    """A stack of the printed template, made with the printed role."""
    given = {**printed["parameters"], "DefinitionKey": f"{key}.asl.json"}
    return stacks.create(
        name,
        template or printed["template"],
        Parameters=[{"ParameterKey": one, "ParameterValue": value} for one, value in given.items()],
        RoleARN=printed["roles"]["CloudFormation"],
    )


@pytest.mark.control("EXP-19")
@pytest.mark.control("PEX-05", "STG-05")
def test_the_printed_machine_trains_and_deploys_when_a_pipeline_runs_it(
    workshop: Workshop, printed: dict[str, Any]
) -> None:
    account = workshop.account
    workshop.s3.put_object(Bucket=workshop.bucket, Key="raw/a.csv", Body=b"raw,1\n")
    machines = Machines(account, account.client("stepfunctions"))
    stacks = Stacks(account)
    for name, key, why in (("hidden", "closed/machine", "AccessDenied"), ("wrong", "open/wrong", "InvalidDefinition")):
        refused = _stack(stacks, printed, name, key)
        assert refused["StackStatus"] == "ROLLBACK_COMPLETE", refused
        assert any(why in reason for _, _, reason in stacks.story(name)), stacks.story(name)
    lacking = printed["template"].replace('"RoleArn": {', '"Comment": {')
    with pytest.raises(ClientError, match="RoleArn"):
        _stack(stacks, printed, "lacking", "open/machine", lacking)
    made = _stack(stacks, printed, "training", "open/machine")
    assert made["StackStatus"] == "CREATE_COMPLETE", stacks.story("training")
    [machine] = [one["OutputValue"] for one in made["Outputs"] if one["OutputKey"] == "StateMachineARN"]
    described = machines.states.describe_state_machine(stateMachineArn=machine)
    assert machine.endswith(":stateMachine:SM-train-Step_Function")
    assert described["roleArn"] == printed["roles"]["StepFunctions"]
    assert printed["parameters"]["TrainingImageURL"] in described["definition"] and "${T" not in described["definition"]
    releases = _releases(workshop)
    run = stage("Run", action("Train", "Invoke", "StepFunctions", {"StateMachineArn": machine}))
    pipeline = releases.made(run, wait=False)
    first = releases.newest(pipeline)
    assert releases.over(pipeline, first, 150)["status"] == "Succeeded", releases.actions(pipeline, first)
    arn = releases.actions(pipeline, first)["Train"]["output"]["executionResult"]["externalExecutionId"]
    found = machines.ended(arn)
    assert found["status"] == "SUCCEEDED", found
    output, name = found["output"], arn.rpartition(":")[2]
    assert output["processing"]["ProcessingJobStatus"] == "Completed"
    assert output["training"]["TrainingJobStatus"] == "Completed"
    assert output["endpointState"] == {"Status": "InService"}
    assert output["training"]["ModelArtifacts"]["S3ModelArtifacts"].startswith(
        f"s3://{workshop.bucket}/models/train-{name}/"
    )
    entered = [
        one["stateEnteredEventDetails"]["name"] for one in machines.events(arn) if one["type"].endswith("Entered")
    ]
    assert entered[:5] == ["ProcessData", "TrainModel", "CreateModel", "CreateTestEndpointConfig", "DeployTestEndpoint"]
    body = account.client("sagemaker-runtime").invoke_endpoint(EndpointName=f"test-{name}", Body=b"x")["Body"].read()
    assert b"seen x" in body
    # A job that fails takes the Catch path, and the pipeline's stage says so.
    workshop.s3.delete_object(Bucket=workshop.bucket, Key="raw/a.csv")
    workshop.s3.put_object(Bucket=workshop.bucket, Key="raw/b.csv", Body=b"raw,1\n")
    second = releases.started(pipeline)
    assert releases.over(pipeline, second, 90)["status"] == "Failed"
    assert releases.stages(pipeline)["Run"]["latestExecution"]["status"] == "Failed"
    arn = releases.actions(pipeline, second)["Train"]["output"]["executionResult"]["externalExecutionId"]
    found = machines.ended(arn)
    assert (found["status"], found["error"]) == ("FAILED", "TrainingWorkflowFailed")
    assert "TrainingWorkflowFailed" in releases.error(pipeline, second, "Train")["message"]
    [failed] = [one for one in machines.events(arn) if one["type"] == "TaskFailed"]
    told = failed["taskFailedEventDetails"]
    assert told["error"] == "States.TaskFailed"
    assert json.loads(told["cause"])["ProcessingJobStatus"] == "Failed"


def _releases(workshop: Workshop) -> Releases:
    """Pipelines of the account, with a source that is there."""
    account, bucket = workshop.account, f"releases-{workshop.account.id}"
    account.client("s3").create_bucket(Bucket=bucket)
    account.client("s3").put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    key = account.client("kms").create_key()["KeyMetadata"]["Arn"]
    role = account.role("Release", allow("s3:*", "kms:*", "states:*"), trust=CODEPIPELINE)
    made = Releases(account, role, bucket, key, bucket)
    made.commit({"README.md": "what is trained"})
    return made


@pytest.mark.control("EXP-19")
def test_who_stops_an_execution_stops_its_job(workshop: Workshop) -> None:
    account = workshop.account
    jobs = ("sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob", "iam:PassRole")
    role = account.role("Machine", allow(*jobs), trust={"Service": "states.amazonaws.com"})
    machines = Machines(account, account.client("stepfunctions"), role)
    name = workshop.train("import time; time.sleep(100)")
    given = workshop.sagemaker.describe_training_job(TrainingJobName=name)
    workshop.sagemaker.stop_training_job(TrainingJobName=name)
    keys = (
        "AlgorithmSpecification",
        "RoleArn",
        "InputDataConfig",
        "OutputDataConfig",
        "ResourceConfig",
        "StoppingCondition",
    )
    parameters = {key: given[key] for key in keys} | {"HyperParameters": given["HyperParameters"]}
    parameters["AlgorithmSpecification"].pop("MetricDefinitions", None)
    del parameters["OutputDataConfig"]["KmsKeyId"]
    workshop.s3.copy_object(
        Bucket=workshop.bucket, Key="slow.tar.gz", CopySource=f"{workshop.bucket}/{name}/code.tar.gz"
    )
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sagemaker:createTrainingJob.sync",
        "Parameters": {**parameters, "TrainingJobName.$": "$$.Execution.Name"},
        "End": True,
    }
    machine = machines.made({"T": task})
    arn = machines.started(machine, name="stopped-soon")
    machines.until(arn, "TaskSubmitted")
    machines.states.stop_execution(executionArn=arn)
    end = time.monotonic() + 60
    while workshop.sagemaker.describe_training_job(TrainingJobName="stopped-soon")["TrainingJobStatus"] not in (
        "Stopped",
        "Completed",
    ):
        assert time.monotonic() < end
        time.sleep(0.05)
    history = machines.types(arn)
    assert history[-1] == "ExecutionAborted"
    assert workshop.trained("stopped-soon")["TrainingJobStatus"] == "Stopped"

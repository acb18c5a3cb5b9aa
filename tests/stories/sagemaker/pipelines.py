"""Definitions of pipelines, and short ways to run them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import allow
from tests.stories.sagemaker.conftest import IMAGE, Workshop, archive
from tests.stories.sagemaker.test_guardrails import RESOURCES

LOCAL = "/opt/ml/processing"
SPLIT = f"""
import os
rows = open('{LOCAL}/raw/rows.csv').readlines()
for name, part in (('train', rows[:70]), ('validation', rows[70:90]), ('test', rows[90:])):
    open(f'{LOCAL}/{{name}}/{{name}}.csv', 'w').writelines(part)
"""
FIT = """
rows = [tuple(map(float, line.split(','))) for line in open('/opt/ml/input/data/train/train.csv')]
x, y = (sum(part) / len(rows) for part in zip(*rows))
slope = sum((a - x) * (b - y) for a, b in rows) / sum((a - x) ** 2 for a, _ in rows)
open('/opt/ml/model/model.txt', 'w').write(f'{slope} {y - slope * x}')
"""
JUDGE = f"""
import json, tarfile
tarfile.open('{LOCAL}/model/model.tar.gz').extractall('/tmp/model')
slope, start = map(float, open('/tmp/model/model.txt').read().split())
rows = [tuple(map(float, line.split(','))) for line in open('{LOCAL}/test/test.csv')]
error = sum(abs(slope * a + start - b) for a, b in rows) / len(rows)
json.dump({{'metrics': {{'error': {{'value': round(error, 6)}}}}}}, open('{LOCAL}/report/report.json', 'w'))
"""


def get(path: str) -> dict[str, str]:
    return {"Get": path}


def join(*values: Any, on: str = "/") -> dict[str, Any]:
    return {"Std:Join": {"On": on, "Values": list(values)}}


def made(name: str, uri: Any) -> dict[str, Any]:
    return {
        "OutputName": name,
        "S3Output": {"S3Uri": uri, "LocalPath": f"{LOCAL}/{name}", "S3UploadMode": "EndOfJob"},
    }


def given(name: str, uri: Any) -> dict[str, Any]:
    source = {"S3Uri": uri, "LocalPath": f"{LOCAL}/{name}", "S3DataType": "S3Prefix", "S3InputMode": "File"}
    return {"InputName": name, "S3Input": source}


def process(shop: Workshop, name: str, script: str, *inputs: Any, outputs: Any = (), **more: Any) -> dict[str, Any]:
    """A processing step whose code lies in the bucket."""
    shop.s3.put_object(Bucket=shop.bucket, Key=f"code/{name}/run.py", Body=script.encode())
    arguments: dict[str, Any] = {
        "ProcessingResources": {"ClusterConfig": {**RESOURCES, "InstanceCount": get("Parameters.Count")}},
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["python3", f"{LOCAL}/code/run.py"]},
        "RoleArn": shop.role,
        "ProcessingInputs": [given("code", f"s3://{shop.bucket}/code/{name}/"), *inputs],
    }
    if outputs:
        arguments["ProcessingOutputConfig"] = {"Outputs": list(outputs)}
    return {"Name": name, "Type": "Processing", "Arguments": arguments, **more}


def train(shop: Workshop, source: Any, **more: Any) -> dict[str, Any]:
    """A training step whose code lies in the bucket."""
    shop.s3.put_object(Bucket=shop.bucket, Key="code.tar.gz", Body=archive(train__py=FIT.encode()))
    arguments = {
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "RoleArn": shop.role,
        "InputDataConfig": [
            {"ChannelName": "train", "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}}}
        ],
        "OutputDataConfig": {"S3OutputPath": f"s3://{shop.bucket}/models"},
        "ResourceConfig": RESOURCES,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "HyperParameters": {
            "sagemaker_program": '"train.py"',
            "sagemaker_submit_directory": f'"s3://{shop.bucket}/code.tar.gz"',
            "rate": join(get("Parameters.Rate"), on=""),
        },
        "Tags": [{"Key": "team", "Value": "risk"}],
    }
    return {"Name": "Train", "Type": "Training", "Arguments": arguments, **more}


OUTPUT = "ProcessingOutputConfig.Outputs['{}'].S3Output.S3Uri"
PARAMETERS = [
    {"Name": "Count", "Type": "Integer", "DefaultValue": 1},
    {"Name": "Rate", "Type": "Float", "DefaultValue": 0.25, "EnumValues": [0.25, 0.5]},
    {"Name": "Most", "Type": "Float", "DefaultValue": 0.01},
    {"Name": "Raw", "Type": "String"},
]


def definition(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"Version": "2020-12-01", "Metadata": {}, "Parameters": PARAMETERS, "Steps": list(steps), **more}


def governed(shop: Workshop) -> dict[str, Any]:
    """Prepare, train, judge; what is good enough is registered."""
    base, keep = f"s3://{shop.bucket}/run", {"CacheConfig": {"Enabled": True, "ExpireAfter": "P30d"}}
    parts = [made(one, f"{base}/{one}") for one in ("train", "validation", "test")]
    output = f"Steps.Prepare.{OUTPUT}"
    model = get("Steps.Train.ModelArtifacts.S3ModelArtifacts")
    report = [made("report", join(base, get("Execution.PipelineExecutionId"), "report"))]
    files = [{"PropertyFileName": "Report", "OutputName": "report", "FilePath": "report.json"}]
    value = {"Std:JsonGet": {"PropertyFile": get("Steps.Judge.PropertyFiles.Report"), "Path": "metrics.error.value"}}
    container = {"Image": IMAGE, "ModelDataUrl": model}
    good = [
        {"Name": "Model", "Type": "Model", "Arguments": {"ExecutionRoleArn": shop.role, "PrimaryContainer": container}},
        {
            "Name": "Register-RegisterModel",
            "Type": "RegisterModel",
            "Arguments": {
                "ModelPackageGroupName": "lines",
                "ModelApprovalStatus": "PendingManualApproval",
                "InferenceSpecification": {
                    "Containers": [container],
                    "SupportedContentTypes": ["text/csv"],
                    "SupportedResponseMIMETypes": ["text/csv"],
                },
            },
        },
    ]
    bad = [
        {
            "Name": "TooBad",
            "Type": "Fail",
            "Arguments": {"ErrorMessage": join("error above", get("Parameters.Most"), on=" ")},
        }
    ]
    return definition(
        process(shop, "Prepare", SPLIT, given("raw", get("Parameters.Raw")), outputs=parts, **keep),
        train(shop, get(output.format("train")), **keep),
        process(
            shop, "Judge", JUDGE, given("model", model), given("test", get(output.format("test"))), outputs=report,
            PropertyFiles=files,
        ),
        {
            "Name": "Check",
            "Type": "Condition",
            "Arguments": {
                "Conditions": [{"Type": "LessThanOrEqualTo", "LeftValue": value, "RightValue": get("Parameters.Most")}],
                "IfSteps": good,
                "ElseSteps": bad,
            },
        },
        PipelineExperimentConfig={
            "ExperimentName": get("Execution.PipelineName"), "TrialName": get("Execution.PipelineExecutionId"),
        },
    )  # fmt: skip


def furnish(workshop: Workshop) -> None:
    runs = json.dumps(allow("sagemaker:*", "iam:PassRole"))
    workshop.account.client("iam").put_role_policy(RoleName="Execution", PolicyName="pipelines", PolicyDocument=runs)
    rows = b"".join(b"%d,%d\n" % (number, 3 * number + 1) for number in range(100))
    workshop.s3.put_object(Bucket=workshop.bucket, Key="raw/rows.csv", Body=rows)


def create(shop: Workshop, name: str, told: dict[str, Any], **more: Any) -> str:
    arn: str = shop.sagemaker.create_pipeline(
        PipelineName=name, PipelineDefinition=json.dumps(told), RoleArn=shop.role, **more
    )["PipelineArn"]
    return arn


def start(shop: Workshop, name: str, *, parameters: dict[str, str] | None = None, **more: Any) -> str:
    values = {"Raw": f"s3://{shop.bucket}/raw/", **(parameters or {})}
    arn: str = shop.sagemaker.start_pipeline_execution(
        PipelineName=name, PipelineParameters=[{"Name": key, "Value": value} for key, value in values.items()], **more
    )["PipelineExecutionArn"]
    return arn


def over(shop: Workshop, arn: str, seconds: int = 90) -> dict[str, Any]:
    """The execution when it has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found: dict[str, Any] = shop.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
        if found["PipelineExecutionStatus"] not in ("Executing", "Stopping"):
            return found
        time.sleep(0.05)
    raise AssertionError(f"{arn} does not end: {steps(shop, arn)}")


def steps(shop: Workshop, arn: str) -> dict[str, dict[str, Any]]:
    """Its steps by name, oldest first."""
    listed = shop.sagemaker.list_pipeline_execution_steps(
        PipelineExecutionArn=arn, SortOrder="Ascending", MaxResults=100
    )
    return {one["StepName"]: one for one in listed["PipelineExecutionSteps"]}


def reasons(shop: Workshop, arn: str) -> Any:
    return {name: (one["StepStatus"], one.get("FailureReason")) for name, one in steps(shop, arn).items()}


def refused(call: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**given)
    found: dict[str, str] = error.value.response["Error"]
    return f"{found['Code']}: {found['Message']}"


def wait_for(shop: Workshop, arn: str, step: str, *statuses: str) -> dict[str, Any]:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = steps(shop, arn).get(step)
        if found is not None and found["StepStatus"] in statuses:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{step} is not {statuses}: {reasons(shop, arn)}")

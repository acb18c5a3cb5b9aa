"""Reference stacks that others published, made here: which stand, and what the others still need.

Each repository lies checked out under its name in `.fetched/stacks` (or below `$BASTIDE_STACKS`). What a template names
that is not there (a type, a VPC endpoint's service, a managed policy that AWS withdrew) is taken out together with what
refers to it, and told. What is left must be made, changed, stand after a change that fails, and be removed without a trace.
What AWS withdrew has its successor put in its place, which is told, too. Templates of one step share an account.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from botocore.exceptions import ClientError

from bastide.domain import Refused
from bastide.engines import templates
from tests.platform import Account, Running, allow
from tests.stories.apigateway.gateway import Api
from tests.stories.cloudformation.stacks import Stacks
from tests.stories.sagemaker.plain import XGBOOST
from tests.waiting import until

SECURE = "secure-data-science-reference-architecture/cloudformation/"
ACROSS = "aws-refarch-cross-account-pipeline/"
SAFE = "amazon-sagemaker-safe-deployment-pipeline/"
MLOPS = "amazon-sagemaker-secure-mlops/cfn_templates/"
PROJECT = {"ProjectName": "p"}
MODEL = {
    "ModelName": "trips", "TrainJobId": "1", "ModelVariant": "prod", "ImageRepoUri": XGBOOST, "DeployRoleArn": "{role}",
    "KmsKeyId": "{key}", "NotificationArn": "{topic}",
}  # fmt: skip
"""What the deployment's templates are told; `_trained` makes it so."""
CASES: list[tuple[str, str, dict[str, str]]] = [
    ("L1", f"{SECURE}ds_env_network.yaml", {**PROJECT, "PyPIMirrorEndpointServiceName": "com.amazonaws.us-east-1.ssm"}),
    ("L1", f"{SECURE}ds_env_principals.yaml", PROJECT),
    ("L1", f"{SECURE}ds_env_backing_store.yaml", PROJECT),
    ("L1", f"{SECURE}ds_shared_services_network.yaml", {}),
    ("L1", f"{SECURE}ds_env_sagemaker.yaml", PROJECT),  # of L2, as the next; they import what L1 exports
    ("L1", f"{SECURE}ds_notebook_v2.yaml", {**PROJECT, "TeamName": "p"}),
    ("L2", f"{SECURE}ds_admin_principals.yaml", {}),
    ("L2", f"{SECURE}ds_admin_detective.yaml", {}),
    ("L2, catalogue", f"{SECURE}ds_env_principals.yaml", PROJECT),
    ("L2, catalogue", f"{SECURE}ds_env_catalog.yaml", PROJECT),
    ("L2, nested", f"{SECURE}ds_administration.yaml", {}),
    ("L4", f"{ACROSS}ToolsAcct/pre-reqs.yaml", {}),
    ("L4", f"{ACROSS}ToolsAcct/code-pipeline.yaml", {"S3Bucket": "{bucket}"}),
    ("L4", f"{ACROSS}DevAccount/toolsacct-codepipeline-codecommit.yaml", {}),
    ("L4", f"{ACROSS}TestAccount/toolsacct-codepipeline-cloudformation-deployer.yaml", {}),
    (
        "L6",
        f"{SAFE}pipeline.yml",
        {"ProjectPrefix": "mlops", "SageMakerProjectName": "trips", "SageMakerProjectId": "p-1", "EmailAddress": ""},
    ),
    ("L6, deployed", f"{SAFE}custom_resource/sagemaker-custom-resource.yml", {}),
    ("L6, deployed", f"{SAFE}assets/deploy-model-dev.yml", MODEL),
    (
        "L6, deployed",
        f"{SAFE}assets/deploy-model-prd.yml",
        {**MODEL, "ModelName": "rides", "ScheduleMetricThreshold": "1"},
    ),
    ("L7", f"{MLOPS}core-iam-sc-sm-projects-roles.yaml", {}),
    ("L7", f"{MLOPS}env-vpc.yaml", {"AvailabilityZones": "us-east-1a,us-east-1b"}),
    ("L7", f"{MLOPS}env-kms.yaml", {}),
    ("L7", f"{MLOPS}env-iam.yaml", {}),
    ("L7", f"{MLOPS}env-s3.yaml", {}),
    ("L7", f"{MLOPS}env-iam-target-account-roles.yaml", {}),
    ("L7", f"{MLOPS}env-iam-setup-stackset-role.yaml", {}),
    ("L7", f"{MLOPS}core-iam-shared-roles.yaml", {}),
    ("L7, projects", f"{MLOPS}core-main.yaml", {}),
    ("L7, projects", f"{MLOPS}core-sc-shared-portfolio.yaml", {}),
    ("L7, projects", f"{MLOPS}env-sc-portfolio.yaml", {}),
    ("L7, projects", f"{MLOPS}project-model-build-train.yaml", {}),
    ("L7, projects", f"{MLOPS}project-model-deploy.yaml", {}),
]
_MOST_CUT = 12
_FILLED_IN = ("< S3_CFN_STAGING_BUCKET_PATH >", "< S3_CFN_STAGING_BUCKET >", "S3_BUCKET_NAME")
"""What those who package the templates put the name of their bucket for; their archives of code are put there."""
_SUCCESSORS = {
    "policy/AWSLambdaReadOnlyAccess": "policy/AWSLambda_ReadOnlyAccess",
    "policy/AWSLambdaFullAccess": "policy/AWSLambda_FullAccess",
    "python3.6": "python3.12",
    "python3.7": "python3.12",
    "python3.8": "python3.12",
    "      MonitoringScheduleArn: String\n": "",
    "!GetAtt SagemakerMonitoringSchedule.ScheduleName": "!Sub mlops-${ModelName}-pms-${TrainJobId}",
}
"""AWS attaches these policies to nobody any more, and makes no functions of these runtimes, nor does Bastide. The ARN of a
monitoring schedule is read-only now, and there is no attribute ScheduleName."""
_BUILT = {"vpc_detective_control.zip": "../src/detective_control"}
"""Archives that a repository's own script makes of its folders."""
_PACKAGED = {
    "AWS::Lambda::Function": "Code", "AWS::Serverless::Function": "CodeUri", "AWS::CloudFormation::Stack": "TemplateURL",
}  # fmt: skip
_TRUSTED = ("sagemaker.amazonaws.com", "lambda.amazonaws.com", "cloudformation.amazonaws.com")
_ARCHIVES = ("project.zip", "< S3_CFN_STAGING_PATH >/project_template.zip")


def _value(name: str, declared: dict[str, Any], account: Account) -> str:
    """A value for a parameter that the case does not give."""
    allowed = declared.get("AllowedValues")
    if allowed:
        return str(allowed[0])
    lower = name.lower()
    if "arn" in lower and ("key" in lower or "cmk" in lower):
        return str(account.client("kms").create_key()["KeyMetadata"]["Arn"])
    if "arn" in lower:
        try:
            return account.role(name, allow("*"), trust={"Service": list(_TRUSTED)})
        except ClientError:
            return f"arn:aws:iam::{account.id}:role/{name}"  # another template asked for it, too
    if "account" in lower:
        return account.id
    if "cidr" in lower:
        return "10.0.0.0/16"
    if declared["Type"] == "Number":
        return "1"
    return re.sub(r"[^a-z0-9]", "", lower)[:20] or "x"


def _without(raw: dict[str, Any], gone: set[str]) -> None:
    """Takes resources out, with all that refers to them."""
    while gone:
        for section in ("Resources", "Outputs"):
            held = raw.get(section) or {}
            for name in [one for one in held if section == "Resources" and one in gone]:
                del held[name]
        more: set[str] = set()
        for name, one in (raw.get("Resources") or {}).items():
            depends = one.get("DependsOn") or []
            depends = [depends] if isinstance(depends, str) else depends
            one["DependsOn"] = [other for other in depends if other not in gone]
            if not one["DependsOn"]:
                del one["DependsOn"]
            if any(other in gone for other, _ in templates.references(one.get("Properties") or {})):
                more.add(name)
        for name, one in list((raw.get("Outputs") or {}).items()):
            if any(other in gone for other, _ in templates.references(one)):
                del raw["Outputs"][name]
        gone = more


def _sent(stacks: Stacks, raw: dict[str, Any], bucket: str, key: str = "template.json") -> dict[str, str]:
    stacks.account.client("s3").put_object(Bucket=bucket, Key=key, Body=orjson.dumps(raw))
    return {"TemplateURL": f"https://{bucket}.s3.amazonaws.com/{key}"}


_MORE: dict[str, Any] = {"Capabilities": ["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]}


def _attempt(
    stacks: Stacks, stack: str, raw: dict[str, Any], given: dict[str, str], bucket: str
) -> tuple[set[str], str]:
    """Makes a stack; the resources that could not be, and why."""
    told = [{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()]
    try:
        id = stacks.client.create_stack(StackName=stack, Parameters=told, **_sent(stacks, raw, bucket), **_MORE)[
            "StackId"
        ]
    except ClientError as error:
        message = error.response["Error"]["Message"]
        types = re.search(r"Unrecognized resource types: \[([^\]]*)\]", message)
        if types:
            names = set(types[1].split(", "))
            lost = {name for name, one in raw["Resources"].items() if one.get("Type") in names}
            return lost, f"no {', '.join(sorted(names))}"
        named = re.search(r"for resource (\w+) with", message)
        return ({named[1]} if named else set()), message
    made = stacks.settled(id, 180)
    if made["StackStatus"] == "CREATE_COMPLETE":
        return set(), ""
    failed = [
        (name, reason)
        for name, status, reason in stacks.story(id)
        if status == "CREATE_FAILED" and "cancelled" not in reason
    ]
    stacks.client.delete_stack(StackName=id)
    gone = stacks.settled(id)
    assert gone["StackStatus"] == "DELETE_COMPLETE", [one for one in stacks.story(id) if "DELETE_FAILED" in one[1]]
    return {name for name, _ in failed}, "; ".join(f"{name}: {reason}" for name, reason in failed)


def _changed(stacks: Stacks, stack: str, raw: dict[str, Any], given: dict[str, str], bucket: str) -> None:
    """A change, and one that fails: the stack is as it was before then."""
    told = [{"ParameterKey": name, "UsePreviousValue": True} for name in given]
    more: dict[str, Any] = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "one"}}
    wrong = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "x", "Name": "aws/reserved"}}
    for added, status in (
        ({"Added": more}, "UPDATE_COMPLETE"),
        (
            {"Added": {**more, "Properties": {**more["Properties"], "Value": "two"}}, "Wrong": wrong},
            "UPDATE_ROLLBACK_COMPLETE",
        ),
    ):
        changed = {**raw, "Resources": {**raw["Resources"], **added}}
        stacks.client.update_stack(StackName=stack, Parameters=told, **_sent(stacks, changed, bucket), **_MORE)
        found = stacks.settled(stack, 180)
        assert found["StackStatus"] == status, [one for one in stacks.story(stack) if "FAILED" in one[1]]
    held = stacks.client.describe_stack_resource(StackName=stack, LogicalResourceId="Added")["StackResourceDetail"]
    value = stacks.account.client("ssm").get_parameter(Name=held["PhysicalResourceId"])["Parameter"]["Value"]
    assert value == "one", "the change that failed was not undone"


def _released(stacks: Stacks, stack: str, raw: dict[str, Any], given: dict[str, str], bucket: str) -> None:
    """Another version of the function that answers for the model: led there by CodeDeploy, whose checks are the template's.
    The one afterwards wants to see that what was asked and answered is captured, so it fails until somebody asked."""
    account, told = stacks.account, [{"ParameterKey": name, "UsePreviousValue": True} for name in given]
    function = raw["Resources"]["ApiFunction"]["Properties"]
    api = Api(account, stacks.outputs(stack)["RestApi"].split("//")[1].partition(".")[0], "")
    function["DeploymentPreference"]["Type"] = "AllAtOnce"  # nobody waits five minutes here
    s3, lambda_ = account.client("s3"), account.client("lambda")
    code = s3.get_object(Bucket=bucket, Key="ApiFunction.zip")["Body"].read()

    def update(version: str) -> str:
        held = io.BytesIO(code)
        with zipfile.ZipFile(held, "a") as archive:
            archive.writestr("VERSION", version)
        s3.put_object(Bucket=bucket, Key=f"{version}.zip", Body=held.getvalue())
        function["CodeUri"] = f"s3://{bucket}/{version}.zip"
        stacks.client.update_stack(StackName=stack, Parameters=told, **_sent(stacks, raw, bucket), **_MORE)
        return str(stacks.settled(stack, 180)["StackStatus"])

    def stands() -> str:
        return str(lambda_.get_alias(FunctionName="rides-api", Name="live")["FunctionVersion"])

    assert update("two") == "UPDATE_ROLLBACK_COMPLETE", stacks.story(stack)[:9]
    assert any("did not let AfterAllowTraffic pass" in why for _, _, why in stacks.story(stack)), stacks.story(stack)[
        :9
    ]
    assert stands() == "1"
    status, _, answer = api.call("/api", "POST", b"10,3", stage="Prod", headers={"Content-Type": "text/csv"})
    assert status == 200 and orjson.loads(answer)["predictions"][0]["score"] > 0, (status, answer)
    captured = {"Bucket": f"sagemaker-us-east-1-{account.id}", "Prefix": "rides/datacapture/"}
    until(lambda: s3.list_objects_v2(**captured).get("Contents"), 300)
    assert update("three") == "UPDATE_COMPLETE", stacks.story(stack)[:9]
    assert int(stands()) > 1
    assert api.call("/api", "POST", b"10,3", stage="Prod", headers={"Content-Type": "text/csv"})[0] == 200


def _packaged(stacks: Stacks, raw: dict[str, Any], place: Path, bucket: str) -> None:
    """Puts what templates name by a local path into a bucket, as `aws cloudformation package` does."""
    for name in re.findall(rf"/{bucket}/([\w.-]+\.yaml)", orjson.dumps(raw).decode()):
        _sent(stacks, _read(place / name, bucket)[0], bucket, name)
    for name, one in raw["Resources"].items():
        member = _PACKAGED.get(one.get("Type", ""))
        path = one.get("Properties", {}).get(member or "")
        if member is None or not isinstance(path, str) or "://" in path:
            continue
        if member == "TemplateURL":
            below = _read(place / path, bucket)[0]
            _packaged(stacks, below, place, bucket)
            one["Properties"][member] = _sent(stacks, below, bucket, f"{path}.json")["TemplateURL"]
            continue
        key = f"{name}.zip"
        stacks.account.client("s3").put_object(Bucket=bucket, Key=key, Body=_zipped(place / _BUILT.get(path, path)))
        one["Properties"][member] = (
            f"s3://{bucket}/{key}" if member == "CodeUri" else {"S3Bucket": bucket, "S3Key": key}
        )


def _zipped(folder: Path) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for one in sorted(folder.rglob("*")):
            if one.is_file():
                archive.write(one, str(one.relative_to(folder)))
    return held.getvalue()


def _read(path: Path, bucket: str) -> tuple[dict[str, Any], list[str]]:
    """A template, filled in; what has its successor's name now."""
    text = path.read_text()
    for name in _FILLED_IN:
        text = text.replace(name, bucket)
    replaced = []
    for old, new in _SUCCESSORS.items():
        if old in text:
            text = text.replace(old, new)
            replaced.append(f"{new.rpartition('/')[2] or 'nothing'} for {old.strip().rpartition('/')[2]}")
    return templates.read(text), replaced


def _case(stacks: Stacks, path: Path, given: dict[str, str], known: dict[str, str]) -> tuple[bool, str]:
    """Whether what is left of a template was made, and what was taken out."""
    bucket = known["bucket"]
    raw, replaced = _read(path, bucket)
    _packaged(stacks, raw, path.parent, bucket)
    note = f", with {', '.join(replaced)}" if replaced else ""
    of = len(raw["Resources"])
    values = {
        name: given[name].format(**known) if name in given else _value(name, one, stacks.account)
        for name, one in (raw.get("Parameters") or {}).items()
        if name in given or "Default" not in one
    }
    why: list[str] = []
    for _ in range(_MOST_CUT):
        stack = path.stem.replace("_", "-")
        lost, reason = _attempt(stacks, stack, raw, values, bucket)
        if not reason:
            _changed(stacks, stack, raw, values, bucket)
            if path.name == "deploy-model-prd.yml":
                _released(stacks, stack, raw, values, bucket)
            return True, f"{len(raw['Resources'])} of {of}{note}" + (f" without {'; '.join(why)}" if why else "")
        why.append(reason)
        if not lost:
            break
        _without(raw, lost)
        if not raw["Resources"]:
            return True, f"0 of {of}: {'; '.join(why)}"
    return False, "; ".join(why)


def _empty(stacks: Stacks, stack: str) -> None:
    """A bucket with something in it stays, as on AWS: trails and pipelines have written into some."""
    s3 = stacks.account.client("s3")
    for one in stacks.client.describe_stack_resources(StackName=stack)["StackResources"]:
        if one["ResourceType"] == "AWS::S3::Bucket":
            s3.delete_bucket_policy(Bucket=one["PhysicalResourceId"])
            pages = s3.get_paginator("list_object_versions").paginate(Bucket=one["PhysicalResourceId"])
            for held in [
                held for page in pages for held in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
            ]:
                s3.delete_object(Bucket=one["PhysicalResourceId"], Key=held["Key"], VersionId=held["VersionId"])


def _before(account: Account, step: str) -> dict[str, str]:
    """What a step's templates expect to be there."""
    if step != "L6, deployed":
        return {}
    trust = {"Effect": "Allow", "Principal": {"Service": list(_TRUSTED)}, "Action": "sts:AssumeRole"}
    document = orjson.dumps({"Version": "2012-10-17", "Statement": [trust]}).decode()
    iam = account.client("iam")
    role = iam.create_role(RoleName="MLOps", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    iam.put_role_policy(RoleName="MLOps", PolicyName="all", PolicyDocument=orjson.dumps(allow("*")).decode())
    return _trained(account, role)


def _trained(account: Account, role: str) -> dict[str, str]:
    """Trains the two models that the deployment's templates serve; where they expect them, and the key and topic."""
    s3, sagemaker, bucket = account.client("s3"), account.client("sagemaker"), f"sagemaker-us-east-1-{account.id}"
    s3.create_bucket(Bucket=bucket)
    rows = "\n".join(f"{one * 2},{one},{one % 7}" for one in range(100))
    s3.put_object(Bucket=bucket, Key="train/rows.csv", Body=rows.encode())
    where = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/train/", "S3DataDistributionType": "FullyReplicated"}
    for name in ("trips", "rides"):
        sagemaker.create_training_job(
            TrainingJobName=f"{name}-1",
            AlgorithmSpecification={"TrainingImage": XGBOOST, "TrainingInputMode": "File"},
            RoleArn=role,
            HyperParameters={"num_round": "5", "objective": "reg:squarederror"},
            InputDataConfig=[
                {"ChannelName": "train", "DataSource": {"S3DataSource": where}, "ContentType": "text/csv"}
            ],
            OutputDataConfig={"S3OutputPath": f"s3://{bucket}/{name}"},
            ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            StoppingCondition={"MaxRuntimeInSeconds": 600},
        )
        sagemaker.get_waiter("training_job_completed_or_stopped").wait(
            TrainingJobName=f"{name}-1", WaiterConfig={"Delay": 1, "MaxAttempts": 120}
        )
    key = account.client("kms").create_key()["KeyMetadata"]["KeyId"]
    topic = account.client("sns").create_topic(Name="deployments")["TopicArn"]
    return {"role": role, "key": key, "topic": topic}


def _answers(account: Account) -> None:
    """Every endpoint that stands predicts."""
    runtime = account.client("sagemaker-runtime")
    for one in account.client("sagemaker").list_endpoints()["Endpoints"]:
        told = runtime.invoke_endpoint(EndpointName=one["EndpointName"], Body=b"10,3", ContentType="text/csv")
        assert float(told["Body"].read()) > 0, f"{one['EndpointName']} does not predict"


def _traces(stacks: Stacks) -> list[str]:
    """What still belongs to a stack, though all stacks are gone and their templates did not say that it should stay."""
    kept = {
        event["PhysicalResourceId"]
        for stack in stacks.client.list_stacks()["StackSummaries"]
        for event in stacks.client.describe_stack_events(StackName=stack["StackId"])["StackEvents"]
        if event["ResourceStatus"] == "DELETE_SKIPPED"
    }
    pages = stacks.account.client("resourcegroupstaggingapi").get_paginator("get_resources").paginate()
    return [
        one["ResourceARN"]
        for page in pages
        for one in page["ResourceTagMappingList"]
        if any(tag["Key"] == "aws:cloudformation:stack-id" for tag in one["Tags"])
        and one["ResourceARN"].rpartition("/")[2] not in kept
        and ":kms:" not in one["ResourceARN"]  # they wait a week for the end, as AWS's
    ]


def _archive() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("README.md", "What a project begins with.\n")
    return held.getvalue()


def _found(folder: Path) -> Iterator[tuple[str, Path, dict[str, str]]]:
    for step, name, given in CASES:
        if (folder / name).is_file():
            yield step, folder / name, given


def run(folder: Path, told: bool) -> tuple[int, int]:
    """Every template that was fetched; how many were made (as far as types exist) and removed, and how many not."""
    folder = Path(os.environ.get("BASTIDE_STACKS", ".fetched/stacks"))
    passed = failed = 0
    with tempfile.TemporaryDirectory() as place:
        platform = Running(Path(place) / "data")
        platform.start()
        try:
            platform.found()
            for step in dict.fromkeys(step for step, _, _ in CASES):
                stacks = Stacks(platform.account())
                bucket = f"reference-{stacks.account.id}"
                stacks.account.client("s3").create_bucket(Bucket=bucket)
                for name in _ARCHIVES:
                    stacks.account.client("s3").put_object(Bucket=bucket, Key=name, Body=_archive())
                known = {"bucket": bucket, **_before(stacks.account, step)}
                for _, path, given in [one for one in _found(folder) if one[0] == step]:
                    try:
                        good, what = _case(stacks, path, given, known)
                    except (Refused, AssertionError, ClientError) as error:
                        good, what = False, str(error)
                    passed, failed = passed + good, failed + (not good)
                    if told:
                        print(f"{'ok  ' if good else 'FAIL'} {step} {path.name}: {what[:600]}", flush=True)
                _answers(stacks.account)
                # A stack whose exports others use goes after them.
                left = sorted(stacks.client.describe_stacks()["Stacks"], key=lambda one: one["CreationTime"])
                for one in reversed(left):
                    _empty(stacks, one["StackName"])
                    gone = stacks.delete(one["StackName"])
                    if gone["StackStatus"] != "DELETE_COMPLETE":
                        failed += 1
                        print(f"FAIL {step} {one['StackName']} stays: {gone.get('StackStatusReason')}", flush=True)
                if traces := _traces(stacks):
                    failed += 1
                    print(f"FAIL {step} leaves {', '.join(traces)}", flush=True)
        finally:
            platform.stop()
    return passed, failed

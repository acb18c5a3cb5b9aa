"""From a commit to Production: the two pipelines of a team, which the roles of the landing zone carry across accounts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.stories.landing.zone import DENIED, Zone, refused
from tests.stories.sagemaker.conftest import IMAGE


def _until(look: Callable[[], Any], seconds: float = 90) -> Any:
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, "it does not come about"
        time.sleep(0.1)
    return found


def _files(zone: Zone) -> dict[str, Any]:
    """What a team commits: a template for Test, one for Production, and what each is given."""
    machine = {
        "Type": "AWS::StepFunctions::StateMachine",
        "Properties": {
            "StateMachineName": "bank-train-mortgage", "RoleArn": zone.arn("test", "StateMachineRole"),
            "DefinitionString": json.dumps({"StartAt": "End", "States": {"End": {"Type": "Succeed"}}}),
        },
    }  # fmt: skip
    ssm = zone.account("production").client("ssm")
    told = ssm.get_parameters_by_path(Path="/bank/network")["Parameters"]
    where = {one["Name"].rpartition("/")[2]: one["Value"] for one in told}
    models = zone.bucket("models", "shared-services")
    model = {
        "Type": "AWS::SageMaker::Model",
        "Properties": {
            "ModelName": "mortgage", "ExecutionRoleArn": zone.arn("production", "ModelRole"),
            "PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": f"s3://{models}/{zone.ids['test']}/m.tar.gz"},
            "VpcConfig": {"Subnets": where["subnets"].split(","), "SecurityGroupIds": [where["security-group"]]},
        },
    }  # fmt: skip
    tags = {"owner": "ada", "project": "mortgage"}
    return {
        "train.yaml": {"Resources": {"Machine": machine}},
        "train.json": {"Parameters": {}, "Tags": {**tags, "environment": "test"}},
        "serve.yaml": {"Resources": {"Model": model}},
        "serve.json": {"Parameters": {}, "Tags": {**tags, "environment": "production"}},
    }


@pytest.mark.control("ACC-04", "ACC-10", "XAC-02", "XAC-04", "XAC-05", "XAC-07", "DAT-08")
@pytest.mark.control("ACC-13", lacking="an endpoint")
@pytest.mark.control("TAG-06", "TAG-07", lacking="builds, functions, endpoints")
def test_a_commit_reaches_test_and_after_approval_production(zone: Zone) -> None:
    shared = zone.account("shared-services")
    code, pipelines = shared.client("codecommit"), shared.client("codepipeline")
    files = [{"filePath": name, "fileContent": json.dumps(one).encode()} for name, one in _files(zone).items()]
    asked = {"repositoryName": "bank-mortgage", "branchName": "main", "commitMessage": "first", "putFiles": files}
    commit = code.create_commit(**asked)["commitId"]

    # The push starts the training pipeline by itself.
    def latest(name: str) -> Any:
        found = pipelines.list_pipeline_executions(pipelineName=name)["pipelineExecutionSummaries"]
        return next((one for one in found if any(r.get("revisionId") == commit for r in one["sourceRevisions"])), None)

    _until(lambda: (one := latest("bank-mortgage-training")) and one["status"] != "InProgress")
    ended = latest("bank-mortgage-training")
    actions = pipelines.list_action_executions(
        pipelineName="bank-mortgage-training", filter={"pipelineExecutionId": ended["pipelineExecutionId"]}
    )["actionExecutionDetails"]
    why = [one["output"].get("executionResult", {}).get("externalExecutionSummary") for one in actions]
    assert ended["status"] == "Succeeded", (ended, why)
    # In Test Role B came, the stack role made the state machine, which ran; its tags are those of the template.
    test = zone.account("test")
    arn = f"arn:aws:states:us-east-1:{test.id}:stateMachine:bank-train-mortgage"
    states = test.client("stepfunctions")
    [ran] = states.list_executions(stateMachineArn=arn)["executions"]
    assert ran["status"] == "SUCCEEDED"
    held = states.describe_execution(executionArn=ran["executionArn"])
    assert json.loads(held["input"]) == {"commit": commit}
    tags = {one["key"]: one["value"] for one in states.list_tags_for_resource(resourceArn=arn)["tags"]}
    assert {"owner": "ada", "environment": "test", "project": "mortgage"}.items() <= tags.items()
    trail = test.client("cloudtrail")

    def callers(name: str) -> set[str]:
        events = trail.lookup_events(LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": name}])["Events"]
        told = [json.loads(one["CloudTrailEvent"])["userIdentity"] for one in events]
        return {one.get("sessionContext", {}).get("sessionIssuer", {}).get("userName", "") for one in told}

    _until(lambda: "CrossAccountRoleB" in callers("CreateStack") and "StackRole" in callers("CreateStateMachine"))
    # Nobody reads the run's artifacts: they are the services'.
    bucket = zone.bucket("artifacts", "shared-services")
    stored = shared.client("s3").list_objects_v2(Bucket=bucket, Prefix="bank-mortgage-tra")["Contents"]
    key = stored[0]["Key"]
    for keys in (shared.keys, zone.person("shared-services", "MLOps"), zone.person("shared-services", "Auditor")):
        refused(DENIED, zone.platform.client("s3", keys).get_object, Bucket=bucket, Key=key)

    # Release: MLOps starts it and cannot approve it; the approver approves and could not start it.
    mlops = zone.platform.client("codepipeline", zone.person("shared-services", "MLOps"))
    approver = zone.platform.client("codepipeline", zone.person("shared-services", "ModelApprover"))
    other = zone.platform.client("codepipeline", zone.person("data-science", "DataScientist-mortgage"))
    name = "bank-mortgage-deployment"
    for one in (approver, other):
        refused((*DENIED, "PipelineNotFoundException"), one.start_pipeline_execution, name=name)
    mlops.start_pipeline_execution(name=name)

    def waiting() -> Any:
        stages = pipelines.get_pipeline_state(name=name)["stageStates"]
        return stages[1]["actionStates"][0].get("latestExecution", {}).get("token")

    answer = {
        "pipelineName": name, "stageName": "Approve", "actionName": "Release", "token": _until(waiting),
        "result": {"summary": "ticket 42", "status": "Approved"},
    }  # fmt: skip
    refused(DENIED, mlops.put_approval_result, **answer)
    approver.put_approval_result(**answer)
    _until(lambda: (one := latest(name)) and one["status"] not in ("InProgress", "Stopped"))
    assert latest(name)["status"] == "Succeeded", pipelines.get_pipeline_state(name=name)["stageStates"]
    production = zone.account("production").client("sagemaker")
    made = production.describe_model(ModelName="mortgage")
    tags = {one["Key"]: one["Value"] for one in production.list_tags(ResourceArn=made["ModelArn"])["Tags"]}
    assert {"owner": "ada", "environment": "production", "project": "mortgage"}.items() <= tags.items()
    refused(DENIED, production.delete_model, ModelName="mortgage")  # by hand, though by the account's administrator
    roles = {
        pipelines.get_pipeline(name=f"bank-mortgage-{kind}")["pipeline"]["roleArn"]
        for kind in ("training", "deployment")
    }
    assert roles == {zone.pipeline_role("CodePipelineRoleA"), zone.pipeline_role("CodePipelineRoleA2")}

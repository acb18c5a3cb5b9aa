"""A workflow with the pipeline that runs it, as one template for any account: rehearsed in a lower one, then used."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.platform import Account
from tests.stories.cloudformation.stacks import Stacks, template
from tests.stories.codepipeline.releases import action, stage

_HERE = "arn:aws:s3:::rehearsal-${AWS::AccountId}"


def _role(service: str, *statements: dict[str, Any]) -> dict[str, Any]:
    trust = {"Effect": "Allow", "Principal": {"Service": f"{service}.amazonaws.com"}, "Action": "sts:AssumeRole"}
    properties: dict[str, Any] = {"AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]}}
    if statements:
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **one} for one in statements]}
        properties["Policies"] = [{"PolicyName": "part", "PolicyDocument": document}]
    return {"Type": "AWS::IAM::Role", "Properties": properties}


def _capital(value: Any) -> Any:
    """A declaration of a pipeline as templates write it."""
    if isinstance(value, list):
        return [_capital(one) for one in value]
    if isinstance(value, dict) and not any(key.startswith("Fn::") or key == "Ref" for key in value):
        return {
            key[:1].upper() + key[1:]: one if key == "configuration" else _capital(one) for key, one in value.items()
        }
    return value


def rehearsal() -> str:
    """Repository, bucket, workflow, pipeline and their roles."""
    source = action(
        "Source", "Source", "CodeCommit",
        {"RepositoryName": "rehearsal", "BranchName": "main", "PollForSourceChanges": "false"},
        outputArtifacts=["Code"],
    )  # fmt: skip
    source["configuration"]["RepositoryName"] = {"Fn::GetAtt": ["Code", "Name"]}
    run = action("Run", "Invoke", "StepFunctions", {"Input": '{"by": "pipeline"}'}, inputArtifacts=["Code"])
    run["configuration"]["StateMachineArn"] = {"Ref": "Workflow"}
    stages = [_capital(stage("Source", source)), _capital(stage("Run", run))]
    acts = _role(
        "codepipeline",
        {"Action": ["codecommit:*"], "Resource": {"Fn::GetAtt": ["Code", "Arn"]}},
        {"Action": ["s3:*"], "Resource": [{"Fn::Sub": _HERE}, {"Fn::Sub": f"{_HERE}/*"}]},
        {"Action": ["states:*"], "Resource": "*"},
    )
    definition = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}
    return template(
        {
            "Code": {"Type": "AWS::CodeCommit::Repository", "Properties": {"RepositoryName": "rehearsal"}},
            "Artifacts": {
                "Type": "AWS::S3::Bucket", "Properties": {"BucketName": {"Fn::Sub": "rehearsal-${AWS::AccountId}"}}
            },
            "Acts": acts,
            "Works": _role("states"),
            "Workflow": {
                "Type": "AWS::StepFunctions::StateMachine",
                "Properties": {
                    "StateMachineName": "rehearsal", "RoleArn": {"Fn::GetAtt": ["Works", "Arn"]}, "Definition": definition,
                },
            },
            "Pipeline": {
                "Type": "AWS::CodePipeline::Pipeline",
                "Properties": {
                    "Name": "rehearsal", "RoleArn": {"Fn::GetAtt": ["Acts", "Arn"]}, "Stages": stages,
                    "ArtifactStore": {"Type": "S3", "Location": {"Ref": "Artifacts"}},
                },
            },
        }
    )  # fmt: skip


def runs(account: Account) -> list[str]:
    """Has the template's pipeline run a commit in an account; the statuses of its workflow's executions."""
    stacks = Stacks(account)
    told = stacks.create("rehearsal", rehearsal())
    assert told["StackStatus"] == "CREATE_COMPLETE", stacks.story("rehearsal")
    code, pipelines = account.client("codecommit"), account.client("codepipeline")
    code.put_file(repositoryName="rehearsal", branchName="main", filePath="a", fileContent=b"a")
    run = {"pipelineExecutionId": pipelines.start_pipeline_execution(name="rehearsal")["pipelineExecutionId"]}
    until = time.monotonic() + 60
    while (found := pipelines.get_pipeline_execution(pipelineName="rehearsal", **run)["pipelineExecution"])[
        "status"
    ] == "InProgress":
        assert time.monotonic() < until, json.dumps(found, default=str)
        time.sleep(0.1)
    assert found["status"] == "Succeeded", pipelines.get_pipeline_state(name="rehearsal")["stageStates"]
    arn = f"arn:aws:states:us-east-1:{account.id}:stateMachine:rehearsal"
    return [one["status"] for one in account.client("stepfunctions").list_executions(stateMachineArn=arn)["executions"]]

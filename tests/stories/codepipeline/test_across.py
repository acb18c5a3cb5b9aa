"""The paper's release: stacks and state machines of another account, under its roles, bucket and key; and each of the three
taken away."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import REGION, Account, allow
from tests.stories.codepipeline.releases import Releases, zipped
from tests.stories.mission.test_pipeline_roles import Pipeline, pipeline

__all__ = ["pipeline"]

MACHINE = {"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}}


def _template(text: str = "one") -> dict[str, Any]:
    """What the paper's template makes, without its jobs: a state machine of a definition in the artifact bucket."""
    properties = {
        "StateMachineName": "SM-train-Step_Function",
        "RoleArn": {"Ref": "StateMachineRoleArn"},
        "DefinitionS3Location": {"Bucket": {"Ref": "DefinitionBucket"}, "Key": {"Ref": "DefinitionKey"}},
        "DefinitionSubstitutions": {"text": text},
    }
    return {
        "Parameters": {one: {"Type": "String"} for one in ("DefinitionBucket", "DefinitionKey", "StateMachineRoleArn")},
        "Resources": {"MyStateMachine": {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}},
        "Outputs": {"StateMachineARN": {"Value": {"Ref": "MyStateMachine"}}},
    }


@pytest.fixture(scope="module")
def printed(pipeline: Pipeline) -> dict[str, Any]:
    """The printed declaration, filled in. Its source is an object here, where CodeCommit is not what is looked at."""
    more = {
        "PIPELINE_NAME": "train",
        "BRANCH_NAME": "main",
        "OUTPUT_FILE_NAME": "outputs.json",
        "CFN_TEMPLATE_FILE_NAME": "template.json",
        "TEMPLATE_CONFIGURATION_FILE_NAME": "configuration.json",
    }
    found: dict[str, Any] = json.loads(pipeline.document("60", **more))["pipeline"]
    return found


@pytest.fixture(scope="module")
def training(pipeline: Pipeline, printed: dict[str, Any]) -> Releases:
    """The paper's pipeline, made; its first execution is over."""
    bucket, shared = pipeline.bucket, pipeline.shared
    a = pipeline.client("s3", "CODEPIPELINE_ROLE_A", shared)
    shared.client("s3").put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    sealed = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": pipeline.key}
    a.put_object(Bucket=bucket, Key="machine.asl.json", Body=json.dumps(MACHINE), **sealed)
    role = f"arn:aws:iam::{shared.id}:role/service-role/RoleA"
    made = Releases(shared, role, bucket, pipeline.key, bucket)
    made.s3 = a
    _commit(pipeline, made)
    source = made.source()["actions"][0]
    declared = json.loads(json.dumps(printed))
    declared["stages"][0]["actions"][0] |= {
        "actionTypeId": source["actionTypeId"],
        "configuration": source["configuration"],
        "outputArtifacts": [{"name": "SourceArtifact"}],
    }
    invoke = declared["stages"][1]["actions"][1]["configuration"]
    invoke["Input"] = invoke["Input"].replace("CommitId", "VersionId")
    made.declaration = declared
    made.client.create_pipeline(pipeline=declared)
    made.first = made.newest("train")
    assert made.over("train", made.first)["status"] == "Succeeded", made.actions("train", made.first)
    return made


def _commit(pipeline: Pipeline, made: Releases, text: str = "one", **more: Any) -> str:
    parameters = {
        "DefinitionBucket": pipeline.bucket,
        "DefinitionKey": "machine.asl.json",
        "StateMachineRoleArn": f"arn:aws:iam::{pipeline.test.id}:role/Workflow",
    }
    configuration = {"Parameters": parameters}
    files = {"template.json": _template(text), "configuration.json": configuration, **more}
    found: str = made.s3.put_object(
        Bucket=pipeline.bucket,
        Key="source.zip",
        Body=zipped({name: held for name, held in files.items() if held is not None}),
        ServerSideEncryption="aws:kms",
        SSEKMSKeyId=pipeline.key,
    )["VersionId"]
    return found


@pytest.mark.control("PEX-03", "PEX-04", "XAC-01", "XAC-04", "XAC-07", "STG-04")
def test_a_stack_and_its_state_machine_in_another_account(pipeline: Pipeline, training: Releases) -> None:
    id = training.first
    did = training.actions("train", id)
    deploy, run = did["deploy-cf-train-test-external"], did["invoke-Step-Function"]
    machine = f"arn:aws:states:{REGION}:{pipeline.test.id}:stateMachine:SM-train-Step_Function"
    assert deploy["output"]["outputVariables"] == {"StateMachineARN": machine}
    assert deploy["input"]["roleArn"].endswith(":role/RoleB")
    made = training.artifact("train", id, "deploy-cf-train-test-external")
    assert json.loads(made["outputs.json"]) == {"StateMachineARN": machine}
    assert run["input"]["configuration"]["StateMachineArn"] == "#{train-stack.StateMachineARN}"
    assert run["input"]["resolvedConfiguration"]["StateMachineArn"] == machine
    execution = run["output"]["executionResult"]["externalExecutionId"]
    told = pipeline.test.client("stepfunctions").describe_execution(executionArn=execution)
    assert told["status"] == "SUCCEEDED"
    version = did["Source"]["output"]["outputVariables"]["VersionId"]
    assert json.loads(told["input"]) == {"commit": version}
    stacks = pipeline.test.client("cloudformation")
    [stack] = stacks.describe_stacks(StackName="stack-name")["Stacks"]
    assert stack["RoleARN"] == f"arn:aws:iam::{pipeline.test.id}:role/Stack"
    told = stacks.get_paginator("describe_stack_events").paginate(StackName="stack-name").build_full_result()
    own = [one["ResourceStatus"] for one in told["StackEvents"] if one["PhysicalResourceId"] == stack["StackId"]]
    assert own[-2:] == ["CREATE_COMPLETE", "CREATE_IN_PROGRESS"]
    # The trail of the other account has Role B, of the own one Role A taken on by the service for this pipeline.
    found = _trail(pipeline.test, "CreateStack")
    assert found["userIdentity"]["sessionContext"]["sessionIssuer"]["userName"] == "RoleB"
    assumed = _trail(pipeline.shared, "AssumeRole", "RoleA")
    assert assumed["userIdentity"] == {"type": "AWSService", "invokedBy": "codepipeline.amazonaws.com"}
    # The same again changes nothing, another template updates it.
    assert training.ran("train")["status"] == "Succeeded"
    _commit(pipeline, training, "two")
    assert training.ran("train")["status"] == "Succeeded"
    [stack] = stacks.describe_stacks(StackName="stack-name")["Stacks"]
    assert stack["StackStatus"] == "UPDATE_COMPLETE"


def _trail(account: Account, name: str, role: str = "") -> dict[str, Any]:
    pages = (
        account.client("cloudtrail")
        .get_paginator("lookup_events")
        .paginate(LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": name}])
    )
    every = [json.loads(one["CloudTrailEvent"]) for page in pages for one in page["Events"]]
    found: dict[str, Any] = next(
        one
        for one in every
        if role in json.dumps(one.get("requestParameters"))
        and (not role or one["userIdentity"]["type"] == "AWSService")
    )
    return found


@pytest.mark.control("XAC-01", "XAC-09", "PEX-03", "PEX-04")
def test_each_of_the_three_policies_can_stop_it(pipeline: Pipeline, training: Releases) -> None:
    test, shared = pipeline.test, pipeline.shared
    deploy = "deploy-cf-train-test-external"

    def fails(action: str = deploy) -> tuple[str, str]:
        id = training.started("train")
        assert training.over("train", id)["status"] == "Failed"
        error = training.error("train", id, action)
        [stage] = [
            one
            for one in training.client.get_pipeline_state(name="train")["stageStates"]
            if "Deploy" in one["stageName"]
        ]
        shown = {one["actionName"]: one.get("latestExecution", {}) for one in stage["actionStates"]}
        assert shown[action]["errorDetails"] == error
        assert error["message"] in training.get("train", id)["statusSummary"]
        assert "Encoded" not in error["message"]
        return error["code"], error["message"]

    s3, kms = shared.client("s3"), shared.client("kms")
    policy = json.loads(pipeline.document("70"))
    for statement in policy["Statement"]:
        held = statement["Principal"]["AWS"] if isinstance(statement["Principal"], dict) else []
        held[:] = [one for one in held if "RoleB" not in one]
    s3.put_bucket_policy(Bucket=pipeline.bucket, Policy=json.dumps(policy))
    code, message = fails()
    assert code == "PermissionError" and "SourceArtifact" in message and "s3:GetObject" in message
    s3.put_bucket_policy(Bucket=pipeline.bucket, Policy=pipeline.document("70"))

    policy = json.loads(pipeline.document("71"))
    for statement in policy["Statement"]:
        held = statement["Principal"]["AWS"]
        if isinstance(held, list):
            held[:] = [one for one in held if test.id not in one]
    kms.put_key_policy(KeyId=pipeline.key, PolicyName="default", Policy=json.dumps(policy))
    code, message = fails()
    assert code == "PermissionError" and "kms:Decrypt" in message
    kms.put_key_policy(KeyId=pipeline.key, PolicyName="default", Policy=pipeline.document("71"))

    iam = test.client("iam")
    iam.update_assume_role_policy(RoleName="RoleB", PolicyDocument=pipeline.document("82", ACCOUNT_ID=test.id))
    code, message = fails()
    assert code == "PermissionError" and "RoleA" in message and "RoleB" in message and "sts:AssumeRole" in message
    iam.update_assume_role_policy(RoleName="RoleB", PolicyDocument=pipeline.document("79"))

    # An alias of the key means nothing in the other account.
    kms.create_alias(AliasName="alias/artifacts", TargetKeyId=pipeline.key)
    aliased = json.loads(json.dumps(training.declaration)) | {"name": "aliased"}
    aliased["artifactStore"]["encryptionKey"]["id"] = "alias/artifacts"
    training.client.create_pipeline(pipeline=aliased)
    id = training.newest("aliased")
    assert training.over("aliased", id)["status"] == "Failed"
    error = training.error("aliased", id, deploy)
    assert "alias alias/artifacts, which means nothing" in error["message"]

    # What is not in the artifact, and an output that the stack has not.
    _commit(pipeline, training, **{"template.json": None})
    assert "has no file template.json" in fails()[1]
    _commit(pipeline, training, **{"template.json": {**_template(), "Outputs": {}}})
    code, message = fails("invoke-Step-Function")
    assert "#{train-stack.StateMachineARN} cannot be resolved" in message
    _commit(pipeline, training, "three")
    assert training.ran("train")["status"] == "Succeeded"


@pytest.mark.control("XAC-02")
@pytest.mark.control("SVR-06", lacking="Glue")
def test_a_role_that_does_not_trust_codepipeline_or_may_not_be_passed(pipeline: Pipeline, training: Releases) -> None:
    shared = pipeline.shared
    other = shared.role("Other", trust={"Service": "states.amazonaws.com"})
    declared = {**training.declaration, "name": "other", "roleArn": other}
    with pytest.raises(ClientError, match=r"InvalidStructure.*not authorized to perform AssumeRole on role"):
        training.client.create_pipeline(pipeline=declared)
    shared.role("Person", allow("codepipeline:*"))
    person = shared.client("codepipeline", shared.as_role("Person"))
    declared = {**training.declaration, "name": "other"}
    with pytest.raises(ClientError, match=r"iam:PassRole on resource: .*RoleA"):
        person.create_pipeline(pipeline=declared)
    passes = allow("iam:PassRole", resource=training.role)
    shared.client("iam").put_role_policy(RoleName="Person", PolicyName="passes", PolicyDocument=json.dumps(passes))
    powerful = shared.role("Powerful", allow("*"))
    declared = json.loads(json.dumps(declared))
    declared["stages"][1]["actions"][0]["roleArn"] = powerful
    with pytest.raises(ClientError, match=r"iam:PassRole on resource: .*Powerful"):
        person.create_pipeline(pipeline=declared)


@pytest.mark.control("DAT-08", "STG-02")
def test_no_person_reads_an_artifact(pipeline: Pipeline, training: Releases) -> None:
    id = training.newest("train")
    where = training.actions("train", id)["Source"]["output"]["outputArtifacts"][0]["s3location"]
    for account in (pipeline.shared, pipeline.test, pipeline.production):
        with pytest.raises(ClientError, match="AccessDenied"):
            account.client("s3").get_object(Bucket=where["bucket"], Key=where["key"])
    held = pipeline.client("s3", "CODEPIPELINE_ROLE_A", pipeline.shared).head_object(
        Bucket=where["bucket"], Key=where["key"]
    )
    assert held["SSEKMSKeyId"] == pipeline.key

"""Pipelines run: sources, approvals, copies; stages one after the other, actions beside each other."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from tests.platform import allow
from tests.stories.codepipeline.releases import Releases, action, approval, stage, until

COPY = {"Extract": "true", "ObjectKey": "site"}


def _copy(releases: Releases, name: str = "Copy", **more: object) -> dict[str, object]:
    return action(name, "Deploy", "S3", {"BucketName": releases.sources, **COPY}, inputArtifacts=["Code"], **more)


def test_a_commit_goes_through_its_stages(releases: Releases) -> None:
    files = {"index.html": "<p>one", "deep/er/style.css": "p {}"}
    version = releases.commit(files)
    name = releases.made(stage("Review", approval()), stage("Publish", _copy(releases)), wait=False)
    id = releases.newest(name)
    token = releases.waits(name, "Review")
    stands = releases.stages(name)
    assert stands["Source"]["latestExecution"] == {
        "pipelineExecutionId": id, "status": "Succeeded", "type": "STANDARD",
    }  # fmt: skip
    assert stands["Review"]["latestExecution"]["status"] == "InProgress"
    assert "latestExecution" not in stands["Publish"]
    with pytest.raises(ClientError, match="InvalidApprovalToken"):
        releases.answer(name, "Review", token="1a2b3c4d-0000-4000-8000-000000000000")
    releases.answer(name, "Review", token=token)
    with pytest.raises(ClientError, match="ApprovalAlreadyCompleted"):
        releases.answer(name, "Review", token=token)
    done = releases.over(name, id)
    assert (done["status"], done["trigger"]["triggerType"]) == ("Succeeded", "CreatePipeline")
    [revision] = done["artifactRevisions"]
    assert (revision["name"], revision["revisionId"]) == ("Code", version)
    did = releases.actions(name, id)
    assert did["Source"]["output"]["outputVariables"]["VersionId"] == version
    where = did["Source"]["output"]["outputArtifacts"][0]["s3location"]
    held = releases.s3.get_object(Bucket=where["bucket"], Key=where["key"])
    assert (held["ServerSideEncryption"], held["SSEKMSKeyId"]) == ("aws:kms", releases.key)
    for path, text in files.items():
        put = releases.s3.get_object(Bucket=releases.sources, Key=f"site/{path}")["Body"].read()
        assert put.decode() == text


@pytest.mark.control("PIP-01", lacking="models of two runs, which the landing zone's tests compare")
def test_a_rejection_ends_it(releases: Releases) -> None:
    name = releases.made(stage("Review", approval()), stage("Publish", _copy(releases)), wait=False)
    releases.answer(name, "Review", "Rejected")
    id = releases.newest(name)
    assert releases.over(name, id)["status"] == "Failed"
    assert releases.error(name, id, "Ask")["message"].startswith("Rejected by arn:aws:sts::")
    assert set(releases.actions(name, id)) == {"Source", "Ask"}
    assert releases.s3.list_objects_v2(Bucket=releases.sources, Prefix="site/")["KeyCount"] == 0
    # It is asked again when the stage is tried again, and the rest follows.
    releases.client.retry_stage_execution(
        pipelineName=name, stageName="Review", pipelineExecutionId=id, retryMode="FAILED_ACTIONS"
    )
    releases.answer(name, "Review")
    assert releases.over(name, id)["status"] == "Succeeded"
    assert releases.stages(name)["Review"]["retryStageMetadata"]["manualStageRetryAttempt"] == 1
    # What went well is not tried again, and a pipeline whose role is gone does nothing any more.
    again = {"pipelineName": name, "pipelineExecutionId": id, "stageName": "Publish", "retryMode": "FAILED_ACTIONS"}
    with pytest.raises(ClientError, match="StageNotRetryable"):
        releases.client.retry_stage_execution(**again)
    iam = releases.account.client("iam")
    iam.delete_role_policy(RoleName="Pipeline", PolicyName="inline")
    iam.delete_role(RoleName="Pipeline")
    id = releases.started(name)
    assert releases.over(name, id)["status"] == "Failed"
    assert releases.error(name, id, "Source")["code"] == "PermissionError"


def test_newer_executions_supersede_those_that_wait(releases: Releases) -> None:
    name = releases.made(stage("Review", approval()), wait=False)
    first = releases.newest(name)
    releases.waits(name, "Review")
    second, third = releases.started(name), None
    until(lambda: releases.stages(name)["Review"].get("inboundExecution"))
    third = releases.started(name)
    superseded = releases.over(name, second)
    assert (superseded["status"], superseded["statusSummary"]) == (
        "Superseded", f"Superseded by the execution {third}.",
    )  # fmt: skip
    releases.answer(name, "Review")
    assert releases.over(name, first)["status"] == "Succeeded"
    releases.answer(name, "Review")
    assert releases.over(name, third)["status"] == "Succeeded"


def test_others_wait_in_their_order_or_do_not_wait(releases: Releases) -> None:
    queued = releases.made(stage("Review", approval()), pipelineType="V2", executionMode="QUEUED", wait=False)
    ids = [releases.newest(queued), *(releases.started(queued) for _ in range(2))]
    for id in ids:
        releases.within(queued, "Review", id)
        releases.answer(queued, "Review")
        assert releases.over(queued, id)["status"] == "Succeeded"
    beside = releases.made(stage("Review", approval()), pipelineType="V2", executionMode="PARALLEL", wait=False)
    ids = [releases.newest(beside), releases.started(beside)]
    until(lambda: True if all(len(releases.actions(beside, id)) == 2 for id in ids) else None)
    for id in ids:
        releases.client.stop_pipeline_execution(pipelineName=beside, pipelineExecutionId=id, abandon=True)
        assert releases.over(beside, id)["status"] == "Stopped"
        assert releases.actions(beside, id)["Ask"]["status"] == "Abandoned"


def test_a_closed_way_in_holds_what_comes(releases: Releases) -> None:
    name = releases.made(stage("Publish", _copy(releases)))
    given = {"pipelineName": name, "stageName": "Publish", "transitionType": "Inbound"}
    releases.client.disable_stage_transition(**given, reason="a freeze")
    id = releases.started(name)
    until(lambda: releases.stages(name)["Publish"].get("inboundExecution"))
    state = releases.stages(name)["Publish"]["inboundTransitionState"]
    assert (state["enabled"], state["disabledReason"]) == (False, "a freeze")
    releases.client.enable_stage_transition(**given)
    assert releases.over(name, id)["status"] == "Succeeded"


def test_who_stops_it_waits_for_what_runs_or_gives_it_up(releases: Releases) -> None:
    name = releases.made(stage("Review", approval(), approval("Later", runOrder=2)), wait=False)
    id = releases.newest(name)
    releases.waits(name, "Review")
    stop = {"pipelineName": name, "pipelineExecutionId": id}
    releases.client.stop_pipeline_execution(**stop, reason="not today")
    with pytest.raises(ClientError, match="DuplicatedStopRequest"):
        releases.client.stop_pipeline_execution(**stop)
    assert releases.stages(name)["Review"]["latestExecution"]["status"] == "Stopping"
    releases.answer(name, "Review")
    assert releases.over(name, id)["status"] == "Stopped"
    assert set(releases.actions(name, id)) == {"Source", "Ask"}
    with pytest.raises(ClientError, match="PipelineExecutionNotStoppable"):
        releases.client.stop_pipeline_execution(**stop)
    [summary] = releases.client.list_pipeline_executions(pipelineName=name)["pipelineExecutionSummaries"]
    assert summary["stopTrigger"] == {"reason": "not today"}


def test_variables_are_filled_in_and_stay_where_they_stand(releases: Releases) -> None:
    machine = releases.account.client("stepfunctions").create_state_machine(
        name="echo",
        definition=json.dumps({"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}}),
        roleArn=releases.account.role("Machine", allow("s3:*"), trust={"Service": "states.amazonaws.com"}),
    )["stateMachineArn"]
    given = {"who": "#{variables.Who}", "version": "#{SourceVariables.VersionId}"}
    run = action(
        "Run",
        "Invoke",
        "StepFunctions",
        {"StateMachineArn": machine, "Input": json.dumps(given), "ExecutionNamePrefix": "release"},
        outputArtifacts=["Said"],
        namespace="run",
    )
    name = releases.made(
        stage("Run", run, approval("Ask", runOrder=2, configuration={"CustomData": "#{run.ExecutionArn}"})),
        pipelineType="V2",
        variables=[{"name": "Who", "defaultValue": "ann"}],
        wait=False,
    )
    releases.answer(name, "Run", "Rejected")
    injected = '"}, "admin": {"a": "#{codepipeline.PipelineExecutionId}'
    id = releases.started(name, variables=[{"name": "Who", "value": injected}])
    releases.answer(name, "Run")
    assert releases.over(name, id)["status"] == "Succeeded"
    said = json.loads(releases.artifact(name, id, "Run")["execution-output.json"])
    version = releases.actions(name, id)["Source"]["output"]["outputVariables"]["VersionId"]
    assert said == {"who": injected, "version": version}
    arn = releases.actions(name, id)["Run"]["output"]["outputVariables"]["ExecutionArn"]
    assert ":echo:release-" in arn
    assert releases.actions(name, id)["Ask"]["input"]["resolvedConfiguration"]["CustomData"] == arn
    assert releases.get(name, id)["variables"] == [{"name": "Who", "resolvedValue": injected}]

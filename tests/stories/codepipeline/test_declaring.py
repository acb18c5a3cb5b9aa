"""What is a pipeline and what is none; versions, tags, lists; who may do what; events that start it and that it tells."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import REGION, Account, allow
from tests.stories.cloudformation.stacks import Stacks
from tests.stories.codepipeline.releases import Releases, action, approval, stage, until, zipped
from tests.stories.scheduler.test_schedules import arranged
from tests.stories.sqs.test_queues import bodies, made

EVENTS = {"Service": "events.amazonaws.com"}


def _build(**more: Any) -> dict[str, Any]:
    return action("B", "Deploy", "S3", {"BucketName": "b", "Extract": "true"}, inputArtifacts=["Code"], **more)


def test_what_is_none(releases: Releases) -> None:
    source, ask = releases.source(), approval()

    def wrong(code: str, *stages: dict[str, Any], **more: Any) -> str:
        declared = {**releases.declared(), "stages": list(stages), **more}
        with pytest.raises(ClientError) as error:
            releases.client.create_pipeline(pipeline=declared)
        found: dict[str, str] = error.value.response["Error"]
        assert found["Code"] == f"{code}Exception", found
        return found["Message"]

    structure, actions, stages = "InvalidStructure", "InvalidActionDeclaration", "InvalidStageDeclaration"
    assert "minimum of 2 stages" in wrong(structure, source)
    assert "only contains source actions" in wrong(structure, stage("A", ask), stage("B", ask))
    assert "Source actions may occur" in wrong(structure, source, stage("B", releases.source()["actions"][0]))
    wrong(stages, source, stage("Empty"))
    wrong(stages, source, stage("Twice", ask, ask))
    wrong(structure, source, stage("A", ask), stage("A", ask))
    assert "'Jenkins'" in wrong(actions, source, stage("A", action("X", "Build", "Jenkins", {})))
    assert "not declared as Output" in wrong(
        actions, source, stage("A", {**_build(), "inputArtifacts": [{"name": "Nobody"}]})
    )
    assert "has 0 input artifacts" in wrong(actions, source, stage("A", {**_build(), "inputArtifacts": []}))
    mode = {"ActionMode": "CREATE UPDATE", "StackName": "s"}
    message = wrong(actions, source, stage("A", action("D", "Deploy", "CloudFormation", mode)))
    assert "'CREATE UPDATE' is no value of ActionMode" in message
    assert "missing required configuration 'StackName'" in wrong(
        actions, source, stage("A", action("D", "Deploy", "CloudFormation", {"ActionMode": "DELETE_ONLY"}))
    )
    assert "unknown configuration 'Foo'" in wrong(actions, source, stage("A", approval(configuration={"Foo": "x"})))
    for text, why in (("#{nobody.X}", "namespace nobody"), ("#{variables.X}", "namespace variables")):
        assert why in wrong(actions, source, stage("A", approval(configuration={"CustomData": text})))
    assert "eu-west-1" in wrong(actions, source, stage("A", approval(region="eu-west-1")))
    alien = {"type": "KMS", "id": releases.key.replace(REGION, "eu-west-1")}
    store = {"type": "S3", "location": releases.bucket, "encryptionKey": alien}
    assert "not of the pipeline's region" in wrong(structure, source, stage("A", ask), artifactStore=store)
    assert "V2" in wrong(structure, source, stage("A", ask), executionMode="QUEUED")
    assert "V2" in wrong(stages, source, stage("A", ask, onFailure={"result": "ROLLBACK"}))
    trigger = {"providerType": "CodeStarSourceConnection", "gitConfiguration": {"sourceActionName": "Source"}}
    assert "triggers" in wrong(structure, source, stage("A", ask), pipelineType="V2", triggers=[trigger])
    rule = {"name": "R", "ruleTypeId": {"category": "Rule", "provider": "Commands"}, "commands": ["true"]}
    entry = {"conditions": [{"result": "FAIL", "rules": [rule]}]}
    assert "no rule Commands" in wrong(stages, source, stage("A", ask, beforeEntry=entry), pipelineType="V2")


@pytest.mark.control("PEX-01")
def test_versions_tags_and_lists(releases: Releases) -> None:
    client = releases.client
    declared = releases.declared(stage("Review", approval()), name="p")
    tags = [{"key": "team", "value": "alpha"}]
    created = client.create_pipeline(pipeline={**declared, "version": 10}, tags=tags)
    assert created["tags"] == tags
    with pytest.raises(ClientError, match="PipelineNameInUse"):
        client.create_pipeline(pipeline=declared)
    read = client.get_pipeline(name="p")
    arn = read["metadata"]["pipelineArn"]
    assert arn == f"arn:aws:codepipeline:{REGION}:{releases.account.id}:p"
    assert read["pipeline"]["version"] == 1
    first = releases.newest("p")
    releases.waits("p", "Review")
    changed = client.update_pipeline(pipeline={**read["pipeline"], "executionMode": "SUPERSEDED", "version": 1})
    assert changed["pipeline"]["version"] == 2
    # What ran of the version before is not completed.
    assert releases.over("p", first)["status"] == "Cancelled"
    assert releases.actions("p", first)["Ask"]["status"] == "Abandoned"
    assert client.get_pipeline(name="p", version=1)["pipeline"]["version"] == 1
    with pytest.raises(ClientError, match="PipelineVersionNotFound"):
        client.get_pipeline(name="p", version=3)
    client.tag_resource(resourceArn=arn, tags=[{"key": "stage", "value": "test"}])
    client.untag_resource(resourceArn=arn, tagKeys=["team"])
    assert client.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "stage", "value": "test"}]
    for number in range(3):
        client.create_pipeline(pipeline={**declared, "name": f"q{number}"})
    page = client.list_pipelines(maxResults=3)
    rest = client.list_pipelines(maxResults=3, nextToken=page["nextToken"])
    assert [one["name"] for one in page["pipelines"] + rest["pipelines"]] == ["p", "q0", "q1", "q2"]
    providers = {one["id"]["provider"] for one in client.list_action_types()["actionTypes"]}
    assert {"S3", "Manual", "CloudFormation", "Lambda", "StepFunctions"} <= providers
    token = {"name": "p", "clientRequestToken": "once"}
    assert len({client.start_pipeline_execution(**token)["pipelineExecutionId"] for _ in range(2)}) == 1
    client.delete_pipeline(name="p")
    with pytest.raises(ClientError, match="PipelineNotFound"):
        client.get_pipeline_state(name="p")
    for operation in ("put_webhook", "create_custom_action_type", "poll_for_jobs"):
        with pytest.raises(ClientError, match="UnknownOperation"):
            getattr(client, operation)(**_SOMETHING[operation])


_TYPE = {"category": "Build", "owner": "Custom", "provider": "x", "version": "1"}
_SOMETHING: dict[str, dict[str, Any]] = {
    "put_webhook": {
        "webhook": {
            "name": "w", "targetPipeline": "p", "targetAction": "a", "authentication": "UNAUTHENTICATED",
            "filters": [{"jsonPath": "$.x"}], "authenticationConfiguration": {},
        }
    },
    "create_custom_action_type": {
        "category": "Build", "provider": "x", "version": "1",
        "inputArtifactDetails": {"minimumCount": 0, "maximumCount": 1},
        "outputArtifactDetails": {"minimumCount": 0, "maximumCount": 1},
    },
    "poll_for_jobs": {"actionTypeId": _TYPE},
}  # fmt: skip


@pytest.mark.control("STG-10", lacking="what is deployed after it")
def test_who_started_it_does_not_approve_it(account: Account, releases: Releases) -> None:
    name = releases.made(stage("Review", approval(), approval("Second")), wait=False)
    arn = f"arn:aws:codepipeline:{REGION}:{account.id}:{name}"
    author = allow("codepipeline:*")
    deny = {"Effect": "Deny", "Action": "codepipeline:PutApprovalResult", "Resource": "*"}
    account.role("Author", {**author, "Statement": [*author["Statement"], deny]})
    account.role("Approver", allow("codepipeline:PutApprovalResult", resource=f"{arn}/Review/Ask"))
    as_author = account.client("codepipeline", account.as_role("Author"))
    as_approver = account.client("codepipeline", account.as_role("Approver"))
    with pytest.raises(ClientError, match=r"PutApprovalResult on resource: .*/Review/Ask with an explicit deny"):
        releases.answer(name, "Review", client=as_author)
    with pytest.raises(ClientError, match=r"PutApprovalResult on resource: .*/Review/Second"):
        releases.answer(name, "Review", action="Second", client=as_approver)
    # A token of one approval is none of another.
    with pytest.raises(ClientError, match="InvalidApprovalToken"):
        releases.answer(name, "Review", token=releases.waits(name, "Review", "Second"))
    releases.answer(name, "Review", client=as_approver)
    releases.answer(name, "Review", action="Second")
    id = releases.newest(name)
    assert releases.over(name, id)["status"] == "Succeeded"
    assert releases.actions(name, id)["Ask"]["updatedBy"].endswith(":assumed-role/Approver/test")


@pytest.mark.control("MON-02", lacking="builds")
def test_events_start_it_and_are_told(account: Account, releases: Releases) -> None:
    sqs, sns, events = account.client("sqs"), account.client("sns"), account.client("events")
    topic = sns.create_topic(Name="approvals")["TopicArn"]
    url = made(sqs)
    queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    lets = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": ["events.amazonaws.com", "sns.amazonaws.com"]},
             "Action": "sqs:SendMessage", "Resource": queue},
        ],
    }  # fmt: skip
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(lets)})
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue, Attributes={"RawMessageDelivery": "true"})
    given = {"NotificationArn": topic, "CustomData": "please", "ExternalEntityLink": "https://example.com/change/7"}
    name = releases.made(
        stage("Review", approval(configuration=given)),
        pipelineType="V2", variables=[{"name": "Why", "defaultValue": "made"}], wait=False,
    )  # fmt: skip
    releases.answer(name, "Review")
    releases.over(name, releases.newest(name))
    arn = f"arn:aws:codepipeline:{REGION}:{account.id}:{name}"
    told = {"source": ["aws.codepipeline"], "resources": [arn]}
    events.put_rule(Name="tells", EventPattern=json.dumps(told))
    events.put_targets(Rule="tells", Targets=[{"Id": "t", "Arn": queue}])
    starter = account.role("Starter", allow("codepipeline:StartPipelineExecution", resource=arn), trust=EVENTS)
    powerless = account.role("Powerless", allow("s3:*"), trust=EVENTS)
    pattern = {"source": ["team"], "detail-type": ["go"]}
    events.put_rule(Name="starts", EventPattern=json.dumps(pattern))
    change = {
        "InputPathsMap": {"why": "$.detail.why"},
        "InputTemplate": '{"variables": [{"name": "Why", "value": <why>}]}',
    }
    target = {"Id": "p", "Arn": arn, "InputTransformer": change}
    events.put_targets(Rule="starts", Targets=[{**target, "RoleArn": powerless}])
    entry = {"Source": "team", "DetailType": "go", "Detail": json.dumps({"why": "an event"})}
    before = releases.newest(name)
    events.put_events(Entries=[entry])
    # A role that may not leaves no run, and the next event, with one that may, just one.
    events.put_targets(Rule="starts", Targets=[{**target, "RoleArn": starter}])
    events.put_events(Entries=[entry])
    id = until(lambda: found if (found := releases.newest(name)) != before else None)
    token = releases.waits(name, "Review")
    releases.answer(name, "Review", token=token)
    done = releases.over(name, id)
    assert done["variables"] == [{"name": "Why", "resolvedValue": "an event"}]
    rule = f"arn:aws:events:{REGION}:{account.id}:rule/starts"
    assert done["trigger"] == {"triggerType": "CloudWatchEvent", "triggerDetail": rule}
    assert len(releases.client.list_pipeline_executions(pipelineName=name)["pipelineExecutionSummaries"]) == 2
    clock = account.role(
        "Clock",
        allow("codepipeline:StartPipelineExecution", resource=arn),
        trust={"Service": "scheduler.amazonaws.com"},
    )
    nightly = {"Name": "nightly", "FlexibleTimeWindow": {"Mode": "OFF"}, "Target": {"Arn": arn, "RoleArn": clock}}
    arranged(lambda when: account.client("scheduler").create_schedule(ScheduleExpression=when, **nightly))
    found: list[dict[str, Any]] = []

    def all_there() -> bool | None:
        found.extend(json.loads(one) for one in bodies(sqs, url))
        kinds = {(one.get("detail-type"), one.get("detail", {}).get("state")) for one in found}
        wanted = {(f"CodePipeline {kind} Execution State Change", state) for kind in ("Pipeline", "Stage", "Action")
                  for state in ("STARTED", "SUCCEEDED")}  # fmt: skip
        return True if wanted <= kinds and any("approval" in one for one in found) else None

    until(all_there)
    by_clock = until(lambda: last if (last := releases.newest(name)) != id else None)
    assert releases.get(name, by_clock)["trigger"]["triggerDetail"].endswith(":schedule-group/default")
    releases.answer(name, "Review", "Rejected")
    releases.over(name, by_clock)

    def failed() -> bool | None:
        found.extend(json.loads(one) for one in bodies(sqs, url))
        kinds = {one["detail-type"].split()[1] for one in found if one.get("detail", {}).get("state") == "FAILED"}
        return True if kinds == {"Pipeline", "Stage", "Action"} else None

    until(failed)
    assert {one["detail"]["execution-id"] for one in found if one.get("detail", {}).get("state") == "FAILED"} == {
        by_clock
    }
    asked = [one for one in found if "approval" in one][-1]["approval"]
    assert (asked["pipelineName"], asked["customData"], asked["externalEntityLink"]) == (
        name, "please", "https://example.com/change/7",
    )  # fmt: skip
    kind = "CodePipeline Pipeline Execution State Change"
    [ended] = [
        one["detail"] for one in found if one.get("detail-type") == kind and one["detail"]["state"] == "SUCCEEDED"
    ]
    assert (ended["pipeline"], ended["execution-id"], ended["version"]) == (name, id, 1)


def _template(releases: Releases, **more: Any) -> str:
    """A pipeline as templates write it."""

    def capital(value: Any) -> Any:
        if isinstance(value, list):
            return [capital(one) for one in value]
        if isinstance(value, dict):
            return {
                key[:1].upper() + key[1:]: one if key == "configuration" else capital(one) for key, one in value.items()
            }
        return value

    declared = capital(releases.declared(stage("Review", approval()), name="stacked"))
    properties = {**declared, "Tags": [{"Key": "team", "Value": "alpha"}], **more}
    resource = {"P": {"Type": "AWS::CodePipeline::Pipeline", "Properties": properties}}
    version = {"V": {"Value": {"Fn::GetAtt": ["P", "Version"]}}, "N": {"Value": {"Ref": "P"}}}
    return json.dumps({"Resources": resource, "Outputs": version})


def test_a_stack_makes_one(account: Account, releases: Releases) -> None:
    stacks = Stacks(account)

    def outputs(told: dict[str, Any]) -> dict[str, str]:
        assert told["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE"), stacks.story("s")
        return {one["OutputKey"]: one["OutputValue"] for one in told["Outputs"]}

    closed = [{"StageName": "Review", "Reason": "not yet"}]
    made_ = stacks.create("s", _template(releases, DisableInboundStageTransitions=closed))
    assert outputs(made_) == {"V": "1", "N": "stacked"}
    assert releases.stages("stacked")["Review"]["inboundTransitionState"]["disabledReason"] == "not yet"
    arn = releases.client.get_pipeline(name="stacked")["metadata"]["pipelineArn"]
    tags = {one["key"]: one["value"] for one in releases.client.list_tags_for_resource(resourceArn=arn)["tags"]}
    assert (tags["team"], tags["aws:cloudformation:stack-name"]) == ("alpha", "s")
    changed = _template(releases, PipelineType="V2", ExecutionMode="QUEUED", RestartExecutionOnUpdate=True)
    assert outputs(stacks.update("s", changed)) == {"V": "2", "N": "stacked"}
    assert releases.stages("stacked")["Review"]["inboundTransitionState"]["enabled"]
    releases.waits("stacked", "Review")
    stacks.delete("s")
    assert releases.client.list_pipelines()["pipelines"] == []
    broken = stacks.create(
        "b", _template(releases, RoleArn=account.role("Alien", trust={"Service": "a.amazonaws.com"}))
    )
    assert broken["StackStatus"] == "ROLLBACK_COMPLETE"
    assert any("not authorized to perform AssumeRole" in why for _, _, why in stacks.story("b"))


def test_a_swapped_artifact_is_not_used_nor_a_hostile_one(releases: Releases) -> None:
    copy = action(
        "Copy", "Deploy", "S3", {"BucketName": releases.sources, "Extract": "true", "ObjectKey": "out"},
        inputArtifacts=["Code"], runOrder=2,
    )  # fmt: skip
    name = releases.made(stage("Publish", approval(), copy), wait=False)
    id = releases.newest(name)
    releases.waits(name, "Publish")
    where = releases.actions(name, id)["Source"]["output"]["outputArtifacts"][0]["s3location"]
    releases.s3.put_object(Bucket=where["bucket"], Key=where["key"], Body=zipped({"evil": "x"}))
    releases.answer(name, "Publish")
    assert releases.over(name, id)["status"] == "Failed"
    error = releases.error(name, id, "Copy")
    assert error["code"] == "RevisionOutOfSync" and "is not what the action Source made" in error["message"]
    hostile = {
        "a way out": zipped({"../../etc/passwd": "x"}),
        "no archive": b"PK\x03\x04 but no more",
    }
    for what, body in hostile.items():
        releases.s3.put_object(Bucket=releases.sources, Key="source.zip", Body=body)
        id = releases.started(name)
        releases.within(name, "Publish", id)
        releases.answer(name, "Publish")
        assert releases.over(name, id)["status"] == "Failed", what
        assert "cannot be unpacked" in releases.error(name, id, "Copy")["message"], what
    assert releases.s3.list_objects_v2(Bucket=releases.sources, Prefix="out/")["KeyCount"] == 0
    # With its key lost no artifact is read or written: the first action that needs one says so.
    kms = releases.account.client("kms")
    kms.schedule_key_deletion(KeyId=releases.key, PendingWindowInDays=7)
    id = releases.started(name)
    assert releases.over(name, id)["status"] == "Failed"
    error = releases.error(name, id, "Source")
    assert error["code"] == "PermissionError" and "pending deletion" in error["message"], error
    kms.cancel_key_deletion(KeyId=releases.key)
    kms.enable_key(KeyId=releases.key)

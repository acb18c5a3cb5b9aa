"""The platform is killed in every stage and action of a pipeline, before and after each call that it makes elsewhere: the
execution goes on, and each of its side effects is there once."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import Account, Running, allow
from tests.stories.cloudformation.stacks import parameter
from tests.stories.codebuild.conftest import CODEBUILD, ENVIRONMENT, MAY, spec
from tests.stories.codepipeline.releases import Releases, action, approval, releases_of, stage
from tests.stories.sqs.test_queues import made

SHORT = ["release/StartExecution:after"]
LONG = [
    f"release/{step}:{when}"
    for step in ("PutObject", "Publish", "StartExecution", "StartBuild", "CreateStack", "work", "settle")
    for when in ("before", "after")
] + ["release/enter:after", "release/begin:after", "release/end:before", "release/stage:after"]
POINTS = LONG if "BASTIDE_CRASH_ROUNDS" in os.environ else SHORT
LATE = ("release/work:after", "release/settle:before", "release/settle:after", "release/CreateStack:before",
        "release/CreateStack:after")  # fmt: skip
"""What comes when somebody has approved."""


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A platform of its own, for it is to die."""
    running = Running(tmp_path_factory.mktemp("crash") / "data")
    running.start()
    running.found()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def member(crashing: Running) -> Account:
    return crashing.account()


@pytest.fixture(scope="module")
def releases(member: Account) -> Releases:
    """A pipeline that writes artifacts, sends a notification, runs a state machine, copies, and makes a stack; in the long
    form it builds, too."""
    found = releases_of(member)
    found.s3.put_bucket_versioning(Bucket=found.bucket, VersioningConfiguration={"Status": "Enabled"})
    machine = member.client("stepfunctions").create_state_machine(
        name="once",
        definition=json.dumps({"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}}),
        roleArn=member.role("Machine", allow("s3:*"), trust={"Service": "states.amazonaws.com"}),
    )["stateMachineArn"]
    sqs, topic = member.client("sqs"), member.client("sns").create_topic(Name="told")["TopicArn"]
    url = made(sqs)
    queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    lets = allow("sqs:SendMessage", resource=queue)
    lets["Statement"][0]["Principal"] = {"Service": "sns.amazonaws.com"}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(lets)})
    member.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    role = member.role("Stack", allow("ssm:*"), trust={"Service": "cloudformation.amazonaws.com"})
    found.commit({"template.json": {"Resources": {"P": parameter("v")}}})
    code, copies = {"inputArtifacts": ["Code"]}, {"Extract": "true", "ObjectKey": "out"}
    builds = [_building(member)] if POINTS is LONG else []
    found.declaration = {
        "queue": url.rpartition("/")[2],
        "machine": machine,
        "stages": [
            stage(
                "Beside",
                action("Run", "Invoke", "StepFunctions", {"StateMachineArn": machine}, outputArtifacts=["Said"]),
                action("Copy", "Deploy", "S3", {**copies, "BucketName": found.sources}, **code),
                *builds,
                approval("Ask", runOrder=2, configuration={"NotificationArn": topic}),
            ),
            stage(
                "Deploy",
                action(
                    "Stack", "Deploy", "CloudFormation",
                    {"ActionMode": "CREATE_UPDATE", "StackName": "s#{codepipeline.PipelineExecutionId}", "RoleArn": role,
                     "TemplatePath": "Code::template.json"},
                    **code,
                ),
            ),
        ],
    }  # fmt: skip
    return found


def _building(member: Account) -> dict[str, Any]:
    """An action that builds."""
    member.client("codebuild").create_project(
        name="once", source={"type": "CODEPIPELINE", "buildspec": spec(build=["ls template.json"])},
        artifacts={"type": "CODEPIPELINE"}, environment=ENVIRONMENT,
        serviceRole=member.role("Builds", allow(*MAY, "kms:*"), trust=CODEBUILD),
    )  # fmt: skip
    document = json.dumps(allow("codebuild:*"))
    member.client("iam").put_role_policy(RoleName="Pipeline", PolicyName="builds", PolicyDocument=document)
    return action("Build", "Build", "CodeBuild", {"ProjectName": "once"}, inputArtifacts=["Code"])


def _effects(member: Account, releases: Releases) -> dict[str, int]:
    """How much there is of everything."""
    states, sqs, s3 = member.client("stepfunctions"), member.client("sqs"), releases.s3
    url = sqs.get_queue_url(QueueName=releases.declaration["queue"])["QueueUrl"]
    counted = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
    return {
        "artifacts": len(s3.list_object_versions(Bucket=releases.bucket).get("Versions", [])),
        "copies": len(s3.list_object_versions(Bucket=releases.sources, Prefix="out/").get("Versions", [])),
        "runs": len(states.list_executions(stateMachineArn=releases.declaration["machine"])["executions"]),
        "messages": int(counted["ApproximateNumberOfMessages"]),
        "builds": len(member.client("codebuild").list_builds()["ids"]),
        "stacks": len(member.client("cloudformation").describe_stacks()["Stacks"]),
    }


@pytest.mark.parametrize("point", POINTS)
def test_it_goes_on_and_each_side_effect_is_there_once(
    crashing: Running, member: Account, releases: Releases, point: str
) -> None:
    crashing.stop()
    crashing.launch(BASTIDE_TEST_KILL_AT=point)
    releases.reach()
    before = _effects(member, releases)
    name = f"p-{uuid.uuid4().hex[:8]}"
    declared = releases.declared(*releases.declaration["stages"], name=name)
    with contextlib.suppress(botocore.exceptions.BotoCoreError):  # it may die before the answer is out
        releases.client.create_pipeline(pipeline=declared)
    id = releases.newest(name) if point in LATE else ""
    if point in LATE:
        releases.answer(name, "Beside")
    assert crashing.process is not None
    assert crashing.process.wait(30) == -9
    crashing.kill()
    crashing.launch()
    releases.reach()
    id = id or releases.newest(name)
    if point not in LATE:
        releases.answer(name, "Beside")
    assert releases.over(name, id)["status"] == "Succeeded", releases.actions(name, id)
    after = _effects(member, releases)
    made_ = {key: after[key] - before.get(key, 0) for key in after}
    builds = int(POINTS is LONG)
    assert made_ == {"artifacts": 2, "copies": 1, "runs": 1, "messages": 1, "builds": builds, "stacks": 1}
    did = releases.client.list_action_executions(pipelineName=name)["actionExecutionDetails"]
    assert sorted(one["actionName"] for one in did) == [
        "Ask", *(["Build"] if builds else []), "Copy", "Run", "Source", "Stack",
    ]  # fmt: skip

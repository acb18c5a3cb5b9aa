"""The platform is killed wherever an execution of a pipeline stands: it goes on, and every step runs once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.platform import Account, Running, allow
from tests.stories.sagemaker.conftest import Workshop, workshop_of
from tests.stories.sagemaker.pipelines import create, furnish, governed, over, reasons, start, steps

SHORT = ["pipeline/launch:after", "pipeline/end:before"]
LONG = [
    "pipeline/intend:after",
    "pipeline/work:before",
    "pipeline/end:after",
    "pipeline/work:after",
    "pipeline/settle:before",
    "pipeline/settle:after",
    "processing/watch:before",
    "training/settle:after",
]
"""Only in `make crash`."""
LATE = {"pipeline/work:after", "pipeline/settle:before", "pipeline/settle:after"}
"""What comes when every step is over."""
POINTS = [*SHORT, *(LONG if "BASTIDE_CRASH_ROUNDS" in os.environ else ())]


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
def workshop(member: Account) -> Workshop:
    made = workshop_of(member)
    furnish(made)
    sends = json.dumps(allow("sqs:SendMessage"))
    member.client("iam").put_role_policy(RoleName="Execution", PolicyName="sends", PolicyDocument=sends)
    return made


def _reach(member: Account, workshop: Workshop) -> None:
    """A platform that was started again has other ports."""
    workshop.sagemaker, workshop.s3 = member.client("sagemaker"), member.client("s3")


def _answer(member: Account, workshop: Workshop, name: str) -> None:
    """Answers the step that asks: its message may come twice, but never with another token."""
    sqs = member.client("sqs")
    queue, tokens = sqs.get_queue_url(QueueName=name)["QueueUrl"], set()
    while not tokens:
        for one in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=20).get("Messages", []):
            tokens.add(json.loads(one["Body"])["token"])
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=one["ReceiptHandle"])
    [token] = tokens
    rows = [{"Name": "rows", "Value": "7"}]
    workshop.sagemaker.send_pipeline_execution_step_success(CallbackToken=token, OutputParameters=rows)


def _made(workshop: Workshop) -> dict[str, list[str]]:
    """Everything that executions made."""
    client = workshop.sagemaker
    listed: dict[str, Any] = {
        "ProcessingJob": ("list_processing_jobs", "ProcessingJobSummaries", {}),
        "TrainingJob": ("list_training_jobs", "TrainingJobSummaries", {}),
        "Model": ("list_models", "Models", {}),
        "RegisterModel": ("list_model_packages", "ModelPackageSummaryList", {"ModelPackageGroupName": "lines"}),
    }
    names = {"Model": "ModelArn", "RegisterModel": "ModelPackageArn"}
    return {
        kind: [
            one[names.get(kind, f"{kind}Arn")]
            for page in client.get_paginator(operation).paginate(**given)
            for one in page[member]
        ]
        for kind, (operation, member, given) in listed.items()
    }


@pytest.mark.parametrize("point", POINTS)
def test_every_step_runs_once_and_the_execution_succeeds(
    crashing: Running, member: Account, workshop: Workshop, point: str
) -> None:
    crashing.stop()
    crashing.launch(BASTIDE_TEST_KILL_AT=point)
    _reach(member, workshop)
    name = workshop.name("lines")  # what another pipeline ran is not used again
    told = governed(workshop)
    queue = member.client("sqs").create_queue(QueueName=name)["QueueUrl"]
    ask = {"Name": "Ask", "Type": "Callback", "SqsQueueUrl": queue, "DependsOn": ["Prepare"]}
    told["Steps"].append({**ask, "OutputParameters": [{"OutputName": "rows", "OutputType": "Integer"}]})
    create(workshop, name, told)
    arn = start(workshop, name)
    if point in LATE:
        _answer(member, workshop, name)
    assert crashing.process is not None
    assert crashing.process.wait(30) == -9
    crashing.kill()
    crashing.launch()
    _reach(member, workshop)
    if point not in LATE:
        _answer(member, workshop, name)
    done = over(workshop, arn)
    assert done["PipelineExecutionStatus"] == "Succeeded", reasons(workshop, arn)
    id = arn.rpartition("/")[2]
    made: dict[str, list[str]] = {}
    for one in steps(workshop, arn).values():
        for kind, told in one["Metadata"].items():
            if "Arn" in told:
                made.setdefault(kind, []).append(told["Arn"])
        assert one["AttemptCount"] == 1
    packages = [
        package
        for package in _made(workshop)["RegisterModel"]
        if workshop.sagemaker.describe_model_package(ModelPackageName=package)["MetadataProperties"]["GeneratedBy"]
        == arn
    ]
    found = {kind: [one for one in every if f"-{id}-" in one] for kind, every in _made(workshop).items()}
    found["RegisterModel"] = packages
    assert {kind: sorted(every) for kind, every in found.items()} == {kind: sorted(one) for kind, one in made.items()}

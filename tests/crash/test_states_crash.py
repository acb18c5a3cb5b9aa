"""The platform is killed before and after every transaction of a state machine with branches, iterations and calls; the end
is that of an undisturbed run, and each side effect is there once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.platform import Account, Running
from tests.stories.states.conftest import Machines, machines_of

LONG = "BASTIDE_CRASH_ROUNDS" in os.environ
POINTS = [f"states/{number}:{when}" for number in range(1, 40) for when in ("before", "after")]
SHORT = ["states/6:before"]


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
def made(member: Account) -> dict[str, Any]:
    machines = machines_of(member)
    s3 = member.client("s3")
    bucket = f"crash-{member.id}"
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    inner = machines.made({"I": {"Type": "Pass", "End": True}}, name="inner")
    put = {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:s3:putObject",
        "Parameters": {
            "Bucket": bucket,
            "Key.$": "States.Format('{}/{}', $$.Execution.Name, $)",
            "Body.$": "States.JsonToString($)",
        },
        "ResultSelector": {"done.$": "$$.State.Name"},
    }
    each = {"StartAt": "Put", "States": {"Put": {**put, "Next": "W"}, "W": {"Type": "Wait", "Seconds": 0, "End": True}}}
    outer = {
        "P": {
            "Type": "Parallel",
            "Branches": [
                {"StartAt": "One", "States": {"One": {"Type": "Pass", "Result": "one", "Next": "PutOne"},
                                              "PutOne": {**put, "End": True}}},
                {"StartAt": "M", "States": {"M": {"Type": "Map", "ItemsPath": "$.items", "MaxConcurrency": 2,
                                                  "ItemProcessor": each, "End": True}}},
            ],
            "Next": "Start",
        },
        "Start": {
            "Type": "Task",
            "Resource": "arn:aws:states:::states:startExecution.sync:2",
            "Parameters": {"StateMachineArn": inner, "Input.$": "$"},
            "ResultSelector": {"output.$": "$.Output"},
            "End": True,
        },
    }  # fmt: skip
    return {"bucket": bucket, "inner": inner, "outer": machines.made(outer, name="outer"), "n": 0}


def _now(member: Account) -> Machines:
    """With clients for the address that the platform has now."""
    return Machines(member, member.client("stepfunctions"))


def _end(member: Account, made: dict[str, Any], arn: str, name: str) -> dict[str, Any]:
    machines = _now(member)
    found = machines.ended(arn, 60)
    versions = member.client("s3").list_object_versions(Bucket=made["bucket"], Prefix=f"{name}/")["Versions"]
    runs = machines.states.list_executions(stateMachineArn=made["inner"])["executions"]
    events = machines.events(arn)
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    return {
        "status": found["status"],
        "output": found["output"],
        "versions": sorted(one["Key"].partition("/")[2] for one in versions),
        "runs": len(runs),
        "types": sorted(event["type"] for event in events),
    }


def _begin(member: Account, made: dict[str, Any]) -> tuple[str, str]:
    made["n"] += 1
    name = f"run-{made['n']}"
    given = json.dumps({"items": ["a", "b", "c"]})
    start = member.client("stepfunctions").start_execution
    return start(stateMachineArn=made["outer"], name=name, input=given)["executionArn"], name


@pytest.fixture(scope="module")
def undisturbed(crashing: Running, member: Account, made: dict[str, Any]) -> dict[str, Any]:
    found = _end(member, made, *_begin(member, made))
    assert found["status"] == "SUCCEEDED"
    assert found["versions"] == ["a", "b", "c", "one"]
    assert found["runs"] == 1
    return found


@pytest.mark.parametrize("point", POINTS if LONG else SHORT)
def test_the_end_is_that_of_an_undisturbed_run(
    crashing: Running, member: Account, made: dict[str, Any], undisturbed: dict[str, Any], point: str
) -> None:
    crashing.stop()
    crashing.launch(BASTIDE_TEST_KILL_AT=point)
    arn, name = _begin(member, made)
    assert crashing.process is not None
    try:
        assert crashing.process.wait(3 if LONG else 20) == -9
    except TimeoutError:
        pass
    except Exception:
        assert LONG, f"{point} is not reached"  # the run is over before it
    crashing.kill()
    crashing.launch()
    found = _end(member, made, arn, name)
    assert found == {**undisturbed, "runs": made["n"]}

"""What AWS was recorded to do where its documentation is silent."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bastide.engines.asl import check, expression_core
from bastide.engines.asl.values import LARGEST
from bastide.protocol import codec
from bastide.services.states import integrations
from bastide.services.states.reading import _rows, items
from bastide.services.states.tasks import Failed
from tests.unit.asl.test_interpreter import TASK, Machine

FAILS = {"StartAt": "F", "States": {"F": {"Type": "Fail", "Error": "E", "Cause": "c"}}}
AROUND = {"P": {"Type": "Parallel", "Branches": [FAILS], "Next": "Z"}, "Z": {"Type": "Pass", "End": True}}


def test_branches_that_failed_are_told_before_they_are_caught_and_not_before_they_are_retried() -> None:
    caught = json.loads(json.dumps(AROUND))
    caught["P"]["Catch"] = [{"ErrorEquals": ["States.ALL"], "Next": "Z"}]
    assert Machine(caught, "{}").run().types[3:6] == ["FailStateEntered", "ParallelStateFailed", "ParallelStateExited"]
    retried = json.loads(json.dumps(AROUND))
    retried["P"]["Retry"] = [{"ErrorEquals": ["States.ALL"], "MaxAttempts": 1}]
    assert Machine(retried, "{}").run().types[2:] == [
        "ParallelStateStarted", "FailStateEntered", "ParallelStateStarted", "FailStateEntered", "ParallelStateFailed",
        "ExecutionFailed",
    ]  # fmt: skip


def test_a_map_that_may_not_run_so_wide_does_not_start() -> None:
    one = {"StartAt": "I", "States": {"I": {"Type": "Pass", "End": True}}}
    states = {"M": {"Type": "Map", "MaxConcurrencyPath": "$.w", "ItemsPath": "$.i", "ItemProcessor": one, "End": True}}
    done = Machine(states, '{"w": "wide", "i": [1]}').run()
    assert done.types[1:] == ["MapStateEntered", "ExecutionFailed"]


def test_a_result_that_is_too_large_fails_its_task_which_is_caught_by_name() -> None:
    states = {
        "T": {**TASK, "Catch": [{"ErrorEquals": ["States.DataLimitExceeded"], "Next": "Z"}], "End": True},
        "Z": {"Type": "Pass", "End": True},
    }
    machine = Machine(states, "{}")
    machine.m.advance(machine.m.now, 200)
    (task,) = machine.m.memory.frames.values()
    machine.m.succeeded(task.serial, machine.m.now, "x" * LARGEST)
    status, output, _ = machine.run().end
    assert status == "SUCCEEDED" and "TaskFailed" in machine.types
    assert json.loads(str(output))["Cause"].startswith("The state/task 'aws-sdk:s3' returned a result")


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("$['a\\\"b']", {'a\\"b': 1}),
        ("$['a\\'b']", {"a'b": 1}),
        ('$["a\\"b"]', {'a"b': 1}),
        ("$['a\\\\b']", {"a\\b": 1}),
    ],
)
def test_a_backslash_in_a_name_is_one_before_another_quote(path: str, data: dict[str, Any]) -> None:
    states = {"A": {"Type": "Pass", "Parameters": {"v.$": path}, "End": True}}
    assert Machine(states, json.dumps(data)).run().end[1] == '{"v":1}'


def test_credentials_name_a_role() -> None:
    state = {"Type": "Task", "Resource": TASK["Resource"], "Credentials": {}, "End": True}
    [wrong] = check(json.dumps({"StartAt": "A", "States": {"A": state}}))
    assert wrong.line().endswith("The field 'RoleArn' is required but was missing at /States/A/Credentials")


def test_a_blank_text_is_null() -> None:
    states = {"A": {"Type": "Pass", "Parameters": {"v.$": "States.StringToJson($.t)"}, "End": True}}
    for text in ("", " "):
        assert Machine(states, json.dumps({"t": text})).run().end[1] == '{"v":null}'


@pytest.mark.parametrize(
    ("service", "operation", "given", "member"),
    [
        ("s3", "PutObject", {"Bucket": "b", "Key": "k"}, "Body"),
        ("lambda", "Invoke", {"FunctionName": "f"}, "Payload"),
    ],
)
def test_what_is_stored_or_handed_to_a_function_is_json(
    service: str, operation: str, given: dict[str, Any], member: str
) -> None:
    shape = codec(service).operations[operation].input_shape
    for value, sent in (("text", b'"text"'), ({"a": [1]}, b'{"a":[1]}'), (False, b"false")):
        assert integrations.into(shape, {**given, member: value})[member] == sent


def test_a_range_of_one_is_that_one() -> None:
    assert expression_core._range(1, 9, 9) == 1 and expression_core._range(0, 9, 3) == [0, 3, 6, 9]


def test_readers_refuse_a_negative_limit_and_headers_twice() -> None:
    reader = {"given": {}, "config": {"MaxItems": -1}, "Resource": "arn:aws:states:::s3:getObject"}
    with pytest.raises(Failed, match="field MaxItems must be positive"):
        asyncio.run(items(None, None, "us-east-1", reader))  # type: ignore[arg-type]
    with pytest.raises(Failed, match=r"CSV headers cannot contain duplicates\."):
        _rows("a,b,a\n1,2,3\n", {"InputType": "CSV"})

"""Executions without a platform: laws of the interpreter, and what it says of what goes wrong."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.engines.asl import About, Confined, Interpreter, Memory, check

START = 1_700_000_000_000_000


class Machine:
    """An execution that is taken from transition to transition, its memory written and read in between, or not."""

    def __init__(self, states: dict[str, Any], text: str, *, evaluate: Any = None, most_events: int = 25_000) -> None:
        self.definition = {"StartAt": next(iter(states)), "States": states}
        assert not check(json.dumps(self.definition))
        self.about = About(
            "arn:aws:states:us-east-1:1:execution:m:e", "e", "role", START, "arn", "m", json.loads(text), text
        )
        self.evaluate, self.most = evaluate, most_events
        self.events: list[dict[str, Any]] = []
        self.m = self._made(Memory())
        self.m.begin(START)

    def _made(self, memory: Memory) -> Interpreter:
        return Interpreter(
            self.definition, memory, self.about, self.evaluate, lambda f, s: f"{f}/{s}", most_events=self.most
        )

    def again(self) -> None:
        """What a process does that takes it up."""
        self.events += self.m.events
        now = self.m.now
        self.m = self._made(Memory.read(json.loads(json.dumps(self.m.memory.told()))))
        self.m.now = now

    def run(self, *, most: int = 200, forgetting: bool = False, failing: frozenset[str] = frozenset()) -> Machine:
        """To its end; every task gives its own input, or fails if its parameters name a failure."""
        for _ in range(100_000):
            if forgetting:
                self.again()
            self.m.advance(self.m.now, most)
            if self.m.memory.status != "RUNNING":
                break
            task = next((one for one in self.m.memory.frames.values() if one.phase == "task"), None)
            if not self.m.busy and task is not None:
                value = json.loads((task.call or {})["given"])
                if isinstance(value, dict) and value.get("fail") in failing:
                    self.m.failed(task.serial, self.m.now, value["fail"], "as asked")
                else:
                    self.m.succeeded(task.serial, self.m.now, value)
            elif not self.m.busy:
                due = self.m.due()
                assert due is not None
                self.m.now = due
        self.events += self.m.events
        return self

    @property
    def end(self) -> tuple[str, str | None, str | None]:
        memory = self.m.memory
        return memory.status, memory.output, memory.error

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


TASK = {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:s3:listBuckets"}
WHOLE = {
    "A": {"Type": "Pass", "Assign": {"kept.$": "$.n"}, "Next": "P"},
    "P": {
        "Type": "Parallel",
        "Branches": [
            {"StartAt": "B1", "States": {"B1": {**TASK, "Parameters": {"b.$": "$kept"}, "End": True}}},
            {
                "StartAt": "B2",
                "States": {
                    "B2": {
                        "Type": "Map",
                        "ItemsPath": "$.items",
                        "MaxConcurrency": 2,
                        "ItemProcessor": {
                            "StartAt": "T",
                            "States": {
                                "T": {
                                    **TASK,
                                    "Parameters": {"fail.$": "$", "of.$": "$$.Map.Item.Index"},
                                    "Retry": [{"ErrorEquals": ["once"], "MaxAttempts": 2, "MaxDelaySeconds": 3}],
                                    "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": None, "Next": "C"}],
                                    "Next": "W",
                                },
                                "C": {"Type": "Pass", "Result": "caught", "End": True},
                                "W": {"Type": "Wait", "Seconds": 5, "End": True},
                            },
                        },
                        "End": True,
                    }
                },
            },
        ],
        "ResultPath": "$.done",
        "Next": "Z",
    },
    "Z": {"Type": "Choice", "Choices": [{"Variable": "$kept", "NumericGreaterThan": 3, "Next": "F"}], "Default": "S"},
    "F": {"Type": "Fail", "ErrorPath": "States.Format('{}', $kept)"},
    "S": {"Type": "Succeed"},
}


@given(
    n=st.integers(0, 6),
    items=st.lists(st.sampled_from(["good", "once", "bad"]), max_size=6),
    most=st.integers(1, 30),
)
def test_who_forgets_everything_between_transitions_comes_to_the_same_end(n: int, items: list[str], most: int) -> None:
    text = json.dumps({"n": n, "items": items})
    failing = frozenset({"once", "bad"})
    whole = Machine(WHOLE, text).run(failing=failing)
    pieces = Machine(WHOLE, text).run(failing=failing, most=most, forgetting=True)
    assert pieces.end == whole.end
    assert sorted(pieces.types) == sorted(whole.types)
    for one in (whole, pieces):
        assert [event["id"] for event in one.events] == list(range(1, len(one.events) + 1))
        assert all(event["previousEventId"] < event["id"] for event in one.events)
        assert not [frame for frame in one.m.memory.frames.values() if frame.phase not in ("over", "children")]


def test_a_history_has_an_end() -> None:
    loop = {"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Pass", "Next": "A"}}
    found = Machine(loop, "{}", most_events=50).run()
    assert (found.end[0], found.end[2], len(found.events)) == ("FAILED", "States.Runtime", 50)


def test_what_is_tried_again_waits_longer_each_time() -> None:
    retry = [
        {"ErrorEquals": ["bad"], "IntervalSeconds": 2, "BackoffRate": 3.0, "MaxAttempts": 3, "MaxDelaySeconds": 10}
    ]
    state = {"T": {**TASK, "Parameters": {"fail": "bad"}, "Retry": retry, "End": True}}
    found = Machine(state, "{}").run(failing=frozenset({"bad"}))
    at = [event["timestamp"] // 1_000_000 for event in found.events if event["type"] == "TaskScheduled"]
    assert [later - sooner for sooner, later in itertools.pairwise(at)] == [2, 6, 10]
    assert found.end[2] == "bad"


def test_runtime_errors_are_not_caught_by_all() -> None:
    state = {
        "T": {
            **TASK,
            "Parameters": {"x.$": "$.missing"},
            "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "C"}],
            "End": True,
        },
        "C": {"Type": "Pass", "End": True},
    }
    found = Machine(state, '{"a": 1}').run()
    assert found.end[2] == "States.Runtime"
    cause = found.m.memory.cause
    assert cause is not None and "'$.missing' specified for the field 'x.$' could not be found in the input" in cause


def test_a_branch_that_fails_ends_the_others() -> None:
    state = {
        "P": {
            "Type": "Parallel",
            "Branches": [
                {"StartAt": "F", "States": {"F": {"Type": "Fail", "Error": "E"}}},
                {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 99, "End": True}}},
            ],
            "Catch": [{"ErrorEquals": ["E"], "Next": "C"}],
            "End": True,
        },
        "C": {"Type": "Pass", "End": True},
    }
    found = Machine(state, "{}").run()
    assert found.end[0] == "SUCCEEDED"
    assert "WaitStateEntered" not in found.types or "WaitStateAborted" in found.types


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"Type": "Pass"}, "One of these fields is required: [Next, End]"),
        ({"Type": "Pass", "Next": "X"}, "Missing 'Next' target: X"),
        ({"Type": "Nothing", "End": True}, "Value is not valid"),
        ({"Type": "Pass", "InputPath": "$.[", "End": True}, "is not a JSONPath"),
        (
            {"Type": "Pass", "Parameters": {"a.$": "b"}, "End": True},
            "valid JSONPath or a valid intrinsic function call",
        ),
        ({"Type": "Pass", "Parameters": {"a.$": "States.No()"}, "End": True}, "is no intrinsic function"),
        ({"Type": "Pass", "QueryLanguage": "JSONata", "Output": "{% ( %}", "End": True}, "Invalid JSONata expression"),
        (
            {"Type": "Wait", "Seconds": 1, "Timestamp": "2020-01-01T00:00:00Z", "End": True},
            "Exactly one of these fields",
        ),
        ({"Type": "Choice", "Choices": []}, "at least one choice"),
        ({"Type": "Map", "ItemProcessor": {"StartAt": "B", "States": {}}, "End": True}, "Missing 'StartAt' target: B"),
        ({**TASK, "Retry": [{"ErrorEquals": ["States.ALL", "x"]}], "End": True}, "States.ALL must appear alone"),
    ],
)
def test_what_is_wrong_is_said(state: dict[str, Any], told: str) -> None:
    found = check(json.dumps({"StartAt": "A", "States": {"A": state}}))
    assert any(told in one.message for one in found), [one.line() for one in found]


def test_expressions_are_confined() -> None:
    evaluate = Confined()
    try:
        for text in ("{% $states.input.n + 1 %}", "{% $states.input.list.($ * 2) %}"):
            state = {"A": {"Type": "Pass", "QueryLanguage": "JSONata", "Output": text, "End": True}}
            found = Machine(state, '{"n": 1, "list": [1, 2]}', evaluate=evaluate).run()
            assert found.end[1] in ("2", "[2,4]")
        state["A"]["Output"] = "{% $eval('1') %}"
        found = Machine(state, "{}", evaluate=evaluate).run()
        assert found.end[2] == "States.QueryEvaluationError"
        assert found.types[-2:] == ["EvaluationFailed", "ExecutionFailed"]
    finally:
        evaluate.close()

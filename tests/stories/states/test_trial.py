"""States are tested by themselves: what is mocked is held against what could come, and thresholds and retries count."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account

INVOKE = {
    "Type": "Task",
    "Resource": "arn:aws:states:::lambda:invoke",
    "Parameters": {"FunctionName": "f"},
    "End": True,
}
EACH = {
    "Type": "Map",
    "ItemsPath": "$.items",
    "ItemProcessor": {
        "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
        "StartAt": "I",
        "States": {"I": {"Type": "Pass", "End": True}},
    },
    "ToleratedFailureCount": 1,
    "End": True,
}


def test_a_state_by_itself(account: Account) -> None:
    client = account.client("stepfunctions")

    def tried(state: dict[str, Any], given: Any = (), **more: Any) -> dict[str, Any]:
        if "mock" in more:
            more["mock"] = {key: json.dumps(one) if key == "result" else one for key, one in more["mock"].items()}
        found = client.test_state(
            definition=json.dumps(state), input=json.dumps(given), inspectionLevel="DEBUG", **more
        )
        return dict(found)

    items = {"items": [1, 2, 3]}
    within = tried(EACH, items, mock={"result": [1, 1, 1]}, stateConfiguration={"mapIterationFailureCount": 1})
    assert within["status"] == "SUCCEEDED"
    told = within["inspectionData"]
    assert (told["maxConcurrency"], told["toleratedFailureCount"]) == (0, 1)
    beyond = tried(EACH, items, mock={"result": [0, 0, 1]}, stateConfiguration={"mapIterationFailureCount": 2})
    assert (beyond["status"], beyond["error"]) == ("FAILED", "States.ExceedToleratedFailureThreshold")

    retried = {**INVOKE, "Retry": [{"ErrorEquals": ["E"], "MaxAttempts": 2}]}
    for count, status in ((1, "RETRIABLE"), (2, "FAILED")):
        found = tried(retried, mock={"errorOutput": {"error": "E"}}, stateConfiguration={"retrierRetryCount": count})
        assert (found["status"], found["inspectionData"]["errorDetails"]["retryIndex"]) == (status, 0)

    shown = tried({"Type": "Pass", "Parameters": {"c.$": "$$"}, "End": True})
    context = json.loads(shown["output"])["c"]
    assert context["State"]["Name"] == "StateName"
    assert "RedriveCount" not in context["Execution"] and context["Execution"]["RoleArn"] is None

    mock = {"result": {"StatusCode": 200}}
    for code, why, state, more in (
        ("InvalidDefinition", "does not support Map or Parallel", EACH, {}),
        ("ValidationException", "only one of the following", INVOKE, {"mock": {**mock, "errorOutput": {"error": "E"}}}),
        ("ValidationException", "RevealSecrets", INVOKE, {"mock": mock, "revealSecrets": True}),
        ("ValidationException", "'StatusCode' must be a number", INVOKE, {"mock": {"result": {"StatusCode": "200"}}}),
        ("ValidationException", "'Map' field is not supported", INVOKE, {"mock": mock, "context": '{"Map": {}}'}),
        ("ValidationException", "Id must be a string", INVOKE, {"mock": mock, "context": '{"Execution": {"Id": 1}}'}),
        ("ValidationException", "Field 'Pokedex' is not", INVOKE, {"mock": mock, "context": '{"Pokedex": {}}'}),
        ("ValidationException", "contains 'Task' when", INVOKE, {"mock": mock, "context": '{"Task": {"Token": "t"}}'}),
        (
            "ValidationException", "less than or equal to the number of Map iterations", EACH,
            {"mock": {"result": [1]}, "stateConfiguration": {"mapIterationFailureCount": 2}},
        ),
    ):  # fmt: skip
        with pytest.raises(ClientError, match=why) as refused:
            tried(state, items, **more)
        assert refused.value.response["Error"]["Code"] == code

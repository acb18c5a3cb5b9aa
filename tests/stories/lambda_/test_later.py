"""Events that are handled later, on a platform whose clock moves: tried again, told about, and let in by whom."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bastide.domain import Refused
from bastide.kernel import service_caller
from tests.moved import Moved, moved, until
from tests.platform import REGION, Account
from tests.stories.lambda_.conftest import Bench, bench_of

FLAKY = """
def handler(event, context):
    print("tried", event["n"])
    if event.get("fail"): raise ValueError("not yet")
    return {"done": event["n"]}
"""
KEEP = "import json\ndef handler(event, context): print('told', json.dumps(event))"


@pytest.fixture(scope="module")
def clocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    yield from moved(tmp_path_factory.mktemp("later"))


@pytest.fixture(scope="module")
def shop(clocked: Moved) -> Bench:
    clocked.found()
    return bench_of(clocked.account())


def _lines(bench: Bench, name: str, word: str) -> list[str]:
    try:
        found = bench.account.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
    except ClientError:
        return []
    return [one["message"] for one in found if word in one["message"]]


def _attempts(clocked: Moved) -> list[int]:
    """How often the events that wait have been tried."""
    return clocked.look(lambda view: [row.doc["attempts"] for row in view.scan("lambda:Event", "", "", limit=100)])


def _wait(clocked: Moved, wanted: list[int], ahead: float) -> None:
    """Until the queue has taken up what is due so many seconds later: nothing is called meanwhile."""
    with clocked.days_later(ahead / 86400):
        until(lambda: _attempts(clocked) == wanted)


def test_an_event_is_tried_three_times_and_then_told_about(clocked: Moved, shop: Bench) -> None:
    name, keeper = shop.make(FLAKY, "flaky"), shop.make(KEEP, "keeper")
    target = f"arn:aws:lambda:{REGION}:{shop.account.id}:function:{keeper}"
    both = {"OnSuccess": {"Destination": target}, "OnFailure": {"Destination": target}}
    shop.client.put_function_event_invoke_config(FunctionName=name, DestinationConfig=both)
    allowed = {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": target}
    shop.account.client("iam").put_role_policy(
        RoleName="functions",
        PolicyName="tell",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}),
    )
    assert shop.invoke(name, {"n": 1}, InvocationType="Event", LogType="None").status == 202
    until(lambda: _lines(shop, keeper, "told"))
    [line] = _lines(shop, keeper, "told")
    told = json.loads(line.partition(" ")[2])
    assert told["requestContext"]["condition"] == "Success" and told["responsePayload"] == {"done": 1}
    assert told["requestContext"]["functionArn"].endswith(":function:flaky:$LATEST") and told["requestPayload"] == {
        "n": 1
    }

    shop.invoke(name, {"n": 2, "fail": True}, InvocationType="Event", LogType="None")
    until(lambda: _attempts(clocked) == [1])
    _wait(clocked, [2], 61)
    _wait(clocked, [], 61 + 121)
    until(lambda: len(_lines(shop, keeper, "told")) == 2)
    told = json.loads(_lines(shop, keeper, "told")[1].partition(" ")[2])
    assert told["requestContext"]["condition"] == "RetriesExhausted"
    assert told["requestContext"]["approximateInvokeCount"] == 3
    assert (
        told["responsePayload"]["errorMessage"] == "not yet" and told["responseContext"]["functionError"] == "Unhandled"
    )
    assert len(_lines(shop, name, "tried 2")) == 3


def test_an_event_that_is_too_old_is_given_up(clocked: Moved, shop: Bench) -> None:
    name = shop.make(FLAKY, "old")
    shop.client.put_function_event_invoke_config(FunctionName=name, MaximumEventAgeInSeconds=60, MaximumRetryAttempts=0)
    held = shop.client.get_function_event_invoke_config(FunctionName=name)
    assert (held["MaximumEventAgeInSeconds"], held["MaximumRetryAttempts"]) == (60, 0)
    assert len(shop.client.list_function_event_invoke_configs(FunctionName=name)["FunctionEventInvokeConfigs"]) == 1
    shop.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    shop.invoke(name, {"n": 3}, InvocationType="Event", LogType="None")
    assert _attempts(clocked) == [0], "what is throttled waits"
    _wait(clocked, [], 500)
    assert not _lines(shop, name, "tried")
    shop.client.delete_function_event_invoke_config(FunctionName=name)
    with pytest.raises(ClientError, match="EventInvokeConfig"):
        shop.client.get_function_event_invoke_config(FunctionName=name)


def _act(clocked: Moved, account: Account, principal: str, source: str, name: str) -> dict[str, Any]:
    """An invocation by a service itself, as another service of the platform makes it."""
    calls = clocked.running.calls
    given = {"FunctionName": name, "InvocationType": "Event", "Payload": b'{"n": 9}'}
    made: Future[dict[str, Any]] = asyncio.run_coroutine_threadsafe(
        calls.act(
            service_caller(principal, account.id, source), "lambda", "Invoke", given, region=REGION, source=principal
        ),
        clocked.loop,
    )
    return made.result(30)


def test_services_are_let_in_by_the_functions_policy(clocked: Moved, shop: Bench) -> None:
    name, events = shop.make(FLAKY, "ruled"), "events.amazonaws.com"
    rule = f"arn:aws:events:{REGION}:{shop.account.id}:rule/mine"
    with pytest.raises(Refused, match="AccessDenied"):
        _act(clocked, shop.account, events, rule, name)
    shop.client.add_permission(
        FunctionName=name, StatementId="rule", Action="lambda:InvokeFunction", Principal=events, SourceArn=rule,
        SourceAccount=shop.account.id,
    )  # fmt: skip
    assert _act(clocked, shop.account, events, rule, name)["StatusCode"] == 202
    for principal, source in ((events, f"{rule}-not"), ("s3.amazonaws.com", rule)):
        with pytest.raises(Refused, match="AccessDenied"):
            _act(clocked, shop.account, principal, source, name)
    until(lambda: _lines(shop, name, "tried 9"))

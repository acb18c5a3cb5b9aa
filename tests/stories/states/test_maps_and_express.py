"""Distributed maps over S3, express state machines, logs, and what the states must not be able to do."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import allow
from tests.stories.states.conftest import STATES, Machines

ITEM = {"StartAt": "I", "States": {"I": {"Type": "Pass", "End": True}}}


def _processor(states: dict[str, Any] | None = None, kind: str = "STANDARD") -> dict[str, Any]:
    inner = states or ITEM["States"]
    config = {"Mode": "DISTRIBUTED", "ExecutionType": kind}
    return {"ProcessorConfig": config, "StartAt": next(iter(inner)), "States": inner}


def test_a_map_over_objects(machines: Machines) -> None:
    s3, states = machines.account.client("s3"), machines.states
    bucket = f"maps-{machines.account.id}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="in/a.csv", Body=b"name,age\nann,7\nbob,8\n")
    s3.put_object(Bucket=bucket, Key="in/b.jsonl", Body=b'{"v": 1}\n{"v": 2}\n{"v": 3}\n')
    s3.put_object(Bucket=bucket, Key="in/c.json", Body=b'{"all": [1, 2, 3, 4, 5]}')

    def reader(key: str, **config: Any) -> dict[str, Any]:
        given = {"Bucket": bucket, "Key": key}
        return {"Resource": "arn:aws:states:::s3:getObject", "ReaderConfig": config, "Parameters": given}

    def over(reader: dict[str, Any], **more: Any) -> Any:
        state = {"Type": "Map", "ItemReader": reader, "ItemProcessor": _processor(), "End": True, **more}
        found = machines.ran({"M": state})
        assert found["status"] == "SUCCEEDED", found
        return found["output"]

    assert over(reader("in/a.csv", InputType="CSV", CSVHeaderLocation="FIRST_ROW"))[1] == {"name": "bob", "age": "8"}
    assert over(reader("in/b.jsonl", InputType="JSONL", MaxItems=2)) == [{"v": 1}, {"v": 2}]
    batches = over(
        reader("in/c.json", InputType="JSON", ItemsPointer="/all"),
        ItemBatcher={"MaxItemsPerBatch": 2, "BatchInput": {"b": 1}},
    )
    assert batches[2] == {"BatchInput": {"b": 1}, "Items": [5]} and len(batches) == 3
    keys = over({"Resource": "arn:aws:states:::s3:listObjectsV2", "Parameters": {"Bucket": bucket, "Prefix": "in/"}})
    assert [one["Key"] for one in keys] == ["in/a.csv", "in/b.jsonl", "in/c.json"]
    # Results go to S3; what may fail, may.
    inner = {
        "C": {"Type": "Choice", "Choices": [{"Variable": "$", "NumericEquals": 3, "Next": "F"}], "Default": "P"},
        "P": {"Type": "Pass", "End": True},
        "F": {"Type": "Fail", "Error": "Three"},
    }
    state = {
        "Type": "Map",
        "ItemReader": reader("in/c.json", InputType="JSON", ItemsPointer="/all"),
        "ItemProcessor": _processor(inner),
        "ToleratedFailureCount": 1,
        "ResultWriter": {
            "Resource": "arn:aws:states:::s3:putObject",
            "Parameters": {"Bucket": bucket, "Prefix": "out"},
        },
        "End": True,
    }
    found = machines.ran({"M": state})
    where = found["output"]["ResultWriterDetails"]
    manifest = json.loads(s3.get_object(Bucket=where["Bucket"], Key=where["Key"])["Body"].read())
    [failed] = manifest["ResultFiles"]["FAILED"]
    [told] = json.loads(s3.get_object(Bucket=bucket, Key=failed["Key"])["Body"].read())
    assert (told["Error"], told["Input"]) == ("Three", "3")
    [run] = states.list_map_runs(executionArn=found["executionArn"])["mapRuns"]
    described = states.describe_map_run(mapRunArn=run["mapRunArn"])
    assert (described["itemCounts"]["succeeded"], described["itemCounts"]["failed"]) == (4, 1)
    children = states.list_executions(mapRunArn=run["mapRunArn"])["executions"]
    assert len(children) == 5
    assert states.describe_execution(executionArn=children[0]["executionArn"])["mapRunArn"] == run["mapRunArn"]
    # One failure more than may be ends it all.
    del state["ToleratedFailureCount"]
    found = machines.ran({"M": state})
    assert (found["status"], found["error"]) == ("FAILED", "States.ExceedToleratedFailureThreshold")
    found = machines.ran({"M": {**state, "ItemReader": reader("in/none.json", InputType="JSON")}})
    assert found["error"] == "States.ItemReaderFailed"


def test_express_children_and_stopping_a_run(machines: Machines) -> None:
    items = {"Type": "Map", "ItemProcessor": _processor(kind="EXPRESS"), "MaxConcurrency": 3, "End": True}
    assert machines.ran({"M": items}, list(range(20)))["output"] == list(range(20))
    wait = {"W": {"Type": "Wait", "Seconds": 600, "End": True}}
    arn = machines.started(
        machines.made({"M": {"Type": "Map", "ItemProcessor": _processor(wait), "End": True}}), [1, 2]
    )
    run = machines.until(arn, "MapRunStarted")["mapRunStartedEventDetails"]["mapRunArn"]
    machines.states.stop_execution(executionArn=arn)
    end = time.monotonic() + 60
    while machines.states.describe_map_run(mapRunArn=run)["status"] == "RUNNING":
        assert time.monotonic() < end
    running = machines.states.list_executions(mapRunArn=run, statusFilter="RUNNING")["executions"]
    assert running == []


@pytest.mark.parametrize("kind", ["STANDARD", "EXPRESS"])
def test_a_redriven_run_goes_on_with_what_did_not_succeed(machines: Machines, kind: str) -> None:
    s3, states = machines.account.client("s3"), machines.states
    bucket, late = f"kept-{kind.lower()}-{machines.account.id}", f"late-{kind.lower()}-{machines.account.id}"
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    task = {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:s3:putObject", "ResultPath": None}
    inner = {
        "First": {**task, "Parameters": {"Bucket": bucket, "Key.$": "States.Format('{}', $.n)"}, "Next": "Second"},
        "Second": {**task, "Parameters": {"Bucket.$": "$.to", "Key.$": "States.Format('{}', $.n)"}, "End": True},
    }
    state = {"Type": "Map", "ItemProcessor": _processor(inner, kind), "MaxConcurrency": 1, "Next": "After"}
    given = [{"n": 0, "to": bucket}, {"n": 1, "to": late}, {"n": 2, "to": bucket}, {"n": 3, "to": late}]
    arn = machines.started(machines.made({"M": state, "After": {"Type": "Pass", "End": True}}), given)
    assert machines.ended(arn)["error"] == "States.ExceedToleratedFailureThreshold"
    [run] = [one["mapRunArn"] for one in states.list_map_runs(executionArn=arn)["mapRuns"]]
    # Fails again, at the same place.
    states.redrive_execution(executionArn=arn)
    assert machines.ended(arn)["status"] == "FAILED"
    found = states.describe_map_run(mapRunArn=run)
    assert (found["status"], found["redriveCount"], found["executionCounts"]["failed"]) == ("FAILED", 1, 1)
    s3.create_bucket(Bucket=late)
    states.redrive_execution(executionArn=arn)
    ended = machines.ended(arn)
    assert (ended["status"], ended["output"], ended["redriveCount"]) == ("SUCCEEDED", given, 2)
    # The same run went on: what had succeeded was not done again, what was not started was started.
    [same] = states.list_map_runs(executionArn=arn)["mapRuns"]
    found = states.describe_map_run(mapRunArn=run)
    assert same["mapRunArn"] == run and (found["status"], found["redriveCount"]) == ("SUCCEEDED", 2)
    told = found["executionCounts"]
    assert (told["succeeded"], told["failed"], told["aborted"], told["pendingRedrive"]) == (4, 0, 0, 0)
    versions = [one["Key"] for one in s3.list_object_versions(Bucket=bucket)["Versions"]]
    first = 1 if kind == "STANDARD" else 3  # an express child begins anew, a standard one goes on where it stood
    assert sorted(versions) == sorted(["0", "0", *["1"] * first, "2", "2", "3"])
    redriven = [one for one in machines.events(arn) if one["type"] == "MapRunRedriven"]
    assert [one["mapRunRedrivenEventDetails"]["redriveCount"] for one in redriven] == [1, 2]
    assert machines.types(arn).count("MapStateEntered") == machines.types(arn).count("MapRunStarted") == 1
    if kind == "STANDARD":
        children = states.list_executions(mapRunArn=run, redriveFilter="REDRIVEN")["executions"]
        assert [one["redriveCount"] for one in children] == [2]


def test_a_run_that_was_stopped_is_redriven(machines: Machines) -> None:
    s3, states = machines.account.client("s3"), machines.states
    bucket = f"stopped-{machines.account.id}"
    inner = {
        "W": {"Type": "Wait", "SecondsPath": "$.s", "Next": "Try"},
        "Try": {
            "Type": "Task", "Resource": "arn:aws:states:::aws-sdk:s3:headBucket", "Parameters": {"Bucket": bucket},
            "ResultPath": None, "Retry": [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 600}], "End": True,
        },
    }  # fmt: skip
    arn = machines.started(
        machines.made({"M": {"Type": "Map", "ItemProcessor": _processor(inner), "End": True}}), [{"s": 0}, {"s": 0}]
    )
    run = machines.until(arn, "MapRunStarted")["mapRunStartedEventDetails"]["mapRunArn"]
    end = time.monotonic() + 60
    while states.describe_map_run(mapRunArn=run)["executionCounts"]["running"] < 2:
        assert time.monotonic() < end
    states.stop_execution(executionArn=arn)
    s3.create_bucket(Bucket=bucket)
    states.redrive_execution(executionArn=arn)  # while what was stopped may still be stopping
    assert machines.ended(arn)["status"] == "SUCCEEDED"
    found = states.describe_map_run(mapRunArn=run)
    assert (found["status"], found["executionCounts"]["succeeded"], found["redriveCount"]) == ("SUCCEEDED", 2, 1)


def test_express_and_logs(machines: Machines) -> None:
    states, logs = machines.states, machines.account.client("logs")
    logs.create_log_group(logGroupName="/states/x")
    group = f"arn:aws:logs:us-east-1:{machines.account.id}:log-group:/states/x:*"
    configuration = {
        "level": "ALL",
        "includeExecutionData": False,
        "destinations": [{"cloudWatchLogsLogGroup": {"logGroupArn": group}}],
    }
    machine = machines.made(
        {"A": {"Type": "Pass", "Result": {"secret": "hush"}, "End": True}},
        type="EXPRESS",
        loggingConfiguration=configuration,
    )
    answer = states.start_sync_execution(stateMachineArn=machine, input="{}", name="one")
    assert (answer["status"], json.loads(answer["output"])) == ("SUCCEEDED", {"secret": "hush"})
    states.start_execution(stateMachineArn=machine, input="{}")
    end = time.monotonic() + 60
    lines: list[dict[str, Any]] = []
    while time.monotonic() < end and len(lines) < 8:
        lines = [json.loads(one["message"]) for one in logs.filter_log_events(logGroupName="/states/x")["events"]]
        time.sleep(0.05)
    assert sum(one["type"] == "ExecutionSucceeded" for one in lines) == 2
    assert "hush" not in json.dumps(lines)
    with pytest.raises(ClientError) as caught:
        states.list_executions(stateMachineArn=machine)
    assert caught.value.response["Error"]["Code"] == "StateMachineTypeNotSupported"
    with pytest.raises(ClientError) as caught:
        machines.made({"A": {"Type": "Pass", "End": True}}, tracingConfiguration={"enabled": True})
    assert caught.value.response["Error"]["Code"] == "InvalidTracingConfiguration"


def test_hostile_definitions_are_bounded(machines: Machines) -> None:
    """Loops, nesting, and expressions that explode end in words, and nothing else suffers."""
    loop = {"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Pass", "Next": "A"}}
    endless = machines.started(machines.made(loop))
    hostile = {
        "regex": "{% $contains('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!', /^(a+)+$/) %}",
        "memory": "{% $pad('', 1000000000) %}",
        "recursion": "{% ($f := function($x){1 + $f($x)}; $f(1)) %}",
    }
    for name, expression in hostile.items():
        state = {"Type": "Pass", "QueryLanguage": "JSONata", "Output": expression, "End": True}
        found = machines.ran({"A": state})
        assert found["error"] == "States.QueryEvaluationError", name
    found = machines.ran(
        {"A": {"Type": "Pass", "Parameters": {"x.$": "States.ArrayRange(0, 1000000, 1)"}, "End": True}}
    )
    assert found["error"] == "States.IntrinsicFailure"
    doubled = {"Type": "Pass", "Parameters": {"x.$": "$", "y.$": "$"}, "Next": "A"}
    found = machines.ran({"A": doubled}, {"a": 1})
    assert found["error"] == "States.DataLimitExceeded"
    # What is small to write and large to hold is held once, or not at all.
    many = {f"x{number}.$": "$" for number in range(5000)}
    filters = {f"x{number}.$": "$..*[?(@.a != 1)]" for number in range(2000)}
    for template in (many, filters):
        found = machines.ran({"A": {"Type": "Pass", "Parameters": template, "End": True}}, {"a": ["x" * 50] * 2000})
        assert found["error"] in ("States.DataLimitExceeded", "States.Runtime")
    twice = {"Type": "Map", "ItemSelector": {"all.$": "$"}, "ItemProcessor": ITEM, "End": True}
    found = machines.ran({"A": {**twice, "ItemsPath": "$.n"}}, {"n": list(range(200)), "text": "x" * 100_000})
    assert found["error"] == "States.DataLimitExceeded"
    deep = "[" * 5000 + "]" * 5000
    with pytest.raises(ClientError) as caught:
        machines.states.start_execution(stateMachineArn=machines.made(loop), input=deep)
    assert caught.value.response["Error"]["Code"] == "InvalidExecutionInput"
    with pytest.raises(ClientError) as caught:
        machines.made({"A": {"Type": "Pass", "Comment": "x" * (1 << 20), "End": True}})
    assert caught.value.response["Error"]["Code"] in ("InvalidDefinition", "ValidationException")
    with pytest.raises(ClientError) as caught:
        machines.made({"A": {"Type": "Task", "Resource": "arn:aws:states:::dynamodb:putItem", "End": True}})
    assert "does not exist in Bastide" in caught.value.response["Error"]["Message"]
    over = machines.ended(endless, 60)
    assert (over["status"], over["error"]) == ("FAILED", "States.Runtime")
    last = machines.states.get_execution_history(executionArn=endless, reverseOrder=True, maxResults=2)["events"]
    assert last[0]["id"] == 25_000 and last[0]["type"] == "ExecutionFailed"


def test_a_log_that_the_role_may_not_write_is_refused(machines: Machines) -> None:
    account = machines.account
    account.client("logs").create_log_group(logGroupName="/states/y")
    lame = account.role("Lame", allow("s3:*"), trust=STATES)

    def made(role: str, where: str) -> str:
        destination = {"cloudWatchLogsLogGroup": {"logGroupArn": f"arn:aws:logs:us-east-1:{where}:*"}}
        configuration = {"level": "ERROR", "destinations": [destination]}
        with pytest.raises(ClientError) as caught:
            machines.made({"A": {"Type": "Pass", "End": True}}, roleArn=role, loggingConfiguration=configuration)
        return str(caught.value.response["Error"]["Code"])

    assert made(lame, f"{account.id}:log-group:/states/y") == "AccessDeniedException"
    assert made(machines.role, f"{account.id}:log-group:/states/none") == "InvalidLoggingConfiguration"
    assert made(machines.role, "444455556666:log-group:/states/y") == "InvalidLoggingConfiguration"

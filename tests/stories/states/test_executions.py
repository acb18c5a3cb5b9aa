"""Executions from their start to their end, by every way there is."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.states.conftest import Machines

JSONATA = {"Type": "Pass", "QueryLanguage": "JSONata", "End": True}
WAIT = {"W": {"Type": "Wait", "Seconds": 600, "End": True}}


def code(call: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**given)
    return str(caught.value.response["Error"]["Code"])


def test_a_machine_with_everything_that_needs_nobody(machines: Machines) -> None:
    found = machines.ran(
        {
            "Begin": {"Type": "Pass", "Parameters": {"n.$": "$.n", "id.$": "$$.Execution.Name"}, "Next": "Both"},
            "Both": {
                "Type": "Parallel",
                "Branches": [
                    {"StartAt": "L", "States": {"L": {"Type": "Pass", "Parameters": {"l.$": "$.n"}, "End": True}}},
                    {
                        "StartAt": "R",
                        "States": {
                            "R": {"Type": "Map", "ItemsPath": "$.n", "End": True, "ItemProcessor": {
                                "StartAt": "X",
                                "States": {"X": {**JSONATA, "Output": "{% $states.input * 2 %}"}},
                            }}
                        },
                    },
                ],
                "ResultPath": "$.both",
                "Next": "Which",
            },
            "Which": {
                "Type": "Choice",
                "Choices": [{"Variable": "$.both[1][2]", "NumericEquals": 6, "Next": "Good"}],
                "Default": "Bad",
            },
            "Good": {"Type": "Succeed", "OutputPath": "$.both[1]"},
            "Bad": {"Type": "Fail"},
        },
        {"n": [1, 2, 3]},
    )  # fmt: skip
    assert (found["status"], found["output"]) == ("SUCCEEDED", [2, 4, 6])


@pytest.mark.control("MON-05")
def test_every_status_is_told_by_api_event_and_metric(machines: Machines) -> None:
    account, states = machines.account, machines.states
    logs, events = account.client("logs"), account.client("events")
    group = f"arn:aws:logs:us-east-1:{account.id}:log-group:/aws/events/states"
    logs.create_log_group(logGroupName="/aws/events/states")
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": ["events.amazonaws.com", "delivery.logs.amazonaws.com"]},
             "Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": f"{group}:*"}
        ],
    }  # fmt: skip
    logs.put_resource_policy(policyName="events", policyDocument=json.dumps(policy))
    events.put_rule(Name="states", EventPattern=json.dumps({"source": ["aws.states"]}))
    events.put_targets(Rule="states", Targets=[{"Id": "1", "Arn": group}])
    machine = machines.made(
        {
            "C": {
                "Type": "Choice",
                "Choices": [
                    {"Variable": "$.do", "StringEquals": "fail", "Next": "F"},
                    {"Variable": "$.do", "StringEquals": "wait", "Next": "W"},
                ],
                "Default": "S",
            },
            "F": {"Type": "Fail", "Error": "Own", "Cause": "as asked"},
            "W": {"Type": "Wait", "Seconds": 600, "Next": "S"},
            "S": {"Type": "Succeed"},
        }
    )
    slow = machines.made(WAIT, top={"TimeoutSeconds": 1})
    arns = {
        "SUCCEEDED": machines.started(machine, {"do": "go"}),
        "FAILED": machines.started(machine, {"do": "fail"}),
        "ABORTED": machines.started(machine, {"do": "wait"}),
        "TIMED_OUT": machines.started(slow),
    }
    assert states.describe_execution(executionArn=arns["ABORTED"])["status"] == "RUNNING"
    stopped = states.stop_execution(executionArn=arns["ABORTED"], error="Own", cause="enough")["stopDate"]
    assert states.stop_execution(executionArn=arns["ABORTED"])["stopDate"] == stopped
    for status, arn in arns.items():
        found = machines.ended(arn)
        assert found["status"] == status
        assert ("error" in found) is (status in ("FAILED", "ABORTED"))
    assert machines.types(arns["ABORTED"])[-1] == "ExecutionAborted"
    assert machines.types(arns["TIMED_OUT"])[-1] == "ExecutionTimedOut"
    listed = states.list_executions(stateMachineArn=machine, statusFilter="FAILED")["executions"]
    assert [one["executionArn"] for one in listed] == [arns["FAILED"]]
    assert len(states.list_executions(stateMachineArn=machine)["executions"]) == 3
    # What the events tell agrees.
    told: dict[str, set[str]] = {}
    end = time.monotonic() + 60
    wanted = {arn: {"RUNNING", status} for status, arn in arns.items()}
    while time.monotonic() < end and told != wanted:
        for line in logs.filter_log_events(logGroupName="/aws/events/states")["events"]:
            detail = json.loads(line["message"])["detail"]
            told.setdefault(detail["executionArn"], set()).add(detail["status"])
        time.sleep(0.1)
    assert told == wanted
    # And so do the metrics.
    cloudwatch = account.client("cloudwatch")
    names = {"FAILED": "ExecutionsFailed", "ABORTED": "ExecutionsAborted", "SUCCEEDED": "ExecutionsSucceeded"}
    for status, name in {**names, "TIMED_OUT": "ExecutionsTimedOut"}.items():
        where = [{"Name": "StateMachineArn", "Value": slow if status == "TIMED_OUT" else machine}]
        span = {"StartTime": time.time() - 600, "EndTime": time.time() + 600, "Period": 3600}
        total = 0.0
        while total != 1 and time.monotonic() < end:
            points = cloudwatch.get_metric_statistics(
                Namespace="AWS/States", MetricName=name, Dimensions=where, Statistics=["Sum"], **span
            )["Datapoints"]
            total = sum(point["Sum"] for point in points)
        assert total == 1, name
    assert code(states.describe_execution, executionArn=arns["FAILED"] + "x") == "ExecutionDoesNotExist"
    assert code(states.describe_execution, executionArn="no-arn") == "InvalidArn"


def test_the_same_name_once(machines: Machines) -> None:
    machine = machines.made(WAIT)
    first = machines.started(machine, {"a": 1}, name="one")
    assert machines.started(machine, {"a": 1}, name="one") == first
    start = machines.states.start_execution
    assert code(start, stateMachineArn=machine, name="one", input="{}") == "ExecutionAlreadyExists"
    machines.states.stop_execution(executionArn=first)
    assert code(start, stateMachineArn=machine, name="one", input='{"a": 1}') == "ExecutionAlreadyExists"
    assert code(start, stateMachineArn=machine, input="{") == "InvalidExecutionInput"
    assert code(start, stateMachineArn=machine, name="a b", input="{}") == "InvalidName"


def test_errors_are_tried_again_and_caught(machines: Machines) -> None:
    found = machines.ran(
        {
            "T": {
                "Type": "Task",
                "Resource": "arn:aws:states:::aws-sdk:s3:getObject",
                "Parameters": {"Bucket": "nobody-has-this-bucket-x", "Key": "k"},
                "Retry": [{"ErrorEquals": ["S3.NoSuchBucketException"], "IntervalSeconds": 1, "MaxAttempts": 1}],
                "Catch": [{"ErrorEquals": ["States.TaskFailed"], "ResultPath": "$.error", "Next": "C"}],
                "End": True,
            },
            "C": {"Type": "Pass", "End": True},
        },
        {"kept": 1},
    )
    assert found["output"]["kept"] == 1
    assert found["output"]["error"]["Error"].startswith("S3.")
    types = machines.types(found["executionArn"])
    assert types.count("TaskScheduled") == types.count("TaskFailed") == 2


def test_redriven_from_where_it_failed(machines: Machines) -> None:
    s3 = machines.account.client("s3")
    bucket = f"redriven-{machines.account.id}"
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:s3:listObjectsV2",
        "Parameters": {"Bucket": bucket},
        "ResultSelector": {"n.$": "$.KeyCount"},
        "End": True,
    }
    arn = machines.started(
        machines.made(
            {
                "P": {
                    "Type": "Parallel",
                    "Branches": [
                        {"StartAt": "A", "States": {"A": {"Type": "Pass", "Result": "kept", "End": True}}},
                        {"StartAt": "B", "States": {"B": task}},
                    ],
                    "End": True,
                }
            }
        )
    )
    failed = machines.ended(arn)
    assert (failed["status"], failed["redriveStatus"]) == ("FAILED", "REDRIVABLE")
    s3.create_bucket(Bucket=bucket)
    machines.states.redrive_execution(executionArn=arn)
    found = machines.ended(arn)
    assert (found["status"], found["output"], found["redriveCount"]) == ("SUCCEEDED", ["kept", {"n": 0}], 1)
    types = machines.types(arn)
    assert types.count("PassStateEntered") == 1 and "ExecutionRedriven" in types
    assert code(machines.states.redrive_execution, executionArn=arn) == "ExecutionNotRedrivable"


def test_one_machine_runs_another_and_waits(machines: Machines) -> None:
    inner = machines.made({"A": {"Type": "Pass", "Result": {"x": 1}, "End": True}})
    bad = machines.made({"A": {"Type": "Fail", "Error": "Inner", "Cause": "no"}})

    def outer(machine: str) -> dict[str, Any]:
        return {
            "Type": "Task",
            "Resource": "arn:aws:states:::states:startExecution.sync:2",
            "Parameters": {"StateMachineArn": machine, "Input": {"from.$": "$$.Execution.Id"}},
            "ResultSelector": {"output.$": "$.Output", "input.$": "$.Input"},
        }

    found = machines.ran(
        {
            "Good": {**outer(inner), "Next": "Bad"},
            "Bad": {**outer(bad), "Catch": [{"ErrorEquals": ["States.TaskFailed"], "ResultPath": "$.e", "Next": "End"}],
                    "End": True},
            "End": {**JSONATA, "Output": "{% $merge([$states.input, {'heavy': $map([1, 2], function($v) {$v * 2})}]) %}"},
        }
    )  # fmt: skip
    assert found["output"]["output"] == {"x": 1}
    assert found["output"]["heavy"] == [2, 4]
    assert found["output"]["input"] == {"from": found["executionArn"]}
    assert json.loads(found["output"]["e"]["Cause"])["Status"] == "FAILED"
    assert "TaskSubmitted" in machines.types(found["executionArn"])
    # Who stops the outer one stops the inner one.
    waiting = machines.made(WAIT)
    arn = machines.started(machines.made({"O": {**outer(waiting), "End": True}}))
    machines.until(arn, "TaskSubmitted")
    machines.states.stop_execution(executionArn=arn)
    [child] = machines.states.list_executions(stateMachineArn=waiting)["executions"]
    assert machines.ended(child["executionArn"])["status"] == "ABORTED"


def test_activities_and_tokens(machines: Machines) -> None:
    states = machines.states
    activity = states.create_activity(name="work")["activityArn"]
    task = {"Type": "Task", "Resource": activity, "HeartbeatSeconds": 60, "TimeoutSeconds": 120}
    arn = machines.started(machines.made({"A": {**task, "Next": "B"}, "B": {**task, "End": True}}), {"a": 1})
    given = states.get_activity_task(activityArn=activity, workerName="me")
    assert json.loads(given["input"]) == {"a": 1}
    states.send_task_heartbeat(taskToken=given["taskToken"])
    states.send_task_success(taskToken=given["taskToken"], output='{"b": 2}')
    assert code(states.send_task_success, taskToken=given["taskToken"], output="{}") == "TaskTimedOut"
    given = states.get_activity_task(activityArn=activity)
    assert json.loads(given["input"]) == {"b": 2}
    states.send_task_failure(taskToken=given["taskToken"], error="Own", cause="no")
    found = machines.ended(arn)
    assert (found["status"], found["error"], found["cause"]) == ("FAILED", "Own", "no")
    assert [one for one in machines.types(arn) if one.startswith("Activity")] == [
        "ActivityScheduled", "ActivityStarted", "ActivitySucceeded",
        "ActivityScheduled", "ActivityStarted", "ActivityFailed",
    ]  # fmt: skip
    assert code(states.send_task_success, taskToken="nothing", output="{}") == "InvalidToken"


def test_a_task_that_takes_too_long(machines: Machines) -> None:
    activity = machines.states.create_activity(name="slow")["activityArn"]
    catch = [{"ErrorEquals": ["States.Timeout"], "ResultPath": "$.e", "Next": "C"}]
    found = machines.ran(
        {
            "A": {"Type": "Task", "Resource": activity, "TimeoutSeconds": 1, "Catch": catch, "End": True},
            "C": {"Type": "Pass", "End": True},
        }
    )
    assert found["output"]["e"]["Error"] == "States.Timeout"
    assert "ActivityTimedOut" in machines.types(found["executionArn"])


def test_versions_and_aliases(machines: Machines) -> None:
    states = machines.states
    machine = machines.made({"A": {"Type": "Pass", "Result": 1, "End": True}}, publish=True)
    first = f"{machine}:1"
    text = json.dumps({"StartAt": "A", "States": {"A": {"Type": "Pass", "Result": 2, "End": True}}})
    updated = states.update_state_machine(stateMachineArn=machine, definition=text, publish=True)
    assert updated["stateMachineVersionArn"] == f"{machine}:2"
    alias = states.create_state_machine_alias(
        name="prod", routingConfiguration=[{"stateMachineVersionArn": first, "weight": 100}]
    )["stateMachineAliasArn"]
    for arn, output in ((machine, 2), (first, 1), (alias, 1)):
        found = machines.ended(machines.started(arn))
        assert found["output"] == output
    assert found["stateMachineVersionArn"] == first and found["stateMachineAliasArn"] == alias
    states.update_state_machine_alias(
        stateMachineAliasArn=alias, routingConfiguration=[{"stateMachineVersionArn": f"{machine}:2", "weight": 100}]
    )
    assert machines.ended(machines.started(alias))["output"] == 2
    assert code(states.delete_state_machine_version, stateMachineVersionArn=f"{machine}:2") == "ConflictException"
    states.delete_state_machine_version(stateMachineVersionArn=first)
    assert code(states.start_execution, stateMachineArn=first) == "StateMachineDoesNotExist"
    listed = states.list_state_machine_versions(stateMachineArn=machine)["stateMachineVersions"]
    assert [one["stateMachineVersionArn"] for one in listed] == [f"{machine}:2"]


def test_a_machine_that_is_deleted_takes_its_executions_along(machines: Machines) -> None:
    machine = machines.made(WAIT)
    arn = machines.started(machine)
    machines.states.delete_state_machine(stateMachineArn=machine)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            assert machines.states.describe_state_machine(stateMachineArn=machine)["status"] == "DELETING"
        except ClientError as error:
            assert error.response["Error"]["Code"] == "StateMachineDoesNotExist"
            break
    assert code(machines.states.describe_execution, executionArn=arn) == "ExecutionDoesNotExist"


def test_the_role_decides(account: Account, neighbour: Account) -> None:
    states = account.client("stepfunctions")
    definition = json.dumps({"StartAt": "A", "States": {"A": {
        "Type": "Task", "Resource": "arn:aws:states:::aws-sdk:s3:listBuckets", "End": True}}})  # fmt: skip
    distrustful = account.role("Distrustful", allow("s3:*"))
    given = {"name": "m", "definition": definition}
    assert code(states.create_state_machine, **given, roleArn=distrustful) == "AccessDeniedException"
    # A role that trusts the service for another state machine alone (a confused deputy's) is not taken either.
    other = f"arn:aws:states:us-east-1:{account.id}:stateMachine:other"
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole",
             "Condition": {"ArnEquals": {"aws:SourceArn": other}, "StringEquals": {"aws:SourceAccount": account.id}}}
        ],
    }  # fmt: skip
    bound = account.client("iam").create_role(RoleName="Bound", AssumeRolePolicyDocument=json.dumps(document))
    bound_arn = bound["Role"]["Arn"]
    assert code(states.create_state_machine, **given, roleArn=bound_arn) == "AccessDeniedException"
    machine = states.create_state_machine(**{**given, "name": "other"}, roleArn=bound_arn)["stateMachineArn"]
    # What the role may not do, the machine may not.
    made = Machines(account, states)
    found = made.ended(made.started(machine))
    assert found["error"] == "S3.S3Exception" and "not authorized" in found["cause"]
    theirs = neighbour.client("stepfunctions")
    assert code(theirs.start_execution, stateMachineArn=machine) == "AccessDeniedException"
    assert code(theirs.describe_execution, executionArn=found["executionArn"]) == "AccessDeniedException"
    # And whoever makes one must be let to hand its role on.
    account.role("Maker", allow("states:*"))
    maker = account.client("stepfunctions", account.as_role("Maker"))
    assert code(maker.create_state_machine, **{**given, "name": "third"}, roleArn=bound_arn) == "AccessDeniedException"

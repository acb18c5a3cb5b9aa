"""Events reach the rules of their bus, and the rules' targets; and nobody else."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bastide.domain import MICROS, wall
from bastide.kernel.pattern import Pattern
from bastide.services.events.rule import SCHEDULES
from bastide.services.events.schedule import Schedule
from bastide.store import View
from tests.moved import Moved, moved, until
from tests.platform import REGION, Account, allow

EVENTS = {"Service": "events.amazonaws.com"}


def watched(
    account: Any, name: str, pattern: dict[str, Any] | None = None, *, bus: str = "default", **more: Any
) -> str:
    """A rule whose events land in a log group of its own; the group's ARN."""
    logs, events = account.client("logs"), account.client("events")
    group, id = f"/events/{name}", account.id
    logs.create_log_group(logGroupName=group)
    statement = {
        "Effect": "Allow", "Principal": EVENTS, "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
        "Resource": f"arn:aws:logs:{REGION}:{id}:log-group:/events/*:*",
    }  # fmt: skip
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    logs.put_resource_policy(policyName="events", policyDocument=policy)
    how = {"EventPattern": json.dumps(pattern)} if pattern is not None else {}
    events.put_rule(Name=name, EventBusName=bus, **how, **more)
    arn = f"arn:aws:logs:{REGION}:{id}:log-group:{group}"
    events.put_targets(Rule=name, EventBusName=bus, Targets=[{"Id": "log", "Arn": arn}])
    return arn


def arrived(account: Any, name: str) -> list[dict[str, Any]]:
    lines = account.client("logs").filter_log_events(logGroupName=f"/events/{name}")["events"]
    return [json.loads(one["message"]) for one in lines]


def send(account: Any, detail: dict[str, Any], *, source: str = "shop", **more: Any) -> dict[str, Any]:
    entry = {"Source": source, "DetailType": "Order", "Detail": json.dumps(detail), **more}
    answer: dict[str, Any] = account.client("events").put_events(Entries=[entry])["Entries"][0]
    return answer


def test_an_event_reaches_the_rules_it_matches(account: Account, neighbour: Account) -> None:
    watched(account, "big", {"source": ["shop"], "detail": {"price": [{"numeric": [">", 100]}]}})
    watched(account, "all", {"source": ["shop"]})
    watched(neighbour, "all", {"source": [{"prefix": ""}]})
    one = send(account, {"price": 500, "item": "chair"})
    send(account, {"price": 5})
    send(account, {"price": 500}, source="elsewhere")
    until(lambda: len(arrived(account, "all")) == 2)
    until(lambda: len(arrived(account, "big")) == 1)
    [event] = arrived(account, "big")
    assert event["id"] == one["EventId"] and event["detail"] == {"price": 500, "item": "chair"}
    assert (event["account"], event["region"], event["source"], event["detail-type"]) == (
        account.id, REGION, "shop", "Order",
    )  # fmt: skip
    assert arrived(neighbour, "all") == []
    account.client("events").disable_rule(Name="all")
    send(account, {"price": 600})
    until(lambda: len(arrived(account, "big")) == 2)
    assert len(arrived(account, "all")) == 2


def test_entries_that_are_none_fail_alone(account: Account) -> None:
    client = account.client("events")
    good = {"Source": "shop", "DetailType": "d", "Detail": "{}"}
    bad = [
        {**good, "Source": "aws.sagemaker"}, {**good, "Detail": "no"}, {**good, "Detail": "[]"}, {"Source": "shop"},
        {**good, "EventBusName": "nowhere"},
    ]  # fmt: skip
    answer = client.put_events(Entries=[good, *bad])
    assert answer["FailedEntryCount"] == 5
    assert [one.get("ErrorCode", "") for one in answer["Entries"]] == [
        "", "NotAuthorizedForSourceException", "MalformedDetail", "MalformedDetail", "InvalidArgument",
        "ResourceNotFoundException",
    ]  # fmt: skip


def test_without_a_resource_policy_nothing_is_delivered(account: Account) -> None:
    watched(account, "closed", {"source": ["shop"]})
    watched(account, "open", {"source": ["shop"]})
    logs = account.client("logs")
    logs.delete_resource_policy(policyName="events")
    send(account, {})
    client, now = account.client("cloudwatch"), datetime.datetime.now(datetime.UTC)

    def failed() -> bool:
        return bool(
            client.get_metric_statistics(
                Namespace="AWS/Events", MetricName="FailedInvocations",
                Dimensions=[{"Name": "RuleName", "Value": "closed"}],
                StartTime=now - datetime.timedelta(hours=1), EndTime=now + datetime.timedelta(hours=1), Period=3600,
                Statistics=["Sum"],
            )["Datapoints"]
        )  # fmt: skip

    until(failed)
    assert arrived(account, "closed") == []


def test_a_bus_of_another_account_takes_what_its_policy_opens(account: Account, neighbour: Account) -> None:
    there = neighbour.client("events")
    arn = there.create_event_bus(Name="shared")["EventBusArn"]
    watched(neighbour, "orders", {"source": ["shop"]}, bus="shared")
    role = account.role("Sender", allow("events:PutEvents", resource=arn), trust=EVENTS)
    here = account.client("events")
    here.put_rule(Name="on", EventPattern=json.dumps({"source": ["shop"]}))
    with pytest.raises(ClientError, match="RoleArn is required"):
        here.put_targets(Rule="on", Targets=[{"Id": "bus", "Arn": arn}])
    here.put_targets(Rule="on", Targets=[{"Id": "bus", "Arn": arn, "RoleArn": role}])
    watched(account, "seen", {"source": ["shop"]})
    send(account, {"n": 1})
    until(lambda: len(arrived(account, "seen")) == 1)
    with pytest.raises(ClientError, match="AccessDenied"):
        here.put_events(Entries=[{"Source": "shop", "DetailType": "d", "Detail": "{}", "EventBusName": arn}])
    there.put_permission(EventBusName="shared", StatementId="in", Action="events:PutEvents", Principal=account.id)
    sent = send(account, {"n": 2})
    until(lambda: len(arrived(neighbour, "orders")) == 1)
    [event] = arrived(neighbour, "orders")
    # It is the same event, of the account it comes from.
    assert (event["id"], event["account"], event["detail"]) == (sent["EventId"], account.id, {"n": 2})
    there.remove_permission(EventBusName="shared", StatementId="in")
    assert "Policy" not in there.describe_event_bus(Name="shared")
    with pytest.raises(ClientError, match="has rules"):
        there.delete_event_bus(Name="shared")


def test_what_has_no_service_is_no_target(account: Account) -> None:
    client = account.client("events")
    client.put_rule(Name="r", ScheduleExpression="rate(5 minutes)", State="DISABLED")
    for arn in (
        f"arn:aws:kinesis:{REGION}:{account.id}:stream/s", f"arn:aws:sqs:eu-west-1:{account.id}:q",
        f"arn:aws:logs:{REGION}:444455556666:log-group:/x", "nonsense", f"arn:aws:sqs:{REGION}:{account.id}:q.fifo",
    ):  # fmt: skip
        with pytest.raises(ClientError, match="ValidationException"):
            client.put_targets(Rule="r", Targets=[{"Id": "a", "Arn": arn}])
    group = f"arn:aws:logs:{REGION}:{account.id}:log-group:/x"
    for more in (
        {"DeadLetterConfig": {"Arn": f"arn:aws:sqs:{REGION}:{account.id}:q.fifo"}}, {"Input": "{"},
        {"RunCommandParameters": {"RunCommandTargets": [{"Key": "k", "Values": ["v"]}]}}, {"InputPath": "detail"},
        {"InputTransformer": {"InputTemplate": "<nowhere>"}}, {"Input": "{}", "InputPath": "$.detail"},
        {"InputTransformer": {"InputTemplate": "<a>", "InputPathsMap": {"a": "$..x"}}},
    ):  # fmt: skip
        with pytest.raises(ClientError, match="ValidationException"):
            client.put_targets(Rule="r", Targets=[{"Id": "a", "Arn": group, **more}])
    client.put_targets(Rule="r", Targets=[{"Id": "a", "Arn": group}])
    assert client.list_rule_names_by_target(TargetArn=group)["RuleNames"] == ["r"]
    with pytest.raises(ClientError, match="has targets"):
        client.delete_rule(Name="r")
    assert client.remove_targets(Rule="r", Ids=["a", "b"])["FailedEntries"][0]["TargetId"] == "b"
    client.delete_rule(Name="r")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        client.describe_rule(Name="r")


def test_rules_are_listed_tagged_and_found(account: Account) -> None:
    client = account.client("events")
    client.create_event_bus(Name="mine")
    for name in ("a1", "a2", "b1"):
        client.put_rule(Name=name, EventPattern='{"source": ["x"]}', Tags=[{"Key": "team", "Value": "red"}])
    arn = client.put_rule(Name="a1", EventBusName="mine", EventPattern='{"source": ["y"]}')["RuleArn"]
    assert arn.endswith(":rule/mine/a1")
    page = client.list_rules(NamePrefix="a", Limit=1)
    rest = client.list_rules(NamePrefix="a", Limit=1, NextToken=page["NextToken"])
    assert [one["Name"] for one in page["Rules"] + rest["Rules"]] == ["a1", "a2"] and "NextToken" not in rest
    assert [one["Name"] for one in client.list_rules(EventBusName="mine")["Rules"]] == ["a1"]
    assert [one["Name"] for one in client.list_event_buses()["EventBuses"]] == ["default", "mine"]
    told = client.describe_rule(Name="b1")
    assert (told["State"], told["EventBusName"], told["EventPattern"]) == ("ENABLED", "default", '{"source": ["x"]}')
    assert client.list_tags_for_resource(ResourceARN=told["Arn"])["Tags"] == [{"Key": "team", "Value": "red"}]
    client.untag_resource(ResourceARN=told["Arn"], TagKeys=["team"])
    assert client.list_tags_for_resource(ResourceARN=told["Arn"])["Tags"] == []


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    yield from moved(tmp_path_factory.mktemp("events"))


def test_a_schedule_tells_when_it_is_due_and_a_shaped_event_arrives(here: Moved) -> None:
    class Home:
        id = "111122223333"
        client = staticmethod(here.client)

    arn = watched(Home, "often", ScheduleExpression="rate(1 hour)")
    here.client("events").put_targets(
        Rule="often", Targets=[{
            "Id": "log", "Arn": arn,
            "InputTransformer": {
                "InputPathsMap": {"when": "$.time"}, "InputTemplate": '{"at": <when>, "text": "at <when>"}',
            },
        }],
    )  # fmt: skip

    def told(view: View) -> bool:
        """Whether it was due behind the clock's move, and what it had to tell is delivered."""
        moved = any(row.doc["last"] > wall() + 3600 * MICROS for row in view.scan(SCHEDULES, "", "", limit=100))
        return moved and not view.scan("events:Delivery", "", "", limit=1)

    with here.days_later(0.1):
        until(lambda: here.look(told))
    [event] = arrived(Home, "often")
    assert event["text"] == f"at {event['at']}"


@pytest.mark.control("MON-06", lacking="labeling jobs")
def test_alarms_are_told_to_rules(account: Account) -> None:
    watched(account, "alarms", {"source": ["aws.cloudwatch"], "detail": {"state": {"value": ["ALARM"]}}})
    client = account.client("cloudwatch")
    client.put_metric_alarm(
        AlarmName="a", Namespace="n", MetricName=uuid.uuid4().hex, Statistic="Sum", Period=60, EvaluationPeriods=1,
        Threshold=1, ComparisonOperator="GreaterThanThreshold", TreatMissingData="ignore",
    )  # fmt: skip
    client.set_alarm_state(AlarmName="a", StateValue="OK", StateReason="x")
    client.set_alarm_state(AlarmName="a", StateValue="ALARM", StateReason="test")
    until(lambda: arrived(account, "alarms"))
    [event] = arrived(account, "alarms")
    assert event["detail"]["alarmName"] == "a" and event["detail"]["previousState"]["value"] == "OK"


def test_objects_are_told_to_rules(account: Account) -> None:
    watched(account, "objects", {"source": ["aws.s3"], "detail": {"object": {"key": [{"suffix": ".csv"}]}}})
    s3, bucket = account.client("s3"), f"told-{account.id}"
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}})
    s3.put_object(Bucket=bucket, Key="a.csv", Body=b"x")
    s3.put_object(Bucket=bucket, Key="a.txt", Body=b"x")
    until(lambda: arrived(account, "objects"))
    [event] = arrived(account, "objects")
    assert (event["detail-type"], event["detail"]["object"]["key"]) == ("Object Created", "a.csv")


EXPLODING = json.dumps({f"k{n}": {"$or": [{"a": [1]}, {"b": [1]}]} for n in range(10)})
EVENT = {
    "id": "1", "detail-type": "t", "source": "s", "account": "1", "time": "t", "region": "r", "resources": ["a:1", "a:2"],
    "detail": {
        "text": "Hello World", "n": 7, "flag": True, "nothing": None, "ip": "10.0.0.9", "list": [1, "two"],
        "objects": [{"k": 1}, {"k": 2}], "empty": [],
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("detail", "matches"),
    [
        ({"text": ["Hello World"]}, True), ({"text": ["hello world"]}, False), ({"n": [7]}, True), ({"n": [7.0]}, True),
        ({"n": ["7"]}, False), ({"flag": [True]}, True), ({"flag": [1]}, False), ({"nothing": [None]}, True),
        ({"text": [{"prefix": "Hello"}]}, True), ({"text": [{"suffix": "World"}]}, True),
        ({"text": [{"prefix": {"equals-ignore-case": "HELLO"}}]}, True),
        ({"text": [{"equals-ignore-case": "HELLO WORLD"}]}, True), ({"text": [{"wildcard": "H*o W*d"}]}, True),
        ({"text": [{"wildcard": "H?llo*"}]}, False), ({"text": [{"anything-but": "x"}]}, True),
        ({"text": [{"anything-but": ["Hello World", "y"]}]}, False),
        ({"text": [{"anything-but": {"prefix": "He"}}]}, False),
        ({"text": [{"anything-but": {"wildcard": "*Moon"}}]}, True), ({"n": [{"anything-but": 7}]}, False),
        ({"n": [{"numeric": [">", 5, "<=", 7]}]}, True), ({"n": [{"numeric": ["=", 8]}]}, False),
        ({"ip": [{"cidr": "10.0.0.0/24"}]}, True), ({"ip": [{"cidr": "10.1.0.0/24"}]}, False),
        ({"n": [{"exists": True}]}, True), ({"m": [{"exists": False}]}, True), ({"m": [{"exists": True}]}, False),
        ({"list": ["two"]}, True), ({"objects": {"k": [2]}}, True), ({"objects": {"k": [3]}}, False),
        ({"$or": [{"n": [1]}, {"text": [{"prefix": "H"}]}]}, True), ({"$or": [{"n": [1]}, {"n": [2]}]}, False),
        ({"m": {"deeper": [{"exists": False}]}}, True), ({"n": [1, 7], "text": ["x"]}, False),
        ({"text": [{"wildcard": "*o*o*"}]}, True), ({"text": [{"wildcard": "Hello\\*"}]}, False),
        ({"text": [{"wildcard": "Hello World*d"}]}, False),
        ({"text": [{"anything-but": {"suffix": ["x", "World"]}}]}, False),
        ({"text": [{"anything-but": {"equals-ignore-case": ["hello world"]}}]}, False),
    ],
)  # fmt: skip
def test_every_filter_of_patterns(detail: dict[str, Any], matches: bool) -> None:
    assert Pattern(json.dumps({"detail": detail})).matches(EVENT) is matches


def test_patterns_that_are_none_are_refused(account: Account) -> None:
    client = account.client("events")
    assert client.test_event_pattern(EventPattern='{"source": ["s"]}', Event=json.dumps(EVENT))["Result"] is True
    fewer = json.dumps({name: value for name, value in EVENT.items() if name != "resources"})
    assert client.test_event_pattern(EventPattern='{"source": ["s"]}', Event=fewer)["Result"] is True
    for bad in (
        "{", "[]", "{}", '{"a": "b"}', '{"a": []}', '{"a": {}}', '{"a": [{"prefix": 1}]}', '{"a": [{"nearly": "x"}]}',
        '{"a": [{"numeric": [">"]}]}', '{"a": [{"numeric": [">", 1e10]}]}', '{"a": [{"numeric": [[], 1]}]}',
        '{"a": [{"anything-but": ["x", 1]}]}', '{"a": [{"wildcard": "x\\y"}]}', EXPLODING,
        '{"a": [{"numeric": [">", 5, "<", 1]}]}', '{"a": [{"cidr": "x"}]}', '{"$or": []}', '{"a": [{"wildcard": "**"}]}',
    ):  # fmt: skip
        with pytest.raises(ClientError, match="InvalidEventPatternException"):
            client.put_rule(Name="r", EventPattern=bad)


def at(text: str) -> int:
    return int(datetime.datetime.fromisoformat(f"{text}+00:00").timestamp()) * MICROS


@pytest.mark.parametrize(("now", "due"), [("2026-01-02T09:59:59", False), ("2026-01-02T10:00:00", True)])
def test_a_rule_s_schedule_is_due_once_a_moment_has_come(now: str, due: bool) -> None:
    assert Schedule("cron(0 10 * * ? *)").due(at("2026-01-01T10:00:00"), at(now)) is due
    assert Schedule("rate(1 day)").due(at("2026-01-01T10:00:00"), at(now)) is due


@pytest.mark.parametrize(
    "text",
    [
        "rate(1 minutes)", "rate(5 minute)", "rate(0 minutes)", "cron(0 10 * * * *)", "cron(0 10 L-31 * ? *)",
        "at(2026-01-01T00:00:00)",
        "cron(60 * * * ? *)", "",
    ],
)  # fmt: skip
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(Exception, match="ScheduleExpression"):
        Schedule(text)

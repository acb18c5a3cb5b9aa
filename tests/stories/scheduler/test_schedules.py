"""Schedules invoke what they name when they are due, as their role, and no more often."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.moved import until
from tests.platform import REGION, Account, allow
from tests.stories.sns.test_topics import arrived
from tests.stories.sqs.test_queues import arn_of, bodies, made

SCHEDULER = {"Service": "scheduler.amazonaws.com"}
OFF = {"Mode": "OFF"}


def soon(seconds: float = 1.0) -> str:
    """An expression that is due in a moment."""
    return f"at({datetime.now(UTC) + timedelta(seconds=seconds + 0.5):%Y-%m-%dT%H:%M:%S})"


def arranged(create: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """What `create` makes of an expression that is due in a moment: of a later one, if that moment was over by then."""

    def attempt() -> dict[str, Any] | None:
        try:
            return create(soon())
        except ClientError as error:
            if "no time that is still to come" not in str(error):
                raise
            return None

    found = until(attempt)
    assert found is not None
    return found


@pytest.fixture
def role(account: Account) -> str:
    return account.role("Clock", allow("sqs:SendMessage", "ssm:PutParameter"), trust=SCHEDULER)


def put(account: Account, name: str, role: str, arn: str, when: str = "", **more: Any) -> dict[str, Any]:
    target = {"Arn": arn, "RoleArn": role, **more.pop("target", {})}
    client = account.client("scheduler")

    def create(expression: str) -> dict[str, Any]:
        answer: dict[str, Any] = client.create_schedule(
            Name=name, ScheduleExpression=expression, FlexibleTimeWindow=OFF, Target=target, **more
        )
        return answer

    return create(when) if when else arranged(create)


def test_a_queue_hears_when_it_is_due(account: Account, role: str) -> None:
    sqs, client = account.client("sqs"), account.client("scheduler")
    url = made(sqs)
    told = '{"at": "<aws.scheduler.scheduled-time>", "by": "<aws.scheduler.schedule-arn>"}'
    arn = put(account, "once", role, arn_of(sqs, url), target={"Input": told})["ScheduleArn"]
    put(account, "gone", role, arn_of(sqs, url), target={"Input": "gone"}, ActionAfterCompletion="DELETE")
    got = sorted((one["Body"] for one in arrived(account, url, 2)), key=len)
    expression = client.get_schedule(Name="once")["ScheduleExpression"]
    assert got[0] == "gone" and json.loads(got[1]) == {"at": f"{expression[3:-1]}Z", "by": arn}
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        client.get_schedule(Name="gone")
    time.sleep(0.7)
    assert bodies(sqs, url) == []


def test_any_operation_that_changes_something_can_be_called(account: Account, role: str) -> None:
    to = "arn:aws:scheduler:::aws-sdk:ssm:putParameter"
    given = {"Name": "/clock", "Value": "<aws.scheduler.execution-id>", "Type": "String"}
    put(account, "parameter", role, to, target={"Input": json.dumps(given)})
    ssm = account.client("ssm")

    def value() -> str:
        try:
            return str(ssm.get_parameter(Name="/clock")["Parameter"]["Value"])
        except ClientError:
            return ""

    until(value)
    assert len(value()) == 32
    for arn, text in (
        ("arn:aws:scheduler:::aws-sdk:ssm:getParameter", '{"Name": "/clock"}'),
        ("arn:aws:scheduler:::aws-sdk:ssm:no", "{}"), ("arn:aws:scheduler:::aws-sdk:sts:assumeRoleWithSAML", "{}"),
        (to, "{"), (to, '{"Nome": "x"}'), (to, '{"Name": "x"}'), ("nonsense", "x"),
        (f"arn:aws:kinesis:{REGION}:{account.id}:stream/s", "x"),
    ):  # fmt: skip
        with pytest.raises(ClientError, match="ValidationException"):
            put(account, "bad", role, arn, target={"Input": text})


def test_what_the_role_may_not_do_is_a_dead_letter(account: Account, role: str) -> None:
    sqs, sns = account.client("sqs"), account.client("sns")
    dead, topic = made(sqs), sns.create_topic(Name="t")["TopicArn"]
    more = {"Input": "hello", "DeadLetterConfig": {"Arn": arn_of(sqs, dead)}}
    arn = put(account, "refused", role, topic, target=more)["ScheduleArn"]
    [letter] = arrived(account, dead)
    told = {name: one["StringValue"] for name, one in letter["MessageAttributes"].items()}
    assert letter["Body"] == "hello" and told["ERROR_CODE"] == "AuthorizationError"
    assert (told["SCHEDULE_ARN"], told["TARGET_ARN"], told["RETRY_ATTEMPTS"]) == (arn, topic, "0")
    other = account.role("NoClock", allow("*"))
    with pytest.raises(ClientError, match="must allow AWS EventBridge Scheduler to assume the role"):
        put(account, "untrusted", other, topic)
    account.role("Limited", allow("scheduler:*"))
    limited = account.client("scheduler", account.as_role("Limited"))
    with pytest.raises(ClientError, match="iam:PassRole"):
        limited.create_schedule(
            Name="x", ScheduleExpression=soon(), FlexibleTimeWindow=OFF, Target={"Arn": topic, "RoleArn": role}
        )


def test_schedules_are_grouped_listed_and_changed(account: Account, role: str) -> None:
    client, arn = account.client("scheduler"), arn_of(account.client("sqs"), made(account.client("sqs")))
    group = client.create_schedule_group(Name="g", Tags=[{"Key": "team", "Value": "red"}])["ScheduleGroupArn"]
    daily = "cron(0 9 ? * MON-FRI *)"
    for name, where in (("a1", "g"), ("a2", "default"), ("b", "g")):
        put(account, name, role, arn, daily, GroupName=where, ScheduleExpressionTimezone="Europe/Berlin")
    assert [one["Name"] for one in client.list_schedules(GroupName="g")["Schedules"]] == ["a1", "b"]
    page = client.list_schedules(NamePrefix="a", MaxResults=1)
    rest = client.list_schedules(NamePrefix="a", MaxResults=1, NextToken=page["NextToken"])
    assert [one["Name"] for one in page["Schedules"] + rest["Schedules"]] == ["a2", "a1"]
    told = client.get_schedule(Name="b", GroupName="g")
    assert (told["State"], told["ScheduleExpressionTimezone"], told["Arn"]) == (
        "ENABLED", "Europe/Berlin", f"arn:aws:scheduler:{REGION}:{account.id}:schedule/g/b",
    )  # fmt: skip
    flexible = {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15}
    client.update_schedule(
        Name="b", GroupName="g", ScheduleExpression="rate(1 hour)", FlexibleTimeWindow=flexible, State="DISABLED",
        Target={"Arn": arn, "RoleArn": role},
    )  # fmt: skip
    assert [one["Name"] for one in client.list_schedules(State="DISABLED")["Schedules"]] == ["b"]
    assert client.get_schedule(Name="b", GroupName="g")["FlexibleTimeWindow"] == flexible
    with pytest.raises(ClientError, match="ConflictException"):
        put(account, "b", role, arn, daily, GroupName="g")
    for bad in (
        {"when": "cron(0 9 * * * *)"}, {"when": "at(2020-01-01T00:00:00)"}, {"when": "rate(1 hours)"},
        {"when": daily, "ScheduleExpressionTimezone": "Nowhere"},
        {"when": daily, "EndDate": datetime(2020, 1, 1, tzinfo=UTC)},
    ):  # fmt: skip
        with pytest.raises(ClientError, match="ValidationException"):
            put(account, "bad", role, arn, **bad)
    client.tag_resource(ResourceArn=group, Tags=[{"Key": "owner", "Value": "ann"}])
    client.untag_resource(ResourceArn=group, TagKeys=["team"])
    assert client.list_tags_for_resource(ResourceArn=group)["Tags"] == [{"Key": "owner", "Value": "ann"}]
    assert [one["Name"] for one in client.list_schedule_groups()["ScheduleGroups"]] == ["default", "g"]
    client.delete_schedule_group(Name="g")
    assert [one["Name"] for one in client.list_schedules()["Schedules"]] == ["a2"]
    client.delete_schedule(Name="a2")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        client.get_schedule_group(Name="g")

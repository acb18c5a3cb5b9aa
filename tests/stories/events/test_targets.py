"""Whoever is a rule's target gets the event, if the role or the policy says so; what cannot be delivered is not lost."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from tests.moved import until
from tests.platform import REGION, Account, allow
from tests.stories.events.test_events import EVENTS, send
from tests.stories.sns.test_topics import arrived, opened
from tests.stories.sqs.test_queues import arn_of, bodies, made


def lets(account: Account, url: str, source: str) -> str:
    """Lets a rule send to a queue; the queue's ARN."""
    sqs = account.client("sqs")
    arn = arn_of(sqs, url)
    statement = {
        "Effect": "Allow", "Principal": EVENTS, "Action": "sqs:SendMessage", "Resource": arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": source}},
    }  # fmt: skip
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    return arn


def rule(account: Account, name: str, *targets: dict[str, Any]) -> str:
    events = account.client("events")
    arn: str = events.put_rule(Name=name, EventPattern='{"source": ["shop"]}')["RuleArn"]
    if targets:
        assert events.put_targets(Rule=name, Targets=list(targets))["FailedEntryCount"] == 0
    return arn


@pytest.mark.control("MON-04")
def test_queues_and_topics_are_targets_by_their_policies(account: Account) -> None:
    sqs, sns = account.client("sqs"), account.client("sns")
    plain, fifo, heard = made(sqs), made(sqs, "t.fifo", FifoQueue="true"), made(sqs)
    topic = sns.create_topic(Name="told")["TopicArn"]
    raw = {"RawMessageDelivery": "true"}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=opened(account, heard, topic), Attributes=raw)
    source = rule(account, "r")
    change = {
        "InputPathsMap": {"item": "$.detail.item", "first": "$.detail.list[0]"},
        "InputTemplate": '{"item": "<item>", "first": <first>, "rule": <aws.events.rule-name>}',
    }  # fmt: skip
    account.client("events").put_targets(
        Rule="r",
        Targets=[
            {"Id": "q", "Arn": lets(account, plain, source)}, {"Id": "t", "Arn": topic, "InputPath": "$.detail"},
            {"Id": "f", "Arn": lets(account, fifo, source), "SqsParameters": {"MessageGroupId": "g"},
             "InputTransformer": change},
        ],
    )  # fmt: skip
    sent = send(account, {"item": 'a "chair"', "list": [1, 2]})
    [one] = arrived(account, plain)
    assert json.loads(one["Body"])["id"] == sent["EventId"]
    [one] = arrived(account, fifo)
    assert json.loads(one["Body"]) == {"item": 'a "chair"', "first": 1, "rule": "r"}
    # The topic's own policy does not let events in, until it does.
    assert bodies(sqs, heard) == []
    statement = {"Effect": "Allow", "Principal": EVENTS, "Action": "sns:Publish", "Resource": topic}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)
    send(account, {"item": "table"})
    assert json.loads(arrived(account, heard)[0]["Body"]) == {"item": "table"}


@pytest.mark.control("MON-08")
def test_a_target_whose_role_may_not_ends_in_the_dead_letter_queue(account: Account) -> None:
    sqs = account.client("sqs")
    work, dead = made(sqs), made(sqs)
    role = account.role("Weak", allow("sqs:ReceiveMessage"), trust=EVENTS)
    source = rule(account, "strict")
    dead_arn = lets(account, dead, source)
    account.client("events").put_targets(
        Rule="strict", Targets=[
            {"Id": "q", "Arn": arn_of(sqs, work), "RoleArn": role, "DeadLetterConfig": {"Arn": dead_arn}}
        ],
    )  # fmt: skip
    sent = send(account, {"n": 1})
    [letter] = arrived(account, dead)
    assert json.loads(letter["Body"])["id"] == sent["EventId"] and bodies(sqs, work) == []
    told = {name: one["StringValue"] for name, one in letter["MessageAttributes"].items()}
    assert (told["RULE_ARN"], told["TARGET_ARN"]) == (source, arn_of(sqs, work))
    assert (told["ERROR_CODE"], told["RETRY_ATTEMPTS"]) == ("NO_PERMISSIONS", "0")
    assert "sqs:SendMessage" in told["ERROR_MESSAGE"]
    client, now = account.client("cloudwatch"), datetime.datetime.now(datetime.UTC)

    def values(name: str) -> float:
        found = client.get_metric_statistics(
            Namespace="AWS/Events", MetricName=name, Dimensions=[{"Name": "RuleName", "Value": "strict"}],
            StartTime=now - datetime.timedelta(hours=1), EndTime=now + datetime.timedelta(hours=1), Period=3600,
            Statistics=["Sum"],
        )["Datapoints"]  # fmt: skip
        return sum(one["Sum"] for one in found)

    until(lambda: values("FailedInvocations") == values("InvocationsSentToDlq") == 1)
    account.client("iam").put_role_policy(
        RoleName="Weak", PolicyName="inline", PolicyDocument=json.dumps(allow("sqs:SendMessage"))
    )
    send(account, {"n": 2})
    assert json.loads(arrived(account, work)[0]["Body"])["detail"] == {"n": 2}


def test_a_role_that_events_may_not_take_on_delivers_nothing(account: Account) -> None:
    sqs = account.client("sqs")
    work, dead = made(sqs), made(sqs)
    role = account.role("Elsewhere", allow("sqs:*"))
    source = rule(account, "untrusted")
    account.client("events").put_targets(
        Rule="untrusted", Targets=[
            {"Id": "q", "Arn": arn_of(sqs, work), "RoleArn": role,
             "DeadLetterConfig": {"Arn": lets(account, dead, source)}}
        ],
    )  # fmt: skip
    send(account, {})
    [letter] = arrived(account, dead)
    assert letter["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "NO_PERMISSIONS"
    assert bodies(sqs, work) == [] and REGION in source

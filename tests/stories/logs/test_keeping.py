"""How lines are kept: encrypted, under the customer's key where one is named, and no longer than they should."""

from __future__ import annotations

import datetime
import json
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bastide.services.logs.pattern import Pattern
from tests.moved import Moved, moved, until
from tests.platform import REGION, Account


def write(logs: Any, *messages: str, group: str = "/g", stream: str = "s") -> None:
    now = int(time.time() * 1000)
    lines = [{"timestamp": now + n, "message": text} for n, text in enumerate(messages)]
    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=lines)


def read(logs: Any, group: str = "/g", stream: str = "s") -> list[str]:
    answer = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)
    return [one["message"] for one in answer["events"]]


def make(logs: Any, group: str = "/g", **more: Any) -> None:
    logs.create_log_group(logGroupName=group, **more)
    logs.create_log_stream(logGroupName=group, logStreamName="s")


def key_for_logs(account: Account, group: str = "*") -> tuple[Any, str]:
    """A KMS client, and a key that Logs may use for a group."""
    kms = account.client("kms")
    arn = f"arn:aws:logs:{REGION}:{account.id}:log-group:{group}"
    statements = [
        {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{account.id}:root"},
            "Action": "kms:*",
            "Resource": "*",
        },
        {
            "Effect": "Allow",
            "Principal": {"Service": f"logs.{REGION}.amazonaws.com"},
            "Action": ["kms:Encrypt*", "kms:Decrypt*", "kms:GenerateDataKey*", "kms:Describe*"],
            "Resource": "*",
            "Condition": {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": arn}},
        },
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    return kms, kms.create_key(Policy=policy)["KeyMetadata"]["Arn"]


def test_no_line_lies_on_the_disk_in_clear(account: Account) -> None:
    logs = account.client("logs")
    make(logs)
    secret = f"a-line-of-{account.id}"
    write(logs, secret, "another")
    assert read(logs) == [secret, "another"]
    files = [account.platform.data / name for name in ("bastide.db", "bastide.db-wal")]
    assert not any(secret.encode() in path.read_bytes() for path in files if path.exists())
    with sqlite3.connect(f"file:{account.platform.data / 'bastide.db'}?mode=ro", uri=True) as db:
        kinds = db.execute(
            "SELECT DISTINCT typeof(message) FROM log_line WHERE stream LIKE ?", (f"{account.id}/%",)
        ).fetchall()
    db.close()
    assert kinds == [("blob",)]


def test_a_customer_s_key_has_the_last_word_over_lines(account: Account) -> None:
    logs = account.client("logs")
    kms, key = key_for_logs(account, "/keyed")
    make(logs, "/keyed", kmsKeyId=key)
    make(logs)
    assert logs.describe_log_groups(logGroupNamePrefix="/keyed")["logGroups"][0]["kmsKeyId"] == key
    write(logs, "under the key", group="/keyed")
    assert read(logs, "/keyed") == ["under the key"]
    kms.disable_key(KeyId=key)
    for ask in (
        lambda: read(logs, "/keyed"),
        lambda: write(logs, "x", group="/keyed"),
        lambda: logs.filter_log_events(logGroupName="/keyed"),
    ):
        with pytest.raises(ClientError, match="KMS key cannot be used"):
            ask()
    write(logs, "free")
    assert read(logs) == ["free"]
    kms.enable_key(KeyId=key)
    assert read(logs, "/keyed") == ["under the key"]
    # From now on without; what is there stays under the key.
    logs.disassociate_kms_key(logGroupName="/keyed")
    write(logs, "after", group="/keyed")
    assert read(logs, "/keyed") == ["under the key", "after"]
    assert "kmsKeyId" not in logs.describe_log_groups(logGroupNamePrefix="/keyed")["logGroups"][0]


def test_a_key_that_logs_may_not_use_is_refused(account: Account) -> None:
    logs = account.client("logs")
    _, other = key_for_logs(account, "/another-group")
    make(logs)
    with pytest.raises(ClientError, match="InvalidParameterException"):
        logs.associate_kms_key(logGroupName="/g", kmsKeyId=other)
    with pytest.raises(ClientError, match="InvalidParameterException"):
        logs.create_log_group(logGroupName="/h", kmsKeyId=other)
    assert [one["logGroupName"] for one in logs.describe_log_groups()["logGroups"]] == ["/g"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    yield from moved(tmp_path_factory.mktemp("logs"))


def test_lines_go_when_their_time_is_over(here: Moved) -> None:
    logs = here.client("logs")
    for group in ("/short", "/long"):
        make(logs, group)
        write(logs, "old", group=group)
    logs.put_retention_policy(logGroupName="/short", retentionInDays=1)
    assert logs.describe_log_groups(logGroupNamePrefix="/short")["logGroups"][0]["retentionInDays"] == 1
    with pytest.raises(ClientError, match="InvalidParameterException"):
        logs.put_retention_policy(logGroupName="/short", retentionInDays=2)

    def kept() -> int:
        with sqlite3.connect(f"file:{here.data / 'bastide.db'}?mode=ro", uri=True) as db:
            [found] = db.execute("SELECT count(*) FROM log_line").fetchone()
        db.close()
        return int(found)

    assert kept() == 2
    with here.days_later(1.5):
        until(lambda: kept() == 1)
    assert (read(logs, "/short"), read(logs, "/long")) == ([], ["old"])
    # An expired line is not even taken, and one that is late to be removed is not shown.
    yesterday = int((datetime.datetime.now() - datetime.timedelta(days=2)).timestamp() * 1000)
    line = [{"timestamp": yesterday, "message": "late"}]
    answer = logs.put_log_events(logGroupName="/short", logStreamName="s", logEvents=line)
    assert answer["rejectedLogEventsInfo"] == {"expiredLogEventEndIndex": 1}
    logs.put_log_events(logGroupName="/long", logStreamName="s", logEvents=line)
    logs.put_retention_policy(logGroupName="/long", retentionInDays=1)
    assert read(logs, "/long") == ["old"]
    logs.delete_retention_policy(logGroupName="/long")
    assert "retentionInDays" not in logs.describe_log_groups(logGroupNamePrefix="/long")["logGroups"][0]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("", ["anything"], []),
        ("ERROR -retry", ["an ERROR"], ["ERROR retry", "error"]),
        ('?WARN ?"bad day"', ["WARN", "a bad day"], ["bad", "day"]),
        ('{ $.level = "ERR*" }', ['{"level": "ERROR"}'], ['{"level": "OK"}', "ERROR", "{"]),
        ("{ ($.code >= 500 && $.user.id != 7) || $.list[1] = 2 }",
         ['{"code": 500, "user": {"id": 8}}', '{"list": [1, 2]}'], ['{"code": 500, "user": {"id": 7}}', '{"code": 500}']),
        ("{ $.a IS NULL }", ['{"a": null}'], ['{"a": 0}', "{}"]),
        ("{ $.a IS TRUE && $.b NOT EXISTS }", ['{"a": true}'], ['{"a": true, "b": 1}', '{"a": 1}']),
        ("{ $.a = 1.0 }", ['{"a": 1}', '{"a": "1"}'], ['{"a": 2}', '{"a": [1]}']),
        ("[ip, user, status = 4*, bytes > 100]", ["1.2.3.4 ann 404 2000", '1.2.3.4 "ann b" 400 101'],
         ["1.2.3.4 ann 200 2000", "1.2.3.4 ann 404 7", "short 404"]),
        ("[..., status = 500]", ["a b c 500", "500"], ["a b 200"]),
    ],
)  # fmt: skip
def test_filter_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    held = Pattern(pattern)
    assert [text for text in yes + no if held.matches(text)] == yes


def test_patterns_are_asked_and_what_is_none_is_refused(account: Account) -> None:
    logs = account.client("logs")
    make(logs)
    write(logs, '{"status": 200}', '{"status": 503}', "plain")
    found = logs.filter_log_events(logGroupName="/g", filterPattern="{ $.status >= 500 }")["events"]
    assert [one["message"] for one in found] == ['{"status": 503}']
    for bad in ("{ $.a ", "{ a = 1 }", "{ $.a = }", "[a b]", "%x+%", "{ $.a = %x% }", "{ $.a IS 5 }"):
        with pytest.raises(ClientError, match="InvalidParameterException"):
            logs.filter_log_events(logGroupName="/g", filterPattern=bad)


def test_lines_become_metrics(account: Account) -> None:
    logs, client = account.client("logs"), account.client("cloudwatch")
    make(logs)
    change = {"metricNamespace": "App", "metricName": "latency", "metricValue": "$.ms", "unit": "Milliseconds"}
    change["dimensions"] = {"path": "$.path"}  # type: ignore[assignment]
    logs.put_metric_filter(
        logGroupName="/g", filterName="slow", filterPattern="{ $.ms > 100 }", metricTransformations=[change]
    )
    counted = {"metricNamespace": "App", "metricName": "errors", "metricValue": "1", "defaultValue": 0}
    logs.put_metric_filter(
        logGroupName="/g", filterName="errors", filterPattern="ERROR", metricTransformations=[counted]
    )
    shown = logs.describe_metric_filters(logGroupName="/g")["metricFilters"]
    assert [one["filterName"] for one in shown] == ["errors", "slow"]
    assert logs.describe_log_groups()["logGroups"][0]["metricFilterCount"] == 2
    tested = logs.test_metric_filter(filterPattern="[a, b]", logEventMessages=["x y", "x"])["matches"]
    assert [one["eventMessage"] for one in tested] == ["x y"]
    write(logs, '{"ms": 300, "path": "/a"}', '{"ms": 200, "path": "/a"}', '{"ms": 5, "path": "/a"}', "an ERROR")
    write(logs, "nothing to see")
    now = datetime.datetime.now(datetime.UTC)

    def stats(name: str, *dimensions: dict[str, str]) -> dict[str, float]:
        found = client.get_metric_statistics(
            Namespace="App", MetricName=name, Dimensions=list(dimensions), StartTime=now - datetime.timedelta(hours=1),
            EndTime=now + datetime.timedelta(hours=1), Period=86400, Statistics=["Sum", "SampleCount"],
        )["Datapoints"]  # fmt: skip
        return {key: found[0][key] for key in ("Sum", "SampleCount")} if found else {}

    until(lambda: stats("errors") == {"Sum": 1, "SampleCount": 2})
    assert stats("latency", {"Name": "path", "Value": "/a"}) == {"Sum": 500, "SampleCount": 2}
    logs.delete_metric_filter(logGroupName="/g", filterName="errors")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        logs.delete_metric_filter(logGroupName="/g", filterName="errors")
    with pytest.raises(ClientError, match="InvalidParameterException"):
        logs.put_metric_filter(
            logGroupName="/g",
            filterName="x",
            filterPattern="",
            metricTransformations=[{**counted, "metricValue": "many"}],
        )
    logs.delete_log_group(logGroupName="/g")
    assert logs.describe_metric_filters(filterNamePrefix="x")["metricFilters"] == []

"""Log groups, streams and lines, by boto3."""

from __future__ import annotations

import time

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow


def test_lines_are_read_both_ways_and_the_same_token_ends_it(account: Account) -> None:
    logs = account.client("logs")
    logs.create_log_group(logGroupName="/g")
    logs.create_log_stream(logGroupName="/g", logStreamName="s/1")
    now = int(time.time() * 1000)
    lines = [{"timestamp": now + n, "message": f"line {n}"} for n in range(25)]
    logs.put_log_events(logGroupName="/g", logStreamName="s/1", logEvents=lines)
    where = {"logGroupName": "/g", "logStreamName": "s/1"}
    read: list[str] = []
    token = None
    for _ in range(10):
        more = {"nextToken": token} if token else {}
        page = logs.get_log_events(**where, startFromHead=True, limit=10, **more)
        read += [one["message"] for one in page["events"]]
        if page["nextForwardToken"] == token:
            break
        token = page["nextForwardToken"]
    assert read == [f"line {n}" for n in range(25)]
    last = logs.get_log_events(**where, limit=10)
    assert [one["message"] for one in last["events"]] == [f"line {n}" for n in range(15, 25)]
    before = logs.get_log_events(**where, limit=10, nextToken=last["nextBackwardToken"])
    assert [one["message"] for one in before["events"]] == [f"line {n}" for n in range(5, 15)]
    found = logs.filter_log_events(logGroupName="/g", filterPattern='"line 1" -12')["events"]
    assert [one["message"] for one in found] == [f"line {n}" for n in (1, 10, 11, 13, 14, 15, 16, 17, 18, 19)]
    stream = logs.describe_log_streams(logGroupName="/g")["logStreams"][0]
    assert (stream["firstEventTimestamp"], stream["lastEventTimestamp"]) == (now, now + 24)
    logs.delete_log_group(logGroupName="/g")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        logs.get_log_events(**where)


def test_a_policy_on_a_group_reaches_its_streams_and_no_others(account: Account) -> None:
    logs = account.client("logs")
    arn = f"arn:aws:logs:us-east-1:{account.id}:log-group:/mine:*"
    account.role("Writer", allow("logs:*", resource=arn))
    writer = account.client("logs", account.as_role("Writer"))
    writer.create_log_group(logGroupName="/mine")
    writer.create_log_stream(logGroupName="/mine", logStreamName="s")
    logs.create_log_group(logGroupName="/other")
    with pytest.raises(ClientError, match="AccessDenied"):
        writer.create_log_stream(logGroupName="/other", logStreamName="s")
    with pytest.raises(ClientError, match="ResourceAlreadyExistsException"):
        logs.create_log_group(logGroupName="/mine")

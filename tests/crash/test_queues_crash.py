"""The platform is killed while messages are sent, published and scheduled; what was acknowledged arrives."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.exceptions

from tests.platform import Running, allow
from tests.stories.sns.test_topics import opened
from tests.stories.sqs.test_queues import arn_of, made
from tests.waiting import until


def test_no_acknowledged_message_is_lost(tmp_path: Path) -> None:
    running = Running(tmp_path / "data")
    running.start()
    running.found()
    account = running.account()
    sqs, sns, scheduler = (account.client(name) for name in ("sqs", "sns", "scheduler"))
    plain, fifo, told = made(sqs, "plain"), made(sqs, "f.fifo", FifoQueue="true"), made(sqs, "told")
    topic = sns.create_topic(Name="t")["TopicArn"]
    raw = {"RawMessageDelivery": "true"}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=opened(account, told, topic), Attributes=raw)
    role = account.role("Clock", allow("sqs:SendMessage"), trust={"Service": "scheduler.amazonaws.com"})
    target = {"Arn": arn_of(sqs, told), "RoleArn": role, "Input": "scheduled"}

    def scheduled() -> datetime | None:
        soon = datetime.now(UTC) + timedelta(seconds=3)
        try:  # a moment that is over by now is refused
            scheduler.create_schedule(
                Name="s", ScheduleExpression=f"at({soon:%Y-%m-%dT%H:%M:%S})", FlexibleTimeWindow={"Mode": "OFF"},
                Target=target,
            )  # fmt: skip
        except scheduler.exceptions.ValidationException:
            return None
        return soon

    due = until(scheduled)
    assert due is not None
    sent: dict[str, list[str]] = {"plain": [], "fifo": [], "told": []}

    def work(kind: str) -> None:
        client: Any = account.client(
            "sns" if kind == "told" else "sqs", read_timeout=60, retries={"total_max_attempts": 1}
        )
        try:
            for number in range(10_000):
                body = f"{kind}-{number}"
                if kind == "told":
                    client.publish(TopicArn=topic, Message=body)
                elif kind == "fifo":
                    client.send_message(
                        QueueUrl=fifo, MessageBody=body, MessageGroupId="g", MessageDeduplicationId=body
                    )
                else:
                    client.send_message(QueueUrl=plain, MessageBody=body)
                sent[kind].append(body)
        except (
            botocore.exceptions.HTTPClientError,
            botocore.exceptions.ConnectionError,
            botocore.exceptions.ClientError,
        ):
            return

    threads = [threading.Thread(target=work, args=(kind,)) for kind in sent]
    for one in threads:
        one.start()
    until(lambda: all(sent.values()))
    time.sleep(0.3)
    # What is received and not deleted comes back; what is deleted does not.
    [gone] = sqs.receive_message(QueueUrl=plain, WaitTimeSeconds=20)["Messages"]
    sqs.delete_message(QueueUrl=plain, ReceiptHandle=gone["ReceiptHandle"])
    running.kill()
    for one in threads:
        one.join(90)
    assert all(sent.values())
    while datetime.now(UTC) < due:
        time.sleep(0.05)
    running.launch()
    account._keys = None
    sqs = account.client("sqs")
    where = {name: sqs.get_queue_url(QueueName=name)["QueueUrl"] for name in ("plain", "f.fifo", "told")}
    found: dict[str, list[str]] = {}
    wanted = {"plain": {*sent["plain"]} - {gone["Body"]}, "fifo": {*sent["fifo"]}, "told": {*sent["told"], "scheduled"}}
    ends = time.monotonic() + 60
    for kind, name in (("plain", "plain"), ("fifo", "f.fifo"), ("told", "told")):
        found[kind] = []
        while True:
            got = sqs.receive_message(QueueUrl=where[name], MaxNumberOfMessages=10, WaitTimeSeconds=2).get("Messages")
            if not got:
                # Topics and schedules go on behind the start; an empty answer is the end once all is there.
                if wanted[kind] <= set(found[kind]) or time.monotonic() > ends:
                    break
                continue
            found[kind] += [one["Body"] for one in got]
            entries = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(got)]
            assert not sqs.delete_message_batch(QueueUrl=where[name], Entries=entries).get("Failed")
    assert gone["Body"] not in found["plain"]
    assert set(sent["plain"]) - {gone["Body"]} <= set(found["plain"])
    # In their order, and nothing twice: at most the one that was not answered is there besides.
    assert found["fifo"][: len(sent["fifo"])] == sent["fifo"] and len(found["fifo"]) <= len(sent["fifo"]) + 1
    assert set(sent["told"]) <= set(found["told"]) and "scheduled" in found["told"]
    running.stop()

"""``python -m tests.bench.events``: how many events a second get from a change to a target, and how long one takes.

Two things are measured on a platform of its own. The delay: one event at a time, from before PutEvents is called until the
queue that is the rule's target has given the message to a receiver that waits; of these the median and the 99th percentile.
The rate: events put by some clients as fast as they are taken, until the last of them is in the queue. Beside that, what a
queue itself takes and gives, so that one can see what rules cost.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.platform import REGION, Account, Running

_BATCH = 10


def _prepared(account: Account) -> tuple[str, str]:
    """A rule with a queue as its target, and a queue by itself."""
    sqs, events = account.client("sqs"), account.client("events")
    told, plain = (sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("told", "plain"))
    source = events.put_rule(Name="bench", EventPattern=json.dumps({"source": ["bench"]}))["RuleArn"]
    arn = f"arn:aws:sqs:{REGION}:{account.id}:told"
    statement = {
        "Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": source}},
    }  # fmt: skip
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sqs.set_queue_attributes(QueueUrl=told, Attributes={"Policy": policy})
    events.put_targets(Rule="bench", Targets=[{"Id": "q", "Arn": arn}])
    return told, plain


def _receive(sqs: Any, url: str, wait: int = 20) -> int:
    got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=wait).get("Messages", [])
    if got:
        entries = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(got)]
        sqs.delete_message_batch(QueueUrl=url, Entries=entries)
    return len(got)


def delays(account: Account, url: str, number: int) -> list[float]:
    """Seconds from PutEvents to a receiver, sorted."""
    sqs, events, found = account.client("sqs"), account.client("events"), []
    entry = {"Source": "bench", "DetailType": "d", "Detail": "{}"}
    for _ in range(number):
        begun = time.perf_counter()
        events.put_events(Entries=[entry])
        got: list[Any] = []
        while not got:
            got = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20).get("Messages", [])
        found.append(time.perf_counter() - begun)
        sqs.delete_message(QueueUrl=url, ReceiptHandle=got[0]["ReceiptHandle"])
    return sorted(found)


def _together(clients: int, work: Callable[[int], None]) -> float:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    begun = time.perf_counter()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return time.perf_counter() - begun


def rate(account: Account, url: str, number: int, clients: int) -> tuple[float, float]:
    """Events a second that PutEvents takes, and that arrive in the queue."""
    detail = {"Source": "bench", "DetailType": "d", "Detail": json.dumps({"n": "x" * 200})}

    def put(_: int) -> None:
        events = account.client("events")
        for _ in range(number // clients // _BATCH):
            events.put_events(Entries=[detail] * _BATCH)

    begun = time.perf_counter()
    taken = _together(clients, put)
    sqs, name = account.client("sqs"), "ApproximateNumberOfMessages"
    wanted = number // clients // _BATCH * clients * _BATCH
    while int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name]) < wanted:
        time.sleep(0.05)
    return wanted / taken, wanted / (time.perf_counter() - begun)


def queue_rate(account: Account, url: str, number: int, clients: int) -> tuple[float, float]:
    """Messages a second that a queue takes, and gives and deletes, in batches of ten."""

    def send(_: int) -> None:
        sqs = account.client("sqs")
        entries = [{"Id": str(n), "MessageBody": "x" * 200} for n in range(_BATCH)]
        for _ in range(number // clients // _BATCH):
            sqs.send_message_batch(QueueUrl=url, Entries=entries)

    def receive(_: int) -> None:
        sqs = account.client("sqs")
        while _receive(sqs, url, 0):
            pass

    wanted = number // clients // _BATCH * clients * _BATCH
    return wanted / _together(clients, send), wanted / _together(clients, receive)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--single", type=int, default=300)
    parser.add_argument("--clients", type=int, default=4)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-events-") as folder:
        running = Running(Path(folder) / "data")
        running.start()
        try:
            running.found()
            account = running.account()
            told, plain = _prepared(account)
            found = delays(account, told, asked.single)
            print(f"delay of an event, PutEvents to receiver: median {found[len(found) // 2] * 1e3:.1f} ms, "
                  f"p99 {found[int(len(found) * 0.99)] * 1e3:.1f} ms, of {len(found)}")  # fmt: skip
            account.client("sqs").purge_queue(QueueUrl=told)
            taken, arrived = rate(account, told, asked.events, asked.clients)
            print(f"events a second, {asked.clients} clients: {taken:.0f} taken, {arrived:.0f} from change to target")
            sent, received = queue_rate(account, plain, asked.events, asked.clients)
            print(f"messages a second, {asked.clients} clients: {sent:.0f} sent, {received:.0f} received and deleted")
        finally:
            running.stop()


if __name__ == "__main__":
    main()

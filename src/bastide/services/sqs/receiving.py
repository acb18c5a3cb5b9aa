"""Messages are received, kept hidden, deleted. Source: Amazon SQS API Reference, ReceiveMessage, DeleteMessage,
ChangeMessageVisibility; Developer Guide, "Using dead-letter queues", "Exactly-once processing"."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Instant, Refused
from bastide.kernel import Ask, Authorised, Output
from bastide.services.sqs import content
from bastide.services.sqs.attributes import parameter, redrive
from bastide.services.sqs.queue import QUEUE, attribute, may_redrive, queue_of, this
from bastide.services.sqs.sending import arn_of, batch, count
from bastide.services.sqs.standing import DEDUPLICATION, MOST_HELD, Standing, place_of, standing
from bastide.services.sqs.waiting import Queues
from bastide.store import Row, Transaction, View

_PURPOSE: Final = "sqs/receipt"
_LONGEST_WAIT: Final = 20
_LONGEST_HIDDEN: Final = 43_200
_MOST_AT_A_TIME: Final = 200
"""Messages that one call may find expired or dead before it answers with what it has."""
_ATTEMPT: Final = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}")
_REMEMBERED: Final = 300 * MICROS
_LOOK_SECONDS: Final = 1.0
_SYSTEM: Final = (
    "All", "SenderId", "SentTimestamp", "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp", "SequenceNumber",
    "MessageDeduplicationId", "MessageGroupId", "AWSTraceHeader", "DeadLetterQueueSourceArn",
)  # fmt: skip


# -- waiting -----------------------------------------------------------------------------------------------------------


def _checked(a: Authorised) -> None:
    given = a.input
    most, wait, hidden = (given.get(name) for name in ("MaxNumberOfMessages", "WaitTimeSeconds", "VisibilityTimeout"))
    if most is not None and not 1 <= most <= MOST_HELD:
        raise parameter("MaxNumberOfMessages", most, "Must be between 1 and 10, if provided.")
    if wait is not None and not 0 <= wait <= _LONGEST_WAIT:
        raise parameter("WaitTimeSeconds", wait, "Must be >= 0 and <= 20, if provided.")
    if hidden is not None and not 0 <= hidden <= _LONGEST_HIDDEN:
        raise parameter("VisibilityTimeout", hidden, "Must be between 0 and 43200, if provided.")
    for name in (*(given.get("AttributeNames") or ()), *(given.get("MessageSystemAttributeNames") or ())):
        if name not in _SYSTEM:
            raise Refused("InvalidAttributeName", f"Unknown Attribute {str(name)[:100]}.")


def _seconds(a: Authorised, row: Row) -> int:
    wait = a.input.get("WaitTimeSeconds")
    return int(attribute(row, "ReceiveMessageWaitTimeSeconds")) if wait is None else int(wait)


async def _await(a: Authorised) -> float:
    """Returns when there is something to be received, or the time is over (of the event loop's)."""
    _checked(a)
    loop = asyncio.get_running_loop()
    with a.calls.store.reading() as view:
        row = queue_of(a, view)
        over = loop.time() + _seconds(a, row)
    await _come(a, arn_of(row), over)
    return over


async def _come(a: Authorised, arn: str, over: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        with a.calls.store.reading() as view:
            soonest = standing(view, queue_of(a, view)).soonest()
        now = a.calls.clock()
        left = over - loop.time()
        if left <= 0 or (soonest is not None and soonest <= now):
            return
        pause = min(left, _LOOK_SECONDS)
        if soonest is not None:
            pause = min(pause, max(0.001, (soonest - now) / MICROS))
        await a.engine(Queues).wait(arn, pause)


# -- receiving ---------------------------------------------------------------------------------------------------------


def _dead(tx: Transaction, row: Row, message: Row, queues: Queues) -> bool:
    """Moves a message that was received too often to where dead letters go; False if there is no such place."""
    text = row.doc["attributes"].get("RedrivePolicy")
    if not text:
        return False
    target_arn, most = redrive(text)
    if message.doc["r"] < most:
        return False
    target = QUEUE.get(tx, target_arn.account, target_arn.region, target_arn.resource)
    if target is None or target.doc["fifo"] != row.doc["fifo"] or not may_redrive(target, arn_of(row)):
        return False
    doc = {key: value for key, value in message.doc.items() if key not in ("n", "d", "r", "f", "moved")}
    doc |= {"source": arn_of(row), "before": message.doc["r"]}
    standing(tx, row).drop(message)
    # Of a standard queue's message the time counts from when it was sent first; of a FIFO queue's it begins anew.
    standing(tx, target).add(doc, tx.now, tx.now, tx.now if row.doc["fifo"] else message.created)
    queues.told(arn_of(target))
    return True


def _handle(a: Authorised, row: Row, message: Row) -> str:
    return a.calls.sealer.seal(
        orjson.dumps([row.doc["id"], message.name, message.doc["n"], message.doc["r"]]), _PURPOSE
    )


def _shown(a: Authorised, tx: Transaction, row: Row, message: Row) -> Output:
    doc, given = message.doc, a.input
    held = a.engine(Queues).seals.open(a, tx, row, doc["seal"])
    output: Output = {
        "MessageId": doc["id"], "ReceiptHandle": _handle(a, row, message), "MD5OfBody": content.md5(held["b"]),
        "Body": held["b"],
    }  # fmt: skip
    system = {
        "SenderId": doc["from"], "SentTimestamp": str(message.created // 1000),
        "ApproximateReceiveCount": str(doc["r"] + doc.get("before", 0)),
        "ApproximateFirstReceiveTimestamp": str(doc["f"] // 1000),
        "MessageGroupId": doc.get("group"), "AWSTraceHeader": held.get("t"), "DeadLetterQueueSourceArn": doc.get("source"),
    }  # fmt: skip
    if row.doc["fifo"]:
        system |= {"SequenceNumber": doc["n"], "MessageDeduplicationId": doc.get("token")}
    names = {*(given.get("AttributeNames") or ()), *(given.get("MessageSystemAttributeNames") or ())}
    told = {name: value for name, value in system.items() if value is not None and ("All" in names or name in names)}
    if told:
        output["Attributes"] = told
    attributes = content.wanted(content.unpacked(held["a"]), given.get("MessageAttributeNames") or ())
    if attributes:
        output |= {"MessageAttributes": attributes, "MD5OfMessageAttributes": content.md5_of(attributes)}
    return output


def _until(a: Authorised, row: Row, now: Instant) -> Instant:
    hidden = a.input.get("VisibilityTimeout")
    seconds: int = int(attribute(row, "VisibilityTimeout")) if hidden is None else int(hidden)
    return now + seconds * MICROS


def _take(a: Authorised, tx: Transaction) -> Output:
    row, queues = queue_of(a, tx), a.engine(Queues)
    now, limit = tx.now, int(a.input.get("MaxNumberOfMessages") or 1)
    attempt, again = _attempt(a, tx, row)
    if again:
        return {"Messages": again}
    stand, until = standing(tx, row), _until(a, row, now)
    found: list[tuple[Row, Output]] = []
    ends = now - int(attribute(row, "MessageRetentionPeriod")) * MICROS
    looked = 0
    taken: set[str] = set()
    while len(found) < limit and looked < _MOST_AT_A_TIME:
        rows = [one for one in stand.due(now, limit - len(found) + len(taken)) if one.doc["n"] not in taken]
        if not rows:
            break
        for message in rows:
            looked += 1
            if message.created <= ends:
                stand.drop(message)
                continue
            if _dead(tx, row, message, queues):
                continue
            message.doc.setdefault("f", now)
            held = stand.hold(message, until)
            taken.add(held.doc["n"])  # a visibility of no time leaves it due
            found.append((held, _shown(a, tx, row, held)))
            if len(found) == limit:
                break
    queues.active.add(arn_of(row))
    if not found:
        count(a, row, "NumberOfEmptyReceives")
        return {}
    count(a, row, "NumberOfMessagesReceived", len(found))
    if attempt is not None:
        messages = [[one.name, one.doc["n"], one.doc["r"]] for one, _ in found]
        tx.insert(place_of(row).row(DEDUPLICATION, attempt, {"messages": messages}), keep=False)
    return {"Messages": [shown for _, shown in found]}


def _attempt(a: Authorised, tx: Transaction, row: Row) -> tuple[str | None, list[Output]]:
    """What an earlier attempt of the same receive got, if all of it still stands as it left it."""
    token = a.input.get("ReceiveRequestAttemptId")
    if token is None:
        return None, []
    if not row.doc["fifo"] or not _ATTEMPT.fullmatch(token):
        raise parameter("ReceiveRequestAttemptId", token, "It is of FIFO queues, and has 1 to 128 characters.")
    name, at = f"attempt/{hashlib.sha256(token.encode()).hexdigest()}", place_of(row)
    held = tx.get(f"{DEDUPLICATION}{at.id}", at.account, at.region, name)
    if held is None:
        return name, []
    stand, now = standing(tx, row), tx.now
    messages = [stand.find(*one) for one in held.doc["messages"]]
    if now - held.created < _REMEMBERED and all(one is not None and one.doc["d"] > now for one in messages):
        found = []
        for one in messages:
            assert one is not None
            stand.postpone(one, _until(a, row, now))
            found.append(_shown(a, tx, row, one))
        return name, found
    tx.delete(held, keep=False)
    return name, []


async def _again(a: Authorised, output: Output) -> Output:
    """Somebody else was faster, and there is time left: wait on."""
    [arn] = [one.resource for one in a.questions[:1]]
    while not output.get("Messages") and asyncio.get_running_loop().time() < a.staged:
        await _come(a, arn, a.staged)
        told = len(a.events)

        def work(tx: Transaction, told: int = told) -> Output:
            found = _take(a, tx)
            tx.record(a.events[told:])
            return found

        output = await a.calls.store.write(work)
    return output


@QUEUE.operation("ReceiveMessage", asks=[Ask("sqs:ReceiveMessage", this)], data=True, before=_await, after=_again)
def receive(a: Authorised, tx: Transaction) -> Output:
    return _take(a, tx)


# -- what was received -------------------------------------------------------------------------------------------------


def _found(a: Authorised, view: View, row: Row, handle: str) -> Row | None:
    try:
        id, name, number, receives = orjson.loads(a.calls.sealer.open(handle, _PURPOSE))
    except (ValueError, Refused):
        id = ""
    if id != row.doc["id"]:
        raise Refused(
            "ReceiptHandleIsInvalid", f'The input receipt handle "{handle[:100]}" is not a valid receipt handle.'
        )
    return standing(view, row).find(name, number, receives)


def _expired(handle: str) -> Refused:
    return Refused(
        "InvalidParameterValue",
        f"Value {handle} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.",
    )


def _delete(a: Authorised, tx: Transaction, row: Row, given: Mapping[str, Any]) -> Output:
    message = _found(a, tx, row, given["ReceiptHandle"])
    if row.doc["fifo"] and (message is None or message.doc["d"] <= tx.now):
        if message is not None:
            raise _expired(given["ReceiptHandle"])
        return {}
    if message is not None:
        standing(tx, row).drop(message)
        count(a, row, "NumberOfMessagesDeleted")
    return {}


@QUEUE.operation("DeleteMessage", asks=[Ask("sqs:DeleteMessage", this)], data=True)
def delete(a: Authorised, tx: Transaction) -> Output:
    output = _delete(a, tx, queue_of(a, tx), a.input)
    _wake(a)
    return output


@QUEUE.operation("DeleteMessageBatch", asks=[Ask("sqs:DeleteMessage", this)], data=True)
def delete_batch(a: Authorised, tx: Transaction) -> Output:
    row = queue_of(a, tx)
    output = batch(a, tx, lambda one: _delete(a, tx, row, one))
    _wake(a)
    return output


def _wake(a: Authorised) -> None:
    """The rest of a FIFO queue's group may be due now; receivers look again within a second, if this comes too early."""
    loop = asyncio.get_running_loop()
    [arn] = [one.resource for one in a.questions[:1]]
    loop.call_later(0.02, a.engine(Queues).told, arn)


def _change(a: Authorised, tx: Transaction, row: Row, given: Mapping[str, Any]) -> Output:
    seconds = given.get("VisibilityTimeout")
    if seconds is None:
        raise Refused("MissingParameter", "The request must contain the parameter VisibilityTimeout.")
    if not 0 <= seconds <= _LONGEST_HIDDEN:
        raise parameter("VisibilityTimeout", seconds, "Must be between 0 and 43200.")
    message = _found(a, tx, row, given["ReceiptHandle"])
    if row.doc["fifo"] and (message is None or message.doc["d"] <= tx.now):
        raise _expired(given["ReceiptHandle"])
    if message is None:
        raise Refused(
            "InvalidParameterValue",
            f"Value {given['ReceiptHandle']} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is "
            "not available for visibility timeout change.",
        )
    until = tx.now + seconds * MICROS
    if until - message.doc["f"] > _LONGEST_HIDDEN * MICROS and message.doc["r"] == 1:
        raise parameter(
            "VisibilityTimeout", seconds, "Total VisibilityTimeout for the message is beyond the limit [43200 seconds]."
        )
    stand: Standing = standing(tx, row)
    stand.postpone(message, until)
    return {}


@QUEUE.operation("ChangeMessageVisibility", asks=[Ask("sqs:ChangeMessageVisibility", this)], data=True)
def change(a: Authorised, tx: Transaction) -> Output:
    output = _change(a, tx, queue_of(a, tx), a.input)
    _wake(a)
    return output


@QUEUE.operation("ChangeMessageVisibilityBatch", asks=[Ask("sqs:ChangeMessageVisibility", this)], data=True)
def change_batch(a: Authorised, tx: Transaction) -> Output:
    row = queue_of(a, tx)
    output = batch(a, tx, lambda one: _change(a, tx, row, one))
    _wake(a)
    return output

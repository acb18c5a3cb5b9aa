"""Messages are sent. Source: Amazon SQS API Reference, SendMessage, SendMessageBatch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bastide.domain import MICROS, Refused, new_id
from bastide.engines.telemetry import Meter
from bastide.kernel import Ask, Authorised, Output
from bastide.services.sqs import content
from bastide.services.sqs.attributes import parameter
from bastide.services.sqs.queue import QUEUE, attribute, queue_of, this
from bastide.services.sqs.standing import DEDUPLICATION, place_of, standing
from bastide.services.sqs.waiting import Queues
from bastide.store import Row, Transaction

_TOKEN: Final = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}")
_GLYPHS: Final = "can only include alphanumeric and punctuation characters. 1 to 128 in length."
_ENTRY: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")
_REMEMBERED: Final = 300 * MICROS
_MOST_ENTRIES: Final = 10
_MOST_BATCH: Final = 1_048_576
_LONGEST_DELAY: Final = 900
_TRACE: Final = "AWSTraceHeader"


def arn_of(row: Row) -> str:
    """The ARN of a queue."""
    return QUEUE.arn(row.account, row.region, row.name)


def count(a: Authorised, row: Row, name: str, value: float = 1.0, unit: str = "Count") -> None:
    """A value of the queue in the namespace AWS/SQS."""
    a.engine(Meter).record(row.account, row.region, "AWS/SQS", (("QueueName", row.name),), name, value, unit)


def _sizes(given: Mapping[str, Any]) -> int:
    size = content.body(given["MessageBody"]) + content.attributes(given.get("MessageAttributes"))
    system = given.get("MessageSystemAttributes") or {}
    if set(system) - {_TRACE}:
        raise parameter("MessageSystemAttributes", ", ".join(system), f"Only {_TRACE} is supported.")
    if _TRACE in system and system[_TRACE].get("DataType") != "String":
        raise parameter("MessageSystemAttributes", _TRACE, "Its type is String.")
    content.attributes(system)
    return size


def _group(given: Mapping[str, Any], fifo: bool) -> str | None:
    group = given.get("MessageGroupId")
    if group is None:
        if fifo:
            raise Refused("MissingParameter", "The request must contain the parameter MessageGroupId.")
        return None
    if not _TOKEN.fullmatch(group):
        raise parameter("MessageGroupId", group, f"MessageGroupId {_GLYPHS}")
    return str(group)


def _due(row: Row, given: Mapping[str, Any], now: int) -> int:
    delay = given.get("DelaySeconds")
    if row.doc["fifo"] and delay == 0:
        delay = None  # the queue's own counts
    if delay is not None and row.doc["fifo"]:
        raise parameter("DelaySeconds", delay, "The request include parameter that is not valid for this queue type.")
    if delay is not None and not 0 <= delay <= _LONGEST_DELAY:
        raise parameter("DelaySeconds", delay, "DelaySeconds must be >= 0 and <= 900.")
    seconds = int(attribute(row, "DelaySeconds")) if delay is None else int(delay)
    return now + seconds * MICROS


def _deduplicated(row: Row, given: Mapping[str, Any], group: str | None) -> tuple[str, str] | None:
    """The token of a FIFO queue's message, and under which name it is remembered."""
    token = given.get("MessageDeduplicationId")
    if not row.doc["fifo"]:
        if token is not None:
            raise parameter(
                "MessageDeduplicationId",
                token,
                "The request includes a parameter that is not valid for this queue type.",
            )
        return None
    if token is None:
        if attribute(row, "ContentBasedDeduplication") != "true":
            raise Refused(
                "InvalidParameterValue",
                "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided "
                "explicitly",
            )
        token = hashlib.sha256(given["MessageBody"].encode()).hexdigest()
    elif not _TOKEN.fullmatch(token):
        raise parameter("MessageDeduplicationId", token, f"MessageDeduplicationId {_GLYPHS}")
    scope = group if attribute(row, "DeduplicationScope") == "messageGroup" else ""
    return token, hashlib.sha256(f"{scope}\0{token}".encode()).hexdigest()


def _send(a: Authorised, tx: Transaction, row: Row, given: Mapping[str, Any]) -> Output:
    size, most = _sizes(given), int(attribute(row, "MaximumMessageSize"))
    if size > most:
        how = "cannot be validated" if "Id" in given else "are invalid"
        raise Refused(
            "InvalidParameterValue",
            f"One or more parameters {how}. Reason: Message must be shorter than {most} bytes.",
        )
    now, group = tx.now, _group(given, row.doc["fifo"])
    due, token = _due(row, given, now), _deduplicated(row, given, group)
    own, system = given.get("MessageAttributes") or {}, given.get("MessageSystemAttributes") or {}
    output: Output = {"MD5OfMessageBody": content.md5(given["MessageBody"])}
    if own:
        output["MD5OfMessageAttributes"] = content.md5_of(own)
    if system:
        output["MD5OfMessageSystemAttributes"] = content.md5_of(system)
    at = place_of(row)
    if token is not None:
        held = tx.get(f"{DEDUPLICATION}{at.id}", at.account, at.region, token[1])
        if held is not None and now - held.created < _REMEMBERED:
            return {**output, "MessageId": held.doc["id"], "SequenceNumber": held.doc["number"]}
        if held is not None:
            tx.delete(held, keep=False)
    sealed: dict[str, Any] = {"b": given["MessageBody"], "a": content.packed(own)}
    if system:
        sealed["t"] = system[_TRACE]["StringValue"]
    doc: dict[str, Any] = {
        "id": new_id(), "from": a.caller.user_id, "seal": a.engine(Queues).seals.seal(a, tx, row, sealed),
    }  # fmt: skip
    if group is not None:
        doc["group"] = group
    if token is not None:
        doc["token"] = token[0]
    number = standing(tx, row).add(doc, now, due, now)
    output["MessageId"] = doc["id"]
    if token is not None:
        output["SequenceNumber"] = number
        remembered = {"id": doc["id"], "number": number}
        tx.insert(at.row(DEDUPLICATION, token[1], remembered), keep=False)
    count(a, row, "NumberOfMessagesSent")
    count(a, row, "SentMessageSize", size, "Bytes")
    return output


async def _told(a: Authorised, output: Output) -> Output:
    """Those who wait are told when the message is on the disk."""
    [arn] = this_arn(a)
    a.engine(Queues).active.add(arn)
    a.engine(Queues).told(arn)
    return output


def this_arn(a: Authorised) -> list[str]:
    """The ARN of the queue that a call names."""
    return [one.resource for one in a.questions[:1]]


@QUEUE.operation("SendMessage", asks=[Ask("sqs:SendMessage", this)], data=True, after=_told)
def send(a: Authorised, tx: Transaction) -> Output:
    return _send(a, tx, queue_of(a, tx), a.input)


def entries(a: Authorised) -> Sequence[Mapping[str, Any]]:
    """The entries of a batch, of which each has an id of its own; raises Refused."""
    found: Sequence[Mapping[str, Any]] = a.input["Entries"]
    if not found:
        raise Refused("EmptyBatchRequest", "There should be at least one entry in the request.")
    if len(found) > _MOST_ENTRIES:
        raise Refused(
            "TooManyEntriesInBatchRequest",
            f"Maximum number of entries per request are {_MOST_ENTRIES}. You have sent {len(found)}.",
        )
    for one in found:
        if not _ENTRY.fullmatch(one["Id"]):
            raise Refused(
                "InvalidBatchEntryId",
                "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 "
                "letters long.",
            )
    if len({one["Id"] for one in found}) != len(found):
        raise Refused("BatchEntryIdsNotDistinct", "Two or more batch entries in the request have the same Id.")
    return found


def batch(a: Authorised, tx: Transaction, work: Callable[[Mapping[str, Any]], Output]) -> Output:
    """Does each entry of a batch for itself: what fails, fails alone."""
    successful, failed = [], []
    for one in entries(a):
        try:
            with tx.savepoint():
                successful.append({"Id": one["Id"], **work(one)})
        except Refused as refused:
            if refused.code.startswith("Kms"):
                raise  # it is the queue's key, and the same for all
            failed.append(
                {"Id": one["Id"], "SenderFault": True, "Code": refused.code, "Message": refused.message[:1000]}
            )
    return {"Successful": successful} | ({"Failed": failed} if failed else {})


def _length(given: Mapping[str, Any]) -> int:
    """Bytes of a message with its attributes, whatever else is wrong with it."""
    size = len(str(given.get("MessageBody") or "").encode("utf-8", "surrogatepass"))
    for name, one in (given.get("MessageAttributes") or {}).items():
        value = one.get("BinaryValue") or str(one.get("StringValue") or "").encode("utf-8", "surrogatepass")
        size += len(name.encode()) + len(str(one.get("DataType") or "").encode()) + len(value)
    return size


@QUEUE.operation("SendMessageBatch", asks=[Ask("sqs:SendMessage", this)], data=True, after=_told)
def send_batch(a: Authorised, tx: Transaction) -> Output:
    row = queue_of(a, tx)
    total = sum(map(_length, entries(a)))
    if total > _MOST_BATCH:
        raise Refused(
            "BatchRequestTooLong",
            f"Batch requests cannot be longer than {_MOST_BATCH} bytes. You have sent {total} bytes.",
        )
    for one in entries(a):  # what a FIFO queue cannot do without refuses all of it
        if row.doc["fifo"] and one.get("MessageGroupId") is None:
            raise Refused("InvalidParameterValue", "The request must contain the parameter MessageGroupId.")
        if row.doc["fifo"] and one.get("MessageBody"):
            _deduplicated(row, one, one.get("MessageGroupId"))
    return batch(a, tx, lambda one: _send(a, tx, row, one))

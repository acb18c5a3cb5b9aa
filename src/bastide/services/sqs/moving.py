"""Message move tasks: dead letters go back where they came from, or elsewhere.

Source: Amazon SQS API Reference, StartMessageMoveTask; Developer Guide, "Dead-letter queue redrive". A redriven message
is a new one: it has a new id, and its time begins anew.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Arn, Refused, new_id
from bastide.kernel import Ask, Asked, Authorised, Calls, Output
from bastide.services.sqs.attributes import parameter
from bastide.services.sqs.queue import QUEUE, SOURCES
from bastide.services.sqs.standing import standing
from bastide.services.sqs.waiting import Queues
from bastide.store import Row, Transaction, View

TASK: Final = "sqs:MoveTask"
"""Rows ``QUEUE/STARTED/ID`` of the account and region."""
MOVING: Final = "sqs:MovingIndex"
"""Under account "": which tasks are to be gone on with."""
_MOST_A_SECOND: Final = 500
_MOST_SHOWN: Final = 10
_GOING: Final = ("RUNNING", "CANCELLING")


def _arn(text: str, member: str) -> Arn:
    try:
        arn = Arn.parse(text)
    except ValueError:
        arn = Arn("", "", "", "")
    if arn.service != "sqs" or not arn.resource:
        raise parameter(member, text, "It is the ARN of a queue.")
    return arn


def _member(name: str) -> Any:
    def about(asked: Asked) -> Iterable[str]:
        given = asked.input.get(name)
        return () if given is None else (str(_arn(given, name)),)

    return about


def _no_task() -> Refused:
    return Refused("ResourceNotFoundException", "Task does not exist.", 404)


def _read(handle: str) -> tuple[str, str]:
    try:
        held = orjson.loads(base64.b64decode(handle, validate=True))
        return str(held["sourceArn"]), str(held["taskId"])
    except (ValueError, TypeError, KeyError, binascii.Error):
        raise Refused("InvalidParameterValue", "Value for parameter TaskHandle is invalid.") from None


def _of_handle(asked: Asked) -> Iterable[str]:
    return (str(_arn(_read(str(asked.input["TaskHandle"]))[0], "TaskHandle")),)


def _queue(a: Authorised, view: View, arn: Arn, member: str) -> Row:
    row = QUEUE.get(view, arn.account, arn.region, arn.resource)
    if row is None or (arn.account, arn.region) != (a.account, a.region):
        raise Refused(
            "ResourceNotFoundException",
            f"The resource that you specified for the {member} parameter doesn't exist.",
            404,
        )
    return row


def _tasks(view: View, arn: Arn, limit: int = 100) -> list[Row]:
    return view.scan(TASK, arn.account, arn.region, prefix=f"{arn.resource}/", descending=True, limit=limit)


@QUEUE.operation(
    "StartMessageMoveTask",
    asks=[
        Ask("sqs:StartMessageMoveTask", _member("SourceArn")),
        Ask("sqs:ReceiveMessage", _member("SourceArn")),
        Ask("sqs:DeleteMessage", _member("SourceArn")),
        Ask("sqs:SendMessage", _member("DestinationArn")),
    ],
)
def start(a: Authorised, tx: Transaction) -> Output:
    source = _arn(a.input["SourceArn"], "SourceArn")
    row = _queue(a, tx, source, "SourceArn")
    if not tx.scan(SOURCES, row.account, row.region, prefix=f"{row.name}|", limit=1):
        raise Refused("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.")
    target = a.input.get("DestinationArn")
    if (
        target is not None
        and _queue(a, tx, _arn(target, "DestinationArn"), "DestinationArn").doc["fifo"] != row.doc["fifo"]
    ):
        raise parameter("DestinationArn", target, "Source and destination are queues of the same type.")
    rate = a.input.get("MaxNumberOfMessagesPerSecond")
    if rate is not None and not 1 <= rate <= _MOST_A_SECOND:
        raise parameter("MaxNumberOfMessagesPerSecond", rate, f"Value must be between 1 and {_MOST_A_SECOND}.")
    if any(one.status in _GOING for one in _tasks(tx, source, 1)):
        raise Refused(
            "InvalidParameterValue",
            "There is already a task running. Only one active task is allowed for a source queue arn at a given time.",
        )
    id = new_id()
    stand = standing(tx, row).counts(tx.now)
    doc = {
        "id": id, "source": str(source), "target": target, "rate": rate, "started": tx.now, "moved": 0,
        "all": stand["visible"] + stand["hidden"], "caller": a.caller.arn,
    }  # fmt: skip
    name = f"{source.resource}/{tx.now:020d}/{id}"
    tx.insert(Row(TASK, row.account, row.region, name, doc, "RUNNING"), keep=False)
    tx.insert(Row(MOVING, "", "", f"{row.account}/{row.region}/{name}", {}), keep=False)
    return {"TaskHandle": _handle(doc)}


def _handle(doc: dict[str, Any]) -> str:
    return base64.b64encode(orjson.dumps({"taskId": doc["id"], "sourceArn": doc["source"]})).decode()


@QUEUE.operation("CancelMessageMoveTask", asks=[Ask("sqs:CancelMessageMoveTask", _of_handle)])
def cancel(a: Authorised, tx: Transaction) -> Output:
    source, id = _read(str(a.input["TaskHandle"]))
    for row in _tasks(tx, _arn(source, "TaskHandle")):
        if row.doc["id"] == id:
            if row.status != "RUNNING":
                raise Refused("UnsupportedOperation", "Only active tasks can be cancelled.")
            row.status = "CANCELLING"
            tx.update(row, keep=False)
            return {"ApproximateNumberOfMessagesMoved": row.doc["moved"]}
    raise _no_task()


@QUEUE.reads("ListMessageMoveTasks", asks=[Ask("sqs:ListMessageMoveTasks", _member("SourceArn"))])
def listed(a: Authorised, view: View) -> Output:
    limit = a.input.get("MaxResults") or 1
    if not 1 <= limit <= _MOST_SHOWN:
        raise parameter("MaxResults", limit, f"Value must be between 1 and {_MOST_SHOWN}.")
    source = _arn(a.input["SourceArn"], "SourceArn")
    _queue(a, view, source, "SourceArn")
    return {"Results": [_shown(row) for row in _tasks(view, source, limit)]}


def _shown(row: Row) -> Output:
    doc = row.doc
    told: Output = {
        "Status": row.status, "SourceArn": doc["source"], "StartedTimestamp": doc["started"] // 1000,
        "ApproximateNumberOfMessagesMoved": doc["moved"], "ApproximateNumberOfMessagesToMove": doc["all"],
    }  # fmt: skip
    if row.status == "RUNNING":
        told["TaskHandle"] = _handle(doc)
    more = {
        "DestinationArn": doc["target"], "MaxNumberOfMessagesPerSecond": doc["rate"], "FailureReason": doc.get("failure"),
    }  # fmt: skip
    return told | {name: value for name, value in more.items() if value is not None}


# -- going on ----------------------------------------------------------------------------------------------------------


async def go_on(calls: Calls) -> None:
    """Moves what a second allows of every task; each piece of it is one transaction."""
    with calls.store.reading() as view:
        names = [row.name for row in view.scan(MOVING, "", "", limit=1000)]
    for name in names:
        for arn in await calls.store.write(lambda tx, name=name: _piece(tx, name)):  # type: ignore[misc]
            calls.engine(Queues).told(arn)


def _piece(tx: Transaction, index: str) -> set[str]:
    """Moves some messages of a task; the ARNs of the queues that got any."""
    account, region, name = index.split("/", 2)
    held, row = tx.get(MOVING, "", "", index), tx.get(TASK, account, region, name)
    if held is None:
        return set()
    source = QUEUE.get(tx, account, region, name.partition("/")[0])
    if row is None or source is None or row.status != "RUNNING":
        if row is not None:
            row.status = "CANCELLED" if row.status == "CANCELLING" else "FAILED"
            tx.update(row, keep=False)
        tx.delete(held, keep=False)
        return set()
    told: set[str] = set()
    stand = standing(tx, source)
    rows = stand.due(tx.now, int(row.doc["rate"] or _MOST_A_SECOND))
    for message in rows:
        where = row.doc["target"] or message.doc.get("source")
        target = _target(tx, where) if where else None
        if target is None or target.doc["fifo"] != source.doc["fifo"]:
            row.doc["failure"] = (
                "CouldNotDetermineMessageSource" if not where else "AWS.SimpleQueueService.NonExistentQueue"
            )
            break
        doc: dict[str, Any] = {
            key: message.doc[key] for key in ("from", "seal", "group", "token") if key in message.doc
        }
        stand.drop(message)
        standing(tx, target).add({**doc, "id": new_id()}, tx.now, tx.now, tx.now)
        row.doc["moved"] += 1
        told.add(QUEUE.arn(target.account, target.region, target.name))
    if row.doc.get("failure") or not stand.due(tx.now, 1):
        row.status = "FAILED" if row.doc.get("failure") else "COMPLETED"
        tx.delete(held, keep=False)
    row.doc["last"] = tx.now // MICROS
    tx.update(row, keep=False)
    return told


def _target(view: View, arn: str) -> Row | None:
    where = Arn.parse(arn)
    return QUEUE.get(view, where.account, where.region, where.resource)

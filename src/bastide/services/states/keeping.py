"""How an execution is kept: a row that says where it stands, and its history in pieces, one a transaction.

The row's document has in the clear what lists and events tell anyway (status, times, names); input, output, causes, data of
states and the history are sealed. The history's pieces are blobs, numbered, each with the id of its first event.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Instant
from bastide.engines.asl.frame import Memory
from bastide.kernel.happened import tell
from bastide.services.states.noun import RUN, account_of, execution_arn, machine_arn
from bastide.services.states.sealing import Cipher
from bastide.store import Row, Transaction, View

LIVE: Final = "states:Live"
"""Under account "": ARNs of executions that run."""
INBOX: Final = "states:Inbox"
"""Under account "": ``EXECUTION ARN|ID``, what an execution is to be told."""
TOKEN: Final = "states:Token"  # noqa: S105
"""Under account "": ``EXECUTION ARN|SERIAL``, tasks that somebody else reports about."""
OVER: Final = ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")
LARGEST: Final = 64 << 20
"""Bytes that an execution remembers."""


class TooLarge(Exception):  # noqa: N818
    """An execution remembers more than is kept."""


def blob(row: Row, number: int) -> str:
    """Where a piece of a history is kept."""
    return f"states/{row.doc['id']}/{number:06d}"


def receipt(row: Row, serial: int) -> str:
    """Where the answer of a call is kept until the history has it."""
    return f"states/{row.doc['id']}/receipt/{serial}"


def new_row(where: tuple[str, str, str], doc: dict[str, Any]) -> Row:
    """A row of an execution that begins."""
    account, region, name = where
    return Row(RUN, account, region, name, {"events": 0, "pieces": 0, **doc}, "RUNNING")


def keep(tx: Transaction, row: Row, memory: Memory, events: list[dict[str, Any]], cipher: Cipher, now: Instant) -> None:
    """Puts an execution's memory and its new events into its row; whoever called writes the row."""
    doc = row.doc
    if events:
        tx.put_blob(blob(row, doc["pieces"]), cipher.seal(events))
        doc["pieces"] += 1
        doc["events"] = memory.events
    told = orjson.dumps(memory.told())
    if len(told) > LARGEST and memory.status == "RUNNING":
        raise TooLarge
    doc["state"] = cipher.packed(told)
    doc["key"] = cipher.wrapped
    if memory.redrives:
        doc["redrives"], doc["redriven"] = memory.redrives, memory.redriven_at
    row.status = memory.status
    if memory.status != "RUNNING":
        doc["stop"] = now
        doc["runtime"] = memory.runtime
    else:
        doc.pop("stop", None)


def status_event(tx: Transaction, row: Row, told: dict[str, Any]) -> None:
    """Tells EventBridge how an execution stands. told: input, output, error and cause. What lies under the customer's key
    stays there: an event would carry it away from under it."""
    told = {} if row.doc.get("key") else told
    account, name = account_of(row)
    arn = execution_arn(row)
    over = row.status != "RUNNING"
    detail: dict[str, Any] = {
        "executionArn": arn,
        "stateMachineArn": machine_arn(account, row.region, name),
        "name": row.name,
        "status": row.status,
        "startDate": row.doc["start"] // 1000,
        "stopDate": row.doc["stop"] // 1000 if over else None,
        "input": None,
        "output": None,
        "stateMachineVersionArn": row.doc.get("version"),
        "stateMachineAliasArn": row.doc.get("alias"),
        "redriveCount": row.doc.get("redrives", 0),
        "redriveDate": row.doc["redriven"] // 1000 if row.doc.get("redriven") else None,
        "redriveStatus": redrivable(row, tx.now)[0],
        "redriveStatusReason": redrivable(row, tx.now)[1],
        "error": None,
        "cause": None,
    }
    for member in ("input", "output"):
        text = told.get(member)
        fits = text is not None and len(text) <= 60_000
        detail[member] = text if fits else None
        detail[f"{member}Details"] = {"included": fits} if text is not None else None
    detail |= {member: told[member] for member in ("error", "cause") if told.get(member) is not None}
    tell(
        tx,
        account=account,
        region=row.region,
        source="aws.states",
        detail_type="Step Functions Execution Status Change",
        resources=[arn],
        detail=detail,
    )


def redrivable(row: Row, now: Instant) -> tuple[str, str | None]:
    """redriveStatus and its reason."""
    if row.doc.get("run"):
        return "REDRIVABLE_BY_MAP_RUN" if row.status in OVER[1:] else "NOT_REDRIVABLE", (
            None if row.status in OVER[1:] else f"Execution is {row.status} and cannot be redriven"
        )
    if row.status in ("RUNNING", "SUCCEEDED"):
        return "NOT_REDRIVABLE", f"Execution is {row.status} and cannot be redriven"
    if row.doc["start"] + 14 * 86400 * MICROS < now:
        return "NOT_REDRIVABLE", "Execution start date exceeds the redrive window"
    if row.doc["events"] >= 24_999:
        return "NOT_REDRIVABLE", "Execution history event limit exceeded"
    return "REDRIVABLE", None


def history(view: View, row: Row, cipher: Cipher, pieces: Iterable[int]) -> list[dict[str, Any]]:
    """The events of some pieces of a history."""
    found: list[dict[str, Any]] = []
    for number in pieces:
        kept = view.blob(blob(row, number))
        if kept is not None:
            found += cipher.open(kept)
    return found


def between(view: View, row: Row, cipher: Cipher, low: int, high: int) -> list[dict[str, Any]]:
    """The events from one id to another, both included: found by halving, for pieces have no index."""
    first, last = 0, int(row.doc["pieces"]) - 1
    while first < last:
        middle = (first + last + 1) // 2
        [one, *_] = history(view, row, cipher, (middle,))
        if one["id"] <= low:
            first = middle
        else:
            last = middle - 1
    found: list[dict[str, Any]] = []
    for number in range(first, int(row.doc["pieces"])):
        events = history(view, row, cipher, (number,))
        found += [one for one in events if low <= one["id"] <= high]
        if events and events[-1]["id"] >= high:
            break
    return found


def input_of(view: View, row: Row, cipher: Cipher) -> str:
    """An execution's input, as it was given."""
    [first, *_] = history(view, row, cipher, (0,))
    return str(first["executionStartedEventDetails"]["input"])


def forget(tx: Transaction, row: Row) -> None:
    """Removes an execution and its history."""
    for number in range(row.doc["pieces"]):
        tx.drop_blob(blob(row, number))
    tx.delete(row, keep=False)

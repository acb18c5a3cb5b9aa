"""Archives: events of a bus, kept to be replayed.

Source: Amazon EventBridge API Reference, CreateArchive, StartReplay; User Guide, "Archiving and replaying events".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Arn, Instant, Refused
from bastide.kernel import Ask, Asked, Authorised, Calls, Kind, Output, anything, pages
from bastide.kernel.pattern import Pattern
from bastide.services.events.bus import BUS, bus_name
from bastide.store import Row, Taken, Transaction, View

ARCHIVE: Final = Kind(
    "Archive",
    service="events",
    arn="archive/{}",
    named_by="ArchiveName",
    tags=False,
    missing=("ResourceNotFoundException", "Archive {name} does not exist.", 400),
    taken=("ResourceAlreadyExistsException", "Archive {name} already exists.", 400),
)
KEPT: Final = "events:Archived"
"""Rows ``ARCHIVE/TIME/EVENT ID`` of the account and region, sealed."""
COUNT: Final = "events:ArchiveCount"
"""Rows by archive: how many events it has, and how large they are."""
INDEX: Final = "events:ArchiveIndex"
"""Under account "": ARNs of archives, for whoever ends what is old."""
PURPOSE: Final = "events/archive"
_MOST: Final = 100
_PAGE: Final = 100
_DAY: Final = 86400 * MICROS


def _bus(asked: Asked) -> Iterable[str]:
    return (str(asked.input["EventSourceArn"]),)


def _pattern(text: str | None) -> None:
    if text:
        Pattern(text)


@ARCHIVE.operation(
    "CreateArchive",
    asks=[Ask("events:CreateArchive", ARCHIVE.this), Ask("events:CreateArchive", _bus)],
)
def create(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    if given.get("KmsKeyIdentifier"):
        raise Refused("ValidationException", "KmsKeyIdentifier is not supported by Bastide yet.")
    bus = bus_name(a, tx, given["EventSourceArn"])
    _pattern(given.get("EventPattern"))
    if len(tx.scan(ARCHIVE.key, a.account, a.region, limit=_MOST)) >= _MOST:
        raise Refused("LimitExceededException", f"An account has at most {_MOST} archives in a region.")
    doc: dict[str, Any] = {"EventSourceArn": BUS.arn(a.account, a.region, bus)}
    doc |= {name: given[name] for name in ("Description", "EventPattern") if given.get(name)}
    doc["RetentionDays"] = given.get("RetentionDays") or 0
    row = ARCHIVE.create(a, tx, given["ArchiveName"], doc, status="ENABLED")
    tx.insert(Row(COUNT, a.account, a.region, row.name, {"events": 0, "bytes": 0}), keep=False)
    tx.insert(Row(INDEX, "", "", ARCHIVE.arn(a.account, a.region, row.name), {}), keep=False)
    return {"ArchiveArn": ARCHIVE.arn(a.account, a.region, row.name), "State": "ENABLED", "CreationTime": row.created}


@ARCHIVE.operation("UpdateArchive", asks=[Ask("events:UpdateArchive", ARCHIVE.this)])
def update(a: Authorised, tx: Transaction) -> Output:
    row, given = ARCHIVE.named(a, tx), a.input
    if given.get("KmsKeyIdentifier"):
        raise Refused("ValidationException", "KmsKeyIdentifier is not supported by Bastide yet.")
    _pattern(given.get("EventPattern"))
    for name in ("Description", "EventPattern", "RetentionDays"):
        if given.get(name) is not None:
            row.doc[name] = given[name]
    ARCHIVE.change(tx, row, a.operation.name, a.request.id)
    return {"ArchiveArn": ARCHIVE.arn(a.account, a.region, row.name), "State": row.status, "CreationTime": row.created}


def _shown(view: View, row: Row) -> Output:
    held = view.get(COUNT, row.account, row.region, row.name)
    counts = held.doc if held is not None else {"events": 0, "bytes": 0}
    return {
        "ArchiveName": row.name, "EventSourceArn": row.doc["EventSourceArn"], "State": row.status,
        "RetentionDays": row.doc["RetentionDays"], "SizeBytes": counts["bytes"], "EventCount": counts["events"],
        "CreationTime": row.created,
    }  # fmt: skip


@ARCHIVE.reads("DescribeArchive", asks=[Ask("events:DescribeArchive", ARCHIVE.this)])
def describe(a: Authorised, view: View) -> Output:
    row = ARCHIVE.named(a, view)
    more: Output = {name: row.doc[name] for name in ("Description", "EventPattern") if name in row.doc}
    return {**_shown(view, row), **more, "ArchiveArn": ARCHIVE.arn(row.account, row.region, row.name)}


@ARCHIVE.reads("ListArchives", asks=[Ask("events:ListArchives", anything)])
def listed(a: Authorised, view: View) -> Output:
    given, limit = a.input, int(a.input.get("Limit") or _PAGE)
    after = pages.position(a, given.get("NextToken"))
    rows = view.scan(
        ARCHIVE.key, a.account, a.region, prefix=given.get("NamePrefix") or "", after=after, limit=limit + 1
    )
    wanted = [
        row
        for row in rows[:limit]
        if given.get("EventSourceArn") in (None, row.doc["EventSourceArn"]) and given.get("State") in (None, row.status)
    ]
    output: Output = {"Archives": [_shown(view, row) for row in wanted]}
    if len(rows) > limit:
        output["NextToken"] = pages.seal(a, rows[limit - 1].name)
    return output


@ARCHIVE.operation("DeleteArchive", asks=[Ask("events:DeleteArchive", ARCHIVE.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = ARCHIVE.named(a, tx)
    for kind, account, region, name in (
        (COUNT, row.account, row.region, row.name),
        (INDEX, "", "", ARCHIVE.arn(row.account, row.region, row.name)),
    ):
        held = tx.get(kind, account, region, name)
        if held is not None:
            tx.delete(held, keep=False)
    while rows := tx.scan(KEPT, row.account, row.region, prefix=f"{row.name}/", limit=500):
        for one in rows:
            tx.delete(one, keep=False)
    ARCHIVE.remove(tx, row, a.operation.name, a.request.id)
    return {}


# -- keeping -----------------------------------------------------------------------------------------------------------


@lru_cache(1024)
def _compiled(text: str) -> Pattern:
    return Pattern(text)


def wanting(view: View, bus: Arn, event: dict[str, Any]) -> list[Row]:
    """The archives of a bus that keep an event. What is replayed is not kept again."""
    if "replay-name" in event:
        return []

    def load() -> list[Row]:
        rows = view.scan(ARCHIVE.key, bus.account, bus.region, limit=_MOST)
        return [row for row in rows if row.doc["EventSourceArn"] == str(bus)]

    where = ("events:archives", bus.account, bus.region, bus.resource)
    rows = view.memo(where, ((ARCHIVE.key, bus.account),), load)
    return [row for row in rows if not row.doc.get("EventPattern") or _compiled(row.doc["EventPattern"]).matches(event)]


def moment(event: dict[str, Any]) -> Instant:
    """When an event happened."""
    return int(datetime.fromisoformat(str(event["time"]).replace("Z", "+00:00")).timestamp() * MICROS)


def keep(calls: Calls, tx: Transaction, archives: Sequence[Row], event: dict[str, Any]) -> None:
    """Keeps an event in archives."""
    raw = orjson.dumps(event)
    for one in archives:
        name = f"{one.name}/{moment(event):016x}/{event['id']}"
        held = tx.get(COUNT, one.account, one.region, one.name)
        if held is None:
            continue  # it was deleted meanwhile
        try:
            tx.insert(Row(KEPT, one.account, one.region, name, {"x": calls.sealer.seal(raw, PURPOSE)}), keep=False)
        except Taken:
            continue  # told twice
        held.doc = {"events": held.doc["events"] + 1, "bytes": held.doc["bytes"] + len(raw)}
        tx.update(held, keep=False)


def end(calls: Calls, tx: Transaction, arn: Arn, limit: int = 500) -> bool:
    """Takes away what an archive need not keep any longer; whether there may be more."""
    row = ARCHIVE.get(tx, arn.account, arn.region, arn.name)
    held = tx.get(COUNT, arn.account, arn.region, arn.name)
    if row is None or held is None or not row.doc["RetentionDays"]:
        return False
    edge = f"{row.name}/{tx.now - row.doc['RetentionDays'] * _DAY:016x}"
    gone = [
        one for one in tx.scan(KEPT, row.account, row.region, prefix=f"{row.name}/", limit=limit) if one.name < edge
    ]
    for one in gone:
        size = len(calls.sealer.open(one.doc["x"], PURPOSE))
        held.doc = {"events": held.doc["events"] - 1, "bytes": held.doc["bytes"] - size}
        tx.delete(one, keep=False)
    if gone:
        tx.update(held, keep=False)
    return len(gone) == limit

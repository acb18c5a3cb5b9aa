"""Data events become events for rules: each once, however many trails select it, and wherever those deliver to.

Source: EventBridge User Guide, "AWS service events delivered via AWS CloudTrail": a trail that logs them is required.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from bastide.domain import Arn
from bastide.kernel import Calls
from bastide.kernel.happened import EVENTS, of_record
from bastide.services.cloudtrail.selection import Selection
from bastide.services.cloudtrail.trail import INDEX, TRAIL
from bastide.store import Row, Transaction

_CURSOR: Final = "cloudtrail:Told"
_BATCH: Final = 500
_SOURCELESS: Final = ("Get", "List", "Describe", "Head")
"""Data events that only read are no events for rules."""


class Telling:
    """How far the record has been told. The cursor moves in the transaction that tells."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._seen = -1

    async def round(self) -> None:
        """Tells what is new."""
        while await self._next():
            pass

    async def _next(self) -> bool:
        """The next batch; whether there may be more."""
        with self._calls.store.reading() as view:
            rows = [TRAIL.get(view, *_place(one.name)) for one in view.scan(INDEX, "", "", limit=10_000)]
            trails = [row for row in rows if row is not None and "StartLoggingTime" in row.doc]
            if not trails:
                return False
            if self._seen < 0:
                held = view.get(_CURSOR, "", "", "cursor")
                # What trails delivered before there was a cursor, they told.
                self._seen = max(row.doc["Cursor"] for row in trails) if held is None else held.doc["Cursor"]
            events = view.events_after(self._seen, limit=_BATCH)
        if not events:
            return False
        selections = [
            Selection(self._calls, Arn.parse(TRAIL.arn(row.account, row.region, row.name)), row.doc) for row in trails
        ]
        found: list[dict[str, Any]] = []
        for event in events:
            if event.category == "Data" and not event.name.startswith(_SOURCELESS):
                record = orjson.loads(event.body)
                if any(one.takes(event, record) for one in selections):
                    found.append(record)
        if found or len(events) == _BATCH:
            await self._calls.store.write(lambda tx: _told(tx, events[-1].seq, found))
        self._seen = events[-1].seq
        return len(events) == _BATCH


def _place(arn: str) -> tuple[str, str, str]:
    trail = Arn.parse(arn)
    return trail.account, trail.region, trail.name


def _told(tx: Transaction, cursor: int, found: list[dict[str, Any]]) -> None:
    held = tx.get(_CURSOR, "", "", "cursor")
    if held is None:
        tx.insert(Row(_CURSOR, "", "", "cursor", {"Cursor": cursor}), keep=False)
    else:
        held.doc["Cursor"] = cursor
        tx.update(held, keep=False)
    for record in found:
        tx.emit(EVENTS, of_record(record))

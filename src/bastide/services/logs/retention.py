"""Lines go when their group's time is over: from answers at once, from the disk within the hour.

Source: CloudWatch Logs API Reference, PutRetentionPolicy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from bastide.domain import MICROS, Arn, Instant, Refused
from bastide.kernel import Ask, Authorised, Calls, Output
from bastide.services.logs.group import LOG_GROUP, this
from bastide.services.logs.stream import LOG_STREAM
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.logs")
_DAYS: Final = (
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
)  # fmt: skip
INDEX: Final = "logs:RetentionIndex"
"""Under account "": ARNs of the groups that have a retention."""
_HOUR: Final = 3600 * MICROS
_LOOK_SECONDS: Final = 1.0
_AT_ONCE: Final = 2000


def oldest(row: Row, now: Instant) -> Instant:
    """The time before which a group's lines are no longer there."""
    days = row.doc.get("retentionInDays")
    return now - days * 24 * _HOUR if days else 0


def _index(tx: Transaction, row: Row, wanted: bool) -> None:
    arn = LOG_GROUP.arn(row.account, row.region, row.name)
    held = tx.get(INDEX, "", "", arn)
    if wanted and held is None:
        tx.insert(Row(INDEX, "", "", arn, {}), keep=False)
    elif not wanted and held is not None:
        tx.delete(held, keep=False)


@LOG_GROUP.operation("PutRetentionPolicy", asks=[Ask("logs:PutRetentionPolicy", this)])
def put(a: Authorised, tx: Transaction) -> Output:
    row = LOG_GROUP.named(a, tx)
    days = a.input["retentionInDays"]
    if days not in _DAYS:
        raise Refused("InvalidParameterException", f"retentionInDays is one of {', '.join(map(str, _DAYS))}.")
    row.doc["retentionInDays"] = days
    LOG_GROUP.change(tx, row, a.operation.name, a.request.id)
    _index(tx, row, True)
    return {}


@LOG_GROUP.operation("DeleteRetentionPolicy", asks=[Ask("logs:DeleteRetentionPolicy", this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = LOG_GROUP.named(a, tx)
    row.doc.pop("retentionInDays", None)
    LOG_GROUP.change(tx, row, a.operation.name, a.request.id)
    _index(tx, row, False)
    return {}


class Retention:
    """The loop that removes, an hour after its last round by the platform's clock."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._task: asyncio.Task[None] | None = None
        self._last: Instant | None = None

    def start(self) -> None:
        """Removes from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stops; what is due is so at the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = self._calls.clock()
            if self._last is None or not self._last <= now < self._last + _HOUR:
                self._last = now
                await self._round()

    async def _round(self) -> None:
        after: str | None = None
        while True:
            with self._calls.store.reading() as view:
                names = [row.name for row in view.scan(INDEX, "", "", after=after, limit=500)]
            for name in names:
                try:
                    await self._group(Arn.parse(name))
                except Exception:
                    _log.exception("old lines of %s could not be removed", name)
            if len(names) < 500:
                return
            after = names[-1]

    async def _group(self, arn: Arn) -> None:
        group = arn.resource.removeprefix("log-group:")
        with self._calls.store.reading() as view:
            row = LOG_GROUP.get(view, arn.account, arn.region, group)
        if row is None:

            def forget(tx: Transaction) -> None:
                held = tx.get(INDEX, "", "", str(arn))
                if held is not None:
                    tx.delete(held, keep=False)

            await self._calls.store.write(forget)
            return
        before, after = oldest(row, self._calls.clock()), ""
        while True:
            with self._calls.store.reading() as view:
                prefix = f"{group}:log-stream:"
                streams = view.scan(
                    LOG_STREAM.key, arn.account, arn.region, prefix=prefix, after=after or None, limit=200
                )
            for stream in streams:
                while await self._calls.store.write(
                    lambda tx, lines=stream.doc["lines"]: tx.expire_log(lines, before, _AT_ONCE)  # type: ignore[misc]
                ):
                    await asyncio.sleep(0)
            if len(streams) < 200:
                return
            after = streams[-1].name

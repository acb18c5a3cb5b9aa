"""Lines go when their group's time is over: from answers at once, from the disk within the hour.

Source: CloudWatch Logs API Reference, PutRetentionPolicy.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from bastide.domain import MICROS, Arn, Instant, Refused
from bastide.kernel import Ask, Authorised, Output, Rounds
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


class Retention(Rounds):
    """The loop that removes, an hour after its last round by the platform's clock."""

    every = _HOUR

    async def round(self) -> None:
        """See the base."""
        await self.each(INDEX, self._group)

    async def _group(self, name: str) -> None:
        arn = Arn.parse(name)
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

"""What time does to queues: messages end, emptied queues are swept, move tasks go on, fullness is measured."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from bastide.domain import MICROS, Arn
from bastide.engines.telemetry import Meter
from bastide.kernel import Calls
from bastide.services.sqs.moving import go_on
from bastide.services.sqs.queue import INDEX, QUEUE, attribute
from bastide.services.sqs.standing import DEDUPLICATION, GARBAGE, KINDS, MESSAGE, place_of, standing
from bastide.services.sqs.waiting import Queues
from bastide.store import Row, Transaction, View

_log = logging.getLogger("bastide.sqs")
_ROUND: Final = 60
_AT_A_TIME: Final = 500
_REMEMBERED: Final = 300 * MICROS


class Upkeep:
    """Looks after all queues."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Ends; what is to be done waits for the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        seconds = 0
        while True:
            await asyncio.sleep(1.0)
            try:
                await go_on(self._calls)
                if seconds % _ROUND == 0:
                    await self._sweep()
                    await self._end()
                    self._measure()
            except Exception:
                _log.exception("queues could not be looked after")
            seconds += 1

    async def _sweep(self) -> None:
        """Takes away what stood in queues that were emptied or removed."""
        with self._calls.store.reading() as view:
            gone = view.scan(GARBAGE, "", "", limit=100)

        def work(tx: Transaction, row: Row) -> bool:
            left = _AT_A_TIME
            for kind in KINDS:
                rows = tx.scan(f"{kind}{row.name}", row.doc["account"], row.doc["region"], limit=left)
                for one in rows:
                    tx.delete(one, keep=False)
                left -= len(rows)
                if left <= 0:
                    return True
            held = tx.get(GARBAGE, "", "", row.name)
            if held is not None:
                tx.delete(held, keep=False)
            return False

        for row in gone:
            while await self._calls.store.write(lambda tx, row=row: work(tx, row)):  # type: ignore[misc]
                await asyncio.sleep(0.01)

    async def _end(self) -> None:
        """Ends messages whose time of retention is over, and forgets tokens of deduplication."""
        after: str | None = None
        while True:
            with self._calls.store.reading() as view:
                rows = view.scan(INDEX, "", "", after=after, limit=_AT_A_TIME)
                due = [row.name for row in rows if self._ended(row.name)]
            for name in due:
                while await self._calls.store.write(lambda tx, name=name: self._ended(name, tx)):  # type: ignore[misc]
                    await asyncio.sleep(0.01)
            if len(rows) < _AT_A_TIME:
                return
            after = rows[-1].name

    def _ended(self, name: str, tx: Transaction | None = None) -> bool:
        """Whether something of a queue has come to its end; in a transaction it goes, as much as goes at a time."""
        arn = Arn.parse(name)
        with contextlib.ExitStack() as stack:
            view: View = tx if tx is not None else stack.enter_context(self._calls.store.reading())
            queue = QUEUE.get(view, arn.account, arn.region, arn.resource)
            if queue is None:
                return False
            now, at = self._calls.clock(), place_of(queue)
            limit = _AT_A_TIME if tx is not None else 1
            ends = now - int(attribute(queue, "MessageRetentionPeriod")) * MICROS
            found = False
            for kind, before in ((MESSAGE, ends), (DEDUPLICATION, now - _REMEMBERED)):
                rows = view.scan(
                    f"{kind}{at.id}", at.account, at.region, order="created", created_to=before, limit=limit
                )
                found = found or bool(rows)
                if tx is None:
                    continue
                for row in rows:
                    if kind == MESSAGE:
                        standing(tx, queue).drop(row)
                    else:
                        tx.delete(row, keep=False)
            return found

    def _measure(self) -> None:
        queues = self._calls.engine(Queues)
        active, queues.active = queues.active, set()
        meter, now = self._calls.engine(Meter), self._calls.clock()
        with self._calls.store.reading() as view:
            for name in active:
                arn = Arn.parse(name)
                queue = QUEUE.get(view, arn.account, arn.region, arn.resource)
                if queue is None:
                    continue
                counts, at = standing(view, queue).counts(now), place_of(queue)
                values = {
                    "ApproximateNumberOfMessagesVisible": counts["visible"],
                    "ApproximateNumberOfMessagesNotVisible": counts["hidden"],
                    "ApproximateNumberOfMessagesDelayed": counts["delayed"],
                }
                oldest = view.scan(f"{MESSAGE}{at.id}", at.account, at.region, order="created", limit=1)
                if any(counts.values()):
                    queues.active.add(name)
                age = (now - oldest[0].created) / MICROS if oldest else 0.0
                told = [(key, float(value), "Count") for key, value in values.items()]
                for metric, value, unit in (*told, ("ApproximateAgeOfOldestMessage", age, "Seconds")):
                    meter.record(arn.account, arn.region, "AWS/SQS", (("QueueName", queue.name),), metric, value, unit)

"""What time does to queues: messages end, emptied queues are swept, move tasks go on, fullness is measured."""

from __future__ import annotations

import contextlib
from typing import Final

from bastide.domain import MICROS, Arn
from bastide.engines.telemetry import Meter
from bastide.kernel import Calls, Rounds
from bastide.services.sqs.moving import go_on
from bastide.services.sqs.queue import INDEX, QUEUE, attribute
from bastide.services.sqs.standing import DEDUPLICATION, GARBAGE, KINDS, MESSAGE, place_of, standing
from bastide.services.sqs.waiting import Queues
from bastide.store import Transaction, View

_ROUND: Final = 60
_AT_A_TIME: Final = 500
_REMEMBERED: Final = 300 * MICROS


class Upkeep(Rounds):
    """Looks after all queues."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls)
        self._rounds = 0

    async def round(self) -> None:
        """See the base."""
        await go_on(self._calls)
        if self._rounds % _ROUND == 0:
            await self.each(GARBAGE, self._sweep)
            await self.each(INDEX, self._end)
            self._measure()
        self._rounds += 1

    async def _sweep(self, name: str) -> bool:
        """Takes away what stood in a queue that was emptied or removed; whether there is more."""

        def work(tx: Transaction) -> bool:
            row = tx.get(GARBAGE, "", "", name)
            if row is None:
                return False
            left = _AT_A_TIME
            for kind in KINDS:
                rows = tx.scan(f"{kind}{name}", row.doc["account"], row.doc["region"], limit=left)
                for one in rows:
                    tx.delete(one, keep=False)
                left -= len(rows)
                if left <= 0:
                    return True
            tx.delete(row, keep=False)
            return False

        return await self._calls.store.write(work)

    async def _end(self, name: str) -> bool:
        """Ends messages whose time of retention is over, and forgets tokens of deduplication; whether there were any."""
        return self._ended(name) and await self._calls.store.write(lambda tx: self._ended(name, tx))

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

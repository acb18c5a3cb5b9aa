"""Events leave after the commit: whoever subscribed to a topic is told, in order, at least once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from bastide.store import Store, Transaction

Subscriber = Callable[[dict[str, Any]], Awaitable[None]]
Many = Callable[[list[dict[str, Any]]], Awaitable[None]]

_log = logging.getLogger("bastide.outbox")
_MOST_TOLD = 500
_PAUSE_SECONDS = 0.2


class Outbox:
    """Reads the store's outbox and tells subscribers. A subscriber must bear being told twice, and must be quick."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._subscribers: dict[str, list[Subscriber]] = {}
        self._many: dict[str, list[Many]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._told = 0
        self._trimmed = 0

    def subscribe(self, topic: str, subscriber: Subscriber) -> None:
        """Tells `subscriber` every event of the topic (a kind's key) from now on."""
        self._subscribers.setdefault(topic, []).append(subscriber)

    def subscribe_many(self, topic: str, subscriber: Many) -> None:
        """The same for one that is told what there is at a time, in order, in one call."""
        self._many.setdefault(topic, []).append(subscriber)

    def wake(self) -> None:
        """Something was committed."""
        self._wake.set()

    def start(self) -> None:
        """Begins telling, with what an earlier run left untold."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                if await self._tell():
                    if self._told - self._trimmed >= _MOST_TOLD:
                        await self._trim()
                    continue
                if self._told > self._trimmed:
                    # Forgetting costs a commit, so it waits until there is a pause or enough to forget. What a crash
                    # finds untrimmed is told again, which subscribers bear.
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), _PAUSE_SECONDS)
                        continue
                    await self._trim()
            except Exception:
                _log.exception("events of the outbox wait: they could not be told")
                await asyncio.sleep(1)
                continue
            await self._wake.wait()

    async def _tell(self) -> bool:
        with self._store.reading() as view:
            events = view.outbox(self._told)
        together: dict[Many, list[dict[str, Any]]] = {}
        for _, topic, body in events:
            for subscriber in self._subscribers.get(topic, ()):
                await subscriber(body)
            for many in self._many.get(topic, ()):
                together.setdefault(many, []).append(body)
        for many, bodies in together.items():
            await many(bodies)
        if events:
            self._told = events[-1][0]
        return bool(events)

    async def _trim(self) -> None:
        def work(tx: Transaction) -> None:
            tx.trim_outbox(self._told)
            # An empty table numbers from one again.
            self._told = self._trimmed = self._told if tx.outbox(0, limit=1) else 0

        await self._store.write(work)

    async def close(self) -> None:
        """Stops telling; what is left waits for the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            if self._told > self._trimmed:
                await self._trim()

"""Events leave after the commit: whoever subscribed to a topic is told, in order, at least once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from bastide.store import Store

Subscriber = Callable[[dict[str, Any]], Awaitable[None]]

_log = logging.getLogger("bastide.outbox")


class Outbox:
    """Reads the store's outbox and tells subscribers. A subscriber must bear being told twice, and must be quick."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._subscribers: dict[str, list[Subscriber]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def subscribe(self, topic: str, subscriber: Subscriber) -> None:
        """Tells `subscriber` every event of the topic (a kind's key) from now on."""
        self._subscribers.setdefault(topic, []).append(subscriber)

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
                told = await self._tell()
            except Exception:
                _log.exception("events of the outbox wait: they could not be told")
                await asyncio.sleep(1)
                continue
            if not told:
                await self._wake.wait()

    async def _tell(self) -> bool:
        with self._store.reading() as view:
            events = view.outbox(0)
        if not events:
            return False
        for _, topic, body in events:
            for subscriber in self._subscribers.get(topic, ()):
                await subscriber(body)
        last = events[-1][0]
        await self._store.write(lambda tx: tx.trim_outbox(last))
        return True

    async def close(self) -> None:
        """Stops telling; what is left waits for the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

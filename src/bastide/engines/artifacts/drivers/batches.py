"""Work of one kind from many callers, done together in one thread: whoever comes while it is busy shares the next turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Generic, TypeVar

_T = TypeVar("_T")

MOST = 64
"""Items a turn."""


class Batches(Generic[_T]):
    """`work` takes a list of items and returns for each what went wrong, or None."""

    def __init__(self, work: Callable[[list[_T]], list[OSError | None]], threads: Executor) -> None:
        self._work = work
        self._threads = threads
        self._items: list[tuple[_T, asyncio.Future[None]]] = []
        self._lock = threading.Lock()
        self._busy = False

    def add(self, item: _T) -> asyncio.Future[None]:
        """Done when the item is; raises what `work` says of it. Belongs to the running loop."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._items.append((item, ended))
            start, self._busy = not self._busy, True
        if start:
            self._threads.submit(self._turns)
        return ended

    def _turns(self) -> None:
        while True:
            with self._lock:
                turn, self._items = self._items[:MOST], self._items[MOST:]
                if not turn:
                    self._busy = False
                    return
            try:
                ended = self._work([item for item, _ in turn])
            except Exception as error:
                ended = [OSError(f"the batch was not written: {type(error).__name__}")] * len(turn)
            loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[None], OSError | None]]] = {}
            for (_, future), wrong in zip(turn, ended, strict=True):
                loops.setdefault(future.get_loop(), []).append((future, wrong))
            for loop, settled in loops.items():
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_settle, settled)


def _settle(settled: list[tuple[asyncio.Future[None], OSError | None]]) -> None:
    for future, wrong in settled:
        if future.done():
            continue
        if wrong is None:
            future.set_result(None)
        else:
            future.set_exception(wrong)

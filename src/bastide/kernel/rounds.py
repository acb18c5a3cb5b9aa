"""What a service does by itself: round after round, whatever one of them meets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from bastide.domain import Instant
from bastide.kernel.calls import Calls

_PAUSE: Final = 0.01
_log = logging.getLogger("bastide.rounds")


class Rounds(ABC):
    """Base of those. A round that fails is told in the log, and the next one comes as if it had not."""

    seconds: float = 1.0
    """Between looks whether a round is due."""
    every: int = 0
    """After how many microseconds of the platform's clock one is; also when the clock was set back."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._running: asyncio.Task[None] | None = None
        self.last: Instant | None = None
        """When the last round began."""

    @abstractmethod
    async def round(self) -> None:
        """One round."""

    def start(self) -> None:
        """From now on, first with what an earlier run left."""
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Ends; what is still to be done is so after the next start."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self.seconds)
            now = self._calls.clock()
            if self.last is not None and self.last <= now < self.last + self.every:
                continue
            self.last = now
            try:
                await self.round()
            except Exception:
                _log.exception("a round of %s failed; the next one comes", type(self).__name__)

    def names(self, kind: str, page: int = 500) -> Iterator[str]:
        """Of all rows of a kind that stands under account "", read by the page."""
        after: str | None = None
        while True:
            with self._calls.store.reading() as view:
                found = [row.name for row in view.scan(kind, "", "", after=after, limit=page)]
            yield from found
            if len(found) < page:
                return
            after = found[-1]

    async def each(self, kind: str, work: Callable[[str], Awaitable[bool | None]]) -> None:
        """Each of them by itself, so that none keeps the others waiting; `work` says whether it has more to do now."""
        for name in self.names(kind):
            try:
                while await work(name):
                    await asyncio.sleep(_PAUSE)
            except Exception:
                _log.exception("%s failed at %s; the others go on", type(self).__name__, name)

"""Who waits for messages: long polls, told when something comes into their queue."""

from __future__ import annotations

import asyncio

from bastide.services.sqs.content import Seals


class Queues:
    """What queues have in memory, behind which nothing is lost: waiting receivers, data keys, names in use."""

    def __init__(self) -> None:
        self.seals = Seals()
        self.active: set[str] = set()
        """ARNs of queues that were used since the last round of measuring."""
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def told(self, queue: str) -> None:
        """Something came into a queue (ARN)."""
        for one in self._waiting.get(queue, ()):
            one.set()

    async def wait(self, queue: str, seconds: float) -> None:
        """Returns when something came into a queue (ARN), or after that time."""
        event = asyncio.Event()
        held = self._waiting.setdefault(queue, set())
        held.add(event)
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            pass
        finally:
            held.discard(event)
            if not held and self._waiting.get(queue) is held:
                del self._waiting[queue]

"""Who waits for something in this process is woken when it may have come; nobody relies on it for more than being early."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


class Listener:
    """Woken by its keys."""

    def __init__(self, bells: Bells) -> None:
        self._bells = bells
        self._event = asyncio.Event()
        self._keys: set[str] = set()

    def hear(self, *keys: str) -> None:
        """Listens for these, too."""
        for key in keys:
            self._keys.add(key)
            self._bells.held.setdefault(key, set()).add(self)

    def clear(self) -> None:
        """What rang until now was seen: looked at next."""
        self._event.clear()

    async def wait(self, seconds: float) -> None:
        """Until something rings, or some time went by."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)

    def ring(self) -> None:
        """Wakes it."""
        self._event.set()

    def close(self) -> None:
        """Listens no more."""
        for key in self._keys:
            held = self._bells.held.get(key)
            if held is not None:
                held.discard(self)
                if not held:
                    del self._bells.held[key]


class Bells:
    """By key: a pipeline's ARN, or the name of what an action began elsewhere."""

    def __init__(self) -> None:
        self.held: dict[str, set[Listener]] = {}

    def ring(self, key: str) -> None:
        """Something about that may have changed."""
        for one in list(self.held.get(key, ())):
            one.ring()

    @contextlib.contextmanager
    def listening(self, *keys: str) -> Iterator[Listener]:
        """A listener, for as long as it is needed."""
        listener = Listener(self)
        listener.hear(*keys)
        try:
            yield listener
        finally:
            listener.close()

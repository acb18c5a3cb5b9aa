"""A platform in this process, whose clock a test moves and whose outbox it reads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from bastide.domain import MICROS, Instant, wall
from bastide.engines.mail import Mail
from bastide.frontdoor import Listener
from bastide.kernel.happened import EVENTS
from bastide.main.compose import Platform
from bastide.main.run import Doors, _bind, _configured, _Protocol, _server
from bastide.store import View
from bastide.store.directory import DataDirectory
from tests.platform import Running, initialise
from tests.waiting import until  # noqa: F401 - stories that move the clock take it from here

T = TypeVar("T")


class Moved(Running):
    """Composed as `bastide up` composes it, behind a plain listener, with a clock that `days_later` moves.

    Nothing may be called while it is moved: signatures are held against the same clock. What runs by the hour runs once an
    hour of this clock, so tests move it to days of their own.
    """

    ahead: Instant = 0
    mail: Mail | None = None
    told: list[dict[str, Any]]

    def clock(self) -> Instant:
        """The machine's time, moved."""
        return wall() + self.ahead

    @contextmanager
    def days_later(self, days: float) -> Iterator[None]:
        """Moves the clock; what stands inside waits for what the platform does by itself."""
        self.ahead = int(days * 86400 * MICROS)
        # A round of the hour that an earlier test saw at the same distance is not this one's.
        self.running.expiry.last = self.running.retention.last = None
        try:
            yield
        finally:
            self.ahead = 0

    def start(self, **_: str) -> None:
        """Makes the platform if there is none, and runs it in a thread."""
        if not (self.data / "bastide.json").exists():
            initialise(self.data)
        self.told = []
        ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self.thread.start()
        assert ready.wait(30)

    async def _serve(self, ready: threading.Event) -> None:
        self.loop, self.over = asyncio.get_running_loop(), asyncio.Event()
        bound = _bind(("127.0.0.1", 0))
        self.url = self.http = f"http://127.0.0.1:{bound.getsockname()[1]}"
        directory = DataDirectory(self.data)
        self.running = await Platform.start(directory, self.url, mail=self.mail, clock=self.clock)

        async def hear(event: dict[str, Any]) -> None:
            self.told.append(event)

        for topic in ("s3:Notification", EVENTS):
            self.running.outbox.subscribe(topic, hear)
        door = self.running.door()
        servers = [
            _server(door.at(Listener("public", True)), directory),
            _server(door.at(Listener("plain", False)), None),
        ]
        sockets = [_bind(("127.0.0.1", 0)), bound]
        serving = [asyncio.create_task(one.serve(sockets=[at])) for one, at in zip(servers, sockets, strict=True)]
        while not all(one.started for one in servers):
            await asyncio.sleep(0.005)
        await self.running.open_networks(Doors(door, directory, servers[0], _Protocol, _configured))
        ready.set()
        await self.over.wait()
        for one in servers:
            one.should_exit = True
        await asyncio.gather(*serving)
        await self.running.close()

    def client(self, service: str, *given: Any, **more: Any) -> Any:
        """A boto3 client at the plain listener."""
        return super().client(service, *given, **{"plain": True, **more})

    def look(self, at: Callable[[View], T]) -> T:
        """What is in the store, seen from the platform's own thread: its reader is no other's."""

        async def looked() -> T:
            with self.running.store.reading() as view:
                return at(view)

        return asyncio.run_coroutine_threadsafe(looked(), self.loop).result(30)

    def stop(self) -> None:
        """Ends it as a SIGTERM would."""
        self.loop.call_soon_threadsafe(self.over.set)
        self.thread.join(30)
        assert not self.thread.is_alive()

    def events(self) -> list[dict[str, Any]]:
        """What was told to the outbox so far."""
        time.sleep(0.2)
        return list(self.told)


def moved(place: Path) -> Iterator[Moved]:
    """One, for a fixture."""
    platform = Moved(place / "data")
    platform.start()
    yield platform
    platform.stop()

"""Servers under supervision, and the choice between them."""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bastide.engines.serving.client import Answer, Client, Lost

_log = logging.getLogger("bastide.serving")

_PING_SECONDS: Final = 2.0
_GRACE: Final = 30.0
_LONGEST_BACK_OFF: Final = 60.0
_MOST_ANSWER: Final = 25 << 20
_SOCKET_BYTES = 64 * 1024


class Unhealthy(Exception):  # noqa: N818
    """A server did not come up; `variant` says whose."""

    def __init__(self, variant: str, why: str) -> None:
        super().__init__(f"{variant}: {why}")
        self.variant = variant
        self.why = why


class NotReady(Exception):  # noqa: N818
    """There is no such variant (missing), or none of its servers is up."""

    def __init__(self, missing: bool) -> None:
        super().__init__("missing" if missing else "not ready")
        self.missing = missing


class Process(Protocol):
    """A started server."""

    async def wait(self) -> object:
        """Until it is gone."""
        ...

    async def stop(self, grace: float) -> None:
        """Asks it to end, and ends it after `grace` seconds."""
        ...


@dataclass(slots=True)
class Instance:
    """A server as it is deployed. launch: starts it, also again. socket: where it will listen. close: frees what it used,
    after its last end."""

    launch: Callable[[], Awaitable[Process]]
    socket: Path
    close: Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Variant:
    """Servers of the same model. weight: its share of calls."""

    name: str
    weight: float
    instances: Sequence[Instance]


class _Server:
    def __init__(self, variant: str, instance: Instance, healthy_seconds: float) -> None:
        self.variant = variant
        self.instance = instance
        self.client = Client(instance.socket, _MOST_ANSWER)
        self.ready = False
        self.flying = 0
        self._seconds = healthy_seconds
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Until it is well for the first time; raises Unhealthy. From then on it is supervised."""
        await self._begin()
        self._task = asyncio.get_running_loop().create_task(self._supervise(), name=f"server {self.instance.socket}")

    async def _begin(self) -> None:
        self._process = await self.instance.launch()
        ended = asyncio.ensure_future(self._process.wait())
        try:
            async with asyncio.timeout(self._seconds):
                pause = 0.01
                while not await self._well():
                    if ended.done():
                        raise Unhealthy(self.variant, "its server ended before it answered")
                    await asyncio.wait({ended}, timeout=pause)
                    pause = min(pause * 1.5, 0.25)
        except TimeoutError:
            raise Unhealthy(self.variant, f"its server was not well within {self._seconds:.0f} s") from None
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    async def _well(self) -> bool:
        try:
            answer = await self.client.request("GET", "/ping", (), b"", seconds=_PING_SECONDS)
        except (Lost, TimeoutError):
            return False
        self.ready = answer.status == 200
        return self.ready

    async def _supervise(self) -> None:
        back_off = 1.0
        loop = asyncio.get_running_loop()
        while True:
            assert self._process is not None
            began = loop.time()
            await self._process.wait()
            self.ready = False
            self.client.close()
            if loop.time() - began > _LONGEST_BACK_OFF:
                back_off = 1.0
            _log.warning("a server of %s ended; it is started again in %.0f s", self.variant, back_off)
            while True:
                await asyncio.sleep(back_off)
                back_off = min(back_off * 2, _LONGEST_BACK_OFF)
                try:
                    await self._begin()
                    break
                except Exception as error:
                    _log.warning("a server of %s did not come up again: %s", self.variant, error)
                    if self._process is not None:
                        await self._process.stop(0)

    async def close(self, grace: float) -> None:
        self.ready = False
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.client.close()
        process, self._process = self._process, None
        if process is not None:
            await process.stop(grace)
        await self.instance.close()


class _Fleet:
    def __init__(self, owner: str, variants: Sequence[Variant], healthy_seconds: float) -> None:
        self.owner = owner
        self.weights = {one.name: one.weight for one in variants}
        self.servers = {
            one.name: [_Server(one.name, instance, healthy_seconds) for instance in one.instances] for one in variants
        }

    def every(self) -> Iterable[_Server]:
        return (server for servers in self.servers.values() for server in servers)

    async def start(self) -> None:
        tasks = [asyncio.ensure_future(server.start()) for server in self.every()]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.close(0)
            raise

    async def close(self, grace: float) -> None:
        await asyncio.gather(*(server.close(grace) for server in self.every()), return_exceptions=True)


def _release(folder: Path) -> None:
    """Removes a socket's folder, its file system first."""
    if folder.is_mount():
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)


class Serving:
    """What answers invocations, by key (an endpoint's ARN)."""

    def __init__(self, folder: Path) -> None:
        """folder: for sockets; of this platform alone, emptied at the start, made if missing (0700)."""
        self._folder = folder
        self._clear()
        folder.mkdir(parents=True, mode=0o700)
        self._fleets: dict[str, _Fleet] = {}
        self.told: Callable[[str, str, int, int, float], None] | None = None
        """Is told of each call that is over: key, variant, its servers, status (0: no answer), seconds."""
        self._leaving: set[asyncio.Task[None]] = set()

    def place(self, name: str) -> Path:
        """A new folder for a server's socket: a little file system of its own, since the server may write to it, and must
        not fill the machine's disk with it. Raises OSError if it cannot be mounted."""
        folder = self._folder / name
        _release(folder)
        folder.mkdir(mode=0o700)
        options = f"size={_SOCKET_BYTES},nr_inodes=16,mode=0700,nosuid,nodev,noexec"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "bastide", str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise OSError(f"the folder of a model server's socket could not be mounted: {done.stderr.strip()}")
        return folder

    def _clear(self) -> None:
        if self._folder.exists():
            for folder in self._folder.iterdir():
                _release(folder)
        shutil.rmtree(self._folder, ignore_errors=True)

    def release(self, name: str) -> None:
        """Removes the folder of a server that has ended."""
        _release(self._folder / name)

    async def deploy(
        self, key: str, owner: str, variants: Sequence[Variant], *, healthy_seconds: float = 240.0
    ) -> None:
        """Starts servers, and when all are well they answer for `key` instead of those that did. owner: whose they are, for
        `remove`. Raises Unhealthy, and whatever `launch` raises, when nothing of them is left and who answered still does.
        """
        fleet = _Fleet(owner, variants, healthy_seconds)
        await fleet.start()
        earlier = self._fleets.get(key)
        self._fleets[key] = fleet
        if earlier is not None:
            # Calls that are being answered are answered to their end; nobody waits for that.
            task = asyncio.get_running_loop().create_task(earlier.close(_GRACE))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def remove(self, key: str, owner: str, *, grace: float = _GRACE) -> None:
        """Ends the owner's servers, unless others answer for `key` by now."""
        fleet = self._fleets.get(key)
        if fleet is not None and fleet.owner == owner:
            del self._fleets[key]
            await fleet.close(grace)

    def ready(self, key: str) -> bool:
        """Whether anything answers for `key`."""
        fleet = self._fleets.get(key)
        return fleet is not None and any(server.ready for server in fleet.every())

    async def invoke(
        self, key: str, variant: str | None, headers: Iterable[tuple[str, str]], body: bytes, *, seconds: float = 60.0
    ) -> tuple[Answer, str]:
        """The answer of a server and its variant's name; raises NotReady, Lost and TimeoutError."""
        fleet = self._fleets.get(key)
        if fleet is None:
            raise NotReady(False)
        if variant is None:
            names = list(fleet.weights)
            if len(names) == 1:
                variant = names[0]
            else:
                weights = list(fleet.weights.values())
                variant = random.choices(names, weights)[0] if any(weights) else random.choice(names)  # noqa: S311
        elif variant not in fleet.servers:
            raise NotReady(True)
        ready = [server for server in fleet.servers[variant] if server.ready]
        if not ready:
            raise NotReady(False)
        server = ready[0] if len(ready) == 1 else min(ready, key=lambda one: one.flying)
        server.flying += 1
        began, status = time.monotonic(), 0
        try:
            answer = await server.client.request("POST", "/invocations", headers, body, seconds=seconds)
            status = answer.status
            return answer, variant
        finally:
            server.flying -= 1
            if self.told is not None:
                self.told(key, variant, len(fleet.servers[variant]), status, time.monotonic() - began)

    async def close(self) -> None:
        """Ends every server."""
        fleets, self._fleets = list(self._fleets.values()), {}
        await asyncio.gather(*(fleet.close(1.0) for fleet in fleets), *self._leaving, return_exceptions=True)
        self._clear()

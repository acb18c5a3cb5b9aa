"""Servers of a deployment, deployments of an endpoint, and the choice between them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import shutil
import subprocess
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from bastide.engines.serving.client import Answer, Lost
from bastide.engines.serving.server import Instance, Invocation, Loading, NotReady, Server

_log = logging.getLogger("bastide.serving")

_GRACE: Final = 30.0
_DRAIN: Final = 65.0  # an invocation lasts a minute at most
_SOCKET_BYTES: Final = 64 * 1024
_MOST_SESSIONS: Final = 10_000
_MOST_SHADOWED: Final = 64
_NEW_SESSION: Final = "x-amzn-sagemaker-new-session-id"
_CLOSED_SESSION: Final = "x-amzn-sagemaker-closed-session-id"


class Throttled(Exception):  # noqa: N818
    """A variant answers as many calls as it may at once."""


@dataclass(slots=True)
class OnDemand:
    """Servers that come when they are needed and go when they are not. grow: makes one. most: at once, each with one call.
    always: that are never let go of. idle_seconds: how long the others wait for a call."""

    grow: Callable[[], Awaitable[Instance]]
    most: int
    always: int = 0
    idle_seconds: float = 300.0


@dataclass(slots=True)
class Variant:
    """Servers of the same model. weight: its share of calls; of a shadow, of how many it gets a copy, beside the
    weights of the others. keep: how many
    of the servers that answer for this variant now go on doing so, before `instances`. direct: see `Server`."""

    name: str
    weight: float
    instances: Sequence[Instance] = ()
    keep: int = 0
    direct: bool = False
    shadow: bool = False
    on_demand: OnDemand | None = None


class Observer(Protocol):
    """Told of every call that a deployment answered. Must be quick."""

    def answered(
        self,
        variant: str,
        call: Invocation,
        outcome: Answer | BaseException,
        seconds: float,
        servers: int,
        shadow: bool,
    ) -> None:
        """outcome: the answer, or why there was none. seconds: that the server took. servers: of the variant."""
        ...


class _Pool:
    """A variant's servers."""

    def __init__(self, variant: Variant, servers: list[Server], healthy_seconds: float) -> None:
        self.variant = variant
        self.servers = servers
        self.flying = 0
        self._healthy = healthy_seconds
        self._turn = itertools.count()
        self._sessions: OrderedDict[str, Server] = OrderedDict()
        self._starting: set[asyncio.Task[Server]] = set()
        self._reaper: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        return self.variant.on_demand is not None or any(one.ready for one in self.servers)

    def take(self, session: str | None, without: Server | None) -> Server:
        """The server with the fewest calls under way, or the session's. Raises NotReady."""
        if session is not None:
            found = self._sessions.get(session)
            if found is not None and found.ready and found is not without:
                found.take()
                return found
        servers = self.servers
        if len(servers) == 1:
            best: Server | None = servers[0] if servers[0].ready and servers[0] is not without else None
        else:
            ready = [one for one in servers if one.ready and one is not without]
            turn = next(self._turn)
            best = min((ready[(turn + at) % len(ready)] for at in range(len(ready))), key=_load, default=None)
        if best is None:
            raise NotReady
        best.take()
        return best

    async def demand(self) -> Server:
        """A server of its own for one call; started if need be. Raises Throttled, and what a start raises."""
        on_demand = self.variant.on_demand
        assert on_demand is not None
        if self.flying > on_demand.most:
            raise Throttled
        while True:
            for one in self.servers:
                if one.ready and not one.flying:
                    one.take()
                    return one
            running = len(self.servers) + len(self._starting)
            if running < on_demand.most:
                self._start(on_demand)
            if not self._starting:
                await asyncio.sleep(0.05)  # all are being started anew, or about to be free
                continue
            done, _ = await asyncio.wait(self._starting, return_when=asyncio.FIRST_COMPLETED)
            if any(task.cancelled() or task.exception() is not None for task in done):
                raise NotReady

    def _start(self, on_demand: OnDemand) -> None:
        async def start() -> Server:
            instance = await on_demand.grow()
            server = Server(self.variant.name, instance, self._healthy)
            try:
                await server.start()
            except BaseException:
                await server.close(0)
                raise
            server.idle_since = asyncio.get_running_loop().time()
            self.servers.append(server)
            if self._reaper is None:
                self._reaper = asyncio.get_running_loop().create_task(self._reap(on_demand))
            return server

        task = asyncio.get_running_loop().create_task(start())
        self._starting.add(task)

        def done(task: asyncio.Task[Server]) -> None:
            self._starting.discard(task)
            if not task.cancelled() and task.exception() is not None:
                _log.warning("a server of %s did not come up: %s", self.variant.name, task.exception())

        task.add_done_callback(done)

    async def prove(self) -> None:
        """Starts what never goes, and at least one, so that a deployment that cannot work is known at once."""
        on_demand = self.variant.on_demand
        if on_demand is not None:
            for _ in range(max(1, on_demand.always)):
                self._start(on_demand)
            await asyncio.gather(*self._starting)

    async def _reap(self, on_demand: OnDemand) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(on_demand.idle_seconds, 5.0))
            for one in list(self.servers):
                if len(self.servers) <= on_demand.always:
                    break
                if not one.flying and loop.time() - one.idle_since > on_demand.idle_seconds:
                    self.servers.remove(one)
                    await one.close(1.0)

    def seen(self, answer: Answer, server: Server) -> None:
        """Remembers which server has which session."""
        opened = answer.headers.get(_NEW_SESSION)
        if opened:
            self._sessions[opened.partition(";")[0].strip()] = server
            while len(self._sessions) > _MOST_SESSIONS:
                self._sessions.popitem(last=False)
        closed = answer.headers.get(_CLOSED_SESSION)
        if closed:
            self._sessions.pop(closed.strip(), None)

    async def close(self) -> None:
        """Stops what starts and ends servers by itself."""
        tasks = [*self._starting, *([self._reaper] if self._reaper is not None else ())]
        self._reaper = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _load(server: Server) -> int:
    return server.flying


@dataclass(slots=True)
class _Fleet:
    """A deployment. share: of all calls, from 0 to 1."""

    owner: str
    pools: dict[str, _Pool]
    observer: Observer | None
    share: float = 0.0
    names: list[str] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    shadows: list[_Pool] = field(default_factory=list)
    copies: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        shown = [pool for pool in self.pools.values() if not pool.variant.shadow]
        self.names = [pool.variant.name for pool in shown]
        self.weights = [pool.variant.weight for pool in shown]
        self.shadows = [pool for pool in self.pools.values() if pool.variant.shadow]
        whole = sum(self.weights)
        self.copies = [min(1.0, pool.variant.weight / whole) if whole else 1.0 for pool in self.shadows]

    def every(self) -> Iterable[Server]:
        return (server for pool in self.pools.values() for server in pool.servers)

    @property
    def ready(self) -> bool:
        return any(pool.ready for pool in self.pools.values() if not pool.variant.shadow)

    def choose(self, variant: str | None) -> _Pool:
        if variant is not None:
            pool = self.pools.get(variant)
            if pool is None or pool.variant.shadow:
                raise NotReady(f"Variant {variant} not found.")
            return pool
        names = self.names
        if len(names) == 1:
            return self.pools[names[0]]
        ready = [at for at, name in enumerate(names) if self.pools[name].ready]
        if not ready:
            raise NotReady
        weights = [self.weights[at] for at in ready]
        at = random.choices(ready, weights)[0] if any(weights) else random.choice(ready)  # noqa: S311
        return self.pools[names[at]]


def _observed(
    fleet: _Fleet,
    pool: _Pool,
    call: Invocation,
    outcome: Answer | BaseException | None,
    began: float,
    *,
    shadow: bool = False,
) -> None:
    if fleet.observer is not None and outcome is not None:
        seconds = time.perf_counter() - began
        fleet.observer.answered(pool.variant.name, call, outcome, seconds, len(pool.servers), shadow)


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
        self._stages: dict[str, list[_Fleet]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[Server] = set()
        self._shadowed = 0

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

    def leave(self, folder: Path) -> None:
        """Gives a socket's folder back."""
        _release(folder)

    def _clear(self) -> None:
        if self._folder.exists():
            for folder in self._folder.iterdir():
                _release(folder)
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- deployments -------------------------------------------------------------------------------------------------------

    async def bring(
        self,
        key: str,
        owner: str,
        variants: Sequence[Variant],
        *,
        healthy_seconds: float = 240.0,
        observer: Observer | None = None,
    ) -> None:
        """Starts a deployment, which answers no calls yet: `shift` does that. owner: whose it is. Raises Unhealthy, and
        whatever `launch` raises, when nothing that is new of it is left."""
        now = self._stages.get(key, [])
        pools: dict[str, _Pool] = {}
        fresh: list[Server] = []
        for one in variants:
            kept: list[Server] = []
            for fleet in reversed(now):
                if one.name in fleet.pools:
                    kept = [server for server in fleet.pools[one.name].servers if not server.leaving][: one.keep]
                    break
            made = [Server(one.name, instance, healthy_seconds, direct=one.direct) for instance in one.instances]
            fresh += made
            pools[one.name] = _Pool(one, kept + made, healthy_seconds)
        tasks = [asyncio.ensure_future(server.start()) for server in fresh]
        tasks += [asyncio.ensure_future(pool.prove()) for pool in pools.values()]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for pool in pools.values():
                await pool.close()
            on_demand = [one for pool in pools.values() if pool.variant.on_demand for one in pool.servers]
            await asyncio.gather(*(server.close(0) for server in {*fresh, *on_demand}), return_exceptions=True)
            raise
        self._stages.setdefault(key, []).append(_Fleet(owner, pools, observer))

    def shift(self, key: str, owner: str, share: float) -> None:
        """Has the owner's deployment answer a share of the calls, from 0 to 1, and the others the rest."""
        for fleet in self._stages.get(key, ()):
            fleet.share = share if fleet.owner == owner else 1.0 - share

    def settle(self, key: str, owner: str, *, beside: str | None = None) -> None:
        """Only the owner's deployment stays, and `beside`, whose that is to take over some time. What the others are
        answering is answered to its end; nobody waits for that."""
        stage = self._stages.get(key, [])
        stays = [fleet for fleet in stage if fleet.owner in (owner, beside)]
        if not any(fleet.owner == beside for fleet in stays):
            for fleet in stays:
                fleet.share = 1.0
        self._stages[key] = stays
        for fleet in stage:
            if fleet.owner not in (owner, beside):
                self._background(self._retire(fleet, stays, _GRACE, _DRAIN))

    def _background(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _retire(self, fleet: _Fleet, stays: Sequence[_Fleet], grace: float, drain: float) -> None:
        """Ends a deployment's servers except those that others have taken over."""
        held = {id(server) for one in stays for server in one.every()}
        going = [server for server in fleet.every() if id(server) not in held]
        for server in going:
            server.leaving = True
        self._leaving.update(going)
        for pool in fleet.pools.values():
            await pool.close()
        await asyncio.gather(*(server.close(grace, drain) for server in going), return_exceptions=True)
        self._leaving.difference_update(going)

    async def remove(self, key: str, owner: str, *, grace: float = _GRACE) -> None:
        """Ends the owner's deployment, if it is there."""
        stage = self._stages.get(key, [])
        stays = [fleet for fleet in stage if fleet.owner != owner]
        gone = [fleet for fleet in stage if fleet.owner == owner]
        if stays:
            self._stages[key] = stays
            if all(fleet.share <= 0 for fleet in stays):
                stays[-1].share = 1.0
        else:
            self._stages.pop(key, None)
        for fleet in gone:
            await self._retire(fleet, stays, grace, _DRAIN if stays else 0.0)

    def ready(self, key: str) -> bool:
        """Whether anything answers for `key`."""
        return any(fleet.ready for fleet in self._stages.get(key, ()))

    def servers(self, key: str, variant: str) -> int:
        """How many servers of a variant are up now."""
        found = [fleet.pools[variant] for fleet in self._stages.get(key, ()) if variant in fleet.pools]
        return sum(one.ready for one in found[-1].servers) if found else 0

    async def get(self, key: str, variant: str, path: str, *, seconds: float) -> Answer:
        """What a server of a variant says of itself. Raises NotReady, Lost and TimeoutError."""
        pool = self._fleet(key).choose(variant)
        server = pool.take(None, None)
        try:
            return await server.get(path, seconds)
        finally:
            server.give()

    # -- calls -------------------------------------------------------------------------------------------------------------

    def _fleet(self, key: str) -> _Fleet:
        stage = self._stages.get(key)
        if not stage:
            raise NotReady
        if len(stage) == 1:
            return stage[0]
        ready = [fleet for fleet in stage if fleet.ready] or stage
        shares = [fleet.share for fleet in ready]
        return random.choices(ready, shares)[0] if any(share > 0 for share in shares) else ready[0]  # noqa: S311

    async def invoke(self, key: str, call: Invocation) -> tuple[Answer, str]:
        """The answer of a server and its variant's name. Raises NotReady, Loading, Throttled, Lost, Slow, NoModel and
        NotLoaded."""
        fleet = self._fleet(key)
        pool = fleet.choose(call.variant)
        name = pool.variant.name
        if fleet.shadows:
            self._shadow(fleet, call)
        began = time.perf_counter()
        outcome: Answer | BaseException | None = None
        try:
            outcome = await self._through(pool, call)
            return outcome, name
        except BaseException as error:
            outcome = error
            raise
        finally:
            _observed(fleet, pool, call, outcome, began)

    async def _through(self, pool: _Pool, call: Invocation) -> Answer:
        pool.flying += 1
        server: Server | None = None
        try:
            if pool.variant.on_demand is not None:
                server = await self._demanded(pool, call)
            else:
                server = pool.take(call.session, None)
            try:
                answer = await server.call(call)
            except Lost as lost:
                if not lost.unsent:
                    raise
                # It fell before it saw the call: another one may answer it.
                fallen, server = server, None
                fallen.give()
                try:
                    if pool.variant.on_demand is not None:
                        server = await self._demanded(pool, call)
                    else:
                        server = pool.take(None, fallen)
                except NotReady:
                    raise lost from None
                answer = await server.call(call)
            if call.session is not None:
                pool.seen(answer, server)
            return answer
        finally:
            pool.flying -= 1
            if server is not None:
                server.give()

    @staticmethod
    async def _demanded(pool: _Pool, call: Invocation) -> Server:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(call.seconds):
                server = await pool.demand()
        except TimeoutError:
            raise Loading from None
        call.began = time.perf_counter() - began
        return server

    async def stream(self, key: str, call: Invocation) -> tuple[Answer, AsyncIterator[bytes], str]:
        """Like `invoke`, with the body of the answer in pieces, which raise Lost if it breaks off."""
        fleet = self._fleet(key)
        pool = fleet.choose(call.variant)
        if pool.variant.on_demand is not None:
            raise NotReady("Serverless endpoints do not stream.")
        began = time.perf_counter()
        try:
            server = pool.take(call.session, None)
        except NotReady as error:
            _observed(fleet, pool, call, error, began)
            raise
        pool.flying += 1
        try:
            answer, pieces = await server.stream(call)
        except BaseException as error:
            pool.flying -= 1
            server.give()
            _observed(fleet, pool, call, error, began)
            raise

        async def following() -> AsyncIterator[bytes]:
            kept: list[bytes] = []
            outcome: Answer | BaseException = answer
            try:
                async for piece in pieces:
                    kept.append(piece)
                    yield piece
            except Lost as lost:
                outcome = lost
                raise
            finally:
                pool.flying -= 1
                server.give()
                answer.body = b"".join(kept)
                _observed(fleet, pool, call, outcome, began)

        return answer, following(), pool.variant.name

    def _shadow(self, fleet: _Fleet, call: Invocation) -> None:
        """Copies a call to the shadows, whose answers nobody gets. Copies are dropped when too many are under way."""
        for pool, share in zip(fleet.shadows, fleet.copies, strict=True):
            if self._shadowed >= _MOST_SHADOWED or random.random() >= share:  # noqa: S311
                continue
            self._shadowed += 1
            self._background(self._mirror(fleet, pool, call))

    async def _mirror(self, fleet: _Fleet, pool: _Pool, call: Invocation) -> None:
        began = time.perf_counter()
        try:
            outcome: Answer | BaseException = await self._through(pool, call)
        except Exception as error:
            outcome = error
        finally:
            self._shadowed -= 1
        _observed(fleet, pool, call, outcome, began, shadow=True)

    async def close(self) -> None:
        """Ends every server."""
        stages, self._stages = self._stages, {}
        fleets = [fleet for stage in stages.values() for fleet in stage]
        await asyncio.gather(*(self._retire(fleet, (), 1.0, 0.0) for fleet in fleets), return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(server.close(1.0) for server in self._leaving), return_exceptions=True)
        self._clear()

"""The agent of a node: volumes, sandboxes and networks of the jobs that a platform runs on this machine.

It holds no rows and decides nothing: a platform tells it, over a sealed channel, and takes everything away again. Of a
platform that says nothing for a while it ends all jobs, for the platform then takes them for lost and begins them
elsewhere. What an agent that was killed left is cleared by the next one, or by any other one on the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import stat
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.cluster import Answering
from bastide.engines.images.environment import located
from bastide.engines.network import kernel
from bastide.engines.network.across import Across
from bastide.engines.placement.types import devices_of, gpus_here
from bastide.engines.sandbox import Ended, Limits, Running, SandboxError, Spec
from bastide.engines.sandbox.drivers.bubblewrap import Bubblewrap
from bastide.engines.sandbox.drivers.gocryptfs import Gocryptfs

_log = logging.getLogger("bastide.node")

FOLDER: Final = Path("/var/lib/bastide-node")
LEASE: Final = 15.0
"""Seconds without a word from the platform after which all its jobs end here."""
_LOOK_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 2.0
_MOST_WAITING: Final = 4 << 20
_MOST_ANSWER: Final = 1 << 20
_MOST_FILES: Final = 100_000
_MOST_CONNECTIONS: Final = 256

Told = Mapping[str, Any]
Answer = tuple[Mapping[str, Any], bytes]


@dataclass
class _Job:
    """A host of a job, as it is here. base: what its volume shows. waiting: lines that the platform has not fetched."""

    base: Path
    running: Running | None = None
    ended: Ended | None = None
    waiting: deque[bytes] = field(default_factory=deque)
    size: int = 0
    more: asyncio.Event = field(default_factory=asyncio.Event)
    room: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    network: Across | None = None
    servers: list[asyncio.Server] = field(default_factory=list)
    arrived: asyncio.Queue[tuple[int, int]] = field(default_factory=asyncio.Queue)
    connections: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=dict)
    numbers: int = 0
    gpus: list[int] = field(default_factory=list)


class Agent:
    """Calling it answers one sealed message. root: where agents of this machine keep what they hold."""

    def __init__(self, secret: bytes, root: Path = FOLDER, lease: float = LEASE) -> None:
        self._root = root
        self._folder = root / secrets.token_hex(8)
        self._lease = lease
        self._answering = Answering(self._answer, secret)
        self._heard = monotonic()
        self._jobs: dict[str, _Job] = {}
        self._lock = -1
        self._watch: asyncio.Task[None] | None = None
        self._sandboxes = Bubblewrap(self._folder)
        self._volumes = Gocryptfs(self._folder / "volumes")
        self._operations: dict[str, Callable[..., Awaitable[Answer]]] = {
            "hello": self._hello, "open": self._open, "folder": self._make_folder, "put": self._put,
            "plug": self._plug, "join": self._join, "start": self._start, "watch": self._look, "stop": self._stop,
            "list": self._list, "get": self._get, "close": self._close_job,
            "accept": self._accept, "read": self._read, "write": self._write, "shut": self._shut,
        }  # fmt: skip

    async def start(self) -> None:
        """Takes its folder, and clears what agents before it left."""
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        root = await asyncio.to_thread(_locked, self._root, wait=True)  # nobody sweeps it away before it has its lock
        try:
            self._folder.mkdir(mode=0o711)
            self._lock = _locked(self._folder)
        finally:
            os.close(root)
        await sweep(self._root)
        self._watch = asyncio.create_task(self._watching(), name="lease")

    async def __call__(self, content: bytes) -> bytes:
        """Answers one call."""
        return await self._answering(content)

    async def _answer(self, name: str, told: Told, data: bytes) -> Answer:
        self._heard = monotonic()
        work = self._operations.get(name)
        if work is None:
            raise ValueError(f"the agent knows no call `{name}`: platform and node run different versions")
        return await work(told, data)

    def _job(self, told: Told) -> _Job:
        job = self._jobs.get(told["name"])
        if job is None:
            raise SandboxError(f"the node does not hold {told['name']} any more")
        return job

    # -- files -------------------------------------------------------------------------------------------------------------

    async def _hello(self, told: Told, data: bytes) -> Answer:
        return {}, b""

    async def _open(self, told: Told, data: bytes) -> Answer:
        """A volume; `data` is its key."""
        base = await self._volumes.create(told["name"], data, told["size"])
        for name in ("ml", "side"):
            await asyncio.to_thread((base / name).mkdir)
        self._jobs[told["name"]] = job = _Job(base)
        job.room.set()
        return {}, b""

    async def _make_folder(self, told: Told, data: bytes) -> Answer:
        await asyncio.to_thread(_below(self._job(told).base, told["path"]).mkdir, parents=True, exist_ok=True)
        return {}, b""

    async def _put(self, told: Told, data: bytes) -> Answer:
        """A piece of a file, before the job runs."""
        job = self._job(told)
        if job.running is not None:
            raise ValueError("files come before the job runs")

        def write() -> None:
            path = _below(job.base, told["path"])
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, told["mode"])
            try:
                rest, at = memoryview(data), told["at"]
                while rest:
                    done = os.pwrite(handle, rest, at)
                    rest, at = rest[done:], at + done
            finally:
                os.close(handle)

        await asyncio.to_thread(write)
        return {}, b""

    async def _list(self, told: Told, data: bytes) -> Answer:
        """What the job left: folders, plain files with sizes and modes, and links with where they lead. Sockets, FIFOs and
        devices are left out, and so are the inputs, which the platform has."""
        job = self._job(told)
        if job.ended is None:
            raise ValueError("the job still runs")
        return await asyncio.to_thread(_listed, job.base / "ml"), b""

    async def _get(self, told: Told, data: bytes) -> Answer:
        job = self._job(told)
        if job.ended is None:
            raise ValueError("the job still runs")

        def read() -> bytes:
            handle = os.open(_below(job.base / "ml", told["path"]), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise ValueError("not a file")
                return os.pread(handle, min(told["length"], _MOST_ANSWER), told["at"])
            finally:
                os.close(handle)

        return {}, await asyncio.to_thread(read)

    # -- networks ----------------------------------------------------------------------------------------------------------

    async def _plug(self, told: Told, data: bytes) -> Answer:
        """A network for the host. ports: of 127.0.0.1 in it, whose connections the platform takes."""
        job = self._job(told)
        job.network = network = Across()
        await network.make(told["interface"], told["address"])
        for port in told["ports"]:
            bound = kernel.listening(network.handle, "127.0.0.1", port)

            async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int = port) -> None:
                if len(job.connections) >= _MOST_CONNECTIONS:
                    writer.close()
                    return
                job.numbers += 1
                job.connections[job.numbers] = (reader, writer)
                job.arrived.put_nowait((job.numbers, port))

            job.servers.append(await asyncio.start_server(connected, sock=bound))
        return {"port": network.port, "public": network.public}, b""

    async def _join(self, told: Told, data: bytes) -> Answer:
        network = self._job(told).network
        assert network is not None
        await network.join(told["peers"])
        return {}, b""

    async def _accept(self, told: Told, data: bytes) -> Answer:
        """The next connection."""
        job = self._job(told)
        try:
            async with asyncio.timeout(_POLL_SECONDS):
                number, port = await job.arrived.get()
        except TimeoutError:
            return {}, b""
        return {"connection": number, "port": port}, b""

    async def _read(self, told: Told, data: bytes) -> Answer:
        """The next bytes of a connection; `more` is false for none within a while, and there are none at its end."""
        found = self._job(told).connections.get(told["connection"])
        if found is None:
            return {"more": True}, b""
        try:
            async with asyncio.timeout(_POLL_SECONDS):
                return {"more": True}, await found[0].read(256 << 10)
        except TimeoutError:
            return {"more": False}, b""
        except ConnectionError:  # the job broke it off
            return {"more": True}, b""

    async def _write(self, told: Told, data: bytes) -> Answer:
        found = self._job(told).connections.get(told["connection"])
        if found is not None:
            with contextlib.suppress(ConnectionError):
                found[1].write(data)
                if told["last"]:
                    found[1].write_eof()
                await found[1].drain()
        return {}, b""

    async def _shut(self, told: Told, data: bytes) -> Answer:
        found = self._job(told).connections.pop(told["connection"], None)
        if found is not None:
            found[1].close()
        return {}, b""

    # -- the program -------------------------------------------------------------------------------------------------------

    async def _start(self, told: Told, data: bytes) -> Answer:
        job = self._job(told)
        try:
            environment = located(told["image"])
        except Refused as refused:
            raise SandboxError(refused.message) from None
        if environment.digest != told["digest"]:
            raise SandboxError(
                f"the node has the environment {told['image']} with the digest {environment.digest}, not {told['digest']}: "
                "node and platform must have the same version of Bastide and of Python"
            )
        taken = {gpu for other in self._jobs.values() for gpu in other.gpus}
        job.gpus = [gpu for gpu in gpus_here() if gpu not in taken][: told["gpus"]]
        if len(job.gpus) < told["gpus"]:
            raise SandboxError(f"the node has {len(job.gpus)} GPUs that are free, not {told['gpus']}")
        spec = Spec(
            name=told["name"],
            image=environment,
            command=told["command"],
            workdir=job.base / "ml",
            limits=Limits(**told["limits"]),
            env=told["env"],
            readonly=[(_below(job.base / "side", path), target) for path, target in told["readonly"]],
            hostname=told["hostname"],
            hosts=told["hosts"],
            addresses=told["addresses"],
            network=job.network.namespace if job.network is not None else "",
            gpus=told["gpus"],
            devices=devices_of(job.gpus),
        )
        job.running = running = await self._sandboxes.start(spec)
        job.tasks.append(asyncio.create_task(self._reading(job, running)))
        return {}, b""

    @staticmethod
    async def _reading(job: _Job, running: Running) -> None:
        async for line in running.lines():
            await job.room.wait()
            job.waiting.append(line)
            job.size += len(line) + 1
            if job.size > _MOST_WAITING:
                job.room.clear()
            job.more.set()
        job.ended = await running.wait()
        job.more.set()

    async def _look(self, told: Told, data: bytes) -> Answer:
        """Lines, what is used, and how it ended when it has and all lines are fetched."""
        job = self._job(told)
        assert job.running is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLL_SECONDS):
                await job.more.wait()
        lines: list[bytes] = []
        room = _MOST_ANSWER
        while job.waiting and (room := room - len(job.waiting[0]) - 1) > 0:
            lines.append(job.waiting.popleft())
            job.size -= len(lines[-1]) + 1
        job.room.set()
        found: dict[str, Any] = {"lines": [len(one) for one in lines], "usage": asdict(job.running.usage())}
        if not job.waiting:
            if job.ended is not None:
                found["ended"] = asdict(job.ended)
            else:
                job.more.clear()
        if not self._volumes.stands(told["name"]):
            raise SandboxError("the encrypted volume was lost")
        if job.network is not None and not job.network.stands():
            raise SandboxError("the network between the job's hosts was lost")
        return found, b"".join(lines)

    async def _stop(self, told: Told, data: bytes) -> Answer:
        running = self._job(told).running
        if running is not None:
            await running.stop(told["grace"])
        return {}, b""

    async def _close_job(self, told: Told, data: bytes) -> Answer:
        await self._drop(told["name"])
        return {}, b""

    async def _drop(self, name: str) -> None:
        job = self._jobs.get(name)
        if job is not None:
            job.room.set()
            if job.running is not None:
                await job.running.stop(0)
            for server in job.servers:
                server.close()
            for _, writer in job.connections.values():
                writer.close()
            for task in job.tasks:
                task.cancel()
            if job.network is not None:
                await job.network.close()
        await self._volumes.close(name)
        self._jobs.pop(name, None)

    # -- the end -----------------------------------------------------------------------------------------------------------

    async def _watching(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, self._lease / 2))
            try:
                if self._jobs and monotonic() - self._heard > self._lease:
                    _log.warning("the platform has said nothing for %.0f s: its jobs end here", self._lease)
                    await asyncio.gather(*(self._drop(name) for name in list(self._jobs)))
                await sweep(self._root)
            except Exception:
                _log.exception("the node could not be cleared")

    @property
    def holds(self) -> list[str]:
        """The jobs that are here."""
        return list(self._jobs)

    async def close(self) -> None:
        """Ends all jobs and leaves nothing."""
        if self._watch is not None:
            self._watch.cancel()
        await asyncio.gather(*(self._drop(name) for name in list(self._jobs)))
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


async def sweep(root: Path) -> None:
    """Clears what ended agents of this machine left below a folder: whoever lives holds a lock."""
    try:
        turn = _locked(root)
    except OSError:
        return  # somebody else is at it, or there was no agent yet
    try:
        for folder in root.iterdir():
            try:
                lock = _locked(folder)
            except OSError:
                continue
            try:
                cleared = await Bubblewrap(folder).recover()
                cleared += await Gocryptfs(folder / "volumes").recover()
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
                if cleared:
                    _log.warning("cleared what an agent left: %s", ", ".join(sorted(set(cleared))))
            finally:
                os.close(lock)
    finally:
        os.close(turn)


def _locked(folder: Path, *, wait: bool = False) -> int:
    """A descriptor that holds the folder's lock; raises OSError where somebody else does, unless it is to wait."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(held)
        raise
    return held


def _below(base: Path, relative: str) -> Path:
    """A path below a folder. No link on the way leads outside: raises ValueError."""
    parts = relative.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise ValueError(f"not a path below the volume: {relative[:200]!r}")
    here = base
    for part in parts[:-1]:
        here = here / part
        if here.is_symlink():
            raise ValueError("there is a link on the way")
    return here / parts[-1]


def _listed(ml: Path) -> dict[str, Any]:
    folders: list[str] = []
    files: list[tuple[str, int, int]] = []
    links: list[tuple[str, str]] = []
    for root, inner, names in os.walk(ml, followlinks=False):
        here = Path(root)
        if here == ml and "input" in inner:
            inner.remove("input")
        for name in [*inner, *names]:
            path = here / name
            try:
                shown = str(path.relative_to(ml))
                shown.encode()
                told = path.stat(follow_symlinks=False)
                if stat.S_ISLNK(told.st_mode):
                    links.append((shown, str(path.readlink())))
                elif stat.S_ISDIR(told.st_mode):
                    folders.append(shown)
                elif stat.S_ISREG(told.st_mode):
                    files.append((shown, told.st_size, 0o755 if told.st_mode & 0o111 else 0o644))
            except (OSError, UnicodeEncodeError):
                continue  # gone, or a name that is no text: S3 could not have it either
        if len(folders) + len(files) + len(links) > _MOST_FILES:
            raise ValueError(f"the job left more than {_MOST_FILES} files")
    return {"folders": folders, "files": files, "links": links}


__all__ = ["FOLDER", "LEASE", "Agent", "sweep"]

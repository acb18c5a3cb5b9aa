"""Sandboxes and volumes on nodes: the driver beside that of the platform's own machine, chosen volume by volume.

A volume on a node has its other half here. Services fill and read the half here, as they do for jobs of this machine; when
its sandbox starts, what is in it goes to the node, into a volume under the same key, and when the sandbox has ended, what
the job left comes back, inputs excepted. Credentials of the job's role never leave this process but on the job's asking:
connections to the host's loopback, where AWS's API and the role's credentials are, are carried here.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import shutil
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from bastide.engines.sandbox import Ended, RootImage, Running, SandboxError, Sandboxes, Spec, Usage, Volumes
from bastide.jail.namespaces import CLONE_NEWNET, setns

_CHUNK: Final = 1 << 20
_AT_ONCE: Final = 8
_SECONDS: Final = 30.0
"""A node that does not answer a call for so long is lost. More than twice an agent's lease, after which it has ended its
jobs by itself: a job that is begun elsewhere runs nowhere else."""
_MEET_SECONDS: Final = 60.0
_QUEUE: Final = 4096
_PORTS: Final = (80, 443)


class Nodes(Protocol):
    """How nodes are spoken to."""

    async def call(
        self, node: str, name: str, told: Mapping[str, Any], data: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        """Asks a node's agent. Raises ConnectionError when the node is lost, and what the agent raised: OSError,
        ValueError, RuntimeError."""
        ...

    def address(self, node: str) -> str:
        """Where other nodes reach it."""
        ...

    def name(self, node: str) -> str:
        """As its operator named it."""
        ...


@dataclass
class _Far:
    """A volume's half on a node. lost: why it cannot be used any more."""

    node: str
    key: bytes
    size: int
    lost: str = ""
    opened: bool = False


@dataclass
class _Group:
    """Hosts of a job that find each other."""

    members: dict[str, dict[str, Any]] = field(default_factory=dict)
    complete: asyncio.Event = field(default_factory=asyncio.Event)


class Spread:
    """Sandboxes and Volumes in one: those of this machine, and of nodes where a volume was made for one."""

    def __init__(self, sandboxes: Sandboxes, volumes: Volumes, nodes: Nodes) -> None:
        self._sandboxes = sandboxes
        self._volumes = volumes
        self._nodes = nodes
        self._far: dict[str, _Far] = {}
        self._groups: dict[str, _Group] = {}

    # -- volumes -----------------------------------------------------------------------------------------------------------

    async def create(self, name: str, key: bytes, size_limit_bytes: int | None = None, node: str = "") -> Path:
        """See the port."""
        place = await self._volumes.create(name, key, size_limit_bytes)
        if node:
            assert size_limit_bytes is not None
            self._far[name] = _Far(node, key, size_limit_bytes)
        return place

    async def keep(self, name: str, key: bytes, place: Path) -> Path:
        """See the port."""
        return await self._volumes.keep(name, key, place)

    async def system(self, name: str, size_bytes: int) -> Path:
        """See the port."""
        return await self._volumes.system(name, size_bytes)

    def lost(self, name: str) -> str:
        """See the port."""
        far = self._far.get(name)
        return (far.lost if far is not None else "") or self._volumes.lost(name)

    async def close(self, name: str) -> None:
        """See the port."""
        far = self._far.pop(name, None)
        if far is not None and far.opened:
            with contextlib.suppress(OSError, ValueError, RuntimeError, TimeoutError):
                async with asyncio.timeout(_SECONDS):
                    await self._nodes.call(far.node, "close", {"name": name})
        await self._volumes.close(name)

    async def close_all(self) -> None:
        """See the port."""
        await asyncio.gather(*(self.close(name) for name in list(self._far)))
        await self._volumes.close_all()

    async def recover(self) -> list[str]:
        """See the ports; for both. Nodes clear themselves."""
        return [*await self._sandboxes.recover(), *await self._volumes.recover()]

    # -- sandboxes ---------------------------------------------------------------------------------------------------------

    async def start(self, spec: Spec) -> Running:
        """See the port."""
        far = self._far.get(spec.name)
        if far is None:
            return await self._sandboxes.start(spec)
        running = _FarRunning(self, far, spec)
        try:
            await running.begin()
        except ConnectionError as error:
            raise SandboxError(far.lost or str(error)) from error
        except (RuntimeError, OSError) as error:
            raise SandboxError(f"the node {self._nodes.name(far.node)} could not start the sandbox: {error}") from error
        return running

    async def ask(
        self, far: _Far, name: str, told: Mapping[str, Any], data: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        """Asks the node; one that does not answer is lost, and is said to be."""
        try:
            async with asyncio.timeout(_SECONDS + float(told.get("grace", 0))):
                return await self._nodes.call(far.node, name, told, data)
        except (ConnectionError, TimeoutError) as error:
            why = "it does not answer" if isinstance(error, TimeoutError) else str(error)
            far.lost = far.lost or f"The node {self._nodes.name(far.node)} was lost while the job was on it: {why}"
            raise ConnectionError(far.lost) from error

    async def meet(self, far: _Far, spec: Spec, plugged: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The other hosts of the job, when all of them are there."""
        group_name = ",".join(sorted(spec.group))
        group = self._groups.setdefault(group_name, _Group())
        endpoint = f"{self._nodes.address(far.node)}:{plugged['port']}"
        own = {"public": plugged["public"], "endpoint": endpoint, "address": spec.addresses[spec.hostname]}
        group.members[spec.name] = own
        if len(group.members) == len(spec.group):
            group.complete.set()
        try:
            async with asyncio.timeout(_MEET_SECONDS):
                await group.complete.wait()
        except TimeoutError:
            raise SandboxError("the job's other hosts did not start") from None
        finally:
            if self._groups.get(group_name) is group:
                del self._groups[group_name]
        return [one for name, one in group.members.items() if name != spec.name]


class _FarRunning:
    """See the port's Running."""

    def __init__(self, owner: Spread, far: _Far, spec: Spec) -> None:
        self._owner = owner
        self._far = far
        self._spec = spec
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE)
        self._usage = Usage(None, None)
        self._began = time.monotonic()
        self._ended: asyncio.Task[Ended] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """See the port."""
        return self._spec.name

    async def _ask(self, name: str, data: bytes = b"", **told: Any) -> tuple[dict[str, Any], bytes]:
        return await self._owner.ask(self._far, name, {"name": self._spec.name, **told}, data)

    async def begin(self) -> None:
        """Sends what is in the volume here, and starts the sandbox there."""
        spec, far = self._spec, self._far
        if spec.writable or spec.resolver:
            raise ValueError("a sandbox on a node has no sockets and no DNS of this machine")
        if isinstance(spec.image, RootImage):
            raise ValueError("images of a registry are not on nodes")
        if spec.untrusted:
            raise SandboxError("code that is not trusted runs on no node")
        far.opened = True
        await self._ask("open", far.key, size=far.size)
        readonly = [(str(number), target) for number, (_, target) in enumerate(spec.readonly)]
        entries = await asyncio.to_thread(_tree, spec.workdir)
        await _each([self._folder(f"ml/{relative}") for relative, path in entries if path is None])
        files = [(f"ml/{relative}", path) for relative, path in entries if path is not None]
        files += [(f"side/{number}", source) for number, (source, _) in enumerate(spec.readonly)]
        await _each([self._send(relative, path) for relative, path in files])
        if spec.network:
            address = spec.addresses.get(spec.hostname, "")
            plugged, _ = await self._ask("plug", interface=spec.interface, address=address, ports=_PORTS)
            if address:
                await self._ask("join", peers=await self._owner.meet(far, spec, plugged))
            self._keep(self._carry())
        limits = spec.limits
        await self._ask(
            "start",
            image=spec.image.name,
            digest=spec.image.digest,
            command=list(spec.command),
            limits={
                "memory_bytes": limits.memory_bytes,
                "cpus": limits.cpus,
                "processes": limits.processes,
                "open_files": limits.open_files,
            },
            env=dict(spec.env),
            readonly=readonly,
            hostname=spec.hostname,
            hosts=list(spec.hosts),
            addresses=dict(spec.addresses),
            gpus=spec.gpus,
        )
        self._began = time.monotonic()
        self._ended = asyncio.create_task(self._follow(), name=f"node {spec.name}")

    def _keep(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _folder(self, relative: str) -> None:
        await self._ask("folder", path=relative)

    async def _send(self, relative: str, path: Path) -> None:
        handle = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            mode, at = os.fstat(handle).st_mode & 0o777, 0
            while (piece := await asyncio.to_thread(os.pread, handle, _CHUNK, at)) or not at:
                await self._ask("put", piece, path=relative, at=at, mode=mode)
                at += len(piece)
                if not piece:
                    break
        finally:
            os.close(handle)

    def freeze(self) -> None:
        """Refuses, with SandboxError: only what lives on for a next event is frozen, and that stays on this machine."""
        raise SandboxError("what runs on a node is not frozen")

    def thaw(self) -> None:
        """See `freeze`."""
        raise SandboxError("what runs on a node is not frozen")

    # -- while it runs -----------------------------------------------------------------------------------------------------

    async def _follow(self) -> Ended:
        """Fetches lines until the end, then what the job left."""
        gone = Ended(None, None, False, 0.0)
        try:
            while True:
                found, data = await self._ask("watch")
                self._usage = Usage(**found["usage"])
                at = 0
                for length in found["lines"]:
                    await self._lines.put(data[at : at + length])
                    at += length
                if "ended" in found:
                    ended = Ended(**found["ended"])
                    await self._fetch()
                    return ended
        except ConnectionError:
            return Ended(None, None, False, time.monotonic() - self._began)
        except (OSError, RuntimeError, ValueError) as error:
            self._far.lost = self._far.lost or f"The job's node could not go on: {error}"
            return gone
        finally:
            for task in list(self._tasks):
                task.cancel()
            await self._lines.put(None)

    async def _fetch(self) -> None:
        """Makes the volume here as the one there, inputs excepted. Names are the job's, so hostile."""
        found, _ = await self._ask("list")
        base = self._spec.workdir
        await asyncio.to_thread(_emptied, base)
        for relative in sorted(found["folders"]):
            await asyncio.to_thread(_inside(base, relative).mkdir, mode=0o755)
        await _each([self._receive(_inside(base, path), path, size, mode) for path, size, mode in found["files"]])
        for relative, target in found["links"]:  # last, so that nothing is written through one
            await asyncio.to_thread(_inside(base, relative).symlink_to, target)

    async def _receive(self, place: Path, relative: str, size: int, mode: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = await asyncio.to_thread(os.open, place, flags, 0o755 if mode & 0o111 else 0o644)
        try:
            at = 0
            while at < size:
                _, piece = await self._ask("get", path=relative, at=at, length=min(_CHUNK, size - at))
                if not piece:
                    raise OSError(5, f"`{relative[:200]}` became shorter")
                if piece.count(0) != len(piece):  # holes stay holes
                    await asyncio.to_thread(os.pwrite, handle, piece, at)
                at += len(piece)
            os.ftruncate(handle, size)
        finally:
            os.close(handle)

    async def _carry(self) -> None:
        """Connections to the loopback of the host's network go to that of its stand-in here."""
        with contextlib.suppress(OSError, RuntimeError):
            while True:
                found, _ = await self._ask("accept")
                if "connection" in found:
                    self._keep(self._connected(found["connection"], found["port"]))

    async def _connected(self, number: int, port: int) -> None:
        try:
            sock = await asyncio.to_thread(_connecting, self._spec.network, port)
            reader, writer = await asyncio.open_connection(sock=sock)
        except OSError:
            await self._ask("shut", connection=number)
            return

        async def inward() -> None:
            while True:
                found, piece = await self._ask("read", connection=number)
                if piece:
                    writer.write(piece)
                    await writer.drain()
                elif found["more"]:
                    writer.write_eof() if writer.can_write_eof() else None
                    return

        async def outward() -> None:
            while piece := await reader.read(256 << 10):
                await self._ask("write", piece, connection=number, last=False)
            await self._ask("shut", connection=number)

        inside = asyncio.create_task(inward())
        try:
            with contextlib.suppress(OSError, RuntimeError):
                await outward()
        finally:
            inside.cancel()
            writer.close()
            await asyncio.gather(inside, return_exceptions=True)

    # -- the port ----------------------------------------------------------------------------------------------------------

    async def lines(self) -> AsyncIterator[bytes]:
        """See the port."""
        while (line := await self._lines.get()) is not None:
            yield line

    def usage(self) -> Usage:
        """See the port."""
        return self._usage

    async def wait(self) -> Ended:
        """See the port."""
        assert self._ended is not None
        return await asyncio.shield(self._ended)

    async def stop(self, grace: float) -> None:
        """See the port."""
        assert self._ended is not None
        if not self._ended.done():
            with contextlib.suppress(OSError, RuntimeError):
                await self._ask("stop", grace=grace)
            while not self._ended.done():  # also where nobody reads its lines any more
                with contextlib.suppress(asyncio.QueueEmpty):
                    if self._lines.full():
                        self._lines.get_nowait()
                await asyncio.wait({self._ended}, timeout=0.05)


async def _each(works: Sequence[Awaitable[None]]) -> None:
    """All of them, some at once; the first that fails ends the others."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(work: Awaitable[None]) -> None:
        async with turns:
            await work

    tasks = [asyncio.ensure_future(one(work)) for work in works]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _tree(base: Path) -> list[tuple[str, Path | None]]:
    """Folders (with None) and files below a folder."""
    found: list[tuple[str, Path | None]] = []
    for root, folders, names in os.walk(base):
        here = Path(root)
        found += [(str((here / name).relative_to(base)), None) for name in folders]
        found += [(str((here / name).relative_to(base)), here / name) for name in names]
    return found


def _emptied(base: Path) -> None:
    for path in base.iterdir():
        if path.name == "input":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _inside(base: Path, relative: str) -> Path:
    parts = relative.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts) or parts[0] == "input":
        raise ValueError(f"the node named `{relative[:200]}`, which is not below the volume")
    return base.joinpath(*parts)


def _connecting(namespace: str, port: int) -> socket.socket:
    """A connection to 127.0.0.1 of a network namespace, made in a thread of its own, for it stays in there."""
    made: concurrent.futures.Future[socket.socket] = concurrent.futures.Future()

    def work() -> None:
        try:
            setns(namespace, CLONE_NEWNET)
            made.set_result(socket.create_connection(("127.0.0.1", port), 5.0))
        except BaseException as error:
            made.set_exception(error)

    threading.Thread(target=work, name="bastide-network", daemon=True).start()
    return made.result()


__all__ = ["Nodes", "Spread"]

"""The platform's end of a cluster: its nodes, bookings on them, and calls to their agents.

Ray is spoken to by a process of its own, the bridge (``bastide.main.bridge``): what comes from a cluster is unpickled
there, and this process, which holds the keys, never loads Ray. Between the two are frames of JSON and bytes; what goes on
to an agent is sealed already. When this process ends the kernel kills the bridge, and with it Ray ends the agents.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bastide.engines.cluster.channel import Asking, derived

_log = logging.getLogger("bastide.cluster")
_SIZES: Final = struct.Struct(">II")
_START_SECONDS: Final = 60.0
_MOST_HEAD: Final = 16 << 20
_AGENT_SECONDS: Final = 60.0


class ClusterError(Exception):
    """The cluster cannot be used; the message is for the operator."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node. address: where other nodes reach it. cpus, memory_bytes, gpus: what it has for jobs; free_cpus, free_bytes,
    free_gpus: of these, not booked."""

    id: str
    name: str
    address: str
    cpus: float
    memory_bytes: int
    gpus: int
    free_cpus: float
    free_bytes: int
    free_gpus: int


@dataclass(frozen=True, slots=True)
class Booked:
    """A booking. nodes: the node of each part."""

    id: int
    nodes: tuple[str, ...]


def frame(head: Mapping[str, Any], data: bytes = b"") -> bytes:
    """What goes between the platform and its bridge."""
    told = orjson.dumps(head)
    return _SIZES.pack(len(told), len(data)) + told + data


async def read_frame(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    """The next one; raises IncompleteReadError at the end."""
    told, data = _SIZES.unpack(await reader.readexactly(_SIZES.size))
    if told > _MOST_HEAD or data > _MOST_HEAD:
        raise ClusterError("the bridge does not speak as it should")
    return orjson.loads(await reader.readexactly(told)), await reader.readexactly(data)


class Cluster:
    """A cluster. address: of Ray's GCS, HOST:PORT. secret: the cluster's (see ``channel``); Ray's token derives from it."""

    def __init__(self, address: str, secret: bytes) -> None:
        self._address = address
        self._secret = secret
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._asked: dict[int, asyncio.Future[tuple[dict[str, Any], bytes]]] = {}
        self._numbers = itertools.count(1)
        self._starting = asyncio.Lock()
        self._agents: dict[str, Asking] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._nodes: dict[str, Node] = {}
        self._greeting: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self) -> None:
        """Connects; raises ClusterError, also for a cluster that lets in who has no token."""
        await self._bridge()
        await self.nodes()

    async def _bridge(self) -> asyncio.StreamWriter:
        async with self._starting:
            if self._closed:
                raise ClusterError("the platform is ending")
            if self._writer is not None:
                return self._writer
            here, there = socket.socketpair()
            try:
                self._process = await asyncio.create_subprocess_exec(
                    "/usr/bin/setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "bastide.main.bridge",
                    str(there.fileno()), self._address,
                    pass_fds=(there.fileno(),), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                    env={
                        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent",
                        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token(self._secret), "RAY_USAGE_STATS_ENABLED": "0",
                        **{name: value for name, value in os.environ.items() if name.startswith("RAY_TLS_")},
                        **({"RAY_USE_TLS": os.environ["RAY_USE_TLS"]} if "RAY_USE_TLS" in os.environ else {}),
                    },
                    cwd="/",
                )  # fmt: skip
            finally:
                there.close()
            reader, writer = await asyncio.open_connection(sock=here)
            try:
                async with asyncio.timeout(_START_SECONDS):
                    said, _ = await read_frame(reader)
            except (TimeoutError, asyncio.IncompleteReadError, OSError):
                said = {"error": "its bridge did not start; the log says why"}
            if "error" in said:
                writer.close()
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                raise ClusterError(f"the cluster at {self._address} cannot be used: {said['error']}")
            self._writer = writer
            self._reading = asyncio.create_task(self._read(reader, writer), name="cluster")
            return writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head, data = await read_frame(reader)
                future = self._asked.pop(head["number"], None)
                if future is not None and not future.done():
                    future.set_result((head, data))
        except (asyncio.IncompleteReadError, OSError, ClusterError):
            if not self._closed:
                _log.error("the connection to the cluster ended")
        finally:
            self._writer = None
            self._agents.clear()
            writer.close()
            asked, self._asked = self._asked, {}
            for future in asked.values():
                if not future.done():
                    future.set_exception(ConnectionError("the connection to the cluster ended"))
                    future.exception()

    async def _ask(self, operation: str, data: bytes = b"", **told: Any) -> tuple[dict[str, Any], bytes]:
        """Raises ConnectionError, and ClusterError with what the bridge said."""
        try:
            writer = await self._bridge()
        except ClusterError as error:
            raise ConnectionError(str(error)) from None
        number = next(self._numbers)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            writer.write(frame({"number": number, "do": operation, **told}, data))
            await writer.drain()
            found, answer = await future
        finally:
            self._asked.pop(number, None)
        if "lost" in found:
            raise ConnectionError(found["lost"])
        if "error" in found:
            raise ClusterError(found["error"])
        return found, answer

    # -- bookings ----------------------------------------------------------------------------------------------------------

    async def nodes(self) -> list[Node]:
        """Those that are there; none where the cluster does not answer."""
        try:
            found, _ = await self._ask("nodes")
        except (ConnectionError, ClusterError) as error:
            _log.warning("the cluster's nodes are not known: %s", error)
            return []
        nodes = [Node(**one) for one in found["nodes"]]
        for one in nodes:
            if one.id not in self._nodes:
                task = asyncio.create_task(self._greet(one))
                self._greeting.add(task)
                task.add_done_callback(self._greeting.discard)
        self._nodes |= {one.id: one for one in nodes}
        return nodes

    async def _greet(self, node: Node) -> None:
        """Starts a node's agent before a job needs it: it clears what an earlier one left."""
        try:
            await self.call(node.id, "hello", {})
        except (OSError, ValueError, RuntimeError) as error:
            _log.error("the node %s cannot be used: %s", node.name, error)

    async def book(self, parts: Sequence[tuple[float, int, int]]) -> Booked:
        """Books processors, bytes and GPUs, all parts or none; waits for it. Raises ConnectionError, ClusterError."""
        number = next(self._numbers)
        bundles = [{"CPU": cpus, "memory": memory, **({"GPU": gpus} if gpus else {})} for cpus, memory, gpus in parts]
        try:
            found, _ = await self._ask("book", booking=number, bundles=bundles)
        except BaseException:
            self.unbook(number)
            raise
        if any(one not in self._nodes for one in found["nodes"]):
            await self.nodes()
        return Booked(number, tuple(found["nodes"]))

    def unbook(self, number: int) -> None:
        """Frees a booking."""
        if self._writer is not None:
            self._writer.write(frame({"number": 0, "do": "unbook", "booking": number}))

    # -- agents ------------------------------------------------------------------------------------------------------------

    def address(self, node: str) -> str:
        """Where other nodes reach it."""
        return self._nodes[node].address

    def name(self, node: str) -> str:
        """As its operator named it."""
        found = self._nodes.get(node)
        return node if found is None else found.name

    async def call(
        self, node: str, name: str, told: Mapping[str, Any], data: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        """Asks a node's agent, which is started by the first call. Raises ConnectionError when it is lost, and what the
        agent raised."""
        agent = self._agents.get(node)
        if agent is None:
            async with self._opening.setdefault(node, asyncio.Lock()):
                agent = self._agents.get(node) or await self._open(node)
        return await agent.call(name, told, data)

    async def _open(self, node: str) -> Asking:
        try:
            async with asyncio.timeout(_AGENT_SECONDS):
                found, _ = await self._ask("agent", node=node)
                incarnation = found["agent"]

                async def carry(content: bytes) -> bytes:
                    try:
                        return (await self._ask("call", content, agent=incarnation))[1]
                    except ClusterError as error:
                        raise ConnectionError(str(error)) from None
                    except ConnectionError:
                        if self._agents.get(node) is made:
                            del self._agents[node]
                        raise

                made = Asking(carry, self._secret)
                await made.open()
        except ClusterError as error:
            raise ConnectionError(str(error)) from None
        self._agents[node] = made
        return made

    async def close(self) -> None:
        """Disconnects; agents end."""
        self._closed = True
        for task in list(self._greeting):
            task.cancel()
        if self._writer is not None:
            self._writer.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._process is not None and self._process.returncode is None:
            try:
                async with asyncio.timeout(5.0):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()


def token(secret: bytes) -> str:
    """Ray's token of a cluster."""
    return derived(secret, "ray token").hex()

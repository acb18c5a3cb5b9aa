"""The listeners of VPC endpoints, and the socket over which something is attached to a network interface."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import ssl
import struct
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import uvicorn

from bastide.engines.network import Attachment, NetworkError, Networks, Opened, Packet, Vpc
from bastide.frontdoor import FrontDoor, Listener
from bastide.frontdoor.receive import server_context
from bastide.main import authority
from bastide.store.directory import DataDirectory

_log = logging.getLogger("bastide.endpoints")
_BACKLOG: Final = 512
_MOST_BYTES: Final = 4096
_SECONDS: Final = 10.0
_MOST_CONNECTIONS: Final = 256
"""Of one door, those that stand and those that were begun in the last seconds: each costs the platform a descriptor, and
behind the door is whoever runs a job or has a machine in the subnet."""


class _Opened:
    def __init__(self, server: asyncio.Server, config: uvicorn.Config, connections: set[Any]) -> None:
        self._server = server
        self._config = config
        self._connections = connections

    def drop(self) -> None:
        for one in list(self._connections):
            if one.config is self._config and one.transport is not None:
                one.transport.abort()

    def close(self) -> None:
        self._server.close()
        self.drop()


class _Crowded(ConnectionRefusedError):  # noqa: N818
    """There is no room for another connection. Whoever sends them is not to fill the log with them."""


def _told(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), _Crowded):
        loop.default_exception_handler(context)


class _Gate:
    """Lets so many connections through."""

    def __init__(self, config: uvicorn.Config, connections: set[Any]) -> None:
        self._config = config
        self._connections = connections
        self._begun: deque[tuple[float, weakref.ref[Any]]] = deque()

    def admit(self, protocol: Any) -> None:
        """Raises _Crowded where there is no room: asyncio then lets go of the socket."""
        now = time.monotonic()
        while self._begun and self._begun[0][0] < now - _SECONDS:
            self._begun.popleft()
        shaking = sum(1 for _, one in self._begun if (held := one()) is not None and held.transport is None)
        standing = sum(1 for one in self._connections if one.config is self._config)
        if shaking + standing >= _MOST_CONNECTIONS:
            raise _Crowded
        self._begun.append((now, weakref.ref(protocol)))


class Doors:
    """Serves sockets as VPC endpoints, with the state of the platform's own server: they drain together."""

    def __init__(
        self,
        door: FrontDoor,
        tls: DataDirectory,
        server: uvicorn.Server,
        protocol: type[asyncio.Protocol],
        configured: Callable[[Any], uvicorn.Config],
    ) -> None:
        self._door = door
        self._tls = tls
        self._state = server.server_state
        self._protocol: Any = protocol
        self._configured = configured
        self._open: set[_Opened] = set()
        self._for_jobs: ssl.SSLContext | None = None

    async def __call__(self, bound: socket.socket, endpoint: str, names: Sequence[str], public: str) -> Opened:
        """Serves `bound` as the endpoint, with a certificate of its own for `names`; an empty one is a job's way to AWS.
        public: what comes through it comes from that address in the internet, and through no endpoint."""
        listener = Listener(endpoint or "job", True, "" if public else endpoint, public)
        config = self._configured(self._door.at(listener))

        gate = _Gate(config, self._state.connections)

        def connection() -> Any:
            made = self._protocol(config=config, server_state=self._state, app_state={})
            gate.admit(made)
            return made

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_told)
        server = await loop.create_server(
            connection,
            sock=bound,
            ssl=self._context(endpoint, names) if endpoint else self._jobs(),
            ssl_handshake_timeout=_SECONDS,
            backlog=_BACKLOG,
        )
        opened = _Opened(server, config, self._state.connections)
        self._open = {one for one in self._open if one._server.is_serving()} | {opened}
        return opened

    def _jobs(self) -> ssl.SSLContext:
        if self._for_jobs is None:
            # By the registry's own names, too: tools that push images go by nothing else.
            registries = [f"*.dkr.ecr.{region}.amazonaws.com" for region in self._tls.load().regions]
            self._for_jobs = self._context("job", ("localhost", *registries))
        return self._for_jobs

    def _context(self, endpoint: str, names: Sequence[str]) -> ssl.SSLContext:
        handles = []
        try:
            for content in authority.certificate(self._tls.tls, endpoint, names):
                # Of memory alone: the key of an endpoint lies on no disk.
                handle = os.memfd_create("bastide")
                handles.append(handle)
                os.write(handle, content)
            return server_context(*(f"/proc/self/fd/{handle}" for handle in handles))
        finally:
            for handle in handles:
                os.close(handle)

    def close(self) -> None:
        """Takes no new connections; those that stand are left."""
        for one in self._open:
            one._server.close()


class Attaching:
    """Answers on a unix socket that the platform's owner alone can open: a line of JSON names a network interface, and
    something is attached to it as long as the connection stands; or it asks what a packet from there would meet."""

    def __init__(self, networks: Networks, path: Path) -> None:
        self._networks = networks
        self._path = path
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begins to listen; where that is not possible the log says why, and nothing can be attached."""
        self._path.unlink(missing_ok=True)
        try:
            self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=_MOST_BYTES)
        except OSError as error:
            _log.error("nothing can be attached to network interfaces: %s: %s", self._path, error)
            return
        self._path.chmod(0o600)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attachment: Attachment | None = None
        try:
            if not self._may(writer):
                return
            async with asyncio.timeout(_SECONDS):
                told = json.loads(await reader.readline())
                vpc = Vpc(str(told["account"]), str(told["region"]), str(told["vpc"]))
                if "packet" in told:
                    await self._explain(writer, vpc, told)
                    return
                attachment = await self._networks.attach(vpc, str(told["interface"]))
            answer = {
                "namespace": attachment.namespace,
                "address": attachment.interface.address,
                "resolver": attachment.resolver,
            }
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
            await reader.read()
        except (ValueError, KeyError, TypeError, TimeoutError, NetworkError) as error:
            writer.write(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        except ConnectionError:
            pass
        except Exception:
            _log.exception("an attachment failed")
        finally:
            if attachment is not None:
                await attachment.close()
            writer.close()

    async def _explain(self, writer: asyncio.StreamWriter, vpc: Vpc, told: dict[str, Any]) -> None:
        """Answers what a packet would meet."""
        asked = told["packet"]
        packet = Packet("", str(asked["destination"]), str(asked["protocol"]), int(asked["port"]))
        hops = self._networks.explain(vpc, str(told["interface"]), packet)
        writer.write(json.dumps({"hops": [asdict(one) for one in hops]}).encode() + b"\n")
        await writer.drain()

    @staticmethod
    def _may(writer: asyncio.StreamWriter) -> bool:
        held = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, user, _ = struct.unpack("3i", held)
        return user in (0, os.geteuid())

    def close(self) -> None:
        """Listens no more."""
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)

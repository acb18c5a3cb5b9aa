"""HTTP/1.1 to a unix socket that a stranger holds: kept-alive connections, nothing but what an invocation needs."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import httptools


class Lost(Exception):  # noqa: N818
    """The server went away, said something that is not HTTP, or too much of it."""


@dataclass(slots=True)
class Answer:
    """What the server said. headers: names in lower case."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class _Connection(asyncio.Protocol):
    def __init__(self, most_bytes: int) -> None:
        self.transport: asyncio.Transport | None = None
        self.used = False
        self.closed = False
        self._most = most_bytes
        self._waiting: asyncio.Future[Answer] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._answer = Answer()
        self._pieces: list[bytes] = []
        self._size = 0
        self.began = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports are no subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    async def ask(self, request: bytes, body: bytes) -> Answer:
        """One request at a time; raises Lost."""
        if self.closed or self.transport is None:
            raise Lost("the connection is closed")
        self._waiting = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._answer, self._pieces, self._size, self.began = Answer(), [], 0, False
        self.transport.write(request)
        if body:
            self.transport.write(body)
        try:
            return await self._waiting
        except BaseException:
            self.close()
            raise
        finally:
            self.used = True
            self._waiting = None

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._parser is None:
            self.close()  # nobody asked
            return
        self.began = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("it does not speak HTTP")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._most:
            self._fail(f"its answer has more than {self._most} bytes")
        else:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        self._answer.status = self._parser.get_status_code()
        if 100 <= self._answer.status < 200:
            return
        self._answer.body = b"".join(self._pieces)
        keep = self._parser.should_keep_alive()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(self._answer)
        if not keep:
            self.close()

    def _fail(self, why: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(Lost(why))
        self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._fail("it closed the connection")

    def close(self) -> None:
        self.closed = True
        if self.transport is not None:
            self.transport.close()


class Client:
    """Connections to one server. socket: its path, in a folder that the server may write. most_bytes: of an answer."""

    def __init__(self, socket: Path, most_bytes: int) -> None:
        self._socket = socket
        self._most = most_bytes
        self._idle: list[_Connection] = []

    async def _connect(self) -> _Connection:
        # The server owns the folder and might lay a link there to a socket that is not its own: what is opened is the
        # socket itself, never what it points to. This also serves paths longer than a socket address may be.
        try:
            held = os.open(self._socket, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise Lost(f"it does not listen ({error.strerror})") from None
        try:
            if not stat.S_ISSOCK(os.fstat(held).st_mode):
                raise Lost("it does not listen (no socket)")
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_unix_connection(lambda: _Connection(self._most), f"/proc/self/fd/{held}")
            return connection
        except OSError as error:
            raise Lost(f"it does not listen ({error.strerror})") from None
        finally:
            os.close(held)

    async def request(
        self, method: str, path: str, headers: Iterable[tuple[str, str]], body: bytes, *, seconds: float
    ) -> Answer:
        """Asks and waits for the whole answer; raises Lost, and TimeoutError after `seconds`."""
        lines = [f"{method} {path} HTTP/1.1", "host: model", f"content-length: {len(body)}"]
        for name, value in headers:
            if "\r" in value or "\n" in value:
                raise ValueError("a header has one line")
            lines.append(f"{name}: {value}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        async with asyncio.timeout(seconds):
            while self._idle:
                connection = self._idle.pop()
                if connection.closed:
                    continue
                try:
                    return await self._through(connection, head, body)
                except Lost:
                    if connection.began:
                        raise
                    # It had been kept too long; the server has not seen the request.
            return await self._through(await self._connect(), head, body)

    async def _through(self, connection: _Connection, head: bytes, body: bytes) -> Answer:
        answer = await connection.ask(head, body)
        if not connection.closed:
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Closes what is idle."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

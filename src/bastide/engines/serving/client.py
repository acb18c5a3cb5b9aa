"""HTTP/1.1 to a unix socket that a stranger holds: kept-alive connections, nothing but what an invocation needs."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import httptools

P = TypeVar("P", bound=asyncio.BaseProtocol)

_ONE_WRITE: Final = 64 << 10
_LONGEST_IDLE: Final = 2.0
"""Seconds after which a connection is not used again: servers close what is idle, most of them after five, and of a request
that meets that on its way nobody knows whether it was seen."""
_MOST_WAITING: Final = 64
"""Pieces of a streamed answer that wait for whoever reads them, before the server has to."""


Body = bytes | AsyncIterator[bytes]
"""Of a request. One that comes in pieces is sent as they come (chunked)."""


class Lost(Exception):  # noqa: N818
    """The server went away, said something that is not HTTP, or too much of it. unsent: it has not seen the request, which
    another server may be asked then."""

    def __init__(self, why: str, *, unsent: bool = False) -> None:
        super().__init__(why)
        self.unsent = unsent
        self.container = "primary"


@dataclass(slots=True)
class Answer:
    """What the server said. headers: names in lower case. cookies: those that it sets. container: whose answer it is."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cookies: list[str] = field(default_factory=list)
    body: bytes = b""
    container: str = "primary"


class _Connection(asyncio.Protocol):
    def __init__(self, most_bytes: int) -> None:
        self.transport: asyncio.Transport | None = None
        self.idle_since = 0.0
        self.closed = False
        self._most = most_bytes
        self._waiting: asyncio.Future[Answer] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._answer = Answer()
        self._pieces: list[bytes] = []
        self._size = 0
        self._pieces_wanted: asyncio.Queue[bytes | Lost | None] | None = None
        self.over = True
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports are no subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    async def ask(self, request: bytes, body: Body, *, stream: bool = False) -> Answer:
        """One request at a time; raises Lost. stream: returns when the head is there, and `pieces` has the body."""
        if self.closed or self.transport is None:
            raise Lost("the connection is closed", unsent=True)
        self._pieces_wanted = asyncio.Queue() if stream else None
        self.over = False
        self._waiting = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._answer, self._pieces, self._size = Answer(), [], 0
        if not isinstance(body, bytes):
            self.transport.write(request)
        elif len(body) <= _ONE_WRITE:
            self.transport.write(request + body)  # the server wakes up once
        else:
            self.transport.write(request)
            self.transport.write(body)
        try:
            if not isinstance(body, bytes):
                await self._feed(body)
            return await self._waiting
        except BaseException:
            self.close()
            raise
        finally:
            self._waiting = None

    async def _feed(self, body: AsyncIterator[bytes]) -> None:
        """Sends a body of unknown length as fast as the server reads it. An answer that is there before its end is an
        answer, and the connection no good any more."""
        assert self.transport is not None and self._waiting is not None
        async for piece in body:
            if self._waiting.done():
                self.closed = True
                return
            if piece:
                self.transport.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
                room = asyncio.ensure_future(self._room.wait())
                either: set[asyncio.Future[Any]] = {room, self._waiting}
                try:
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    room.cancel()
        self.transport.write(b"0\r\n\r\n")

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body of an answer that is streamed; raises Lost if it breaks off."""
        assert self._pieces_wanted is not None and self.transport is not None
        try:
            while (piece := await self._pieces_wanted.get()) is not None:
                if isinstance(piece, Lost):
                    raise piece
                if self._pieces_wanted.qsize() < _MOST_WAITING and not self.closed:
                    self.transport.resume_reading()
                yield piece
        finally:
            self._pieces_wanted = None
            if not self.over:
                self.close()

    def data_received(self, data: bytes) -> None:
        if (self._waiting is None and self._pieces_wanted is None) or self._parser is None:
            self.close()  # nobody asked
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("it does not speak HTTP")

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._answer.headers[key] = text
        if key == "set-cookie":
            self._answer.cookies.append(text)

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if self._pieces_wanted is not None and status >= 200 and self._waiting is not None and not self._waiting.done():
            self._answer.status = status
            self._waiting.set_result(self._answer)

    def on_body(self, body: bytes) -> None:
        if self._pieces_wanted is not None:
            self._pieces_wanted.put_nowait(body)
            if self._pieces_wanted.qsize() >= _MOST_WAITING and self.transport is not None:
                self.transport.pause_reading()
            return
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
        self.over = True
        if self._pieces_wanted is not None:
            self._pieces_wanted.put_nowait(None)
        self._answer.body = b"".join(self._pieces)
        keep = self._parser.should_keep_alive()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(self._answer)
        if not keep:
            self.close()

    def _fail(self, why: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(Lost(why))
        if self._pieces_wanted is not None and not self.over:
            self._pieces_wanted.put_nowait(Lost(why))
        self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._fail("it closed the connection")

    def close(self) -> None:
        self.closed = True
        if self.transport is not None:
            self.transport.close()


async def reach(socket: Path, protocol: Callable[[], P]) -> P:
    """A connection to a server's socket; raises Lost."""
    # The server owns the folder and might lay a link there to a socket that is not its own: what is opened is the socket
    # itself, never what it points to. This also serves paths longer than a socket address may be.
    try:
        held = os.open(socket, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise Lost(f"it does not listen ({error.strerror})", unsent=True) from None
    try:
        if not stat.S_ISSOCK(os.fstat(held).st_mode):
            raise Lost("it does not listen (no socket)", unsent=True)
        _, made = await asyncio.get_running_loop().create_unix_connection(protocol, f"/proc/self/fd/{held}")
        return made
    except OSError as error:
        raise Lost(f"it does not listen ({error.strerror})", unsent=True) from None
    finally:
        os.close(held)


class Client:
    """Connections to one server. socket: its path, in a folder that the server may write. most_bytes: of an answer."""

    def __init__(self, socket: Path, most_bytes: int) -> None:
        self._socket = socket
        self._most = most_bytes
        self._idle: list[_Connection] = []

    async def _connect(self) -> _Connection:
        return await reach(self._socket, lambda: _Connection(self._most))

    async def request(
        self, method: str, path: str, headers: Iterable[tuple[str, str]], body: Body, *, seconds: float
    ) -> Answer:
        """Asks and waits for the whole answer; raises Lost, and TimeoutError after `seconds`."""
        async with asyncio.timeout(seconds):
            _, answer = await self._ask(method, path, headers, body, stream=False)
            return answer

    async def stream(
        self, method: str, path: str, headers: Iterable[tuple[str, str]], body: Body, *, seconds: float
    ) -> tuple[Answer, AsyncIterator[bytes]]:
        """Asks and waits for the head of the answer; raises as `request` does. The body's pieces come as the server sends
        them, and raise Lost if it breaks off; who does not want them all closes the iterator."""
        async with asyncio.timeout(seconds):
            connection, answer = await self._ask(method, path, headers, body, stream=True)

        async def pieces() -> AsyncIterator[bytes]:
            async for piece in connection.pieces():
                yield piece
            self._keep(connection)

        return answer, pieces()

    async def _ask(
        self, method: str, path: str, headers: Iterable[tuple[str, str]], body: Body, *, stream: bool
    ) -> tuple[_Connection, Answer]:
        whole = isinstance(body, bytes)
        length = f"content-length: {len(body)}" if isinstance(body, bytes) else "transfer-encoding: chunked"
        lines = [f"{method} {path} HTTP/1.1", length]
        named = False
        for name, value in headers:
            if "\r" in value or "\n" in value:
                raise ValueError("a header has one line")
            lines.append(f"{name}: {value}")
            named = named or name == "host"
        if not named:
            lines.append("host: model")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        oldest = asyncio.get_running_loop().time() - _LONGEST_IDLE
        while self._idle and whole:  # a body in pieces gets a connection that nobody can have closed
            connection = self._idle.pop()
            if connection.idle_since < oldest:
                connection.close()
            if not connection.closed:
                return connection, await self._through(connection, head, body, stream)
        connection = await self._connect()
        return connection, await self._through(connection, head, body, stream)

    async def _through(self, connection: _Connection, head: bytes, body: Body, stream: bool) -> Answer:
        answer = await connection.ask(head, body, stream=stream)
        if not stream:
            self._keep(connection)
        return answer

    def _keep(self, connection: _Connection) -> None:
        if not connection.closed:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)

    def close(self) -> None:
        """Closes what is idle."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

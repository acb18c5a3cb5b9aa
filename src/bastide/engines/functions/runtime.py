"""The Lambda Runtime API of one environment, over the socket that it alone reaches.

Whoever speaks is hostile: connections and bodies are bounded, and an answer counts for the event that is being handled or
not at all. Source: Lambda Developer Guide, "Using the Lambda runtime API" (version 2018-06-01).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from dataclasses import dataclass
from typing import Final, cast

import httptools
import orjson

MOST_ANSWER: Final = 6_291_556
"""Bytes of a function's answer (Lambda Developer Guide, "Lambda quotas"; its message names this figure)."""
_MOST_BODY: Final = MOST_ANSWER + 65_536
_MOST_CONNECTIONS: Final = 16
_BASE: Final = "/2018-06-01/runtime/"
_STATUS: Final = {200: b"OK", 202: b"Accepted", 400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found",
                  413: b"Payload Too Large"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    """What a runtime is given. deadline: milliseconds since 1970. client: the client context, JSON; empty for none."""

    id: str
    payload: bytes
    deadline: int
    arn: str
    client: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What it said. failed: it told an error."""

    payload: bytes
    failed: bool = False


class InitFailed(Exception):  # noqa: N818
    """The runtime told that it cannot begin. payload: its error, JSON."""

    def __init__(self, payload: bytes) -> None:
        super().__init__("the runtime could not begin")
        self.payload = payload


class Runtime:
    """Gives out one event at a time, and takes its answer."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._open: set[_Connection] = set()
        self._asking: deque[_Connection] = deque()
        self._idle = asyncio.Event()
        self._failed: bytes | None = None
        self._event: Event | None = None
        self._answer: asyncio.Future[Answer] | None = None

    async def serve(self, bound: socket.socket) -> None:
        """Begins to answer on a bound socket, which is this runtime's from now on."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), sock=bound, backlog=_MOST_CONNECTIONS)

    async def asks(self) -> None:
        """Until the runtime asks for the next event; raises InitFailed if it tells that it cannot."""
        await self._idle.wait()
        if self._failed is not None:
            raise InitFailed(self._failed)

    async def put(self, event: Event) -> Answer:
        """The answer to an event; given to whoever asks first, and to one alone."""
        self._event, self._answer = event, asyncio.get_running_loop().create_future()
        self._give()
        try:
            return await self._answer
        finally:
            self._event = self._answer = None

    def close(self) -> None:
        """Ends all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for one in list(self._open):
            one.abort()

    # -- connections -----------------------------------------------------------------------------------------------------

    def opened(self, connection: _Connection) -> bool:
        """Whether there is room for it."""
        if len(self._open) >= _MOST_CONNECTIONS:
            return False
        self._open.add(connection)
        return True

    def closed(self, connection: _Connection) -> None:
        self._open.discard(connection)
        with contextlib.suppress(ValueError):
            self._asking.remove(connection)
        if not self._asking and self._failed is None:
            self._idle.clear()

    def asked(self, connection: _Connection, method: str, path: str, body: bytes, *, large: bool) -> None:
        """A whole request."""
        if not path.startswith(_BASE):
            connection.answer(404, _error("NotFound", "There is nothing but the Runtime API."))
            return
        words = path[len(_BASE) :].split("/")
        if (method, words) == ("GET", ["invocation", "next"]):
            self._asking.append(connection)
            self._idle.set()
            self._give()
        elif (method, words) == ("POST", ["init", "error"]):
            if self._event is None and self._failed is None and not self._asking:
                self._failed = body[:_MOST_BODY]
                self._idle.set()
            connection.answer(202, b'{"status":"OK"}')
        elif method == "POST" and len(words) == 3 and words[0] == "invocation" and words[2] in ("response", "error"):
            self._answered(connection, words[1], body, failed=words[2] == "error", large=large)
        else:
            connection.answer(404, _error("NotFound", "There is no such operation of the Runtime API."))

    def _answered(self, connection: _Connection, id: str, body: bytes, *, failed: bool, large: bool) -> None:
        if self._event is None or self._event.id != id or self._answer is None or self._answer.done():
            connection.answer(400, _error("InvalidRequestID", "Invalid request ID"))
            return
        if large or len(body) > MOST_ANSWER:
            said = f"Response payload size exceeded maximum allowed payload size ({MOST_ANSWER} bytes)."
            self._answer.set_result(Answer(_error("Function.ResponseSizeTooLarge", said), True))
            connection.answer(413, _error("RequestEntityTooLarge", said))
            return
        self._answer.set_result(Answer(body, failed))
        connection.answer(202, b'{"status":"OK"}')

    def _give(self) -> None:
        if self._event is None or self._answer is None or self._answer.done() or not self._asking:
            return
        connection, event = self._asking.popleft(), self._event
        if not self._asking:
            self._idle.clear()
        headers = [
            ("Lambda-Runtime-Aws-Request-Id", event.id),
            ("Lambda-Runtime-Deadline-Ms", str(event.deadline)),
            ("Lambda-Runtime-Invoked-Function-Arn", event.arn),
        ]
        if event.client:
            headers.append(("Lambda-Runtime-Client-Context", event.client))
        connection.answer(200, event.payload, headers)


def _error(type: str, message: str) -> bytes:
    return orjson.dumps({"errorMessage": message, "errorType": type})


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._pieces: list[bytes] = []
        self._size = 0
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        if not self._runtime.opened(self):
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._runtime.closed(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.abort()

    def on_message_begin(self) -> None:
        if self._busy:
            self.abort()
        self._target, self._pieces, self._size = b"", [], 0

    def on_url(self, url: bytes) -> None:
        self._target += url
        if len(self._target) > 1024:
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value)
        if self._size > _MOST_BODY:
            self.abort()

    def on_headers_complete(self) -> None:
        self._size = 0
        if self._transport is not None and self._parser.should_keep_alive() is False:
            return

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= _MOST_BODY:
            self._pieces.append(body)
        elif self._size > 16 * _MOST_BODY:
            self.abort()

    def on_message_complete(self) -> None:
        self._busy = True
        body, large = b"".join(self._pieces), self._size > _MOST_BODY
        self._pieces = []
        method = self._parser.get_method().decode("latin-1")
        self._runtime.asked(self, method, self._target.decode("latin-1"), body, large=large)

    def answer(self, status: int, body: bytes, headers: list[tuple[str, str]] | None = None) -> None:
        self._busy = False
        if self._transport is None:
            return
        lines = [b"HTTP/1.1 %d %s" % (status, _STATUS[status]), b"Content-Type: application/json"]
        lines += [f"{name}: {value}".encode("latin-1", "replace") for name, value in headers or ()]
        lines.append(b"Content-Length: %d" % len(body))
        self._transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

"""First stage: a request is taken in, its size bounded, the clock read once, an id given."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from bastide.domain import Clock, Instant, Refused, timed_id

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Scope = dict[str, Any]

MOST_HEADERS = 128
MOST_HEADER_BYTES = 64 * 1024
MOST_TARGET_BYTES = 16 * 1024
MOST_BODY_BYTES = 16 * 1024 * 1024
"""Of a body that is held in memory; streamed uploads have their own limit (5 GiB, as S3)."""
MOST_UNSIGNED_BYTES = 1024 * 1024
"""Of the same from somebody whom no signature tells: an assertion of 100,000 characters and some more."""
IDLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Listener:
    """A way in. secure: it speaks TLS. vpce: the VPC endpoint it belongs to, if it does. source: the address of all that
    comes through it, if that is not the peer's: of a gateway that translates addresses."""

    name: str
    secure: bool
    vpce: str = ""
    source: str = ""


@dataclass(slots=True)
class Received:
    """A request whose head was read. named: headers by lower-case name, several values joined with a comma."""

    id: str
    at: Instant
    listener: Listener
    method: str
    raw_path: bytes
    raw_query: bytes
    headers: list[tuple[bytes, bytes]]
    named: dict[str, str]
    source_ip: str
    length: int | None
    receive: Receive
    tls: str = ""
    finished: bool = False
    spent: bool = field(default=False)

    async def more(self) -> bytes:
        """The next piece of the body, empty at its end; raises Refused when it comes too slowly or the client left."""
        while not self.finished:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    message = await self.receive()
            except TimeoutError:
                raise Refused(
                    "RequestTimeout",
                    "Your socket connection to the server was not read from or written to within the timeout period.",
                    400,
                ) from None
            if message["type"] == "http.disconnect":
                raise Refused("IncompleteBody", "The connection ended before the whole body had arrived.", 400)
            self.finished = not message.get("more_body", False)
            data: bytes = message.get("body", b"")
            if data:
                return data
        return b""

    async def body(self, most: int = MOST_BODY_BYTES) -> bytes:
        """The whole body, bounded; raises Refused RequestEntityTooLarge."""
        if self.length is not None and self.length > most:
            raise too_large(most)
        if self.finished or self.length == 0:
            return b""
        pieces: list[bytes] = []
        size = 0
        while piece := await self.more():
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise too_large(most)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def too_large(most: int) -> Refused:
    """RequestEntityTooLargeException."""
    return Refused("RequestEntityTooLargeException", f"The request body is larger than {most} bytes.", 413)


def receive(scope: Scope, source: Receive, listener: Listener, clock: Clock) -> Received:
    """Takes a request's head in; raises Refused if it is larger than any honest one."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
    named: dict[str, str] = {}
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
        key = name.decode("latin-1")
        text = value.decode("latin-1")
        named[key] = f"{named[key]},{text}" if key in named else text
    at = clock()
    received = Received(
        id=timed_id(at),
        at=at,
        listener=listener,
        method=scope["method"],
        raw_path=raw_path.partition(b"?")[0],
        raw_query=scope["query_string"],
        headers=headers,
        named=named,
        source_ip=listener.source or (scope.get("client") or ("",))[0],
        length=None,
        receive=source,
        tls=str(scope.get("state", {}).get("tls", "TLS")) if listener.secure else "",
    )
    if size > MOST_HEADER_BYTES or len(headers) > MOST_HEADERS:
        raise _bad(
            received, "RequestHeaderSectionTooLarge", "Your request header section exceeds the maximum allowed size."
        )
    if len(raw_path) + len(scope["query_string"]) > MOST_TARGET_BYTES:
        raise _bad(received, "RequestUriTooLong", "The request target is longer than any operation needs.")
    length = named.get("content-length")
    if length is not None:
        if not length.isascii() or not length.isdigit():
            raise _bad(received, "InvalidArgument", "Content-Length must be a number of bytes.")
        received.length = int(length)
    elif "transfer-encoding" not in named:
        received.length = 0
    return received


def _bad(received: Received, code: str, message: str) -> Refused:
    return Refused(code, message, 400, kept={"request": received.id})


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """TLS as every listener speaks it: 1.2 at least."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context

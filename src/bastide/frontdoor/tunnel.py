"""A connection whose client asked for a WebSocket: who takes it connects it with somebody else, byte by byte.

uvicorn hands such a connection over with the request's head and makes nothing of it itself. Nothing of the client's passes
before the other side has agreed (101): what it refuses is no WebSocket, and its connection good for nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast
from urllib.parse import unquote

from bastide.domain import Refused

_log = logging.getLogger("bastide.frontdoor")

_MOST_EARLY: Final = 64 << 10
_MOST_HEAD: Final = 64 << 10
_ANSWER_SECONDS: Final = 30.0
_PHRASES: Final = {400: "Bad Request", 403: "Forbidden", 404: "Not Found", 503: "Service Unavailable"}


class _Far(asyncio.Protocol):
    """The other side's connection."""

    def __init__(self, near: Tunnel) -> None:
        self.transport: asyncio.Transport | None = None
        self.agreed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._near = near
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports are no subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.agreed.done():
            self._near.deliver(data)
            return
        self._head += data
        if b"\r\n\r\n" in self._head or len(self._head) > _MOST_HEAD:
            words = self._head.split(b" ", 2)
            status = int(words[1]) if len(words) > 1 and words[1].isdigit() and len(words[1]) == 3 else 0
            if status == 101:
                self._near.deliver(self._head)
            self.agreed.set_result(status)

    def pause_writing(self) -> None:
        self._near.hold(True)

    def resume_writing(self) -> None:
        self._near.hold(False)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.agreed.done():
            self.agreed.set_result(0)
        self._near.end()


class Tunnel(asyncio.Protocol):
    """The client's connection, made by uvicorn as its protocol for WebSockets."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any]) -> None:
        self.config = config
        self._app = config.loaded_app
        self._open: set[Any] = server_state.connections
        self._state = app_state
        self.transport: asyncio.Transport | None = None
        self._begun: asyncio.Task[None] | None = None
        self._early = b""
        self._far: _Far | None = None
        self._over = asyncio.Event()
        self._moved = False
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        if self._begun is None:
            self._begun = asyncio.get_running_loop().create_task(self._serve(data))
        elif self._far is not None and self._far.transport is not None:
            self._moved = True
            self._far.transport.write(data)
        else:
            self._early += data
            if len(self._early) > _MOST_EARLY:
                self.end()

    def connection_lost(self, error: Exception | None) -> None:
        self._open.discard(self)
        self.end()

    def shutdown(self) -> None:
        """The server ends."""
        self.end()

    def pause_writing(self) -> None:
        if self._far is not None and self._far.transport is not None:
            self._far.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._far is not None and self._far.transport is not None:
            self._far.transport.resume_reading()

    async def _serve(self, head: bytes) -> None:
        assert self.transport is not None
        first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        raw, _, query = first.split(b" ")[1].partition(b"?")
        if not raw.startswith(b"/"):
            self.refuse(400, "That is no path.")
            return
        headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        scope = {
            "type": "websocket", "method": first.split(b" ")[0].decode("latin-1"), "path": unquote(raw.decode("latin-1")),
            "raw_path": raw, "query_string": query, "headers": headers, "state": dict(self._state),
            "client": self.transport.get_extra_info("peername"), "bastide.tunnel": self,
        }  # fmt: skip
        try:
            await self._app(scope, None, None)
        except Exception:
            _log.exception("a WebSocket failed")
        finally:
            self.end()

    # -- for who takes it --------------------------------------------------------------------------------------------------

    def refuse(self, status: int, text: str) -> None:
        """Says no, if nothing was said yet, and closes."""
        if not self._answered and self.transport is not None:
            self._answered = True
            body = f"{text}\n".encode()
            head = f"HTTP/1.1 {status} {_PHRASES.get(status, 'Refused')}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode() + body)
        self.end()

    async def splice(self, connect: Callable[[Callable[[], _Far]], Awaitable[_Far]], head: bytes) -> None:
        """Connects it. head: the request as the other side is to see it. Raises Refused if that does not agree, and what
        `connect` raises."""
        far = await connect(lambda: _Far(self))
        assert far.transport is not None
        try:
            far.transport.write(head)
            async with asyncio.timeout(_ANSWER_SECONDS):
                status = await far.agreed
        except BaseException:
            far.transport.abort()
            raise
        if status != 101 or self._over.is_set():
            far.transport.abort()
            raise Refused(
                "Refused", "The other side does not take this WebSocket.", status if status in _PHRASES else 503
            )
        self._far = far
        early, self._early = self._early, b""
        if early:
            far.transport.write(early)

    async def over(self, seconds: float) -> bool:
        """Whether it has ended, after so many seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()
        return self._over.is_set()

    def moved(self) -> bool:
        """Whether anything came since this was asked last."""
        moved, self._moved = self._moved, False
        return moved

    # -- for the other side ------------------------------------------------------------------------------------------------

    def deliver(self, data: bytes) -> None:
        """What the client gets."""
        if self.transport is not None and not self._over.is_set():
            self._answered = self._moved = True
            self.transport.write(data)

    def hold(self, held: bool) -> None:
        """Whether the client has to wait."""
        if self.transport is not None and not self.transport.is_closing():
            if held:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def end(self) -> None:
        """Closes both sides; bears repeating."""
        self._over.set()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
        if self._far is not None and self._far.transport is not None:
            self._far.transport.abort()

"""The pages below a notebook instance's own host: whoever comes with an address that was made for them gets a session, and
with it everything that Jupyter has.

What comes back are a stranger's pages. They are of another origin than the platform's, and than every other instance's.
Cookies whose name begins with ``__Host-`` are this very host's: RFC 6265bis, "The __Host- Prefix".
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from bastide.domain import Refused
from bastide.engines.serving import Lost, reach
from bastide.frontdoor.receive import Listener, Received, receive
from bastide.frontdoor.tunnel import Tunnel
from bastide.kernel import Calls, Request, Unforeseen
from bastide.services.sagemaker import notebook_url
from bastide.store import Row

_log = logging.getLogger("bastide.notebooks")

_HOST: Final = re.compile(
    r"(?P<label>[a-z0-9-]{1,63})\.notebook\.(?P<region>[a-z0-9-]{1,32})\.(?P<rest>[a-z0-9.-]{1,200})"
)
_COOKIE: Final = "__Host-notebook"
_WHOLE: Final = 1 << 20
_SECONDS: Final = 120.0
_RECHECK: Final = 30.0
"""Seconds after which a connection that is used has to be allowed again."""
_HOPS: Final = frozenset((
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
    "upgrade", "content-length", "expect", "host",
))  # fmt: skip


@dataclass(slots=True)
class _Answer:
    status: int
    head: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None


class NotebookPages:
    """Answers what is a notebook instance's host. hosts: the names that the platform answers to."""

    inside = True

    def __init__(self, calls: Calls, hosts: Sequence[str]) -> None:
        self._calls = calls
        self._hosts = frozenset((*hosts, "sagemaker.aws"))

    def takes(self, scope: dict[str, Any]) -> bool:
        """Whether a request is for one."""
        host = _host(scope)
        found = _HOST.fullmatch(host.rpartition(":")[0] or host) if ".notebook." in host else None
        return found is not None and found["rest"] in self._hosts

    async def serve(self, scope: dict[str, Any], source: Any, send: Any, listener: Listener) -> None:
        """Answers one request."""
        received: Received | None = None
        try:
            received = receive(scope, source, listener, self._calls.clock)
            answer = await self._answer(received, scope)
        except Refused as refused:
            answer = _said(refused)
        except (Unforeseen, Exception):
            _log.exception("a request for a notebook instance failed")
            answer = _said(Refused("InternalFailure", "An internal error occurred.", 500))
        close = received is None or (not received.finished and received.length != 0)
        await _send(send, answer, scope["method"], received.id if received is not None else "", close=close)

    async def tunnel(self, scope: dict[str, Any], tunnel: Tunnel, listener: Listener) -> None:
        """Connects a WebSocket with Jupyter, for as long as its session may use it."""
        try:
            received = receive(scope, None, listener, self._calls.clock)  # type: ignore[arg-type]
            row, session = self._who(received, scope)
            _same_origin(received)
            _, socket = await notebook_url.use(self._calls, _request(received), row, session)
            await tunnel.splice(lambda made: reach(socket, made), _head(received))
            while not await tunnel.over(_RECHECK):
                if tunnel.moved():
                    again = receive(scope, None, listener, self._calls.clock)  # type: ignore[arg-type]
                    await notebook_url.use(self._calls, _request(again), row, session)
        except Refused as refused:
            tunnel.refuse(refused.status if refused.status in (403, 503) else 403, refused.message)
        except Lost:
            tunnel.refuse(503, "The notebook instance does not answer now. Please try again.")

    def _row(self, scope: dict[str, Any]) -> Row:
        host = _host(scope)
        found = _HOST.fullmatch(host.rpartition(":")[0] or host)
        row = notebook_url.found(self._calls, found["label"]) if found is not None else None
        if found is None or row is None or row.region != found["region"]:
            raise Refused("ResourceNotFound", "There is no notebook instance here.", 404)
        return row

    def _who(self, received: Received, scope: dict[str, Any]) -> tuple[Row, str]:
        row = self._row(scope)
        if not received.listener.secure:
            raise Refused("AccessDeniedException", "Notebook instances are opened over TLS.", 403)
        cookies = dict(one.strip().partition("=")[::2] for one in received.named.get("cookie", "").split(";"))
        session = cookies.get(_COOKIE, "")
        if not session:
            raise Refused(
                "AccessDeniedException",
                "Open the notebook instance with an address of CreatePresignedNotebookInstanceUrl.",
                403,
            )
        return row, session

    async def _answer(self, received: Received, scope: dict[str, Any]) -> _Answer:
        query = received.raw_query.decode("latin-1")
        token = dict(parse_qsl(query, max_num_fields=20)).get("authToken", "") if "authToken" in query else ""
        if token and received.method == "GET":
            row = self._row(scope)
            if not received.listener.secure:
                raise Refused("AccessDeniedException", "Notebook instances are opened over TLS.", 403)
            session, seconds = await notebook_url.enter(self._calls, _request(received), row, token)
            cookie = f"{_COOKIE}={session}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}"
            head = [("location", "/lab"), ("set-cookie", cookie), ("cache-control", "no-store")]
            return _Answer(302, [*head, ("referrer-policy", "no-referrer")])
        row, session = self._who(received, scope)
        if received.method not in ("GET", "HEAD", "OPTIONS"):
            _same_origin(received)
        client, _ = await notebook_url.use(self._calls, _request(received), row, session)
        body: bytes | AsyncIterator[bytes] = b""
        if received.length is not None and received.length <= _WHOLE:
            body = await received.body(_WHOLE)
        elif not received.finished and received.method not in ("GET", "HEAD", "OPTIONS"):
            body = _pieces(received)
        try:
            told, pieces = await client.stream(
                received.method, _target(received), _onwards(received), body, seconds=_SECONDS
            )
        except Lost as lost:
            raise Refused("ServiceUnavailable", f"The notebook instance did not answer: {lost}.", 503) from None
        except TimeoutError:
            raise Refused("ServiceUnavailable", "The notebook instance did not answer in time.", 504) from None
        head = [(name, value) for name, value in told.headers.items() if name not in _HOPS and name != "set-cookie"]
        head += [("set-cookie", one) for one in told.cookies if not one.startswith(_COOKIE)]
        return _Answer(told.status, head, stream=pieces)


def _host(scope: dict[str, Any]) -> str:
    return next((value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"), "")


def _request(received: Received) -> Request:
    return Request(
        received.id, received.at, received.source_ip, received.named.get("user-agent", "")[:512],
        received.listener.secure, "json", received.named.get("host", ""), received.tls, vpce=received.listener.vpce,
    )  # fmt: skip


def _same_origin(received: Received) -> None:
    """Raises Refused for what another site's page asks."""
    origin = received.named.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != received.named.get("host", "").lower():
        raise Refused("AccessDeniedException", "Another site's page asked for this.", 403)


def _target(received: Received) -> str:
    query = received.raw_query.decode("latin-1")
    return received.raw_path.decode("latin-1") + (f"?{query}" if query else "")


def _onwards(received: Received) -> list[tuple[str, str]]:
    """The headers that Jupyter gets: not the session's cookie, with which it could act as its holder."""
    found = [("host", received.named.get("host", ""))]
    for raw, value in received.headers:
        name, text = raw.decode("latin-1"), value.decode("latin-1")
        if name == "cookie":
            others = [one.strip() for one in text.split(";") if one.strip().partition("=")[0] != _COOKIE]
            text = "; ".join(others)
        if name not in _HOPS and name != "authorization" and text:
            found.append((name, text))
    return found


def _head(received: Received) -> bytes:
    lines = [f"GET {_target(received)} HTTP/1.1", "connection: Upgrade", "upgrade: websocket"]
    lines += [f"{name}: {value}" for name, value in _onwards(received)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _pieces(received: Received) -> AsyncIterator[bytes]:
    while piece := await received.more():
        yield piece


def _said(refused: Refused) -> _Answer:
    status = refused.status if refused.status in (403, 404, 413, 500, 503, 504) else 403
    text = f"{status} {HTTPStatus(status).phrase}\n{refused.message}\n"
    return _Answer(
        status, [("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store")], text.encode()
    )


async def _send(send: Any, answer: _Answer, method: str, request_id: str, *, close: bool) -> None:
    head = [*answer.head, *([("x-amzn-requestid", request_id)] if request_id else [])]
    if close:
        head.append(("connection", "close"))
    bare = method == "HEAD" or answer.status in (204, 304)
    if answer.stream is None and not bare:
        head.append(("content-length", str(len(answer.body))))
    headers = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in head]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if answer.stream is not None:
        async with contextlib.aclosing(answer.stream) as stream:  # type: ignore[type-var]
            async for piece in stream:
                if not bare:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"" if bare else answer.body})

"""A browser's request, and how it is answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from bastide.domain import Clock, Instant, Refused
from bastide.frontdoor.receive import Listener, Received, receive
from bastide.signin.pages import Page

_MOST_BODY = 64 * 1024


@dataclass(slots=True)
class Visit:
    """A request, its form and cookies read. Of a parameter given twice nothing counts."""

    method: str
    path: str
    query: dict[str, str]
    form: dict[str, str]
    cookies: dict[str, str]
    headers: dict[str, str]
    host: str
    received: Received

    @property
    def now(self) -> Instant:
        """When it came in."""
        return self.received.at

    @property
    def target(self) -> str:
        """Path and query, as they came."""
        raw = self.received.raw_query.decode("ascii", "replace")
        return self.path + (f"?{raw}" if raw else "")


def _once(raw: str) -> dict[str, str]:
    pairs = parse_qsl(raw, keep_blank_values=True, max_num_fields=50)
    names = [name for name, _ in pairs]
    return {name: value for name, value in pairs if names.count(name) == 1}


async def visit(scope: dict[str, Any], source: Any, listener: Listener, clock: Clock) -> Visit:
    """Takes a request in; raises Refused for one that no browser sends."""
    received = receive(scope, source, listener, clock)
    body = b""
    if scope["method"] == "POST":
        if received.length is None or received.length > _MOST_BODY:
            raise Refused("RequestEntityTooLarge", "The form is too long.", 413)
        body = await received.body()
    cookies: dict[str, str] = {}
    for part in received.named.get("cookie", "").replace(",", ";").split(";"):
        name, _, value = part.strip().partition("=")
        cookies.setdefault(name, value)
    try:
        query = _once(scope["query_string"].decode("ascii"))
        form = _once(body.decode("ascii")) if "form-urlencoded" in received.named.get("content-type", "") else {}
    except (UnicodeDecodeError, ValueError):
        raise Refused("InvalidRequest", "The request is malformed.", 400) from None
    return Visit(
        scope["method"], scope["path"], query, form, cookies, received.named, received.named.get("host", ""), received
    )


async def answer(send: Any, page: Page, method: str) -> None:
    """Sends a page."""
    await send({"type": "http.response.start", "status": page.status, "headers": page.head()})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else page.body.encode()})

"""What browsers ask of S3 before pages of another origin may, and what answers then tell them.

A preflight is unsigned, changes nothing and tells nothing of objects: it is answered from the bucket's rules alone.
Source: S3 API Reference, "OPTIONS object"; the Fetch Standard, "CORS-preflight fetch".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from urllib.parse import unquote_to_bytes

from bastide.domain import Refused
from bastide.frontdoor.receive import Received
from bastide.protocol import Answer, is_call
from bastide.store import View


class Origins(Protocol):
    """The rules of buckets, as headers of an answer."""

    def told(
        self, view: View, name: str, origin: str, method: str, headers: Sequence[str] | None
    ) -> list[tuple[str, str]] | None:
        """What the answer to a request of `origin` adds; None if no rule fits."""
        ...

    def preflight(
        self, view: View, name: str, origin: str, method: str, headers: Sequence[str]
    ) -> list[tuple[str, str]]:
        """What a browser that asks beforehand is told; raises Refused."""
        ...


def bucket_in(raw_path: bytes) -> str:
    """The bucket that the path of a request names."""
    return unquote_to_bytes(raw_path.split(b"/", 2)[1] if b"/" in raw_path else b"").decode("utf-8", "replace")


def is_preflight(received: Received) -> bool:
    """Whether a browser asks beforehand. What goes to an API is the API's to answer."""
    return received.method == "OPTIONS" and not is_call(received.named.get("host", ""), received.raw_path)


def preflight(rules: Origins, view: View, received: Received, bucket: str) -> Answer:
    """The answer to a preflight; raises Refused BadRequest, AccessForbidden."""
    origin, method = received.named.get("origin", ""), received.named.get("access-control-request-method", "")
    if not origin:
        raise Refused("BadRequest", "Insufficient information. Origin request header needed.", 400)
    if not method:
        raise Refused("BadRequest", "Insufficient information. Access-Control-Request-Method header needed.", 400)
    asked = received.named.get("access-control-request-headers", "")
    headers = [one.strip() for one in asked.split(",") if one.strip()]
    return Answer(200, rules.preflight(view, bucket, origin, method, headers), b"")

"""Gives out the archives whose addresses GetFunction and GetLayerVersion told: the address is the permission, for ten
minutes, as one signed for S3 is on AWS."""

from __future__ import annotations

from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.kernel import Calls
from bastide.services.lambda_ import code as codes
from bastide.services.lambda_.function import opened

_BELOW: Final = "/_bastide/lambda/code/"


class CodePages:
    """Answers what is below ``/_bastide/lambda/code``."""

    inside = False

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def takes(self, scope: dict[str, Any]) -> bool:
        """Whether a request is for an archive."""
        return str(scope["path"]).startswith(_BELOW)

    async def serve(self, scope: dict[str, Any], source: Any, send: Any, listener: Any) -> None:
        """Answers one request."""
        status, kind, body = 200, b"application/zip", b""
        try:
            if scope["method"] not in ("GET", "HEAD"):
                raise Refused("MethodNotAllowed", "Archives are read.", 405)
            kept = opened(self._calls, str(scope["path"])[len(_BELOW) :], self._calls.clock())
            body = await codes.content(self._calls, kept)
        except Refused as refused:
            status, kind = refused.status, b"application/json"
            body = orjson.dumps({"Code": refused.code, "Message": refused.message})
        headers = [
            (b"content-type", kind),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

"""Credentials inside a sandbox, as AWS's clients ask a container's host for them.

Source: AWS SDKs and Tools Reference Guide, "Container credential provider".
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from bastide.domain import Refused

_log = logging.getLogger("bastide.network")

PORT: Final = 80
LONGEST_HEAD: Final = 8192
_SECONDS: Final = 5.0
_MOST_AT_ONCE: Final = 32
"""Connections that are answered at a time: what is opened costs the platform a descriptor."""


class Credentials:
    """Answers what AWS's clients ask a container's host: credentials of the role, to who has the token. The job is
    hostile: a request is bounded in size and time, and nothing of it is believed but the token. give: makes them, or raises
    Refused."""

    def __init__(self, give: Callable[[], Awaitable[dict[str, str]]], token: str) -> None:
        self._give = give
        self._token = token.encode()
        self._open = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= _MOST_AT_ONCE:
            writer.transport.abort()
            return
        self._open += 1
        try:
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                status, told = await self._answer(head)
                body = json.dumps(told).encode()
                writer.write(
                    b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
                    % (status, len(body), body)
                )
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass
        except Exception:
            _log.exception("credentials could not be given")
        finally:
            # Not closed and waited for: who does not read the answer would keep it open.
            self._open -= 1
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()
            else:
                writer.close()

    async def _answer(self, head: bytes) -> tuple[bytes, dict[str, str]]:
        first, *lines = head.split(b"\r\n")
        given = b""
        for line in lines:
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"authorization":
                given = value.strip()
        if not hmac.compare_digest(given, self._token):
            return b"401 Unauthorized", {
                "code": "Unauthorized",
                "message": "The authorization token is not this job's.",
            }
        if first.split(b" ")[:2] != [b"GET", b"/credentials"]:
            return b"404 Not Found", {"code": "NotFound", "message": "There is nothing but /credentials."}
        try:
            return b"200 OK", await self._give()
        except Refused as refused:
            return b"403 Forbidden", {"code": refused.code, "message": refused.message}

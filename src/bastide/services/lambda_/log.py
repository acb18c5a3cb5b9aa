"""What an environment says, on its way to CloudWatch Logs with the function's own role."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from bastide.domain import Refused
from bastide.services.lambda_.session import RoleSession

_log = logging.getLogger("bastide.lambda")

_GATHER_SECONDS: Final = 0.2
_MOST_BYTES: Final = 900_000
_MOST_EVENTS: Final = 5_000
_FULL: Final = 8 << 20
_OVERHEAD: Final = 26
_LONGEST: Final = 256 * 1024 - _OVERHEAD


class Stream:
    """Takes lines at once and writes them in batches. A role that may not write logs runs all the same, as on AWS: without.
    What is said faster than it can be written is dropped, and a line says how much."""

    def __init__(self, session: RoleSession, group: str, name: str) -> None:
        self._session = session
        self._where = {"logGroupName": group, "logStreamName": name}
        self._lines: list[tuple[int, str]] = []
        self._size = 0
        self._dropped = 0
        self._denied = False
        self._closing = False
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def tell(self, text: str) -> None:
        """Takes a line."""
        if self._denied or not text:
            return
        raw = len(text.encode("utf-8", "replace")) + _OVERHEAD
        if self._size + raw > _FULL:
            self._dropped += 1
            return
        if self._dropped:
            self._take(f"[{self._dropped} lines were printed faster than they could be kept, and dropped]")
            self._dropped = 0
        self._take(text)

    def _take(self, text: str) -> None:
        for at in range(0, len(text), _LONGEST // 4):
            piece = text[at : at + _LONGEST // 4]
            self._lines.append((self._session.calls.clock() // 1000, piece))
            self._size += len(piece.encode("utf-8", "replace")) + _OVERHEAD
        self._more.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._sending(), name="log of a function")

    async def _sending(self) -> None:
        await self._open()
        while not self._denied:
            await self._more.wait()
            if not self._closing:
                await asyncio.sleep(_GATHER_SECONDS)
            self._more.clear()
            while self._lines and not self._denied:
                await self._send()
            if self._closing and not self._lines:
                return
        self._lines.clear()

    async def _open(self) -> None:
        group = {"logGroupName": self._where["logGroupName"]}
        for operation, asked in (("CreateLogGroup", group), ("CreateLogStream", dict(self._where))):
            try:
                await self._session.act("logs", operation, asked)
            except Refused as refused:
                if refused.code != "ResourceAlreadyExistsException" and operation == "CreateLogStream":
                    self._denied = True
            except Exception:
                _log.exception("the log stream %s could not be made", self._where["logStreamName"])
                self._denied = True

    async def _send(self) -> None:
        events: list[dict[str, Any]] = []
        size, last = 0, 0
        for at, text in self._lines[:_MOST_EVENTS]:
            size += len(text.encode("utf-8", "replace")) + _OVERHEAD
            if size > _MOST_BYTES and events:
                size -= len(text.encode("utf-8", "replace")) + _OVERHEAD
                break
            last = max(last, at)
            events.append({"timestamp": last, "message": text})
        del self._lines[: len(events)]
        self._size -= size
        for attempt in range(3):
            try:
                await self._session.act("logs", "PutLogEvents", {**self._where, "logEvents": events})
            except Refused:
                self._denied = True
            except Exception:
                _log.exception("lines of %s could not be written", self._where["logStreamName"])
                await asyncio.sleep(0.2 * (attempt + 1))
                continue
            return

    async def close(self) -> None:
        """Writes what is left."""
        task, self._task = self._task, None
        if task is not None:
            self._closing = True
            self._more.set()
            await task

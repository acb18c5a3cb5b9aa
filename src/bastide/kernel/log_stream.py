"""Lines on their way to a stream of CloudWatch Logs, with a role's session."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from bastide.domain import Refused
from bastide.kernel.role_session import RoleSession

_log = logging.getLogger("bastide.logs")

_GATHER_SECONDS: Final = 0.25
_MOST_BYTES: Final = 900_000
_MOST_EVENTS: Final = 5_000
FULL: Final = 8 << 20
"""Bytes that may wait to be sent."""
OVERHEAD: Final = 26
"""Bytes that CloudWatch Logs counts for an event besides its message (see PutLogEvents)."""


class LogStream:
    """Writes lines in batches. Whoever's role may not write logs runs all the same, as on AWS: without."""

    def __init__(self, session: RoleSession, group: str, stream: str) -> None:
        self.group = group
        self.stream = stream
        self._session = session
        self._lines: list[tuple[int, str]] = []
        self._size = 0
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._denied = False
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Makes group and stream unless they are there."""
        await self._make()
        self._task = asyncio.get_running_loop().create_task(self._sending(), name=f"log {self.stream}")

    async def _make(self) -> None:
        for operation, asked in (
            ("CreateLogGroup", {"logGroupName": self.group}),
            ("CreateLogStream", {"logGroupName": self.group, "logStreamName": self.stream}),
        ):
            try:
                await self._session.act("logs", operation, asked)
            except Refused as refused:
                if refused.code != "ResourceAlreadyExistsException" and operation == "CreateLogStream":
                    self._denied = True

    async def write(self, line: bytes) -> None:
        """Takes a line; waits when more has been written than could be sent."""
        await self._take(line.decode("utf-8", "replace").rstrip("\r"))

    async def _take(self, text: str) -> None:
        if self._denied or self._task is None or not text:
            return  # CloudWatch keeps no empty events
        await self._room.wait()
        self._add(text)
        if self._size > FULL:
            self._room.clear()

    def _add(self, text: str) -> None:
        self._lines.append((self._session.calls.clock() // 1000, text))
        self._size += size_of(text)
        self._more.set()

    async def _sending(self) -> None:
        while True:
            await self._more.wait()
            if not self._closing:
                await asyncio.sleep(_GATHER_SECONDS)
            self._more.clear()
            while self._lines and not self._denied:
                await self._batch()
                if self._size <= FULL:
                    self._room.set()
            if self._denied:
                self._lines.clear()
                self._size = 0
                self._room.set()
            if self._closing and not self._lines:
                return

    async def _batch(self) -> None:
        """Sends as many lines as go at once; time runs forward in them, as PutLogEvents wants it."""
        size, last = 0, 0
        events: list[dict[str, object]] = []
        for at, text in self._lines[:_MOST_EVENTS]:
            more = size_of(text)
            if size + more > _MOST_BYTES and events:
                break
            size += more
            last = max(last, at)
            events.append({"timestamp": last, "message": text})
        asked = {"logGroupName": self.group, "logStreamName": self.stream, "logEvents": events}
        for attempt in range(3):
            try:
                await self._session.act("logs", "PutLogEvents", asked)
            except Refused:
                self._denied = True
            except Exception:
                _log.exception("lines of %s could not be written", self.stream)
                await asyncio.sleep(0.2 * (attempt + 1))
                continue
            break
        del self._lines[: len(events)]
        self._size -= size

    async def close(self) -> None:
        """Sends what is left."""
        task, self._task = self._task, None
        if task is not None:
            self._closing = True
            self._more.set()
            await task

    async def abandon(self) -> None:
        """Stops without sending."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def size_of(text: str) -> int:
    """What an event counts for, in bytes."""
    return len(text.encode("utf-8", "replace")) + OVERHEAD

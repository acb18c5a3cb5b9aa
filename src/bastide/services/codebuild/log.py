"""A build's output on its way to CloudWatch Logs and to S3, with the build's own session and without its secrets."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bastide.domain import MICROS, Refused
from bastide.services.codebuild.session import RoleSession
from bastide.services.codebuild.variables import Variables

_log = logging.getLogger("bastide.codebuild")

_GATHER_SECONDS: Final = 0.25
_MOST_BYTES: Final = 900_000
_MOST_EVENTS: Final = 5_000
_FULL: Final = 8 << 20
_OVERHEAD: Final = 26


class BuildLog:
    """Writes lines in batches. A role that may not write logs has a build all the same, without. group: empty if no lines
    go to CloudWatch. copy: a file that is to hold them all, packed."""

    def __init__(self, session: RoleSession, group: str, stream: str, copy: Path | None) -> None:
        self.group = group
        self.stream = stream
        self.variables = Variables()
        """Whose secrets are hidden."""
        self.whole = True
        """Whether the copy holds every line."""
        self._session = session
        self._lines: list[tuple[int, str]] = []
        self._size = 0
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._denied = not group
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._copy: gzip.GzipFile | None = gzip.open(copy, "wb", 6) if copy is not None else None  # noqa: SIM115

    async def open(self) -> None:
        """Makes group and stream unless they are there."""
        if self._denied:
            return
        for operation, asked in (
            ("CreateLogGroup", {"logGroupName": self.group}),
            ("CreateLogStream", {"logGroupName": self.group, "logStreamName": self.stream}),
        ):
            try:
                await self._session.act("logs", operation, asked)
            except Refused as refused:
                if refused.code != "ResourceAlreadyExistsException" and operation == "CreateLogStream":
                    self._denied = True
        self._task = asyncio.get_running_loop().create_task(self._sending(), name=f"log {self.stream}")

    async def say(self, text: str) -> None:
        """A line of CodeBuild's own."""
        now = datetime.fromtimestamp(self._session.calls.clock() / MICROS, UTC)
        stamp = now.strftime("%Y/%m/%d %H:%M:%S.%f")
        for line in text.splitlines() or [""]:
            await self.write(f"[Container] {stamp} {line}".encode("utf-8", "replace"))

    async def write(self, line: bytes) -> None:
        """Takes a line; waits when more has been written than could be sent."""
        text = self.variables.masked(line.decode("utf-8", "replace").rstrip("\r"))
        if self._copy is not None:
            try:
                await asyncio.to_thread(self._copy.write, text.encode("utf-8", "replace") + b"\n")
            except OSError:  # the build has filled its disk
                await self._lose_copy()
        if self._denied or self._task is None or not text:
            return  # CloudWatch keeps no empty events
        await self._room.wait()
        self._lines.append((self._session.calls.clock() // 1000, text))
        self._size += len(line) + _OVERHEAD
        if self._size > _FULL:
            self._room.clear()
        self._more.set()

    async def _lose_copy(self) -> None:
        copy, self._copy = self._copy, None
        self.whole = False
        if copy is not None:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(copy.close)

    async def _sending(self) -> None:
        while True:
            await self._more.wait()
            if not self._closing:
                await asyncio.sleep(_GATHER_SECONDS)
            self._more.clear()
            while self._lines and not self._denied:
                batch, size = 0, 0
                for _, text in self._lines[:_MOST_EVENTS]:
                    size += len(text.encode("utf-8", "replace")) + _OVERHEAD
                    if size > _MOST_BYTES and batch:
                        break
                    batch += 1
                await self._send(self._lines[:batch])
                del self._lines[:batch]
                self._size = sum(len(text) + _OVERHEAD for _, text in self._lines)
                if self._size <= _FULL:
                    self._room.set()
            if self._denied:
                self._lines.clear()
                self._room.set()
            if self._closing and not self._lines:
                return

    async def _send(self, lines: list[tuple[int, str]]) -> None:
        last = 0
        events = []
        for at, message in lines:
            last = max(last, at)
            events.append({"timestamp": last, "message": message})
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
            return

    async def close(self) -> None:
        """Sends what is left."""
        if self._copy is not None:
            try:
                await asyncio.to_thread(self._copy.close)
            except OSError:
                self.whole = False
            self._copy = None
        if self._task is None:
            return
        self._closing = True
        self._more.set()
        task, self._task = self._task, None
        await task

    async def abandon(self) -> None:
        """Stops without sending."""
        if self._copy is not None:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._copy.close)
            self._copy = None
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

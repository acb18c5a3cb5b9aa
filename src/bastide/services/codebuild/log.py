"""A build's output on its way to CloudWatch Logs and to S3, with the build's own session and without its secrets."""

from __future__ import annotations

import asyncio
import gzip
from datetime import UTC, datetime
from pathlib import Path

from bastide.domain import MICROS
from bastide.kernel import LogStream
from bastide.services.codebuild.session import RoleSession
from bastide.services.codebuild.variables import Variables


class BuildLog(LogStream):
    """Writes lines in batches. A role that may not write logs has a build all the same, without. group: empty if no lines
    go to CloudWatch. copy: a file that is to hold them all, packed."""

    def __init__(self, session: RoleSession, group: str, stream: str, copy: Path | None) -> None:
        super().__init__(session, group, stream)
        self.variables = Variables()
        """Whose secrets are hidden."""
        self.whole = True
        """Whether the copy holds every line."""
        self._copy: gzip.GzipFile | None = gzip.open(copy, "wb", 6) if copy is not None else None  # noqa: SIM115

    async def open(self) -> None:
        """Makes group and stream unless they are there."""
        if self.group:
            await super().open()

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
                self.whole = False
                await self._end_copy()
        await self._take(text)

    async def _end_copy(self) -> None:
        copy, self._copy = self._copy, None
        if copy is not None:
            try:
                await asyncio.to_thread(copy.close)
            except OSError:
                self.whole = False

    async def close(self) -> None:
        """Sends what is left."""
        await self._end_copy()
        await super().close()

    async def abandon(self) -> None:
        """Stops without sending."""
        await self._end_copy()
        await super().abandon()

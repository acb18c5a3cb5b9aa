"""What an environment says, on its way to CloudWatch Logs with the function's own role."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from bastide.kernel import LogStream
from bastide.kernel.log_stream import FULL, OVERHEAD, size_of
from bastide.services.lambda_.session import RoleSession

_log = logging.getLogger("bastide.lambda")

_LONGEST: Final = 256 * 1024 - OVERHEAD


class Stream(LogStream):
    """Takes lines at once and writes them in batches; group and stream are made with the first. What is said faster than it
    can be written is dropped, and a line says how much."""

    def __init__(self, session: RoleSession, group: str, name: str) -> None:
        super().__init__(session, group, name)
        self._dropped = 0

    def tell(self, text: str) -> None:
        """Takes a line."""
        if self._denied or not text:
            return
        if self._size + size_of(text) > FULL:
            self._dropped += 1
            return
        if self._dropped:
            self._pieces(f"[{self._dropped} lines were printed faster than they could be kept, and dropped]")
            self._dropped = 0
        self._pieces(text)

    def _pieces(self, text: str) -> None:
        for at in range(0, len(text), _LONGEST // 4):
            self._add(text[at : at + _LONGEST // 4])
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._running(), name="log of a function")

    async def _running(self) -> None:
        try:
            await self._make()
        except Exception:
            _log.exception("the log stream %s could not be made", self.stream)
            self._denied = True
        await self._sending()

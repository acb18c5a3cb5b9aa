"""What stands behind rows that say what is wanted: it is brought about, one thing at a time for each of them."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import Final

from bastide.kernel import Kind

_log: Final = logging.getLogger("bastide.sagemaker")


class Settling(ABC):
    """Base of those who bring it about. kind: of the rows. It may be asked as often as one likes."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._open = asyncio.Event()

    def settle(self, account: str, region: str, name: str) -> None:
        """Sees to it that what a row wants becomes so, after what is being done for it now, once `_open` is set."""
        arn = self._kind.arn(account, region, name)
        before = self._tasks.get(arn)

        async def work() -> None:
            await self._open.wait()
            if before is not None:
                await asyncio.wait({before})
            await self._settle(account, region, name, arn)

        task = self._tasks[arn] = asyncio.get_running_loop().create_task(work(), name=f"settling {arn}")
        task.add_done_callback(lambda one: self._over(arn, one))

    def _over(self, arn: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(arn) is task:
            del self._tasks[arn]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("what %s is to become could not be written", arn, exc_info=error)

    @abstractmethod
    async def _settle(self, account: str, region: str, name: str, arn: str) -> None:
        """Makes what the row says, and writes what became of it."""

    async def _stop(self) -> None:
        """Ends what is being done."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

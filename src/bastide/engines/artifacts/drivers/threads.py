"""Work in threads, seen from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TypeVar

_T = TypeVar("_T")


async def settled(work: asyncio.Future[_T]) -> _T:
    """What a thread does, to its end: also when the caller is cancelled meanwhile, who is told afterwards.

    A descriptor must not be closed under a thread that still writes to it: its number may be another file's by then.
    """
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((work,))
        if not work.cancelled():
            work.exception()
        raise

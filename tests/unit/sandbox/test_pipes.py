"""What reads a job's output closes its descriptor once: a second close would hit what another thread opened meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from bastide.engines.sandbox.drivers.bubblewrap import _reading


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
def test_a_descriptor_is_closed_once(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def work() -> None:
        there, far = os.pipe()
        reader = asyncio.StreamReader()
        transport = await _reading(there, reader)
        os.write(far, b"said")
        os.close(far)
        assert await reader.read() == b"said"
        transport.close()
        for _ in range(3):
            await asyncio.sleep(0)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(there)
        # Whoever opens something now gets the same number, and keeps it when the file object goes.
        again = os.open("/dev/null", os.O_RDONLY)
        try:
            assert again == there
            pipe = transport.get_extra_info("pipe")
            if pipe is not None:
                pipe.close()
            del transport, pipe
            os.fstat(again)
        finally:
            os.close(again)

    run(work())


def test_of_the_two_that_could_close_it_only_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop closes the descriptor itself, so the file object that it then closes must not."""
    made: list[Any] = []
    fdopen = os.fdopen

    def held(*given: Any, **more: Any) -> Any:
        made.append(fdopen(*given, **more))
        return made[-1]

    monkeypatch.setattr(os, "fdopen", held)

    async def work() -> None:
        there, far = os.pipe()
        os.close(far)
        transport = await _reading(there, asyncio.StreamReader())
        transport.close()
        await asyncio.sleep(0)

    for run, closes in ((uvloop.run, False), (asyncio.run, True)):
        run(work())
        assert made[-1].closefd is closes

"""Bayesian proposals by Optuna's tree-structured Parzen estimator, in a process of its own.

Importing it takes most of a second and every proposal some milliseconds, neither of which the event loop has. The process
is started when it is first asked and ends when nobody has for a while, or with the platform.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson

from bastide.engines.tuning.space import Space

_PROGRAM: Final = str(Path(__file__).with_name("parzen.py"))
_IDLE_SECONDS: Final = 60.0
_LONGEST_SECONDS: Final = 60.0
_LONGEST_LINE: Final = 1 << 24


class OptimiserError(Exception):
    """There is no proposal. The message is for the operator."""


class Optimiser:
    """Asks the process, one question at a time."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None

    @staticmethod
    def lacking() -> str:
        """What to install before it can be asked; empty if nothing."""
        return "" if importlib.util.find_spec("optuna") is not None else "bastide[tune]"

    async def suggest(
        self, space: Space, seed: int, number: int, known: Sequence[tuple[Sequence[float], float | None]]
    ) -> list[float]:
        """Places for the trial of that number. known: places that were tried, with what is to be small, or None where a
        trial still runs. Raises OptimiserError."""
        question = {
            "seed": [seed, number],
            "parameters": [len(one.values) for one in space.parameters],
            "known": [[list(places), value] for places, value in known],
        }
        async with self._turn:
            try:
                async with asyncio.timeout(_LONGEST_SECONDS):
                    answer = await self._ask(orjson.dumps(question) + b"\n")
            except BaseException as error:
                await self._end()  # an answer that comes late must not be taken for the next one
                if isinstance(error, (OSError, TimeoutError, ValueError)):
                    raise OptimiserError(f"the optimiser did not answer: {error!r}") from error
                raise
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(_IDLE_SECONDS, lambda: asyncio.ensure_future(self.close()))
        return [float(place) for place in answer]

    async def _ask(self, line: bytes) -> list[float]:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                _PROGRAM,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                cwd="/",
                limit=_LONGEST_LINE,
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(line)
        await process.stdin.drain()
        answer: list[float] = orjson.loads(await process.stdout.readline())
        return answer

    async def close(self) -> None:
        """Ends the process; the next question starts another."""
        async with self._turn:
            await self._end()

    async def _end(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

"""The values that MetricDefinitions find in a job's output."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Clock, Refused
from bastide.services.sagemaker.statistic import added

_READER: Final = str(Path(__file__).with_name("metric_reader.py"))
_LONGEST: Final = 8192
_BEHIND: Final = 1 << 20
_MOST_FOLLOWED: Final = 20_000


def check(definitions: Sequence[dict[str, Any]]) -> None:
    """Raises Refused for a definition whose expression is none."""
    for one in definitions:
        try:
            re.compile(one["Regex"])
        except (re.error, RecursionError, OverflowError) as error:
            raise Refused(
                "ValidationException", f"The Regex of the metric {one['Name']} is no regular expression: {error}"
            ) from None


class Metrics:
    """Feeds lines to the reader's process, keeps the last value of each metric and tells every one (name, value)."""

    def __init__(
        self, definitions: Sequence[dict[str, Any]], clock: Clock, tell: Callable[[str, float], None] | None = None
    ) -> None:
        self._tell = tell
        self._definitions = [[one["Name"], one["Regex"]] for one in definitions]
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self.last: dict[str, tuple[float, int]] = {}
        self.follow = ""
        self.course: list[float] = []
        """All values, up to a limit, of the metric to `follow`."""
        self.courses: dict[str, dict[str, Any]] = {}
        """Each metric's statistic so far (see `statistic`)."""

    async def start(self) -> None:
        """Starts the reader, if there is anything to look for."""
        if not self._definitions:
            return
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            _READER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={},
            cwd="/",
        )
        assert self._process.stdin is not None
        self._process.stdin.write(orjson.dumps(self._definitions) + b"\n")
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        async for line in self._process.stdout:
            name, value = orjson.loads(line)
            if name == self.follow and len(self.course) < _MOST_FOLLOWED:
                self.course.append(value)
            now = self._clock()
            self.last[name] = (value, now)
            self.courses[name] = added(self.courses.get(name), value, now)
            if self._tell is not None:
                self._tell(name, value)

    def feed(self, line: bytes) -> None:
        """Takes a line of output; leaves it out while the reader is far behind."""
        if self._process is None or self._process.stdin is None or self._process.stdin.is_closing():
            return
        if self._process.stdin.transport.get_write_buffer_size() < _BEHIND:
            self._process.stdin.write(line[:_LONGEST] + b"\n")

    async def close(self) -> list[dict[str, Any]]:
        """Ends the reader; returns FinalMetricDataList."""
        process, self._process = self._process, None
        if process is not None and self._reading is not None and process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await self._reading
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        return [
            # API_MetricData: the timestamp has seconds
            {"MetricName": name, "Value": value, "Timestamp": at // MICROS * MICROS}
            for name, (value, at) in sorted(self.last.items())
        ]

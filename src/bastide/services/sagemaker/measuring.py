"""What jobs and endpoints use, and what they measure of themselves, on its way to CloudWatch.

Values of jobs and of their machines are put with the job's own role, as on AWS: with a role that may not
(cloudwatch:PutMetricData) a job runs all the same, unmeasured.

Source: SageMaker developer guide, "Monitor Amazon SageMaker AI with Amazon CloudWatch".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from pathlib import Path
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.sandbox import Ended, Running
from bastide.engines.telemetry import Dimensions
from bastide.services.sagemaker.session import RoleSession

_log = logging.getLogger("bastide.sagemaker")
_GATHER_SECONDS: Final = 1.0
_MOST_AT_ONCE: Final = 1000
_MOST_WAITING: Final = 20_000
_FIRST_SECONDS: Final = 0.5
_LONGEST_SECONDS: Final = 20.0


class Measures:
    """Values put in batches, with a role's session, into one namespace."""

    def __init__(self, session: RoleSession, namespace: str) -> None:
        self._session = session
        self._namespace = namespace
        self._waiting: list[dict[str, Any]] = []
        self._denied = False
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, name: str, value: float, unit: str, dimensions: Dimensions) -> None:
        """Takes a value of now; leaves it out when too many wait."""
        if self._denied or len(self._waiting) >= _MOST_WAITING:
            return
        pairs = [{"Name": key, "Value": text} for key, text in dimensions]
        datum = {"MetricName": name, "Value": float(value), "Unit": unit, "Dimensions": pairs}
        self._waiting.append(datum | {"Timestamp": self._session.calls.clock()})

    def start(self) -> None:
        """Sends from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"metrics {self._namespace}")

    async def _run(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), _GATHER_SECONDS)
            await self._send()

    async def _send(self) -> None:
        while self._waiting and not self._denied:
            batch = self._waiting[:_MOST_AT_ONCE]
            del self._waiting[: len(batch)]
            try:
                await self._session.act(
                    "cloudwatch", "PutMetricData", {"Namespace": self._namespace, "MetricData": batch}
                )
            except Refused as refused:
                self._denied = refused.code.startswith("AccessDenied")
            except Exception:
                _log.exception("measured values of %s could not be put", self._namespace)

    async def close(self) -> None:
        """Sends what is left."""
        self._over.set()
        task, self._task = self._task, None
        if task is not None:
            await task

    def abandon(self) -> None:
        """Stops without sending."""
        if self._task is not None:
            self._task.cancel()
            self._task = None


class Usages:
    """Looks at what runs: often at first, then every twenty seconds. memory_bytes: what it may use; folder: its volume."""

    def __init__(
        self, measures: Measures, running: Running, memory_bytes: int, folder: Path, dimensions: Dimensions
    ) -> None:
        self._measures = measures
        self._running = running
        self._memory = memory_bytes
        self._folder = folder
        self._dimensions = dimensions
        self._taken = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Looks from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="usage")

    def _tell(self, name: str, part: float) -> None:
        self._measures.add(name, 100 * part, "Percent", self._dimensions)

    async def _run(self) -> None:
        pause, before, at = _FIRST_SECONDS, 0.0, time.monotonic()
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_SECONDS)
            used, now = self._running.usage(), time.monotonic()
            if used.cpu_seconds is not None and used.cpu_seconds >= before:
                # As SageMaker counts it: 100 for every processor that is busy.
                self._tell("CPUUtilization", (used.cpu_seconds - before) / (now - at))
                before, at, self._taken = used.cpu_seconds, now, True
            if used.memory_bytes is not None:
                self._tell("MemoryUtilization", used.memory_bytes / self._memory)
            try:
                disk = await asyncio.to_thread(os.statvfs, self._folder)
            except OSError:
                continue
            if disk.f_blocks:
                self._tell("DiskUtilization", 1 - disk.f_bavail / disk.f_blocks)

    def ended(self, ended: Ended) -> None:
        """What a job used that was over before anybody looked."""
        if self._taken or not ended.seconds:
            return
        if ended.cpu_seconds is not None:
            self._tell("CPUUtilization", ended.cpu_seconds / ended.seconds)
        if ended.peak_bytes is not None:
            self._tell("MemoryUtilization", ended.peak_bytes / self._memory)

    def close(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    abandon = close

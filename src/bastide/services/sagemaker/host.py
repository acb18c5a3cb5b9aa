"""One host of a job: what it holds in this process while the job runs."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from bastide.engines.lazy import Folders
from bastide.engines.sandbox import Ended, Running, Volumes
from bastide.engines.workflow import Failed
from bastide.kernel import Calls
from bastide.services.sagemaker.joblog import JobLog
from bastide.services.sagemaker.pipes import Pipe


@dataclass
class Host:
    """number: from 0. type: its instance type. group: its instance group. place: the name of its volume and sandbox.
    ml: its ``/opt/ml``. lazy: names and places of FastFile inputs, and the paths they have inside. folders: descriptors of
    those that pipes are in. faults: why inputs could not be read. tail: the last lines. interface: the network's, by
    which it reaches the other hosts."""

    number: int
    type: str
    group: str
    place: str = ""
    ml: Path = Path()
    volume: bool = False
    running: Running | None = None
    log: JobLog | None = None
    pipes: list[Pipe] = field(default_factory=list)
    folders: list[int] = field(default_factory=list)
    lazy: list[tuple[str, Path, str]] = field(default_factory=list)
    faults: list[Failed] = field(default_factory=list)
    tail: list[bytes] = field(default_factory=list)

    interface: str = "lo"

    @property
    def name(self) -> str:
        """As SageMaker names it."""
        return f"algo-{self.number + 1}"

    async def wait(self) -> Ended:
        """Until its program is gone."""
        assert self.running is not None
        return await self.running.wait()

    async def stop(self, grace: float) -> None:
        """Ends its program, if there is one."""
        if self.running is not None:
            await self.running.stop(grace)

    async def clear(self, calls: Calls) -> None:
        """Frees what it holds; its program must be gone."""
        if self.log is not None:
            await self.log.abandon()
        for name, _, _ in self.lazy:
            await calls.engine(Folders).unmount(name)
        self.lazy.clear()
        while self.folders:
            with contextlib.suppress(OSError):
                os.close(self.folders.pop())
        if self.volume:
            await calls.engine(Volumes).close(self.place)
            self.volume = False

"""What a build holds in this process, and what its steps have in common: the row, its phases, being stopped."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from bastide.domain import MICROS
from bastide.engines.images import Environment
from bastide.engines.placement import Claim
from bastide.engines.sandbox import Running
from bastide.engines.workflow import Failed, Run
from bastide.kernel import Calls
from bastide.services.codebuild import (
    archive,
    record,
)
from bastide.services.codebuild.buildspec import Buildspec
from bastide.services.codebuild.log import BuildLog
from bastide.services.codebuild.network import Network
from bastide.services.codebuild.noun import BUILD
from bastide.services.codebuild.script import HOME
from bastide.services.codebuild.session import RoleSession
from bastide.store import Row, Transaction

T = TypeVar("T")

STOPPED: Final = "STOPPED"
TIMED_OUT: Final = "TIMED_OUT"
FAULT: Final = "FAULT"
SOURCE: Final = f"{HOME}/output/src/src"
"""Where the primary source is seen inside."""
LOOK_SECONDS: Final = 0.5
"""Between two looks whether the volume is still there."""
GRACE: Final = 5.0
"""Seconds between SIGTERM and the end of a build that is stopped."""
MOST_VALUE: Final = 10_000
"""Bytes of an exported variable."""
LOST: Final = (
    "The machine that the build ran on was lost while its commands ran. What they did outside of the build stands; "
    "RetryBuild runs them again."
)
LINES_MESSAGE: Final = 600
"""Characters of a command that its failure shows."""


@dataclass
class Work:
    """What a build holds in this process."""

    session: RoleSession
    name: str
    log: BuildLog | None = None
    claim: Claim | None = None
    network: Network | None = None
    environment: Environment | None = None
    folder: Path = Path()
    volume: bool = False
    images: Path | None = None
    running: Running | None = None
    spec: Buildspec | None = None
    mark: str = ""
    names: list[tuple[str, str]] = field(default_factory=list)

    @property
    def own(self) -> Path:
        """The build's own folder, `HOME` inside."""
        return self.folder / "build"

    @property
    def source(self) -> Path:
        """The folder of the primary source."""
        return self.own / "output/src/src"

    def text_of(self, relative: str, most: int) -> bytes | None:
        """The beginning of a file that the build left in its own folder."""
        try:
            top = archive.top_of(self.own)
        except OSError:
            return None
        try:
            return archive.text_of(top, relative, most)
        finally:
            os.close(top)


class Steps:
    """What the steps of a build have in common."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def row(self, run: Run) -> Row:
        """The build as it stands."""
        with self.calls.store.reading() as view:
            return BUILD.find(view, run.state["account"], run.state["region"], run.state["name"])

    async def phase(
        self,
        run: Run,
        following: str,
        status: str = record.SUCCEEDED,
        contexts: tuple[dict[str, str], ...] = (),
        **more: Any,
    ) -> None:
        """The phase that runs is over, the following one begins; `more` becomes of the row."""

        def work(tx: Transaction) -> dict[str, Any] | None:
            row = BUILD.find(tx, run.state["account"], run.state["region"], run.state["name"])
            if row.status != record.IN_PROGRESS:
                return None
            over = record.end(tx, row, status, tx.now, contexts)
            record.begin(row, following, tx.now)
            row.doc.update(more)
            BUILD.change(tx, row, "BuildPhaseChange")
            return over

        over = await self.calls.store.write(work)
        held: Work | None = run.held.get("work")
        if held is not None and held.log is not None and over is not None:
            await self._told(held.log, over)
            await held.log.say(f"Entering phase {following}")

    @staticmethod
    async def _told(log: BuildLog, phase: Mapping[str, Any]) -> None:
        await log.say(f"Phase complete: {phase['phaseType']} State: {phase['phaseStatus']}")
        for one in phase["contexts"] or [{"statusCode": "", "message": ""}]:
            await log.say(f"Phase context status code: {one['statusCode']} Message: {one['message']}")

    async def _while(self, run: Run, work: Coroutine[Any, Any, T]) -> T:
        """`work`, given up when the build is stopped or has taken too long; raises Failed."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(run.signalled("stop"))
        try:
            await asyncio.wait({task, stop}, timeout=self._left(run), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if stop.done():
                raise Failed(STOPPED, "The build was stopped.")
            raise Failed(TIMED_OUT, self._too_long(run))
        finally:
            for one in (task, stop):
                one.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    def _left(self, run: Run) -> float:
        """Seconds until the build has taken too long: waiting in line, and from then on."""
        doc = self.row(run).doc
        if "started" in run.state:
            since, minutes = run.state["started"], doc["timeoutInMinutes"]
        else:
            since, minutes = doc["startTime"], doc["queuedTimeoutInMinutes"]
        return max(0.0, float(minutes) * 60 - (run.clock() - int(since)) / MICROS)

    def _too_long(self, run: Run) -> str:
        doc = self.row(run).doc
        if "started" in run.state:
            return f"Build has timed out: it took more than {doc['timeoutInMinutes']} minutes."
        return f"Build has timed out: it waited in line for more than {doc['queuedTimeoutInMinutes']} minutes."

    def _work(self, run: Run) -> Work:
        work: Work = run.held["work"]
        return work

    async def _through(self, run: Run, upto: str) -> None:
        order = ["INSTALL", "PRE_BUILD", "BUILD", "POST_BUILD", "UPLOAD_ARTIFACTS"]
        while True:
            here = self.row(run).doc["currentPhase"]
            at = order.index(here) if here in order else -1
            if here == upto or at >= order.index(upto):
                return
            contexts: tuple[dict[str, str], ...] = run.held.pop("contexts", ())
            status = "FAILED" if contexts else record.SUCCEEDED
            await self.phase(run, order[at + 1], status, contexts)

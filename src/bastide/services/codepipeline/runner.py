"""How an execution runs: stage by stage, as the stages become free, and in a stage the actions in their order.

`work` takes the execution on from wherever its row says it stands; `settle` leaves nothing behind it. All that a decision
needs is in rows, so that either may be repeated from its beginning by whoever comes after a crash.
Source: CodePipeline User Guide, "How pipeline executions work", "Set the pipeline execution mode".
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

from bastide.domain import Arn
from bastide.engines.workflow import Flow, Run, Step, Workflows, reach
from bastide.kernel import Calls
from bastide.kernel.happened import EVENTS
from bastide.kernel.outbox import Outbox
from bastide.services.codepipeline import telling
from bastide.services.codepipeline.bells import Bells, Listener
from bastide.services.codepipeline.execution import BEGUN, become
from bastide.services.codepipeline.noun import (
    CHANGED,
    PIPELINE,
    RUNNING,
    Doc,
    arn_of,
    changed,
    declaration,
    execution,
    place,
    put,
    stage_row,
)
from bastide.services.codepipeline.stage_run import StageRun
from bastide.store import Row, Transaction

T = TypeVar("T")
_log = logging.getLogger("bastide.codepipeline")
_LOOK_SECONDS: Final = 30.0
_DONE: Final = ("Succeeded", "Skipped")
_INTERNAL: Final = "An internal error occurred. Please retry the stage."


class ReleaseFlow:
    """The flow of executions."""

    name = "release"

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def flow(self) -> Flow:
        """The flow."""
        return Flow(self.name, [Step("work", self.work), Step("settle", self.settle, always=True)])

    @staticmethod
    def _where(run: Run) -> tuple[str, str, str, str]:
        state = run.state
        return state["account"], state["region"], state["pipeline"], state["execution"]

    def _row(self, run: Run) -> Row | None:
        with self.calls.store.reading() as view:
            return execution(view, *self._where(run))

    async def work(self, run: Run) -> dict[str, Any]:
        """Until the execution is over."""
        row = self._row(run)
        if row is None or row.status not in RUNNING:
            return {}
        account, pipeline, region = place(row)
        with self.calls.store.reading() as view:
            doc = declaration(view, account, region, pipeline, row.doc["version"])
        if doc is None:
            return {}
        only = row.doc.get("only")
        stages = [one for one in doc["stages"] if only in (None, one["name"])]
        bells = self.calls.engine(Bells)
        with bells.listening(arn_of(row)) as listener:
            for stage in stages:
                row = self._row(run)
                if row is None or row.status not in RUNNING:
                    return {}
                if (row.doc["stages"].get(stage["name"]) or {}).get("status") in _DONE:
                    continue
                if not await self._enter(run, stage["name"], listener):
                    return {}
                reach("release/enter:after")
                one = StageRun(self.calls, bells, self._where(run), doc, stage)
                if not await one.go():
                    return {}
                reach("release/stage:after")
        await self._end(run, "Succeeded")
        return {}

    async def _end(self, run: Run, status: str, reason: str = "") -> None:
        def work(tx: Transaction) -> Row | None:
            row = execution(tx, *self._where(run))
            if row is None or row.status not in RUNNING:
                return None
            become(tx, row, status, tx.now, reason)
            put(tx, row)
            changed(tx, row)
            return row

        await self.calls.store.write(work)

    # -- the way into a stage ----------------------------------------------------------------------------------------------

    async def _enter(self, run: Run, name: str, listener: Listener) -> bool:
        """Whether the execution is in the stage now; otherwise it ended before it."""
        while True:
            listener.clear()
            outcome = await self.calls.store.write(lambda tx: self._try(tx, run, name))
            if outcome != "waits":
                return outcome == "in"
            await listener.wait(_LOOK_SECONDS)

    def _try(self, tx: Transaction, run: Run, name: str) -> str:
        account, region, pipeline, _ = self._where(run)
        row = execution(tx, *self._where(run))
        if row is None or row.status not in RUNNING:
            return "over"
        stage = stage_row(tx, account, region, pipeline, name)
        held, there = stage.doc, row.doc["stages"].get(name)
        if there is not None and (held["held"] == row.name or row.doc["mode"] == "PARALLEL"):
            return "in"  # somebody before us had come so far
        ending = "Cancelled" if row.doc.get("cancelled") else "Stopped" if row.doc.get("stop") else ""
        if ending:
            self._forget(held, row.name)
            put(tx, stage)
            become(tx, row, ending, tx.now)
            put(tx, row)
            changed(tx, row)
            return "over"
        if there is None and not self._may(tx, row, stage):
            put(tx, stage)
            return "over" if row.status not in RUNNING else "waits"
        if there is not None and held["held"]:
            return "waits"
        self._forget(held, row.name)
        if row.doc["mode"] != "PARALLEL":
            held["held"] = row.name
        held["last"] = row.name
        put(tx, stage)
        if there is None:
            row.doc["stages"][name] = {"status": "InProgress", "entered": tx.now, "actions": {}}
        telling.stage(tx, row, name, "InProgress" if there is None else "Resumed")
        row.doc["at"], row.doc["updated"] = name, tx.now
        put(tx, row)
        return "in"

    @staticmethod
    def _forget(held: Doc, name: str) -> None:
        held["waiting"] = [one for one in held["waiting"] if one != name]

    def _may(self, tx: Transaction, row: Row, stage: Row) -> bool:
        """Whether the stage is the execution's turn; it waits otherwise, or is superseded. The stage's row is written by
        whoever calls."""
        held, mode = stage.doc, row.doc["mode"]
        if row.name not in held["waiting"]:
            held["waiting"] = sorted([*held["waiting"], row.name])
        if mode == "PARALLEL":
            return bool(held["enabled"])
        if mode == "SUPERSEDED":
            newest = held["waiting"][-1]
            for one in held["waiting"][:-1]:
                self._supersede(tx, row if one == row.name else execution(tx, *self._beside(row, one)), newest)
            held["waiting"] = [newest]
            if newest != row.name:
                return False
        return bool(held["enabled"]) and not held["held"] and held["waiting"][0] == row.name

    @staticmethod
    def _beside(row: Row, name: str) -> tuple[str, str, str, str]:
        account, pipeline, region = place(row)
        return account, region, pipeline, name

    @staticmethod
    def _supersede(tx: Transaction, row: Row | None, newer: str) -> None:
        if row is None or row.status not in RUNNING:
            return
        become(tx, row, "Superseded", tx.now, f"Superseded by the execution {newer}.")
        put(tx, row)
        changed(tx, row)

    # -- the end -----------------------------------------------------------------------------------------------------------

    async def settle(self, run: Run) -> dict[str, Any]:
        """No stage is held by an execution that is over; one that failed in a way nobody planned says so."""

        def work(tx: Transaction) -> Row | None:
            account, region, pipeline, _ = self._where(run)
            row = execution(tx, *self._where(run))
            if row is None:
                return None
            if row.doc["attempt"] != run.state["attempt"]:
                return None
            if row.status in RUNNING:
                for name, stage in row.doc["stages"].items():
                    if stage["status"] == "InProgress":
                        stage["status"] = "Failed"
                        telling.stage(tx, row, name, "Failed")
                        for record in stage["actions"].values():
                            if record["status"] == "InProgress":
                                record["status"] = "Failed"
                                record["error"] = {"code": "SystemUnavailable", "message": _INTERNAL}
                become(tx, row, "Failed", tx.now, _INTERNAL)
                put(tx, row)
            doc = declaration(tx, account, region, pipeline, row.doc["version"])
            for one in (doc or {}).get("stages", ()):
                stage = stage_row(tx, account, region, pipeline, one["name"])
                if stage.doc["held"] == row.name or row.name in stage.doc["waiting"]:
                    stage.doc["held"] = "" if stage.doc["held"] == row.name else stage.doc["held"]
                    self._forget(stage.doc, row.name)
                    put(tx, stage)
            changed(tx, row)
            return row

        row = await self.calls.store.write(work)
        if row is not None:
            telling.measure(self.calls, row)
        return {}


def subscribe(outbox: Outbox, calls: Calls, workflows: Workflows) -> None:
    """Executions begin, and whoever waits is woken, once it is on the disk."""
    bells = calls.engine(Bells)

    async def begun(body: dict[str, Any]) -> None:
        id = f"{PIPELINE.arn(body['account'], body['region'], body['pipeline'])}/{body['execution']}/{body['attempt']}"
        await workflows.begin(ReleaseFlow.name, id, body)

    async def rung(body: dict[str, Any]) -> None:
        bells.ring(body["pipeline"])

    async def happened(body: dict[str, Any]) -> None:
        told = _OF.get((str(body.get("source")), str(body.get("detail-type"))))
        if told is not None:
            for key in told(body):
                bells.ring(key)

    outbox.subscribe(BEGUN, begun)
    outbox.subscribe(CHANGED, rung)
    outbox.subscribe(EVENTS, happened)


_OF: Final[dict[tuple[str, str], Callable[[dict[str, Any]], list[str]]]] = {
    ("aws.cloudformation", "CloudFormation Stack Status Change"): lambda body: body["resources"],
    ("aws.states", "Step Functions Execution Status Change"): lambda body: body["resources"],
    ("aws.codebuild", "CodeBuild Build State Change"): lambda body: [
        Arn.parse(body["detail"]["build-id"]).resource.removeprefix("build/")
    ],
}
"""What the platform's own events tell of: names that actions listen for."""

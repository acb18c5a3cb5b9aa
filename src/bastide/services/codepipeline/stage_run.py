"""A stage of an execution: its conditions, its actions group by group, and what follows when it succeeds or fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Calls
from bastide.services.codepipeline import telling
from bastide.services.codepipeline.action_run import ActionRun
from bastide.services.codepipeline.bells import Bells
from bastide.services.codepipeline.conditions import Conditions
from bastide.services.codepipeline.declaration import groups
from bastide.services.codepipeline.execution import become, prepare_retry, roll_back
from bastide.services.codepipeline.noun import (
    EXECUTION,
    PIPELINE,
    RUNNING,
    Doc,
    changed,
    execution,
    put,
    stage_row,
)
from bastide.services.codepipeline.work import Gone
from bastide.store import Row, Transaction

_LOOKED_AT: Final = 500
"""Executions among which one is sought to roll back to."""


class StageRun:
    """A stage on its way. where: account, region, pipeline and execution; doc, stage: as declared."""

    def __init__(self, calls: Calls, bells: Bells, where: tuple[str, str, str, str], doc: Doc, stage: Doc) -> None:
        self.calls = calls
        self.bells = bells
        self.where = where
        self.doc = doc
        self.stage = stage
        self.name = str(stage["name"])
        self.conditions = Conditions(calls, bells, where, doc, stage)

    def _row(self) -> Row:
        with self.calls.store.reading() as view:
            row = execution(view, *self.where)
        if row is None:
            raise Gone
        return row

    async def go(self) -> bool:
        """Until it is over; whether the execution goes on behind it."""
        try:
            entry = await self.conditions.check("beforeEntry")
            if entry:
                return await self._not_entered(entry)
            while True:
                ended = await self._actions()
                if ended == "Succeeded":
                    return await self._succeeded()
                if ended != "Failed":
                    await self._end(ended, ended)
                    return False
                following = await self._failed()
                if following != "RETRY":
                    return following == "SKIP"
        except Gone:
            return False

    async def _not_entered(self, result: str) -> bool:
        if result == "SKIP":
            await self._leave("Skipped")
            return True
        await self._end(
            "Failed", "Failed", reason=f"The conditions for the entry to the stage {self.name} are not met."
        )
        return False

    # -- actions -----------------------------------------------------------------------------------------------------------

    async def _actions(self) -> str:
        """How the actions ended: Succeeded, Failed, Stopped or Cancelled."""
        every = groups(self.stage)
        last = every[-1]
        for group in every:
            row = self._row()
            records = row.doc["stages"][self.name]["actions"]
            due = [one for one in group if (records.get(one["name"]) or {}).get("status") not in _KNOWN]
            begun = [one for one in due if one["name"] in records]
            if _ending(row):
                due = begun  # nothing new begins; what runs is waited for, or sees itself that it is given up
            tasks = [
                asyncio.create_task(ActionRun(self.calls, self.bells, self.where, self.doc, self.name, one).go())
                for one in due
            ]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            row = self._row()
            records = row.doc["stages"][self.name]["actions"]
            statuses = [(records.get(one["name"]) or {}).get("status", "") for one in group]
            if "Failed" in statuses:
                return "Failed"
            if _ending(row) and (group is not last or any(one != "Succeeded" for one in statuses)):
                return _ending(row)
        return "Succeeded"

    # -- ends --------------------------------------------------------------------------------------------------------------

    def _ended(self, tx: Transaction, status: str) -> Row | None:
        """The stage's status, with its event, and nobody in it; the row is written by whoever calls."""
        account, region, pipeline, _ = self.where
        row = execution(tx, *self.where)
        if row is None or row.status not in RUNNING:
            return None
        stage = row.doc["stages"][self.name]
        stage["status"], stage["ended"] = status, tx.now
        row.doc["updated"] = tx.now
        telling.stage(tx, row, self.name, status)
        held = stage_row(tx, account, region, pipeline, self.name)
        if held.doc["held"] == row.name:
            held.doc["held"] = ""
            put(tx, held)
        changed(tx, row)
        return row

    async def _leave(self, status: str) -> None:
        def work(tx: Transaction) -> None:
            row = self._ended(tx, status)
            if row is not None:
                put(tx, row)

        await self.calls.store.write(work)

    async def _end(
        self, stage: str, status: str, *, reason: str = "", also: Callable[[Transaction, Row], None] | None = None
    ) -> None:
        """The stage ended, and the execution with it."""

        def work(tx: Transaction) -> None:
            row = self._ended(tx, stage)
            if row is None:
                return
            become(tx, row, status, tx.now, reason)
            put(tx, row)
            if also is not None:
                also(tx, row)

        await self.calls.store.write(work)

    async def _succeeded(self) -> bool:
        result = await self.conditions.check("onSuccess")
        if not result:
            await self._leave("Succeeded")
            return True
        also = self._rolled_back if result == "ROLLBACK" else None
        reason = f"The conditions for the success of the stage {self.name} are not met."
        await self._end("Failed", "Failed", reason=reason, also=also)
        return False

    async def _failed(self) -> str:
        """What follows: RETRY (the stage's actions are to be run again), SKIP, or nothing."""
        held = self.stage.get("onFailure") or {}
        row = self._row()
        stage = row.doc["stages"][self.name]
        result = ""
        if held.get("result") == "RETRY" and not stage.get("auto") and not _ending(row):
            mode = (held.get("retryConfiguration") or {}).get("retryMode") or "FAILED_ACTIONS"
            await self._retry(mode)
            return "RETRY"
        if any(condition.get("rules") for condition in held.get("conditions") or ()):
            result = await self.conditions.check("onFailure")
        elif held.get("conditions"):
            result = held["conditions"][0].get("result") or ""
        elif held.get("result") != "RETRY":
            result = held.get("result") or ""
        if result == "SKIP":
            await self._leave("Skipped")
            return "SKIP"
        reason = _reason(stage)
        await self._end("Failed", "Failed", reason=reason, also=self._rolled_back if result == "ROLLBACK" else None)
        return ""

    async def _retry(self, mode: str) -> None:
        def work(tx: Transaction) -> None:
            row = execution(tx, *self.where)
            if row is not None and not row.doc["stages"][self.name].get("auto"):
                prepare_retry(row.doc["stages"][self.name], mode, "AutomatedStageRetry")
                telling.stage(tx, row, self.name, "Resumed")
                put(tx, row)

        await self.calls.store.write(work)

    def _rolled_back(self, tx: Transaction, row: Row) -> None:
        """Begins an execution that brings the stage back to the last one that succeeded in it, if there is one."""
        account, region, name, _ = self.where
        pipeline = PIPELINE.get(tx, account, region, name)
        if pipeline is None or row.doc["kind"] != "STANDARD" or pipeline.doc["version"] != self.doc["version"]:
            return
        trigger = {"type": "AutomatedRollback", "detail": row.name}
        for target in tx.scan(
            EXECUTION, f"{account}/{name}", region, order="created", descending=True, limit=_LOOKED_AT
        ):
            if target.name == row.name:
                continue
            with contextlib.suppress(Refused):
                roll_back(tx, pipeline, self.doc, self.name, target, trigger, tx.now)
                return


_KNOWN: Final = ("Succeeded", "Failed", "Abandoned")


def _ending(row: Row) -> str:
    return "Cancelled" if row.doc.get("cancelled") else "Stopped" if row.doc.get("stop") else ""


def _reason(stage: Doc) -> str:
    """The cause of a stage's failure in one line, that of its first action that failed."""
    for name, record in stage["actions"].items():
        if record["status"] == "Failed":
            error: dict[str, Any] = record.get("error") or {}
            return f"{name}: {error.get('message') or record.get('summary') or 'failed'}"
    return ""

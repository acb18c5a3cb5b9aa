"""How an execution of a pipeline runs: steps in their order, beside each other where they can be.

`work` begins what may begin and waits for what runs; `settle` writes how it ended. All that a decision needs is in rows, so
either may be repeated from its beginning by whoever comes after a crash.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from bastide.engines.workflow import Flow, Run, Step, Workflows
from bastide.kernel import Calls
from bastide.kernel.outbox import Outbox
from bastide.services.sagemaker import pipeline_events, pipeline_execution, pipeline_step, pipeline_version
from bastide.services.sagemaker import pipeline_language as language
from bastide.services.sagemaker.pipeline_callback import ANSWERED
from bastide.services.sagemaker.pipeline_job import MADE
from bastide.services.sagemaker.pipeline_run import StepRun
from bastide.services.sagemaker.pipeline_step import OVER, PIPELINE_EXECUTION
from bastide.services.sagemaker.session import RoleSession
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.sagemaker")

_LOOK_SECONDS: Final = 30.0
_MOST_PARALLEL: Final = 50
_CHANGED: Final = "PipelineExecutionStateChange"
_FAILED: Final = "Step failure: One or multiple steps failed."
_INTERNAL: Final = "InternalServerError: We encountered an internal error. Please retry the execution."


class PipelineFlow:
    """The flow of executions."""

    name = "pipeline"

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def flow(self) -> Flow:
        """The flow."""
        return Flow(self.name, [Step("work", self.work), Step("settle", self.settle, always=True)])

    def _look(self, run: Run) -> tuple[Row, dict[str, Row]]:
        """The execution and the steps that have begun, as they stand."""
        with self.calls.store.reading() as view:
            row = PIPELINE_EXECUTION.find(view, run.state["account"], run.state["region"], run.state["name"])
            return row, pipeline_step.every(view, row)

    async def work(self, run: Run) -> dict[str, Any]:
        """Until nothing runs and nothing more may begin."""
        with self.calls.store.reading() as view:
            execution = PIPELINE_EXECUTION.find(view, run.state["account"], run.state["region"], run.state["name"])
            text = pipeline_execution.text_of(view, execution)
        run.held["definition"] = await asyncio.to_thread(pipeline_version.understood, text)
        session = RoleSession(
            self.calls,
            execution.doc["RoleArn"],
            account=execution.account,
            region=execution.region,
            source_arn=execution.doc["PipelineExecutionArn"],
        )
        definition: language.Definition = run.held["definition"]
        tasks: dict[str, asyncio.Task[None]] = {}
        stop = asyncio.ensure_future(run.signalled("stop"))
        try:
            while True:
                execution, rows = self._look(run)
                for name in self._due(run, execution, rows, definition, set(tasks)):
                    one = StepRun(self.calls, run, session, definition.steps[name])
                    tasks[name] = asyncio.create_task(one.go(), name=f"{run.id} {name}")
                if not tasks:
                    return {}
                waiting: list[asyncio.Future[None]] = [*tasks.values(), *(() if stop.done() else (stop,))]
                await asyncio.wait(waiting, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for name in [name for name, task in tasks.items() if task.done()]:
                    await self._ended(execution, name, tasks.pop(name))
        finally:
            for task in (stop, *tasks.values()):
                task.cancel()
            await asyncio.gather(stop, *tasks.values(), return_exceptions=True)
            session.end()

    def _due(
        self, run: Run, execution: Row, rows: Mapping[str, Row], definition: language.Definition, here: set[str]
    ) -> list[str]:
        """Steps to take up now: those that a process before this one left, and those that may begin."""
        due = [name for name, row in rows.items() if row.status not in OVER and name not in here]
        if run.asked("stop") or execution.status == "Stopping" or any(row.status == "Failed" for row in rows.values()):
            return due
        room = int(
            (execution.doc.get("ParallelismConfiguration") or {}).get("MaxParallelExecutionSteps", _MOST_PARALLEL)
        )
        room -= len(here) + len(due)
        ready = [name for name in waiting(execution, rows, definition) if name not in here]
        return due + ready[: max(room, 0)]

    async def _ended(self, execution: Row, name: str, task: asyncio.Task[None]) -> None:
        """A step's task is over; one that failed in a way nobody planned fails its step."""
        try:
            await task
        except Exception:
            _log.exception("the step %s of %s failed", name, execution.doc["PipelineExecutionArn"])
            await self.calls.store.write(lambda tx: _break(tx, execution, name))

    async def settle(self, run: Run) -> dict[str, Any]:
        """Writes how the execution ended."""

        def work(tx: Transaction) -> Row | None:
            row = PIPELINE_EXECUTION.get(tx, run.state["account"], run.state["region"], run.state["name"])
            if row is None or row.status not in pipeline_execution.RUNNING:
                return None
            for name, step in pipeline_step.every(tx, row).items():
                if step.status not in OVER:
                    _break(tx, row, name)
            failed = any(step.status == "Failed" for step in pipeline_step.every(tx, row).values())
            if run.failure is not None or failed:
                row.doc["FailureReason"] = _FAILED if failed else _INTERNAL
            ending = "Stopped" if row.status == "Stopping" else "Failed" if "FailureReason" in row.doc else "Succeeded"
            pipeline_execution.move(tx, row, ending, _CHANGED)
            return row

        row = await self.calls.store.write(work)
        if row is not None:
            pipeline_events.measure(self.calls, row, row.status, row.doc["_started"], row.doc["_ended"])
        return {}


def _break(tx: Transaction, execution: Row, name: str) -> None:
    step = pipeline_step.get(tx, execution, name)
    if step is not None and step.status not in OVER:
        step.doc["FailureReason"] = _INTERNAL
        pipeline_step.move(tx, execution, step, "Failed")


def waiting(execution: Row, rows: Mapping[str, Row], definition: language.Definition) -> list[str]:
    """Steps that have not begun and may: all that they wait for succeeded, and no condition went the other way."""
    config = execution.doc.get("SelectiveExecutionConfig")
    selected = None if config is None else {one["StepName"] for one in config["SelectedSteps"]}

    def done(name: str) -> bool:
        if selected is not None and name not in selected:
            return True
        return name in rows and rows[name].status == "Succeeded"

    def taken(step: language.Step) -> bool:
        if step.parent is None or (selected is not None and step.parent[0] not in selected):
            return True
        parent, branch = step.parent
        return parent in rows and rows[parent].doc.get("_outcome") is branch

    return [
        name
        for name, step in definition.steps.items()
        if name not in rows and (selected is None or name in selected) and taken(step) and all(map(done, step.after))
    ]


_BEGINS: Final = ("StartPipelineExecution", "RetryPipelineExecution")


def subscribe(outbox: Outbox, calls: Calls, workflows: Workflows) -> None:
    """Executions begin and stop, and learn what ended, once that is on the disk."""

    async def execution(body: dict[str, Any]) -> None:
        if body["event"] not in (*_BEGINS, "StopPipelineExecution"):
            return
        with calls.store.reading() as view:
            row = PIPELINE_EXECUTION.get(view, body["account"], body["region"], body["name"])
        if row is None:
            return
        if body["event"] == "StopPipelineExecution":
            await workflows.signal(row.doc["_flow"], "stop")
        elif row.status in pipeline_execution.RUNNING:
            where = {key: body[key] for key in ("account", "region", "name")}
            if await workflows.begin(PipelineFlow.name, row.doc["_flow"], where):
                pipeline_events.measure(calls, row, "", calls.clock(), calls.clock())
            if row.status == "Stopping":
                await workflows.signal(row.doc["_flow"], "stop")

    async def job(body: dict[str, Any]) -> None:
        if body["status"] in ("InProgress", "Stopping"):
            return
        with calls.store.reading() as view:
            flow = pipeline_step.expected(view, body["account"], body["region"], body["arn"])
        if flow is not None:
            await workflows.signal(flow, body["arn"])

    async def answered(body: dict[str, Any]) -> None:
        await workflows.signal(body["flow"], body["token"])

    outbox.subscribe(PIPELINE_EXECUTION.key, execution)
    outbox.subscribe(ANSWERED, answered)
    for made in MADE.values():
        if made.stop:
            outbox.subscribe(made.kind.key, job)

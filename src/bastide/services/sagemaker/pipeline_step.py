"""Steps of an execution that have begun: what ran for each, and what came of it.

A step is a row that is no resource. What is about to be made for it is on the disk before it is made, under the name that
it will have: whoever goes on after a crash makes what was planned and not yet made, which there is once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from bastide.domain import Instant
from bastide.kernel import Ask, Authorised, Kind, Output, pages
from bastide.services.sagemaker import pipeline_events
from bastide.services.sagemaker.pipeline_language import Step
from bastide.store import Row, Transaction, View

PIPELINE_EXECUTION: Final = Kind(
    "PipelineExecution",
    service="sagemaker",
    arn="pipeline/{}",
    named_by="PipelineExecutionArn",
    states=("Executing", "Stopping", "Stopped", "Failed", "Succeeded"),
    missing=("ResourceNotFound", "Pipeline execution with ARN {arn} does not exist.", 400),
)
"""A row is named ``PIPELINE/execution/ID``, as its ARN is. Beside what the API shows it keeps `_values`, the parameters as
they were understood, `_round`, how often it was begun, and `_flow`, the id of the workflow that runs it."""

_KIND: Final = "sagemaker:PipelineStep"
_CACHE: Final = "sagemaker:PipelineCache"
_JOB: Final = "sagemaker:PipelineJob"
_MOST: Final = 1000
OVER: Final = ("Succeeded", "Failed", "Stopped")
_SHOWN: Final = (
    "StepName",
    "StepDisplayName",
    "StepDescription",
    "StartTime",
    "EndTime",
    "CacheHitResult",
    "FailureReason",
    "Metadata",
    "AttemptCount",
    "SelectiveExecutionResult",
)


def _name(execution: Row, step: str) -> str:
    return f"{execution.name}|{step}"


def get(view: View, execution: Row, step: str) -> Row | None:
    """A step's row, None if it has not begun."""
    return view.get(_KIND, execution.account, execution.region, _name(execution, step))


def every(view: View, execution: Row) -> dict[str, Row]:
    """The rows of all steps that have begun, by the steps' names."""
    prefix = f"{execution.name}|"
    rows = view.scan(_KIND, execution.account, execution.region, prefix=prefix, limit=_MOST)
    return {row.name[len(prefix) :]: row for row in rows}


def begin(tx: Transaction, execution: Row, step: Step, **more: Any) -> Row:
    """A step begins; the event says so."""
    doc: dict[str, Any] = {"StepName": step.name, "_type": step.type, "StartTime": tx.now, "AttemptCount": 1, **more}
    if step.display:
        doc["StepDisplayName"] = step.display
    if step.description:
        doc["StepDescription"] = step.description
    row = Row(_KIND, execution.account, execution.region, _name(execution, step.name), doc, "Starting")
    tx.insert(row, keep=False)
    pipeline_events.step_moved(tx, execution, row, "")
    return row


def move(tx: Transaction, execution: Row, row: Row, status: str) -> None:
    """Writes a step's row with that status, and tells a change of it."""
    previous, row.status = row.status, status
    if status in OVER:
        row.doc["EndTime"] = tx.now
    tx.update(row, keep=False)
    if status != previous:
        pipeline_events.step_moved(tx, execution, row, previous)


def copy(tx: Transaction, execution: Row, row: Row) -> None:
    """A step's result in another execution of its pipeline, for a selective execution."""
    doc = {key: value for key, value in row.doc.items() if key not in ("FailureReason", "CacheHitResult")}
    doc["SelectiveExecutionResult"] = {
        "SourcePipelineExecutionArn": (row.doc.get("SelectiveExecutionResult") or {}).get("SourcePipelineExecutionArn")
        or f"{execution.doc['SelectiveExecutionConfig']['SourcePipelineExecutionArn']}"
    }
    tx.insert(
        Row(_KIND, execution.account, execution.region, _name(execution, row.doc["StepName"]), doc, row.status),
        keep=False,
    )


def drop(tx: Transaction, row: Row) -> None:
    """A step is to begin anew."""
    tx.delete(row, keep=False)


def forget(tx: Transaction, execution: Row) -> None:
    """Removes the rows of an execution's steps."""
    for row in every(tx, execution).values():
        tx.delete(row, keep=False)


# -- whose a job is ----------------------------------------------------------------------------------------------------


def expect(tx: Transaction, execution: Row, arn: str) -> None:
    """Notes that the end of a job concerns an execution, before there is the job."""
    if tx.get(_JOB, execution.account, execution.region, arn) is None:
        tx.insert(Row(_JOB, execution.account, execution.region, arn, {"flow": execution.doc["_flow"]}), keep=False)


def expected(view: View, account: str, region: str, arn: str) -> str | None:
    """The workflow that waits for a job's end."""
    row = view.get(_JOB, account, region, arn)
    return None if row is None else str(row.doc["flow"])


def unexpect(tx: Transaction, execution: Row, arn: str) -> None:
    """Nobody waits for a job any more."""
    row = tx.get(_JOB, execution.account, execution.region, arn)
    if row is not None:
        tx.delete(row, keep=False)


# -- the cache ---------------------------------------------------------------------------------------------------------


def _cached(execution: Row, step: str, key: str) -> str:
    return f"{execution.name.partition('/')[0]}|{step}|{key}"


def remember(tx: Transaction, execution: Row, row: Row) -> None:
    """A step succeeded whose result may be used again: the latest one counts."""
    name = _cached(execution, row.doc["StepName"], row.doc["_key"])
    members = ("Metadata", "_described", "_outputs")
    doc: dict[str, Any] = {"at": tx.now, **{one: row.doc[one] for one in members if one in row.doc}}
    doc["execution"] = execution.doc["PipelineExecutionArn"]
    held = tx.get(_CACHE, execution.account, execution.region, name)
    if held is None:
        tx.insert(Row(_CACHE, execution.account, execution.region, name, doc), keep=False)
    else:
        held.doc = doc
        tx.update(held, keep=False)


def remembered(view: View, execution: Row, step: str, key: str, since: Instant) -> dict[str, Any] | None:
    """The latest success of a step with that key, if it was not before `since`."""
    row = view.get(_CACHE, execution.account, execution.region, _cached(execution, step, key))
    return None if row is None or row.doc["at"] < since else row.doc


def forget_cached(tx: Transaction, pipeline: Row) -> None:
    """Forgets what a pipeline's steps found."""
    while rows := tx.scan(_CACHE, pipeline.account, pipeline.region, prefix=f"{pipeline.name}|", limit=_MOST):
        for row in rows:
            tx.delete(row, keep=False)


# -- operations --------------------------------------------------------------------------------------------------------


def shown(view: View, execution: Row) -> Iterator[dict[str, Any]]:
    """All steps that have begun as they are listed, oldest first."""
    rows = sorted(every(view, execution).values(), key=lambda row: (row.doc["StartTime"], row.name))
    for row in rows:
        yield {"StepStatus": row.status, **{key: row.doc[key] for key in _SHOWN if key in row.doc}}


@PIPELINE_EXECUTION.reads(
    "ListPipelineExecutionSteps", asks=[Ask("sagemaker:ListPipelineExecutionSteps", PIPELINE_EXECUTION.this)]
)
def listed(a: Authorised, view: View) -> Output:
    given = a.input
    found = list(shown(view, PIPELINE_EXECUTION.named(a, view))) if given.get("PipelineExecutionArn") else []
    if given.get("SortOrder", "Descending") == "Descending":
        found.reverse()
    start = int(pages.position(a, given.get("NextToken")) or 0)
    end = start + int(given.get("MaxResults") or 20)
    return {
        "PipelineExecutionSteps": found[start:end],
        "NextToken": pages.seal(a, end) if len(found) > end else None,
    }

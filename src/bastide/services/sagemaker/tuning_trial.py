"""Trials of a tuning job: what was proposed, and what came of it.

A trial is a row that is no resource. It is on the disk before its training job exists, and names it: whoever goes on after
a crash launches what was proposed and not yet launched, under the same name, which there is once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from bastide.services.sagemaker.training_job import TRAINING_JOB
from bastide.services.sagemaker.tuning_definition import Definition, objective
from bastide.store import Row, Transaction, View

_KIND: Final = "sagemaker:TuningTrial"
_BETWEEN: Final = "|"
_PAGE: Final = 500
OVER: Final = ("Completed", "Failed", "Stopped")


def _name(tuning: str, number: int) -> str:
    return f"{tuning}{_BETWEEN}{number:05d}"


def add(tx: Transaction, tuning: Row, number: int, doc: dict[str, Any]) -> Row:
    """A trial that was just proposed. doc: ``number``, ``job``, ``definition`` (its index) and ``values``."""
    row = Row(_KIND, tuning.account, tuning.region, _name(tuning.name, number), doc)
    tx.insert(row, keep=False)
    return row


def save(tx: Transaction, row: Row) -> None:
    """Writes what changed."""
    tx.update(row, keep=False)


def get(view: View, tuning: Row, number: int) -> Row | None:
    """The trial of that number."""
    return view.get(_KIND, tuning.account, tuning.region, _name(tuning.name, number))


def every(view: View, tuning: Row) -> Iterator[Row]:
    """All trials of a tuning job, by number."""
    prefix, after = f"{tuning.name}{_BETWEEN}", None
    while True:
        rows = view.scan(_KIND, tuning.account, tuning.region, prefix=prefix, after=after, limit=_PAGE)
        yield from rows
        if len(rows) < _PAGE:
            return
        after = rows[-1].name


def forget(tx: Transaction, tuning: Row) -> None:
    """Removes them, not the training jobs."""
    for row in list(every(tx, tuning)):
        tx.delete(row, keep=False)


def ended(trial: dict[str, Any], job: Row, metric: str) -> None:
    """Writes into a trial how its training job ended."""
    found = [one["Value"] for one in job.doc.get("FinalMetricDataList") or () if one["MetricName"] == metric]
    trial["status"] = job.status
    trial["value"] = found[-1] if found and job.status != "Failed" else None
    trial["reason"] = job.doc.get("FailureReason", "")
    trial["seconds"] = job.doc.get("TrainingTimeInSeconds") or 0
    if "_course" in job.doc:
        trial["course"] = job.doc["_course"]


def candidate(trial: dict[str, Any]) -> bool:
    """Whether a trial may be the best: it has a value and ended by itself, or had used all that it was given."""
    return trial.get("value") is not None and (trial["status"] == "Completed" or trial.get("stopped") == "resource")


def summary(view: View, tuning: Row, definition: Definition, trial: dict[str, Any]) -> dict[str, Any]:
    """HyperParameterTrainingJobSummary. A trial whose training job is about to be made has none yet, so nothing."""
    job = TRAINING_JOB.get(view, tuning.account, tuning.region, trial["job"])
    if job is None:
        return {}
    found: dict[str, Any] = {
        "TrainingJobName": job.name,
        "TrainingJobArn": TRAINING_JOB.arn(job.account, job.region, job.name),
        "TuningJobName": tuning.name,
        "CreationTime": job.created,
        "TrainingJobStatus": trial.get("status") or job.status,
        "TunedHyperParameters": trial["values"],
        "ObjectiveStatus": status_of(trial),
    }
    for name in ("TrainingStartTime", "TrainingEndTime", "FailureReason"):
        if job.doc.get(name):
            found[name] = job.doc[name]
    if "DefinitionName" in definition:
        found["TrainingJobDefinitionName"] = definition["DefinitionName"]
    if trial.get("value") is not None:
        aim = objective(tuning.doc, definition)
        found["FinalHyperParameterTuningJobObjectiveMetric"] = {**aim, "Value": trial["value"]}
    return found


def status_of(trial: dict[str, Any]) -> str:
    """ObjectiveStatus of a trial."""
    if "status" not in trial:
        return "Pending"
    return "Failed" if trial.get("value") is None else "Succeeded"

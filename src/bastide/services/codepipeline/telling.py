"""What pipelines tell: events for EventBridge, values for CloudWatch.

Source: CodePipeline User Guide, "Monitoring CodePipeline events" and "Monitoring pipelines with CloudWatch metrics".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import MICROS, iso
from bastide.engines.telemetry import Meter
from bastide.kernel import Calls
from bastide.kernel.happened import tell
from bastide.services.codepipeline.noun import Doc, arn_of, place
from bastide.store import Row, Transaction

NAMESPACE: Final = "AWS/CodePipeline"
_WORDS: Final = {
    "InProgress": "STARTED", "Succeeded": "SUCCEEDED", "Failed": "FAILED", "Stopping": "STOPPING", "Stopped": "STOPPED",
    "Superseded": "SUPERSEDED", "Cancelled": "CANCELED", "Abandoned": "ABANDONED", "Resumed": "RESUMED",
    "Skipped": "SKIPPED",
}  # fmt: skip


def _told(tx: Transaction, row: Row, kind: str, detail: Mapping[str, Any]) -> None:
    account, pipeline, region = place(row)
    tell(
        tx,
        account=account,
        region=region,
        source="aws.codepipeline",
        detail_type=f"CodePipeline {kind} Execution State Change",
        resources=[arn_of(row)],
        detail={
            "pipeline": pipeline,
            "execution-id": row.name,
            "version": row.doc["version"],
            "start-time": iso(row.doc["started"]),
            "pipeline-execution-attempt": row.doc.get("attempt", 1),
            **{key: value for key, value in detail.items() if value is not None},
        },
    )


def pipeline(tx: Transaction, row: Row, state: str) -> None:
    """An execution's new state."""
    trigger = row.doc["trigger"]
    _told(
        tx,
        row,
        "Pipeline",
        {
            "state": _WORDS[state],
            "execution-trigger": {"trigger-type": trigger["type"], "trigger-detail": trigger["detail"]},
        },
    )


def stage(tx: Transaction, row: Row, name: str, state: str) -> None:
    """A stage's new state."""
    _told(tx, row, "Stage", {"stage": name, "state": _WORDS[state]})


def action(tx: Transaction, row: Row, name: str, declared: Mapping[str, Any], record: Doc) -> None:
    """An action's new state. declared: as the pipeline has it."""
    external = record.get("external") or {}
    result = {
        "external-execution-id": external.get("id"),
        "external-execution-url": external.get("url"),
        "external-execution-summary": record.get("summary"),
        "error-code": (record.get("error") or {}).get("code"),
    }
    _told(
        tx,
        row,
        "Action",
        {
            "stage": name,
            "action": declared["name"],
            "action-execution-id": record["id"],
            "state": _WORDS[record["status"]],
            "region": row.region,
            "type": declared["actionTypeId"],
            "execution-result": {key: value for key, value in result.items() if value} or None,
            "input-artifacts": _located(row, declared["inputArtifacts"]),
            "output-artifacts": _located(row, declared["outputArtifacts"]) if record["status"] == "Succeeded" else None,
        },
    )


def _located(row: Row, named: list[Doc]) -> list[Doc] | None:
    held = row.doc["artifacts"]
    found = [
        {"name": one["name"], "s3location": {"bucket": at["bucket"], "key": at["key"]}}
        for one in named
        if (at := held.get(one["name"])) is not None
    ]
    return found or None


def measure(calls: Calls, row: Row) -> None:
    """Counts how an execution ended, and after how long."""
    account, name, region = place(row)
    dimensions = (("PipelineName", name),)
    meter = calls.engine(Meter)
    seconds = max(0.0, (row.doc["updated"] - row.doc["started"]) / MICROS)
    meter.record(account, region, NAMESPACE, dimensions, "PipelineDuration", seconds, "Seconds")
    failed = 1.0 if row.status == "Failed" else 0.0
    meter.record(account, region, NAMESPACE, dimensions, "FailedPipelineExecutions", failed, "Count")

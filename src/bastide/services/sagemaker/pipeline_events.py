"""What a pipeline's executions and steps tell: events for EventBridge, values for CloudWatch.

Source: SageMaker developer guide, "Events that Amazon SageMaker AI sends to Amazon EventBridge" and "SageMaker pipelines
metrics".
"""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Instant, iso
from bastide.engines.telemetry import Dimensions, Meter
from bastide.kernel import Calls
from bastide.kernel.happened import tell
from bastide.store import Row, Transaction

NAMESPACE: Final = "AWS/Sagemaker/ModelBuildingPipeline"
_EXECUTION: Final = "SageMaker Model Building Pipeline Execution Status Change"
_STEP: Final = "SageMaker Model Building Pipeline Execution Step Status Change"


def _arns(row: Row) -> list[str]:
    return [row.doc["PipelineArn"], row.doc["PipelineExecutionArn"]]


def execution_moved(tx: Transaction, row: Row, previous: str) -> None:
    """An execution has another status than `previous` (empty: it is new)."""
    pipeline, execution = _arns(row)
    detail: dict[str, Any] = {
        "pipelineExecutionDisplayName": row.doc.get("PipelineExecutionDisplayName"),
        "pipelineExecutionDescription": row.doc.get("PipelineExecutionDescription"),
        "currentPipelineExecutionStatus": row.status,
        "previousPipelineExecutionStatus": previous or None,
        "executionStartTime": iso(row.created or tx.now),
        "executionEndTime": iso(row.doc["_ended"]) if row.doc.get("_ended") else None,
        "pipelineArn": pipeline,
        "pipelineExecutionArn": execution,
    }
    _tell(tx, row, _EXECUTION, detail)


def step_moved(tx: Transaction, execution: Row, step: Row, previous: str) -> None:
    """A step has another status than `previous` (empty: it just began)."""
    pipeline, arn = _arns(execution)
    doc = step.doc
    cached = doc.get("CacheHitResult")
    detail: dict[str, Any] = {
        "metadata": _camel(doc.get("Metadata") or {}),
        "stepStartTime": iso(doc["StartTime"]) if doc.get("StartTime") else None,
        "stepEndTime": iso(doc["EndTime"]) if doc.get("EndTime") else None,
        "stepName": doc["StepName"],
        "stepType": doc["_type"],
        "previousStepStatus": previous or None,
        "currentStepStatus": step.status,
        "cacheHitResult": {"sourcePipelineExecutionArn": cached["SourcePipelineExecutionArn"]} if cached else None,
        "failureReason": doc.get("FailureReason"),
        "pipelineArn": pipeline,
        "pipelineExecutionArn": arn,
    }
    _tell(tx, execution, _STEP, detail)


def _tell(tx: Transaction, row: Row, type: str, detail: dict[str, Any]) -> None:
    tell(
        tx,
        account=row.account,
        region=row.region,
        source="aws.sagemaker",
        detail_type=type,
        resources=_arns(row),
        detail={key: value for key, value in detail.items() if value is not None},
    )


def _camel(value: Any) -> Any:
    """Members as the events write them: ``processingJob``, ``arn``."""
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _camel(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_camel(one) for one in value]
    return value


def measure(calls: Calls, row: Row, ended: str, began: Instant, now: Instant, step: str = "") -> None:
    """Counts that something (an execution, or its `step`) started, or how it ended and after how long. ended: its last
    status, empty for a start."""
    meter = calls.engine(Meter)
    what = "Step" if step else "Execution"
    dimensions: Dimensions = (("PipelineName", row.name.partition("/")[0]),)
    if step:
        dimensions = (*dimensions, ("StepName", step))

    def record(name: str, value: float, unit: str) -> None:
        meter.record(row.account, row.region, NAMESPACE, dimensions, f"{what}{name}", value, unit, now)

    record(ended or "Started", 1.0, "Count")
    if ended:
        record("Duration", max(0.0, (now - began) / 1000), "Milliseconds")

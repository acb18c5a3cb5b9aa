"""Every change of a status is told to EventBridge, in the transaction that makes it: the one home of that.

A kind that is named here is followed from then on, whoever changes its rows. Source: SageMaker developer guide, "Events
that Amazon SageMaker AI sends to Amazon EventBridge".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from bastide.kernel import Kind, fill
from bastide.kernel.happened import tell
from bastide.protocol import codec
from bastide.store import Row, Transaction

_TYPES: Final = {
    "TrainingJob": "Training Job",
    "ProcessingJob": "Processing Job",
    "TransformJob": "Transform Job",
    "HyperParameterTuningJob": "HyperParameter Tuning Job",
    "Endpoint": "Endpoint",
    "EndpointConfig": "Endpoint Config",
    "Model": "Model",
    "ModelPackage": "Model Package",
    "ModelCard": "Model Card",
    "FeatureGroup": "Feature Group",
    "NotebookInstance": "Notebook Instance",
    "Image": "Image",
    "ImageVersion": "Image Version",
}
_BESIDE: Final = ("SecondaryStatus", "ModelApprovalStatus")
"""Members whose change is told beside the status."""
_LEFT_OUT: Final = frozenset({"Environment", "LastModifiedBy", "CreatedBy"})
"""What a bus need not carry: people, and what a container is given as environment."""


def _plain(shape: Any, value: Any) -> Any:
    """A member as the event has it: times as milliseconds."""
    kind = shape.type_name
    if kind == "timestamp":
        return value // 1000
    if kind == "structure" and isinstance(value, dict):
        members = shape.members
        return {
            name: _plain(members[name], one)
            for name, one in value.items()
            if name in members and name not in _LEFT_OUT and one is not None
        }
    if kind == "list" and isinstance(value, list):
        return [_plain(shape.member, one) for one in value]
    return value


def _upper(status: str) -> str:
    """``InService`` as endpoints' events write it: ``IN_SERVICE``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", status).upper()


def _state(row: Row) -> list[Any]:
    rules = [one["RuleEvaluationStatus"] for one in row.doc.get("DebugRuleEvaluationStatuses") or ()]
    return [row.status, *(row.doc.get(member) for member in _BESIDE), *rules]


def _told(kind: Kind, tx: Transaction, row: Row, event: str, gone: bool) -> None:
    operation = codec("sagemaker").operations[f"Describe{kind.name}"]
    shape = operation.output_shape
    arn = kind.arn(row.account, row.region, row.name)
    detail = _plain(shape, fill(kind, shape, row))
    detail |= {f"{kind.name}Arn": arn, "Tags": dict(row.tags)}
    status = f"{kind.name}Status"
    if kind.name == "Endpoint":
        detail[status] = "DELETED" if gone else _upper(row.status)
    elif gone and row.status:
        detail[status] = "Deleted"
    tell(
        tx,
        account=row.account,
        region=row.region,
        source="aws.sagemaker",
        detail_type=f"SageMaker {_TYPES[kind.name]} State Change",
        resources=[arn],
        detail=detail,
    )


def follow(kinds: Sequence[Kind]) -> None:
    """Follows those kinds whose state changes are documented."""
    for kind in kinds:
        if kind.name in _TYPES:
            kind.follow(_state, _told)

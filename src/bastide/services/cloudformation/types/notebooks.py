"""Types of notebook instances, which are made, changed while they stand still, and stopped before they go.

Source: CloudFormation User Guide, "AWS::SageMaker::NotebookInstance": most changes
stop the instance and start it again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from bastide.domain import Refused
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types.regular import Tagging, regular

_CHANGING: Final = (
    "InstanceType", "RoleArn", "LifecycleConfigName", "VolumeSizeInGB", "DefaultCodeRepository",
    "AdditionalCodeRepositories", "RootAccess", "InstanceMetadataServiceConfiguration",
)  # fmt: skip
_DISASSOCIATE: Final = {
    "LifecycleConfigName": "DisassociateLifecycleConfig",
    "DefaultCodeRepository": "DisassociateDefaultCodeRepository",
    "AdditionalCodeRepositories": "DisassociateAdditionalCodeRepositories",
}


def _type(noun: str, **more: Any) -> Type:
    arn, name = f"{noun}Arn", f"{noun}Name"
    return regular(
        f"AWS::SageMaker::{noun}", "sagemaker", create=f"Create{noun}", delete=f"Delete{noun}", read=f"Describe{noun}",
        key=(name,), ref=arn, named=name, attributes={arn: arn, name: name},
        tagging=Tagging("AddTags", "DeleteTags", "ResourceArn", arn), arn=arn, **more,
    )  # fmt: skip


async def _status(r: Resource) -> str:
    """What is done for it by now; empty when it is gone. Raises Refused for one that failed."""
    named = {"NotebookInstanceName": r.fact("NotebookInstanceName")}
    told = await r.seen("DescribeNotebookInstance", named)
    return str(told["NotebookInstanceStatus"]) if told is not None else ""


async def _ready(r: Resource) -> bool:
    told = await r.read("DescribeNotebookInstance", {"NotebookInstanceName": r.fact("NotebookInstanceName")})
    if told["NotebookInstanceStatus"] == "Failed":
        raise Refused("NotStabilized", f"The notebook instance is Failed: {told.get('FailureReason', '')}")
    return bool(told["NotebookInstanceStatus"] == "InService")


async def _still(r: Resource) -> None:
    """Until it stands still, stopped if need be."""

    async def settled() -> bool:
        status = await _status(r)
        if status == "InService":
            await r.drop("StopNotebookInstance", {"NotebookInstanceName": r.fact("NotebookInstanceName")})
            return False
        return status in ("Stopped", "Failed", "")

    await r.until(settled)


async def _change(r: Resource) -> None:
    named = {"NotebookInstanceName": r.fact("NotebookInstanceName")}
    if r.old and r.changed(*_CHANGING):
        gone = {flag: True for member, flag in _DISASSOCIATE.items() if r.old.get(member) and not r.get(member)}
        await _still(r)
        await r.do("UpdateNotebookInstance", {**named, **r.only(*_CHANGING), **gone}, key="update")
        await _still(r)
        await r.do("StartNotebookInstance", named, key="start")


async def _remove(r: Resource) -> None:
    await _still(r)
    await r.drop("DeleteNotebookInstance", {"NotebookInstanceName": r.fact("NotebookInstanceName")})

    async def gone() -> bool:
        status = await _status(r)
        if status == "Failed":
            raise Refused("NotStabilized", "The notebook instance could not be deleted.")
        return not status

    await r.until(gone)


_INSTANCE: Final = _type(
    "NotebookInstance", ready=_ready, after=_change,
    more=("UpdateNotebookInstance", "StartNotebookInstance", "StopNotebookInstance"),
)  # fmt: skip
TYPES: Final = (
    replace(_INSTANCE, delete=_remove),
    _type("NotebookInstanceLifecycleConfig", update="UpdateNotebookInstanceLifecycleConfig"),
    _type("CodeRepository", update="UpdateCodeRepository"),
)

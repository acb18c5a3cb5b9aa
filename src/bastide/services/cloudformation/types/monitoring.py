"""Types of Model Monitor: schedules, and definitions of what they run."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types.regular import Tagging, at, regular

_TAGGING: Final = Tagging("AddTags", "DeleteTags", "ResourceArn", "MonitoringScheduleArn")
_RUNNING: Final = ("Pending", "InProgress", "Stopping")


def _definition(type: str) -> Type:
    return regular(
        f"AWS::SageMaker::{type}JobDefinition", "sagemaker", create=f"Create{type}JobDefinition",
        delete=f"Delete{type}JobDefinition", read=f"Describe{type}JobDefinition", key=("JobDefinitionName",),
        ref="JobDefinitionArn", named="JobDefinitionName", most=63,
        attributes={"JobDefinitionArn": "JobDefinitionArn"}, arn="JobDefinitionArn",
        leave=("EndpointName",),
        replaces=(
            "JobDefinitionName", f"{type}AppSpecification", f"{type}BaselineConfig", f"{type}JobInput",
            f"{type}JobOutputConfig", "JobResources", "NetworkConfig", "RoleArn", "StoppingCondition", "Tags",
            "EndpointName",
        ),
    )  # fmt: skip


async def _idle(r: Resource) -> None:
    """Waits for what runs: a schedule is not deleted before."""

    async def over() -> bool:
        told = await r.seen("DescribeMonitoringSchedule", _named(r))
        return told is None or at(told, "LastMonitoringExecutionSummary.MonitoringExecutionStatus") not in _RUNNING

    await r.drop("StopMonitoringSchedule", _named(r))
    await r.until(over)


def _named(r: Resource) -> dict[str, Any]:
    return {"MonitoringScheduleName": r.fact("MonitoringScheduleName")}


async def _endpoint(r: Resource) -> None:
    """The property EndpointName says of which endpoint the schedule is, which its job decides."""
    wanted = r.get("EndpointName")
    if wanted is not None:
        told = await r.read("DescribeMonitoringSchedule", _named(r))
        if told.get("EndpointName") != wanted:
            raise Refused("ValidationError", f"EndpointName is {wanted}, but the job is of {told.get('EndpointName')}.")


TYPES: Final = (
    *(_definition(type) for type in ("DataQuality", "ModelQuality", "ModelBias", "ModelExplainability")),
    regular(
        "AWS::SageMaker::MonitoringSchedule", "sagemaker", create="CreateMonitoringSchedule",
        delete="DeleteMonitoringSchedule", update="UpdateMonitoringSchedule", read="DescribeMonitoringSchedule",
        key=("MonitoringScheduleName",), ref="MonitoringScheduleArn", named="MonitoringScheduleName",
        attributes={"MonitoringScheduleArn": "MonitoringScheduleArn"},
        leave=("EndpointName",), tagging=_TAGGING, arn="MonitoringScheduleArn",
        after=_endpoint, before_delete=_idle, more=("StopMonitoringSchedule",), replaces=("MonitoringScheduleName",),
    ),
)  # fmt: skip
"""Schedules and definitions."""

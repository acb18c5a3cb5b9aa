"""Monitoring schedules: their operations.

Source: API Reference, CreateMonitoringSchedule and its like; developer guide, "model-monitor-scheduling".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, anything, fill, page, tags_of
from bastide.kernel.kind import Given, each
from bastide.protocol import codec
from bastide.services.sagemaker import monitoring_execution, monitoring_times
from bastide.services.sagemaker.asking import keys, passing, tagging
from bastide.services.sagemaker.endpoint import ENDPOINT
from bastide.services.sagemaker.endpoint_config import ENDPOINT_CONFIG
from bastide.services.sagemaker.monitoring_definition import DEFINITIONS, Monitoring, before, check, defined
from bastide.services.sagemaker.monitoring_execution import ACTIVE, MONITORING_SCHEDULE, arrange, definition_of, undo
from bastide.services.sagemaker.training_job import LONGEST
from bastide.store import Row, Transaction, View

__all__ = ["MONITORING_SCHEDULE"]

_INLINE: Final = "MonitoringScheduleConfig.MonitoringJobDefinition"
_LOOKED_AT: Final = 20
"""Executions of a schedule among which is looked for those that run: they are made in turn."""


def _of(inline: str, named: str, default: str = "") -> Given:
    """A condition key of what a schedule runs, which its request brings or names: a guardrail holds for both."""

    def given(asked: Asked) -> str | Sequence[str] | None:
        config = asked.input.get("MonitoringScheduleConfig") or {}
        name, type = (str(config.get(one) or "") for one in ("MonitoringJobDefinitionName", "MonitoringType"))
        kind = DEFINITIONS.get(type) if name else None
        if kind is None:
            return each(f"{_INLINE}.{inline}")(asked) or default or None
        row = kind.get(asked.view, asked.call.account, asked.call.region, name)
        found: Any = row.doc if row is not None else {}
        for part in named.replace("{}", type).split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if isinstance(found, list):
            return [str(one) for one in found]
        return str(found).lower() if isinstance(found, bool) else str(found) if found else default or None

    return given


def _several(inline: str, named: str) -> Given:
    read = _of(inline, named)

    def given(asked: Asked) -> Sequence[str]:
        found = read(asked)
        return [found] if isinstance(found, str) else found or ()

    return given


_NETWORK: Final = "NetworkConfig"
_GIVEN: Final = keys(
    InstanceTypes=_several("MonitoringResources.ClusterConfig.InstanceType", "JobResources.ClusterConfig.InstanceType"),
    VolumeKmsKey=_of("MonitoringResources.ClusterConfig.VolumeKmsKeyId", "JobResources.ClusterConfig.VolumeKmsKeyId"),
    OutputKmsKey=_of("MonitoringOutputConfig.KmsKeyId", "{}JobOutputConfig.KmsKeyId"),
    NetworkIsolation=_of(
        f"{_NETWORK}.EnableNetworkIsolation", f"{_NETWORK}.EnableNetworkIsolation", "false"
    ),
    InterContainerTrafficEncryption=_of(
        f"{_NETWORK}.EnableInterContainerTrafficEncryption",
        f"{_NETWORK}.EnableInterContainerTrafficEncryption",
        "false",
    ),
    MaxRuntimeInSeconds=_of(
        "StoppingCondition.MaxRuntimeInSeconds", "StoppingCondition.MaxRuntimeInSeconds", str(LONGEST)
    ),
    VpcSubnets=_several(f"{_NETWORK}.VpcConfig.Subnets", f"{_NETWORK}.VpcConfig.Subnets"),
    VpcSecurityGroupIds=_several(f"{_NETWORK}.VpcConfig.SecurityGroupIds", f"{_NETWORK}.VpcConfig.SecurityGroupIds"),
)  # fmt: skip


async def _before(a: Authorised) -> None:
    config = a.input["MonitoringScheduleConfig"]
    if config.get("MonitoringJobDefinition"):
        arn = MONITORING_SCHEDULE.arn(a.account, a.region, a.input["MonitoringScheduleName"])
        await before(a.calls, a.account, a.region, arn, config["MonitoringJobDefinition"])


def _captured(view: View, account: str, region: str, one: Monitoring) -> None:
    """Raises Refused for an endpoint whose data is not captured: there would be nothing to look at."""
    if not one.endpoint:
        return
    row = ENDPOINT.find(view, account, region, one.endpoint)
    config = ENDPOINT_CONFIG.get(view, account, region, row.doc["EndpointConfigName"])
    held = row.doc.get("DataCaptureConfig") or (config.doc.get("DataCaptureConfig") if config is not None else None)
    if not (held and held.get("EnableCapture")):
        raise Refused(
            "ValidationException",
            f"Data capture is not enabled for the endpoint {ENDPOINT.arn(account, region, one.endpoint)}: please enable it "
            "with a DataCaptureConfig of its endpoint configuration.",
        )


def _configure(a: Authorised, tx: Transaction, row: Row) -> None:
    """Gives a schedule what the request says; raises Refused for what could not be done."""
    config = a.input["MonitoringScheduleConfig"]
    inline, name, type = (
        config.get(member) for member in ("MonitoringJobDefinition", "MonitoringJobDefinitionName", "MonitoringType")
    )
    if bool(inline) == bool(name):
        raise Refused(
            "ValidationException", "Either MonitoringJobDefinition or MonitoringJobDefinitionName must be given."
        )
    if name and not type:
        raise Refused("ValidationException", "MonitoringType is needed with MonitoringJobDefinitionName.")
    if inline and type not in (None, "DataQuality"):
        raise Refused("ValidationException", f"MonitoringType {type} needs a MonitoringJobDefinitionName.")
    row.doc["MonitoringScheduleConfig"] = config
    when = monitoring_times.times(config.get("ScheduleConfig"), row.name)
    of, _, definition = definition_of(tx, row)
    one = defined(tx, a.account, a.region, of, definition)
    if inline:
        check(a, tx, one)
    monitoring_times.window(config.get("ScheduleConfig"), one.source, tx.now, when.every)
    _captured(tx, a.account, a.region, one)
    row.doc |= {"MonitoringType": one.type, "EndpointName": one.endpoint}


@MONITORING_SCHEDULE.operation(
    "CreateMonitoringSchedule",
    asks=[
        Ask("sagemaker:CreateMonitoringSchedule", MONITORING_SCHEDULE.this, given=_GIVEN),
        passing(MONITORING_SCHEDULE, f"{_INLINE}.RoleArn"),
        tagging(MONITORING_SCHEDULE, "CreateMonitoringSchedule"),
    ],
    before=_before,
)
def create(a: Authorised, tx: Transaction) -> Output:
    name = a.input["MonitoringScheduleName"]
    row = Row(MONITORING_SCHEDULE.key, a.account, a.region, name, {}, "Scheduled")
    _configure(a, tx, row)
    row = MONITORING_SCHEDULE.create(a, tx, name, row.doc, status="Scheduled", tags=tags_of(a))
    arrange(tx, row, tx.now)
    tx.update(row, keep=False)
    return {"MonitoringScheduleArn": MONITORING_SCHEDULE.arn(a.account, a.region, name)}


@MONITORING_SCHEDULE.operation(
    "UpdateMonitoringSchedule",
    asks=[
        Ask("sagemaker:UpdateMonitoringSchedule", MONITORING_SCHEDULE.this, given=_GIVEN),
        passing(MONITORING_SCHEDULE, f"{_INLINE}.RoleArn"),
    ],
    before=_before,
)
def update(a: Authorised, tx: Transaction) -> Output:
    row = MONITORING_SCHEDULE.named(a, tx)
    _recurring(row)
    _configure(a, tx, row)
    arrange(tx, row, tx.now)
    MONITORING_SCHEDULE.change(tx, row, a.operation.name, a.request.id)
    return {"MonitoringScheduleArn": MONITORING_SCHEDULE.arn(row.account, row.region, row.name)}


def _recurring(row: Row) -> None:
    if not monitoring_times.times(row.doc["MonitoringScheduleConfig"].get("ScheduleConfig"), row.name).every:
        raise Refused(
            "ValidationException",
            f"The monitoring schedule {row.name} is due once, with the ScheduleExpression NOW: please make another one.",
        )


@MONITORING_SCHEDULE.operation(
    "StartMonitoringSchedule", asks=[Ask("sagemaker:StartMonitoringSchedule", MONITORING_SCHEDULE.this)]
)
def start(a: Authorised, tx: Transaction) -> Output:
    row = MONITORING_SCHEDULE.named(a, tx)
    _recurring(row)
    if row.status == "Stopped":
        row.status = "Scheduled"
        arrange(tx, row, tx.now)
        MONITORING_SCHEDULE.change(tx, row, a.operation.name, a.request.id)
    return {}


@MONITORING_SCHEDULE.operation(
    "StopMonitoringSchedule", asks=[Ask("sagemaker:StopMonitoringSchedule", MONITORING_SCHEDULE.this)]
)
def stop(a: Authorised, tx: Transaction) -> Output:
    row = MONITORING_SCHEDULE.named(a, tx)
    if row.status == "Scheduled":
        undo(tx, row)
        row.status = "Stopped"
        MONITORING_SCHEDULE.change(tx, row, a.operation.name, a.request.id)
    return {}


@MONITORING_SCHEDULE.operation(
    "DeleteMonitoringSchedule", asks=[Ask("sagemaker:DeleteMonitoringSchedule", MONITORING_SCHEDULE.this)]
)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = MONITORING_SCHEDULE.named(a, tx)
    if any(one.status in ACTIVE for one in monitoring_execution.latest(tx, row, _LOOKED_AT)):
        raise Refused(
            "ValidationException",
            f"The monitoring schedule {row.name} has an execution in progress. Please wait until it has ended.",
        )
    undo(tx, row)
    MONITORING_SCHEDULE.remove(tx, row, a.operation.name, a.request.id)
    return {}


@MONITORING_SCHEDULE.reads(
    "DescribeMonitoringSchedule", asks=[Ask("sagemaker:DescribeMonitoringSchedule", MONITORING_SCHEDULE.this)]
)
def describe(a: Authorised, view: View) -> Output:
    row = MONITORING_SCHEDULE.named(a, view)
    shape = codec("sagemaker").operations["DescribeMonitoringSchedule"].output_shape
    found = {key: value for key, value in fill(MONITORING_SCHEDULE, shape, row).items() if value != ""}
    for one in monitoring_execution.latest(view, row):
        found["LastMonitoringExecutionSummary"] = monitoring_execution.shown(one)
    return found


@MONITORING_SCHEDULE.reads("ListMonitoringSchedules", asks=[Ask("sagemaker:ListMonitoringSchedules", anything)])
def listed(a: Authorised, view: View) -> Output:
    given = a.input

    def keep(row: Row) -> bool:
        config = row.doc["MonitoringScheduleConfig"]
        told = {
            "EndpointName": row.doc.get("EndpointName"),
            "MonitoringJobDefinitionName": config.get("MonitoringJobDefinitionName"),
            "MonitoringTypeEquals": row.doc["MonitoringType"],
        }
        return all(given.get(member) in (None, value) for member, value in told.items())

    rows, token = page(MONITORING_SCHEDULE, a, view, descending=True, keep=keep)
    members = codec("sagemaker").operations["ListMonitoringSchedules"].output_shape.members
    summary = members["MonitoringScheduleSummaries"].member
    found = []
    for row in rows:
        one = {key: value for key, value in fill(MONITORING_SCHEDULE, summary, row).items() if value != ""}
        name = row.doc["MonitoringScheduleConfig"].get("MonitoringJobDefinitionName")
        found.append({**one, **({"MonitoringJobDefinitionName": name} if name else {})})
    return {"MonitoringScheduleSummaries": found, "NextToken": token}

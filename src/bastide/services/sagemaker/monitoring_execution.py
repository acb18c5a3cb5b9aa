"""Executions of monitoring schedules: that one is due, its row, and what is listed of it.

An execution is a row that is no resource, named ``SCHEDULE|SCHEDULED TIME|THE SCHEDULE'S CREATION``: there is one for each
time that a schedule is due, and it stays when the schedule goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import Instant, Refused
from bastide.engines.workflow import Workflows
from bastide.kernel import Ask, Authorised, Kind, Output, anything, pages
from bastide.services.sagemaker import monitoring_times
from bastide.services.sagemaker.monitoring_definition import DEFINITIONS, defined
from bastide.services.sagemaker.monitoring_metrics import namespace
from bastide.store import Row, Taken, Transaction, View

MONITORING_SCHEDULE: Final = Kind(
    "MonitoringSchedule",
    service="sagemaker",
    arn="monitoring-schedule/{}",
    states=("Pending", "Failed", "Scheduled", "Stopped"),
    missing=("ResourceNotFound", "The monitoring schedule {arn} does not exist.", 400),
    taken=("ResourceInUse", "A monitoring schedule with this name already exists ({arn}).", 400),
)
"""Beside what the API shows a row keeps `_at`, for when it is due next, and `_index`, the name of the row that says so."""

DUE: Final = "sagemaker:MonitoringDue"
"""Rows ``WHEN|ARN`` under no account: what begins next, first."""
FLOW: Final = "monitoring"
_KIND: Final = "sagemaker:MonitoringExecution"
_MOST_EXAMINED: Final = 1000
ACTIVE: Final = ("Pending", "InProgress", "Stopping")
_SHOWN: Final = ("ProcessingJobArn", "EndpointName", "FailureReason", "MonitoringJobDefinitionName", "MonitoringType")


# -- when it is due ----------------------------------------------------------------------------------------------------


def arrange(tx: Transaction, row: Row, after: Instant) -> None:
    """Notes when a schedule is due behind `after`, at once if it is due once. Whoever calls saves the row."""
    undo(tx, row)
    when = monitoring_times.times(row.doc["MonitoringScheduleConfig"].get("ScheduleConfig"), row.name)
    if row.status != "Scheduled":
        return
    at = when.following(after) if when.every else tx.now
    fire = at + monitoring_times.DELAY if when.every else at
    name = f"{fire:020d}|{MONITORING_SCHEDULE.arn(row.account, row.region, row.name)}"
    tx.insert(Row(DUE, "", "", name, {}), keep=False)
    row.doc |= {"_index": name, "_at": at}


def undo(tx: Transaction, row: Row) -> None:
    """A schedule is not due any more."""
    held = tx.get(DUE, "", "", row.doc.pop("_index", None) or "")
    if held is not None:
        tx.delete(held, keep=False)
    row.doc.pop("_at", None)


def definition_of(view: View, row: Row) -> tuple[str, str, Mapping[str, Any]]:
    """The type, name and content of what a schedule runs; type and name are empty for an inline definition. Raises Refused
    for one that is not there (any more)."""
    config = row.doc["MonitoringScheduleConfig"]
    name = config.get("MonitoringJobDefinitionName")
    if not name:
        return "", "", config["MonitoringJobDefinition"]
    type = config["MonitoringType"]
    return type, name, DEFINITIONS[type].find(view, row.account, row.region, name).doc


def begin(tx: Transaction, workflows: Workflows, row: Row) -> None:
    """A schedule is due: its execution is there, once, and the next time is noted. One that is due once is then stopped."""
    at = row.doc["_at"]
    config = row.doc["MonitoringScheduleConfig"]
    when = monitoring_times.times(config.get("ScheduleConfig"), row.name)
    doc: dict[str, Any] = {
        "ScheduledTime": at, "EndpointName": row.doc.get("EndpointName"), "_schedule": row.name, "_made": row.created,
        "MonitoringType": row.doc["MonitoringType"], "_config": config.get("ScheduleConfig"), "_every": when.span(at),
    }  # fmt: skip
    status, execution = "Pending", f"{row.name}|{at:020d}|{row.created}"
    try:
        type, name, definition = definition_of(tx, row)
        doc |= {"MonitoringJobDefinitionName": name, "_type": type, "_definition": dict(definition)}
        one = defined(tx, row.account, row.region, type, definition)
        doc["_namespace"] = namespace(one.type, one.endpoint)
    except Refused as refused:
        status, doc["FailureReason"] = "Failed", f"{refused.code}: {refused.message}"[:1024]
    made = Row(_KIND, row.account, row.region, execution, {key: one for key, one in doc.items() if one}, status)
    try:
        tx.insert(made, keep=False)
    except Taken:
        status = "there"
    if status == "Pending":
        where = {"account": row.account, "region": row.region, "name": execution}
        workflows.start(
            tx, FLOW, f"{MONITORING_SCHEDULE.arn(row.account, row.region, row.name)}|{at}|{row.created}", where
        )
    if when.every:
        arrange(tx, row, max(at, tx.now - monitoring_times.DELAY))
        tx.update(row, keep=False)
    else:
        undo(tx, row)
        row.status = "Stopped"
        MONITORING_SCHEDULE.change(tx, row, "MonitoringScheduleCompleted")


def watching(view: View, account: str, region: str, endpoint: str) -> bool:
    """Whether a schedule looks at an endpoint."""
    after: str | None = None
    while rows := view.scan(MONITORING_SCHEDULE.key, account, region, after=after):
        if any(row.doc.get("EndpointName") == endpoint for row in rows):
            return True
        after = rows[-1].name
    return False


# -- rows --------------------------------------------------------------------------------------------------------------


def get(view: View, account: str, region: str, name: str) -> Row:
    """An execution's row; raises Refused."""
    row = view.get(_KIND, account, region, name)
    if row is None:
        raise Refused("ResourceNotFound", f"There is no monitoring execution {name}.")
    return row


def save(tx: Transaction, row: Row) -> None:
    """Writes a changed row."""
    tx.update(row, keep=False)


def latest(view: View, schedule: Row, most: int = 1) -> list[Row]:
    """A schedule's last executions, the last first."""
    rows = view.scan(_KIND, schedule.account, schedule.region, prefix=f"{schedule.name}|", descending=True, limit=most)
    return [row for row in rows if row.doc["_made"] == schedule.created]


def shown(row: Row) -> dict[str, Any]:
    """An execution as it is listed."""
    return {
        "MonitoringScheduleName": row.doc["_schedule"],
        "ScheduledTime": row.doc["ScheduledTime"],
        "CreationTime": row.created,
        "LastModifiedTime": row.modified,
        "MonitoringExecutionStatus": row.status,
        **{member: row.doc[member] for member in _SHOWN if row.doc.get(member)},
    }


def _wanted(given: Mapping[str, Any], row: Row) -> bool:
    told = {
        "EndpointName": row.doc.get("EndpointName"),
        "StatusEquals": row.status,
        "MonitoringJobDefinitionName": row.doc.get("MonitoringJobDefinitionName"),
        "MonitoringTypeEquals": row.doc.get("MonitoringType"),
    }
    if any(given.get(member) not in (None, value) for member, value in told.items()):
        return False
    times = (
        ("ScheduledTime", row.doc["ScheduledTime"]), ("CreationTime", row.created), ("LastModifiedTime", row.modified)
    )  # fmt: skip
    return all(given.get(f"{one}After", at) <= at <= given.get(f"{one}Before", at) for one, at in times)


@MONITORING_SCHEDULE.reads("ListMonitoringExecutions", asks=[Ask("sagemaker:ListMonitoringExecutions", anything)])
def listed(a: Authorised, view: View) -> Output:
    given = a.input
    limit = int(given.get("MaxResults") or 10)
    name, backwards = given.get("MonitoringScheduleName"), given.get("SortOrder", "Descending") == "Descending"
    # A schedule's executions were made in the order of their times.
    order: Any = "name" if name else "created"
    after = pages.position(a, given.get("NextToken"))
    found: list[Row] = []
    examined = 0
    while True:
        rows = view.scan(
            _KIND, a.account, a.region, order=order, descending=backwards, prefix=f"{name}|" if name else "",
            after=tuple(after) if isinstance(after, list) else after, limit=limit + 1,
        )  # fmt: skip
        for row in rows:
            if len(found) == limit or examined >= _MOST_EXAMINED:
                return {
                    "MonitoringExecutionSummaries": [shown(one) for one in found],
                    "NextToken": pages.seal(a, after),
                }
            examined += 1
            after = row.name if name else [row.created, row.name]
            if _wanted(given, row):
                found.append(row)
        if len(rows) <= limit:
            return {"MonitoringExecutionSummaries": [shown(one) for one in found]}

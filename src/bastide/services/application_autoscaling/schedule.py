"""Scheduled actions: other bounds from a time on."""

from __future__ import annotations

import re
import uuid
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bastide.domain import MICROS, Instant, Refused
from bastide.kernel import Ask, Authorised, Kind, Output, anything
from bastide.services.application_autoscaling.target import KEYS, bounds, found, of_resource, page, shown, this
from bastide.store import Transaction, View

ACTION = Kind(
    "ScheduledAction",
    service="application-autoscaling",
    arn="scheduledAction:{}",
    arn_service="autoscaling",
    named_by="ScheduledActionName",
    tags=False,
    history=False,
    missing=(
        "ObjectNotFoundException",
        "No scheduled action found for this name, service namespace and resource.",
        400,
    ),
)
"""Beside what the API shows a row keeps `_due`, when it is to act next; none when it has acted for the last time."""

_AT: Final = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")
_RATE: Final = re.compile(r"rate\((\d+) (minutes?|hours?|days?)\)")
_SECONDS: Final = {"minute": 60, "hour": 3600, "day": 86400}


def following(doc: dict[str, Any], now: Instant) -> Instant | None:
    """When an action is to act next, after `now`; None if never again."""
    schedule = doc["Schedule"]
    start, end = doc.get("StartTime"), doc.get("EndTime")
    if (match := _AT.fullmatch(schedule)) is not None:
        at = datetime.fromisoformat(match[1]).replace(tzinfo=ZoneInfo(doc.get("Timezone") or "UTC"))
        due: Instant = int(at.timestamp() * MICROS)
    elif (match := _RATE.fullmatch(schedule)) is not None:
        every = int(match[1]) * _SECONDS[match[2].rstrip("s")] * MICROS
        first = start if start is not None else doc["_made"] + every
        due = first if first > now else first + ((now - first) // every + 1) * every
    else:
        raise Refused(
            "ValidationException",
            f"The schedule `{schedule[:100]}` is not supported by Bastide yet: it has at(...) and rate(N unit).",
        )
    return due if due > now and (end is None or due <= end) else None


@ACTION.operation("PutScheduledAction", asks=[Ask("application-autoscaling:PutScheduledAction", this, given=KEYS)])
def put(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    target = found(a, tx)
    name = f"{target.name}/{given['ScheduledActionName']}"
    row = ACTION.get(tx, a.account, a.region, name)
    if row is None and not (given.get("Schedule") and given.get("ScalableTargetAction")):
        raise Refused("ValidationException", "Schedule and ScalableTargetAction are needed for a new action.")
    resource = f"{uuid.uuid4()}:resource/sagemaker/{target.doc['ResourceId']}:scheduledActionName"
    doc: dict[str, Any] = (
        dict(row.doc)
        if row is not None
        else {
            "ScheduledActionName": given["ScheduledActionName"],
            "ScheduledActionARN": ACTION.arn(a.account, a.region, f"{resource}/{given['ScheduledActionName']}"),
            **{member: target.doc[member] for member in ("ServiceNamespace", "ResourceId", "ScalableDimension")},
        }
    )
    for member in ("Schedule", "Timezone", "StartTime", "EndTime", "ScalableTargetAction"):
        if given.get(member) is not None:
            doc[member] = given[member]
    action = doc["ScalableTargetAction"]
    if not action:
        raise Refused("ValidationException", "ScalableTargetAction has a MinCapacity, a MaxCapacity, or both.")
    bounds({"MinCapacity": 1, "MaxCapacity": 1 << 30, **action})
    try:
        ZoneInfo(doc.get("Timezone") or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        raise Refused("ValidationException", f"There is no time zone {doc['Timezone'][:100]}.") from None
    doc["_made"] = a.now
    doc["_due"] = following(doc, a.now)
    if doc["_due"] is None:
        raise Refused("ValidationException", "The schedule has no time that is still to come.")
    if row is None:
        ACTION.create(a, tx, name, doc)
    else:
        row.doc = doc
        tx.update(row, event=a.operation.name, request_id=a.request.id, keep=False)
    return {}


@ACTION.reads("DescribeScheduledActions", asks=[Ask("application-autoscaling:DescribeScheduledActions", anything)])
def described(a: Authorised, view: View) -> Output:
    names = a.input.get("ScheduledActionNames")
    rows, token = page(
        a, view, ACTION, lambda doc: of_resource(a.input, doc) and (not names or doc["ScheduledActionName"] in names)
    )
    return {"ScheduledActions": [shown(row) for row in rows], "NextToken": token}


@ACTION.operation(
    "DeleteScheduledAction", asks=[Ask("application-autoscaling:DeleteScheduledAction", this, given=KEYS)]
)
def delete(a: Authorised, tx: Transaction) -> Output:
    target = found(a, tx)
    row = ACTION.find(tx, a.account, a.region, f"{target.name}/{a.input['ScheduledActionName']}")
    tx.delete(row, event=a.operation.name, request_id=a.request.id, keep=False)
    return {}

"""Scheduled actions: other bounds from a time on."""

from __future__ import annotations

import uuid
from typing import Any

from bastide.domain import Instant, Refused
from bastide.domain.schedule import NoSchedule, Schedule, zone
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


def following(doc: dict[str, Any], now: Instant) -> Instant | None:
    """When an action is to act next, after `now`; None if never again."""
    start, end = doc.get("StartTime"), doc.get("EndTime")
    try:
        held = Schedule.of(doc["Schedule"])
        where = zone(doc.get("Timezone") or "UTC")
    except NoSchedule as wrong:
        raise Refused("ValidationException", f"The schedule `{doc['Schedule'][:100]}` is not valid: {wrong}") from None
    first = start if start is not None else doc["_made"] + held.every
    begins = now if start is None or held.every else max(now, start - 1)
    due = held.following(begins, start=first, zone=where)
    return due if due is not None and (end is None or due <= end) else None


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

"""Scaling activities: what was scaled, when and why."""

from __future__ import annotations

from typing import Any, Final

from bastide.kernel import Ask, Authorised, Kind, Output, anything
from bastide.services.application_autoscaling.target import of_resource, page
from bastide.store import Row, Transaction, View

_MOST: Final = 100
_WHAT: Final = ("ServiceNamespace", "ResourceId", "ScalableDimension")

ACTIVITY = Kind(
    "ScalingActivity",
    service="application-autoscaling",
    arn="activity/{}",
    named_by="ActivityId",
    tags=False,
    history=False,
)
"""Rows are named so that the newest comes first."""


@ACTIVITY.reads("DescribeScalingActivities", asks=[Ask("application-autoscaling:DescribeScalingActivities", anything)])
def described(a: Authorised, view: View) -> Output:
    every = a.input.get("IncludeNotScaledActivities")
    rows, token = page(
        a, view, ACTIVITY, lambda doc: of_resource(a.input, doc) and (every or not doc.get("NotScaledReasons"))
    )
    return {"ScalingActivities": [row.doc for row in rows], "NextToken": token}


def remember(tx: Transaction, target: Row, activity: dict[str, Any]) -> str:
    """Adds an activity of a target, and forgets the oldest; its row's name."""
    name = f"{(1 << 62) - activity['StartTime']:020d}-{activity['ActivityId']}"
    doc = {**{member: target.doc[member] for member in _WHAT}, **activity}
    tx.insert(Row(ACTIVITY.key, target.account, target.region, name, doc), keep=False)
    rows = tx.scan(ACTIVITY.key, target.account, target.region, after=name, limit=_MOST + 1)
    for old in rows[_MOST:]:
        tx.delete(old, keep=False)
    return name


def end(tx: Transaction, target: Row, name: str, status: str, message: str) -> None:
    """Says how an activity ended, if it is there still."""
    row = ACTIVITY.get(tx, target.account, target.region, name)
    if row is not None and row.doc["StatusCode"] == "InProgress":
        row.doc |= {"StatusCode": status, "StatusMessage": message[:1000], "EndTime": tx.now}
        tx.update(row, event="Ended", keep=False)

"""Scaling activities: what was scaled, when and why."""

from __future__ import annotations

from bastide.kernel import Ask, Authorised, Kind, Output, anything
from bastide.services.application_autoscaling.target import of_resource, page
from bastide.store import View

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
    rows, token = page(a, view, ACTIVITY, lambda doc: of_resource(a.input, doc))
    return {"ScalingActivities": [row.doc for row in rows], "NextToken": token}

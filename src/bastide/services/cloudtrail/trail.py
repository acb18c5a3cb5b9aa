"""Trails: where events, data events among them, are delivered to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from bastide.domain import Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything, tags_of
from bastide.store import Row, Transaction, View

TRAIL = Kind(
    "Trail",
    service="cloudtrail",
    arn="trail/{}",
    named_by="Name",
    missing=("TrailNotFoundException", "Unknown trail: {arn}", 400),
    taken=("TrailAlreadyExistsException", "Trail {name} already exists", 400),
)
# `Silent` in a trail's document: spans of time, both ends excluded, whose events are not delivered; the last is open while
# the trail does not log. What lies before a stop and is not delivered yet still is: nobody hides by stopping in time.
INDEX = "cloudtrail:TrailIndex"
"""Under account "": which trails exist, for delivery."""

_MOST = 5
"""Trails of an account in a region (CloudTrail User Guide, "Quotas")."""
_MANAGEMENT: list[dict[str, Any]] = [{"ReadWriteType": "All", "IncludeManagementEvents": True, "DataResources": []}]


def _named(member: str) -> Any:
    def about(asked: Asked) -> Iterable[str]:
        given = str(asked.input.get(member) or "")
        return (given if given.startswith("arn:") else TRAIL.arn(asked.call.account, asked.call.region, given),)

    return about


def _find(a: Authorised, view: View, member: str = "Name") -> Row:
    return TRAIL.find(view, *TRAIL.locate(str(a.input[member]), a.account, a.region))


def _told(row: Row) -> dict[str, Any]:
    kept = (
        "S3BucketName", "S3KeyPrefix", "IncludeGlobalServiceEvents", "IsMultiRegionTrail", "IsOrganizationTrail",
        "SnsTopicName", "SnsTopicARN", "CloudWatchLogsLogGroupArn", "CloudWatchLogsRoleArn",
    )  # fmt: skip
    return {
        "Name": row.name,
        "TrailARN": TRAIL.arn(row.account, row.region, row.name),
        **{key: row.doc[key] for key in kept if row.doc.get(key) is not None},
    }


def _possible(a: Authorised) -> None:
    for member in ("KmsKeyId", "EnableLogFileValidation", "RecursiveLogging"):
        if a.input.get(member):
            raise Refused("UnsupportedOperationException", f"{member} is not supported by Bastide yet.")
    if a.input.get("IsOrganizationTrail") and a.account != a.calls.home:
        raise Refused("NotOrganizationMasterAccountException", "Only the management account makes organization trails.")


def _ways(a: Authorised, doc: dict[str, Any]) -> None:
    """Puts into a trail's document where else it tells: a topic, a log group. An empty text takes one away."""
    given = a.input
    if given.get("SnsTopicName") is not None:
        topic = given["SnsTopicName"]
        if not topic:
            doc |= {"SnsTopicName": None, "SnsTopicARN": None}
        else:
            named = topic if topic.startswith("arn:") else f"arn:aws:sns:{a.region}:{a.account}:{topic}"
            if not _TOPIC.fullmatch(named):
                raise Refused("InvalidSnsTopicNameException", f"{topic} is no name or ARN of an SNS topic.")
            doc |= {"SnsTopicName": topic, "SnsTopicARN": named}
    group, role = given.get("CloudWatchLogsLogGroupArn"), given.get("CloudWatchLogsRoleArn")
    if group is None and role is None:
        return
    if not group and not role:
        doc |= {"CloudWatchLogsLogGroupArn": None, "CloudWatchLogsRoleArn": None}
        return
    if not group or not _GROUP.fullmatch(group) or Arn.parse(group).account != a.account:
        raise Refused(
            "InvalidCloudWatchLogsLogGroupArnException",
            "CloudWatchLogsLogGroupArn is the ARN of a log group of this account, and ends with :*.",
        )
    if not role or not _ROLE.fullmatch(role):
        raise Refused("InvalidCloudWatchLogsRoleArnException", "CloudWatchLogsRoleArn is the ARN of a role.")
    doc |= {"CloudWatchLogsLogGroupArn": group, "CloudWatchLogsRoleArn": role}


_TOPIC = re.compile(r"arn:aws:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}")
_GROUP = re.compile(r"arn:aws:logs:[a-z0-9-]+:\d{12}:log-group:[.\-_/#A-Za-z0-9]{1,512}:\*")
_ROLE = re.compile(r"arn:aws:iam::\d{12}:role/.+")
_PASSED = Ask(
    "iam:PassRole",
    lambda asked: (str(asked.input["CloudWatchLogsRoleArn"]),),
    when=lambda asked: bool(asked.input.get("CloudWatchLogsRoleArn")),
    given={
        "iam:PassedToService": lambda _: "cloudtrail.amazonaws.com",
        "iam:AssociatedResourceArn": lambda asked: list(_named("Name")(asked)),
    },
)


@TRAIL.operation(
    "CreateTrail",
    asks=[
        Ask("cloudtrail:CreateTrail", _named("Name")),
        Ask("cloudtrail:AddTags", _named("Name"), when=lambda asked: bool(asked.input.get("TagsList"))),
        _PASSED,
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    """A new trail; it logs when StartLogging says so."""
    _possible(a)
    if len(tx.scan(TRAIL.key, a.account, a.region, limit=_MOST)) >= _MOST:
        raise Refused(
            "MaximumNumberOfTrailsExceededException", f"User: {a.account} already has {_MOST} trails in {a.region}."
        )
    doc: dict[str, Any] = {
        "S3BucketName": a.input["S3BucketName"],
        "S3KeyPrefix": a.input.get("S3KeyPrefix") or "",
        "IncludeGlobalServiceEvents": bool(a.input.get("IncludeGlobalServiceEvents", True)),
        "IsMultiRegionTrail": bool(a.input.get("IsMultiRegionTrail", False)),
        "IsOrganizationTrail": bool(a.input.get("IsOrganizationTrail")),
        "IsLogging": False,
        "Selectors": _MANAGEMENT,
        "Cursor": 0,
        "Silent": [[0, None]],
    }
    _ways(a, doc)
    tags = tags_of_list(a)
    row = TRAIL.create(a, tx, str(a.input["Name"]), doc, tags=tags)
    tx.insert(Row(INDEX, "", "", TRAIL.arn(a.account, a.region, row.name), {}), keep=False)
    return _told(row)


@TRAIL.operation("UpdateTrail", asks=[Ask("cloudtrail:UpdateTrail", _named("Name")), _PASSED])
def update(a: Authorised, tx: Transaction) -> Output:
    """Changes what is given; what was recorded and not delivered yet goes by the new settings."""
    _possible(a)
    row = _find(a, tx)
    for member in ("S3BucketName", "S3KeyPrefix"):
        if a.input.get(member) is not None:
            row.doc[member] = a.input[member]
    for member in ("IncludeGlobalServiceEvents", "IsMultiRegionTrail", "IsOrganizationTrail"):
        if a.input.get(member) is not None:
            row.doc[member] = bool(a.input[member])
    _ways(a, row.doc)
    TRAIL.change(tx, row, "UpdateTrail", a.request.id)
    return _told(row)


def tags_of_list(a: Authorised) -> dict[str, str]:
    """CreateTrail calls its tags TagsList."""
    a.input["Tags"] = a.input.get("TagsList")
    tags = tags_of(a, "InvalidTagParameterException")
    del a.input["Tags"]
    return tags


@TRAIL.reads("GetTrail", asks=[Ask("cloudtrail:GetTrail", _named("Name"))])
def get(a: Authorised, view: View) -> Output:
    """One trail."""
    return {"Trail": _told(_find(a, view))}


@TRAIL.reads("DescribeTrails", asks=[Ask("cloudtrail:DescribeTrails", anything)])
def describe(a: Authorised, view: View) -> Output:
    """The account's trails of the region."""
    rows = view.scan(TRAIL.key, a.account, a.region, limit=100)
    wanted = a.input.get("trailNameList")
    return {
        "trailList": [
            _told(row) for row in rows if not wanted or row.name in wanted or _told(row)["TrailARN"] in wanted
        ]
    }


@TRAIL.reads("GetTrailStatus", asks=[Ask("cloudtrail:GetTrailStatus", _named("Name"))])
def status(a: Authorised, view: View) -> Output:
    """Whether it logs, and when it last delivered."""
    doc = _find(a, view).doc
    told: Output = {"IsLogging": doc["IsLogging"]}
    for key in (
        "LatestDeliveryTime", "StartLoggingTime", "StopLoggingTime", "LatestDeliveryError", "LatestNotificationTime",
        "LatestNotificationError", "LatestCloudWatchLogsDeliveryTime", "LatestCloudWatchLogsDeliveryError",
    ):  # fmt: skip
        if doc.get(key) is not None:
            told[key] = doc[key]
    return told


@TRAIL.operation("StartLogging", asks=[Ask("cloudtrail:StartLogging", _named("Name"))])
def start(a: Authorised, tx: Transaction) -> Output:
    """Events from now on are delivered."""
    row = _find(a, tx)
    if not row.doc["IsLogging"]:
        row.doc["Silent"][-1][1] = a.now
        row.doc |= {"IsLogging": True, "StartLoggingTime": a.now}
        TRAIL.change(tx, row, "StartLogging", a.request.id)
    return {}


@TRAIL.operation("StopLogging", asks=[Ask("cloudtrail:StopLogging", _named("Name"))])
def stop(a: Authorised, tx: Transaction) -> Output:
    """Events from now on are not delivered, this one is; recording does not end."""
    row = _find(a, tx)
    if row.doc["IsLogging"]:
        row.doc["Silent"].append([a.now, None])
        row.doc |= {"IsLogging": False, "StopLoggingTime": a.now}
        TRAIL.change(tx, row, "StopLogging", a.request.id)
    return {}


@TRAIL.operation("DeleteTrail", asks=[Ask("cloudtrail:DeleteTrail", _named("Name"))])
def delete(a: Authorised, tx: Transaction) -> Output:
    """The trail goes; what it delivered stays."""
    row = _find(a, tx)
    TRAIL.remove(tx, row, "DeleteTrail", a.request.id)
    index = tx.get(INDEX, "", "", TRAIL.arn(row.account, row.region, row.name))
    if index is not None:
        tx.delete(index, keep=False)
    return {}


@TRAIL.operation("PutEventSelectors", asks=[Ask("cloudtrail:PutEventSelectors", _named("TrailName"))])
def put_selectors(a: Authorised, tx: Transaction) -> Output:
    """Which events are delivered: management events, and data events of S3 objects."""
    if a.input.get("AdvancedEventSelectors"):
        raise Refused("UnsupportedOperationException", "Advanced event selectors are not supported by Bastide yet.")
    selectors = a.input.get("EventSelectors") or []
    for selector in selectors:
        for resource in selector.get("DataResources") or ():
            if resource.get("Type") not in ("AWS::S3::Object", "AWS::SageMaker::Endpoint"):
                raise Refused(
                    "InvalidEventSelectorsException", f"There are no data events of type {resource.get('Type')} here."
                )
    row = _find(a, tx, "TrailName")
    row.doc["Selectors"] = selectors
    TRAIL.change(tx, row, "PutEventSelectors", a.request.id)
    return {"TrailARN": TRAIL.arn(row.account, row.region, row.name), "EventSelectors": selectors}


@TRAIL.reads("GetEventSelectors", asks=[Ask("cloudtrail:GetEventSelectors", _named("TrailName"))])
def get_selectors(a: Authorised, view: View) -> Output:
    """Which events are delivered."""
    row = _find(a, view, "TrailName")
    return {"TrailARN": TRAIL.arn(row.account, row.region, row.name), "EventSelectors": row.doc["Selectors"]}

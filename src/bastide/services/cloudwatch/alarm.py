"""Alarms: made, shown, silenced, removed. How they are watched is in `evaluation`.

Source: Amazon CloudWatch API Reference, PutMetricAlarm, PutCompositeAlarm, MetricAlarm; CloudWatch User Guide, "Using
Amazon CloudWatch alarms".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything, pages, tags_of
from bastide.services.cloudwatch.alarm_rule import Rule
from bastide.services.cloudwatch.metric import dimensions_of, invalid
from bastide.services.cloudwatch.query import Queries, need_period
from bastide.services.cloudwatch.state import HISTORY, INDEX, INITIAL, INSUFFICIENT, configured, history, item, settle
from bastide.services.cloudwatch.statistic import statistic
from bastide.store import Row, Transaction, View

ALARM = Kind(
    "Alarm",
    service="cloudwatch",
    arn="alarm:{}",
    named_by="AlarmName",
    missing=("ResourceNotFound", "Unknown alarm: {name}", 404),
)

_MOST_ACTIONS: Final = 5
_MOST_ALARMS: Final = 5000
_LONGEST_WINDOW: Final = 86400
_LONG_WINDOW: Final = 7 * 86400
_COMPARISONS: Final = (
    "GreaterThanOrEqualToThreshold",
    "GreaterThanThreshold",
    "LessThanThreshold",
    "LessThanOrEqualToThreshold",
)
_MISSING: Final = ("breaching", "notBreaching", "ignore", "missing")
_UNSUPPORTED: Final = (
    "ThresholdMetricId", "EvaluationWindow", "WarmUpConfiguration", "EvaluationCriteria", "EvaluationInterval",
    "ActionConfiguration", "ActionsSuppressor", "ActionsSuppressorWaitPeriod", "ActionsSuppressorExtensionPeriod",
)  # fmt: skip
ACTIONS: Final = {"OK": "OKActions", "ALARM": "AlarmActions", INSUFFICIENT: "InsufficientDataActions"}
_ACTIONS_OF: Final = {"autoscaling": "scalingPolicy:", "sns": "", "lambda": "function:"}
_CONTROL: Final = re.compile(r"[\x00-\x1f]")


def _wrong(text: str) -> Refused:
    return Refused("ValidationError", text)


# -- what is asked -----------------------------------------------------------------------------------------------------


def _actions(asked: Asked) -> Sequence[str]:
    return [one for member in ACTIONS.values() for one in asked.input.get(member) or ()]


def _put_asks(operation: str) -> list[Ask]:
    return [
        Ask(f"cloudwatch:{operation}", ALARM.this, given={"cloudwatch:AlarmActions": _actions}),
        # API Reference, "Tags": takes cloudwatch:TagResource.
        Ask("cloudwatch:TagResource", ALARM.this, when=lambda asked: bool(asked.input.get("Tags"))),
    ]


def _named(asked: Asked) -> Iterable[str]:
    names = asked.input.get("AlarmNames") or ["*"]
    return [ALARM.arn(asked.call.account, asked.call.region, name) for name in names]


def _one_or_all(asked: Asked) -> Iterable[str]:
    return (ALARM.arn(asked.call.account, asked.call.region, asked.input.get("AlarmName") or "*"),)


# -- making ------------------------------------------------------------------------------------------------------------


def _check_actions(a: Authorised) -> None:
    for member in ACTIONS.values():
        given = a.input.get(member) or []
        if len(given) > _MOST_ACTIONS:
            raise _wrong(f"{member} has more than {_MOST_ACTIONS} actions.")
        for text in given:
            try:
                arn = Arn.parse(text)
            except ValueError:
                raise _wrong(f"Invalid arn syntax: {text}") from None
            begins = _ACTIONS_OF.get(arn.service)
            if begins is None or arn.service not in ("autoscaling", *a.calls.registry.services):
                raise _wrong(
                    f"{member}: actions of {arn.service} do not exist in Bastide yet; topics, functions and scaling "
                    f"policies do. A rule of EventBridge for `CloudWatch Alarm State Change` reaches what exists: {text}"
                )
            if not arn.resource.startswith(begins) or arn.resource.endswith(".fifo"):
                raise _wrong(f"{member}: {text} cannot be an action.")
            if arn.region != a.region or (arn.account != a.account and arn.service == "autoscaling"):
                raise _wrong(f"{member}: {text} is of another account or region.")


def _put(a: Authorised, tx: Transaction, kind: str, doc: dict[str, Any]) -> None:
    name = a.input["AlarmName"]
    if _CONTROL.search(name) or not name.strip():
        raise _wrong("An alarm's name has no control characters.")
    for member in _UNSUPPORTED:
        if a.input.get(member) is not None:
            raise _wrong(f"{member} is not supported by Bastide yet.")
    _check_actions(a)
    for member in ("AlarmDescription", *ACTIONS.values()):
        if a.input.get(member):
            doc[member] = a.input[member]
    doc["ActionsEnabled"] = a.input.get("ActionsEnabled", True)
    doc["AlarmConfigurationUpdatedTimestamp"] = a.now
    doc["type"] = kind
    row = ALARM.get(tx, a.account, a.region, name)
    if row is None:
        if len(tx.scan(ALARM.key, a.account, a.region, limit=_MOST_ALARMS)) >= _MOST_ALARMS:
            raise Refused("LimitExceeded", f"An account has at most {_MOST_ALARMS} alarms in a region.")
        doc |= {"StateReason": INITIAL, "StateUpdatedTimestamp": a.now, "StateTransitionedTimestamp": a.now}
        row = ALARM.create(a, tx, name, doc, status=INSUFFICIENT, tags=tags_of(a, "ValidationError"))
        tx.insert(Row(INDEX, "", "", ALARM.arn(a.account, a.region, name), {}), keep=False)
        history(tx, row, "ConfigurationUpdate", f'Alarm "{name}" created', {"type": "Create"})
        configured(ALARM, tx, row, "create")
        return
    if row.doc["type"] != kind:
        raise _wrong(f"The alarm {name} is a {row.doc['type']}; its kind cannot be changed.")
    kept = ("StateReason", "StateReasonData", "StateUpdatedTimestamp", "StateTransitionedTimestamp")
    before = row.doc
    row.doc = doc | {member: row.doc[member] for member in kept if member in row.doc}
    ALARM.change(tx, row, a.operation.name, a.request.id)
    history(tx, row, "ConfigurationUpdate", f'Alarm "{name}" updated', {"type": "Update"})
    configured(ALARM, tx, row, "update", before)


def _window(doc: dict[str, Any], period: int) -> None:
    periods = doc["EvaluationPeriods"]
    wanted = doc.get("DatapointsToAlarm")
    if wanted is not None and wanted > periods:
        raise _wrong("DatapointsToAlarm must not be greater than EvaluationPeriods.")
    if period * periods > (_LONG_WINDOW if period >= 3600 else _LONGEST_WINDOW):
        raise _wrong("Metrics cannot be checked across more than a day (a week with periods of an hour or more).")


@ALARM.operation("PutMetricAlarm", asks=_put_asks("PutMetricAlarm"))
def put_metric(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    for member in ("ComparisonOperator", "EvaluationPeriods"):
        if not given.get(member):
            raise Refused("MissingParameter", f"The parameter {member} is required.")
    if given["ComparisonOperator"] not in _COMPARISONS:
        raise _wrong("Anomaly detection is not supported by Bastide yet.")
    if given.get("Threshold") is None or not math.isfinite(given["Threshold"]):
        raise Refused("MissingParameter", "The parameter Threshold is required and is a number.")
    if given.get("TreatMissingData", "missing") not in _MISSING:
        raise invalid(given["TreatMissingData"], "TreatMissingData")
    low = given.get("EvaluateLowSampleCountPercentile")
    if low not in (None, "evaluate", "ignore"):
        raise invalid(low, "EvaluateLowSampleCountPercentile")
    members = ("ComparisonOperator", "EvaluationPeriods", "DatapointsToAlarm", "Threshold", "TreatMissingData")
    doc = {member: given[member] for member in members if given.get(member) is not None}
    doc["Threshold"] = float(doc["Threshold"])
    single = ("MetricName", "Namespace", "Statistic", "ExtendedStatistic", "Dimensions", "Period", "Unit")
    if given.get("Metrics"):
        if any(given.get(member) is not None for member in single):
            raise Refused("InvalidParameterCombination", "Metrics excludes the members that name a single metric.")
        queries = Queries(given["Metrics"], a.account)
        if len(queries.shown) != 1:
            raise _wrong("Exactly one of Metrics must return data.")
        if not queries.stats:
            raise _wrong("Metrics must have at least one metric.")
        period = max(stat.period for stat in queries.stats.values())
        doc["Metrics"] = given["Metrics"]
    else:
        for member in ("MetricName", "Namespace", "Period"):
            if not given.get(member):
                raise Refused("MissingParameter", f"The parameter {member} is required.")
        if bool(given.get("Statistic")) == bool(given.get("ExtendedStatistic")):
            raise Refused(
                "InvalidParameterCombination", "Exactly one of Statistic and ExtendedStatistic must be specified."
            )
        if given.get("ExtendedStatistic") and statistic(given["ExtendedStatistic"]) is None:
            raise invalid(given["ExtendedStatistic"], "ExtendedStatistic")
        period = need_period(given["Period"])
        dimensions_of(given.get("Dimensions"))
        doc |= {member: given[member] for member in single if given.get(member) is not None}
        if low is not None:
            doc["EvaluateLowSampleCountPercentile"] = low
    _window(doc, period)
    _put(a, tx, "MetricAlarm", doc)
    return {}


@ALARM.operation("PutCompositeAlarm", asks=_put_asks("PutCompositeAlarm"))
def put_composite(a: Authorised, tx: Transaction) -> Output:
    rule = Rule(a.input["AlarmRule"])
    for name in rule.names:
        other = child(tx, a.account, a.region, name)
        if other is None:
            raise _wrong(f"Could not find the alarm {name} of AlarmRule.")
        if _reaches(tx, other, a.input["AlarmName"]):
            raise _wrong("AlarmRule must not lead back to the alarm itself.")
    _put(a, tx, "CompositeAlarm", {"AlarmRule": a.input["AlarmRule"]})
    return {}


def child(view: View, account: str, region: str, name: str) -> Row | None:
    """The alarm that a rule names, by name or ARN."""
    where = (account, region, name)
    if name.startswith("arn:"):
        try:
            where = ALARM.locate(name, account, region)
        except Refused:
            return None
        if where[:2] != (account, region):
            return None
    return ALARM.get(view, *where)


def _reaches(view: View, row: Row, name: str, depth: int = 0) -> bool:
    if row.name == name or depth > 10:
        return True
    if "AlarmRule" not in row.doc:
        return False
    inner = (child(view, row.account, row.region, one) for one in Rule(row.doc["AlarmRule"]).names)
    return any(one is not None and _reaches(view, one, name, depth + 1) for one in inner)


# -- showing -----------------------------------------------------------------------------------------------------------


def shown(row: Row) -> Output:
    """An alarm as DescribeAlarms shows it."""
    told = {name: value for name, value in row.doc.items() if name != "type" and name[0] != "_"}
    told |= {"AlarmName": row.name, "AlarmArn": ALARM.arn(row.account, row.region, row.name), "StateValue": row.status}
    for member in ACTIONS.values():
        told.setdefault(member, [])
    if "MetricName" in told:
        told.setdefault("Dimensions", [])
    return told


@ALARM.reads("DescribeAlarms", asks=[Ask("cloudwatch:DescribeAlarms", _named)])
def describe(a: Authorised, view: View) -> Output:
    given = a.input
    for member in ("ChildrenOfAlarmName", "ParentsOfAlarmName"):
        if given.get(member):
            raise _wrong(f"{member} is not supported by Bastide yet.")
    names, prefix = given.get("AlarmNames"), given.get("AlarmNamePrefix")
    if names and prefix:
        raise Refused("InvalidParameterCombination", "AlarmNames and AlarmNamePrefix exclude each other.")
    kinds = given.get("AlarmTypes") or ["MetricAlarm"]
    limit = given.get("MaxRecords") or 50
    after = pages.position(a, given.get("NextToken"), code="InvalidNextToken")
    found: list[Row] = []
    token = None

    def wanted(row: Row) -> bool:
        actions = [one for member in ACTIONS.values() for one in row.doc.get(member) or ()]
        return (
            row.doc["type"] in kinds
            and given.get("StateValue") in (None, row.status)
            and (not given.get("ActionPrefix") or any(one.startswith(given["ActionPrefix"]) for one in actions))
        )

    if names:
        rows = [row for name in names if (row := ALARM.get(view, a.account, a.region, name)) is not None]
        found = [row for row in rows if wanted(row)][:100]
    else:
        examined = 0
        while True:
            rows = view.scan(ALARM.key, a.account, a.region, prefix=prefix or "", after=after, limit=limit + 1)
            for row in rows:
                if len(found) == limit or examined >= 1000:
                    token = pages.seal(a, after)
                    break
                examined, after = examined + 1, row.name
                if wanted(row):
                    found.append(row)
            if token or len(rows) <= limit:
                break
    output: Output = {"MetricAlarms": [], "CompositeAlarms": []}
    for row in found:
        output[f"{row.doc['type']}s"].append(shown(row))
    if token:
        output["NextToken"] = token
    return output


@ALARM.reads("DescribeAlarmsForMetric", asks=[Ask("cloudwatch:DescribeAlarmsForMetric", anything)])
def describe_for(a: Authorised, view: View) -> Output:
    given = a.input
    dimensions = dimensions_of(given.get("Dimensions"))
    found, after = [], ""
    while rows := view.scan(ALARM.key, a.account, a.region, after=after or None, limit=500):
        after = rows[-1].name
        for row in rows:
            doc = row.doc
            if (doc.get("Namespace"), doc.get("MetricName")) != (given["Namespace"], given["MetricName"]):
                continue
            if dimensions_of(doc.get("Dimensions")) != dimensions:
                continue
            members = ("Statistic", "ExtendedStatistic", "Period", "Unit")
            if all(given.get(member) in (None, doc.get(member)) for member in members):
                found.append(shown(row))
    return {"MetricAlarms": found}


# -- changing ----------------------------------------------------------------------------------------------------------


@ALARM.operation("SetAlarmState", asks=[Ask("cloudwatch:SetAlarmState", ALARM.this)])
def set_state(a: Authorised, tx: Transaction) -> Output:
    row = ALARM.find(tx, a.account, a.region, a.input["AlarmName"])
    data = a.input.get("StateReasonData")
    settle(ALARM, tx, row, a.input["StateValue"], a.input["StateReason"], data, request_id=a.request.id)
    return {}


def _switch(a: Authorised, tx: Transaction, enabled: bool) -> Output:
    for name in a.input["AlarmNames"]:
        row = ALARM.get(tx, a.account, a.region, name)
        if row is not None and row.doc["ActionsEnabled"] != enabled:
            row.doc |= {"ActionsEnabled": enabled, "AlarmConfigurationUpdatedTimestamp": a.now}
            ALARM.change(tx, row, a.operation.name, a.request.id)
            history(tx, row, "ConfigurationUpdate", f'Alarm "{name}" updated', {"type": "Update"})
    return {}


@ALARM.operation("EnableAlarmActions", asks=[Ask("cloudwatch:EnableAlarmActions", _named)])
def enable(a: Authorised, tx: Transaction) -> Output:
    return _switch(a, tx, True)


@ALARM.operation("DisableAlarmActions", asks=[Ask("cloudwatch:DisableAlarmActions", _named)])
def disable(a: Authorised, tx: Transaction) -> Output:
    return _switch(a, tx, False)


@ALARM.operation("DeleteAlarms", asks=[Ask("cloudwatch:DeleteAlarms", _named)])
def delete(a: Authorised, tx: Transaction) -> Output:
    if len(a.input["AlarmNames"]) > 100:
        raise _wrong("At most 100 alarms are deleted at once.")
    for name in dict.fromkeys(a.input["AlarmNames"]):
        row = ALARM.get(tx, a.account, a.region, name)
        if row is None:
            continue
        index = tx.get(INDEX, "", "", ALARM.arn(row.account, row.region, name))
        if index is not None:
            tx.delete(index, keep=False)
        history(tx, row, "ConfigurationUpdate", f'Alarm "{name}" deleted', {"type": "Delete"})
        ALARM.remove(tx, row, a.operation.name, a.request.id)
        configured(ALARM, tx, row, "delete")
    return {}


# -- history -----------------------------------------------------------------------------------------------------------


@ALARM.reads("DescribeAlarmHistory", asks=[Ask("cloudwatch:DescribeAlarmHistory", _one_or_all)])
def describe_history(a: Authorised, view: View) -> Output:
    given = a.input
    name, limit = given.get("AlarmName"), given.get("MaxRecords") or 100
    backwards = given.get("ScanBy") != "TimestampAscending"
    after = pages.position(a, given.get("NextToken"), code="InvalidNextToken")
    output: Output = {"AlarmHistoryItems": []}
    examined = 0
    while True:
        rows = view.scan(
            HISTORY,
            a.account,
            a.region,
            order="name" if name else "created",
            prefix=f"{name}\x1f" if name else "",
            descending=backwards,
            after=tuple(after) if isinstance(after, list) else after,
            limit=limit + 1,
        )
        for row in rows:
            if len(output["AlarmHistoryItems"]) == limit or examined >= 2000:
                return output | {"NextToken": pages.seal(a, after)}
            examined, after = examined + 1, row.name if name else [row.created, row.name]
            one = item(row)
            if (
                given.get("HistoryItemType") in (None, one["HistoryItemType"])
                and one["AlarmType"] in (given.get("AlarmTypes") or ["MetricAlarm", "CompositeAlarm"])
                and given.get("StartDate", 0) <= one["Timestamp"] <= given.get("EndDate", one["Timestamp"])
            ):
                output["AlarmHistoryItems"].append(one)
        if len(rows) <= limit:
            return output


# -- tags --------------------------------------------------------------------------------------------------------------


def _tagged(asked: Asked) -> Iterable[str]:
    return (str(asked.input["ResourceARN"]),)


def _row(a: Authorised, view: View) -> Row:
    try:
        where = ALARM.locate(a.input["ResourceARN"], "", "")
    except Refused:
        where = ("", "", "")
    row = ALARM.get(view, *where) if where[:2] == (a.account, a.region) else None
    if row is None:
        raise Refused("ResourceNotFoundException", f"{a.input['ResourceARN']} is no alarm of this account.", 404)
    return row


@ALARM.operation("TagResource", asks=[Ask("cloudwatch:TagResource", _tagged)])
def tag(a: Authorised, tx: Transaction) -> Output:
    row = _row(a, tx)
    row.tags = {**row.tags, **tags_of(a, "InvalidParameterValue")}
    if len(row.tags) > 50:
        raise Refused("InvalidParameterValue", "A resource may have at most 50 tags.")
    ALARM.change(tx, row, a.operation.name, a.request.id)
    return {}


@ALARM.operation("UntagResource", asks=[Ask("cloudwatch:UntagResource", _tagged)])
def untag(a: Authorised, tx: Transaction) -> Output:
    row = _row(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["TagKeys"]}
    ALARM.change(tx, row, a.operation.name, a.request.id)
    return {}


@ALARM.reads("ListTagsForResource", asks=[Ask("cloudwatch:ListTagsForResource", _tagged)])
def list_tags(a: Authorised, view: View) -> Output:
    try:
        tags = _row(a, view).tags
    except Refused:  # of what is not there, AWS tells that it has no tags
        tags = {}
    return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

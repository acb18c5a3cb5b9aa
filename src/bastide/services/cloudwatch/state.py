"""States of alarms: changed, remembered, told.

Source: CloudWatch User Guide, "Alarm events and EventBridge", "Alarm actions"; API Reference, AlarmHistoryItem.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Final

import orjson

from bastide.domain import Instant, iso, new_id
from bastide.kernel import Kind, Output
from bastide.kernel.happened import tell
from bastide.store import Row, Transaction

INSUFFICIENT: Final = "INSUFFICIENT_DATA"
INITIAL: Final = "Unchecked: Initial alarm creation"
INDEX: Final = "cloudwatch:AlarmIndex"
"""Under account "": which alarms exist, for whoever watches them."""
HISTORY: Final = "cloudwatch:AlarmHistory"
"""Rows ``ALARM US TIME/ID``: what happened to an alarm."""
ACTION: Final = "cloudwatch:AlarmAction"
"""The outbox's topic of actions that an alarm asks for: alarm (ARN), name, account, region, action (ARN), state, reason."""
_MOST_DATA: Final = 4000
_numbers = itertools.count()


def history(tx: Transaction, row: Row, type: str, summary: str, data: Mapping[str, Any]) -> None:
    """Remembers an item of an alarm's history; `type`: ConfigurationUpdate, StateUpdate or Action."""
    doc = {"type": row.doc["type"], "item": type, "summary": summary[:255], "at": tx.now}
    doc["data"] = orjson.dumps({"version": "1.0", **data}).decode()[:4095]
    name = f"{row.name}\x1f{tx.now:020d}/{next(_numbers):09d}/{new_id()}"
    tx.insert(Row(HISTORY, row.account, row.region, name, doc), keep=False)


def item(row: Row) -> Output:
    """An item as DescribeAlarmHistory shows it."""
    doc = row.doc
    return {
        "AlarmName": row.name.rpartition("\x1f")[0],
        "AlarmType": doc["type"],
        "Timestamp": doc["at"],
        "HistoryItemType": doc["item"],
        "HistorySummary": doc["summary"],
        "HistoryData": doc["data"],
    }


def _stamp(at: Instant) -> str:
    return f"{iso(at, fraction=True)[:-4]}+0000"


def _state(value: str, reason: str, data: str | None, at: Instant) -> dict[str, Any]:
    told = {"value": value, "reason": reason, "timestamp": _stamp(at)}
    return told | ({"reasonData": data} if data else {})


def _configuration(doc: Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if doc.get("AlarmDescription"):
        told["description"] = doc["AlarmDescription"]
    if "AlarmRule" in doc:
        return told | {"alarmRule": doc["AlarmRule"]}

    def metric(one: Mapping[str, Any]) -> dict[str, Any]:
        dimensions = {pair["Name"]: pair["Value"] for pair in one.get("Dimensions") or ()}
        return {"namespace": one.get("Namespace"), "name": one.get("MetricName"), "dimensions": dimensions}

    if "Metrics" in doc:
        found = []
        for one in doc["Metrics"]:
            query: dict[str, Any] = {"id": one["Id"], "returnData": one.get("ReturnData", True)}
            if one.get("Expression"):
                query["expression"] = one["Expression"]
            else:
                stat = one["MetricStat"]
                query["metricStat"] = {"metric": metric(stat["Metric"]), "period": stat["Period"], "stat": stat["Stat"]}
            found.append(query)
        return told | {"metrics": found}
    stat = {"metric": metric(doc), "period": doc["Period"], "stat": doc.get("Statistic") or doc["ExtendedStatistic"]}
    return told | {"metrics": [{"id": "m1", "metricStat": stat, "returnData": True}]}


def configured(kind: Kind, tx: Transaction, row: Row, operation: str, before: Mapping[str, Any] | None = None) -> None:
    """Tells EventBridge that an alarm was made, changed or removed; before: what it was."""
    doc = row.doc
    detail = {
        "alarmName": row.name, "operation": operation, "configuration": {**_configuration(doc), "alarmName": row.name},
        "state": _state(row.status, doc["StateReason"], doc.get("StateReasonData"), doc["StateUpdatedTimestamp"]),
    }  # fmt: skip
    if before is not None:
        detail["previousConfiguration"] = {**_configuration(before), "alarmName": row.name}
    tell(
        tx, account=row.account, region=row.region, source="aws.cloudwatch",
        detail_type="CloudWatch Alarm Configuration Change",
        resources=[kind.arn(row.account, row.region, row.name)], detail=detail,
    )  # fmt: skip


def settle(
    kind: Kind, tx: Transaction, row: Row, state: str, reason: str, data: str | None, *, request_id: str = ""
) -> None:
    """Gives an alarm a state. A change of it goes into the history and is told: to EventBridge, and to what the alarm's
    actions name, unless they are switched off."""
    old, doc = row.status, row.doc
    before = _state(old, doc["StateReason"], doc.get("StateReasonData"), doc["StateUpdatedTimestamp"])
    doc |= {"StateReason": reason[:1023], "StateUpdatedTimestamp": tx.now}
    doc.pop("StateReasonData", None)
    if data:
        doc["StateReasonData"] = data[:_MOST_DATA]
    row.status = state
    if old != state:
        doc["StateTransitionedTimestamp"] = tx.now
    kind.change(tx, row, "AlarmStateChange", request_id)
    if old == state:
        return
    new = _state(state, doc["StateReason"], data, tx.now)
    told = {"oldState": {"stateValue": old, "stateReason": before["reason"]}}
    told["newState"] = {"stateValue": state, "stateReason": new["reason"]}
    history(tx, row, "StateUpdate", f"Alarm updated from {old} to {state}", told)
    arn = kind.arn(row.account, row.region, row.name)
    tell(
        tx,
        account=row.account,
        region=row.region,
        source="aws.cloudwatch",
        detail_type="CloudWatch Alarm State Change",
        resources=[arn],
        detail={"alarmName": row.name, "state": new, "previousState": before, "configuration": _configuration(doc)},
    )
    if not doc["ActionsEnabled"]:
        return
    member = {"OK": "OKActions", "ALARM": "AlarmActions"}.get(state, "InsufficientDataActions")
    for action in doc.get(member) or ():
        where = {"account": row.account, "region": row.region, "name": row.name, "alarm": arn, "action": action}
        tx.emit(ACTION, {**where, "state": state, "previous": old, "reason": reason, "at": tx.now})
        history(
            tx,
            row,
            "Action",
            f"Asked {action} for its action",
            {"actionState": "Asked", "notificationResource": action},
        )

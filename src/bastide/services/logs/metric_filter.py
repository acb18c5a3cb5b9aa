"""Metric filters: lines that match become values of a metric.

Source: CloudWatch Logs API Reference, PutMetricFilter, MetricTransformation; User Guide, "Creating metrics from log
events using filters".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from bastide.domain import Refused
from bastide.engines.telemetry import Dimensions, Meter
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything, pages
from bastide.services.logs.pattern import Pattern
from bastide.services.logs.stream import GROUP_KEY, missing_group
from bastide.store import Row, Transaction, View

METRIC_FILTER = Kind(
    "MetricFilter",
    service="logs",
    arn="log-group:{}",
    named_by="filterName",
    tags=False,
    missing=("ResourceNotFoundException", "The specified metric filter does not exist.", 400),
)
"""Rows ``GROUP:metric-filter:NAME``."""
_MOST: Final = 100
_MOST_DIMENSIONS: Final = 3
_WORDS: Final = ("systemField", "emitSystemFieldDimensions", "fieldSelectionCriteria", "applyOnTransformedLogs")

Value = tuple[str, str, Dimensions, float, str]
"""Namespace, name, dimensions, value, unit."""


def _group(asked: Asked) -> Iterable[str]:
    name = asked.input.get("logGroupName") or ""
    return (f"arn:aws:logs:{asked.call.region}:{asked.call.account}:log-group:{name}:log-stream:",)


def _row(a: Authorised, view: View) -> Row:
    row = view.get(GROUP_KEY, a.account, a.region, a.input["logGroupName"])
    if row is None:
        raise missing_group()
    return row


def _wrong(text: str) -> Refused:
    return Refused("InvalidParameterException", text)


@METRIC_FILTER.operation("PutMetricFilter", asks=[Ask("logs:PutMetricFilter", _group)])
def put(a: Authorised, tx: Transaction) -> Output:
    group, name = _row(a, tx), a.input["filterName"]
    for member in _WORDS:
        if a.input.get(member):
            raise _wrong(f"{member} is not supported by Bastide yet.")
    Pattern(a.input["filterPattern"])
    [change] = a.input["metricTransformations"]
    if change["metricNamespace"].startswith("AWS/"):
        raise _wrong("A namespace that begins with AWS/ is a service's.")
    if not change["metricValue"].startswith("$") and _finite(change["metricValue"]) is None:
        raise _wrong("metricValue is a number or a field: $.name or $name.")
    if len(change.get("dimensions") or {}) > _MOST_DIMENSIONS:
        raise _wrong(f"A filter has at most {_MOST_DIMENSIONS} dimensions.")
    if change.get("dimensions") and change.get("defaultValue") is not None:
        raise _wrong("Dimensions and defaultValue exclude each other.")
    key = f"{group.name}:metric-filter:{name}"
    doc = {"pattern": a.input["filterPattern"], "change": change}
    row = METRIC_FILTER.get(tx, a.account, a.region, key)
    if row is None:
        prefix = f"{group.name}:metric-filter:"
        if len(tx.scan(METRIC_FILTER.key, a.account, a.region, prefix=prefix, limit=_MOST)) >= _MOST:
            raise Refused("LimitExceededException", f"A log group has at most {_MOST} metric filters.")
        METRIC_FILTER.create(a, tx, key, doc)
        group.doc["filters"] = group.doc.get("filters", 0) + 1
        tx.update(group, keep=False)
    else:
        row.doc = doc
        METRIC_FILTER.change(tx, row, a.operation.name, a.request.id)
    return {}


@METRIC_FILTER.operation("DeleteMetricFilter", asks=[Ask("logs:DeleteMetricFilter", _group)])
def delete(a: Authorised, tx: Transaction) -> Output:
    group = _row(a, tx)
    row = METRIC_FILTER.find(tx, a.account, a.region, f"{group.name}:metric-filter:{a.input['filterName']}")
    METRIC_FILTER.remove(tx, row, a.operation.name, a.request.id)
    group.doc["filters"] -= 1
    tx.update(group, keep=False)
    return {}


def drop(tx: Transaction, group: Row, event: str, request_id: str) -> None:
    """Removes the filters of a group that goes."""
    for row in tx.scan(
        METRIC_FILTER.key, group.account, group.region, prefix=f"{group.name}:metric-filter:", limit=_MOST
    ):
        METRIC_FILTER.remove(tx, row, event, request_id)


@METRIC_FILTER.reads("DescribeMetricFilters", asks=[Ask("logs:DescribeMetricFilters", _group)])
def describe(a: Authorised, view: View) -> Output:
    given = a.input
    name, limit = given.get("logGroupName"), int(given.get("limit") or 50)
    if name:
        _row(a, view)
    prefix = f"{name}:metric-filter:{given.get('filterNamePrefix') or ''}" if name else ""
    after = pages.position(a, given.get("nextToken"), code="InvalidParameterException")
    found: list[Output] = []
    while True:
        rows = view.scan(METRIC_FILTER.key, a.account, a.region, prefix=prefix, after=after, limit=limit + 1)
        for row in rows:
            if len(found) == limit:
                return {"metricFilters": found, "nextToken": pages.seal(a, after)}
            after, change = row.name, row.doc["change"]
            if given.get("metricName") not in (None, change["metricName"]):
                continue
            if given.get("metricNamespace") not in (None, change["metricNamespace"]):
                continue
            group, _, own = row.name.partition(":metric-filter:")
            if not own.startswith(given.get("filterNamePrefix") or ""):
                continue
            told = {"filterName": own, "filterPattern": row.doc["pattern"], "metricTransformations": [change]}
            told |= {"creationTime": row.created // 1000, "logGroupName": group, "applyOnTransformedLogs": False}
            found.append(told)
        if len(rows) <= limit:
            return {"metricFilters": found}


@METRIC_FILTER.reads("TestMetricFilter", asks=[Ask("logs:TestMetricFilter", anything)])
def test(a: Authorised, view: View) -> Output:
    pattern = Pattern(a.input["filterPattern"])
    found = []
    for number, message in enumerate(a.input["logEventMessages"], 1):
        if pattern.matches(message):
            found.append({"eventNumber": number, "eventMessage": message, "extractedValues": {}})
    return {"matches": found}


def _finite(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def values(view: View, group: Row, messages: Sequence[str]) -> list[Value]:
    """What a group's filters make of lines."""
    found: list[Value] = []
    prefix = f"{group.name}:metric-filter:"
    for row in view.scan(METRIC_FILTER.key, group.account, group.region, prefix=prefix, limit=_MOST):
        change, pattern = row.doc["change"], Pattern(row.doc["pattern"])
        for message in messages:
            if not pattern.matches(message):
                continue
            text = change["metricValue"]
            value = _finite(pattern.value(message, text) if text.startswith("$") else text)
            pairs = {key: pattern.value(message, path) for key, path in (change.get("dimensions") or {}).items()}
            if value is None or None in pairs.values():
                continue
            dimensions = tuple(sorted((key, str(held)) for key, held in pairs.items()))
            found.append(
                (change["metricNamespace"], change["metricName"], dimensions, value, change.get("unit") or "None")
            )
        if messages and change.get("defaultValue") is not None and not any(map(pattern.matches, messages)):
            where = (change["metricNamespace"], change["metricName"], ())
            found.append((*where, change["defaultValue"], change.get("unit") or "None"))
    return found


async def measured(a: Authorised, output: Output) -> Output:
    """After the lines are on the disk: what the filters made of them is counted."""
    meter = a.engine(Meter)
    for namespace, name, dimensions, value, unit in a.call.prepared or ():
        meter.record(a.account, a.region, namespace, dimensions, name, value, unit)
    return output

"""Metrics: values put, metrics listed.

Source: Amazon CloudWatch API Reference, PutMetricData, MetricDatum, ListMetrics; "CloudWatch service quotas".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.engines.telemetry import Dimensions, Full, Meter, Point, Summary
from bastide.kernel import Ask, Authorised, Kind, Output, anything, each, pages
from bastide.store import View

METRIC = Kind("Metric", service="cloudwatch", arn="metric/{}", named_by="MetricName", tags=False)
"""Not a noun of its own: what the operations hang on."""

_MOST_METRICS: Final = 1000
_MOST_VALUES: Final = 150
MOST_DIMENSIONS: Final = 30
_MOST_VALUE: Final = 2.0**360
_TOO_OLD: Final = 14 * 86400
_TOO_NEW: Final = 2 * 3600
_LISTED: Final = 500
_RECENT: Final = 3 * 3600
_LISTED_SECONDS: Final = 14 * 86400


def invalid(what: Any, where: str) -> Refused:
    """InvalidParameterValue in AWS's words."""
    return Refused("InvalidParameterValue", f"The value {what} for parameter {where} is invalid.")


def dimensions_of(given: Iterable[dict[str, Any]] | None, where: str = "Dimensions") -> Dimensions:
    """The dimensions of a request in order; raises Refused for too many, or one twice."""
    pairs = sorted((str(one["Name"]), str(one["Value"])) for one in given or ())
    if len(pairs) > MOST_DIMENSIONS:
        raise Refused(
            "InvalidParameterValue", f"The collection {where} must not have a size greater than {MOST_DIMENSIONS}."
        )
    if len({name for name, _ in pairs}) != len(pairs):
        raise Refused("InvalidParameterValue", f"The collection {where} has a dimension twice.")
    for name, value in pairs:
        if name.startswith(":") or not name.strip() or not value.strip() or not (name + value).isascii():
            raise invalid(f"{name}={value}", where)
    return tuple(pairs)


def _number(value: float, where: str) -> float:
    if not math.isfinite(value) or abs(value) > _MOST_VALUE:
        raise invalid(value, where)
    return value


def _summary(one: dict[str, Any], where: str) -> Summary:
    told = [member for member in ("Value", "StatisticValues", "Values") if one.get(member) is not None]
    if not told:
        raise Refused(
            "MissingParameter",
            f"At least one of the parameters {where}Value, StatisticValues or Values must be specified.",
        )
    if len(told) > 1:
        told.sort(key=("Value", "Values", "StatisticValues").index)
        raise Refused(
            "InvalidParameterCombination",
            f"The parameters {where}{told[0]} and {where}{told[1]} are mutually exclusive and you have specified both.",
        )
    if told[0] == "Value":
        if one.get("Counts"):
            raise Refused("InvalidParameterCombination", f"The parameter {where}Counts goes with {where}Values.")
        return Summary.of(_number(one["Value"], f"{where}Value"))
    if told[0] == "StatisticValues":
        held = one["StatisticValues"]
        parts = [
            _number(held[member], f"{where}StatisticValues.{member}")
            for member in ("SampleCount", "Sum", "Minimum", "Maximum")
        ]
        count, total, low, high = parts
        if count <= 0 or low > high:
            raise invalid(held, f"{where}StatisticValues")
        return Summary(count, total, low, high, known=low == high)
    values, counts = one["Values"], one.get("Counts") or [1.0] * len(one["Values"])
    if not 0 < len(values) <= _MOST_VALUES or len(counts) != len(values):
        raise Refused(
            "InvalidParameterValue",
            f"{where}Values must have 1 to {_MOST_VALUES} members, and {where}Counts as many.",
        )
    found: Summary | None = None
    for value, count in zip(values, counts, strict=True):
        if not math.isfinite(count) or count <= 0:
            raise invalid(count, f"{where}Counts")
        part = Summary.of(_number(value, f"{where}Values"), count)
        if found is None:
            found = part
        else:
            found.add(part)
    assert found is not None
    return found


def _point(a: Authorised, one: dict[str, Any], where: str) -> Point:
    resolution = one.get("StorageResolution") or 60
    if resolution not in (1, 60):
        raise invalid(resolution, f"{where}StorageResolution")
    now = a.now // MICROS
    at = now if one.get("Timestamp") is None else one["Timestamp"] // MICROS
    if not now - _TOO_OLD <= at <= now + _TOO_NEW:
        raise Refused(
            "InvalidParameterValue",
            f"The parameter {where}Timestamp must specify a time no more than two weeks in the past, and no more than two "
            "hours in the future.",
        )
    return Point(
        a.account,
        a.region,
        a.input["Namespace"],
        dimensions_of(one.get("Dimensions"), f"{where}Dimensions"),
        one["MetricName"],
        one.get("Unit") or "None",
        at,
        _summary(one, where),
        resolution == 1,
    )


async def _keep(a: Authorised, output: Output) -> Output:
    try:
        await a.engine(Meter).put(a.staged)
    except Full:
        text = "This platform's room for metrics is used up; its administrator can give more."
        raise Refused("LimitExceeded", text) from None
    except OSError:
        raise Refused("InternalServiceError", "The values could not be written. Please try again.", 500) from None
    return output


@METRIC.reads(
    "PutMetricData",
    asks=[Ask("cloudwatch:PutMetricData", anything, given={"cloudwatch:namespace": each("Namespace")})],
    data=True,
    after=_keep,
)
def put(a: Authorised, view: View) -> Output:
    if a.input.get("EntityMetricData") or a.input.get("StrictEntityValidation"):
        raise invalid("", "EntityMetricData, which is not supported by Bastide yet,")
    namespace, data = a.input["Namespace"], a.input.get("MetricData")
    if namespace.startswith("AWS/"):
        raise Refused("InvalidParameterValue", "The value AWS/ for parameter Namespace is invalid: it is for services.")
    if namespace.startswith(":") or not namespace.isprintable():
        raise invalid(namespace, "Namespace")
    if not data:
        raise Refused("MissingParameter", "The parameter MetricData is required.")
    if len(data) > _MOST_METRICS:
        raise Refused(
            "InvalidParameterValue", f"The collection MetricData must not have a size greater than {_MOST_METRICS}."
        )
    a.staged = [_point(a, one, f"MetricData.member.{number}.") for number, one in enumerate(data, 1)]
    return {}


@METRIC.reads("ListMetrics", asks=[Ask("cloudwatch:ListMetrics", anything)])
def listed(a: Authorised, view: View) -> Output:
    for member in ("IncludeLinkedAccounts", "OwningAccount"):
        if a.input.get(member):
            raise invalid(a.input[member], f"{member}, which is not supported by Bastide yet,")
    given = a.input.get("Dimensions") or ()
    if len(given) > MOST_DIMENSIONS:
        raise invalid(len(given), "Dimensions")
    after = pages.position(a, a.input.get("NextToken"), code="InvalidParameterValue")
    now = a.now // MICROS
    found = a.engine(Meter).metrics(
        a.account,
        a.region,
        namespace=a.input.get("Namespace"),
        name=a.input.get("MetricName"),
        dimensions=[(one["Name"], one.get("Value")) for one in given],
        since=now - (_RECENT if a.input.get("RecentlyActive") else _LISTED_SECONDS),
        after=int(after or 0),
        limit=_LISTED + 1,
    )
    output: Output = {
        "Metrics": [
            {
                "Namespace": one.namespace,
                "MetricName": one.name,
                "Dimensions": [{"Name": name, "Value": value} for name, value in one.dimensions],
            }
            for one in found[:_LISTED]
        ]
    }
    if len(found) > _LISTED:
        output["NextToken"] = pages.seal(a, found[_LISTED - 1].id)
    return output

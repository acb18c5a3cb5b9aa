"""Metrics read: statistics of one, data and expressions of many.

Source: Amazon CloudWatch API Reference, GetMetricData, GetMetricStatistics, MetricDataQuery, MetricStat.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.engines.telemetry import Meter, Summary
from bastide.kernel import Ask, Authorised, Output, anything, pages
from bastide.services.cloudwatch.expression import Expression, Series, Value
from bastide.services.cloudwatch.metric import METRIC, dimensions_of, invalid
from bastide.services.cloudwatch.statistic import PLAIN, Statistic, statistic
from bastide.store import View

_DAY: Final = 86400
_MOST_POINTS: Final = 1440
_MOST_DATA: Final = 100_800
_MOST_QUERIES: Final = 500
_SHORT: Final = (1, 5, 10, 20, 30)
_ID: Final = re.compile(r"[a-z][A-Za-z0-9_]*")


def need_period(period: int, where: str = "Period") -> int:
    """The period; raises Refused unless it is one that CloudWatch has."""
    if period not in _SHORT and (period < 60 or period % 60):
        raise Refused(
            "InvalidParameterValue", f"The parameter {where} must be 1, 5, 10, 20, 30 or a multiple of 60 seconds."
        )
    return period


def _need_statistic(name: str) -> Statistic:
    found = statistic(name)
    if found is None:
        raise invalid(name, "Stat")
    return found


@dataclass(slots=True)
class Stat:
    """A metric's statistic, as a MetricStat names it."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]
    period: int
    statistic: str
    unit: str | None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Stat:
        """From a MetricStat; raises Refused."""
        metric = given["Metric"]
        for member in ("Namespace", "MetricName"):
            if not metric.get(member):
                raise Refused("ValidationError", f"The parameter MetricStat.Metric.{member} is required.")
        _need_statistic(given["Stat"])
        return cls(
            metric["Namespace"],
            metric["MetricName"],
            dimensions_of(metric.get("Dimensions")),
            need_period(given["Period"], "MetricStat.Period"),
            given["Stat"],
            given.get("Unit"),
        )

    def summaries(self, meter: Meter, account: str, region: str, start: int, end: int) -> dict[int, Summary]:
        """By the beginning of each period; units together."""
        found: dict[int, Summary] = {}
        where = (account, region, self.namespace, self.dimensions, self.name)
        for periods in meter.read(*where, start, end, self.period, self.unit).values():
            for at, summary in periods.items():
                if at in found:
                    found[at].add(summary)
                else:
                    found[at] = summary
        return found

    def series(self, meter: Meter, account: str, region: str, start: int, end: int, label: str = "") -> Series:
        """Its values; `start` is rounded down to a whole period."""
        start = start // min(self.period, 3600) * min(self.period, 3600)
        read = _need_statistic(self.statistic)
        told = self.summaries(meter, account, region, start, end)
        points = {at: value for at, summary in sorted(told.items()) if (value := read(summary)) is not None}
        return Series(points, self.period, label or self.name, span=(start, end))


class Queries:
    """MetricDataQueries, checked. `shown`: ids of those whose data is asked for, in order."""

    def __init__(self, given: Sequence[Mapping[str, Any]], account: str, *, code: str = "ValidationError") -> None:
        self.stats: dict[str, Stat] = {}
        self.expressions: dict[str, Expression] = {}
        self.labels: dict[str, str] = {}
        self.shown: list[str] = []
        if not 0 < len(given) <= _MOST_QUERIES:
            raise Refused(code, f"There must be 1 to {_MOST_QUERIES} metric data queries.")
        for one in given:
            id = one["Id"]
            if not _ID.fullmatch(id):
                raise Refused(
                    code, f"The Id `{id}` must begin with a lower case letter and have letters, digits and _."
                )
            if id in self.labels:
                raise Refused(code, f"The Id `{id}` is there twice.")
            if bool(one.get("MetricStat")) == bool(one.get("Expression")):
                raise Refused(code, f"The query `{id}` needs exactly one of MetricStat and Expression.")
            if one.get("AccountId") not in (None, account):
                raise Refused(code, "AccountId: metrics of other accounts are not supported by Bastide yet.")
            label = one.get("Label") or ""
            if "${" in label:
                raise Refused(code, "Dynamic labels are not supported by Bastide yet.")
            self.labels[id] = label
            if one.get("MetricStat"):
                self.stats[id] = Stat.of(one["MetricStat"])
            else:
                self.expressions[id] = Expression(one["Expression"])
            if one.get("ReturnData") is not False:
                self.shown.append(id)
        shown = [self.stats[id] for id in self.shown if id in self.stats]
        statistics, periods = ({one.statistic for one in shown}, {one.period for one in shown})
        for id, stat in self.stats.items():  # the metric, and what tells the queries apart
            told = [stat.name, *([stat.statistic] if len(statistics) > 1 else ())]
            told += [str(stat.period)] if len(periods) > 1 else []
            self.labels[id] = self.labels[id] or " ".join(told)
        for id, expression in self.expressions.items():
            for name in expression.names:
                if name not in self.labels:
                    raise Refused(code, f"The expression of `{id}` names `{name}`, which is no query's Id.")

    def periods(self, start: int, end: int) -> int:
        """How many periods reading would look at."""
        return sum((end - start) // stat.period + 1 for stat in self.stats.values())

    def run(self, meter: Meter, account: str, region: str, start: int, end: int) -> dict[str, list[Series]]:
        """The series of those shown; an expression may have several, or none."""
        known: dict[str, Value] = {}
        metrics = []
        for id, stat in self.stats.items():
            series = stat.series(meter, account, region, start, end, self.labels[id])
            series.id = id
            known[id] = series
            metrics.append(series)
        waiting = dict(self.expressions)
        while waiting:
            ready = [id for id, one in waiting.items() if not one.names & waiting.keys()]
            if not ready:
                raise Refused("ValidationError", f"The expressions of {', '.join(sorted(waiting))} use each other.")
            for id in ready:
                found = waiting.pop(id).evaluate(known, metrics)
                if isinstance(found, (int, float)):
                    # A number is that number in every period.
                    period = min((stat.period for stat in self.stats.values()), default=60)
                    first = start // period * period
                    found = Series(dict.fromkeys(range(first, end, period), float(found)), period, span=(first, end))
                if isinstance(found, str):
                    raise Refused("ValidationError", f"The expression of `{id}` gives text, no time series.")
                if isinstance(found, Series):
                    found = Series(found.points, found.period, self.labels[id] or id, id, found.span)
                known[id] = found
        output: dict[str, list[Series]] = {}
        for id in self.shown:
            value = known[id]
            output[id] = value if isinstance(value, list) else [value]  # type: ignore[list-item]
        return output


@METRIC.reads("GetMetricData", asks=[Ask("cloudwatch:GetMetricData", anything)])
def data(a: Authorised, view: View) -> Output:
    given = a.input
    start, end = given["StartTime"] // MICROS, -(-given["EndTime"] // MICROS)
    if start >= end:
        raise Refused("ValidationError", "The parameter StartTime must be less than the parameter EndTime.")
    if (given.get("LabelOptions") or {}).get("Timezone") not in (None, "+0000"):
        raise Refused("ValidationError", "LabelOptions.Timezone is not supported by Bastide yet.")
    most = given.get("MaxDatapoints") or _MOST_DATA
    if not 0 < most <= _MOST_DATA:
        raise Refused("ValidationError", f"MaxDatapoints must lie between 1 and {_MOST_DATA}.")
    queries = Queries(given["MetricDataQueries"], a.account)
    if queries.periods(start, end) > 10 * _MOST_DATA:
        raise Refused(
            "ValidationError", "The request looks at too many data points. Please ask for less time, or longer periods."
        )
    skip = int(pages.position(a, given.get("NextToken"), code="InvalidNextToken") or 0)
    after, room = skip, most
    results: list[Output] = []
    more = False
    for id, many in queries.run(a.engine(Meter), a.account, a.region, start, end).items():
        for series in many:
            times = sorted(series.points, reverse=given.get("ScanBy") != "TimestampAscending")
            here = times[skip : skip + room]
            cut = len(times) > skip + room
            if skip >= len(times) and times:
                skip -= len(times)
                continue
            skip, room = 0, room - len(here)
            more = more or cut
            results.append(
                {
                    "Id": id,
                    "Label": series.label or id,
                    "Timestamps": [at * MICROS for at in here],
                    "Values": [series.points[at] for at in here],
                    "StatusCode": "PartialData" if cut else "Complete",
                }
            )
    output: Output = {"MetricDataResults": results, "Messages": []}
    if more:
        output["NextToken"] = pages.seal(a, after + most)
    return output


@METRIC.reads("GetMetricStatistics", asks=[Ask("cloudwatch:GetMetricStatistics", anything)])
def statistics(a: Authorised, view: View) -> Output:
    given = a.input
    plain, extended = given.get("Statistics") or [], given.get("ExtendedStatistics") or []
    if not plain and not extended:
        raise Refused(
            "InvalidParameterCombination",
            "At least one of the parameters Statistics and ExtendedStatistics must be specified.",
        )
    reads = {name: _need_statistic(name) for name in extended}
    if any(name in PLAIN for name in extended):
        raise invalid(extended, "ExtendedStatistics")
    period = need_period(given["Period"])
    start, end = given["StartTime"] // MICROS, -(-given["EndTime"] // MICROS)
    if start >= end:
        raise Refused("InvalidParameterValue", "The parameter StartTime must be less than the parameter EndTime.")
    if (end - start) / period > _MOST_POINTS:
        raise Refused(
            "InvalidParameterCombination",
            f"You have requested up to {(end - start) // period} datapoints, which exceeds the limit of "
            f"{_MOST_POINTS}. You may reduce the datapoints requested by increasing Period, or decreasing the time "
            "range.",
        )
    age = a.now // MICROS - start
    whole = period if period < 60 else 60 if age < 15 * _DAY else 300 if age < 63 * _DAY else 3600
    start = start // whole * whole
    where = (a.account, a.region, given["Namespace"], dimensions_of(given.get("Dimensions")), given["MetricName"])
    found = []
    for unit, periods in a.engine(Meter).read(*where, start, end, period, given.get("Unit")).items():
        for at, summary in sorted(periods.items()):
            point: Output = {"Timestamp": at * MICROS, "Unit": unit}
            for name in plain:
                point[name] = PLAIN[name](summary)
            told = {name: value for name, read in reads.items() if (value := read(summary)) is not None}
            if extended and told:
                point["ExtendedStatistics"] = told
            if plain or told:
                found.append(point)
    return {"Label": given["MetricName"], "Datapoints": found}

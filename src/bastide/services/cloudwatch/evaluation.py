"""Alarms are watched: by the platform's clock, each some times in its period.

Source: CloudWatch User Guide, "Alarm evaluation", "Configuring how CloudWatch alarms treat missing data".
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Arn, Refused, iso
from bastide.engines.telemetry import Meter
from bastide.kernel import Calls, Rounds
from bastide.services.cloudwatch.alarm import ALARM, child
from bastide.services.cloudwatch.alarm_rule import Rule
from bastide.services.cloudwatch.query import Queries, Stat
from bastide.services.cloudwatch.state import HISTORY, INDEX, INSUFFICIENT, settle
from bastide.services.cloudwatch.statistic import percentile, statistic
from bastide.store import Row, Transaction

_BEYOND: Final = 2
_HISTORY: Final = 30 * 86400 * MICROS
_TIDY_SECONDS: Final = 3600
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
_WORDS: Final = {
    "GreaterThanOrEqualToThreshold": "greater than or equal to",
    "GreaterThanThreshold": "greater than",
    "LessThanThreshold": "less than",
    "LessThanOrEqualToThreshold": "less than or equal to",
}


def verdict(breaching: Sequence[bool | None], periods: int, wanted: int, missing: str) -> str | None:
    """The state that data points mean, the newest last, None where one is missing; None: the state stays as it is.

    More than `periods` points may be given: where points are missing, older ones stand in for them.
    """
    real = [one for one in breaching if one is not None][-periods:]
    lacking = periods - len(real)
    bad = sum(real)
    if missing == "breaching":
        return "ALARM" if bad + lacking >= wanted else "OK"
    if missing == "notBreaching":
        return "ALARM" if bad >= wanted else "OK"
    if not real:
        return None if missing == "ignore" else INSUFFICIENT
    if bad >= wanted:
        return "ALARM"
    if bad < len(real) or not lacking:
        return "OK"
    # All that there is breaches, but it is too little: an alarm only once its oldest point is old enough.
    oldest = next(len(breaching) - at for at, one in enumerate(breaching) if one)
    return "ALARM" if missing == "missing" and oldest >= wanted else None


class Watch(Rounds):
    """Evaluates every alarm when it is due."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls)
        self._meter = calls.engine(Meter)
        self._due: dict[str, tuple[int, int]] = {}
        self._tidied = 0

    async def round(self) -> None:
        """See the base."""
        seen: set[str] = set()

        async def look(name: str) -> None:
            seen.add(name)
            await self._look(name)

        await self.each(INDEX, look)
        self._due = {name: due for name, due in self._due.items() if name in seen}
        if self._calls.clock() - self._tidied > _TIDY_SECONDS * MICROS:
            self._tidied = self._calls.clock()
            await self._tidy(seen)

    async def _look(self, name: str) -> None:
        arn, now = Arn.parse(name), self._calls.clock()
        with self._calls.store.reading() as view:
            row = view.get(ALARM.key, arn.account, arn.region, arn.resource.removeprefix("alarm:"))
            if row is None:
                return
            found: tuple[str | None, str, str | None] | None
            if "AlarmRule" in row.doc:
                found = self._composite(view, row)
            else:
                generation, due = self._due.get(name, (-1, 0))
                if generation == row.generation and now < due:
                    return
                try:
                    found = self._metric(row, now)
                except Refused as refused:
                    found = (INSUFFICIENT, f"The alarm could not be evaluated: {refused.message}", None)
        generation = row.generation
        if found is not None and found[0] is not None and found[0] != row.status:
            state, reason, data = found
            settled = str(state)

            def work(tx: Transaction) -> None:
                held = ALARM.get(tx, row.account, row.region, row.name)
                if held is not None and held.generation == generation:
                    settle(ALARM, tx, held, settled, reason, data)

            await self._calls.store.write(work)
            generation += 1
        else:
            await asyncio.sleep(0)
        self._due[name] = (generation, now + _interval(row.doc) * MICROS // 12)

    def _composite(self, view: Any, row: Row) -> tuple[str, str, str | None]:
        states: dict[str, str] = {}

        def state(name: str) -> str:
            one = child(view, row.account, row.region, name)
            states[name] = INSUFFICIENT if one is None else one.status
            return states[name]

        rule = Rule(row.doc["AlarmRule"])
        new = "ALARM" if rule.holds(state) else "OK"
        told = ", ".join(f"{name} is {state(name)}" for name in dict.fromkeys(rule.names))
        triggering = [{"arn": ALARM.arn(row.account, row.region, name), "state": held} for name, held in states.items()]
        data = orjson.dumps({"triggeringAlarms": triggering}).decode()
        return new, f"{row.doc['AlarmRule'][:200]} evaluates to {'TRUE' if new == 'ALARM' else 'FALSE'}: {told}", data

    def _metric(self, row: Row, now: int) -> tuple[str | None, str, str | None] | None:
        doc = row.doc
        periods = doc["EvaluationPeriods"]
        wanted = doc.get("DatapointsToAlarm", periods)
        period = _period(doc)
        end = now // MICROS // period * period
        start = end - (periods + _BEYOND) * period
        points, few = self._points(row, start, end)
        if few:
            return None
        compare, threshold = _COMPARE[doc["ComparisonOperator"]], doc["Threshold"]
        values = [points.get(at) for at in range(start, end, period)]
        breaching = [None if value is None else compare(value, threshold) for value in values]
        state = verdict(breaching, periods, wanted, doc.get("TreatMissingData", "missing"))
        if state is None or state == row.status:
            return state, "", None
        return (
            state,
            _reason(doc, points, periods, wanted, breaching, state, row.status),
            _data(doc, points, now, start, period),
        )

    def _points(self, row: Row, start: int, end: int) -> tuple[dict[int, float], bool]:
        """Values by time, and whether there are too few samples for a percentile that says to wait then."""
        doc, where = row.doc, (row.account, row.region)
        if "Metrics" in doc:
            shown = Queries(doc["Metrics"], row.account).run(self._meter, *where, start, end)
            [many] = shown.values()
            if len(many) != 1:
                raise Refused("ValidationError", "the expression does not give one time series")
            return many[0].points, False
        name = doc.get("Statistic") or doc["ExtendedStatistic"]
        metric = {key: doc.get(key) for key in ("Namespace", "MetricName", "Dimensions")}
        stat = Stat.of({"Metric": metric, "Period": doc["Period"], "Stat": name, "Unit": doc.get("Unit")})
        told = stat.summaries(self._meter, *where, start, end)
        read, percent = statistic(name), percentile(name)
        assert read is not None
        few = False
        if percent is not None and doc.get("EvaluateLowSampleCountPercentile") == "ignore":
            needed = 10 / min(max(1 - percent / 100, 1e-9), max(percent / 100, 1e-9))
            few = any(one.count < needed for one in told.values())
        return {at: value for at, one in told.items() if (value := read(one)) is not None}, few

    async def _tidy(self, alarms: set[str]) -> None:
        """History goes after thirty days."""
        before = self._calls.clock() - _HISTORY
        places = {(arn.account, arn.region) for arn in map(Arn.parse, alarms)}

        def work(tx: Transaction) -> None:
            for account, region in places:
                for row in tx.scan(HISTORY, account, region, order="created", created_to=before, limit=1000):
                    tx.delete(row, keep=False)

        await self._calls.store.write(work)


def _period(doc: dict[str, Any]) -> int:
    if "Metrics" in doc:
        return max(int(one["MetricStat"]["Period"]) for one in doc["Metrics"] if one.get("MetricStat"))
    return int(doc["Period"])


def _interval(doc: dict[str, Any]) -> int:
    """Seconds within which an alarm is looked at some times."""
    return 0 if "AlarmRule" in doc else min(_period(doc), 60)


_TREATED: Final = {"breaching": "Breaching", "notBreaching": "NonBreaching"}


def _reason(
    doc: dict[str, Any],
    points: dict[int, float],
    periods: int,
    wanted: int,
    breaching: Sequence[bool | None],
    state: str,
    before: str,
) -> str:
    if state == INSUFFICIENT:
        return f"Insufficient Data: {periods} datapoints were unknown."
    held = [(at, points[at]) for at in sorted(points)][-periods:]
    compare, threshold = _COMPARE[doc["ComparisonOperator"]], doc["Threshold"]
    meant = [(at, value) for at, value in held if compare(value, threshold) == (state == "ALARM")] or held
    listed = ", ".join(f"{value!r} ({iso(at * MICROS)})" for at, value in meant[-5:])
    if not held:
        treated = _TREATED.get(doc.get("TreatMissingData", ""), "Missing")
        return (
            f"Threshold Crossed: no datapoints were received for {periods} periods and {periods} missing datapoints were "
            f"treated as [{treated}]."
        )
    verb = "was" if len(meant) == 1 else "were"
    negation = "" if state == "ALARM" else "not "
    return (
        f"Threshold Crossed: {len(meant)} out of the last {periods} datapoints [{listed}] {verb} {negation}"
        f"{_WORDS[doc['ComparisonOperator']]} the threshold ({threshold!r}) (minimum "
        f"{wanted if state == 'ALARM' else periods - wanted + 1} datapoints for {before} -> {state} transition)."
    )


def _data(doc: dict[str, Any], points: dict[int, float], now: int, start: int, period: int) -> str:
    recent = [{"timestamp": iso(at * MICROS), "value": points[at]} for at in sorted(points)]
    told: dict[str, Any] = {"version": "1.0", "queryDate": iso(now), "startDate": iso(start * MICROS), "period": period}
    if doc.get("Statistic"):
        told["statistic"] = doc["Statistic"]
    told |= {"recentDatapoints": [one["value"] for one in recent], "threshold": doc["Threshold"]}
    return orjson.dumps(told | {"evaluatedDatapoints": recent[-20:]}).decode()

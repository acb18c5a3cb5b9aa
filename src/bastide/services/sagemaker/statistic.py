"""A metric's course in a few numbers, kept up as values come (Welford's method)."""

from __future__ import annotations

import math
import sys
from typing import Any


def added(held: dict[str, Any] | None, value: float, at: int) -> dict[str, Any]:
    """The statistic with one more value; `at`: when it was measured."""
    if held is None:
        return {"Count": 1, "Min": value, "Max": value, "Last": value, "Mean": value, "Squares": 0.0, "At": at}
    count = held["Count"] + 1
    away = _within(value - held["Mean"])
    mean = held["Mean"] + away / count
    return {
        "Count": count,
        "Min": min(held["Min"], value),
        "Max": max(held["Max"], value),
        "Last": value if at >= held["At"] else held["Last"],
        "Mean": mean,
        "Squares": _within(held["Squares"] + away * _within(value - mean)),
        "At": max(at, held["At"]),
    }


def _within(value: float) -> float:
    """The number, or the largest there is: a job prints what it likes, and infinity has no JSON."""
    return max(-sys.float_info.max, min(sys.float_info.max, value))


def summary(name: str, source: str, held: dict[str, Any]) -> dict[str, Any]:
    """A TrialComponentMetricSummary. StdDev is that of the values themselves, as a population."""
    found = {
        "MetricName": name,
        "TimeStamp": held["At"],
        **{key: held[key] for key in ("Count", "Min", "Max", "Last")},
        "Avg": held["Mean"],
        "StdDev": math.sqrt(max(0.0, held["Squares"] / held["Count"])),
    }
    if source:
        found["SourceArn"] = source
    return found

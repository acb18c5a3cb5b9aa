"""Statistics by the names that CloudWatch gives them. Source: CloudWatch User Guide, "Statistics definitions"."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from bastide.engines.telemetry import Summary

Statistic = Callable[[Summary], float | None]
"""A period's value; None where what was put does not tell it (percentiles of a statistic set)."""

PLAIN: Final[dict[str, Statistic]] = {
    "SampleCount": lambda one: one.count,
    "Average": lambda one: one.total / one.count if one.count else None,
    "Sum": lambda one: one.total,
    "Minimum": lambda one: one.low,
    "Maximum": lambda one: one.high,
}
_PERCENT: Final = re.compile(r"(p|tm|tc|ts)(\d{1,2}(?:\.\d{1,10})?|100)")
_RANGE: Final = re.compile(r"(TM|TC|TS)\((\d{1,3}(?:\.\d+)?)?%?:(?:(\d{1,3}(?:\.\d+)?)%)?\)")
_RANK: Final = re.compile(r"PR\((\d+(?:\.\d+)?)?:(\d+(?:\.\d+)?)?\)")


def percentile(name: str) -> float | None:
    """The percent of ``p99.9``; None for other statistics."""
    found = _PERCENT.fullmatch(name)
    return float(found[2]) if found is not None and found[1] == "p" else None


def statistic(name: str) -> Statistic | None:
    """The statistic of that name; None if there is none, or none here (winsorized means)."""
    if name in PLAIN:
        return PLAIN[name]
    if name == "IQM":
        return _trimmed("TM", 25.0, 75.0)
    found = _PERCENT.fullmatch(name)
    if found is not None:
        percent = float(found[2])
        return (lambda one: one.percentile(percent)) if found[1] == "p" else _trimmed(found[1].upper(), 0.0, percent)
    found = _RANGE.fullmatch(name)
    if found is not None and (found[2] or found[3]):
        low, high = float(found[2] or 0), float(found[3] or 100)
        return _trimmed(found[1], low, high) if low < high <= 100 else None
    found = _RANK.fullmatch(name)
    if found is not None and (found[1] or found[2]):
        return _rank(float(found[1] or 0), float(found[2]) if found[2] else float("inf"))
    return None


def _trimmed(kind: str, low: float, high: float) -> Statistic:
    def read(one: Summary) -> float | None:
        found = one.trimmed(low, high)
        if found is None:
            return None
        count, total = found
        return {"TC": count, "TS": total, "TM": total / count if count else None}[kind]

    return read


def _rank(low: float, high: float) -> Statistic:
    def read(one: Summary) -> float | None:
        found = one.between(low, high)
        return None if found is None or not one.count else 100 * found / one.count

    return read

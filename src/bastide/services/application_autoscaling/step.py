"""Step scaling: how far a capacity goes for how far a metric is beyond its alarm's threshold.

Source: Application Auto Scaling User Guide, "Step scaling policies overview"; API Reference,
StepScalingPolicyConfiguration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final

from bastide.domain import Refused

COOLDOWN: Final = 300
_MOST_STEPS: Final = 20
_TYPES: Final = ("ChangeInCapacity", "PercentChangeInCapacity", "ExactCapacity")
_AGGREGATIONS: Final[dict[str, Callable[[Sequence[float]], float]]] = {
    "Average": lambda values: sum(values) / len(values),
    "Minimum": min,
    "Maximum": max,
}
_CONFIG: Final = "StepScalingPolicyConfiguration"


def _wrong(text: str) -> Refused:
    return Refused("ValidationException", f"{_CONFIG}: {text}")


def _bounds(step: dict[str, Any]) -> tuple[float, float]:
    low, high = step.get("MetricIntervalLowerBound"), step.get("MetricIntervalUpperBound")
    return -math.inf if low is None else low, math.inf if high is None else high


def check(config: dict[str, Any]) -> None:
    """Raises Refused for steps that leave it open what is to be done."""
    steps = config.get("StepAdjustments") or []
    kind = config.get("AdjustmentType")
    if kind not in _TYPES:
        raise _wrong(f"AdjustmentType is needed: {', '.join(_TYPES)}.")
    if not 1 <= len(steps) <= _MOST_STEPS:
        raise _wrong(f"StepAdjustments has 1 to {_MOST_STEPS} steps.")
    if config.get("MetricAggregationType", "Average") not in _AGGREGATIONS:
        raise _wrong(f"MetricAggregationType is one of {', '.join(_AGGREGATIONS)}.")
    if config.get("Cooldown", 0) < 0:
        raise _wrong("Cooldown is not negative.")
    if config.get("MinAdjustmentMagnitude") is not None and (
        kind != "PercentChangeInCapacity" or config["MinAdjustmentMagnitude"] < 1
    ):
        raise _wrong("MinAdjustmentMagnitude is at least 1, and for PercentChangeInCapacity alone.")
    if kind == "ExactCapacity" and any(one["ScalingAdjustment"] < 0 for one in steps):
        raise _wrong("An exact capacity is not negative.")
    every = sorted(_bounds(one) for one in steps)
    if any(low >= high for low, high in every):
        raise _wrong("MetricIntervalLowerBound is less than MetricIntervalUpperBound.")
    if any(before[1] != after[0] for before, after in pairwise(every)):
        raise _wrong("The intervals of the steps neither overlap nor leave a gap.")
    # "If one step adjustment has a negative lower bound, there must be one with a null lower bound", and the reverse.
    if every[0][0] != -math.inf and every[0][0] < 0:
        raise _wrong("A step with a negative lower bound needs one without a lower bound.")
    if every[-1][1] != math.inf and every[-1][1] > 0:
        raise _wrong("A step with a positive upper bound needs one without an upper bound.")


def aggregated(config: dict[str, Any], values: Sequence[float]) -> float:
    """The one value of an alarm's data points."""
    return _AGGREGATIONS[config.get("MetricAggregationType", "Average")](values)


def adjusted(config: dict[str, Any], current: int, beyond: float) -> int | None:
    """The capacity that steps lead to from `current`; None where no step is for it. beyond: the metric's value less the
    threshold. Above the threshold lower bounds are inclusive, below it upper ones are."""
    for step in config["StepAdjustments"]:
        low, high = _bounds(step)
        if low <= beyond < high if beyond >= 0 else low < beyond <= high:
            return _moved(config, current, int(step["ScalingAdjustment"]))
    return None


def _moved(config: dict[str, Any], current: int, adjustment: int) -> int:
    kind = config["AdjustmentType"]
    if kind == "ExactCapacity":
        return adjustment
    if kind == "ChangeInCapacity":
        return max(0, current + adjustment)
    # Towards zero, but at least one: "values greater than 1 are rounded down, between 0 and 1 rounded to 1".
    change = math.trunc(current * adjustment / 100)
    least = int(config.get("MinAdjustmentMagnitude") or 1)
    if adjustment and abs(change) < least:
        change = int(math.copysign(least, adjustment))
    return max(0, current + change)

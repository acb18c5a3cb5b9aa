"""Steps, as AWS's user guide counts them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain import Refused
from bastide.services.application_autoscaling.step import adjusted, aggregated, check

KINDS = ("ChangeInCapacity", "PercentChangeInCapacity", "ExactCapacity")


def _step(low: float | None, high: float | None, adjustment: int) -> dict[str, Any]:
    bounds = {"MetricIntervalLowerBound": low, "MetricIntervalUpperBound": high}
    return {"ScalingAdjustment": adjustment, **{name: one for name, one in bounds.items() if one is not None}}


def _config(kind: str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"AdjustmentType": kind, "StepAdjustments": list(steps), **more}


# The guide's example: an alarm at 60 for more, one at 40 for less, percentages of ten.
OUT = _config("PercentChangeInCapacity", _step(0, 10, 0), _step(10, 20, 10), _step(20, None, 30))
IN = _config("PercentChangeInCapacity", _step(-10, 0, 0), _step(-20, -10, -10), _step(None, -20, -30))


@pytest.mark.parametrize(
    ("config", "current", "beyond", "wanted"),
    [
        (OUT, 10, 0, 10),
        (OUT, 10, 10, 11),
        (OUT, 10, 19.9, 11),
        (OUT, 10, 20, 13),
        (IN, 10, -10, 9),
        (IN, 10, -9.9, 10),
        (IN, 10, -20, 7),
        (_config("ChangeInCapacity", _step(0, None, 2)), 1, 5, 3),
        (_config("ChangeInCapacity", _step(0, None, 2)), 1, -5, None),
        (_config("ChangeInCapacity", _step(None, 0, -3)), 2, -1, 0),
        (_config("ExactCapacity", _step(None, None, 4)), 9, 1, 4),
        (_config("PercentChangeInCapacity", _step(0, None, 25)), 10, 1, 12),
        (_config("PercentChangeInCapacity", _step(0, None, 5)), 10, 1, 11),
        (_config("PercentChangeInCapacity", _step(None, 0, -5)), 10, -1, 9),
        (_config("PercentChangeInCapacity", _step(None, 0, -67)), 10, -1, 4),
        (_config("PercentChangeInCapacity", _step(0, None, 25), MinAdjustmentMagnitude=2), 4, 1, 6),
    ],
)
def test_a_step_is_what_the_guide_says(config: dict[str, Any], current: int, beyond: float, wanted: int | None) -> None:
    check(config)
    assert adjusted(config, current, beyond) == wanted


def test_points_are_aggregated_as_the_policy_says() -> None:
    ways = ("Average", "Minimum", "Maximum")
    assert [aggregated({"MetricAggregationType": way}, [1.0, 2.0, 6.0]) for way in ways] == [3.0, 1.0, 6.0]


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (_config("ChangeInCapacity"), "1 to 20 steps"),
        (_config("Sideways", _step(0, None, 1)), "AdjustmentType"),
        (_config("ChangeInCapacity", _step(0, 10, 1), _step(20, None, 2)), "overlap nor leave a gap"),
        (_config("ChangeInCapacity", _step(0, 10, 1), _step(5, None, 2)), "overlap nor leave a gap"),
        (_config("ChangeInCapacity", _step(0, 10, 1)), "without an upper bound"),
        (_config("ChangeInCapacity", _step(-10, 0, -1)), "without a lower bound"),
        (_config("ChangeInCapacity", _step(10, 0, 1)), "less than"),
        (_config("ChangeInCapacity", _step(0, None, 1), MinAdjustmentMagnitude=1), "PercentChangeInCapacity alone"),
        (_config("ExactCapacity", _step(0, None, -1)), "not negative"),
        (_config("ChangeInCapacity", _step(0, None, 1), MetricAggregationType="Sum"), "MetricAggregationType"),
    ],
)
def test_steps_that_leave_it_open_are_refused(config: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why):
        check(config)


@given(st.sets(st.integers(-50, 50), max_size=6), st.sampled_from(KINDS), st.integers(1, 50), st.floats(-100, 100))
def test_steps_without_bounds_at_their_ends_leave_nothing_open(
    edges: set[int], kind: str, current: int, beyond: float
) -> None:
    bounds = [None, *sorted(float(one) for one in edges), None]
    config = _config(kind, *(_step(low, high, n) for n, (low, high) in enumerate(pairwise(bounds))))
    check(config)
    found = adjusted(config, current, beyond)
    # Above the threshold a bound belongs to the step over it, below the threshold to the step under it.
    number = sum(one <= beyond if beyond >= 0 else one < beyond for one in edges)
    assert found is not None and found >= 0
    assert kind != "ExactCapacity" or found == number

"""The statistic of a metric, kept up value by value, is the one of all values."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.services.sagemaker import statistic

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)


@given(VALUES)
def test_it_is_what_all_values_give(values: list[float]) -> None:
    held = None
    for at, value in enumerate(values):
        held = statistic.added(held, value, at)
    assert held is not None
    found = statistic.summary("m", "arn", held)
    assert (found["Count"], found["Min"], found["Max"], found["Last"]) == (
        len(values), min(values), max(values), values[-1],
    )  # fmt: skip
    assert found["Avg"] == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert found["StdDev"] == pytest.approx(statistics.pstdev(values), rel=1e-6, abs=1e-3)


def test_the_last_is_the_latest_not_the_last_that_came() -> None:
    held = statistic.added(statistic.added(None, 1.0, 20), 2.0, 10)
    assert (held["Last"], held["At"]) == (1.0, 20)

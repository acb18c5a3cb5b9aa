"""Who is stopped: as the rules say, told slowly."""

from __future__ import annotations

import itertools
import random
import statistics

from hypothesis import given
from hypothesis import strategies as st

from bastide.engines.tuning import Hyperband, converged, median_rule, not_improving

VALUES = st.floats(-100, 100)
COURSES = st.lists(VALUES, min_size=1, max_size=8)


@given(COURSES, st.lists(COURSES, max_size=6), st.booleans())
def test_the_median_of_running_averages(course: list[float], others: list[list[float]], minimise: bool) -> None:
    epoch = len(course)
    averages = sorted(sum(one[:epoch]) / epoch for one in others if len(one) >= epoch)
    said = median_rule(course, others, minimise=minimise)
    if len(averages) < 3:
        assert not said
        return
    middle = statistics.median(averages)
    worse = course[-1] - middle if minimise else middle - course[-1]
    assert said == (worse > 0) or abs(worse) < 1e-9


@given(COURSES, st.lists(COURSES, max_size=6))
def test_more_and_less_mirror_each_other(course: list[float], others: list[list[float]]) -> None:
    mirrored = [[-value for value in one] for one in others]
    negative = [-value for value in course]
    assert median_rule(course, others, minimise=True) == median_rule(negative, mirrored, minimise=False)
    band = Hyperband(1, 9)
    there, back = list(enumerate(others, 1)), list(enumerate(mirrored, 1))
    assert band.weak(0, course, there, minimise=True) == band.weak(0, negative, back, minimise=False)


@given(st.integers(1, 20), st.integers(2, 500), st.integers(0, 50))
def test_rungs_triple_and_brackets_begin_later(least: int, most: int, number: int) -> None:
    band = Hyperband(least, most + least)
    every = band.rungs(0)
    assert every[0] == least
    assert all(later == 3 * earlier for earlier, later in itertools.pairwise(every))
    assert every[-1] < band.most <= 3 * every[-1]
    assert band.rungs(number) == every[number % (len(every) + 1) :]


@given(st.lists(COURSES, max_size=8), COURSES)
def test_the_best_third_goes_on(others: list[list[float]], course: list[float]) -> None:
    """The slow way: sort all values at each rung, and look whether this one is in the best third, rounded up."""
    band = Hyperband(1, 9)
    expected = False
    for rung in (1, 3):
        if len(course) < rung:
            continue
        there = [one[rung - 1] for number, one in enumerate(others) if len(one) >= rung and rung in band.rungs(number)]
        rank = sorted([*there, course[rung - 1]]).index(course[rung - 1])
        expected |= rank >= -(-(len(there) + 1) // 3)
    assert band.weak(0, course, list(enumerate(others)), minimise=True) == expected


def test_hyperband_spends_less_and_loses_little() -> None:
    """Fifty searches of thirty trials that converge to what they are worth: the weak are stopped, the best is not."""
    spent, full, kept = 0, 0, 0
    for seed in range(50):
        source = random.Random(seed)
        band = Hyperband(1, 27)
        worth = [source.random() for _ in range(30)]
        courses: list[list[float]] = []
        for number, final in enumerate(worth):
            course: list[float] = []
            while not band.done(course):
                course.append(final + 2.0 / (len(course) + 1))
                if band.weak(number, course, list(enumerate(courses)), minimise=True):
                    break
            courses.append(course)
            spent += len(course)
            full += 27
        kept += len(courses[worth.index(min(worth))]) == 27
    assert spent < 0.6 * full
    assert kept == 50  # courses that do not cross: who is best is best at every rung


@given(st.lists(VALUES, min_size=1, max_size=30))
def test_who_does_not_improve_is_counted(values: list[float]) -> None:
    expected, best = 0, values[0]
    for value in values[1:]:
        better = best - value > 0.01 * abs(best)
        expected = 0 if better else expected + 1
        best = min(best, value)
    assert not_improving(values, minimise=True) == expected
    assert not_improving([-value for value in values], minimise=False) == expected


def test_a_search_that_stands_still_has_converged() -> None:
    falling = [100.0 - number for number in range(40)]
    assert not converged(falling, minimise=True)
    assert converged(falling, minimise=False)
    assert not converged([1.0] * 19, minimise=True)
    assert converged([*falling[:20], *[80.9999] * 20], minimise=True)

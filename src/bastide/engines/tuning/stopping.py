"""Which trials are not worth going on with, and when none is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Course = Sequence[float]
"""The values of the objective that a trial told, one an epoch (or whatever else it counts by)."""

_FACTOR: Final = 3
_FEWEST: Final = 3
"""Trials that the median rule wants to compare with."""
_IMPROVEMENT: Final = 0.01
_CONVERGED: Final = 10
_NEGLIGIBLE: Final = 1e-3


def median_rule(course: Course, others: Sequence[Course], *, minimise: bool) -> bool:
    """Whether a trial is to be stopped early: its last value is worse than the median, over earlier trials, of the average
    of their values up to the same epoch. Nothing is said before there are three of them that came as far.

    Source: developer guide, "automatic-model-tuning-early-stopping".
    """
    epoch = len(course)
    if not epoch:
        return False
    averages = [statistics.fmean(one[:epoch]) for one in others if len(one) >= epoch]
    if len(averages) < _FEWEST:
        return False
    median = statistics.median(averages)
    return course[-1] > median if minimise else course[-1] < median


@dataclass(frozen=True, slots=True)
class Hyperband:
    """Successive halving without waiting: at every rung, a number of epochs that triples from `least` to `most`, a trial
    goes on only if its value there is among the best third of those that came as far. Trials are dealt to brackets in
    turn; a bracket begins with a later rung, which gives slow starters their chance (Li et al., 2018, as asynchronous
    stopping in Li et al., 2020). Who reaches `most` is done."""

    least: int
    most: int

    def rungs(self, number: int) -> list[int]:
        """The rungs at which the trial of that number is judged."""
        found = []
        rung = self.least
        while rung < self.most:
            found.append(rung)
            rung *= _FACTOR
        return found[number % (len(found) + 1) :]

    def weak(self, number: int, course: Course, others: Sequence[tuple[int, Course]], *, minimise: bool) -> bool:
        """Whether a trial is to be stopped. others: numbers and courses of all other trials of the same search."""
        sign = 1.0 if minimise else -1.0
        for rung in self.rungs(number):
            if len(course) < rung:
                break
            there = [one[rung - 1] * sign for which, one in others if len(one) >= rung and rung in self.rungs(which)]
            mine = course[rung - 1] * sign
            better = sum(value < mine for value in there)
            if better >= -(-(len(there) + 1) // _FACTOR):
                return True
        return False

    def done(self, course: Course) -> bool:
        """Whether a trial has used all that it may."""
        return len(course) >= self.most


def not_improving(values: Sequence[float], *, minimise: bool) -> int:
    """How many of the last values, in the order in which they came, did not improve on the best before them by more than
    a hundredth of it (API reference, "HyperParameterTuningJobCompletionDetails")."""
    since = 0
    best: float | None = None
    for value in values:
        gain = 0.0 if best is None else (best - value if minimise else value - best)
        since = 0 if best is None or gain > _IMPROVEMENT * abs(best) else since + 1
        if best is None or gain > 0:
            best = value
    return since


def converged(values: Sequence[float], *, minimise: bool) -> bool:
    """Whether a search has found what it will find: of the last ten results (or the last half of them, if that is more)
    none brought the best further by more than a thousandth of the spread of all."""
    last = max(_CONVERGED, len(values) // 2)
    if len(values) < 2 * _CONVERGED:
        return False
    sign = 1.0 if minimise else -1.0
    every = [value * sign for value in values]
    before, now = min(every[:-last]), min(every)
    return before - now <= _NEGLIGIBLE * (max(every) - min(every))

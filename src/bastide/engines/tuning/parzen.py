"""The program of `optimiser`: reads a question a line, writes the proposal a line. Optuna and the standard library only.

A question has the seed (two numbers), of each parameter how many categories it has (0 for a number in the unit interval),
and what is known: places and a value that is to be small, null for a trial that still runs. What it answers follows from
the question alone.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

STARTUP = 5
"""Trials that are drawn at random before the estimator says anything."""


def suggest(question: dict[str, Any]) -> list[float]:
    """Places in the unit interval, one of each parameter."""
    seed, number = question["seed"]
    counts = question["parameters"]
    spaces: dict[str, BaseDistribution] = {
        str(at): CategoricalDistribution(list(range(count))) if count else FloatDistribution(0.0, 1.0)
        for at, count in enumerate(counts)
    }

    def value(place: float, count: int) -> float | int:
        return min(int(place * count), count - 1) if count else min(max(place, 0.0), 1.0)

    sampler = optuna.samplers.TPESampler(
        seed=random.Random(f"{seed}/{number}").getrandbits(32),  # noqa: S311 - nothing secret: it is to be repeatable
        n_startup_trials=STARTUP,
        multivariate=True,
        group=False,
        constant_liar=True,
    )
    study = optuna.create_study(sampler=sampler)
    for places, found in question["known"]:
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING if found is None else TrialState.COMPLETE,
                params={str(at): value(place, count) for at, (place, count) in enumerate(zip(places, counts, strict=True))},
                distributions=spaces,
                value=found,
            )
        )  # fmt: skip
    params = study.ask(spaces).params
    return [(params[str(at)] + 0.5) / count if count else params[str(at)] for at, count in enumerate(counts)]


def main() -> None:
    """Until the input ends."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(suggest(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

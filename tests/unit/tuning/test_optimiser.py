"""The Bayesian strategy learns: over many seeds it finds more than chance does, and says the same when asked again."""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Mapping

import pytest

from bastide.engines.tuning import Observation, Optimiser, OptimiserError, Parameter, Space, propose

SPACE = Space(
    [
        Parameter.of("x", "Continuous", "-5", "10", "Linear"),
        Parameter.of("y", "Continuous", "0", "15", "Linear"),
    ]
)


def branin(values: Mapping[str, str]) -> float:
    """Branin's function, which is known: three minima of 0.3979."""
    x, y = float(values["x"]), float(values["y"])
    bowl = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


async def searched(strategy: str, seed: int, optimiser: Optimiser, *, minimise: bool = True) -> list[Observation]:
    made: list[Observation] = []
    sign = 1 if minimise else -1
    for number in range(30):
        values = await propose(strategy, SPACE, seed, number, made, minimise=minimise, optimiser=optimiser)  # type: ignore[arg-type]
        made.append(Observation(values, sign * branin(values)))
    return made


def best(made: list[Observation]) -> float:
    return min(abs(one.value or 0.0) for one in made)


def test_it_finds_more_than_chance() -> None:
    async def work() -> tuple[list[float], list[float]]:
        optimiser = Optimiser()
        try:
            learned = [best(await searched("Bayesian", seed, optimiser)) for seed in range(20)]
            drawn = [best(await searched("Random", seed, optimiser)) for seed in range(20)]
        finally:
            await optimiser.close()
        return learned, drawn

    learned, drawn = asyncio.run(work())
    assert statistics.median(learned) < statistics.median(drawn)
    assert statistics.mean(learned) < 0.8 * statistics.mean(drawn)


def test_the_same_rows_propose_the_same_whoever_asks() -> None:
    async def work() -> None:
        first, second = Optimiser(), Optimiser()
        try:
            made = await searched("Bayesian", 7, first)
            assert await searched("Bayesian", 7, second) == made
            mirrored = await searched("Bayesian", 7, second, minimise=False)
            assert [one.values for one in mirrored] == [one.values for one in made]
            # in the middle of it, after a crash
            again = await propose("Bayesian", SPACE, 7, 20, made[:20], minimise=True, optimiser=second)
            assert again == made[20].values
            other = await propose("Bayesian", SPACE, 8, 20, made[:20], minimise=True, optimiser=second)
            assert other != made[20].values
        finally:
            await first.close()
            await second.close()

    asyncio.run(work())


def test_a_process_that_died_is_replaced_and_one_that_cannot_answer_is_told() -> None:
    async def work() -> None:
        optimiser = Optimiser()
        try:
            first = await optimiser.suggest(SPACE, 1, 1, [([0.5, 0.5], 1.0)])
            assert optimiser._process is not None
            optimiser._process.kill()
            await optimiser._process.wait()
            assert await optimiser.suggest(SPACE, 1, 1, [([0.5, 0.5], 1.0)]) == first
            with pytest.raises(OptimiserError):
                await optimiser.suggest(SPACE, 1, 1, [([0.5], 1.0)])
            assert await optimiser.suggest(SPACE, 1, 1, [([0.5, 0.5], 1.0)]) == first
        finally:
            await optimiser.close()

    asyncio.run(work())

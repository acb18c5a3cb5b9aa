"""What to try next."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bastide.engines.tuning.optimiser import Optimiser
from bastide.engines.tuning.space import Space

Strategy = Literal["Random", "Grid", "Bayesian", "Hyperband"]

_DRAWS: Final = 50
"""How often it is drawn again for something that was not tried yet."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What was tried. value: what came of it; None as long as nobody knows, or if nothing did."""

    values: Mapping[str, str]
    value: float | None = None
    running: bool = False


def count_of(space: Space) -> int:
    """How many trials a grid has."""
    return space.combinations() or 0


async def propose(
    strategy: Strategy,
    space: Space,
    seed: int,
    number: int,
    earlier: Sequence[Observation],
    *,
    minimise: bool,
    optimiser: Optimiser | None = None,
) -> dict[str, str]:
    """Values for the trial of that number, from 0. earlier: all that was tried before, in its order, with parents' trials
    first. Random and Hyperband look at the values in it only to try nothing twice; Bayesian needs the optimiser. Raises
    `OptimiserError`."""
    if strategy == "Grid":
        return space.combination(number)
    if strategy == "Bayesian":
        assert optimiser is not None
        known = [(places, one) for one in earlier if (places := space.places(one.values)) is not None]
        if any(one.value is not None for _, one in known):
            places = await optimiser.suggest(
                space,
                seed,
                number,
                [(at, None if one.value is None else one.value if minimise else -one.value) for at, one in known
                 if one.value is not None or one.running],
            )  # fmt: skip
            return space.texts(places)
    return _drawn(space, seed, number, [one.values for one in earlier])


def _drawn(space: Space, seed: int, number: int, tried: Sequence[Mapping[str, str]]) -> dict[str, str]:
    source = random.Random(f"{seed}/{number}")  # noqa: S311 - nothing secret: it is to be repeatable
    found: dict[str, str] = {}
    for _ in range(_DRAWS):
        found = space.texts([source.random() for _ in space.parameters])
        if found not in tried:
            break
    return found

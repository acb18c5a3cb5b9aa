"""Shapley values of a model's predictions, by Kernel SHAP (Lundberg and Lee: A unified approach to interpreting model
predictions, 2017).

Where all coalitions of features can be looked at, the values are exact; otherwise they are the best fit to a sample of
coalitions, each with its complement. Either way they add up to the prediction less the expected value.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Predict = Callable[[list[list[Any]]], Any]
"""Scores (records by labels) of records."""
MOST_ROWS = 20_000
"""Synthetic records that are predicted together."""


def coalitions(features: int, samples: int, seed: int) -> tuple[Any, Any]:
    """Which features are present (coalitions by features), and the weight of each coalition."""
    if features <= 30 and 2**features - 2 <= samples:
        masks = np.array(list(itertools.product([False, True], repeat=features)))[1:-1]
        sizes = masks.sum(axis=1)
        weights = np.array([(features - 1) / (math.comb(features, int(n)) * n * (features - n)) for n in sizes])
        return masks, weights
    chance = np.random.default_rng(seed)
    sizes = np.arange(1, features)
    likely = 1.0 / (sizes * (features - sizes))
    found: dict[bytes, int] = {}
    for size in chance.choice(sizes, max(1, samples // 2), p=likely / likely.sum()):
        mask = np.zeros(features, bool)
        mask[chance.permutation(features)[:size]] = True
        for one in (mask, ~mask):
            found[one.tobytes()] = found.get(one.tobytes(), 0) + 1
    masks = np.array([np.frombuffer(one, bool) for one in found])
    return masks, np.array(list(found.values()), float)


def solver(masks: Any, weights: Any) -> Any:
    """What turns (predictions less the expected value) of coalitions, and of the whole record behind them, into values.

    Least squares where the values add up to the last: the last feature's is what the others leave.
    """
    z = masks.astype(float)
    free = z[:, :-1] - z[:, -1:]
    left = free.T * weights
    solve = np.linalg.pinv(left @ free) @ left
    upper = np.hstack([solve, -(solve @ z[:, -1:])])
    last = np.concatenate([-upper.sum(axis=0)])
    last[-1] += 1.0
    return np.vstack([upper, last])


def explain(
    rows: Sequence[Sequence[Any]],
    baseline: Sequence[Sequence[Any]],
    predict: Predict,
    samples: int | None = None,
    seed: int = 0,
    link: Callable[[Any], Any] = lambda scores: scores,
) -> tuple[Any, Any]:
    """Values (records by features by labels), and the expected value of each label.

    baseline: records whose features stand in for those that are absent; their predictions are averaged. samples: how many
    coalitions at most. link: applied to predictions before anything is added up.
    """
    width = len(rows[0])
    expected = link(predict([list(one) for one in baseline]).mean(axis=0))
    whole = link(predict([list(one) for one in rows]))
    if width == 1:
        return (whole - expected)[:, None, :], expected
    masks, weights = coalitions(width, samples or 2 * width + 2048, seed)
    solve = solver(masks, weights)
    found = np.empty((len(rows), width, len(expected)))

    def synthetic() -> Iterator[list[Any]]:
        for row in rows:
            for mask in masks.tolist():
                for one in baseline:
                    yield [x if present else b for x, b, present in zip(row, one, mask, strict=True)]

    source, held = synthetic(), np.empty((0, len(expected)))
    each = len(masks) * len(baseline)
    for number in range(len(rows)):
        while len(held) < each:
            piece = list(itertools.islice(source, MOST_ROWS))
            held = np.concatenate([held, predict(piece)])
        scores, held = held[:each], held[each:]
        mean = link(scores.reshape(len(masks), len(baseline), -1).mean(axis=1)) - expected
        found[number] = solve @ np.concatenate([mean, (whole[number] - expected)[None]])
    return found, expected


def logit(scores: Any) -> Any:
    """Log-odds of probabilities."""
    kept = np.clip(scores, 1e-7, 1 - 1e-7)
    return np.log(kept / (1 - kept))


AGGREGATES: dict[str, Callable[[Any], Any]] = {
    "mean_abs": lambda values: np.abs(values).mean(axis=0),
    "mean_sq": lambda values: (values**2).mean(axis=0),
    "median": lambda values: np.median(values, axis=0),
}

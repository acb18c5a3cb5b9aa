"""What is kept of a column that may be longer than memory: quantiles, and the number of distinct values.

Quantiles are a KLL sketch (Karnin, Lang, Liberty: Optimal quantile approximation in streams, 2016) as
`statistics.json` holds one: numbers in levels, one of level n standing for 2^n of the column. The parameters are those of
Deequ, which AWS's image is built with: up to k numbers nothing is left out. It is deterministic: the same data, the same
sketch. Distinct values are the k smallest hashes (Bar-Yossef and others: Counting distinct elements in a data stream,
2002).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from bastide_monitor import Unfit

C, K = 0.64, 2048
BUCKETS = 10
MOST_HASHES = 4096
_MOST_LEVELS = 40


class Sketch:
    """The distribution of a column of finite numbers."""

    def __init__(self) -> None:
        self.levels: list[Any] = [np.empty(0)]
        self._turns = [0]

    def add(self, values: Any) -> None:
        """Takes numbers in."""
        self.levels[0] = np.concatenate([self.levels[0], values])
        level = 0
        while level < len(self.levels):
            if len(self.levels[level]) > self._room(level):
                self._halve(level)
            level += 1

    def _room(self, level: int) -> int:
        return max(2, math.ceil(K * C ** (len(self.levels) - 1 - level)))

    def _halve(self, level: int) -> None:
        """Every other number goes up, in turn the even and the odd; one that has no neighbour stays."""
        values = np.sort(self.levels[level])
        spare = len(values) % 2
        self.levels[level], values = values[:spare], values[spare:]
        if level + 1 == len(self.levels):
            self.levels.append(np.empty(0))
            self._turns.append(0)
        self.levels[level + 1] = np.concatenate([self.levels[level + 1], values[self._turns[level] :: 2]])
        self._turns[level] ^= 1

    def ranked(self) -> tuple[Any, Any]:
        """Numbers in order, and how many of the column are up to each."""
        values = np.concatenate(self.levels)
        weights = np.concatenate([np.full(len(one), 2**level) for level, one in enumerate(self.levels)])
        order = np.argsort(values, kind="stable")
        return values[order], np.cumsum(weights[order])

    def buckets(self, low: float, high: float) -> list[dict[str, float]]:
        """Ten of the same width from the least to the greatest; the last one has the greatest, too."""
        values, upto = self.ranked()
        edges = [*(low + (high - low) * one / BUCKETS for one in range(BUCKETS)), high]
        below = [0, *(int(upto[at - 1]) if (at := np.searchsorted(values, one)) else 0 for one in edges[1:-1])]
        counts = np.diff([*below, int(upto[-1]) if len(upto) else 0])
        return [
            {"lower_bound": edges[one], "upper_bound": edges[one + 1], "count": float(counts[one])}
            for one in range(BUCKETS)
        ]

    def told(self) -> dict[str, Any]:
        """As `statistics.json` has it."""
        return {"parameters": {"c": C, "k": float(K)}, "data": [one.tolist() for one in self.levels]}

    @classmethod
    def of(cls, told: Any) -> Sketch:
        """The sketch of a `statistics.json`. Raises Unfit."""
        try:
            levels = [np.array(one, np.float64) for one in told["data"]]
        except (TypeError, ValueError, KeyError, OverflowError):
            levels = []
        if not 0 < len(levels) <= _MOST_LEVELS or any(one.ndim != 1 or not np.isfinite(one).all() for one in levels):
            raise Unfit("The baseline statistics hold a distribution that is not a KLL sketch.")
        found = cls()
        found.levels = levels
        return found


def distance(one: Sketch, other: Sketch) -> tuple[float, int, int]:
    """The greatest difference between two cumulative distributions, and how many numbers each is of."""
    (a, upto_a), (b, upto_b) = one.ranked(), other.ranked()
    if not len(a) or not len(b):
        return 0.0, len(a), len(b)
    at = np.concatenate([a, b])

    def share(values: Any, upto: Any) -> Any:
        return np.concatenate([[0], upto])[np.searchsorted(values, at, side="right")] / upto[-1]

    return float(np.abs(share(a, upto_a) - share(b, upto_b)).max()), int(upto_a[-1]), int(upto_b[-1])


class Distinct:
    """How many distinct values there are: exact below 4,096, then with an error of some 1.6 percent."""

    def __init__(self) -> None:
        self._least = np.empty(0, np.uint64)

    def texts(self, values: Iterable[str]) -> None:
        """Takes text in."""
        made = (hashlib.blake2b(one.encode("utf-8", "replace"), digest_size=8).digest() for one in set(values))
        self._take(np.frombuffer(b"".join(made), np.uint64))

    def numbers(self, values: Any) -> None:
        """Takes numbers in: their bits, mixed as splitmix64 does."""
        bits = (np.unique(values) + 0.0).view(np.uint64)
        with np.errstate(over="ignore"):
            bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        self._take(bits ^ (bits >> np.uint64(31)))

    def _take(self, hashes: Any) -> None:
        self._least = np.unique(np.concatenate([self._least, hashes]))[:MOST_HASHES]

    def count(self) -> int:
        """The number."""
        if len(self._least) < MOST_HASHES:
            return len(self._least)
        return round((MOST_HASHES - 1) / (int(self._least[-1]) / 2**64))

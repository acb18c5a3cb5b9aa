"""What is kept of many values: count, sum, ends, and a sketch from which percentiles are told.

The sketch counts values in buckets whose bounds grow by two percent, so that a percentile is right to one percent whatever
the values are, in bounded memory (Masson, Rim, Lee: "DDSketch", VLDB 2019). A summary of equal values needs none.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Final

_GROWTH: Final = 1.02
_LOG: Final = math.log(_GROWTH)
_MIDDLE: Final = 2 / (1 + _GROWTH)
_ZERO: Final = -(1 << 31)
_MOST_BUCKETS: Final = 1024
_PAIR: Final = struct.Struct("<id")

Buckets = dict[int, float]


class Summary:
    """count, total, low, high as numbers. sketch: None while all values are equal, empty if nothing is known between the
    ends (a statistic set, negative values), otherwise counts by bucket."""

    __slots__ = ("count", "high", "low", "sketch", "total")

    def __init__(
        self, count: float, total: float, low: float, high: float, sketch: Buckets | None = None, *, known: bool = True
    ) -> None:
        self.count = count
        self.total = total
        self.low = low
        self.high = high
        self.sketch = sketch if known else {}

    @classmethod
    def of(cls, value: float, count: float = 1.0) -> Summary:
        """`count` values that are `value`."""
        return cls(count, value * count, value, value)

    @classmethod
    def unpack(cls, count: float, total: float, low: float, high: float, packed: bytes | None) -> Summary:
        """A summary from what `packed` gave."""
        sketch = None if packed is None else dict(_PAIR.iter_unpack(packed))
        return cls(count, total, low, high, sketch)

    def packed(self) -> bytes | None:
        """The sketch as bytes."""
        if self.sketch is None:
            return None
        return b"".join(_PAIR.pack(*pair) for pair in self.sketch.items())

    def _buckets(self) -> Buckets | None:
        if self.sketch is not None:
            return self.sketch or None
        if self.low < 0:
            return None
        return {_bucket(self.low): self.count}

    def add(self, other: Summary) -> None:
        """Takes another summary in."""
        if not (self.sketch is None and other.sketch is None and self.low == self.high == other.low == other.high):
            mine, its = self._buckets(), other._buckets()
            if mine is None or its is None:
                self.sketch = {}
            else:
                merged = mine if mine is self.sketch else dict(mine)
                for index, much in its.items():
                    merged[index] = merged.get(index, 0.0) + much
                self.sketch = _fewer(merged) if len(merged) > _MOST_BUCKETS else merged
        self.count += other.count
        self.total += other.total
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    def copy(self) -> Summary:
        """Another one, to be added to."""
        sketch = dict(self.sketch) if self.sketch is not None else None
        return Summary(self.count, self.total, self.low, self.high, sketch)

    def _values(self) -> Iterator[tuple[float, float]]:
        buckets = self._buckets() or {}
        for index in sorted(buckets):
            value = 0.0 if index == _ZERO else _MIDDLE * math.exp(index * _LOG)
            yield min(max(value, self.low), self.high), buckets[index]

    def percentile(self, percent: float) -> float | None:
        """The value below which `percent` of all lie; None if nothing is known between the ends."""
        if self._buckets() is None:
            return None
        wanted, seen = self.count * percent / 100, 0.0
        for value, much in self._values():
            seen += much
            if 0 < percent < 100 and seen >= wanted - 1e-9:
                return value
        return self.low if percent <= 0 else self.high

    def trimmed(self, low: float, high: float) -> tuple[float, float] | None:
        """Count and sum of the values between two percentiles; None as above."""
        if self._buckets() is None:
            return None
        first, last, seen, count, total = self.count * low / 100, self.count * high / 100, 0.0, 0.0, 0.0
        for value, much in self._values():
            part = min(seen + much, last) - max(seen, first)
            if part > 0:
                count += part
                total += part * value
            seen += much
        return count, total

    def between(self, low: float, high: float) -> float | None:
        """How many values lie in ``(low, high]``; None as above."""
        if self._buckets() is None:
            return None
        return sum(much for value, much in self._values() if low < value <= high)


def _bucket(value: float) -> int:
    return _ZERO if value < 1e-300 else math.ceil(math.log(value) / _LOG - 1e-9)


def _fewer(buckets: Buckets) -> Buckets:
    """The lowest are put together: the high percentiles are those that people look at."""
    order = sorted(buckets)
    low, kept = order[: len(order) - _MOST_BUCKETS + 1], order[len(order) - _MOST_BUCKETS + 1 :]
    found = {index: buckets[index] for index in kept}
    found[low[-1]] = sum(buckets[index] for index in low)
    return found

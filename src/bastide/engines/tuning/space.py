"""Ranges of hyperparameters, and the way between a value as text and a place in the unit interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Type = Literal["Continuous", "Integer", "Categorical"]
Scaling = Literal["Linear", "Logarithmic", "ReverseLogarithmic"]

_WIDE = 100
"""A positive range whose ends are this many times apart is searched by orders of magnitude when its scaling is Auto."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A hyperparameter to search. low, high: of a number. values: of a category. scaling: of a number; places in the unit
    interval are then linear in it. Numbers as SageMaker has them: both ends belong to the range."""

    name: str
    type: Type
    low: float = 0.0
    high: float = 0.0
    values: tuple[str, ...] = ()
    scaling: Scaling = "Linear"

    @classmethod
    def of(cls, name: str, type: Type, low: str, high: str, scaling: str = "Auto") -> Parameter:
        """A numeric range from its texts. Raises ValueError, with what is wrong, for one that is none."""
        try:
            ends = [int(text) if type == "Integer" else float(text) for text in (low, high)]
        except ValueError:
            kind = "whole numbers" if type == "Integer" else "numbers"
            raise ValueError(f"MinValue and MaxValue of {name} must be {kind}") from None
        first, last = map(float, ends)
        if not (math.isfinite(first) and math.isfinite(last) and max(abs(first), abs(last)) < 2**53):
            raise ValueError(f"MinValue and MaxValue of {name} must be finite, and smaller than 2^53")
        if first >= last:
            raise ValueError(f"MinValue of {name} must be less than its MaxValue")
        if scaling == "Logarithmic" and first <= 0:
            raise ValueError(f"the range of {name} must be above 0 for the scaling Logarithmic")
        if scaling == "ReverseLogarithmic" and (type != "Continuous" or first < 0 or last >= 1):
            raise ValueError(
                f"the scaling ReverseLogarithmic of {name} needs a continuous range of at least 0 and below 1"
            )
        if scaling not in ("Linear", "Logarithmic", "ReverseLogarithmic"):
            scaling = "Logarithmic" if first > 0 and last / first >= _WIDE else "Linear"
        return cls(name, type, first, last, scaling=scaling)  # type: ignore[arg-type]

    def _scale(self, value: float) -> float:
        if self.scaling == "Logarithmic":
            return math.log(value)
        if self.scaling == "ReverseLogarithmic":
            return -math.log(1.0 - value)
        return value

    def _back(self, place: float) -> float:
        if self.scaling == "Logarithmic":
            return math.exp(place)
        if self.scaling == "ReverseLogarithmic":
            return 1.0 - math.exp(-place)
        return place

    def _ends(self) -> tuple[float, float]:
        # Each whole number has the half around it on either side, so that the ends are as likely as the others.
        half = 0.5 if self.type == "Integer" else 0.0
        low = self.low - half
        if self.scaling == "Logarithmic":
            low = max(low, self.low / 2)
        return self._scale(low), self._scale(self.high + half)

    def text(self, place: float) -> str:
        """The value at a place of the unit interval; of a category, the interval has an equal part for each value."""
        place = min(max(place, 0.0), 1.0)
        if self.type == "Categorical":
            return self.values[min(int(place * len(self.values)), len(self.values) - 1)]
        low, high = self._ends()
        value = min(max(self._back(low + place * (high - low)), self.low), self.high)
        if self.type == "Integer":
            return str(min(max(math.floor(value + 0.5), int(self.low)), int(self.high)))
        return repr(value)

    def place(self, text: str) -> float | None:
        """Where a value lies; None for one that is not in the range."""
        if self.type == "Categorical":
            return (self.values.index(text) + 0.5) / len(self.values) if text in self.values else None
        try:
            value = float(text)
        except ValueError:
            return None
        if not self.low <= value <= self.high:
            return None
        low, high = self._ends()
        return (self._scale(value) - low) / (high - low)


@dataclass(frozen=True, slots=True)
class Space:
    """The parameters of one search, in an order that does not change."""

    parameters: Sequence[Parameter]

    def texts(self, places: Sequence[float]) -> dict[str, str]:
        """Values at places, one of each parameter."""
        return {one.name: one.text(place) for one, place in zip(self.parameters, places, strict=True)}

    def places(self, texts: Mapping[str, str]) -> list[float] | None:
        """Where values lie; None if one is missing or lies outside."""
        found = [one.place(texts[one.name]) if one.name in texts else None for one in self.parameters]
        return None if any(place is None for place in found) else [place for place in found if place is not None]

    def combinations(self) -> int | None:
        """How many there are; None where a number is continuous."""
        count = 1
        for one in self.parameters:
            if one.type == "Continuous":
                return None
            count *= len(one.values) if one.type == "Categorical" else int(one.high - one.low) + 1
        return count

    def combination(self, number: int) -> dict[str, str]:
        """One of the combinations of categories, each number from 0 another; the last parameter varies fastest."""
        found = {}
        for one in reversed(self.parameters):
            number, digit = divmod(number, len(one.values))
            found[one.name] = one.values[digit]
        return {one.name: found[one.name] for one in self.parameters}

"""Columns: what is counted of each, as records stream by. Schema: developer guide, "model-monitor-byoc-statistics"."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

import numpy as np

from bastide_monitor import Unfit
from bastide_monitor.sketch import Distinct, Sketch

MOST_COLUMNS = 5_000
MOST_VALUES = 1_000
"""Distinct values up to which a column is counted value by value."""
MOST_TEXT = 1_024
"""Characters of a value that are kept."""
MOST_NUMBER = 1e140
"""What is greater is no number: its squares could not be summed."""
MISSING = frozenset({"", "nan"})
_INTEGRAL = re.compile(r"[-+]?[0-9]+")
_FRACTIONAL = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,6})?")
_DIGITS = frozenset("0123456789+-.eE,")

Value = str | int | float | bool | None


def text_of(value: Any) -> str | None:
    """A value as text; None where it is missing. Raises Unfit for what is no plain value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        plain = value.strip()
        return None if plain.lower() in MISSING else plain[:MOST_TEXT]
    raise Unfit(
        f"A record holds {type(value).__name__} where a plain value is expected: data has to be tabular or flat JSON. "
        "A record_preprocessor_script can make it so."
    )


def label_of(text: str) -> str:
    """A class as it is written most simply: 1 for 1.0, 1 and 0 for true and false."""
    plain = text.strip("\"' \r\n")
    if plain.lower() in ("true", "false"):
        return "1" if plain.lower() == "true" else "0"
    try:
        number = float(plain)
    except ValueError:
        return plain
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else json.dumps(number)


class Column:
    """One feature."""

    def __init__(self, name: str, missing: int = 0) -> None:
        self.name = name
        self.missing = missing
        self.kinds = {"Integral": 0, "Fractional": 0, "String": 0}
        self.sum = self.mean = self._squares = 0.0
        self.min, self.max = math.inf, -math.inf
        self.sketch = Sketch()
        self.values: Counter[str] | None = Counter()
        """How often each value occurs; None once there are too many."""
        self._distinct = Distinct()

    @property
    def present(self) -> int:
        """How many values there are."""
        return sum(self.kinds.values())

    @property
    def type(self) -> str:
        """The inferred type: the narrowest that all values have."""
        if self.kinds["String"]:
            return "String"
        if self.kinds["Fractional"]:
            return "Fractional"
        return "Integral" if self.kinds["Integral"] else "Unknown"

    def add(self, values: list[Any]) -> None:
        """Takes values in. Raises Unfit."""
        texts = [one for value in values if (one := text_of(value)) is not None]
        self.missing += len(values) - len(texts)
        if not texts:
            return
        numbers, rest = self._numbers(texts)
        if len(numbers):
            self._measure(numbers)
        if self.values is not None:
            self.values.update(texts)
        if self.values is None or len(self.values) > MOST_VALUES:
            if self.values is not None:  # from here on by their hashes
                self._hash(list(self.values))
                self.values = None
            self._distinct.numbers(numbers)
            self._distinct.texts(rest)

    def _hash(self, texts: list[str]) -> None:
        numbers, rest = _parted(texts)
        self._distinct.numbers(np.array([float(one) for one in numbers]))
        self._distinct.texts(rest)

    def _numbers(self, texts: list[str]) -> tuple[Any, list[str]]:
        """The numbers among texts, and what is none; counts what they are."""
        seen = frozenset(",".join(texts))
        if seen <= _DIGITS:  # quick: nothing but numbers, most likely
            try:
                found = np.array([*map(float, texts)])
            except ValueError:
                found = np.array([math.inf])
            if np.abs(found).max() < MOST_NUMBER:
                whole = len(texts) if seen.isdisjoint(".eE") else sum(1 for one in texts if _INTEGRAL.fullmatch(one))
                self.kinds["Integral"] += whole
                self.kinds["Fractional"] += len(texts) - whole
                return found, []
        numbers, rest = _parted(texts)
        whole = sum(1 for one in numbers if _INTEGRAL.fullmatch(one))
        self.kinds["Integral"] += whole
        self.kinds["Fractional"] += len(numbers) - whole
        self.kinds["String"] += len(rest)
        return np.array([float(one) for one in numbers]), rest

    def _measure(self, numbers: Any) -> None:
        """Mean and squares by parts, as Chan, Golub and LeVeque add them (1983)."""
        before = self.sketch_size
        mean, squares = float(numbers.mean()), float(((numbers - numbers.mean()) ** 2).sum())
        count = before + len(numbers)
        apart = mean - self.mean
        self._squares += squares + apart * apart * before * len(numbers) / count
        self.mean += apart * len(numbers) / count
        self.sum += float(numbers.sum())
        self.sketch_size = count
        self.min, self.max = min(self.min, float(numbers.min())), max(self.max, float(numbers.max()))
        self.sketch.add(numbers)

    sketch_size = 0
    """How many numbers there are."""

    def statistics(self) -> dict[str, Any]:
        """As `statistics.json` has a feature."""
        found: dict[str, Any] = {"name": self.name, "inferred_type": self.type}
        common = {"num_present": self.present, "num_missing": self.missing}
        if self.type in ("Integral", "Fractional"):
            kll = {"buckets": self.sketch.buckets(self.min, self.max), "sketch": self.sketch.told()}
            found["numerical_statistics"] = {
                "common": common,
                "mean": self.mean,
                "sum": self.sum,
                "std_dev": math.sqrt(max(0.0, self._squares) / self.sketch_size),
                "min": self.min,
                "max": self.max,
                "distribution": {"kll": kll},
            }
        else:
            counted = self.values if self.values is not None else {}
            buckets = [{"value": value, "count": count} for value, count in sorted(counted.items())]
            found["string_statistics"] = {
                "common": common,
                "distinct_count": float(len(counted) if self.values is not None else self._distinct.count()),
                "distribution": {"categorical": {"buckets": buckets}},
            }
        return found


def _parted(texts: list[str]) -> tuple[list[str], list[str]]:
    """Finite numbers, and all else."""
    numbers, rest = [], []
    for one in texts:
        fits = _FRACTIONAL.fullmatch(one) is not None and abs(float(one)) < MOST_NUMBER
        (numbers if fits else rest).append(one)
    return numbers, rest


class Table:
    """A dataset, of which nothing is kept but what is counted."""

    def __init__(self) -> None:
        self.columns: dict[str, Column] = {}
        self.count = 0

    def add(self, parts: dict[str, list[Any]], count: int) -> None:
        """Takes records in: the values of each column that they have, all of the same number. Raises Unfit."""
        for name, values in parts.items():
            column = self.columns.get(name)
            if column is None:
                if len(self.columns) >= MOST_COLUMNS:
                    raise Unfit(f"The dataset has more than {MOST_COLUMNS} columns.")
                column = self.columns[name] = Column(name, missing=self.count)
            column.add(values)
        for name, column in self.columns.items():
            if name not in parts:
                column.missing += count
        self.count += count

    def statistics(self) -> dict[str, Any]:
        """`statistics.json`."""
        return {
            "version": 0.0,
            "dataset": {"item_count": self.count},
            "features": [one.statistics() for one in self.columns.values()],
        }

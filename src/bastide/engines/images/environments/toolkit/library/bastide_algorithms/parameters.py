"""Hyperparameters: their names, kinds and ranges, and what a job said of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bastide_algorithms import Unfit


@dataclass(frozen=True)
class Parameter:
    """kind: int, float, bool, str or list. default: where nothing is said; None with required=False says nothing.

    least, most: the range of numbers, both ends included unless above says that least is not. auto: what "auto" means
    (None where the word is not taken). choices: of a str.
    """

    kind: type
    default: Any = None
    required: bool = False
    least: float | None = None
    most: float | None = None
    above: bool = False
    auto: Any = None
    choices: tuple[str, ...] = ()

    def read(self, name: str, text: str) -> Any:
        """The value. Raises Unfit."""
        if text == "auto" and self.auto is not None:
            return self.auto
        try:
            value = self._value(text)
        except ValueError:
            raise Unfit(f"Hyperparameter {name}: {text!r} is not of the type {self.kind.__name__}") from None
        if self.choices and value not in self.choices:
            raise Unfit(f"Hyperparameter {name}: {text!r} is not one of {', '.join(self.choices)}")
        if self.kind in (int, float):
            low = self.least is not None and (value <= self.least if self.above else value < self.least)
            if value != value or low or (self.most is not None and value > self.most):  # noqa: PLR0124 - not a number
                begins = f"{'above' if self.above else 'from'} {self.least}" if self.least is not None else ""
                ends = f" to {self.most}" if self.most is not None else ""
                raise Unfit(f"Hyperparameter {name}: {text} is not in its range, {begins}{ends}")
        return value

    def _value(self, text: str) -> Any:
        if self.kind is bool:
            if text.lower() not in ("true", "false", "1", "0"):
                raise ValueError(text)
            return text.lower() in ("true", "1")
        if self.kind is list:
            inner = text.strip().removeprefix("[").removesuffix("]")
            return [one.strip().strip("'\"") for one in inner.split(",") if one.strip()]
        return self.kind(text)


def number(default: Any = None, least: float | None = 0, most: float | None = None, **more: Any) -> Parameter:
    """A real number."""
    return Parameter(float, default, least=least, most=most, **more)


def whole(default: Any = None, least: int | None = 1, most: int | None = None, **more: Any) -> Parameter:
    """A whole number."""
    return Parameter(int, default, least=least, most=most, **more)


def choice(default: str | None, *choices: str, **more: Any) -> Parameter:
    """One of some words."""
    return Parameter(str, default, choices=choices, **more)


def switch(default: bool, **more: Any) -> Parameter:
    """true or false."""
    return Parameter(bool, default, **more)


def read(known: Mapping[str, Parameter], without_effect: Iterable[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the job wants; those with neither a word nor a default are left out. Raises Unfit, naming all unknown ones."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    texts = {name: text.strip().strip('"') for name, text in texts.items() if not name.startswith("sagemaker_")}
    texts.pop("_tuning_objective_metric", None)
    ignored = set(without_effect)
    if unknown := sorted(set(texts) - set(known) - ignored):
        raise Unfit(f"Unknown hyperparameters: {', '.join(unknown)}. There are: {', '.join(sorted(known))}.")
    for name in sorted(set(texts) & ignored):
        print(f"The hyperparameter {name} has no effect here.", flush=True)  # noqa: T201 - the job's log
    found = {}
    for name, parameter in known.items():
        if name in texts:
            found[name] = parameter.read(name, texts[name])
        elif parameter.required:
            raise Unfit(f"The hyperparameter {name} is required.")
        elif parameter.default is not None:
            found[name] = parameter.default
    return found

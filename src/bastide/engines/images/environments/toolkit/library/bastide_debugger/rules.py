"""Debugger's built-in rules. Each looks at the saved tensors of one step after another and says when its condition is met.

Names, parameters and defaults are those of the developer guide, "debugger-built-in-rules"; where it leaves open how a
number comes about, the class says what is computed here.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bastide_debugger import matching

TRAIN, EVAL = "TRAIN", "EVAL"
_OF_EVALUATION = re.compile(r"(validation|valid|eval|test)\b")
Tensors = Mapping[str, Any]


def _mean(values: Iterable[float]) -> float:
    held = list(values)
    return sum(held) / len(held) if held else math.nan


def _scalars(tensors: Tensors) -> dict[str, float]:
    return {name: float(value.reshape(-1)[0]) for name, value in tensors.items() if value.size == 1}


class Rule:
    """given: its parameters, complete. collections: those that it looks at if nothing else is said; none are all."""

    collections: tuple[str, ...] = ()
    regex = ""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self.steps = 0

    def wants(self, name: str, collections: frozenset[str]) -> bool:
        """Whether it looks at a tensor. A pattern that is given counts for more than collections that are."""
        if self.given.get("tensor_regex"):
            return matching(self.given["tensor_regex"], name)
        if self.given.get("collection_names"):
            return bool(collections.intersection(one.strip() for one in self.given["collection_names"].split(",")))
        if self.regex and matching(self.regex, name):
            return True
        return bool(collections.intersection(self.collections)) if self.collections or self.regex else True

    def see(self, mode: str, step: int, tensors: Tensors) -> str:
        """What is wrong at a step, empty if nothing is."""
        raise NotImplementedError

    def silent(self, seconds: float) -> str:
        """What is wrong when nothing new came for so long."""
        return ""


class LossNotDecreasing(Rule):
    """Every num_steps a loss is held against its last value that was: it has to be less by diff_percent of that. In between
    it may not be greater than that by more than increase_threshold_percent."""

    collections = ("losses",)

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__(given)
        self._before: dict[tuple[str, str], tuple[int, float]] = {}

    def see(self, mode: str, step: int, tensors: Tensors) -> str:
        if self.given["mode"] not in ("GLOBAL", mode):
            return ""
        for name, value in _scalars(tensors).items():
            at, before = self._before.setdefault((mode, name), (step, value))
            if step == at:
                continue
            less = (before - value) / abs(before) * 100 if before else before - value
            if not math.isfinite(value) or -less > self.given["increase_threshold_percent"]:
                return f"{name} went from {before:.6g} at step {at} to {value:.6g}"
            if step - at < self.given["num_steps"]:
                continue
            if not less >= self.given["diff_percent"]:
                return f"{name} is {value:.6g}, and was {before:.6g} at step {at}"
            self._before[mode, name] = step, value
        return ""


class VanishingGradient(Rule):
    """The mean of a gradient's absolute values is below the threshold."""

    collections = ("gradients",)

    def see(self, mode: str, step: int, tensors: Tensors) -> str:
        for name, value in tensors.items():
            if value.size and (mean := float(np.abs(value).mean())) < self.given["threshold"]:
                return f"the mean of {name} is {mean:.6g}"
        return ""


class ExplodingTensor(Rule):
    """A tensor has NaN, or with only_nan false also infinity."""

    def see(self, mode: str, step: int, tensors: Tensors) -> str:
        for name, value in tensors.items():
            if value.dtype.kind != "f":
                continue
            wrong = np.isnan(value) if self.given["only_nan"] else ~np.isfinite(value)
            if wrong.any():
                return (
                    f"{name} has {int(wrong.sum())} values that are {'NaN' if self.given['only_nan'] else 'not finite'}"
                )
        return ""


class AllZero(Rule):
    """At least threshold percent of a tensor's values are zero."""

    def see(self, mode: str, step: int, tensors: Tensors) -> str:
        for name, value in tensors.items():
            if value.size and (part := float((value == 0).mean()) * 100) >= self.given["threshold"]:
                return f"{part:.4g} % of {name} are zero"
        return ""


class TensorVariance(Rule):
    """A tensor's variance is above max_threshold or below min_threshold. A single number has none."""

    def see(self, mode: str, step: int, tensors: Tensors) -> str:
        for name, value in tensors.items():
            if value.size < 2:
                continue
            variance = float(np.var(value.astype(np.float64)))
            if not self.given["min_threshold"] <= variance <= self.given["max_threshold"]:
                return f"the variance of {name} is {variance:.6g}"
        return ""


class UnchangedTensor(Rule):
    """A tensor is all close to what it was, in num_steps saved steps one after another."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__(given)
        self._last: dict[tuple[str, str], tuple[Any, int]] = {}

    def see(self, mode: str, step: int, tensors: Tensors) -> str:
        for name, value in tensors.items():
            before, times = self._last.get((mode, name), (None, 1))
            close = {key: self.given[key] for key in ("rtol", "atol", "equal_nan")}
            same = before is not None and before.shape == value.shape and np.allclose(value, before, **close)
            times = times + 1 if same else 1
            self._last[mode, name] = value, times
            if times >= self.given["num_steps"]:
                return f"{name} is the same in {times} steps"
        return ""


class _Splits(Rule):
    """A rule that tells losses of training from those of evaluation: by the mode, or XGBoost's by the data's name."""

    collections = ("losses",)

    def split(self, mode: str, tensors: Tensors) -> dict[str, float]:
        """Mean losses of TRAIN and EVAL."""
        found: dict[str, list[float]] = {}
        for name, value in _scalars(tensors).items():
            part = EVAL if mode == EVAL or _OF_EVALUATION.match(name) else TRAIN
            found.setdefault(part, []).append(value)
        return {part: _mean(values) for part, values in found.items()}


class Overfit(_Splits):
    """Evaluation's loss is above training's, both means since evaluation's last one, by more than ratio_threshold of
    training's, in patience evaluations one after another."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__(given)
        self._train: list[float] = []
        self._times = 0

    def see(self, mode: str, step: int, tensors: Tensors) -> str:
        found = self.split(mode, tensors)
        if TRAIN in found:
            self._train.append(found[TRAIN])
        if EVAL not in found or not self._train or step < self.given["start_step"]:
            return ""
        train, self._train = _mean(self._train), []
        ratio = (found[EVAL] - train) / abs(train) if train else math.inf if found[EVAL] > 0 else 0.0
        self._times = self._times + 1 if ratio > self.given["ratio_threshold"] else 0
        if self._times >= max(1, self.given["patience"]):
            return f"the loss is {train:.6g} in training and {found[EVAL]:.6g} in evaluation"
        return ""


class Overtraining(_Splits):
    """The best loss of training, or of evaluation, was not undercut by delta of it for patience_train, or
    patience_validation, steps."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__(given)
        self._best: dict[str, tuple[int, float]] = {}

    def see(self, mode: str, step: int, tensors: Tensors) -> str:
        for part, value in self.split(mode, tensors).items():
            at, best = self._best.get(part, (step, math.inf))
            if not math.isfinite(best) or best - value > self.given["delta"] * abs(best):
                self._best[part] = step, value
                continue
            patience = self.given["patience_train" if part == TRAIN else "patience_validation"]
            if step - at >= patience:
                told = "training" if part == TRAIN else "evaluation"
                return f"the loss of {told} has not improved on {best:.6g} since step {at}"
        return ""


class WeightUpdateRatio(Rule):
    """What a weight changed by in num_steps, as the mean of absolute values, to the mean of its own plus epsilon."""

    collections = ("weights",)

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__(given)
        self._before: dict[str, tuple[int, Any]] = {}

    def see(self, mode: str, step: int, tensors: Tensors) -> str:
        if mode == EVAL:
            return ""
        for name, held in tensors.items():
            value = held.astype(np.float64)
            at, before = self._before.setdefault(name, (step, value))
            if step - at < self.given["num_steps"] or before.shape != value.shape or not value.size:
                continue
            self._before[name] = step, value
            ratio = float(np.abs(value - before).mean() / (np.abs(before).mean() + self.given["epsilon"]))
            if not self.given["small_threshold"] <= ratio <= self.given["large_threshold"]:
                return f"{name} changed by {ratio:.6g} of itself since step {at}"
        return ""


class DeadRelu(Rule):
    """Of a layer's outputs (all axes but the first, which is the batch) more than threshold_layer percent are positive in
    less than threshold_inactivity percent of the batch."""

    regex = ".*relu_output|.*ReLU_output"
    collections = ("relu_output",)

    def see(self, mode: str, step: int, tensors: Tensors) -> str:
        for name, value in tensors.items():
            if value.ndim < 2 or not value.size:
                continue
            active = (value > 0).reshape(value.shape[0], -1).mean(axis=0) * 100
            dead = float((active < self.given["threshold_inactivity"]).mean()) * 100
            if dead > self.given["threshold_layer"]:
                return f"{dead:.4g} % of {name} are inactive"
        return ""


class FeatureImportanceOverweight(Rule):
    """The nfeatures greatest importances, which are parts of one, make more than the threshold."""

    regex = ".*feature_importance/weight"

    def see(self, mode: str, step: int, tensors: Tensors) -> str:
        greatest = sorted(_scalars(tensors).items(), key=lambda one: -one[1])[: self.given["nfeatures"]]
        total = sum(value for _, value in greatest)
        if total > self.given["threshold"]:
            return f"{', '.join(name for name, _ in greatest)} make {total:.4g} of all"
        return ""


class StalledTrainingRule(Rule):
    """No tensor was saved for threshold seconds."""

    def see(self, mode: str, step: int, tensors: Tensors) -> str:
        return ""

    def silent(self, seconds: float) -> str:
        return f"no tensor was saved for {seconds:.0f} seconds" if seconds >= self.given["threshold"] else ""


RULES: dict[str, type[Rule]] = {
    one.__name__: one
    for one in (
        AllZero, DeadRelu, ExplodingTensor, FeatureImportanceOverweight, LossNotDecreasing, Overfit, Overtraining,
        StalledTrainingRule, TensorVariance, UnchangedTensor, VanishingGradient, WeightUpdateRatio,
    )
}  # fmt: skip


class Evaluation:
    """One configured rule and what came of it so far. found: why its condition is met, empty until it is."""

    def __init__(self, name: str, rule: str, given: Mapping[str, Any]) -> None:
        self.name = name
        self._title = rule
        self._rule = RULES[rule](given)
        self._seen = 0
        self._last = time.monotonic()
        self.found = ""

    def see(self, mode: str, step: int, tensors: Tensors, collections: Mapping[str, frozenset[str]]) -> None:
        """A step that was saved."""
        self._last = time.monotonic()
        wanted = {
            name: value for name, value in tensors.items() if self._rule.wants(name, collections.get(name, frozenset()))
        }
        if not wanted or self.found:
            return
        self._seen += 1
        if why := self._rule.see(mode, step, wanted):
            self.found = (
                f"RuleEvaluationConditionMet: Evaluation of the rule {self._title} at step {step} resulted in the "
                f"condition being met: {why}"
            )

    def wait(self) -> None:
        """Nothing new is there."""
        if not self.found and (why := self._rule.silent(time.monotonic() - self._last)):
            self.found = f"RuleEvaluationConditionMet: the rule {self._title}: {why}"

    def ended(self) -> tuple[str, str]:
        """Status and details when there is nothing more to come."""
        if self.found:
            return "IssuesFound", self.found
        if not self._seen and not isinstance(self._rule, StalledTrainingRule):
            return "Error", "ClientError: the job saved no tensor that the rule looks at"
        return "NoIssuesFound", f"{self._seen} saved steps were looked at"

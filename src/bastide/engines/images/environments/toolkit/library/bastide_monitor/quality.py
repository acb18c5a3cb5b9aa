"""How good predictions are: the metrics of the developer guide, "model-monitor-model-quality-metrics"."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

MOST_POINTS = 1_000
"""Of a curve."""
SAMPLED = 200
"""Records from which on there is a standard deviation."""
_BETAS = (("f0_5", 0.5), ("f1", 1.0), ("f2", 2.0))

Metrics = dict[str, float]


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _f(precision: float, recall: float, beta: float) -> float:
    return _share((1 + beta * beta) * precision * recall, beta * beta * precision + recall)


def regression(truth: Any, guess: Any) -> Metrics:
    """Of numbers. r2 is 0 where the truth is one and the same value, as nothing is explained."""
    apart = guess - truth
    mse, spread = float((apart**2).mean()), float(((truth - truth.mean()) ** 2).mean())
    return {
        "mae": float(np.abs(apart).mean()),
        "mse": mse,
        "rmse": math.sqrt(mse),
        "r2": 1 - mse / spread if spread else 0.0,
    }


def _binary(matrix: Any) -> Metrics:
    (tn, fp), (fn, tp) = matrix.tolist()
    recall, precision = _share(tp, tp + fn), _share(tp, tp + fp)
    found = {
        "recall": recall,
        "precision": precision,
        "accuracy": _share(tp + tn, matrix.sum()),
        "true_positive_rate": recall,
        "true_negative_rate": _share(tn, tn + fp),
        "false_positive_rate": _share(fp, tn + fp),
        "false_negative_rate": _share(fn, tp + fn),
    }
    return found | {name: _f(precision, recall, beta) for name, beta in _BETAS}


def confusion(truth: Any, guess: Any, classes: int) -> Any:
    """How often which class (row) was taken for which (column)."""
    return np.bincount(truth * classes + guess, minlength=classes * classes).reshape(classes, classes)


def _constant(found: Metrics) -> Metrics:
    return {f"{name}_best_constant_classifier": value for name, value in found.items()}


def binary(truth: Any, guess: Any, score: Any | None) -> Metrics:
    """Of the classes 0 and 1. The constant classifier is the one that always says 1, as in AWS's example."""
    found = _binary(confusion(truth, guess, 2))
    always = _binary(confusion(truth, np.ones_like(truth), 2))
    names = ("recall", "precision", "accuracy", "f0_5", "f1", "f2")
    found |= _constant({name: always[name] for name in names})
    if score is not None:
        found["auc"] = auc(truth, score)
    return found


def multiclass(truth: Any, guess: Any, classes: int) -> Metrics:
    """Of classes by their numbers. The constant classifier always says the most frequent one."""
    matrix = confusion(truth, guess, classes)
    often = int(matrix.sum(axis=1).argmax())
    return _weighted(matrix) | _constant(_weighted(confusion(truth, np.full_like(truth, often), classes)))


def _weighted(matrix: Any) -> Metrics:
    actual, said, right = matrix.sum(axis=1), matrix.sum(axis=0), matrix.diagonal()
    weights = actual / max(1, matrix.sum())
    precision = right / np.maximum(said, 1)
    recall = right / np.maximum(actual, 1)
    found = {
        "accuracy": _share(right.sum(), matrix.sum()),
        "weighted_recall": float((weights * recall).sum()),
        "weighted_precision": float((weights * precision).sum()),
    }
    for name, beta in _BETAS:
        below = beta * beta * precision + recall
        each = np.divide((1 + beta * beta) * precision * recall, below, out=np.zeros_like(below), where=below > 0)
        found[f"weighted_{name}"] = float((weights * each).sum())
    return found


def _steps(truth: Any, score: Any) -> tuple[Any, Any]:
    """True and false positives from the highest score down, at each score that there is; first none."""
    order = np.argsort(-score, kind="stable")
    truth, score = truth[order], score[order]
    last = np.r_[np.flatnonzero(np.diff(score)), len(score) - 1]
    right = np.cumsum(truth)[last]
    return np.r_[0, right], np.r_[0, last + 1 - right]


def auc(truth: Any, score: Any) -> float:
    """The area below the ROC curve, by trapezoids; 0 where one of the classes does not occur."""
    right, wrong = _steps(truth, score)
    if not right[-1] or not wrong[-1]:
        return 0.0
    return float(np.trapezoid(right / right[-1], wrong / wrong[-1]))


def curves(truth: Any, score: Any) -> dict[str, Any]:
    """Both curves, of at most 1,001 points."""
    right, wrong = _steps(truth, score)
    some = np.unique(np.linspace(0, len(right) - 1, min(len(right), MOST_POINTS + 1)).round().astype(int))
    right, wrong, positive, negative = right[some], wrong[some], right[-1], wrong[-1]
    said = right + wrong
    precision = np.divide(right, said, out=np.ones(len(right)), where=said > 0)
    return {
        "receiver_operating_characteristic_curve": {
            "false_positive_rates": (wrong / max(1, negative)).tolist(),
            "true_positive_rates": (right / max(1, positive)).tolist(),
        },
        "precision_recall_curve": {
            "precisions": precision.tolist(),
            "recalls": (right / max(1, positive)).tolist(),
        },
    }


def with_deviations(count: int, measure: Callable[[Any], Metrics]) -> dict[str, dict[str, Any]]:
    """Each metric and how much it varies between five samples of four fifths of the records.

    measure: what is measured on some of them, by their numbers.
    """
    found = measure(slice(None))
    spread: dict[str, Any] = dict.fromkeys(found, "NaN")
    if count >= SAMPLED:
        chance = np.random.default_rng(0)  # the same data, the same report
        samples = [measure(chance.permutation(count)[: count * 4 // 5]) for _ in range(5)]
        spread = {name: float(np.std([one[name] for one in samples], ddof=1)) for name in found}
    return {name: {"value": value, "standard_deviation": spread[name]} for name, value in found.items()}

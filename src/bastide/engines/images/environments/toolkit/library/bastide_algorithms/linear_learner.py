"""Linear learner: regression, binary and multiclass classification.

AWS's approaches the optimum of a convex objective by stochastic gradient descent from many starting points; here it is
solved, by scikit-learn's solver for the loss. With n records the objective is, in each case,
``mean(loss) + wd / 2 * |w|^2 + l1 * |w|``. Optimisers, learning rates, batches and numbers of models are without effect.

Source: SageMaker developer guide, "Linear learner hyperparameters", "Linear learner response formats".
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import linear_model, metrics, svm
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from bastide_algorithms import Unfit
from bastide_algorithms.job import Job, keep, kept, say
from bastide_algorithms.parameters import choice, number, switch, whole
from bastide_algorithms.tables import Rules, Table

NAME = "linear-learner"
BINARY, MULTI, REGRESSOR = "binary_classifier", "multiclass_classifier", "regressor"
_LOSSES = {
    REGRESSOR: (
        "squared_loss", "absolute_loss", "eps_insensitive_squared_loss", "eps_insensitive_absolute_loss", "quantile_loss",
    ),
    BINARY: ("logistic", "hinge_loss"),
    MULTI: ("softmax_loss",),
}  # fmt: skip
_CRITERIA = (
    "accuracy", "f_beta", "f1", "precision_at_target_recall", "recall_at_target_precision", "loss_function",
    "cross_entropy_loss",
)  # fmt: skip

PARAMETERS = {
    "predictor_type": choice(None, BINARY, MULTI, REGRESSOR, required=True),
    "num_classes": whole(least=2, most=1_000_000),
    "feature_dim": whole(auto=0),
    "loss": choice("auto", "auto", *(one for every in _LOSSES.values() for one in every)),
    "wd": number(1e-4, auto=1e-4),
    "l1": number(0.0, auto=0.0),
    "quantile": number(0.5, above=True, most=1.0),
    "loss_insensitivity": number(0.01, above=True),
    "normalize_data": switch(True, auto=True),
    "normalize_label": switch(True, auto=True),
    "use_bias": switch(True),
    "epochs": whole(1000),
    "positive_example_weight_mult": choice("1.0"),
    "balance_multiclass_weights": switch(False),
    "binary_classifier_model_selection_criteria": choice("accuracy", *_CRITERIA),
    "target_precision": number(0.8, most=1.0),
    "target_recall": number(0.8, most=1.0),
    "f_beta": number(1.0, above=True),
    "accuracy_top_k": whole(3),
}
WITHOUT_EFFECT = (
    "beta_1", "beta_2", "bias_lr_mult", "bias_wd_mult", "early_stopping_patience", "early_stopping_tolerance", "init_bias",
    "init_method", "init_scale", "init_sigma", "learning_rate", "lr_scheduler_factor", "lr_scheduler_minimum_lr",
    "lr_scheduler_step", "mini_batch_size", "momentum", "num_calibration_samples", "num_models", "num_point_for_scaler",
    "optimizer", "unbias_data", "unbias_label", "use_lr_scheduler", "margin",
)  # fmt: skip


def _solver(given: dict[str, Any], loss: str, records: int, weights: Any) -> Any:
    """scikit-learn's estimator of the objective. Raises Unfit for a penalty that its solver does not have."""
    wd, l1, bias, most = given["wd"], given["l1"], given["use_bias"], given["epochs"]
    total = wd + l1
    if loss == "squared_loss":
        if l1:
            return linear_model.ElasticNet(alpha=total, l1_ratio=l1 / total, fit_intercept=bias, max_iter=most)
        return linear_model.Ridge(alpha=records * wd, fit_intercept=bias)
    if loss in ("absolute_loss", "quantile_loss"):
        if wd > PARAMETERS["wd"].default:
            raise Unfit(f"The loss {loss} has no wd here: use l1.")
        quantile = given["quantile"] if loss == "quantile_loss" else 0.5
        return linear_model.QuantileRegressor(quantile=quantile, alpha=l1, fit_intercept=bias)
    if loss in ("logistic", "softmax_loss"):
        strength = 1 / (records * total) if total else np.inf
        how = {"solver": "saga", "l1_ratio": l1 / total, "random_state": 0} if l1 else {"solver": "lbfgs"}
        return linear_model.LogisticRegression(
            C=strength, fit_intercept=bias, max_iter=most, tol=1e-8, class_weight=weights, **how
        )
    if l1 or not wd:
        raise Unfit(f"The loss {loss} needs a wd and has no l1 here.")
    strength = 1 / (records * wd)
    if loss == "hinge_loss":
        return svm.LinearSVC(
            loss="hinge", C=strength, fit_intercept=bias, max_iter=most * 100, class_weight=weights, random_state=0
        )
    kind = "squared_epsilon_insensitive" if loss == "eps_insensitive_squared_loss" else "epsilon_insensitive"
    epsilon = given["loss_insensitivity"]
    return svm.LinearSVR(
        epsilon=epsilon, loss=kind, C=strength, fit_intercept=bias, max_iter=most * 100, random_state=0
    )


def _weights(given: dict[str, Any], kind: str) -> Any:
    if kind == MULTI:
        return "balanced" if given["balance_multiclass_weights"] else None
    told = given["positive_example_weight_mult"]
    if told == "balanced":
        return "balanced"
    try:
        found = float(told)
    except ValueError:
        found = 0.0
    if not found > 0:
        raise Unfit("positive_example_weight_mult is balanced or a number above 0.")
    return None if found == 1 else {0.0: 1.0, 1.0: found}


def train(job: Job) -> None:
    """Channels: train, and optionally validation and test, all with labels."""
    given = job.given
    kind = given["predictor_type"]
    loss = given["loss"] if given["loss"] != "auto" else _LOSSES[kind][0]
    if loss not in _LOSSES[kind]:
        raise Unfit(f"A {kind} has the losses {', '.join(_LOSSES[kind])}.")
    rules = Rules()
    table = job.train(rules)
    x, y = table.dense(), np.asarray(table.labels, np.float64)
    classes = {BINARY: 2, MULTI: given.get("num_classes", 0), REGRESSOR: 0}[kind]
    if kind == MULTI and not classes:
        raise Unfit("A multiclass_classifier needs num_classes.")
    parts = {"train": (x, y)}
    for name in ("validation", "test"):
        if (other := job.table(name, rules)) is not None:
            if other.labels is None:
                raise Unfit(f"The records of the channel {name} have no labels.")
            parts[name] = (other.dense(x.shape[1]), np.asarray(other.labels, np.float64))
    if classes:
        for name, (_, labels) in parts.items():
            if (labels != np.round(labels)).any() or labels.min() < 0 or labels.max() >= classes:
                raise Unfit(f"The labels of the channel {name} are to be whole numbers from 0 to {classes - 1}.")
        if len(np.unique(y)) < classes:
            raise Unfit(f"The channel train has examples of {len(np.unique(y))} of {classes} classes.")
    middle, spread = np.zeros(x.shape[1]), np.ones(x.shape[1])
    if given["normalize_data"]:
        scaler = StandardScaler().fit(x)
        middle, spread = scaler.mean_, scaler.scale_
    level, height = 0.0, 1.0
    if kind == REGRESSOR and given["normalize_label"]:
        level, height = float(y.mean()), float(y.std()) or 1.0
    solver = _solver(given, loss, len(x), _weights(given, kind) if classes else None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        solver.fit((x - middle) / spread, (y - level) / height if kind == REGRESSOR else y)
    if any(issubclass(one.category, ConvergenceWarning) for one in caught):
        say(f"The solver has not converged after {given['epochs']} epochs.")
    weights = np.atleast_2d(solver.coef_)
    bias = np.atleast_1d(solver.intercept_) * np.ones(len(weights))
    model = Model(
        {"algorithm": NAME, "predictor_type": kind, "loss": loss, "threshold": 0.5 if loss == "logistic" else 0.0},
        {"weights": weights * height, "bias": bias * height + level, "middle": middle, "spread": spread},
    )
    if kind == BINARY:
        chosen = parts.get("validation", parts["train"])
        model.told["threshold"] = _threshold(given, chosen[1], model.scores(chosen[0]), model.told["threshold"])
        say(f"Threshold of predicted_label 1: {model.told['threshold']!r}")
    for name, (features, labels) in parts.items():
        for metric, value, how in _metrics(given, model, features, labels):
            job.quality(name, metric, value, how)
    keep(job.model, model.told, **model.numbers)


def _threshold(given: dict[str, Any], y: Any, scores: Any, usual: float) -> float:
    """The score from which a record counts as positive, by the selection criterion; ties go to the usual one's side."""
    rule = given["binary_classifier_model_selection_criteria"]
    if rule in ("loss_function", "cross_entropy_loss"):
        return usual
    values = np.unique(scores)
    cuts = np.concatenate([[values[0]], (values[1:] + values[:-1]) / 2, [np.nextafter(values[-1], np.inf)], [usual]])
    order = np.sort(scores[y == 1]), np.sort(scores[y == 0])
    positives, negatives = len(order[0]), len(order[1])
    hits = positives - np.searchsorted(order[0], cuts)
    wrong = negatives - np.searchsorted(order[1], cuts)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(hits + wrong > 0, hits / (hits + wrong), 0.0)
    recall = hits / max(positives, 1)
    if rule == "accuracy":
        worth = (hits + negatives - wrong) / len(y)
    elif rule in ("f_beta", "f1"):
        beta = 1.0 if rule == "f1" else given["f_beta"]
        worth = (1 + beta**2) * hits / ((1 + beta**2) * hits + beta**2 * (positives - hits) + wrong)
    elif rule == "precision_at_target_recall":
        worth = np.where(recall >= given["target_recall"], precision, recall - 2)
    else:
        worth = np.where(precision >= given["target_precision"], recall, precision - 2)
    best = np.flatnonzero(worth == worth.max())
    return float(cuts[best[np.argmin(np.abs(cuts[best] - usual))]])


def _metrics(given: dict[str, Any], model: Model, x: Any, y: Any) -> list[tuple[str, float, str]]:
    scores = model.scores(x)
    if model.kind == REGRESSOR:
        square = float(metrics.mean_squared_error(y, scores))
        return [
            ("objective", _regression_loss(given, model.told["loss"], y - scores), "loss"),
            ("mse", square, "loss"),
            ("absolute_loss", float(metrics.mean_absolute_error(y, scores)), "loss"),
            ("rmse", square**0.5, "loss"),
            ("r2", float(metrics.r2_score(y, scores)) if len(y) > 1 else float("nan"), "score"),
        ]
    labels = model.labels(scores)
    if model.kind == BINARY:
        found = [
            ("binary_classification_accuracy", float(metrics.accuracy_score(y, labels)), "score"),
            ("binary_f_beta", float(metrics.fbeta_score(y, labels, beta=given["f_beta"], zero_division=0)), "score"),
            ("precision", float(metrics.precision_score(y, labels, zero_division=0)), "score"),
            ("recall", float(metrics.recall_score(y, labels, zero_division=0)), "score"),
        ]
        if len(np.unique(y)) == 2:
            found.append(("roc_auc_score", float(metrics.roc_auc_score(y, scores)), "score"))
        if model.told["loss"] == "logistic":
            loss = float(metrics.log_loss(y, scores, labels=[0, 1]))
            return [("binary_classification_cross_entropy_objective", loss, "loss"), *found]
        return [("hinge_objective", float(metrics.hinge_loss(y, scores, labels=[0, 1])), "loss"), *found]
    count = scores.shape[1]
    top = min(given["accuracy_top_k"], count - 1)
    return [
        ("multiclass_cross_entropy_objective", float(metrics.log_loss(y, scores, labels=range(count))), "loss"),
        ("multiclass_accuracy", float(metrics.accuracy_score(y, labels)), "score"),
        (
            "multiclass_top_k_accuracy",
            float(metrics.top_k_accuracy_score(y, scores, k=top, labels=range(count))) if count > 2 else 1.0,
            "score",
        ),
    ]


def _regression_loss(given: dict[str, Any], loss: str, off: Any) -> float:
    if loss == "squared_loss":
        return float(np.mean(off**2))
    if loss == "absolute_loss":
        return float(np.mean(np.abs(off)))
    if loss == "quantile_loss":
        return float(np.mean(np.where(off >= 0, given["quantile"] * off, (given["quantile"] - 1) * off)))
    beyond = np.maximum(np.abs(off) - given["loss_insensitivity"], 0)
    return float(np.mean(beyond**2 if loss == "eps_insensitive_squared_loss" else beyond))


class Model:
    """Weights over standardised features."""

    def __init__(self, told: dict[str, Any], numbers: dict[str, Any]) -> None:
        self.told = told
        self.numbers = numbers
        self.kind = told["predictor_type"]

    def scores(self, x: Any) -> Any:
        """Values of a regressor, probabilities of the positive class or of each class; margins of a hinge loss."""
        numbers = self.numbers
        found = ((x - numbers["middle"]) / numbers["spread"]) @ numbers["weights"].T + numbers["bias"]
        if self.kind == MULTI:
            found = np.exp(found - found.max(axis=1, keepdims=True))
            return found / found.sum(axis=1, keepdims=True)
        found = found[:, 0]
        return 1 / (1 + np.exp(-found)) if self.told["loss"] == "logistic" else found

    def labels(self, scores: Any) -> Any:
        """Predicted classes."""
        return scores.argmax(axis=1) if self.kind == MULTI else (scores >= self.told["threshold"]).astype(int)

    def answer(self, table: Table, verbose: bool) -> list[dict[str, Any]]:
        """See "Linear learner response formats"."""
        scores = self.scores(table.dense(self.numbers["weights"].shape[1]))
        if self.kind == REGRESSOR:
            return [{"score": float(one)} for one in scores]
        return [
            {"score": one.tolist(), "predicted_label": int(label)}
            for one, label in zip(scores, self.labels(scores), strict=True)
        ]


def load(folder: Path) -> Model:
    """The model that train left."""
    return Model(*kept(folder, NAME))

"""Model quality: how good predictions are against the truth, what is suggested of it, and what does not keep a baseline's.

Developer guide, "model-monitor-model-quality-baseline" and "model-monitor-model-quality-metrics".
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np

from bastide_monitor import Unfit, quality
from bastide_monitor.columns import label_of, text_of
from bastide_monitor.job import Job, say
from bastide_monitor.paths import Attribute
from bastide_monitor.records import Dataset, Record, cells, files, parsed, payload

MOST_CLASSES = 1_000
TYPES = {
    "Regression": "regression",
    "BinaryClassification": "binary_classification",
    "MulticlassClassification": "multiclass_classification",
}
LESS, GREATER = "LessThanThreshold", "GreaterThanThreshold"
_GREATER = ("mae", "mse", "rmse", "false_positive_rate", "false_negative_rate")

Row = tuple[str | None, str | None, str | None]
"""Truth, prediction, probability."""


def run(job: Job) -> int | None:
    """How many violations there are, None without a baseline. Raises Unfit."""
    kind = job.needed("problem_type")
    if kind not in TYPES:
        raise Unfit(f"problem_type is {', '.join(TYPES)}.")
    constraints = job.document("baseline_constraints")
    table = _Table(kind, _threshold(job))
    for row in _rows(job):
        table.add(*row)
    if table.left_out:
        say(f"{table.left_out} records without a truth or a prediction are left out")
    if not len(table.truth):
        raise Unfit("There is no data: no record has both a truth and a prediction.")
    metrics, details = table.measure()
    say(f"{len(table.truth)} records")
    about = {"item_count": len(table.truth)}
    times = {name: job.given[name] for name in ("start_time", "end_time") if job.given.get(name)}
    name = TYPES[kind]
    told = {"version": 0.0, "dataset": about | times, f"{name}_metrics": details | metrics}
    job.write("statistics.json", told)
    limits = {
        one: {"threshold": found["value"], "comparison_operator": GREATER if one in _GREATER else LESS}
        for one, found in metrics.items()
        if not one.endswith("_best_constant_classifier")
    }
    job.write("constraints.json", {"version": 0.0, f"{name}_constraints": limits})
    job.measure((one, found["value"]) for one, found in metrics.items())
    if constraints is None:
        return None
    violations = list(evaluate(metrics, constraints.get(f"{name}_constraints"), f"{name}_constraints"))
    job.write("constraint_violations.json", {"violations": violations})
    for one in violations:
        say(one["description"])
    return len(violations)


def evaluate(metrics: dict[str, Any], limits: Any, what: str) -> Iterator[dict[str, str]]:
    """What does not keep its limit. Raises Unfit."""
    if not isinstance(limits, dict):
        raise Unfit(f"The baseline constraints have no {what}: are they of another kind of problem?")
    for name, limit in limits.items():
        try:
            most, how = float(limit["threshold"]), limit["comparison_operator"]
        except (TypeError, KeyError, ValueError):
            raise Unfit(f"{what}: {name} has no threshold and comparison_operator.") from None
        if how not in (LESS, GREATER):
            raise Unfit(f"{what}: the comparison_operator of {name} is {LESS} or {GREATER}.")
        found = metrics.get(name)
        if found is None:
            continue  # without probabilities there is no auc
        value, spread = found["value"], found["standard_deviation"]
        if value < most if how == LESS else value > most:
            about = "" if spread == "NaN" else f" +/- {spread}"
            yield {
                "constraint_check_type": how,
                "description": f"Metric {name} with {value}{about} was {how} '{most}'",
                "metric_name": name,
            }


def _threshold(job: Job) -> float:
    told = job.given.get("probability_threshold_attribute") or "0.5"
    try:
        return float(told)
    except ValueError:
        raise Unfit("probability_threshold_attribute is a number.") from None


# -- records -----------------------------------------------------------------------------------------------------------


def _rows(job: Job) -> Iterator[Row]:
    data = job.dataset()
    given = {
        name: Attribute(f"{name}_attribute", told) if (told := job.given.get(f"{name}_attribute")) else None
        for name in ("ground_truth", "inference", "probability")
    }
    if data.captured or given["ground_truth"] is None:  # of a transform job, too, what the merger left
        yield from _merged(data, given)
        return
    if given["inference"] is None and given["probability"] is None:
        raise Unfit("One of inference_attribute and probability_attribute is needed.")
    for parts, count in data.pieces():
        names = list(parts)
        chosen = [parts[one.column(names)] if one else [None] * count for one in given.values()]
        yield from ((text_of(a), text_of(b), text_of(c)) for a, b, c in zip(*chosen, strict=True))


def _merged(data: Dataset, given: dict[str, Attribute | None]) -> Iterator[Row]:
    """Captured answers with the truth that was merged to them."""
    index = next((one for one in data.indexes if one != "endpointInput"), "endpointOutput")
    index = index if data.captured else "batchTransformOutput"
    paths = files(data.folder)
    if not paths:
        raise Unfit("There is no data: the dataset has no files.")
    for path in paths:
        for event in data.events(path):
            if index not in event["captureData"] or not isinstance(event.get("groundTruthData"), dict):
                continue
            yield from _answered(event, index, given, path.name)


def _answered(event: Record, index: str, given: dict[str, Attribute | None], where: str) -> Iterator[Row]:
    told, encoding = payload(event["captureData"][index], where)
    truth = list(cells(str(event["groundTruthData"].get("data")).splitlines(), where))
    at = given["ground_truth"]
    place = int(at.told) if at is not None and at.told.isdigit() else 0
    if encoding == "CSV":
        answers: list[Any] = list(cells(told.splitlines(), where))
    else:
        answers = [parsed(told, where)] if len(truth) < 2 else [parsed(one, where) for one in told.splitlines() if one]
    if len(answers) != len(truth):
        raise Unfit(f"{where}: an answer has {len(answers)} records and its ground truth has {len(truth)}.")
    inference, probability = given["inference"], given["probability"]
    if inference is None and probability is None:
        inference = Attribute("inference_attribute", "0") if encoding == "CSV" else None
        if inference is None:
            raise Unfit("One of inference_attribute and probability_attribute is needed for answers in JSON.")

    def value(one: Attribute | None, answer: Any) -> str | None:
        if one is None:
            return None
        if encoding != "CSV":
            return text_of(one.within(answer))
        return text_of(answer[int(one.told)] if one.told.isdigit() and int(one.told) < len(answer) else None)

    for answer, actual in zip(answers, truth, strict=True):
        yield (
            text_of(actual[place]) if place < len(actual) else None,
            value(inference, answer),
            value(probability, answer),
        )


# -- what is measured --------------------------------------------------------------------------------------------------


class _Table:
    """Truths and predictions, as numbers."""

    def __init__(self, kind: str, threshold: float) -> None:
        self.kind = kind
        self.truth, self._guess, self._score = array("d"), array("d"), array("d")
        self._threshold = threshold
        self._classes: dict[str, int] = {}
        self._scored = True
        self.left_out = 0

    def add(self, truth: str | None, guess: str | None, probability: str | None) -> None:
        """Takes a record in. Raises Unfit."""
        score = math.nan if probability is None else _number(probability, "A probability")
        if guess is None and probability is not None and self.kind != "Regression":
            if self.kind != "BinaryClassification":
                raise Unfit(
                    "inference_attribute is needed: a probability alone does not tell which of several classes it is."
                )
            guess = "1" if score > self._threshold else "0"
        if truth is None or guess is None:
            self.left_out += 1
            return
        self.truth.append(self._value(truth))
        self._guess.append(self._value(guess))
        self._score.append(score)
        self._scored = self._scored and probability is not None

    def _value(self, text: str) -> float:
        if self.kind == "Regression":
            return _number(text, "A truth or prediction of a regression")
        label = label_of(text)
        if self.kind == "BinaryClassification":
            if label not in ("0", "1"):
                raise Unfit(f"The classes of a binary classification are 0 and 1; there is {label[:100]!r}.")
            return float(label)
        if label not in self._classes and len(self._classes) >= MOST_CLASSES:
            raise Unfit(f"There are more than {MOST_CLASSES} classes: is it a regression?")
        return self._classes.setdefault(label, len(self._classes))

    def measure(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Metrics, and what else is told."""
        truth, guess, score = (np.array(one) for one in (self.truth, self._guess, self._score))
        if self.kind == "Regression":
            return quality.with_deviations(len(truth), lambda at: quality.regression(truth[at], guess[at])), {}
        truth, guess = truth.astype(np.int64), guess.astype(np.int64)
        if self.kind == "BinaryClassification":
            names = ["0", "1"]
            metrics = quality.with_deviations(
                len(truth), lambda at: quality.binary(truth[at], guess[at], score[at] if self._scored else None)
            )
            details = quality.curves(truth, score) if self._scored else {}
        else:
            names, count = list(self._classes), len(self._classes)
            metrics = quality.with_deviations(len(truth), lambda at: quality.multiclass(truth[at], guess[at], count))
            details = {}
        matrix = quality.confusion(truth, guess, len(names)).tolist()
        order = sorted(range(len(names)), key=lambda one: _order(names[one]))
        shown = {names[row]: {names[one]: matrix[row][one] for one in order} for row in order}
        return metrics, {"confusion_matrix": shown, **details}


def _order(label: str) -> tuple[float, str]:
    try:
        return float(label), label
    except ValueError:
        return math.inf, label


def _number(text: str, what: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not abs(found) < 1e140:
        raise Unfit(f"{what} is a number; there is {text[:100]!r}.")
    return found

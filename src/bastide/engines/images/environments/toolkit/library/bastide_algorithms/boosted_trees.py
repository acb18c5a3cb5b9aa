"""XGBoost as a built-in algorithm: its hyperparameters go to the library as they are, its metrics to the log.

The model is the file ``xgboost-model`` in the library's own format, so `xgboost.Booster` reads it anywhere. Where the job
has ``/opt/ml/checkpoints``, each round is kept as ``xgboost-checkpoint.ROUND`` and training goes on from the last.

Source: SageMaker developer guide, "XGBoost hyperparameters", "Common data formats", "Checkpoints".
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from bastide_debugger import boosting
from sklearn import metrics

from bastide_algorithms import Unfit
from bastide_algorithms.job import Job, say
from bastide_algorithms.parameters import Parameter, choice, number, switch, whole
from bastide_algorithms.tables import CSV, JSON, LIBSVM, LINES, PARQUET, RECORDIO, Rules, Table, widened

FILE = "xgboost-model"
FORMATS = (CSV, LIBSVM, RECORDIO, PARQUET)
REQUESTS = (CSV, LIBSVM, RECORDIO, JSON, LINES)

_OBJECTIVES = (
    "binary:hinge", "binary:logistic", "binary:logitraw", "count:poisson", "multi:softmax", "multi:softprob",
    "rank:map", "rank:ndcg", "rank:pairwise", "reg:absoluteerror", "reg:gamma", "reg:linear", "reg:logistic",
    "reg:pseudohubererror", "reg:squarederror", "reg:squaredlogerror", "reg:tweedie", "survival:aft", "survival:cox",
)  # fmt: skip
_STEERING = (
    "num_round", "csv_weights", "early_stopping_rounds", "save_model_on_termination", "eval_metric", "updater",
)  # fmt: skip

PARAMETERS: dict[str, Parameter] = {
    "num_round": whole(required=True),
    "csv_weights": whole(0, least=0, most=1),
    "early_stopping_rounds": whole(),
    "save_model_on_termination": switch(False),
    "eval_metric": Parameter(list),
    "updater": Parameter(list),
    "objective": choice("reg:squarederror", *_OBJECTIVES),
    "num_class": whole(least=2),
    "booster": choice(None, "gbtree", "gblinear", "dart"),
    "tree_method": choice(None, "auto", "exact", "approx", "hist"),
    "grow_policy": choice(None, "depthwise", "lossguide"),
    "process_type": choice(None, "default"),
    "sample_type": choice(None, "uniform", "weighted"),
    "sampling_method": choice(None, "uniform"),
    "normalize_type": choice(None, "tree", "forest"),
    "aft_loss_distribution": choice(None, "normal", "logistic", "extreme"),
    "aft_loss_distribution_scale": number(above=True),
    "alpha": number(),
    "base_score": number(least=None),
    "colsample_bylevel": number(above=True, most=1),
    "colsample_bynode": number(above=True, most=1),
    "colsample_bytree": number(above=True, most=1),
    "eta": number(most=1),
    "gamma": number(),
    "huber_slope": number(above=True),
    "interaction_constraints": Parameter(str),
    "lambda": number(),
    "lambda_bias": number(most=1),
    "max_bin": whole(least=2),
    "max_delta_step": number(),
    "max_depth": whole(least=0),
    "max_leaves": whole(least=0),
    "min_child_weight": number(),
    "monotone_constraints": Parameter(str),
    "nthread": whole(),
    "num_parallel_tree": whole(),
    "one_drop": whole(least=0, most=1),
    "rate_drop": number(most=1),
    "refresh_leaf": whole(least=0, most=1),
    "scale_pos_weight": number(above=True),
    "seed": whole(least=None),
    "skip_drop": number(most=1),
    "subsample": number(above=True, most=1),
    "top_k": whole(least=0),
    "tweedie_variance_power": number(1.5, least=1, most=2),
    "verbosity": whole(1, least=0, most=3),
}
WITHOUT_EFFECT = (
    "deterministic_histogram", "dsplit", "predictor", "silent", "single_precision_histogram", "sketch_eps",
)  # fmt: skip

_OWN = (
    "accuracy", "balanced_accuracy", "f1", "f1_binary", "f1_macro", "mse", "precision", "precision_macro", "r2",
    "recall", "recall_macro",
)  # fmt: skip
_LIBRARY = re.compile(
    r"(?:rmse|rmsle|mae|mape|mphe|logloss|error|merror|mlogloss|auc|aucpr|ndcg|map|pre|poisson-nloglik|gamma-nloglik|"
    r"gamma-deviance|tweedie-nloglik|aft-nloglik|cox-nloglik|interval-regression-accuracy)(?:@[0-9.]+-?)?-?"
)


def _measured(names: list[str]) -> Any:
    """Metrics that AWS's image adds to the library's, computed by scikit-learn."""

    def measure(predicted: Any, data: Any) -> list[tuple[str, float]]:
        truth = data.get_label()
        labels = predicted.argmax(axis=1) if predicted.ndim == 2 else predicted
        classes = predicted.ndim == 2 or len(np.unique(truth)) > 2
        if not classes:
            labels = predicted > 0.5
        labels = np.round(labels).astype(int)
        average = "macro" if classes else "binary"
        found = []
        for name in names:
            if name in ("mse", "r2"):
                value = (metrics.mean_squared_error if name == "mse" else metrics.r2_score)(truth, predicted)
            elif name in ("accuracy", "balanced_accuracy"):
                value = getattr(metrics, f"{name}_score")(truth, labels)
            else:
                base, _, how = name.partition("_")
                value = getattr(metrics, f"{base}_score")(truth, labels, average=how or average, zero_division=0)
            found.append((name, float(value)))
        return found

    return measure if names else None


class _Log(xgboost.callback.TrainingCallback):
    """Prints ``[ROUND]#011train-rmse:0.5#011validation-rmse:0.6``, as AWS's log has it; stops when told to."""

    def __init__(self, first: int, checkpoints: Path | None) -> None:
        self._first = first
        self._checkpoints = checkpoints
        self.stopping = False

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """See the library."""
        epoch += self._first
        values = [f"{part}-{name}:{log[-1]:.5f}" for part, every in evals_log.items() for name, log in every.items()]
        say("#011".join([f"[{epoch}]", *values]))
        if self._checkpoints is not None:
            fresh = self._checkpoints / f".new-{os.getpid()}"
            fresh.write_bytes(model.save_raw("ubj"))
            fresh.replace(self._checkpoints / f"xgboost-checkpoint.{epoch}")
            for old in _kept(self._checkpoints)[:-5]:
                old.unlink()
        return self.stopping


def _kept(folder: Path) -> list[Path]:
    found = [one for one in folder.glob("xgboost-checkpoint.*") if one.suffix[1:].isdigit()]
    return sorted(found, key=lambda one: int(one.suffix[1:]))


def _matrix(table: Table, width: int) -> Any:
    if table.labels is None:
        raise Unfit("The records have no labels.")
    data = xgboost.DMatrix(widened(table.features, width), label=table.labels, weight=table.weights)
    if table.groups is not None:
        data.set_info(qid=table.groups)
    return data


def train(job: Job) -> None:
    """Channels: train, and optionally validation, with labels."""
    given = dict(job.given)
    rules = Rules(weights=bool(given["csv_weights"]), default=LIBSVM, formats=FORMATS)
    tables = {"train": job.train(rules)}
    if (validation := job.table("validation", rules)) is not None:
        tables["validation"] = validation
    width = max(one.width for one in tables.values())
    matrices = {name: _matrix(one, width) for name, one in tables.items()}
    if given["objective"] == "reg:linear":
        given["objective"] = "reg:squarederror"
    if given["objective"].startswith("multi:") != ("num_class" in given):
        raise Unfit("num_class belongs to the objectives multi:softmax and multi:softprob, which need it.")
    if given["objective"] != "reg:tweedie":
        given.pop("tweedie_variance_power")
    asked = given.get("eval_metric", [])
    if unknown := [one for one in asked if one not in _OWN and not _LIBRARY.fullmatch(one)]:
        raise Unfit(f"Unknown eval_metric: {', '.join(unknown)}.")
    if "early_stopping_rounds" in given and "validation" not in matrices:
        raise Unfit("early_stopping_rounds needs the channel validation.")
    words = {name: value for name, value in given.items() if name not in _STEERING}
    words.setdefault("nthread", int(os.environ.get("LOKY_MAX_CPU_COUNT", "1")))
    if library := [one for one in asked if one not in _OWN]:
        words["eval_metric"] = library
    elif asked:
        words["disable_default_eval_metric"] = 1
    if given.get("updater"):
        words["updater"] = ",".join(given["updater"])
    folder = job.base / "checkpoints"
    before = _kept(folder)[-1:] if folder.is_dir() else []
    first = int(before[0].suffix[1:]) + 1 if before else 0
    if before:
        say(f"Going on from {before[0].name}.")
    log = _Log(first, folder if folder.is_dir() else None)
    saving = boosting.hook()
    if given["save_model_on_termination"]:
        signal.signal(signal.SIGTERM, lambda *_: setattr(log, "stopping", True))
    try:
        booster = xgboost.train(
            words,
            matrices["train"],
            max(0, given["num_round"] - first),
            evals=[(data, name) for name, data in matrices.items()],
            custom_metric=_measured([one for one in asked if one in _OWN]),
            early_stopping_rounds=given.get("early_stopping_rounds"),
            xgb_model=_booster(before[0]) if before else None,
            verbose_eval=False,
            callbacks=[log, *([boosting.Saving(saving, first)] if saving is not None else [])],
        )
    except (xgboost.core.XGBoostError, ValueError) as error:
        raise Unfit(f"XGBoost: {' '.join(str(error).splitlines()[0:2])[:400]}") from None
    if "early_stopping_rounds" in given:
        booster = booster[: booster.best_iteration + 1]
    job.model.joinpath(FILE).write_bytes(booster.save_raw("ubj"))


def _booster(path: Path) -> Any:
    """From its bytes: the library would judge the format by the file's name."""
    made = xgboost.Booster()
    made.load_model(bytearray(path.read_bytes()))
    return made


class Model:
    """A booster."""

    def __init__(self, booster: Any) -> None:
        self.booster = booster
        booster.set_param({"nthread": int(os.environ.get("LOKY_MAX_CPU_COUNT", "1"))})

    def predict(self, table: Table) -> Any:
        """(records,) or (records, classes). Raises Unfit for records with more features than it was trained with."""
        width = self.booster.num_features()
        if table.width > width:
            raise Unfit(f"the records have {table.width} features, not {width}")
        if table.width < width and not hasattr(table.features, "tocsr"):
            raise Unfit(f"the records have {table.width} features, not {width}")
        return self.booster.predict(xgboost.DMatrix(widened(table.features, width)), validate_features=False)

    def answer(self, table: Table, verbose: bool) -> list[dict[str, Any]]:
        """A score for each record, or one for each class."""
        return [{"score": one} for one in self.predict(table).tolist()]


def load(folder: Path) -> Model:
    """The model that train left, or another file of a booster. Raises RuntimeError where there is none, or several."""
    found = [folder / FILE] if (folder / FILE).is_file() else []
    found = found or sorted(p for p in folder.iterdir() if p.suffix in (".ubj", ".json", ".bin", ".model"))
    if len(found) != 1:
        raise RuntimeError(f"the model has to be the file {FILE}; found: {', '.join(p.name for p in found) or 'none'}")
    return Model(_booster(found[0]))

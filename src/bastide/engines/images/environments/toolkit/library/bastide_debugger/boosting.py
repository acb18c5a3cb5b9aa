"""XGBoost's metrics, losses and feature importances, saved while it trains.

`watch` makes each `xgboost.train` save, the scikit-learn interface's too: a script needs no line of its own. Names and
collections are those of AWS's library: ``train-rmse``, ``feature_importance/weight/f0``.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import xgboost

from bastide_debugger import Hook

COLLECTIONS = ("metrics", "losses")
INTERVAL = 10
_KINDS = ("weight", "gain", "cover", "total_gain", "total_cover")
_GROWS = re.compile(r"(auc|aucpr|map|ndcg|pre|accuracy|balanced_accuracy|f1|precision|recall|r2)\b")
"""Metrics that are better when they are greater, and so no losses."""


class Saving(xgboost.callback.TrainingCallback):  # type: ignore[misc]
    """Saves after each round. first: the number of the first one."""

    def __init__(self, hook: Hook, first: int = 0) -> None:
        self._hook = hook
        self._first = first

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """See the library."""
        step = self._first + epoch
        metrics = {
            f"{part}-{name}": float(log[-1][0] if isinstance(log[-1], tuple) else log[-1])
            for part, every in evals_log.items()
            for name, log in every.items()
        }
        losses = {name: value for name, value in metrics.items() if not _GROWS.match(name.rpartition("-")[2])}
        found: dict[str, dict[str, Any]] = {"metrics": metrics, "losses": losses}
        if self._hook.wants("feature_importance", step):
            found["feature_importance"] = {}
            for kind in _KINDS:
                scores = model.get_score(importance_type=kind)
                total = sum(scores.values()) or 1.0
                found["feature_importance"] |= {
                    f"feature_importance/{kind}/{name}": score / total for name, score in scores.items()
                }
        self._hook.save_all(found, step)
        return False


def hook() -> Hook | None:
    """The job's, with XGBoost's defaults."""
    return Hook.of_job(always=COLLECTIONS, interval=INTERVAL)


def watch() -> None:
    """Has every training of this process saved."""
    train = xgboost.train

    @functools.wraps(train)
    def watched(*given: Any, **named: Any) -> Any:
        found = hook()
        if found is not None:
            named["callbacks"] = [*(named.get("callbacks") or ()), Saving(found)]
        return train(*given, **named)

    xgboost.train = xgboost.training.train = watched
    if hasattr(xgboost, "sklearn"):
        xgboost.sklearn.train = watched

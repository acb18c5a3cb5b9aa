"""Built-in algorithms: what SageMaker's own images do with data and hyperparameters, on scikit-learn and XGBoost.

Runs inside the sandbox on the environment's Python and imports nothing of Bastide. Each algorithm is a module with

* ``PARAMETERS``, its hyperparameters, and ``WITHOUT_EFFECT``, those that AWS documents and that change nothing here;
* ``train(job)``, which reads the job's channels and leaves a model in its folder;
* ``load(folder)``, the model again, with ``answer(table, verbose)``, one mapping for each record.

Models hold numbers and never pickled objects, so loading one runs nothing of whoever made it.
"""

from __future__ import annotations

import importlib
from typing import Any

MODULES = {
    "xgboost": "boosted_trees",
    "linear-learner": "linear_learner",
    "kmeans": "kmeans",
    "pca": "pca",
    "knn": "knn",
    "randomcutforest": "random_cut_forest",
}


class Unfit(Exception):  # noqa: N818 - a word for what the data or the hyperparameters are
    """The job as sent cannot run; the message is for who sent it."""


def module_of(name: str) -> Any:
    """The module of an algorithm."""
    return importlib.import_module(f"{__name__}.{MODULES[name]}")

"""K nearest neighbours, exactly, by scikit-learn's brute force: classification by the majority, regression by the mean.

Source: SageMaker developer guide, "k-NN hyperparameters", "k-NN request and response formats".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from bastide_algorithms import Unfit
from bastide_algorithms.job import Job, keep, kept
from bastide_algorithms.parameters import choice, whole
from bastide_algorithms.tables import Rules, Table

NAME = "knn"
_METRICS = {"L2": "euclidean", "INNER_PRODUCT": "inner", "COSINE": "cosine"}
PARAMETERS = {
    "k": whole(required=True),
    "predictor_type": choice(None, "classifier", "regressor", required=True),
    "sample_size": whole(required=True),
    "feature_dim": whole(),
    "index_metric": choice("L2", *_METRICS),
    # The approximate indexes and the reductions of dimension that AWS has are not there, so their words are not taken.
    "index_type": choice("faiss.Flat", "faiss.Flat"),
}
WITHOUT_EFFECT = ("mini_batch_size",)


def train(job: Job) -> None:
    """Channels: train, and optionally test, with labels. As many records as sample_size says are kept."""
    given = job.given
    table = job.train(Rules())
    x, y = table.dense(), np.asarray(table.labels, np.float64)
    if given["sample_size"] < len(x):
        chosen = np.sort(np.random.default_rng(0).choice(len(x), given["sample_size"], replace=False))
        x, y = x[chosen], y[chosen]
    if given["k"] > len(x):
        raise Unfit(f"k is {given['k']}, and there are {len(x)} records.")
    told = {
        "algorithm": NAME,
        "k": given["k"],
        "predictor_type": given["predictor_type"],
        "metric": given["index_metric"],
    }
    keep(job.model, told, x=x, y=y)
    model = Model(told, {"x": x, "y": y})
    parts = {"train": (x, y)}
    if (test := job.table("test", Rules())) is not None:
        if test.labels is None:
            raise Unfit("The records of the channel test have no labels.")
        parts["test"] = (test.dense(x.shape[1]), np.asarray(test.labels, np.float64))
    for name, (features, labels) in parts.items():
        found, _, _ = model.predict(features)
        if given["predictor_type"] == "classifier":
            job.quality(name, "accuracy", float(np.mean(found == labels)), "score")
        else:
            job.quality(name, "mse", float(np.mean((found - labels) ** 2)))


class Model:
    """The records, looked through for each request."""

    def __init__(self, told: dict[str, Any], numbers: dict[str, Any]) -> None:
        self._told, self._x, self._y = told, numbers["x"], numbers["y"]
        metric = _METRICS[told["metric"]]
        self._index = None
        if metric != "inner":
            self._index = NearestNeighbors(n_neighbors=told["k"], algorithm="brute", metric=metric).fit(self._x)

    def predict(self, x: Any) -> tuple[Any, Any, Any]:
        """Labels, and of each record its neighbours' labels and distances, the nearest first."""
        if self._index is not None:
            distances, near = self._index.kneighbors(x)
        else:
            products = x @ self._x.T
            near = np.argsort(-products, axis=1, kind="stable")[:, : self._told["k"]]
            distances = np.take_along_axis(products, near, axis=1)
        labels = self._y[near]
        if self._told["predictor_type"] == "regressor":
            return labels.mean(axis=1), labels, distances
        classes, places = np.unique(self._y, return_inverse=True)
        counts = np.zeros((len(x), len(classes)), int)
        for column in places[near].T:
            counts[np.arange(len(x)), column] += 1
        return classes[counts.argmax(axis=1)], labels, distances

    def answer(self, table: Table, verbose: bool) -> list[dict[str, Any]]:
        """See "k-NN request and response formats"; with ``verbose=true`` in Accept also the neighbours."""
        found, labels, distances = self.predict(table.dense(self._x.shape[1]))
        more = zip(found, labels, distances, strict=True)
        if not verbose:
            return [{"predicted_label": float(one)} for one, _, _ in more]
        return [
            {"predicted_label": float(one), "distances": apart.tolist(), "labels": near.tolist()}
            for one, near, apart in more
        ]


def load(folder: Path) -> Model:
    """The model that train left."""
    return Model(*kept(folder, NAME))

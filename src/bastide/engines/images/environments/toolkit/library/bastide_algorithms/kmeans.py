"""K-means, by scikit-learn's: Lloyd's algorithm from k-means++ or random centres, the best of some trials.

AWS's looks at the data once, in batches, with more centres than wanted, and shrinks them by Lloyd's algorithm at the end.
Here Lloyd's algorithm has all the data, so what steers the passes and batches is without effect.

Source: SageMaker developer guide, "K-Means hyperparameters", "K-Means response formats".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import KMeans

from bastide_algorithms import Unfit
from bastide_algorithms.job import Job, keep, kept
from bastide_algorithms.parameters import choice, number, whole
from bastide_algorithms.tables import Rules, Table

NAME = "kmeans"
PARAMETERS = {
    "k": whole(required=True, least=1),
    "feature_dim": whole(),
    "local_lloyd_init_method": choice("kmeans++", "random", "kmeans++"),
    "local_lloyd_max_iter": whole(300),
    "local_lloyd_num_trials": whole(10, auto=10),
    "local_lloyd_tol": number(1e-4, most=1.0),
}
WITHOUT_EFFECT = (
    "epochs",
    "eval_metrics",
    "extra_center_factor",
    "force_dense",
    "half_life_time_size",
    "init_method",
    "mini_batch_size",
)
_SEED = 0


def train(job: Job) -> None:
    """Channels: train, and optionally test, without labels."""
    given, rules = job.given, Rules()
    x = job.train(Rules(), labelled=False).dense()
    if len(x) < given["k"]:
        raise Unfit(f"{len(x)} records cannot be parted into k={given['k']} clusters.")
    found = KMeans(
        given["k"],
        init="random" if given["local_lloyd_init_method"] == "random" else "k-means++",
        n_init=given["local_lloyd_num_trials"],
        max_iter=given["local_lloyd_max_iter"],
        tol=given["local_lloyd_tol"],
        random_state=_SEED,
    ).fit(x)
    job.quality("train", "msd", found.inertia_ / len(x))
    test = job.table("test", rules)
    if test is not None:
        _, distances = nearest(test.dense(x.shape[1]), found.cluster_centers_)
        job.quality("test", "msd", float(np.mean(distances**2)))
        job.quality("test", "ssd", float(np.sum(distances**2)))
    keep(job.model, {"algorithm": NAME}, centers=found.cluster_centers_)


def nearest(x: Any, centers: Any) -> tuple[Any, Any]:
    """Which centre each record is nearest to, and how far."""
    labels, distances = np.empty(len(x), int), np.empty(len(x))
    for at in range(0, len(x), 1024):
        apart = np.sqrt(((x[at : at + 1024, None, :] - centers[None, :, :]) ** 2).sum(axis=2))
        labels[at : at + 1024] = apart.argmin(axis=1)
        distances[at : at + 1024] = apart.min(axis=1)
    return labels, distances


class Model:
    """The clusters' centres."""

    def __init__(self, centers: Any) -> None:
        self.centers = centers

    def answer(self, table: Table, verbose: bool) -> list[dict[str, Any]]:
        """See "K-Means response formats"."""
        labels, distances = nearest(table.dense(self.centers.shape[1]), self.centers)
        return [
            {"closest_cluster": float(label), "distance_to_cluster": float(distance)}
            for label, distance in zip(labels, distances, strict=True)
        ]


def load(folder: Path) -> Model:
    """The model that train left."""
    return Model(kept(folder, NAME)[1]["centers"])

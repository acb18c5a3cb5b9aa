"""Principal components, by scikit-learn's: the mode "regular" by the exact decomposition, "randomized" by a random one.

Components are ordered by what they explain, the largest last, as AWS's are.

Source: SageMaker developer guide, "PCA hyperparameters", "PCA response formats".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from bastide_algorithms import Unfit
from bastide_algorithms.job import Job, keep, kept
from bastide_algorithms.parameters import choice, switch, whole
from bastide_algorithms.tables import Rules, Table

NAME = "pca"
PARAMETERS = {
    "num_components": whole(required=True),
    "feature_dim": whole(),
    "algorithm_mode": choice("regular", "regular", "randomized"),
    "subtract_mean": switch(True),
    "extra_components": whole(-1, least=-1),
}
WITHOUT_EFFECT = ("mini_batch_size",)


def train(job: Job) -> None:
    """Channels: train, and optionally test, without labels."""
    given = job.given
    x = job.train(Rules(), labelled=False).dense()
    count = given["num_components"]
    if count > min(x.shape):
        raise Unfit(
            f"num_components is {count}, and {x.shape[0]} records of {x.shape[1]} features have {min(x.shape)}."
        )
    if not given["subtract_mean"]:
        _, spread, rows = np.linalg.svd(x, full_matrices=False)
        mean, components, explained = np.zeros(x.shape[1]), rows[:count], spread**2 / np.sum(spread**2)
        spread, explained = spread[:count], explained[:count]
    else:
        extra = given["extra_components"]
        randomly = {
            "svd_solver": "randomized",
            "random_state": 0,
            "n_oversamples": max(10, count) if extra == -1 else extra,
        }
        found = PCA(count, **(randomly if given["algorithm_mode"] == "randomized" else {"svd_solver": "full"})).fit(x)
        mean, components, spread = found.mean_, found.components_, found.singular_values_
        explained = found.explained_variance_ratio_
    job.quality("train", "explained_variance_ratio", float(np.sum(explained)), "score")
    keep(job.model, {"algorithm": NAME}, mean=mean, components=components[::-1], singular_values=spread[::-1])
    if (test := job.table("test", Rules())) is not None:
        data = test.dense(x.shape[1]) - mean
        share = np.sum((data @ components.T) ** 2) / (np.sum(data**2) or 1.0)
        job.quality("test", "explained_variance_ratio", float(share), "score")


class Model:
    """Mean and components."""

    def __init__(self, numbers: dict[str, Any]) -> None:
        self.mean, self.components = numbers["mean"], numbers["components"]

    def answer(self, table: Table, verbose: bool) -> list[dict[str, Any]]:
        """See "PCA response formats"."""
        found = (table.dense(len(self.mean)) - self.mean) @ self.components.T
        return [{"projection": one.tolist()} for one in found]


def load(folder: Path) -> Model:
    """The model that train left."""
    return Model(kept(folder, NAME)[1])

"""Random cut forest: how much a record would change random trees of samples, which says how odd it is.

A tree parts its sample at a random place of a random feature, chosen in proportion to the features' ranges. The score of
a record is the expectation, over the cuts that would set it apart, of ``1 / (1 + depth)``, times the logarithm of the
sample's size, so that scores of different sizes compare; about 1 is usual. No kept library has it with a wheel, so it is
here, on NumPy.

Sources: Guha, Mishra, Roy, Schrijvers: Robust Random Cut Forest Based Anomaly Detection on Streams, ICML 2016 (the cuts and
what sets a point apart, section 2); SageMaker developer guide, "How RCF works", "RCF hyperparameters", "RCF response
formats".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bastide_algorithms import Unfit
from bastide_algorithms.job import Job, keep, kept
from bastide_algorithms.parameters import whole
from bastide_algorithms.tables import Rules, Table

NAME = "randomcutforest"
PARAMETERS = {
    "feature_dim": whole(required=True),
    "num_trees": whole(100, least=50, most=1000),
    "num_samples_per_tree": whole(256, least=1, most=2048),
}
WITHOUT_EFFECT = ("eval_metrics", "mini_batch_size")
_SEED = 0


class Tree:
    """Nodes by number, the root 0: children (-1 of a leaf), dimension and place of the cut, box, how many records."""

    def __init__(self, x: Any, random: np.random.Generator) -> None:
        """x: (records, features)."""
        children: list[list[int]] = []
        cuts: list[tuple[int, float]] = []
        boxes: list[tuple[Any, Any]] = []
        mass: list[int] = []
        waiting = [(np.arange(len(x)), -1, 0)]
        while waiting:
            rows, parent, side = waiting.pop()
            here = x[rows]
            low, high = here.min(axis=0), here.max(axis=0)
            number = len(mass)
            if parent >= 0:
                children[parent][side] = number
            children.append([-1, -1])
            boxes.append((low, high))
            mass.append(len(rows))
            ranges = high - low
            reach = np.cumsum(ranges)
            if not reach[-1] > 0:
                cuts.append((0, 0.0))
                continue
            at = random.uniform(0, reach[-1])
            dimension = min(int(np.searchsorted(reach, at, side="right")), len(ranges) - 1)
            while not ranges[dimension] > 0:
                dimension -= 1
            place = low[dimension] + random.uniform(0, 1) * ranges[dimension]
            left = here[:, dimension] <= place
            if left.all():  # rounding put the cut onto the highest record
                place = np.nextafter(high[dimension], -np.inf)
                left = here[:, dimension] <= place
            cuts.append((dimension, float(place)))
            waiting += [(rows[left], number, 0), (rows[~left], number, 1)]
        self.children = np.array(children)
        self.dimension = np.array([one for one, _ in cuts])
        self.place = np.array([one for _, one in cuts])
        self.low = np.stack([one for one, _ in boxes])
        self.high = np.stack([one for _, one in boxes])
        self.mass = np.array(mass)

    FIELDS = ("children", "dimension", "place", "low", "high", "mass")

    @classmethod
    def of(cls, numbers: dict[str, Any]) -> Tree:
        """A tree of its arrays."""
        made = cls.__new__(cls)
        for name in cls.FIELDS:
            setattr(made, name, numbers[name])
        return made

    def scores(self, x: Any) -> Any:
        """Of each record of x."""
        found = np.zeros(len(x))
        waiting = [(0, np.arange(len(x)), np.ones(len(x)), 0)]
        while waiting:
            node, rows, chance, depth = waiting.pop()
            here, low, high = x[rows], self.low[node], self.high[node]
            beyond = (np.maximum(low - here, 0) + np.maximum(here - high, 0)).sum(axis=1)
            whole_range = beyond + (high - low).sum()
            apart = np.divide(beyond, whole_range, out=np.zeros(len(rows)), where=whole_range > 0)
            found[rows] += chance * apart / (depth + 1)
            left, right = self.children[node]
            chance = chance * (1 - apart)
            if left < 0:
                found[rows] += chance / (depth + np.log2(self.mass[node] + 1))
                continue
            goes = here[:, self.dimension[node]] <= self.place[node]
            for child, chosen in ((left, goes), (right, ~goes)):
                going = chosen & (chance > 0)
                if going.any():
                    waiting.append((int(child), rows[going], chance[going], depth + 1))
        return found * np.log2(self.mass[0] + 1)


class Model:
    """A forest."""

    def __init__(self, trees: list[Tree], cutoff: float = np.inf) -> None:
        self.trees, self.cutoff = trees, cutoff

    @property
    def width(self) -> int:
        """How many features."""
        return int(self.trees[0].low.shape[1])

    def scores(self, x: Any) -> Any:
        """The mean of the trees' scores."""
        return np.mean([tree.scores(x) for tree in self.trees], axis=0)

    def answer(self, table: Table, verbose: bool) -> list[dict[str, Any]]:
        """See "RCF response formats"."""
        return [{"score": float(one)} for one in self.scores(table.dense(self.width))]


def train(job: Job) -> None:
    """Channels: train without labels, and optionally test with labels, 1 for what is odd."""
    given = job.given
    x = job.train(Rules(), labelled=False).dense()
    size = min(given["num_samples_per_tree"], len(x))
    random = np.random.default_rng(_SEED)
    trees = [Tree(x[np.sort(random.choice(len(x), size, replace=False))], random) for _ in range(given["num_trees"])]
    model = Model(trees)
    sample = x if len(x) <= 2048 else x[np.sort(random.choice(len(x), 2048, replace=False))]
    usual = model.scores(sample)
    model.cutoff = float(usual.mean() + 3 * usual.std())
    if (test := job.table("test", Rules())) is not None:
        if test.labels is None or not np.isin(test.labels, (0, 1)).all():
            raise Unfit("The records of the channel test are labelled 0 or 1.")
        odd, truth = model.scores(test.dense(x.shape[1])) > model.cutoff, test.labels == 1
        hits = float(np.sum(odd & truth))
        precision, recall = hits / max(odd.sum(), 1), hits / max(truth.sum(), 1)
        job.quality("test", "accuracy", float(np.mean(odd == truth)), "score")
        job.quality("test", "precision", precision, "score")
        job.quality("test", "recall", recall, "score")
        job.quality("test", "f1", 2 * precision * recall / (precision + recall) if hits else 0.0, "score")
    arrays = {f"{name}_{number}": getattr(tree, name) for number, tree in enumerate(trees) for name in Tree.FIELDS}
    keep(job.model, {"algorithm": NAME, "trees": len(trees), "cutoff": model.cutoff}, **arrays)


def load(folder: Path) -> Model:
    """The model that train left."""
    told, arrays = kept(folder, NAME)
    trees = [
        Tree.of({name: arrays[f"{name}_{number}"] for name in Tree.FIELDS}) for number in range(int(told["trees"]))
    ]
    return Model(trees, float(told["cutoff"]))

"""Runs on an environment's Python, not on the tests': what is counted beside the libraries that count the same.

python inside.py LIBRARY FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])

import numpy as np
import pandas as pd
from bastide_clarify import analysis, bias, table
from bastide_monitor import constraints, quality, records
from scipy import stats
from sklearn import metrics, neighbors

CHANCE = np.random.default_rng(3)


def model_quality() -> None:
    """The metrics are scikit-learn's."""
    for count in (1, 2, 50, 700):
        truth = CHANCE.integers(0, 2, count)
        score = np.round(np.clip(truth * 0.3 + CHANCE.uniform(0, 0.7, count), 0, 1), 2)
        guess = (score > 0.5).astype(int)
        found = quality.binary(truth, guess, score)
        pair = truth, guess
        expected = {
            "recall": metrics.recall_score(*pair, zero_division=0),
            "precision": metrics.precision_score(*pair, zero_division=0),
            "accuracy": metrics.accuracy_score(*pair),
            "f0_5": metrics.fbeta_score(*pair, beta=0.5, zero_division=0),
            "f1": metrics.f1_score(*pair, zero_division=0),
            "f2": metrics.fbeta_score(*pair, beta=2, zero_division=0),
        }
        if len(set(truth)) == 2:
            expected["auc"] = metrics.roc_auc_score(truth, score)
            drawn = quality.curves(truth, score)
            fpr, tpr, _ = metrics.roc_curve(truth, score, drop_intermediate=False)
            roc = drawn["receiver_operating_characteristic_curve"]
            assert np.allclose(roc["false_positive_rates"], fpr) and np.allclose(roc["true_positive_rates"], tpr)
            precision, recall, _ = metrics.precision_recall_curve(truth, score)
            both = drawn["precision_recall_curve"]
            assert np.allclose(both["precisions"][::-1], precision) and np.allclose(both["recalls"][::-1], recall)
        for name, value in expected.items():
            assert np.isclose(found[name], value), (count, name)
        assert quality.confusion(*pair, 2).tolist() == metrics.confusion_matrix(*pair, labels=[0, 1]).tolist()
        truth = CHANCE.integers(0, 5, count)
        guess = np.where(CHANCE.uniform(size=count) < 0.6, truth, CHANCE.integers(0, 5, count))
        found = quality.multiclass(truth, guess, 5)
        pair = truth, guess
        often = np.full_like(truth, np.bincount(truth, minlength=5).argmax())
        for name, beta in (("f0_5", 0.5), ("f1", 1), ("f2", 2)):
            value = metrics.fbeta_score(*pair, beta=beta, average="weighted", zero_division=0)
            assert np.isclose(found[f"weighted_{name}"], value), (count, name)
            value = metrics.fbeta_score(truth, often, beta=beta, average="weighted", zero_division=0)
            assert np.isclose(found[f"weighted_{name}_best_constant_classifier"], value), (count, name)
        value = metrics.precision_score(*pair, average="weighted", zero_division=0)
        assert np.isclose(found["weighted_precision"], value)
        assert np.isclose(found["accuracy"], found["weighted_recall"])
        truth, guess = CHANCE.normal(5, 9, count), CHANCE.normal(5, 9, count)
        found = quality.regression(truth, guess)
        assert np.isclose(found["mae"], metrics.mean_absolute_error(truth, guess))
        assert np.isclose(found["rmse"], metrics.root_mean_squared_error(truth, guess))
        if count > 1:
            assert np.isclose(found["r2"], metrics.r2_score(truth, guess))


def drift() -> None:
    """The test of distributions is SciPy's."""
    for here in ({"a": 400, "b": 300, "c": 300}, {"a": 40, "b": 10, "c": 5}, {"a": 7, "b": 0, "c": 9}):
        there = {"a": 500, "b": 250, "c": 250}
        total = sum(here.values())
        wanted = stats.chisquare([here[one] for one in "abc"], [there[one] / 1000 * total for one in "abc"]).pvalue
        if min(there.values()) / 1000 * total >= 5:
            assert np.isclose(constraints.chi_squared(here, there), wanted)
    assert constraints.chi_squared({"new": 1}, {"a": 5}) == 0.0
    assert constraints.chi_squared({"a": 50, "b": 50}, {"a": 5000, "b": 5000}) == 1.0
    one, other = CHANCE.normal(0, 1, 1500), CHANCE.normal(0.3, 1, 900)
    a, b = constraints.Sketch(), constraints.Sketch()
    a.add(one)
    b.add(other)
    far, here, there = constraints.distance(a, b)
    assert (here, there) == (1500, 900) and np.isclose(far, stats.ks_2samp(one, other).statistic)


def parquet(folder: Path) -> None:
    """Columns of Parquet."""
    frame = pd.DataFrame({"n": [1, 2, 3], "t": ["x", None, "z"], "at": pd.to_datetime(["2026-01-01"] * 3)})
    frame.to_parquet(folder / "a.parquet")
    (parts, count), *rest = records.Dataset(folder, {"parquet": {}}).pieces()
    assert (count, rest, list(parts)) == (3, [], ["n", "t", "at"])
    assert parts["n"] == [1, 2, 3] and parts["t"] == ["x", None, "z"] and parts["at"][0].startswith("2026-01-01")
    (folder / "b.parquet").write_bytes(b"PAR1 and no more")
    try:
        list(records.Dataset(folder, {"parquet": {}}).pieces())
    except records.Unfit as unfit:
        assert "b.parquet" in str(unfit)
    else:
        raise AssertionError("a broken file was read")


def flips() -> None:
    """The flip test asks scikit-learn's neighbours; a baseline is made of k-means."""
    for count in (8, 60, 300):
        x = CHANCE.normal(size=(count, 3))
        d = CHANCE.uniform(size=count) < 0.4
        d[:2] = True, False
        guess = x[:, 0] + d > 0.5
        nearest = neighbors.KNeighborsClassifier(5 if (~d).sum() > 9 else 1).fit(x[~d], guess[~d])
        elsewhere = nearest.predict(x[d])
        wanted = ((guess[d] & ~elsewhere).sum() - (~guess[d] & elsewhere).sum()) / d.sum()
        of = bias.Groups(d, guess, guess, rest=lambda x=x: x)
        assert np.isclose(bias.measured(of, ["FT"], bias.POST)[0]["value"], wanted)
    rows = [
        [str(a), b] for a, b in zip(np.r_[CHANCE.normal(0, 1, 50), CHANCE.normal(99, 1, 50)], "xy" * 50, strict=True)
    ]
    data = table.named([[*row, "z" if float(row[0]) > 50 else "w"] for row in rows], ["a", "b", "c"])
    found = analysis.Analysis({"methods": {}}, data, lambda told: None)._clustered(2, ["a", "b", "c"], 0)
    assert sorted(row[2] for row in found) == ["w", "z"] and sorted(round(row[0] / 99) for row in found) == [0, 1]


model_quality()
flips()
drift()
parquet(Path(sys.argv[2]))
print(json.dumps({"done": True}))

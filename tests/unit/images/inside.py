"""Runs on an environment's Python, not on the tests': the built-in algorithms beside the libraries, and hostile data.

    python inside.py LIBRARY FOLDER

Prints what it has done as JSON; an assertion that fails ends it.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])

import numpy as np
import pandas as pd
import xgboost
from bastide_algorithms import Unfit, recordio, serving, tables
from bastide_algorithms.job import run
from sklearn.datasets import dump_svmlight_file, load_breast_cancer
from sklearn.metrics import fbeta_score, precision_recall_curve, precision_score, recall_score

BASE = Path(sys.argv[2])
X, Y = load_breast_cancer(return_X_y=True)
WORDS = {"objective": "binary:logistic", "seed": "3", "subsample": "0.8", "max_depth": "3"}


def job(algorithm: str, words: dict[str, str], kind: str, checkpoints: Path | None = None, **parts: bytes) -> Any:
    """The model served; raises Unfit with the reason that the job left."""
    shutil.rmtree(BASE, ignore_errors=True)
    config = BASE / "input" / "config"
    config.mkdir(parents=True)
    (config / "hyperparameters.json").write_text(json.dumps(words))
    (config / "inputdataconfig.json").write_text(json.dumps({name: {"ContentType": kind} for name in parts}))
    for name, content in parts.items():
        (BASE / "input" / "data" / name).mkdir(parents=True)
        (BASE / "input" / "data" / name / "part").write_bytes(content)
    if checkpoints is not None:
        (BASE / "checkpoints").symlink_to(checkpoints)
    if run(algorithm, BASE):
        raise Unfit((BASE / "output" / "failure").read_text())
    return serving.Served(algorithm, BASE / "model")


def text(x: Any) -> bytes:
    """CSV."""
    return "".join(",".join(repr(float(one)) for one in row) + "\n" for row in np.atleast_2d(x)).encode()


def scores(served: Any, body: bytes, kind: str) -> list[float]:
    """What it says in JSON."""
    told, _ = served.invoke(body, kind, "application/json")
    return [one["score"] for one in json.loads(told)["predictions"]]


def refused(status: int, function: Any, *given: Any) -> None:
    """The request is refused so."""
    try:
        function(*given)
    except serving.Refused as error:
        assert error.status == status, error
    else:
        raise AssertionError(f"not refused: {given[1:]}")


def formats() -> None:
    """The same data in each format is the same model, and the library's own."""
    words = {name: int(value) if value.isdigit() else value for name, value in WORDS.items() if name != "subsample"}
    plain = xgboost.train({**words, "subsample": 0.8}, xgboost.DMatrix(X, label=Y), 5)
    expected = plain.predict(xgboost.DMatrix(X)).tolist()
    svm, parquet = io.BytesIO(), io.BytesIO()
    dump_svmlight_file(X, Y, svm)
    pd.DataFrame(np.column_stack([Y, X])).rename(columns=str).to_parquet(parquet)
    framed = b"".join(recordio.write({"values": x}, {"values": [y]}) for x, y in zip(X, Y, strict=True))
    words = {**WORDS, "num_round": "5"}
    labelled = text(np.column_stack([Y, X]))
    for kind, data in (
        ("text/csv", labelled),
        ("application/x-recordio-protobuf", framed),
        ("parquet", parquet.getvalue()),
    ):
        served = job("xgboost", words, kind, train=data)
        assert scores(served, text(X), "text/csv") == expected, kind
    # What is zero is missing in sparse data, so this is another model; it answers its own data as the library does.
    served = job("xgboost", words, "text/libsvm", train=svm.getvalue())
    matrix = tables.parse(svm.getvalue(), "text/libsvm", tables.Rules(formats=(tables.LIBSVM,))).features
    plain = xgboost.train({**WORDS, "max_depth": 3, "seed": 3}, xgboost.DMatrix(matrix, label=Y), 5)
    assert scores(served, svm.getvalue(), "text/libsvm") == plain.predict(xgboost.DMatrix(matrix)).tolist()
    refused(415, served.invoke, b"x", "image/png", "")
    refused(406, served.invoke, text(X[:1]), "text/csv", "image/png")
    refused(400, served.invoke, b"a,b\n", "text/csv", "")
    refused(400, served.invoke, text(np.ones(99)), "text/csv", "")
    instances = {"instances": [{"features": X[0].tolist()}, {"data": {"features": {"values": X[1].tolist()}}}]}
    sparse = {"keys": list(range(30)), "shape": [30], "values": X[2].tolist()}
    instances["instances"].append({"data": {"features": sparse}})
    lines = "\n".join(json.dumps({"features": x.tolist()}) for x in X[:3]).encode()
    asked = json.dumps(instances).encode()
    assert scores(served, asked, "application/json") == scores(served, lines, "application/jsonlines")
    told, _ = served.invoke(text(X[:2]), "text/csv", "application/x-recordio-protobuf")
    read = [float(one.label["score"].values[0]) for one in recordio.read(told)]
    assert np.allclose(read, scores(served, text(X[:2]), "text/csv"))


def checkpoints() -> None:
    """A job that goes on from its checkpoint ends with the same model as one that was never interrupted."""
    words = {**WORDS, "subsample": "1", "num_round": "6"}
    data = text(np.column_stack([Y, X]))
    whole = scores(job("xgboost", words, "text/csv", train=data), text(X[:9]), "text/csv")
    kept = BASE.with_name("kept")
    kept.mkdir()
    job("xgboost", {**words, "num_round": "4"}, "text/csv", kept, train=data)
    assert sorted(one.name for one in kept.iterdir()) == [f"xgboost-checkpoint.{number}" for number in range(4)]
    assert scores(job("xgboost", words, "text/csv", kept, train=data), text(X[:9]), "text/csv") == whole
    assert len(list(kept.iterdir())) == 5


def hyperparameters() -> None:
    """Weights count, training stops early, thresholds follow the criterion; what does not fit is told."""
    weights = np.where(Y == 1, 5.0, 1.0)
    weighted = text(np.column_stack([Y, weights, X]))
    found = scores(
        job("xgboost", {**WORDS, "num_round": "4", "csv_weights": "1"}, "text/csv", train=weighted), text(X), "text/csv"
    )
    plain = xgboost.train({**WORDS, "max_depth": 3, "seed": 3}, xgboost.DMatrix(X, label=Y, weight=weights), 4)
    assert found == plain.predict(xgboost.DMatrix(X)).tolist()
    halves = {"train": text(np.column_stack([Y, X])[:300]), "validation": text(np.column_stack([Y, X])[300:])}
    early = {**WORDS, "num_round": "400", "early_stopping_rounds": "5", "eval_metric": "logloss"}
    served = job("xgboost", early, "text/csv", **halves)
    assert served._model.booster.num_boosted_rounds() < 300
    criterion = "binary_classifier_model_selection_criteria"
    learner = {
        "predictor_type": "binary_classifier",
        criterion: "recall_at_target_precision",
        "target_precision": "0.999",
    }
    served = job("linear-learner", learner, "text/csv", train=text(np.column_stack([Y, X])))
    answers = json.loads(served.invoke(text(X), "text/csv", "")[0])["predictions"]
    labels = [one["predicted_label"] for one in answers]
    precision, recall, _ = precision_recall_curve(Y, [one["score"] for one in answers])
    assert precision_score(Y, labels) >= 0.999 and recall_score(Y, labels) == recall[precision >= 0.999].max()
    scored = {}
    for rule in ("accuracy", "f_beta", "loss_function"):
        learner[criterion] = rule
        served = job("linear-learner", {**learner, "f_beta": "2"}, "text/csv", train=text(np.column_stack([Y, X])))
        answers = json.loads(served.invoke(text(X), "text/csv", "")[0])["predictions"]
        scored[rule] = fbeta_score(Y, [one["predicted_label"] for one in answers], beta=2)
    assert scored["f_beta"] == max(scored.values())
    for algorithm, words, why in (
        ("xgboost", {**WORDS, "num_round": "0"}, "not in its range"),
        ("xgboost", {**WORDS, "num_round": "2", "eval_metric": "beauty"}, "Unknown eval_metric"),
        ("xgboost", {"num_round": "2", "objective": "multi:softmax"}, "num_class"),
        ("xgboost", {"num_round": "2", "tree_method": "gpu_hist"}, "not one of"),
        ("xgboost", WORDS, "num_round is required"),
        ("kmeans", {"k": "1000"}, "cannot be parted"),
        ("pca", {"num_components": "99"}, "num_components is 99"),
        (
            "knn",
            {"k": "2", "predictor_type": "classifier", "sample_size": "9", "index_type": "faiss.IVFPQ"},
            "not one of",
        ),
        ("linear-learner", {"predictor_type": "regressor", "loss": "logistic"}, "has the losses"),
        ("linear-learner", {"predictor_type": "regressor", "feature_dim": "7"}, "feature_dim is 7"),
    ):
        try:
            job(algorithm, words, "text/csv", train=text(np.column_stack([Y, X])))
        except Unfit as unfit:
            assert why in str(unfit), unfit
        else:
            raise AssertionError(f"{algorithm} took {words}")


def oddities() -> None:
    """What lies apart scores highest, wherever it lies, and duplicates do no harm."""
    chance = np.random.default_rng(5)
    usual = np.vstack([chance.normal(size=(300, 3)), np.zeros((40, 3))])
    odd = np.array([[9.0, 0, 0], [0, -9.0, 0], [5.0, 5.0, 5.0]])
    words = {"feature_dim": "3", "num_trees": "60", "num_samples_per_tree": "128"}
    served = job("randomcutforest", words, "text/csv;label_size=0", train=text(np.vstack([usual, odd])))
    told, kind = served.invoke(text(np.vstack([usual, odd])), "text/csv", "application/json")
    found = np.array([one["score"] for one in json.loads(told)["scores"]])
    assert kind == "application/json" and found[-3:].min() > found[:-3].max() and (found > 0).all()
    alone, _ = served.invoke(text(odd[:1]), "text/csv", "text/csv")
    assert float(alone) == found[-3]  # a record's score does not depend on the others of the request
    whole = {"feature_dim": "3", "num_trees": "50"}
    same = job("randomcutforest", whole, "text/csv;label_size=0", train=text(np.ones((5, 3))))
    assert same.invoke(text(np.ones(3)), "text/csv", "text/csv")[0]


def hostile(rounds: int) -> int:
    """Whatever is sent, reading it ends or is refused."""
    chance = random.Random(1)
    svm = io.BytesIO()
    dump_svmlight_file(X[:3], Y[:3], svm)
    seeds = {
        "text/csv": text(X[:3]),
        "text/libsvm": svm.getvalue(),
        "application/x-recordio-protobuf": recordio.write({"values": X[0]}, {"values": [1]}) * 2,
        "application/json": json.dumps({"instances": [{"features": X[0].tolist()}]}).encode(),
        "application/jsonlines": json.dumps({"features": X[0].tolist()}).encode(),
    }
    rules = tables.Rules(labels=False, formats=tuple(seeds))
    refusals = 0
    for number in range(rounds):
        kind = sorted(seeds)[number % len(seeds)]
        data = bytearray(seeds[kind])
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(data))
            data[at : at + chance.randrange(3)] = bytes(
                chance.choices(b'0129e-.:,;[]{}"\n\x00\xff', k=chance.randrange(4))
            )
        try:
            tables.parse(bytes(data), kind, rules)
        except Unfit:
            refusals += 1
    return refusals


formats()
checkpoints()
hyperparameters()
oddities()
print(json.dumps({"refused": hostile(1500)}))

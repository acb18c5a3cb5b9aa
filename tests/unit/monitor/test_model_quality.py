"""Model quality and the ground truth merged to it. The metrics themselves are held against scikit-learn in inside.py."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bastide.engines.images import place_of
from tests.unit.monitor.analyzer import TOOLKIT, analyse, done, written

BINARY = {
    "analysis_type": "MODEL_QUALITY",
    "problem_type": "BinaryClassification",
    "ground_truth_attribute": "label",
    "inference_attribute": "prediction",
    "probability_attribute": "probability",
}


def test_the_metrics_are_the_libraries(tmp_path: Path) -> None:
    python = place_of("xgboost") / "environment" / "bin" / "python3"
    inside = Path(__file__).with_name("inside.py")
    ended = subprocess.run([python, inside, TOOLKIT / "library", tmp_path], capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()


def table(count: int, seed: int = 1, better: float = 0.3) -> str:
    """Truths and predictions of two classes."""
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, 2, count)
    score = np.clip(truth * better + chance.uniform(0, 1 - better, count), 0, 1)
    rows = "".join(f"{p!r},{int(p > 0.5)},{t}\n" for p, t in zip(score.tolist(), truth.tolist(), strict=True))
    return f"probability,prediction,label\n{rows}"


def test_aws_own_example(tmp_path: Path) -> None:
    """The four records behind the numbers of the developer guide."""
    text = "probability,prediction,label\n0.9,1,1\n0.8,1,0\n0.7,1,0\n0.1,0,0\n"
    found = analyse(tmp_path, "csv", text, **BINARY)
    told = found.reports["statistics.json"]["binary_classification_metrics"]
    assert told["confusion_matrix"] == {"0": {"0": 1, "1": 2}, "1": {"0": 0, "1": 1}}
    expected = {
        "recall": 1.0,
        "precision": 1 / 3,
        "accuracy": 0.5,
        "recall_best_constant_classifier": 1.0,
        "precision_best_constant_classifier": 0.25,
        "accuracy_best_constant_classifier": 0.25,
        "true_positive_rate": 1.0,
        "true_negative_rate": 1 / 3,
        "false_positive_rate": 2 / 3,
        "false_negative_rate": 0.0,
        "auc": 1.0,
        "f0_5": 5 / 13,
        "f1": 0.5,
        "f2": 5 / 7,
        "f0_5_best_constant_classifier": 5 / 17,
        "f1_best_constant_classifier": 0.4,
        "f2_best_constant_classifier": 0.625,
    }
    assert set(told) == {
        *expected,
        "confusion_matrix",
        "receiver_operating_characteristic_curve",
        "precision_recall_curve",
    }
    for name, value in expected.items():
        assert math.isclose(told[name]["value"], value) and told[name]["standard_deviation"] == "NaN"
    limits = found.reports["constraints.json"]["binary_classification_constraints"]
    assert limits["recall"] == {"threshold": 1.0, "comparison_operator": "LessThanThreshold"}
    assert limits["false_positive_rate"]["comparison_operator"] == "GreaterThanThreshold"
    assert not [one for one in limits if one.endswith("_best_constant_classifier")]


def test_a_worse_model_is_found(tmp_path: Path) -> None:
    base = analyse(tmp_path / "base", "csv", table(600), **BINARY)
    limits = base.reports["constraints.json"]
    spread = base.reports["statistics.json"]["binary_classification_metrics"]["f1"]["standard_deviation"]
    assert 0 < spread < 0.1
    where = {"publish_cloudwatch_metrics": "Enabled", "sagemaker_endpoint_name": "e", **BINARY}
    same = analyse(tmp_path / "same", "csv", table(600), baseline=(limits, None), **where)
    assert same.message == "Completed: Job completed successfully with no violations."
    assert {one["MetricName"] for one in same.metrics} >= {"f1", "auc", "accuracy"}
    worse = analyse(tmp_path / "worse", "csv", table(600, 2, 0.05), baseline=(limits, None), **where)
    violations = {one["metric_name"]: one for one in worse.reports["constraint_violations.json"]["violations"]}
    assert set(violations) >= {"auc", "accuracy", "f1", "false_positive_rate"}
    one = violations["auc"]
    value = worse.reports["statistics.json"]["binary_classification_metrics"]["auc"]
    threshold = limits["binary_classification_constraints"]["auc"]["threshold"]
    assert one["constraint_check_type"] == "LessThanThreshold" and one["description"] == (
        f"Metric auc with {value['value']} +/- {value['standard_deviation']} was LessThanThreshold '{threshold}'"
    )


@settings(max_examples=20)
@given(
    rows=st.lists(st.tuples(st.sampled_from("abc1"), st.sampled_from("abc1")), min_size=1, max_size=60),
    numbers=st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), min_size=1, max_size=60),
)
def test_no_predictions_break_their_own_constraints(
    rows: list[Any], numbers: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    where = tmp_path_factory.mktemp("own")
    for kind, pairs in (("MulticlassClassification", rows), ("Regression", numbers)):
        text = "label,prediction\n" + "".join(f"{a},{b}\n" for a, b in pairs)
        how = {**BINARY, "problem_type": kind, "probability_attribute": ""}
        first = analyse(where / kind, "csv", text, **how)
        again = analyse(where / f"{kind}2", "csv", text, baseline=(first.reports["constraints.json"], None), **how)
        assert again.reports["constraint_violations.json"] == {"violations": []}
        told = first.reports["statistics.json"]
        name = next(one for one in told if one.endswith("_metrics"))
        if kind == "Regression":
            assert told[name]["mae"]["value"] <= told[name]["rmse"]["value"] * (1 + 1e-9)
        else:
            matrix = told[name]["confusion_matrix"]
            assert sum(sum(row.values()) for row in matrix.values()) == len(rows)
            right = sum(1 for a, b in rows if a == b)
            assert math.isclose(told[name]["accuracy"]["value"], right / len(rows))


def captured(number: int, data: str, encoding: str = "CSV", inference: str = "") -> str:
    part = {"observedContentType": "text/csv", "mode": "OUTPUT", "data": data, "encoding": encoding}
    at: dict[str, str] = {"eventId": f"event-{number}", "inferenceTime": "2026-11-24T01:00:00Z"}
    at |= {"inferenceId": inference} if inference else {}
    return json.dumps({"captureData": {"endpointOutput": part}, "eventMetadata": at, "eventVersion": "0"}) + "\n"


def truth(id: str, data: str) -> str:
    told = {"groundTruthData": {"data": data, "encoding": "CSV"}, "eventMetadata": {"eventId": id}, "eventVersion": "0"}
    return json.dumps(told) + "\n"


def merge(base: Path, records: str, *truths: str, **more: str) -> Any:
    written(base / "data" / "endpoint" / "AllTraffic" / "2026" / "11" / "24" / "01" / "a.jsonl", records)
    for number, one in enumerate(truths):
        written(base / "truth" / "2026" / "11" / "24" / "01" / f"{number}.jsonl", one)
    places = {"dataset_source": "data", "ground_truth_source": "truth", "output_path": "merged"}
    return done(base, "groundtruth_merger", {name: str(base / one) for name, one in places.items()} | more)


@settings(max_examples=20)
@given(known=st.sets(st.integers(0, 30)), asked=st.lists(st.integers(0, 30), unique=True, max_size=20))
def test_what_is_merged_is_what_both_have(
    known: set[int], asked: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    where = tmp_path_factory.mktemp("merge")
    found = merge(
        where,
        "".join(captured(one, f"{one / 40},x", inference=f"mine-{one}" if one % 3 == 0 else "") for one in asked),
        "".join(truth(f"mine-{one}" if one % 3 == 0 else f"event-{one}", str(one % 2)) for one in sorted(known)),
    )
    both = [one for one in asked if one in known]
    path = where / "merged" / "endpoint" / "AllTraffic" / "2026" / "11" / "24" / "01" / "a.jsonl"
    if not both:
        assert found.status == 255 and "no merged data" in found.message and not path.exists()
        return
    made = [json.loads(line) for line in path.read_text().splitlines()]
    assert [one["eventMetadata"]["eventId"] for one in made] == [f"event-{one}" for one in both]
    assert [one["groundTruthData"]["data"] for one in made] == [str(one % 2) for one in both]
    how = {"analysis_type": "MODEL_QUALITY", "problem_type": "BinaryClassification", "probability_attribute": "0"}
    how |= {"dataset_source": str(where / "merged"), "probability_threshold_attribute": "0.4"}
    analysed = analyse(where, "sagemakerMergeJson", **how)
    told = analysed.reports["statistics.json"]["binary_classification_metrics"]
    right = sum(1 for one in both if (one / 40 > 0.4) == bool(one % 2))
    assert math.isclose(told["accuracy"]["value"], right / len(both))


def test_answers_in_json_and_of_transform_jobs(tmp_path: Path) -> None:
    answers = "".join(
        captured(one, json.dumps({"predictions": [{"score": one / 4, "label": one % 2}]}), "JSON") for one in range(4)
    )
    assert merge(tmp_path / "json", answers, "".join(truth(f"event-{one}", "1.0") for one in range(4))).status == 0
    how = {"analysis_type": "MODEL_QUALITY", "problem_type": "BinaryClassification"}
    how |= {"inference_attribute": "$.predictions[0].label", "probability_attribute": "predictions[0]['score']"}
    where = {"dataset_source": str(tmp_path / "json" / "merged")}
    found = analyse(tmp_path / "json", "sagemakerMergeJson", **how, **where)
    assert found.reports["statistics.json"]["binary_classification_metrics"]["accuracy"]["value"] == 0.5
    transformed = "".join(f"{one / 4}, id-{one},2026-11-24T01:00:00Z\n" for one in range(4))
    assert merge(tmp_path / "csv", transformed, truth("id-3", "1") + truth("id-1", "0")).status == 0
    lines = "".join(json.dumps({"output": one / 4, "SageMakerInferenceId": f"id-{one}"}) + "\n" for one in range(4))
    assert merge(tmp_path / "lines", lines, truth("id-3", "1") + truth("id-1", "0")).status == 0
    for kind, place in (("csv", "0"), ("lines", "output")):
        how = {"analysis_type": "MODEL_QUALITY", "problem_type": "BinaryClassification", "probability_attribute": place}
        where = {"dataset_source": str(tmp_path / kind / "merged")}
        found = analyse(tmp_path / kind, "csv", **how, **where)
        told = found.reports["statistics.json"]
        assert told["dataset"]["item_count"] == 2
        assert told["binary_classification_metrics"]["accuracy"]["value"] == 1.0


@pytest.mark.parametrize(
    ("text", "more", "says"),
    [
        ("label,prediction\n1,1\n", {"problem_type": "Ranking"}, "problem_type is"),
        ("label,prediction\n1,1\n", {"problem_type": ""}, "problem_type is needed"),
        ("label,prediction\n1,1\n", {"analysis_type": "MAGIC"}, "analysis_type is"),
        ("label,guess\n1,1\n", {}, "no column 'prediction'"),
        ("label,prediction\n1,2\n", {}, "classes of a binary classification are 0 and 1"),
        ("label,prediction\n,1\n", {}, "no record has both"),
        ("label,prediction\n1,x\n", {"problem_type": "Regression"}, "is a number; there is 'x'"),
        ("label,prediction\n1,nan\n2,inf\n", {"problem_type": "Regression"}, "is a number"),
        ("label,prediction\n1,1\n", {"inference_attribute": "$..x"}, "neither a column nor a JSONPath"),
        ("label,prediction\n1,1\n", {"probability_threshold_attribute": "half"}, "is a number"),
        ("label,prediction\n1,1\n", {"inference_attribute": ""}, "inference_attribute and probability_attribute"),
        (
            "label,prediction\n" + "".join(f"{one},a\n" for one in range(1200)),
            {"problem_type": "MulticlassClassification"},
            "more than 1000 classes",
        ),
    ],
)
def test_what_does_not_fit_is_said(text: str, more: dict[str, str], says: str, tmp_path: Path) -> None:
    found = analyse(tmp_path, "csv", text, **{**BINARY, "probability_attribute": "", **more})
    assert found.status == 255 and says in found.message

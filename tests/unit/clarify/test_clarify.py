"""Clarify's numbers beside plain code: the guide's own examples, laws of the metrics, exact Shapley values."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.monitor.analyzer import Done, done, module, written

bias, kernel_shap = module("bastide_clarify.bias"), module("bastide_clarify.kernel_shap")
CHANCE = np.random.default_rng(11)


def groups(a: tuple[int, int, int, int], d: tuple[int, int, int, int]) -> Any:
    """Of a and d the numbers of TP, FP, FN and TN."""
    rows = [
        (group, y, guess)
        for group, counts in ((False, a), (True, d))
        for (y, guess), count in zip(((1, 1), (0, 1), (1, 0), (0, 0)), counts, strict=True)
        for _ in range(count)
    ]
    table = np.array(rows, bool)
    return bias.Groups(table[:, 0], table[:, 1], table[:, 2])


def values(of: Any, known: Any) -> dict[str, Any]:
    """Each metric but the flip test, which needs SciPy."""
    return {one["name"]: one["value"] for one in bias.measured(of, [name for name in known if name != "FT"], known)}


def test_the_guide_s_own_examples() -> None:
    found = values(groups((65, 10, 5, 20), (20, 5, 7, 18)), bias.POST)
    assert math.isclose(found["RD"], 65 / 70 - 20 / 27) and math.isclose(found["SD"], 18 / 23 - 20 / 30)
    found = values(groups((60, 10, 20, 10), (40, 10, 40, 10)), bias.POST)
    assert math.isclose(found["AD"], 0.2)
    found = values(groups((60, 0, 10, 30), (20, 10, 0, 20)), bias.POST)
    assert math.isclose(found["DCA"], 70 / 60 - 20 / 30) and math.isclose(found["DPPL"], 0)
    found = values(groups((40, 6, 8, 46), (20, 2, 5, 23)), bias.POST)
    assert math.isclose(found["TE"], 5 / 2 - 8 / 6) and math.isclose(found["AD"], 0, abs_tol=1e-12)
    found = values(groups((80, 0, 0, 20), (30, 0, 0, 70)), bias.PRE)
    assert math.isclose(found["KL"], 0.8 * math.log(0.8 / 0.3) + 0.2 * math.log(0.2 / 0.7))
    assert (round(found["DPL"], 9), round(found["TVD"], 9), round(found["KS"], 9), found["CI"]) == (0.5, 0.5, 0.5, 0.0)
    assert math.isclose(found["LP"], math.sqrt(0.5)) and found["CDDL"] is None
    assert values(groups((0, 0, 10, 0), (0, 0, 10, 0)), bias.POST)["GE"] is None
    assert values(groups((0, 10, 0, 0), (0, 10, 0, 0)), bias.POST)["GE"] == 0.0
    assert values(groups((0, 0, 5, 5), (5, 0, 0, 5)), bias.POST)["DI"] == "Infinity"
    # Berkeley's paradox: of each subgroup as many are taken, of all of d fewer.
    of = groups((30, 0, 0, 10), (10, 0, 0, 30))
    of.group = ["x"] * 40 + ["y"] * 40
    assert values(of, bias.PRE)["DPL"] == 0.5 and values(of, bias.PRE)["CDDL"] == 0.0


COUNTS = st.tuples(*[st.integers(0, 12)] * 4).filter(any)


@settings(max_examples=30)
@given(a=COUNTS, d=COUNTS)
def test_laws_of_the_metrics(a: Any, d: Any) -> None:
    before, after = values(groups(a, d), bias.PRE), values(groups(d, a), bias.PRE)
    for name in ("CI", "DPL"):
        assert math.isclose(before[name], -after[name], abs_tol=1e-12)
    for name in ("JS", "LP", "TVD", "KS"):
        if before[name] is not None:
            assert math.isclose(before[name], after[name], abs_tol=1e-12) and before[name] >= -1e-12
    if before["KL"] is not None and before["KS"] == 0:
        assert before["KL"] == 0
    post, swapped = values(groups(a, d), bias.POST), values(groups(d, a), bias.POST)
    for name in ("DPPL", "AD", "RD", "SD", "DAR", "DRR"):
        assert math.isclose(post[name], -swapped[name], abs_tol=1e-12) and abs(post[name]) <= 1
    assert post["GE"] is None or post["GE"] >= -1e-12
    right = values(groups((a[0] + 1, 0, 0, a[3] + 1), (d[0] + 1, 0, 0, d[3] + 1)), bias.POST)
    assert [right[name] for name in ("AD", "RD", "SD", "DAR", "DRR", "DCA", "DCR", "TE")] == [0.0] * 8
    same = values(groups(a, a), bias.POST) | values(groups(a, a), bias.PRE)
    assert all(same[name] in (0, None) for name in same if name not in ("DI", "GE")) and same["DI"] in (0, 1)


def shapley(predict: Any, row: Any, baseline: Any) -> Any:
    """By the definition: the mean over all orders of what a feature adds."""
    width = len(row)

    def worth(present: frozenset[int]) -> Any:
        return predict([[row[at] if at in present else one[at] for at in range(width)] for one in baseline]).mean(
            axis=0
        )

    found = []
    for feature in range(width):
        others = [at for at in range(width) if at != feature]
        total = 0
        for size in range(width):
            weight = math.factorial(size) * math.factorial(width - size - 1) / math.factorial(width)
            for some in itertools.combinations(others, size):
                total = total + weight * (worth(frozenset({*some, feature})) - worth(frozenset(some)))
        found.append(total)
    return np.array(found)


def crooked(rows: Any) -> Any:
    """Two scores that no single feature explains."""
    x = np.array(rows, float)
    one = x[:, 0] * x[:, 1] + np.sin(x[:, 2]) + (x[:, 3] > 0)
    return np.column_stack([1 / (1 + np.exp(-one)), x[:, 0] ** 2 - x[:, 4]])


def test_shapley_values_are_exact_where_all_coalitions_fit() -> None:
    rows, baseline = CHANCE.normal(size=(4, 5)).tolist(), CHANCE.normal(size=(3, 5)).tolist()
    found, expected = kernel_shap.explain(rows, baseline, crooked)
    assert np.allclose(expected, crooked(baseline).mean(axis=0))
    for number, row in enumerate(rows):
        assert np.allclose(found[number], shapley(crooked, row, baseline))


@settings(max_examples=20)
@given(width=st.integers(1, 24), samples=st.integers(40, 400), seed=st.integers(0, 9))
def test_shapley_values_add_up(width: int, samples: int, seed: int) -> None:
    """To the prediction less the expected value, whatever the sample; of a sum they are its parts."""
    chance = np.random.default_rng(seed)
    rows, baseline, slope = chance.normal(size=(2, width)), chance.normal(size=(2, width)), chance.normal(size=width)

    def predict(some: Any) -> Any:
        return np.tanh(np.array(some, float) @ slope)[:, None]

    found, expected = kernel_shap.explain(rows.tolist(), baseline.tolist(), predict, samples, seed)
    assert np.allclose(found.sum(axis=1), predict(rows) - expected)
    found, _ = kernel_shap.explain(
        rows.tolist(), baseline.tolist(), lambda some: np.array(some, float) @ slope[:, None]
    )
    assert np.allclose(found[:, :, 0], (rows - baseline.mean(axis=0)) * slope)


# -- jobs --------------------------------------------------------------------------------------------------------------

CONFIG: dict[str, Any] = {
    "dataset_type": "text/csv",
    "headers": ["deny", "age", "sex", "income"],
    "label": "deny",
    "label_values_or_threshold": [0],
    "facet": [
        {"name_or_index": "sex", "value_or_threshold": ["f"]},
        {"name_or_index": "age", "value_or_threshold": [40]},
    ],
    "methods": {"pre_training_bias": {"methods": "all"}},
}
ROWS = "".join(f"{(n * 7 % 5) // 3},{20 + n % 50}.5,{'fm'[n % 3 == 0]},{n}\n" for n in range(200))


def job(base: Path, config: Any, text: str = ROWS, **more: str) -> Done:
    """How a job of Clarify's ends."""
    written(base / "processing" / "input" / "config" / "analysis_config.json", json.dumps(config))
    written(base / "processing" / "input" / "data" / "data.csv", text)
    return done(base, "clarify_processing", {"output_path": str(base / "out"), **more})


def test_bias_of_data_and_of_predictions_that_are_there(tmp_path: Path) -> None:
    found = job(tmp_path, CONFIG)
    assert (found.status, found.message) == (0, "Completed: Job completed successfully.")
    told = found.reports["analysis.json"]["pre_training_bias_metrics"]
    assert (told["label"], told["label_value_or_threshold"]) == ("deny", "0")
    [sex], [age] = told["facets"]["sex"], told["facets"]["age"]
    assert (sex["value_or_threshold"], age["value_or_threshold"]) == ("f", "(40.0, 69.5]")
    rows = [line.split(",") for line in ROWS.splitlines()]
    women = [row for row in rows if row[2] == "f"]
    men = [row for row in rows if row[2] == "m"]
    metrics = {one["name"]: one for one in sex["metrics"]}
    assert metrics["CI"] == {
        "name": "CI",
        "description": "Class Imbalance (CI)",
        "value": (len(men) - len(women)) / len(rows),
    }
    kept = [sum(1 for row in some if row[0] == "0") / len(some) for some in (men, women)]
    assert math.isclose(metrics["DPL"]["value"], kept[0] - kept[1])
    assert metrics["CDDL"]["value"] is None and metrics["CDDL"]["error"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Class Imbalance (CI)" in page and len(page) < 20_000 and "<script" not in page
    assert json.loads((tmp_path / "out" / "report.ipynb").read_text())["nbformat"] == 4
    # The label of every record predicted: no metric of errors sees a difference.
    right = "".join(f"{line},{line[0]}\n" for line in ROWS.splitlines())
    config = {
        **CONFIG,
        "headers": [*CONFIG["headers"], "said"],
        "predicted_label": "said",
        "methods": {"post_training_bias": {"methods": ["AD", "RD", "DPPL", "GE"]}},
    }
    told = job(tmp_path / "right", config, right).reports["analysis.json"]["post_training_bias_metrics"]
    metrics = {one["name"]: one["value"] for one in told["facets"]["sex"][0]["metrics"]}
    assert (metrics["AD"], metrics["RD"], metrics["GE"]) == (0, 0, 0)
    assert math.isclose(metrics["DPPL"], kept[0] - kept[1])
    # What columns are called and hold is shown, never run.
    config = {**CONFIG, "headers": ["<script>", "age", "sex", "income"], "label": 0}
    job(tmp_path / "html", config)
    assert "<script" not in (tmp_path / "html" / "out" / "report.html").read_text()


class Model:
    """What an endpoint of a model would say."""

    headers = ("no", "yes")
    asked = 0

    def __init__(self, told: Any) -> None:
        self.told = told

    @contextlib.contextmanager
    def open(self) -> Iterator[Model]:
        yield self

    def scores(self, rows: list[list[Any]]) -> Any:
        self.asked += 1
        yes = np.array([0.3 * (row[1] == "f") + 0.005 * float(row[0]) + 0.001 * float(row[2]) for row in rows])
        return np.column_stack([1 - yes, yes])

    def labels(self, rows: list[list[Any]], threshold: float | None) -> list[str]:
        return [str(int(one > (threshold or 0))) for one in self.scores(rows)[:, 1]]


def test_what_predictions_rest_on(tmp_path: Path) -> None:
    """Of a model that adds up its features Shapley values are the parts, and partial dependence is a straight line."""
    analysis, table = module("bastide_clarify.analysis"), module("bastide_clarify.table")
    config = {
        **CONFIG,
        "predictor": {},
        "methods": {
            "post_training_bias": {"methods": ["DPPL"]},
            "shap": {"baseline": [[20, "m", 0]], "save_local_shap_values": True, "agg_method": "mean_abs"},
            "pdp": {"grid_resolution": 5},
        },
    }
    data = table.named([line.split(",") for line in ROWS.splitlines()], CONFIG["headers"])
    one = analysis.Analysis(config, data, Model)
    found = one.run()
    shap = found["explanations"]["kernel_shap"]
    assert list(shap) == ["no", "yes"] and math.isclose(shap["yes"]["expected_value"], 0.1)
    ages, sexes, incomes = (data.columns[name].values for name in ("age", "sex", "income"))
    expected = {
        "age": np.mean([0.005 * (float(one) - 20) for one in ages]),
        "sex": 0.3 * np.mean([one == "f" for one in sexes]),
        "income": np.mean([0.001 * float(one) for one in incomes]),
    }
    for label in shap:
        assert list(shap[label]["global_shap_values"]) == list(expected)
        for name, value in expected.items():
            assert math.isclose(shap[label]["global_shap_values"][name], value), (label, name)
    header, local = one.local
    assert header == [f"{name}_{label}" for label in ("no", "yes") for name in expected] and local.shape == (200, 6)
    assert np.allclose(local[:, :3], -local[:, 3:])
    plots = {each["feature_name"]: each for each in found["explanations"]["pdp"]}
    assert list(plots) == sorted(expected, key=lambda name: -expected[name])
    assert [plots[name]["data_type"] for name in ("age", "sex", "income")] == ["numerical", "categorical", "numerical"]
    means = {name: np.mean(Model({}).scores([*zip(ages, sexes, incomes, strict=True)])[:, 1]) for name in expected}
    places, line = plots["age"]["feature_values"], plots["age"]["model_predictions"][1]
    assert np.allclose(line, [means["age"] + 0.005 * (at - np.mean([float(x) for x in ages])) for at in places])
    assert np.allclose(plots["age"]["data_distribution"], 0.2) and plots["sex"]["feature_values"] == ["f", "m"]
    assert math.isclose(plots["sex"]["model_predictions"][1][0] - plots["sex"]["model_predictions"][1][1], 0.3)
    dppl = found["post_training_bias_metrics"]["facets"]["sex"][0]["metrics"][0]["value"]
    said = np.array(Model({}).labels([*zip(ages, sexes, incomes, strict=True)], 0.5)) == "0"
    women = np.array(sexes) == "f"
    assert math.isclose(dppl, said[~women].mean() - said[women].mean())
    shown = module("bastide_clarify.report").page(found, "t", "a")
    assert shown.count("<svg") > 8


def captured(number: int, request: str, answer: str, truth: str) -> str:
    parts = {
        name: {"observedContentType": "text/csv", "mode": "X", "data": data, "encoding": "CSV"}
        for name, data in (("endpointInput", request), ("endpointOutput", answer))
    }
    at = {"eventId": str(number), "inferenceTime": "2026-11-24T01:00:00Z"}
    truths = {"data": truth, "encoding": "CSV"}
    return json.dumps({"captureData": parts, "eventMetadata": at, "groundTruthData": truths}) + "\n"


def test_a_monitor_of_bias_finds_what_got_worse(tmp_path: Path) -> None:
    """Its baseline is an analysis.json, and itself it does not violate."""
    config = {name: value for name, value in CONFIG.items() if name not in ("dataset_type", "methods")}
    config["methods"] = {
        "pre_training_bias": {"methods": "all"},
        "post_training_bias": {"methods": ["DPPL", "DI", "AD"]},
    }
    fair = "".join(captured(n, f"{n % 60},{'fm'[n % 2]},{n}", str(0.2 + 0.6 * (n // 2 % 2)), "0") for n in range(80))
    unfair = "".join(captured(n, f"{n % 60},{'fm'[n % 2]},{n}", str(0.2 + 0.6 * (n % 2)), "0") for n in range(80))
    how = {
        "dataset_format": json.dumps(
            {"sagemakerMergeJson": {"captureIndexNames": ["endpointInput", "endpointOutput"]}}
        ),
        "dataset_source": str(tmp_path / "captured"),
        "publish_cloudwatch_metrics": "Enabled",
        "sagemaker_endpoint_name": "e",
        "sagemaker_monitoring_schedule_name": "s",
        "probability_attribute": "0",
    }
    written(tmp_path / "captured" / "a.jsonl", fair)
    first = job(tmp_path, config, **how)
    assert first.status == 0, first.message
    baseline = written(tmp_path / "baseline.json", json.dumps(first.reports["analysis.json"]))
    again = job(tmp_path, config, baseline_constraints=baseline, **how)
    assert again.message == "Completed: Job completed successfully with no violations."
    assert again.reports["constraint_violations.json"] == {"version": "1.0", "violations": []}
    written(tmp_path / "captured" / "a.jsonl", unfair)
    found = job(tmp_path, config, baseline_constraints=baseline, **how)
    violations = found.reports["constraint_violations.json"]["violations"]
    one = next(one for one in violations if (one["facet"], one["metric_name"]) == ("sex", "DPPL"))
    assert one == {
        "facet": "sex",
        "facet_value": "f",
        "metric_name": "DPPL",
        "constraint_check_type": "bias_drift_check",
        "description": "Value -1.0 does not meet the constraint requirement",
    }
    metric = next(one for one in found.metrics if one["MetricName"] == "bias_metric_DPPL")
    assert {one["Name"]: one["Value"] for one in metric["Dimensions"]} == {
        "Endpoint": "e",
        "MonitoringSchedule": "s",
        "BiasStage": "Post-Training",
        "Label": "label",
        "LabelValue": "0",
        "Facet": "sex",
        "FacetValue": "f",
    } | ({"Label": "deny"})


def test_attributions_in_another_order_have_drifted() -> None:
    ndcg = module("bastide_clarify.monitoring").ndcg
    baseline = {"a": 0.5, "b": -0.3, "c": 0.2, "d": 0.0}
    assert ndcg(baseline, {name: 7 * value for name, value in baseline.items()}) == 1.0
    best = 0.5 / math.log2(2) + 0.3 / math.log2(3) + 0.2 / math.log2(4)
    worst = {"a": 0.0, "b": 0.1, "c": 0.2, "d": 0.3}
    assert math.isclose(ndcg(baseline, worst), (0.2 / math.log2(3) + 0.3 / math.log2(4) + 0.5 / math.log2(5)) / best)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"methods": {}}, "methods is an object"),
        ({"methods": {"magic": {}}}, "magic is not there"),
        ({"methods": {"pre_training_bias": {"methods": ["XX"]}}}, "pre_training_bias.methods"),
        ({"facet": [{"name_or_index": "race"}]}, "no column 'race'"),
        ({"facet": []}, "facet is a list"),
        ({"label": None}, "label and label_values_or_threshold are needed"),
        ({"label": "nothing"}, "no column 'nothing'"),
        ({"facet": [{"name_or_index": "age"}]}, "value_or_threshold is needed"),
        ({"facet": [{"name_or_index": "age", "value_or_threshold": ["old"]}]}, "no threshold"),
        ({"headers": ["a", "b"]}, "4 values and there are 2 headers"),
        ({"headers": "a,b"}, "headers is a list"),
        ({"dataset_type": "application/x-image"}, "dataset_type is"),
        ({"dataset_uri": "s3://there/is"}, "dataset_uri"),
        ({"version": "7"}, "version"),
        ({"methods": {"post_training_bias": {"methods": "all"}}}, "predictor is needed"),
        ({"methods": {"shap": {"agg_method": "magic"}}}, "agg_method"),
        ({"methods": {"shap": {"text_config": {"granularity": "token"}}}}, "text_config"),
        ({"methods": {"shap": {}}, "predictor": {"model_name": "m"}}, "instance_type is needed"),
        ({"methods": {"shap": {}}, "predictor": {"endpoint_name": "e"}}, "no credentials"),
        ({"methods": {"pdp": {}}, "predictor": {"endpoint_name": "e"}}, "pdp.features is needed"),
        ({"methods": {"shap": {}}, "predictor": {"content_type": "application/jsonlines"}}, "content_template"),
    ],
)
def test_what_does_not_fit_is_said(more: dict[str, Any], says: str, tmp_path: Path) -> None:
    found = job(tmp_path, {**CONFIG, **more})
    assert (found.status, says in found.message) == (255, True), found.message


ODD = st.sampled_from(
    [None, 0, -1, 1.5, "", "x", [], {}, [None], {"a": 1}, True, "s3://a/b", 10**12, [[1]], "nan", [{}]]
)


@settings(max_examples=30)
@given(data=st.data())
def test_no_configuration_breaks_it(data: Any) -> None:
    """Whatever stands in it is done or refused in words."""
    analysis, table = module("bastide_clarify.analysis"), module("bastide_clarify.table")
    shap = {"baseline": [["f"]], "num_samples": 4, "seed": 1, "agg_method": "median", "use_logit": True}
    config: dict[str, Any] = {
        **json.loads(json.dumps(CONFIG)),
        "predictor": {},
        "excluded_columns": ["age", "income"],
        "group_variable": "sex",
        "probability_threshold": 0.5,
        "methods": {
            "pre_training_bias": {"methods": "all"},
            "post_training_bias": {"methods": ["DI", "GE"]},
            "shap": shap,
            "pdp": {"features": ["sex"], "grid_resolution": 3},
        },
    }
    for _ in range(2):
        at: Any = config
        while True:
            keys = list(at) if isinstance(at, dict) else range(len(at))
            key = data.draw(st.sampled_from(keys))
            if not isinstance(at[key], (dict, list)) or not at[key] or data.draw(st.booleans()):
                break
            at = at[key]
        at[key] = data.draw(ODD)
    if not isinstance(config["methods"], dict) or config["headers"] != CONFIG["headers"]:
        return  # told before

    class Short(Model):
        headers = None  # type: ignore[assignment]

        def scores(self, rows: list[list[Any]]) -> Any:
            return np.array([[0.1 + 0.4 * ("f" in row)] for row in rows])

        def labels(self, rows: list[list[Any]], threshold: float | None) -> list[str]:
            return [str(int(one > (threshold or 0))) for one in self.scores(rows)[:, 0]]

        def fetch(self, uri: str) -> str:
            return "f\n"

    rows = [line.split(",") for line in ROWS.splitlines()[:40]]
    with contextlib.suppress(module("bastide_monitor").Unfit), pytest.MonkeyPatch.context() as patch:
        patch.setattr(bias, "POST", {name: one for name, one in bias.POST.items() if name != "FT"})  # needs SciPy
        analysis.Analysis(config, table.named(rows, CONFIG["headers"]), Short).run()

"""An analysis of captured data, as schedules of bias and explainability monitors start it, against a baseline's.

Developer guide, "clarify-config-json-monitor-bias-parameters", "clarify-model-monitor-bias-drift-violations" and
"clarify-model-monitor-model-attribution-drift-violations".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from bastide_monitor import Unfit
from bastide_monitor.columns import text_of
from bastide_monitor.job import Job, say
from bastide_monitor.paths import Attribute
from bastide_monitor.records import Dataset, cells, files, parsed, payload

from bastide_clarify.analysis import Analysis, write
from bastide_clarify.aws import Session
from bastide_clarify.predictor import Predictor
from bastide_clarify.table import CSV, JSON_LINES, Table

STAGES = {"pre_training_bias_metrics": "Pre-training", "post_training_bias_metrics": "Post-Training"}
KEPT = 0.9
"""The nDCG score below which attributions have drifted."""
INFINITY = 2.0**360
"""What AWS publishes for it: the greatest value that CloudWatch takes."""


def run(job: Job, config: dict[str, Any]) -> int | None:
    """How many violations there are, None without a baseline. Raises Unfit."""
    told, constraints = dict(config), job.document("baseline_constraints")
    explains = "shap" in (told.get("methods") or {})
    data, kind = _data(job, told, explains)
    say(f"{len(data)} records of {len(data.columns)} columns")
    if not explains:
        told.setdefault("methods", {"pre_training_bias": {"methods": "all"}, "post_training_bias": {"methods": "all"}})
    elif not told.get("predictor") and job.given.get("sagemaker_endpoint_name"):
        told["predictor"] = _model_of(job.given["sagemaker_endpoint_name"])
    if explains and isinstance(told.get("predictor"), dict) and job.given.get("probability_attribute"):
        told["predictor"] = {"probability": job.given["probability_attribute"], **told["predictor"]}
    analysis = Analysis(told, data, lambda one: Predictor(one, kind))
    found = analysis.run()
    write(job, analysis)
    _measure(job, found)
    return None if constraints is None else check(job, found, constraints)


def check(job: Job, found: dict[str, Any], constraints: dict[str, Any]) -> int:
    """Holds an analysis against a baseline's; how many violations there are. Raises Unfit."""
    violations = [*_bias(found, constraints), *_attributions(found, constraints)]
    job.write("constraint_violations.json", {"version": "1.0", "violations": violations})
    for one in violations:
        say(f"{one['metric_name']}: {one['description']}")
    return len(violations)


def _model_of(endpoint: str) -> dict[str, Any]:
    """The model behind an endpoint."""
    session = Session()
    config = session.api("DescribeEndpoint", EndpointName=endpoint)["EndpointConfigName"]
    variant = session.api("DescribeEndpointConfig", EndpointConfigName=config)["ProductionVariants"][0]
    if not variant.get("InstanceType"):
        raise Unfit("predictor is needed: the endpoint is serverless.")
    return {"model_name": variant["ModelName"], "instance_type": variant["InstanceType"], "initial_instance_count": 1}


def _data(job: Job, config: dict[str, Any], explains: bool) -> tuple[Table, str]:
    """Features of requests; for bias also the ground truth and what was predicted. Raises Unfit."""
    data = job.dataset()
    if not data.captured:
        data = Dataset(data.folder, {"sagemakerMergeJson": {}}, job.given.get("start_time"), job.given.get("end_time"))
    places = {
        name: Attribute(f"{name}_attribute", value) if (value := job.given.get(f"{name}_attribute")) else None
        for name in ("features", "inference", "probability")
    }
    try:
        threshold = float(job.given.get("probability_threshold_attribute") or 0.5)
    except ValueError:
        raise Unfit("probability_threshold_attribute is a number.") from None
    rows: list[list[Any]] = []
    kind = CSV
    for path in files(data.folder):
        for event in data.events(path):
            captured = event["captureData"]
            if "endpointInput" not in captured:
                raise Unfit(f"{path.name}: requests are not captured, and the analysis needs them.")
            text, encoding = payload(captured["endpointInput"], path.name)
            kind = CSV if encoding == "CSV" else JSON_LINES
            features = list(_features(text, encoding, places["features"], path.name))
            if explains:
                rows += features
                continue
            if not isinstance(event.get("groundTruthData"), dict) or "endpointOutput" not in captured:
                continue
            truth = [one[0] for one in cells(str(event["groundTruthData"].get("data")).splitlines(), path.name)]
            guess = list(_guesses(*payload(captured["endpointOutput"], path.name), places, threshold, path.name))
            if not len(features) == len(truth) == len(guess):
                raise Unfit(f"{path.name}: a call has not as many ground truths and answers as records.")
            rows += [[*one, y, z] for one, y, z in zip(features, truth, guess, strict=True)]
    if not rows:
        raise Unfit("There is no data: no captured record" + ("." if explains else " has a ground truth."))
    headers, label = list(config.get("headers") or ()), config.get("label")
    if isinstance(label, int) and 0 <= label < len(headers):
        label = headers[label]
    if explains:
        config |= {"label": None, "predicted_label": None}
        if len(headers) == len(rows[0]) + 1:
            headers = [one for one in headers if one != label]
        return Table(headers or [f"column_{one}" for one in range(len(rows[0]))], rows), kind
    width = len(rows[0]) - 2
    named = str(label) if label in headers else headers[-1] if len(headers) == width + 1 else "label"
    names = [one for one in headers if one != named] or [f"column_{one}" for one in range(width)]
    config |= {"label": named, "predicted_label": "predicted_label", "probability_threshold": None}
    return Table([*names, named, "predicted_label"], rows), kind


def _features(text: str, encoding: str, place: Attribute | None, where: str) -> Iterator[list[Any]]:
    if encoding == "CSV":
        yield from cells(text.splitlines(), where)
        return
    if place is None:
        raise Unfit("FeaturesAttribute is needed for requests in JSON.")
    for line in text.splitlines():
        if line.strip():
            found = place.within(parsed(line, where))
            yield found if isinstance(found, list) else [found]


def _guesses(
    text: str, encoding: str, places: dict[str, Attribute | None], threshold: float, where: str
) -> Iterator[str | None]:
    lines: list[Any]
    if encoding == "CSV":
        lines = list(cells(text.splitlines(), where))
    else:
        lines = [parsed(one, where) for one in text.splitlines() if one.strip()]

    def value(place: Attribute, answer: Any) -> Any:
        if encoding != "CSV":
            return place.within(answer)
        if not place.told.isdigit() or int(place.told) >= len(answer):
            raise Unfit(f"{place.name}: an answer has no column {place.told!r}.")
        return answer[int(place.told)]

    for answer in lines:
        inference, probability = places["inference"], places["probability"]
        label = value(inference, answer) if inference else None
        if isinstance(label, list) and probability:
            scores = value(probability, answer)
            label = max(zip(scores, label, strict=True), key=lambda one: float(one[0]))[1]
        if label is not None:
            yield text_of(label)
            continue
        score = value(probability, answer) if probability else answer[0] if encoding == "CSV" else None
        try:
            yield "1" if float(score) > threshold else "0"
        except (TypeError, ValueError):
            raise Unfit(
                f"{where}: an answer has no score; InferenceAttribute or ProbabilityAttribute says where it is."
            ) from None


# -- against the baseline ----------------------------------------------------------------------------------------------


def _value(metric: Any) -> float | None:
    told = metric.get("value") if isinstance(metric, dict) else None
    if isinstance(told, str) and told.endswith("Infinity"):
        return -math.inf if told.startswith("-") else math.inf
    return float(told) if isinstance(told, (int, float)) else None


def _metrics(analysis: Any) -> Iterator[tuple[str, str, str, str, float]]:
    """Stage, facet, its value, metric, value. Raises Unfit."""
    try:
        for stage in STAGES:
            for facet, groups in (analysis.get(stage) or {}).get("facets", {}).items():
                for group, metric in itertools.chain.from_iterable(
                    ((one, m) for m in one["metrics"]) for one in groups
                ):
                    if (value := _value(metric)) is not None:
                        yield stage, facet, str(group["value_or_threshold"]), str(metric["name"]), value
    except (TypeError, KeyError, AttributeError):
        raise Unfit("The baseline constraints are no analysis.json of a bias analysis.") from None


def _bias(found: dict[str, Any], constraints: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Metrics that are farther from no bias than the baseline's."""
    kept = {one[:4]: one[4] for one in _metrics(constraints)}
    for stage, facet, group, name, value in _metrics(found):
        ideal = 1.0 if name == "DI" else 0.0
        baseline = kept.get((stage, facet, group, name))
        if baseline is not None and abs(value - ideal) > abs(baseline - ideal):
            yield {
                "facet": facet,
                "facet_value": group,
                "metric_name": name,
                "constraint_check_type": "bias_drift_check",
                "description": f"Value {value} does not meet the constraint requirement",
            }


def ndcg(baseline: dict[str, float], found: dict[str, float]) -> float:
    """How well the order of attributions that were found ranks those of the baseline: 1 for the same order."""
    names = [one for one in baseline if one in found]
    gains = {one: abs(baseline[one]) for one in names}

    def gained(order: list[str]) -> float:
        return sum(gains[one] / math.log2(at + 2) for at, one in enumerate(order))

    best = gained(sorted(names, key=lambda one: -gains[one]))
    return gained(sorted(names, key=lambda one: -abs(found[one]))) / best if best else 1.0


def _attributions(found: dict[str, Any], constraints: dict[str, Any]) -> Iterator[dict[str, str]]:
    explained = found.get("explanations", {}).get("kernel_shap", {})
    try:
        kept = (constraints.get("explanations") or {}).get("kernel_shap") or {}
        pairs = [
            (label, {str(name): float(value) for name, value in kept[label]["global_shap_values"].items()})
            for label in explained
            if label in kept
        ]
    except (TypeError, KeyError, ValueError, AttributeError):
        raise Unfit("The baseline constraints are no analysis.json of an explainability analysis.") from None
    for label, baseline in pairs:
        score = ndcg(baseline, explained[label]["global_shap_values"])
        if score < KEPT:
            yield {
                "label": label,
                "metric_name": "shap",
                "constraint_check_type": "feature_attribution_drift_check",
                "description": f"Feature attribution drift {score} exceeds threshold {KEPT}",
            }


def _measure(job: Job, found: dict[str, Any]) -> None:
    """Developer guide, "clarify-model-monitor-bias-drift-cw" and "clarify-feature-attribute-drift-cw"."""
    for stage, facet, group, name, value in _metrics(found):
        told = found[stage]
        kept = value if math.isfinite(value) else math.copysign(INFINITY, value)
        job.measure(
            [(f"bias_metric_{name}", kept)],
            BiasStage=STAGES[stage],
            Label=told["label"],
            LabelValue=told["label_value_or_threshold"],
            Facet=facet,
            FacetValue=group,
        )
    for label, explained in found.get("explanations", {}).get("kernel_shap", {}).items():
        about = {"ExplainabilityMethod": "KernelShap", "Label": label}
        values = [(f"feature_{name}", value) for name, value in explained["global_shap_values"].items()]
        job.measure(values, **about, ValueType="GlobalShapValues")
        job.measure([("ExpectedValue", explained["expected_value"])], **about, ValueType="ExpectedValue")

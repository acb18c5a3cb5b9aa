"""The images that Model Monitor and Clarify run, as processing jobs under AWS's documented contract."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.platform import Account, allow
from tests.stories.sagemaker.conftest import Workshop, workshop_of
from tests.stories.sagemaker.serving import container, model, until

MONITOR = "156813124566.dkr.ecr.us-east-1.amazonaws.com"
ANALYZER, MERGER = (f"{MONITOR}/sagemaker-model-monitor-{one}" for one in ("analyzer", "groundtruth-merger"))
CLARIFY = "205585389593.dkr.ecr.us-east-1.amazonaws.com/sagemaker-clarify-processing:1.0"
DATA, OUT = "/opt/ml/processing/input", "/opt/ml/processing/output"


def process(workshop: Workshop, image: str, environment: dict[str, str], **inputs: str) -> str:
    """Starts a job; its name. inputs: by their names, keys in the bucket. What it makes is below its name."""
    name = workshop.name("monitor")
    target = {"S3Uri": f"s3://{workshop.bucket}/{name}", "LocalPath": OUT, "S3UploadMode": "EndOfJob"}
    workshop.sagemaker.create_processing_job(
        ProcessingJobName=name,
        RoleArn=workshop.role,
        AppSpecification={"ImageUri": image},
        Environment={"dataset_source": f"{DATA}/dataset", "output_path": OUT, **environment},
        ProcessingResources={
            "ClusterConfig": {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}
        },
        ProcessingInputs=[
            {
                "InputName": one,
                "S3Input": {
                    "S3Uri": f"s3://{workshop.bucket}/{key}",
                    "LocalPath": f"{DATA}/{one}",
                    "S3DataType": "S3Prefix",
                    "S3InputMode": "File",
                },
            }
            for one, key in inputs.items()
        ],
        ProcessingOutputConfig={"Outputs": [{"OutputName": "monitoring_output", "S3Output": target}]},
    )
    return name


def clarify(workshop: Workshop, role: str, inputs: dict[str, tuple[str, str]]) -> str:
    """Starts a job of Clarify's as its SDK does; its name. inputs: key in the bucket and folder of each."""
    name = workshop.name("clarify")
    target = {"S3Uri": f"s3://{workshop.bucket}/{name}", "LocalPath": OUT, "S3UploadMode": "EndOfJob"}
    given = [
        {
            "InputName": one,
            "S3Input": {
                "S3Uri": f"s3://{workshop.bucket}/{key}",
                "LocalPath": f"{DATA}/{folder}",
                "S3DataType": "S3Prefix",
                "S3InputMode": "File",
            },
        }
        for one, (key, folder) in inputs.items()
    ]
    workshop.sagemaker.create_processing_job(
        ProcessingJobName=name,
        RoleArn=role,
        AppSpecification={"ImageUri": CLARIFY},
        ProcessingResources={
            "ClusterConfig": {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}
        },
        ProcessingInputs=given,
        ProcessingOutputConfig={"Outputs": [{"OutputName": "analysis_result", "S3Output": target}]},
    )
    return name


def ended(workshop: Workshop, name: str) -> dict[str, Any]:
    """The job when it is over."""
    late = time.monotonic() + 120
    while True:
        job: dict[str, Any] = workshop.sagemaker.describe_processing_job(ProcessingJobName=name)
        if job["ProcessingJobStatus"] not in ("InProgress", "Stopping"):
            return job
        assert time.monotonic() < late
        time.sleep(0.05)


def report(workshop: Workshop, name: str, key: str) -> Any:
    """What a job made."""
    return json.loads(workshop.s3.get_object(Bucket=workshop.bucket, Key=f"{name}/{key}")["Body"].read())


def put(workshop: Workshop, key: str, text: str) -> str:
    workshop.s3.put_object(Bucket=workshop.bucket, Key=key, Body=text.encode())
    return key


def event(number: int) -> str:
    """A captured call."""
    income = number / 8 if number < 400 else number
    parts = {"Input": f"{income},{'yes' if number % 3 else 'no'}", "Output": str(number % 2)}
    data = {
        f"endpoint{part}": {"observedContentType": "text/csv", "mode": part.upper(), "data": text, "encoding": "CSV"}
        for part, text in parts.items()
    }
    told = {"eventId": str(number), "inferenceTime": "2026-11-24T01:00:00Z"}
    return json.dumps({"captureData": data, "eventMetadata": told, "eventVersion": "0"}) + "\n"


@pytest.mark.control("MON-10", lacking="the schedule")
@pytest.mark.control("MON-11", lacking="the schedule")
@pytest.mark.control("MON-12", lacking="the schedule, and explanations of single predictions")
def test_baselines_and_what_does_not_keep_them(workshop: Workshop) -> None:
    csv = {"dataset_format": json.dumps({"csv": {"header": True}}), "publish_cloudwatch_metrics": "Disabled"}
    rows = "".join(f"{one % 2},{one / 8},{'yes' if one % 3 else 'no'}\n" for one in range(400))
    put(workshop, "train/a.csv", "deny,income,afam\n" + rows)
    put(workshop, "broken/a.json", '{"a": [1, 2]}\n')
    lines = {"dataset_format": json.dumps({"json": {"lines": True}})}
    broken = process(workshop, ANALYZER, lines, dataset="broken")
    hour = "one/AllTraffic/2026/11/24/01/a.jsonl"
    put(workshop, f"same/{hour}", "".join(map(event, range(400))))
    put(workshop, f"other/{hour}", "".join(map(event, range(400, 800))))
    truths = [
        {"groundTruthData": {"data": str(one // 2 % 2), "encoding": "CSV"}, "eventMetadata": {"eventId": str(one)}}
        for one in range(380, 450)
    ]
    put(workshop, "truth/2026/11/24/02/a.jsonl", "".join(json.dumps(one) + "\n" for one in truths))
    merging = process(workshop, MERGER, {"ground_truth_source": f"{DATA}/truth"}, dataset="same", truth="truth")
    base = process(workshop, ANALYZER, csv, dataset="train")
    job = ended(workshop, base)
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    assert report(workshop, base, "statistics.json")["dataset"]["item_count"] == 400
    constraints = report(workshop, base, "constraints.json")
    assert [one["inferred_type"] for one in constraints["features"]] == ["Integral", "Fractional", "String"]

    capture = {
        "dataset_format": json.dumps(
            {"sagemakerCaptureJson": {"captureIndexNames": ["endpointInput", "endpointOutput"]}}
        ),
        "baseline_constraints": f"{DATA}/constraints/constraints.json",
        "baseline_statistics": f"{DATA}/statistics/statistics.json",
    }
    files = {one: f"{base}/{one}.json" for one in ("constraints", "statistics")}
    same = process(workshop, ANALYZER, capture, dataset="same", **files)
    other = process(workshop, ANALYZER, capture, dataset="other", **files)
    job = ended(workshop, merging)
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    # Of the twenty that have a truth every other answer is right.
    limits = {"accuracy": {"threshold": 0.75, "comparison_operator": "LessThanThreshold"}}
    put(workshop, "limits/constraints.json", json.dumps({"binary_classification_constraints": limits}))
    how = {
        "dataset_format": json.dumps({"sagemakerMergeJson": {"captureIndexNames": ["endpointOutput"]}}),
        "analysis_type": "MODEL_QUALITY",
        "problem_type": "BinaryClassification",
        "inference_attribute": "0",
        "baseline_constraints": f"{DATA}/limits/constraints.json",
    }
    quality = process(workshop, ANALYZER, how, dataset=merging, limits="limits/constraints.json")
    facets = [{"name_or_index": "afam", "value_or_threshold": ["yes"]}]
    bias = {"headers": ["income", "afam", "deny"], "label": "deny", "label_values_or_threshold": [0], "facet": facets}
    put(workshop, "bias/config.json", json.dumps({**bias, "methods": {"post_training_bias": {"methods": ["DPPL"]}}}))
    groups = [{"value_or_threshold": "yes", "metrics": [{"name": "DPPL", "value": 0.0}]}]
    put(workshop, "fair/analysis.json", json.dumps({"post_training_bias_metrics": {"facets": {"afam": groups}}}))
    captured = {"captureIndexNames": ["endpointInput", "endpointOutput"]}
    how = {
        "dataset_format": json.dumps({"sagemakerMergeJson": captured}),
        "inference_attribute": "0",
        "baseline_constraints": f"{DATA}/fair/analysis.json",
    }
    biased = process(workshop, CLARIFY, how, dataset=merging, config="bias/config.json", fair="fair/analysis.json")
    job = ended(workshop, same)
    assert (job["ProcessingJobStatus"], job["ExitMessage"]) == (
        "Completed",
        "Completed: Job completed successfully with no violations.",
    )
    assert report(workshop, same, "constraint_violations.json") == {"violations": []}
    job = ended(workshop, other)
    assert job["ExitMessage"] == "CompletedWithViolations: Job completed successfully with 1 violations."
    found = report(workshop, other, "constraint_violations.json")["violations"]
    assert [(one["feature_name"], one["constraint_check_type"]) for one in found] == [
        ("income", "baseline_drift_check"),
    ]
    job = ended(workshop, broken)
    assert job["ProcessingJobStatus"] == "Failed" and "record_preprocessor_script" in job["ExitMessage"]
    assert job["FailureReason"].startswith("AlgorithmError: Error: A record holds list")
    job = ended(workshop, quality)
    assert job["ExitMessage"] == "CompletedWithViolations: Job completed successfully with 1 violations."
    told = report(workshop, quality, "statistics.json")
    assert told["dataset"]["item_count"] == 20
    assert told["binary_classification_metrics"]["accuracy"]["value"] == 0.5
    [one] = report(workshop, quality, "constraint_violations.json")["violations"]
    assert one["metric_name"] == "accuracy"
    job = ended(workshop, biased)
    assert job["ExitMessage"] == "CompletedWithViolations: Job completed successfully with 1 violations.", job
    rows = [(one % 3 > 0, one % 2 == 0) for one in range(380, 400)]  # of the facet, and approved
    shares = [
        sum(yes for group, yes in rows if group is of) / sum(1 for group, _ in rows if group is of)
        for of in (False, True)
    ]
    [one] = report(workshop, biased, "constraint_violations.json")["violations"]
    assert (one["facet"], one["metric_name"], one["constraint_check_type"]) == ("afam", "DPPL", "bias_drift_check")
    assert float(one["description"].split()[1]) == pytest.approx(shares[0] - shares[1])


SCORES = b"""
def model_fn(folder): return None
def transform_fn(model, body, kind, accept):
    rows = [line.split(',') for line in body.splitlines() if line]
    return ''.join(f"{0.4 * float(row[0]) + 0.002 * float(row[1])}\\n" for row in rows), 'text/csv'
"""


@pytest.mark.control("EXP-16", lacking="started by the SDK itself")
def test_bias_and_explanations_of_a_model(account: Account) -> None:
    """The job makes an endpoint of the model with its role, and takes it away again."""
    workshop = workshop_of(account)
    asks = ("CreateEndpointConfig", "CreateEndpoint", "DescribeEndpoint", "DeleteEndpoint", "DeleteEndpointConfig")
    able = account.role(
        "Analyst",
        allow("s3:*", "logs:*", "kms:*", *(f"sagemaker:{one}" for one in (*asks, "InvokeEndpoint"))),
        trust={"Service": "sagemaker.amazonaws.com"},
    )
    model(workshop, "scores", container(workshop, "scores", SCORES))
    put(workshop, "clarify/data.csv", "".join(f"{n % 5 // 4},{n % 2},{n}\n" for n in range(120)))
    config = {
        "dataset_type": "text/csv",
        "headers": ["deny", "sex", "income"],
        "label": "deny",
        "label_values_or_threshold": [0],
        "facet": [{"name_or_index": "sex", "value_or_threshold": [1]}],
        "probability_threshold": 0.3,
        "methods": {
            "report": {"name": "report", "title": "Mortgages"},
            "pre_training_bias": {"methods": "all"},
            "post_training_bias": {"methods": "all"},
            "shap": {"baseline": [[0, 0]], "num_samples": 10, "save_local_shap_values": True},
            "pdp": {"features": ["sex"]},
        },
        "predictor": {"model_name": "scores", "instance_type": "ml.t2.medium", "initial_instance_count": 1},
    }
    put(workshop, "config/analysis_config.json", json.dumps(config))
    inputs = {"analysis_config": ("config/analysis_config.json", "config"), "dataset": ("clarify/data.csv", "data")}
    unable = clarify(workshop, workshop.role, inputs)
    put(workshop, "config/wrong.json", json.dumps({**config, "facet": [{"name_or_index": "race"}]}))
    wrong = clarify(workshop, able, {**inputs, "analysis_config": ("config/wrong.json", "config")})
    name = clarify(workshop, able, inputs)
    slow = b"import time\n" + SCORES.replace(b"    rows =", b"    time.sleep(40)\n    rows =")
    model(workshop, "slow", container(workshop, "slow", slow))
    predictor = {**config["predictor"], "model_name": "slow", "endpoint_name_prefix": "stopped"}
    put(workshop, "config/stopped.json", json.dumps({**config, "predictor": predictor}))
    stopped = clarify(workshop, able, {**inputs, "analysis_config": ("config/stopped.json", "config")})

    def made() -> list[str]:
        return [one["EndpointName"] for one in workshop.sagemaker.list_endpoints()["Endpoints"]]

    until(lambda: any(one.startswith("stopped-") for one in made()))
    workshop.sagemaker.stop_processing_job(ProcessingJobName=stopped)
    job = ended(workshop, unable)
    assert job["ProcessingJobStatus"] == "Failed"
    assert "AccessDeniedException" in job["ExitMessage"] and "sagemaker:CreateEndpointConfig" in job["FailureReason"]
    job = ended(workshop, wrong)
    assert "no column 'race'; there are deny, sex, income" in job["FailureReason"]
    job = ended(workshop, name)
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    told = report(workshop, name, "analysis.json")
    [group] = told["pre_training_bias_metrics"]["facets"]["sex"]
    assert {one["name"]: one["value"] for one in group["metrics"]}["CI"] == 0.0
    [group] = told["post_training_bias_metrics"]["facets"]["sex"]
    metrics = {one["name"]: one["value"] for one in group["metrics"]}
    assert (
        len(metrics) == 13 and metrics["DPPL"] == 1.0 and metrics["DI"] == 0.0
    )  # who is of the facet scores above 0.3
    found = told["explanations"]["kernel_shap"]["label0"]
    assert found["expected_value"] == 0.0
    assert found["global_shap_values"]["sex"] == pytest.approx(0.2)
    assert found["global_shap_values"]["income"] == pytest.approx(0.002 * 59.5)
    [plot] = told["explanations"]["pdp"]
    low, high = plot["model_predictions"][0]
    assert plot["feature_values"] == [0, 1] and high - low == pytest.approx(0.4)
    keys = {one["Key"] for one in workshop.s3.list_objects_v2(Bucket=workshop.bucket, Prefix=f"{name}/")["Contents"]}
    files = ("analysis.json", "explanations_shap/out.csv", "report.html", "report.ipynb")
    assert keys == {f"{name}/{one}" for one in files}
    local = workshop.s3.get_object(Bucket=workshop.bucket, Key=f"{name}/explanations_shap/out.csv")["Body"].read()
    header, first, *_ = local.decode().splitlines()
    assert header == "sex_label0,income_label0" and [*map(float, first.split(","))] == [0.0, 0.0]
    assert ended(workshop, stopped)["ProcessingJobStatus"] == "Stopped"
    left = [one for one in workshop.sagemaker.list_endpoints()["Endpoints"] if one["EndpointStatus"] != "Deleting"]
    assert not left and not workshop.sagemaker.list_endpoint_configs()["EndpointConfigs"]

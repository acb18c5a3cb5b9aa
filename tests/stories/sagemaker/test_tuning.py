"""Hyperparameter tuning: real training jobs, searched and judged."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.stories.sagemaker.conftest import IMAGE, Workshop, archive

PARABOLA = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--at", type=float, default=0.0)
parser.add_argument("--kind", default="a")
args, rest = parser.parse_known_args()
assert not rest, rest
print(f"loss={(args.at - 3) ** 2 + (args.kind != 'a'):.6f};")
open("/opt/ml/model/x", "w").write(str(args.at))
"""
X = {"Name": "at", "MinValue": "0", "MaxValue": "10"}


def code(workshop: Workshop, script: str) -> str:
    """Where the script lies."""
    key = f"{workshop.name('code')}.tar.gz"
    workshop.s3.put_object(Bucket=workshop.bucket, Key=key, Body=archive(train__py=script.encode()))
    return f"s3://{workshop.bucket}/{key}"


def definition(workshop: Workshop, script: str = PARABOLA, **more: Any) -> dict[str, Any]:
    """A TrainingJobDefinition."""
    static = more.pop("static", {})
    return {
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+);"}],
        },
        "RoleArn": workshop.role,
        "OutputDataConfig": {"S3OutputPath": f"s3://{workshop.bucket}/out"},
        "HyperParameterTuningResourceConfig": {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "StaticHyperParameters": {
            "sagemaker_program": "train.py",
            "sagemaker_submit_directory": code(workshop, script),
            **static,
        },
        **more,
    }


def config(strategy: str = "Random", most: int | None = 4, parallel: int = 2, **more: Any) -> dict[str, Any]:
    """A HyperParameterTuningJobConfig."""
    limits = {"MaxParallelTrainingJobs": parallel, **({} if most is None else {"MaxNumberOfTrainingJobs": most})}
    return {
        "Strategy": strategy,
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ResourceLimits": limits,
        "ParameterRanges": {"ContinuousParameterRanges": [X]},
        **more,
    }


def tune(workshop: Workshop, configured: dict[str, Any], defined: dict[str, Any] | None = None, **more: Any) -> str:
    """Starts a tuning job; its name."""
    name = workshop.name("tune")
    one = {} if "TrainingJobDefinitions" in more else {"TrainingJobDefinition": defined or definition(workshop)}
    workshop.sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name, HyperParameterTuningJobConfig=configured, **one, **more
    )
    return name


def tuned(workshop: Workshop, name: str) -> dict[str, Any]:
    """The tuning job when it is over."""
    until = time.monotonic() + 90
    while time.monotonic() < until:
        found: dict[str, Any] = workshop.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        if found["HyperParameterTuningJobStatus"] not in ("InProgress", "Stopping"):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{name} does not end: {found}")


def trials(workshop: Workshop, name: str, **more: Any) -> list[dict[str, Any]]:
    """All its training jobs."""
    pages = workshop.sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
    return [
        one for page in pages.paginate(HyperParameterTuningJobName=name, **more) for one in page["TrainingJobSummaries"]
    ]


def value(summary: dict[str, Any]) -> float:
    return float(summary["FinalHyperParameterTuningJobObjectiveMetric"]["Value"])


@pytest.mark.control("EXP-15")
@pytest.mark.parametrize("strategy", ["Random", "Bayesian", "Grid"])
def test_six_jobs_are_searched_and_the_best_is_named(workshop: Workshop, strategy: str) -> None:
    searched: dict[str, Any] = {"ContinuousParameterRanges": [X]}
    if strategy == "Grid":
        searched = {
            "CategoricalParameterRanges": [
                {"Name": "at", "Values": ["1", "2.5", "7"]},
                {"Name": "kind", "Values": ["a", "b"]},
            ]
        }
    name = tune(
        workshop,
        config(strategy, None if strategy == "Grid" else 6, 3, ParameterRanges=searched),
        Tags=[{"Key": "team", "Value": "red"}],
    )
    done = tuned(workshop, name)
    assert done["HyperParameterTuningJobStatus"] == "Completed", done.get("FailureReason")
    assert done["TrainingJobStatusCounters"]["Completed"] == 6
    assert done["ObjectiveStatusCounters"] == {"Succeeded": 6, "Pending": 0, "Failed": 0}
    every = trials(workshop, name, MaxResults=4)
    assert len(every) == 6
    for number, one in enumerate(every, 1):
        assert one["TrainingJobName"].startswith(f"{name}-{number:03d}-")
        x, kind = float(one["TunedHyperParameters"]["at"]), one["TunedHyperParameters"].get("kind", "a")
        assert value(one) == pytest.approx((x - 3) ** 2 + (kind != "a"), abs=1e-5)
    if strategy == "Grid":
        assert len({tuple(sorted(one["TunedHyperParameters"].items())) for one in every}) == 6
    best = done["BestTrainingJob"]
    assert value(best) == min(map(value, every))
    by_value = trials(workshop, name, SortBy="FinalObjectiveMetricValue", SortOrder="Ascending")
    assert by_value[0]["TrainingJobName"] == best["TrainingJobName"]
    child = workshop.sagemaker.describe_training_job(TrainingJobName=best["TrainingJobName"])
    assert child["TuningJobArn"] == done["HyperParameterTuningJobArn"]
    assert child["HyperParameters"]["_tuning_objective_metric"] == "loss"
    assert child["ModelArtifacts"]["S3ModelArtifacts"].startswith("s3://")
    tags = workshop.sagemaker.list_tags(ResourceArn=child["TrainingJobArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "red"}]
    running = sorted((one["TrainingStartTime"], one["TrainingEndTime"]) for one in every)
    assert max(sum(begin <= at < end for begin, end in running) for at, _ in running) <= 3

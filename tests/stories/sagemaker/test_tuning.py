"""Hyperparameter tuning: real training jobs, searched and judged."""

from __future__ import annotations

import json
import time
from typing import Any

import botocore.exceptions
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
    # What the SDK reads when it attaches to a tuning job.
    told = done["TrainingJobDefinition"]
    assert told["StaticHyperParameters"]["_tuning_objective_metric"] == "loss"
    assert told["ResourceConfig"]["InstanceType"] == "ml.t3.medium"
    tags = workshop.sagemaker.list_tags(ResourceArn=child["TrainingJobArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "red"}]
    running = sorted((one["TrainingStartTime"], one["TrainingEndTime"]) for one in every)
    assert max(sum(begin <= at < end for begin, end in running) for at, _ in running) <= 3


def refused(workshop: Workshop, configured: dict[str, Any], defined: dict[str, Any] | None = None, **more: Any) -> Any:
    """The error that creating it ends with."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        tune(workshop, configured, defined, **more)
    return caught.value.response["Error"]


@pytest.mark.control("EXP-15")
def test_what_cannot_be_searched_is_refused(workshop: Workshop) -> None:
    defined = definition(workshop)

    def ranges(**given: Any) -> dict[str, Any]:
        return config(ParameterRanges=given)

    mute = {**defined, "AlgorithmSpecification": {**defined["AlgorithmSpecification"], "MetricDefinitions": []}}
    both = {**defined, "ResourceConfig": defined["HyperParameterTuningResourceConfig"]}
    limits = {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 3}
    words = {"Name": "kind", "Values": ["a", "b"]}
    twice = [{**defined, "DefinitionName": "one"}, {**defined, "DefinitionName": "one"}]
    apart = [{**defined, "DefinitionName": "one"}, {**defined, "DefinitionName": "two", "EnableNetworkIsolation": True}]
    cases: list[tuple[str, dict[str, Any], dict[str, Any] | None, dict[str, Any]]] = [
        ("neither among AlgorithmSpecification.MetricDefinitions", config(), mute, {}),
        ("must not be more than MaxNumberOfTrainingJobs", config(ResourceLimits=limits), defined, {}),
        ("needs HyperbandStrategyConfig.MaxResource", config("Hyperband"), defined, {}),
        (
            "TrainingJobEarlyStoppingType must be Off",
            config("Hyperband", TrainingJobEarlyStoppingType="Auto"),
            defined,
            {},
        ),
        ("MinValue of at must be less", ranges(ContinuousParameterRanges=[{**X, "MinValue": "10"}]), defined, {}),
        ("above 0", ranges(ContinuousParameterRanges=[{**X, "ScalingType": "Logarithmic"}]), defined, {}),
        ("whole numbers", ranges(IntegerParameterRanges=[{**X, "MinValue": "0.5"}]), defined, {}),
        ("occurs twice", ranges(ContinuousParameterRanges=[X, X]), defined, {}),
        ("searches 1 to 30", ranges(), defined, {}),
        ("CategoricalParameterRanges only", config("Grid"), defined, {}),
        ("is 2;", config("Grid", 3, ParameterRanges={"CategoricalParameterRanges": [words]}), defined, {}),
        ("needs MaxNumberOfTrainingJobs", config(most=None), defined, {}),
        ("or a HyperParameterTuningResourceConfig", config(), both, {}),
        ("DefinitionName of its own", config(), None, {"TrainingJobDefinitions": twice}),
        ("must have the same EnableNetworkIsolation", config(), None, {"TrainingJobDefinitions": apart}),
        ("AutoParameters need Autotune", ranges(AutoParameters=[{"Name": "at", "ValueHint": "1"}]), defined, {}),
        ("StrategyConfig belongs", config(StrategyConfig={"HyperbandStrategyConfig": {}}), defined, {}),
    ]
    for words_of, configured, one, more in cases:
        error = refused(workshop, configured, one, **more)
        assert error["Code"] == "ValidationException", error
        assert words_of in error["Message"], error
    error = refused(workshop, config(most=751), defined)
    assert error["Code"] == "ResourceLimitExceeded", error
    assert workshop.sagemaker.list_hyper_parameter_tuning_jobs()["HyperParameterTuningJobSummaries"] == []
    with pytest.raises(workshop.sagemaker.exceptions.ResourceNotFound):
        workshop.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName="nothing")


EPOCHS = """
import argparse, time
parser = argparse.ArgumentParser()
parser.add_argument("--worth", type=float)
parser.add_argument("--epochs", type=int, default=9)
parser.add_argument("--pause", type=float, default=1)
args, _ = parser.parse_known_args()
for epoch in range(args.epochs):
    print(f"loss={args.worth + 1 / (epoch + 1):.4f};", flush=True)
    time.sleep(0.2 if args.worth < 5 else args.pause)
"""
WORTH = {"CategoricalParameterRanges": [{"Name": "worth", "Values": ["1", "2", "3", "9"]}]}


def test_the_median_rule_stops_a_weak_job_early(workshop: Workshop) -> None:
    # One after the other, so that the weak one has three to be compared with.
    name = tune(
        workshop,
        config("Grid", None, 1, ParameterRanges=WORTH, TrainingJobEarlyStoppingType="Auto"),
        definition(workshop, EPOCHS, static={"epochs": "4", "pause": "20"}),  # the weak one is never over by itself
    )
    done = tuned(workshop, name)
    assert done["HyperParameterTuningJobStatus"] == "Completed", done
    by_worth = {one["TunedHyperParameters"]["worth"]: one for one in trials(workshop, name)}
    assert [by_worth[worth]["TrainingJobStatus"] for worth in ("1", "2", "3", "9")] == [*["Completed"] * 3, "Stopped"]
    assert by_worth["9"]["ObjectiveStatus"] == "Succeeded"
    assert done["TrainingJobStatusCounters"]["Stopped"] == 1
    assert done["BestTrainingJob"]["TunedHyperParameters"] == {"worth": "1"}


def test_hyperband_stops_the_weak_and_ends_who_used_all(workshop: Workshop) -> None:
    strategy = {"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": 3}}
    ranges = {"ContinuousParameterRanges": [{"Name": "worth", "MinValue": "0", "MaxValue": "10"}]}
    name = tune(
        workshop,
        config("Hyperband", 6, 2, ParameterRanges=ranges, StrategyConfig=strategy, RandomSeed=4),
        definition(workshop, EPOCHS, static={"epochs": "60"}),
    )
    done = tuned(workshop, name)
    assert done["HyperParameterTuningJobStatus"] == "Completed", done
    every = trials(workshop, name)
    assert {one["TrainingJobStatus"] for one in every} == {"Stopped"}, "none may use all its sixty epochs"
    best = done["BestTrainingJob"]
    assert float(best["TunedHyperParameters"]["worth"]) == min(
        float(one["TunedHyperParameters"]["worth"]) for one in every
    )


def test_a_seed_proposes_again_what_it_proposed(workshop: Workshop) -> None:
    defined = definition(workshop)
    names = [tune(workshop, config(most=3, parallel=3, RandomSeed=5), defined) for _ in range(2)]
    other = tune(workshop, config(most=3, parallel=3, RandomSeed=6), defined)
    found = []
    for name in (*names, other):
        assert tuned(workshop, name)["HyperParameterTuningJobStatus"] == "Completed"
        found.append([one["TunedHyperParameters"] for one in trials(workshop, name)])
    assert found[0] == found[1] != found[2]


def test_stopping_stops_what_runs_and_nothing_more_begins(workshop: Workshop) -> None:
    script = "import time\nprint('loss=1.0;', flush=True)\ntime.sleep(50)"
    name = tune(workshop, config(most=10, parallel=2), definition(workshop, script))
    until = time.monotonic() + 60
    while len(trials(workshop, name, StatusEquals="InProgress")) < 2:
        assert time.monotonic() < until
        time.sleep(0.1)
    with pytest.raises(botocore.exceptions.ClientError, match="cannot be deleted"):
        workshop.sagemaker.delete_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    workshop.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    done = tuned(workshop, name)
    assert done["HyperParameterTuningJobStatus"] == "Stopped"
    every = trials(workshop, name)
    assert [one["TrainingJobStatus"] for one in every] == ["Stopped", "Stopped"]
    assert done["TrainingJobStatusCounters"]["Stopped"] == 2
    with pytest.raises(botocore.exceptions.ClientError, match="is in status Stopped"):
        workshop.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    workshop.sagemaker.delete_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    workshop.sagemaker.delete_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    assert workshop.sagemaker.list_hyper_parameter_tuning_jobs()["HyperParameterTuningJobSummaries"] == []
    workshop.sagemaker.describe_training_job(TrainingJobName=every[0]["TrainingJobName"])


def test_it_fails_when_every_job_fails_or_none_tells_its_objective(workshop: Workshop) -> None:
    failing = tune(workshop, config(most=2), definition(workshop, "raise SystemExit('no luck')"))
    silent = tune(workshop, config(most=9), definition(workshop, "print('nothing')"))
    done = tuned(workshop, failing)
    assert done["HyperParameterTuningJobStatus"] == "Failed"
    assert "No training job succeeded" in done["FailureReason"]
    assert "no luck" in done["FailureReason"]
    assert done["TrainingJobStatusCounters"]["NonRetryableError"] == 2
    assert done["ObjectiveStatusCounters"]["Failed"] == 2
    assert "BestTrainingJob" not in done
    done = tuned(workshop, silent)
    assert done["HyperParameterTuningJobStatus"] == "Failed"
    assert "No objective metrics found" in done["FailureReason"]
    assert sum(done["TrainingJobStatusCounters"].values()) < 9


def test_it_ends_when_there_is_enough(workshop: Workshop) -> None:
    defined = definition(workshop)
    flat = definition(workshop, "print('loss=1.0;')")
    target = tune(workshop, config(most=40, TuningJobCompletionCriteria={"TargetObjectiveMetricValue": 60.0}), defined)
    patience = {"BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 3}}
    patient = tune(workshop, config(most=None, TuningJobCompletionCriteria=patience), flat)
    done = tuned(workshop, target)
    assert done["HyperParameterTuningJobStatus"] == "Completed"
    assert value(done["BestTrainingJob"]) <= 60
    assert sum(done["TrainingJobStatusCounters"].values()) < 40
    done = tuned(workshop, patient)
    assert done["HyperParameterTuningJobStatus"] == "Completed"
    assert done["TuningJobCompletionDetails"]["NumberOfTrainingJobsObjectiveNotImproving"] >= 3


def test_a_warm_start_knows_what_its_parents_found(workshop: Workshop) -> None:
    defined = definition(workshop)
    parent = tune(workshop, config("Random", 6, 3, RandomSeed=1), defined)
    before = tuned(workshop, parent)
    warm = {
        "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": parent}],
        "WarmStartType": "IdenticalDataAndAlgorithm",
    }
    name = tune(workshop, config("Bayesian", 2, 1, RandomSeed=1), defined, WarmStartConfig=warm)
    done = tuned(workshop, name)
    assert done["WarmStartConfig"] == warm
    overall = done["OverallBestTrainingJob"]
    assert value(overall) == min(value(before["BestTrainingJob"]), value(done["BestTrainingJob"]))
    other = {**defined, "StaticHyperParameters": {**defined["StaticHyperParameters"], "more": "1"}}
    assert "other hyperparameters" in refused(workshop, config(), other, WarmStartConfig=warm)["Message"]
    greedy = config(HyperParameterTuningJobObjective={"Type": "Maximize", "MetricName": "loss"})
    assert "another objective" in refused(workshop, greedy, defined, WarmStartConfig=warm)["Message"]
    assert "needs the strategy" in refused(workshop, config("Hyperband"), {
        **defined, "StaticHyperParameters": {**defined["StaticHyperParameters"], "epochs": "3"}
    }, WarmStartConfig=warm)["Message"]  # fmt: skip


def test_several_definitions_take_turns_and_autotune_fills_in(workshop: Workshop) -> None:
    defined = definition(workshop)
    near = {"ContinuousParameterRanges": [{"Name": "at", "MinValue": "2.9", "MaxValue": "3.1"}]}
    far = {"AutoParameters": [{"Name": "at", "ValueHint": "70.0"}]}
    aim = {"Type": "Minimize", "MetricName": "loss"}
    configured = config(most=4)
    del configured["ParameterRanges"], configured["HyperParameterTuningJobObjective"]
    name = tune(
        workshop,
        configured,
        Autotune={"Mode": "Enabled"},
        TrainingJobDefinitions=[
            {**defined, "DefinitionName": "near", "TuningObjective": aim, "HyperParameterRanges": near},
            {**defined, "DefinitionName": "far", "TuningObjective": aim, "HyperParameterRanges": far},
        ],
    )
    done = tuned(workshop, name)
    assert done["HyperParameterTuningJobStatus"] == "Completed", done
    assert done["HyperParameterTuningJobConfig"]["TrainingJobEarlyStoppingType"] == "Auto"
    every = trials(workshop, name)
    assert [one["TrainingJobDefinitionName"] for one in every] == ["near", "far", "near", "far"]
    assert all(7 <= float(one["TunedHyperParameters"]["at"]) <= 700 for one in every[1::2])
    assert done["BestTrainingJob"]["TrainingJobDefinitionName"] == "near"


@pytest.mark.control("EXP-15")
def test_who_may_tune_needs_the_role_and_nothing_else(workshop: Workshop) -> None:
    """The training jobs are SageMaker's: no permission to make them is needed, none to hand their tags on is asked, and the
    record names the service. Nobody else can act like it."""
    account = workshop.account
    passing = {
        "Effect": "Allow",
        "Action": "iam:PassRole",
        "Resource": workshop.role,
        "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
    }
    tuning = {
        "Effect": "Allow",
        "Action": ["sagemaker:*HyperParameterTuningJob*", "sagemaker:AddTags"],
        "Resource": "*",
    }
    account.role("Tuner", {"Version": "2012-10-17", "Statement": [tuning, passing]})
    account.role("Roleless", {"Version": "2012-10-17", "Statement": [tuning]})
    insider, roleless = account.as_role("Tuner"), account.as_role("Roleless")
    given = {
        "HyperParameterTuningJobName": workshop.name("tune"),
        "HyperParameterTuningJobConfig": config(most=2),
        "TrainingJobDefinition": definition(workshop),
        "Tags": [{"Key": "team", "Value": "red"}],
    }
    with pytest.raises(botocore.exceptions.ClientError, match="iam:PassRole"):
        account.client("sagemaker", keys=roleless).create_hyper_parameter_tuning_job(**given)
    client = account.client("sagemaker", keys=insider)
    client.create_hyper_parameter_tuning_job(**given)
    done = tuned(workshop, given["HyperParameterTuningJobName"])
    assert done["HyperParameterTuningJobStatus"] == "Completed", done.get("FailureReason")
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        client.describe_training_job(TrainingJobName=done["BestTrainingJob"]["TrainingJobName"])
    events = account.client("cloudtrail").lookup_events(
        LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "CreateTrainingJob"}]
    )["Events"]
    told = [json.loads(one["CloudTrailEvent"]) for one in events]
    assert len(told) == 2
    for one in told:
        assert one["userIdentity"] == {"type": "AWSService", "invokedBy": "sagemaker.amazonaws.com"}
        assert one["requestParameters"]["trainingJobName"].startswith(given["HyperParameterTuningJobName"])

"""A built-in algorithm brings its own metrics, and a tuning job searches by them."""

from __future__ import annotations

import random

import pytest

from tests.stories.sagemaker.conftest import Workshop
from tests.stories.sagemaker.plain import XGBOOST
from tests.stories.sagemaker.test_tuning import config, definition, refused, trials, tune, tuned, value


@pytest.mark.control("EXP-15")
def test_a_built_in_algorithm_is_searched_by_its_own_metric(workshop: Workshop) -> None:
    source = random.Random(1)
    rows = [(3 * x + source.gauss(0, 0.1), x) for x in (source.random() for _ in range(200))]
    channels = []
    for name, part in (("train", rows[:150]), ("validation", rows[150:])):
        text = "".join(f"{y},{x}\n" for y, x in part)
        workshop.s3.put_object(Bucket=workshop.bucket, Key=f"{name}/a.csv", Body=text.encode())
        at = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{workshop.bucket}/{name}/"}
        channels.append({"ChannelName": name, "ContentType": "text/csv", "DataSource": {"S3DataSource": at}})
    defined = definition(
        workshop,
        AlgorithmSpecification={"TrainingImage": XGBOOST, "TrainingInputMode": "File"},
        StaticHyperParameters={"objective": "reg:squarederror", "num_round": "20"},
        InputDataConfig=channels,
    )
    configured = config(
        "Random",
        2,
        2,
        HyperParameterTuningJobObjective={"Type": "Minimize", "MetricName": "validation:rmse"},
        ParameterRanges={"ContinuousParameterRanges": [{"Name": "eta", "MinValue": "0.001", "MaxValue": "0.5"}]},
    )
    name = tune(workshop, configured, defined)
    done = tuned(workshop, name)
    assert done["HyperParameterTuningJobStatus"] == "Completed", done.get("FailureReason")
    every = trials(workshop, name)
    assert value(done["BestTrainingJob"]) == min(map(value, every))
    other = {**configured, "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"}}
    assert "neither among" in refused(workshop, other, defined)["Message"]

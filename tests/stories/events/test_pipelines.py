"""Executions of pipelines and their steps are told and counted, status by status."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from tests.moved import until
from tests.platform import Account
from tests.stories.events.test_events import arrived, watched
from tests.stories.sagemaker.conftest import workshop_of
from tests.stories.sagemaker.pipelines import create, definition, furnish, over, process, start, steps
from tests.stories.sagemaker.test_metrics import sums

EXECUTION = "SageMaker Model Building Pipeline Execution Status Change"
STEP = "SageMaker Model Building Pipeline Execution Step Status Change"


@pytest.mark.control("MON-01")
@pytest.mark.control("MON-06", lacking="tuning and labeling jobs")
def test_executions_and_steps_are_told_and_counted(account: Account) -> None:
    shop = workshop_of(account)
    furnish(shop)
    watched(account, "all", {"source": ["aws.sagemaker"], "detail-type": [EXECUTION, STEP]})
    watched(account, "failed", {"detail-type": [STEP], "detail": {"currentStepStatus": ["Failed"]}})
    fail = {"Name": "Enough", "Type": "Fail", "DependsOn": ["Make"], "Arguments": {"ErrorMessage": "enough"}}
    pipeline = create(shop, "lines", definition(process(shop, "Make", "print(1)"), fail))
    arn = start(shop, "lines", PipelineExecutionDisplayName="first")
    assert over(shop, arn)["PipelineExecutionStatus"] == "Failed"
    job = steps(shop, arn)["Make"]["Metadata"]["ProcessingJob"]["Arn"]

    def of(kind: str) -> list[dict[str, Any]]:
        return [one["detail"] for one in arrived(account, "all") if one["detail-type"] == kind]

    until(lambda: len(of(EXECUTION)) == 2 and len(of(STEP)) == 5)
    began, ended = sorted(of(EXECUTION), key=lambda one: "executionEndTime" in one)
    assert began["currentPipelineExecutionStatus"] == "Executing" and "previousPipelineExecutionStatus" not in began
    assert (ended["previousPipelineExecutionStatus"], ended["currentPipelineExecutionStatus"]) == (
        "Executing",
        "Failed",
    )
    assert ended["pipelineExecutionDisplayName"] == "first" and ended["executionStartTime"] <= ended["executionEndTime"]
    assert arrived(account, "all")[0]["resources"] == [pipeline, arn]
    make = [one for one in of(STEP) if one["stepName"] == "Make"]
    assert {(one.get("previousStepStatus"), one["currentStepStatus"]) for one in make} == {
        (None, "Starting"), ("Starting", "Executing"), ("Executing", "Succeeded"),
    }  # fmt: skip
    last = next(one for one in make if one["currentStepStatus"] == "Succeeded")
    assert last["metadata"] == {"processingJob": {"arn": job}} and last["stepType"] == "Processing"
    [failed] = arrived(account, "failed")
    assert failed["detail"]["failureReason"] == "enough" and failed["detail"]["pipelineExecutionArn"] == arn
    watch, space = account.client("cloudwatch"), "AWS/Sagemaker/ModelBuildingPipeline"

    def count(name: str, **dimensions: str) -> float:
        return sums(watch, space, name, {"PipelineName": "lines", **dimensions}, "Sum").get("Sum", 0)

    until(lambda: count("ExecutionFailed") == 1)
    assert count("ExecutionStarted") == 1 and count("ExecutionSucceeded") == 0
    assert count("ExecutionDuration") >= count("StepDuration", StepName="Make") > 0
    assert [count(f"Step{one}", StepName="Make") for one in ("Started", "Succeeded", "Failed")] == [1, 1, 0]
    assert count("StepFailed", StepName="Enough") == 1
    metric = {"Namespace": space, "MetricName": "StepFailed"}
    dimensions = [{"Name": "PipelineName", "Value": "lines"}, {"Name": "StepName", "Value": "Enough"}]
    stat = {"Metric": {**metric, "Dimensions": dimensions}, "Period": 60, "Stat": "Sum"}
    now = datetime.datetime.now(datetime.UTC)
    [series] = watch.get_metric_data(
        MetricDataQueries=[{"Id": "failed", "MetricStat": stat}],
        StartTime=now - datetime.timedelta(minutes=10),
        EndTime=now + datetime.timedelta(minutes=2),
    )["MetricDataResults"]
    assert series["Values"] == [1]

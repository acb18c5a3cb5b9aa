"""The platform is killed wherever an execution of a monitoring schedule stands: it looks once, at what was captured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.crash.points import around
from tests.platform import Account, Running
from tests.stories.sagemaker.conftest import Workshop, workshop_of
from tests.stories.sagemaker.test_monitor_images import ANALYZER, OUT
from tests.waiting import until

POINTS = ["monitoring/launch:after", *around("monitoring", "work", "settle")[1:]]


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A platform of its own, for it is to die."""
    running = Running(tmp_path_factory.mktemp("crash") / "data")
    running.start()
    running.found()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def member(crashing: Running) -> Account:
    return crashing.account()


@pytest.fixture(scope="module")
def workshop(member: Account) -> Workshop:
    return workshop_of(member)


@pytest.mark.parametrize("point", POINTS)
def test_what_was_captured_is_looked_at_once(
    crashing: Running, member: Account, workshop: Workshop, point: str
) -> None:
    crashing.stop()
    crashing.launch(BASTIDE_TEST_KILL_AT=point)
    workshop.sagemaker, workshop.s3 = member.client("sagemaker"), member.client("s3")
    name, bucket = workshop.name("once"), workshop.bucket
    hour = datetime.now(UTC).strftime("%Y/%m/%d/%H")
    manifest = json.dumps([{"prefix": f"s3://{bucket}/rows/"}, "a.csv"]).encode()
    for key, body in (("rows/a.csv", b"a,b\n1,2\n3,4\n"), (f"{name}/input/{hour}/job.json", manifest)):
        workshop.s3.put_object(Bucket=bucket, Key=key, Body=body)
    given = {
        "DataCapturedDestinationS3Uri": f"s3://{bucket}/{name}",
        "DatasetFormat": {"Csv": {"Header": True}},
        "LocalPath": "/opt/ml/processing/input/data",
    }
    output = {"S3Uri": f"s3://{bucket}/reports", "LocalPath": OUT, "S3UploadMode": "EndOfJob"}
    cluster = {"InstanceCount": 1, "InstanceType": "ml.t3.medium", "VolumeSizeInGB": 1}
    now = {
        "ScheduleExpression": "NOW", "DataAnalysisStartTime": "-PT1H", "DataAnalysisEndTime": "-PT0H",
    }  # fmt: skip
    arn = workshop.sagemaker.create_monitoring_schedule(
        MonitoringScheduleName=name,
        MonitoringScheduleConfig={
            "ScheduleConfig": now,
            "MonitoringJobDefinition": {
                "MonitoringInputs": [{"BatchTransformInput": given}],
                "MonitoringOutputConfig": {"MonitoringOutputs": [{"S3Output": output}]},
                "MonitoringResources": {"ClusterConfig": cluster},
                "MonitoringAppSpecification": {"ImageUri": ANALYZER},
                "RoleArn": workshop.role,
            },
        },
    )["MonitoringScheduleArn"]
    assert crashing.process is not None
    assert crashing.process.wait(60) == -9
    crashing.kill()
    crashing.launch()
    sagemaker = workshop.sagemaker = member.client("sagemaker")

    def over() -> bool:
        found = sagemaker.list_monitoring_executions(MonitoringScheduleName=name)["MonitoringExecutionSummaries"]
        return bool(found) and found[0]["MonitoringExecutionStatus"] not in ("Pending", "InProgress")

    until(over)
    [execution] = sagemaker.list_monitoring_executions(MonitoringScheduleName=name)["MonitoringExecutionSummaries"]
    assert execution["MonitoringExecutionStatus"] == "Completed", execution.get("FailureReason")
    jobs = sagemaker.list_processing_jobs(NameContains="data-quality-monitoring", MaxResults=100)
    told = [
        sagemaker.describe_processing_job(ProcessingJobName=one["ProcessingJobName"])
        for one in jobs["ProcessingJobSummaries"]
    ]
    [job] = [one for one in told if one["MonitoringScheduleArn"] == arn]
    assert job["ProcessingJobArn"] == execution["ProcessingJobArn"]
    assert job["Environment"]["dataset_format"] == '{"csv":{"header":true}}'
    assert sagemaker.describe_monitoring_schedule(MonitoringScheduleName=name)["MonitoringScheduleStatus"] == "Stopped"
    day = datetime.fromtimestamp(execution["ScheduledTime"].timestamp(), UTC).strftime("%Y/%m/%d/%H")
    report = _report(member, bucket, f"reports/{name}/{day}/statistics.json")
    assert report["dataset"]["item_count"] == 2


def _report(member: Account, bucket: str, key: str) -> dict[str, dict[str, int]]:
    """A report, from wherever the platform is now."""
    body: bytes = member.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    found: dict[str, dict[str, int]] = json.loads(body)
    return found

"""Endpoints are monitored hour by hour, on a clock that is moved, by a program under the documented contract."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.moved import Moved, moved
from tests.platform import HOME, Account, allow
from tests.stories.sagemaker.conftest import Workshop, workshop_of
from tests.stories.sagemaker.serving import config, container, model, serve, until, variant
from tests.stories.sagemaker.test_monitor_images import ANALYZER, DATA, OUT, process
from tests.stories.sagemaker.test_monitor_images import ended as ended_job
from tests.stories.sagemaker.test_variants import _capture

HOUR = 3600 * 1_000_000
SCRIPT = b"""
import time
def preprocess_handler(record):
    values = [int(one) for one in record.endpoint_output.data.split()]
    if max(values) > 1000: time.sleep(3600)
    return [{"a": one} for one in values]
"""
SAME = "".join(f"{one}\n" for one in range(100))
"""What the model was trained with, and asked at first."""
ENOUGH = " " * (600 << 10)
"""Makes a call so large that what is captured of it is stored at once."""


@pytest.fixture
def here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moved]:
    running = moved(tmp_path_factory.mktemp("monitored"))
    platform = next(running)

    def clock(remove_tzinfo: bool = True) -> datetime:
        at = datetime.now(UTC) + timedelta(microseconds=platform.ahead)
        return at.replace(tzinfo=None) if remove_tzinfo else at

    for signer in ("botocore.auth", "botocore.crt.auth"):
        monkeypatch.setattr(f"{signer}.get_current_datetime", clock)  # callers' clocks move with the platform's
    yield platform
    yield from running


@pytest.fixture
def workshop(here: Moved) -> Iterator[Workshop]:
    made = workshop_of(Account(here, HOME, "home", here.administrator))  # whose keys do not end by the hour
    yield made
    for one in made.sagemaker.list_endpoints()["Endpoints"]:
        made.sagemaker.delete_endpoint(EndpointName=one["EndpointName"])


def _next_hour(here: Moved, minutes: int) -> int:
    """Moves the clock into the next hour, and tells when that hour began."""
    now = here.clock()
    begins = now - now % HOUR + HOUR
    here.ahead += begins + minutes * 60_000_000 - now
    return begins


def _folder(at: int) -> str:
    return datetime.fromtimestamp(at / 1_000_000, UTC).strftime("%Y/%m/%d/%H")


@pytest.mark.control("MON-10")
@pytest.mark.control("MON-11")
@pytest.mark.control("ENC-04")
def test_an_endpoint_is_monitored_by_the_hour(here: Moved, workshop: Workshop) -> None:
    sagemaker, s3, account = workshop.sagemaker, workshop.s3, workshop.account
    allowed = allow("s3:*", "logs:*", "kms:*", "cloudwatch:PutMetricData")
    workshop.role = account.role("Monitored", allowed, trust={"Service": "sagemaker.amazonaws.com"})
    key = account.client("kms").create_key()["KeyMetadata"]["Arn"]
    for name, body in (("prepare.py", SCRIPT), ("train/a.csv", f"a\n{SAME}".encode())):
        s3.put_object(Bucket=workshop.bucket, Key=f"m/{name}", Body=body)
    base = process(workshop, ANALYZER, {"dataset_format": '{"csv": {"header": true}}'}, dataset="m/train")
    model(workshop, "m", container(workshop, "A"))
    broken = container(workshop, "B")
    s3.put_object(Bucket=workshop.bucket, Key="models/B.tar.gz", Body=b"no archive")  # it need not answer
    model(workshop, "broken", broken)
    config(workshop, "unseen", variant("broken"))
    sagemaker.create_endpoint(EndpointName="unseen", EndpointConfigName="unseen")
    capture = _capture(workshop, KmsKeyId=key, CaptureContentTypeHeader={"CsvContentTypes": ["text/csv"]})
    config(workshop, "c", variant("m"), DataCaptureConfig=capture)
    output = {"S3Uri": f"s3://{workshop.bucket}/reports", "LocalPath": OUT, "S3UploadMode": "EndOfJob"}
    cluster = {"InstanceCount": 1, "InstanceType": "ml.t3.medium", "VolumeSizeInGB": 1, "VolumeKmsKeyId": key}

    def define(name: str, endpoint: str, baseline: dict[str, Any]) -> dict[str, Any]:
        sagemaker.create_data_quality_job_definition(
            JobDefinitionName=name,
            DataQualityBaselineConfig=baseline,
            DataQualityAppSpecification={
                "ImageUri": ANALYZER,
                "RecordPreprocessorSourceUri": f"s3://{workshop.bucket}/m/prepare.py",
            },
            DataQualityJobInput={"EndpointInput": {"EndpointName": endpoint, "LocalPath": DATA}},
            DataQualityJobOutputConfig={"MonitoringOutputs": [{"S3Output": output}], "KmsKeyId": key},
            JobResources={"ClusterConfig": cluster},
            StoppingCondition={"MaxRuntimeInSeconds": 300},
            RoleArn=workshop.role,
        )
        return {"MonitoringJobDefinitionName": name, "MonitoringType": "DataQuality"}

    def judge() -> dict[str, Any]:
        """A definition of how right the model is."""
        limits = {"accuracy": {"threshold": 0.9, "comparison_operator": "LessThanThreshold"}}
        told = json.dumps({"version": 0.0, "binary_classification_constraints": limits})
        s3.put_object(Bucket=workshop.bucket, Key="m/constraints.json", Body=told.encode())
        sagemaker.create_model_quality_job_definition(
            JobDefinitionName="right",
            ModelQualityBaselineConfig={"ConstraintsResource": {"S3Uri": f"s3://{workshop.bucket}/m/constraints.json"}},
            ModelQualityAppSpecification={"ImageUri": ANALYZER, "ProblemType": "BinaryClassification"},
            ModelQualityJobInput={
                "EndpointInput": {"EndpointName": "e", "LocalPath": DATA, "InferenceAttribute": "0"},
                "GroundTruthS3Input": {"S3Uri": f"s3://{workshop.bucket}/truth"},
            },
            ModelQualityJobOutputConfig={"MonitoringOutputs": [{"S3Output": output}], "KmsKeyId": key},
            JobResources={"ClusterConfig": cluster},
            RoleArn=workshop.role,
        )
        return {"MonitoringJobDefinitionName": "right", "MonitoringType": "ModelQuality"}

    def turned_out(begins: int, **truths: int) -> None:
        """What was right of an hour's calls, by their inference ids."""
        lines = [
            {"groundTruthData": {"data": str(truth), "encoding": "CSV"}, "eventMetadata": {"eventId": id}}
            for id, truth in truths.items()
        ]
        body = "\n".join(json.dumps({**one, "eventVersion": "0"}) for one in lines).encode()
        s3.put_object(Bucket=workshop.bucket, Key=f"truth/{_folder(begins)}/truth.jsonl", Body=body)

    def schedule(what: dict[str, Any], expression: str = "cron(0 * ? * * *)", name: str = "s") -> str:
        made = sagemaker.create_monitoring_schedule(
            MonitoringScheduleName=name,
            MonitoringScheduleConfig={"ScheduleConfig": {"ScheduleExpression": expression}, **what},
            Tags=[{"Key": "team", "Value": "red"}],
        )
        return str(made["MonitoringScheduleArn"])

    with pytest.raises(ClientError, match="Data capture is not enabled"):
        schedule(define("unseen", "unseen", {}))
    with pytest.raises(ClientError, match="Could not find endpoint"):
        schedule(define("nowhere", "nowhere", {}))
    invoke = serve(workshop, "c")
    for wrong in ("cron(30 * ? * * *)", "rate(1 hour)"):
        with pytest.raises(ClientError, match="Invalid ScheduleExpression"):
            schedule(define(f"wrong-{wrong[:4]}", "e", {}), wrong)
    assert ended_job(workshop, base)["ExitMessage"] == "Completed: Job completed successfully."
    hourly = define("d", "e", {"BaseliningJobName": base})
    with pytest.raises(ClientError, match="DataAnalysisStartTime and DataAnalysisEndTime are needed"):
        schedule(hourly, "NOW")

    # A guardrail on a schedule holds for the definition that it only names.
    guard = allow("sagemaker:*")
    outside = {"Null": {"sagemaker:VpcSubnets": "true"}}
    guard["Statement"].append(
        {"Effect": "Deny", "Action": "sagemaker:CreateMonitoringSchedule", "Resource": "*", "Condition": outside}
    )
    account.role("Bound", guard)
    sagemaker = account.client("sagemaker", account.as_role("Bound"))
    with pytest.raises(ClientError, match="AccessDenied"):
        schedule(hourly)
    sagemaker = workshop.sagemaker

    def executions(name: str = "s", **more: Any) -> list[dict[str, Any]]:
        found = sagemaker.list_monitoring_executions(MonitoringScheduleName=name, **more)
        return list(found["MonitoringExecutionSummaries"])

    def ended(count: int, name: str = "s") -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = executions(name)
            status = found[0]["MonitoringExecutionStatus"] if len(found) == count else "Pending"
            return found[0] if status not in ("Pending", "InProgress") else None

        return until(look, told=executions)

    def ask(begins: int, text: str) -> None:
        """Has a call of this hour captured."""
        invoke((text + ENOUGH).encode(), ContentType="text/csv")
        where = {"Bucket": workshop.bucket, "Prefix": f"captured/e/AllTraffic/{_folder(begins)}/"}

        def stored() -> list[dict[str, Any]]:
            """What holds the call, and with it what was captured before."""
            return [one for one in s3.list_objects_v2(**where).get("Contents", []) if one["Size"] > len(ENOUGH)]

        [captured] = until(stored)
        assert s3.head_object(Bucket=workshop.bucket, Key=captured["Key"])["SSEKMSKeyId"] == key

    begins = _next_hour(here, 10)
    arn = schedule(hourly)
    assert sagemaker.describe_monitoring_schedule(MonitoringScheduleName="s")["MonitoringScheduleStatus"] == "Scheduled"
    with pytest.raises(ClientError, match="monitoring schedules look at it"):
        sagemaker.delete_endpoint(EndpointName="e")
    ask(begins, SAME)
    due = _next_hour(here, 10)
    first = ended(1)
    assert first["MonitoringExecutionStatus"] == "Completed", first.get("FailureReason")
    assert first["ScheduledTime"].timestamp() * 1_000_000 == due
    name = first["ProcessingJobArn"].rpartition("/")[2]
    job = sagemaker.describe_processing_job(ProcessingJobName=name)
    assert (job["MonitoringScheduleArn"], job["RoleArn"]) == (arn, workshop.role)
    assert job["ExitMessage"] == "Completed: Job completed successfully with no violations."
    assert sagemaker.list_tags(ResourceArn=job["ProcessingJobArn"])["Tags"] == [{"Key": "team", "Value": "red"}]
    report = f"reports/e/s/{_folder(due)}"
    assert s3.head_object(Bucket=workshop.bucket, Key=f"{report}/statistics.json")["SSEKMSKeyId"] == key
    told = {
        "dataset_source": DATA,
        "dataset_format": '{"sagemakerCaptureJson":{"captureIndexNames":["endpointInput","endpointOutput"]}}',
        "output_path": OUT,
        "publish_cloudwatch_metrics": "Enabled",
        "sagemaker_endpoint_name": "e",
        "sagemaker_monitoring_schedule_name": "s",
        "baseline_constraints": "/opt/ml/processing/baseline/constraints/constraints.json",
        "baseline_statistics": "/opt/ml/processing/baseline/stats/statistics.json",
        "start_time": datetime.fromtimestamp(begins / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "end_time": datetime.fromtimestamp(due / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    assert {name: job["Environment"].get(name) for name in told} == told
    # What is asked now is not like the baseline: the run says so, and an alarm hears of it.
    watch = account.client("cloudwatch")
    watch.put_metric_alarm(
        AlarmName="drift", Namespace="aws/sagemaker/Endpoints/data-metrics", MetricName="feature_baseline_drift_a",
        Dimensions=[{"Name": "Endpoint", "Value": "e"}, {"Name": "MonitoringSchedule", "Value": "s"}],
        Statistic="Maximum", Period=3600, EvaluationPeriods=1, Threshold=0.1,
        ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    schedule(judge(), name="q")
    for id, answer in (("a", 1), ("b", 0), ("c", 1), ("d", 1)):
        invoke(f"{answer}".encode(), ContentType="text/csv", InferenceId=id)
    turned_out(due, a=1, b=1, c=1, d=0, nobody=1)
    ask(due, "".join(f"{one + 500}\n" for one in range(100)))
    due = _next_hour(here, 10)
    assert ended(2)["MonitoringExecutionStatus"] == "CompletedWithViolations"
    found = s3.get_object(Bucket=workshop.bucket, Key=f"reports/e/s/{_folder(due)}/constraint_violations.json")
    [violation] = json.loads(found["Body"].read())["violations"]
    assert (violation["feature_name"], violation["constraint_check_type"]) == ("a", "baseline_drift_check")
    until(lambda: watch.describe_alarms(AlarmNames=["drift"])["MetricAlarms"][0]["StateValue"] == "ALARM")
    # Half of what the model said turned out to be right; nobody knows of the other calls, and an id of no call is ignored.
    assert ended(1, "q")["MonitoringExecutionStatus"] == "CompletedWithViolations"
    found = s3.get_object(Bucket=workshop.bucket, Key=f"reports/e/q/{_folder(due)}/statistics.json")
    judged = json.loads(found["Body"].read())
    assert judged["dataset"]["item_count"] == 4
    assert judged["binary_classification_metrics"]["accuracy"]["value"] == 0.5
    found = s3.get_object(Bucket=workshop.bucket, Key=f"reports/e/q/{_folder(due)}/constraint_violations.json")
    assert [one["metric_name"] for one in json.loads(found["Body"].read())["violations"]] == ["accuracy"]
    # While it is looked at nothing is deleted. Whoever stops the job ends the execution.
    ask(due, "5000\n")
    due = _next_hour(here, 10)
    running = until(lambda: (found := executions(StatusEquals="InProgress")) and found[0], told=executions)
    with pytest.raises(ClientError, match="execution in progress"):
        sagemaker.delete_monitoring_schedule(MonitoringScheduleName="s")
    sagemaker.stop_processing_job(ProcessingJobName=running["ProcessingJobArn"].rpartition("/")[2])
    assert ended(3)["MonitoringExecutionStatus"] == "Stopped"
    assert ended(2, "q")["FailureReason"].startswith("No merged data")  # nobody knows yet
    sagemaker.delete_monitoring_schedule(MonitoringScheduleName="q")
    # A role that may not use the key any more: the run fails, and nothing is reported, nor captured.
    ask(due, SAME)
    lesser = json.dumps(allow("s3:*", "logs:*"))
    account.client("iam").put_role_policy(RoleName="Monitored", PolicyName="inline", PolicyDocument=lesser)
    invoke((SAME + ENOUGH).encode(), ContentType="text/csv")
    due = _next_hour(here, 10)
    failed = ended(4)
    assert (failed["MonitoringExecutionStatus"], "kms:" in failed["FailureReason"]) == ("Failed", True), failed
    assert "Contents" not in s3.list_objects_v2(Bucket=workshop.bucket, Prefix=f"reports/e/s/{_folder(due)}")
    log = {"logGroupName": "/aws/sagemaker/Endpoints/e", "logStreamNamePrefix": "AllTraffic/data-capture"}
    told = until(lambda: account.client("logs").filter_log_events(**log)["events"])
    assert "cannot be written" in told[0]["message"] and "kms:" in told[0]["message"]
    # Nobody asked: there is nothing to look at. Hours that were missed are not made up for, each is looked at once.
    sagemaker.stop_monitoring_schedule(MonitoringScheduleName="s")
    _next_hour(here, 10)
    sagemaker.start_monitoring_schedule(MonitoringScheduleName="s")
    here.ahead += 3 * HOUR
    assert ended(5)["FailureReason"] == "Job inputs had no data"
    times = [one["ScheduledTime"] for one in executions(SortBy="ScheduledTime", SortOrder="Ascending")]
    assert times == sorted(set(times))
    assert len(executions(StatusEquals="CompletedWithViolations")) == 1
    summary = sagemaker.describe_monitoring_schedule(MonitoringScheduleName="s")["LastMonitoringExecutionSummary"]
    assert (summary["MonitoringExecutionStatus"], summary["MonitoringType"]) == ("Failed", "DataQuality")
    sagemaker.delete_monitoring_schedule(MonitoringScheduleName="s")
    with pytest.raises(sagemaker.exceptions.ResourceNotFound):
        sagemaker.describe_monitoring_schedule(MonitoringScheduleName="s")
    assert len(executions()) == 5

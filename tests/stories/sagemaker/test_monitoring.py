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
from tests.stories.sagemaker.conftest import IMAGE, Workshop, workshop_of
from tests.stories.sagemaker.serving import config, container, model, serve, until, variant
from tests.stories.sagemaker.test_variants import _capture

HOUR = 3600 * 1_000_000
ANALYSIS = """
import json, os, pathlib, time, boto3
env = os.environ
values = []
source = pathlib.Path(env["dataset_source"])
for file in sorted(source.rglob("*.jsonl")):
    for line in file.read_text().splitlines():
        values.append(float(json.loads(line)["captureData"]["endpointInput"]["data"].split(",")[0]))
most = json.load(open(env["baseline_constraints"]))["most"]
over = [one for one in values if one > most]
if over:
    s3 = boto3.client("s3", endpoint_url=env["AWS_ENDPOINT_URL"], verify=env.get("AWS_CA_BUNDLE"))
    while not s3.list_objects_v2(Bucket=env["BUCKET"], Prefix="go").get("Contents"): time.sleep(0.1)
told = {"violations": [{"feature_name": "a", "constraint_check_type": "baseline_drift_check"}] if over else []}
names = sorted({str(one.relative_to(source).parent) for one in source.rglob("*.jsonl")})
report = pathlib.Path(env["output_path"])
(report / "constraint_violations.json").write_text(json.dumps(told))
(report / "seen.json").write_text(json.dumps({"values": values, "folders": names, "env": dict(env)}))
metrics = pathlib.Path("/opt/ml/output/metrics/cloudwatch")
metrics.mkdir(parents=True, exist_ok=True)
dimensions = [{"Name": "Endpoint", "Value": env["sagemaker_endpoint_name"]},
              {"Name": "MonitoringSchedule", "Value": env["sagemaker_monitoring_schedule_name"]}]
datum = {"MetricName": "feature_baseline_drift_a", "Timestamp": env["start_time"], "Value": len(over)}
datum["Dimensions"] = dimensions
(metrics / "cloudwatch_metrics.jsonl").write_text(json.dumps(datum) + "\\n")
text = f"CompletedWithViolations: Job completed successfully with {len(over)} violations." if over else "Completed: fine."
pathlib.Path("/opt/ml/output/message").write_text(text)
"""


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


@pytest.mark.control("ENC-04")
def test_an_endpoint_is_monitored_by_the_hour(here: Moved, workshop: Workshop) -> None:
    sagemaker, s3, account = workshop.sagemaker, workshop.s3, workshop.account
    allowed = allow("s3:*", "logs:*", "kms:*", "cloudwatch:PutMetricData")
    workshop.role = account.role("Monitored", allowed, trust={"Service": "sagemaker.amazonaws.com"})
    key = account.client("kms").create_key()["KeyMetadata"]["Arn"]
    model(workshop, "m", container(workshop, "A"))
    config(workshop, "unseen", variant("m"))
    sagemaker.create_endpoint(EndpointName="unseen", EndpointConfigName="unseen")
    capture = _capture(workshop, KmsKeyId=key, CaptureContentTypeHeader={"CsvContentTypes": ["text/csv"]})
    config(workshop, "c", variant("m"), DataCaptureConfig=capture)
    for name, body in (("analysis.py", ANALYSIS), ("constraints.json", json.dumps({"most": 10}))):
        s3.put_object(Bucket=workshop.bucket, Key=f"m/{name}", Body=body.encode())
    at = f"s3://{workshop.bucket}/m"
    definition = {
        "BaselineConfig": {"ConstraintsResource": {"S3Uri": f"{at}/constraints.json"}},
        "MonitoringInputs": [
            {"EndpointInput": {"EndpointName": "e", "LocalPath": "/opt/ml/processing/input/endpoint"}}
        ],
        "MonitoringOutputConfig": {
            "MonitoringOutputs": [{"S3Output": {"S3Uri": f"{at}/reports", "LocalPath": "/opt/ml/processing/output"}}],
            "KmsKeyId": key,
        },
        "MonitoringResources": {
            "ClusterConfig": {
                "InstanceCount": 1, "InstanceType": "ml.t3.medium", "VolumeSizeInGB": 1, "VolumeKmsKeyId": key,
            }
        },
        "MonitoringAppSpecification": {
            "ImageUri": IMAGE,
            "ContainerEntrypoint": ["python3", "/opt/ml/processing/code/preprocessing/analysis.py"],
            "RecordPreprocessorSourceUri": f"{at}/analysis.py",
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 300},
        "Environment": {"BUCKET": workshop.bucket},
        "RoleArn": workshop.role,
    }  # fmt: skip
    hourly = {"ScheduleConfig": {"ScheduleExpression": "cron(0 * ? * * *)"}, "MonitoringJobDefinition": definition}

    def schedule(name: str, **more: Any) -> str:
        made = sagemaker.create_monitoring_schedule(MonitoringScheduleName=name, MonitoringScheduleConfig=hourly | more)
        return str(made["MonitoringScheduleArn"])

    other = [{"EndpointInput": {"EndpointName": "unseen", "LocalPath": "/opt/ml/processing/input/endpoint"}}]
    with pytest.raises(ClientError, match="Data capture is not enabled"):
        schedule("s", MonitoringJobDefinition={**definition, "MonitoringInputs": other})
    with pytest.raises(ClientError, match="Could not find endpoint"):
        schedule("s")
    invoke = serve(workshop, "c")
    for wrong in ("cron(30 * ? * * *)", "rate(1 hour)"):
        with pytest.raises(ClientError, match="Invalid ScheduleExpression"):
            schedule("s", ScheduleConfig={"ScheduleExpression": wrong})
    with pytest.raises(ClientError, match="DataAnalysisStartTime and DataAnalysisEndTime are needed"):
        schedule("s", ScheduleConfig={"ScheduleExpression": "NOW"})

    def executions(**more: Any) -> list[dict[str, Any]]:
        found = sagemaker.list_monitoring_executions(MonitoringScheduleName="s", **more)
        return list(found["MonitoringExecutionSummaries"])

    def ended(count: int) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = executions()
            status = found[0]["MonitoringExecutionStatus"] if len(found) == count else "Pending"
            return found[0] if status not in ("Pending", "InProgress") else None

        return until(look, told=executions)

    def ask(begins: int, *bodies: bytes) -> None:
        """Has an hour of the endpoint's calls captured."""
        for body in bodies:
            invoke(body, ContentType="text/csv")
        where = {"Bucket": workshop.bucket, "Prefix": f"captured/e/AllTraffic/{_folder(begins)}/"}

        def lines() -> bool:
            found = s3.list_objects_v2(**where).get("Contents", [])
            read = [s3.get_object(Bucket=workshop.bucket, Key=one["Key"])["Body"].read() for one in found]
            return sum(len(one.splitlines()) for one in read) == len(bodies)

        until(lines)

    begins = _next_hour(here, 10)
    arn = schedule("s")
    assert sagemaker.describe_monitoring_schedule(MonitoringScheduleName="s")["MonitoringScheduleStatus"] == "Scheduled"
    with pytest.raises(ClientError, match="monitoring schedules look at it"):
        sagemaker.delete_endpoint(EndpointName="e")
    ask(begins, b"1,2", b"3,4")
    due = _next_hour(here, 10)
    first = ended(1)
    assert first["MonitoringExecutionStatus"] == "Completed", first.get("FailureReason")
    assert first["ScheduledTime"].timestamp() * 1_000_000 == due
    job = sagemaker.describe_processing_job(ProcessingJobName=first["ProcessingJobArn"].rpartition("/")[2])
    assert (job["MonitoringScheduleArn"], job["ExitMessage"], job["RoleArn"]) == (
        arn,
        "Completed: fine.",
        workshop.role,
    )
    report = f"m/reports/e/s/{_folder(due)}"
    seen = json.loads(s3.get_object(Bucket=workshop.bucket, Key=f"{report}/seen.json")["Body"].read())
    assert (seen["values"], seen["folders"]) == ([1.0, 3.0], [f"e/AllTraffic/{_folder(begins)}"])
    told = {
        "dataset_source": "/opt/ml/processing/input/endpoint",
        "dataset_format": '{"sagemakerCaptureJson":{"captureIndexNames":["endpointInput","endpointOutput"]}}',
        "output_path": "/opt/ml/processing/output",
        "publish_cloudwatch_metrics": "Enabled",
        "sagemaker_endpoint_name": "e",
        "sagemaker_monitoring_schedule_name": "s",
        "baseline_constraints": "/opt/ml/processing/baseline/constraints/constraints.json",
        "start_time": datetime.fromtimestamp(begins / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "end_time": datetime.fromtimestamp(due / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    assert {name: seen["env"].get(name) for name in told} == told
    assert s3.head_object(Bucket=workshop.bucket, Key=f"{report}/seen.json")["SSEKMSKeyId"] == key
    # What is asked now is not like the baseline: the run says so, and an alarm hears of it.
    dimensions = [{"Name": "Endpoint", "Value": "e"}, {"Name": "MonitoringSchedule", "Value": "s"}]
    watch = account.client("cloudwatch")
    watch.put_metric_alarm(
        AlarmName="drift", Namespace="aws/sagemaker/Endpoints/data-metrics", MetricName="feature_baseline_drift_a",
        Dimensions=dimensions, Statistic="Maximum", Period=3600, EvaluationPeriods=1, Threshold=0,
        ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    ask(due, b"100,2")
    due = _next_hour(here, 10)
    until(lambda: executions()[0]["MonitoringExecutionStatus"] == "InProgress", told=executions)
    with pytest.raises(ClientError, match="execution in progress"):
        sagemaker.delete_monitoring_schedule(MonitoringScheduleName="s")
    s3.put_object(Bucket=workshop.bucket, Key="go", Body=b"")
    assert ended(2)["MonitoringExecutionStatus"] == "CompletedWithViolations"
    violations = s3.get_object(Bucket=workshop.bucket, Key=f"m/reports/e/s/{_folder(due)}/constraint_violations.json")
    assert json.loads(violations["Body"].read())["violations"][0]["feature_name"] == "a"
    until(lambda: watch.describe_alarms(AlarmNames=["drift"])["MetricAlarms"][0]["StateValue"] == "ALARM")
    # A role that may not use the key any more: the run fails, and nothing is reported.
    ask(due, b"1,2")
    lesser = json.dumps(allow("s3:*", "logs:*"))
    account.client("iam").put_role_policy(RoleName="Monitored", PolicyName="inline", PolicyDocument=lesser)
    due = _next_hour(here, 10)
    failed = ended(3)
    assert (failed["MonitoringExecutionStatus"], "kms:" in failed["FailureReason"]) == ("Failed", True), failed
    assert "Contents" not in s3.list_objects_v2(Bucket=workshop.bucket, Prefix=f"m/reports/e/s/{_folder(due)}")
    # Nobody asked: there is nothing to look at. Hours that were missed are not made up for, each is looked at once.
    sagemaker.stop_monitoring_schedule(MonitoringScheduleName="s")
    _next_hour(here, 10)
    sagemaker.start_monitoring_schedule(MonitoringScheduleName="s")
    account.client("iam").put_role_policy(RoleName="Monitored", PolicyName="inline", PolicyDocument=json.dumps(allowed))
    here.ahead += 3 * HOUR
    assert ended(4)["FailureReason"] == "Job inputs had no data"
    times = [one["ScheduledTime"] for one in executions(SortBy="ScheduledTime", SortOrder="Ascending")]
    assert times == sorted(set(times))
    violated = executions(StatusEquals="CompletedWithViolations")
    assert [one["MonitoringScheduleName"] for one in violated] == ["s"]
    summary = sagemaker.describe_monitoring_schedule(MonitoringScheduleName="s")["LastMonitoringExecutionSummary"]
    assert summary["MonitoringExecutionStatus"] == "Failed"
    sagemaker.delete_monitoring_schedule(MonitoringScheduleName="s")
    with pytest.raises(sagemaker.exceptions.ResourceNotFound):
        sagemaker.describe_monitoring_schedule(MonitoringScheduleName="s")
    assert len(executions()) == 4

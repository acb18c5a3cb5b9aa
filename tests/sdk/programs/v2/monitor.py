"""Captures what an endpoint is asked, computes a baseline, watches for drift."""

import pathlib
import tarfile
import time

import sagemaker
from sagemaker.deserializers import CSVDeserializer
from sagemaker.model_monitor import CronExpressionGenerator, DataCaptureConfig, DatasetFormat, DefaultModelMonitor
from sagemaker.s3 import S3Downloader
from sagemaker.serializers import CSVSerializer
from sagemaker.sklearn.model import SKLearnModel

INFERENCE = """
def model_fn(model_dir):
    return None

def input_fn(body, content_type):
    return body if isinstance(body, str) else body.decode()

def predict_fn(text, model):
    return "\\n".join(str(float(line.split(",")[0]) % 7) for line in text.splitlines())

def output_fn(prediction, accept):
    return prediction, "text/csv"
"""

session = sagemaker.Session()
role = sagemaker.get_execution_role()
bucket = session.default_bucket()
pathlib.Path("inference.py").write_text(INFERENCE)
pathlib.Path("nothing.json").write_text("{}")
with tarfile.open("model.tar.gz", "w:gz") as packed:
    packed.add("nothing.json")
predictor = SKLearnModel(
    model_data=session.upload_data("model.tar.gz", key_prefix="monitor"),
    role=role,
    entry_point="inference.py",
    framework_version="1.2-1",
).deploy(
    initial_instance_count=1,
    instance_type="ml.m5.large",
    serializer=CSVSerializer(),
    deserializer=CSVDeserializer(),
    data_capture_config=DataCaptureConfig(
        enable_capture=True,
        sampling_percentage=100,
        destination_s3_uri=f"s3://{bucket}/monitor/captured",
        csv_content_types=["text/csv"],
    ),
)
pathlib.Path("baseline.csv").write_text("left,a,b\n" + "".join(f"{one % 7}.0,{one},{one % 5}\n" for one in range(200)))
data = session.upload_data("baseline.csv", key_prefix="monitor")
monitor = DefaultModelMonitor(role=role, instance_count=1, instance_type="ml.m5.large", volume_size_in_gb=5)
monitor.suggest_baseline(
    baseline_dataset=data,
    dataset_format=DatasetFormat.csv(header=True),
    output_s3_uri=f"s3://{bucket}/monitor/baseline",
    wait=True,
    logs=False,
)
features = monitor.baseline_statistics().body_dict["features"]
assert [one["name"] for one in features] == ["left", "a", "b"]
assert monitor.suggested_constraints().body_dict["features"][0]["completeness"] == 1.0

# What is asked has drifted: b is ten times what it was.
answers = predictor.predict([[one, one % 5 * 10 + 100] for one in range(200)])
assert float(answers[8][0]) == 1.0, answers
until = time.monotonic() + 300
while not S3Downloader.list(f"s3://{bucket}/monitor/captured/{predictor.endpoint_name}"):
    assert time.monotonic() < until, "nothing is captured"
    time.sleep(1)
given = {
    "endpoint_input": predictor.endpoint_name,
    "output_s3_uri": f"s3://{bucket}/monitor/reports",
    "statistics": monitor.baseline_statistics(),
    "constraints": monitor.suggested_constraints(),
}
monitor.create_monitoring_schedule(
    monitor_schedule_name="once",
    schedule_cron_expression=CronExpressionGenerator.now(),
    data_analysis_start_time="-PT1H",
    data_analysis_end_time="-PT0H",
    **given,
)
while not (found := monitor.list_executions()) or found[-1].describe()["ProcessingJobStatus"] == "InProgress":
    assert time.monotonic() < until, "nothing is monitored"
    time.sleep(1)
assert found[-1].describe()["ExitMessage"].startswith("CompletedWithViolations"), found[-1].describe()
violations = monitor.latest_monitoring_constraint_violations().body_dict["violations"]
assert {"b"} <= {one["feature_name"] for one in violations}, violations
assert monitor.describe_schedule()["MonitoringScheduleStatus"] == "Stopped"
monitor.delete_monitoring_schedule()

hourly = DefaultModelMonitor(role=role, instance_count=1, instance_type="ml.m5.large", volume_size_in_gb=5)
hourly.create_monitoring_schedule(
    monitor_schedule_name="hourly", schedule_cron_expression=CronExpressionGenerator.hourly(), **given
)
assert hourly.describe_schedule()["MonitoringScheduleStatus"] == "Scheduled"
hourly.stop_monitoring_schedule()
hourly.start_monitoring_schedule()
hourly.update_monitoring_schedule(schedule_cron_expression=CronExpressionGenerator.daily(), max_runtime_in_seconds=1800)
assert hourly.describe_schedule()["MonitoringScheduleConfig"]["ScheduleConfig"]["ScheduleExpression"].startswith("cron")
assert [one.monitoring_schedule_name for one in predictor.list_monitors()] == ["hourly"]
hourly.delete_monitoring_schedule()
predictor.delete_endpoint()

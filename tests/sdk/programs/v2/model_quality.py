"""Holds what an endpoint answered against what turned out to be true."""

import json
import pathlib
import tarfile
import time
from datetime import UTC, datetime, timedelta

import sagemaker
from sagemaker.deserializers import CSVDeserializer
from sagemaker.model_monitor import (
    CronExpressionGenerator,
    DataCaptureConfig,
    DatasetFormat,
    EndpointInput,
    ModelQualityMonitor,
)
from sagemaker.s3 import S3Downloader, S3Uploader
from sagemaker.serializers import CSVSerializer
from sagemaker.sklearn.model import SKLearnModel

INFERENCE = """
def model_fn(model_dir):
    return None

def input_fn(body, content_type):
    return body if isinstance(body, str) else body.decode()

def predict_fn(text, model):
    return str(int(float(text.split(",")[0]) > 10))

def output_fn(prediction, accept):
    return prediction, "text/csv"
"""

session = sagemaker.Session()
role = sagemaker.get_execution_role()
base = f"s3://{session.default_bucket()}/quality"
pathlib.Path("inference.py").write_text(INFERENCE)
pathlib.Path("nothing.json").write_text("{}")
with tarfile.open("model.tar.gz", "w:gz") as packed:
    packed.add("nothing.json")
predictor = SKLearnModel(
    model_data=session.upload_data("model.tar.gz", key_prefix="quality"),
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
        destination_s3_uri=f"{base}/captured",
        csv_content_types=["text/csv"],
    ),
)
where = {"role": role, "instance_count": 1, "instance_type": "ml.m5.large", "volume_size_in_gb": 5}
monitor = ModelQualityMonitor(**where)
pathlib.Path("baseline.csv").write_text(
    "prediction,label\n" + "".join(f"{one % 2},{one % 2 if one % 10 else 1 - one % 2}\n" for one in range(100))
)
monitor.suggest_baseline(
    baseline_dataset=session.upload_data("baseline.csv", key_prefix="quality"),
    dataset_format=DatasetFormat.csv(header=True),
    output_s3_uri=f"{base}/baseline",
    problem_type="BinaryClassification",
    inference_attribute="prediction",
    ground_truth_attribute="label",
    wait=True,
    logs=False,
)
suggested = monitor.suggested_constraints().body_dict["binary_classification_constraints"]
assert suggested["accuracy"]["threshold"] == 0.9, suggested

# Every second answer turns out to be wrong, of two the truth is never known, and of one nothing was asked.
answers = [int(float(predictor.predict([one], inference_id=f"call-{one}")[0][0])) for one in range(20)]
assert sum(answers) == 9, answers
truths = {f"call-{one}": answers[one] if one % 2 else 1 - answers[one] for one in range(18)} | {"nobody": 1}
by_hand = sum(answers[one] == truths[f"call-{one}"] for one in range(18)) / 18
lines = [
    {"groundTruthData": {"data": str(truth), "encoding": "CSV"}, "eventMetadata": {"eventId": id}, "eventVersion": "0"}
    for id, truth in truths.items()
]
for hour in (datetime.now(UTC), datetime.now(UTC) - timedelta(hours=1)):
    target = f"{base}/truth/{hour:%Y/%m/%d/%H}/truth.jsonl"
    S3Uploader.upload_string_as_file_body("\n".join(map(json.dumps, lines)), target)
until = time.monotonic() + 300


def captured():
    files = S3Downloader.list(f"{base}/captured/{predictor.endpoint_name}")
    return sum(len(S3Downloader.read_file(one).splitlines()) for one in files)


while captured() < 20:
    assert time.monotonic() < until, "nothing is captured"
    time.sleep(1)
monitor.create_monitoring_schedule(
    monitor_schedule_name="quality",
    endpoint_input=EndpointInput(
        predictor.endpoint_name, "/opt/ml/processing/input_data", inference_attribute="0", start_time_offset="-PT1H"
    ),
    ground_truth_input=f"{base}/truth",
    problem_type="BinaryClassification",
    output_s3_uri=f"{base}/reports",
    constraints=monitor.suggested_constraints(),
    schedule_cron_expression=CronExpressionGenerator.now(),
    data_analysis_start_time="-PT1H",
    data_analysis_end_time="-PT0H",
)
client = session.sagemaker_client
while True:
    [found] = client.list_monitoring_executions(MonitoringScheduleName="quality")["MonitoringExecutionSummaries"] or [
        None
    ]
    if found and found["MonitoringExecutionStatus"] not in ("Pending", "InProgress"):
        break
    assert time.monotonic() < until, found
    time.sleep(1)
assert found["MonitoringExecutionStatus"] == "CompletedWithViolations", found
job = client.describe_processing_job(ProcessingJobName=found["ProcessingJobArn"].rpartition("/")[2])
assert job["Environment"]["analysis_type"] == "MODEL_QUALITY"
report = job["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"]
metrics = json.loads(S3Downloader.read_file(f"{report}/statistics.json"))["binary_classification_metrics"]
assert metrics["accuracy"]["value"] == by_hand == 0.5, metrics
violations = json.loads(S3Downloader.read_file(f"{report}/constraint_violations.json"))["violations"]
assert "accuracy" in {one["metric_name"] for one in violations}, violations
values = session.boto_session.client("cloudwatch").list_metrics(Namespace="aws/sagemaker/Endpoints/model-metrics")
assert "accuracy" in {one["MetricName"] for one in values["Metrics"]}, values
monitor.delete_monitoring_schedule()
predictor.delete_endpoint()

"""Captures what an endpoint is asked, computes a baseline, watches for drift."""

import pathlib

import sagemaker
from sagemaker.model_monitor import CronExpressionGenerator, DatasetFormat, DefaultModelMonitor

session = sagemaker.Session()
bucket = session.default_bucket()
pathlib.Path("baseline.csv").write_text("a,b\n" + "".join(f"{one},{one % 7}\n" for one in range(200)))
data = session.upload_data("baseline.csv", key_prefix="monitor")
monitor = DefaultModelMonitor(
    role=sagemaker.get_execution_role(), instance_count=1, instance_type="ml.m5.large", volume_size_in_gb=5
)
monitor.suggest_baseline(
    baseline_dataset=data,
    dataset_format=DatasetFormat.csv(header=True),
    output_s3_uri=f"s3://{bucket}/monitor/baseline",
    wait=True,
    logs=False,
)
features = monitor.baseline_statistics().body_dict["features"]
assert [one["name"] for one in features] == ["a", "b"]
assert monitor.suggested_constraints().body_dict["features"][0]["completeness"] == 1.0
monitor.create_monitoring_schedule(
    monitor_schedule_name="hourly",
    endpoint_input="an-endpoint",
    output_s3_uri=f"s3://{bucket}/monitor/reports",
    statistics=monitor.baseline_statistics(),
    constraints=monitor.suggested_constraints(),
    schedule_cron_expression=CronExpressionGenerator.hourly(),
)
assert monitor.describe_schedule()["MonitoringScheduleStatus"] == "Scheduled"
monitor.delete_monitoring_schedule()

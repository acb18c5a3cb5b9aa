"""Reads a training job's metrics as a table."""

import pathlib
import time

import sagemaker
from sagemaker.sklearn import SKLearn

pathlib.Path("train.py").write_text("for step in range(3): print(f'loss={1 / (step + 1):.3f};')\n")
estimator = SKLearn(
    entry_point="train.py",
    framework_version="1.2-1",
    instance_type="ml.m5.large",
    instance_count=1,
    role=sagemaker.get_execution_role(),
    metric_definitions=[{"Name": "loss", "Regex": "loss=([0-9.]+);"}],
)
estimator.fit(logs=False)
until = time.monotonic() + 60
while (frame := estimator.training_job_analytics.dataframe(force_refresh=True)).empty:
    assert time.monotonic() < until, "no metrics came"
    time.sleep(2)
print(frame)
assert set(frame["metric_name"]) == {"loss"}

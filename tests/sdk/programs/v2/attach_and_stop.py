"""Stops a job, comes back to it, and reads a failure's reason."""

import pathlib

import sagemaker
from sagemaker.exceptions import UnexpectedStatusException
from sagemaker.sklearn import SKLearn

session = sagemaker.Session()
pathlib.Path("slow.py").write_text("import time\nprint('begins')\ntime.sleep(100)\n")
pathlib.Path("bad.py").write_text("raise ValueError('the rows are not sorted')\n")
settings = {
    "framework_version": "1.2-1",
    "instance_type": "ml.m5.large",
    "instance_count": 1,
    "role": sagemaker.get_execution_role(),
}
slow = SKLearn(entry_point="slow.py", **settings)
slow.fit(wait=False)
name = slow.latest_training_job.name
slow.latest_training_job.stop()
again = SKLearn.attach(name)  # waits for it
assert again.entry_point == "slow.py"
assert session.describe_training_job(name)["TrainingJobStatus"] == "Stopped"
try:
    SKLearn(entry_point="bad.py", **settings).fit(logs=False)
    raise SystemExit("a failed job did not fail")
except UnexpectedStatusException as error:
    print("failed:", error)
    assert "the rows are not sorted" in str(error)

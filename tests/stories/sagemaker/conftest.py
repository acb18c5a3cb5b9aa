"""A bucket, an execution role, and short ways to run jobs."""

from __future__ import annotations

import io
import tarfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.platform import Account, allow

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"


def archive(**files: bytes) -> bytes:
    """A tar.gz; `__` in a name stands for a dot."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


@dataclass
class Workshop:
    """Where jobs of one account run."""

    account: Account
    bucket: str = ""
    role: str = ""
    sagemaker: Any = None
    s3: Any = None
    names: list[str] = field(default_factory=list)

    def name(self, what: str) -> str:
        return f"{what}-{uuid.uuid4().hex[:8]}"

    def train(self, script: str, **more: Any) -> str:
        """Starts a training job of a script; its name."""
        name = more.get("TrainingJobName") or self.name("job")
        self.s3.put_object(Bucket=self.bucket, Key=f"{name}/code.tar.gz", Body=archive(train__py=script.encode()))
        self.s3.put_object(Bucket=self.bucket, Key="data/part/a.csv", Body=b"1,2\n3,4\n")
        given = {
            "TrainingJobName": name,
            "AlgorithmSpecification": {
                "TrainingImage": IMAGE,
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "acc", "Regex": "acc=([0-9.]+)"}],
            },
            "RoleArn": self.role,
            "InputDataConfig": [
                {
                    "ChannelName": "train",
                    "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{self.bucket}/data/"}},
                }
            ],
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/out"},
            "ResourceConfig": {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
            "HyperParameters": {
                "sagemaker_program": '"train.py"',
                "sagemaker_submit_directory": f'"s3://{self.bucket}/{name}/code.tar.gz"',
                "lr": "0.1",
            },
            **more,
        }
        self.sagemaker.create_training_job(**given)
        return name

    def trained(self, name: str) -> dict[str, Any]:
        """The job when it is over."""
        until = time.monotonic() + 90
        while time.monotonic() < until:
            found: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=name)
            if found["TrainingJobStatus"] not in ("InProgress", "Stopping"):
                return found
            time.sleep(0.05)
        raise AssertionError(f"{name} does not end: {found}")

    def endpoint(self, name: str, *until_status: str) -> dict[str, Any]:
        """The endpoint when it has one of the statuses."""
        until = time.monotonic() + 90
        while time.monotonic() < until:
            found: dict[str, Any] = self.sagemaker.describe_endpoint(EndpointName=name)
            if found["EndpointStatus"] in until_status:
                return found
            time.sleep(0.05)
        raise AssertionError(f"{name} is not {until_status}: {found}")


def workshop_of(account: Account) -> Workshop:
    """A workshop in an account."""
    made = Workshop(account, sagemaker=account.client("sagemaker"), s3=account.client("s3"))
    made.bucket = f"work-{account.id}"
    made.s3.create_bucket(Bucket=made.bucket)
    made.role = account.role(
        "Execution", allow("s3:*", "logs:*", "kms:*"), trust={"Service": "sagemaker.amazonaws.com"}
    )
    return made


@pytest.fixture
def workshop(account: Account) -> Iterator[Workshop]:
    made = workshop_of(account)
    yield made
    for one in made.sagemaker.list_endpoints()["Endpoints"]:
        found = made.endpoint(one["EndpointName"], "InService", "OutOfService", "Failed", "Deleting")
        if found["EndpointStatus"] != "Deleting":
            made.sagemaker.delete_endpoint(EndpointName=one["EndpointName"])

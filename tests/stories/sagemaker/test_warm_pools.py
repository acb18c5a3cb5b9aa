"""Warm pools: instances of a job that has ended wait for the next one like it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import allow
from tests.stories.sagemaker.conftest import Workshop

RESOURCES: dict[str, Any] = {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}
LEAVE = """
import glob, os
assert not glob.glob('/opt/ml/model/*') and not glob.glob('/tmp/*') and not os.path.exists('/opt/ml/mine'), 'not fresh'
for path in ('/opt/ml/mine', '/opt/ml/model/m', '/tmp/mine'):
    open(path, 'w').write('mine')
"""


def pool(workshop: Workshop, name: str, *until: str) -> dict[str, Any]:
    """The warm pool of a job, when it has one of the statuses."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        found: dict[str, Any] = workshop.sagemaker.describe_training_job(TrainingJobName=name)["WarmPoolStatus"]
        if not until or found["Status"] in until:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{name} is not {until}: {found}")


def keep(workshop: Workshop, name: str, seconds: int) -> None:
    workshop.sagemaker.update_training_job(TrainingJobName=name, ResourceConfig={"KeepAlivePeriodInSeconds": seconds})


def test_the_next_job_like_it_runs_on_what_a_job_left(workshop: Workshop) -> None:
    kept = {**RESOURCES, "KeepAlivePeriodInSeconds": 3600}
    first = workshop.train(LEAVE, ResourceConfig=kept)
    assert pool(workshop, first) == {"Status": "InUse", "ResourceRetainedBillableTimeInSeconds": 0}
    with pytest.raises(ClientError, match="can be updated while the warm pool is Available"):
        keep(workshop, first, 60)
    assert workshop.trained(first)["TrainingJobStatus"] == "Completed"
    assert pool(workshop, first)["Status"] == "Available"

    other = workshop.train(LEAVE, ResourceConfig={**RESOURCES, "VolumeSizeInGB": 2})
    failing = workshop.train("raise SystemExit(1)", ResourceConfig={**kept, "VolumeSizeInGB": 3})
    assert workshop.trained(other)["TrainingJobStatus"] == "Completed"
    assert "WarmPoolStatus" not in workshop.trained(other)
    assert pool(workshop, first)["Status"] == "Available"

    second = workshop.train(LEAVE, ResourceConfig=kept)
    done = workshop.trained(second)
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")  # nothing of the first is there
    left = pool(workshop, first)
    assert (left["Status"], left["ReusedByJob"]) == ("Reused", second)
    assert left["ResourceRetainedBillableTimeInSeconds"] >= 1
    assert workshop.trained(failing)["WarmPoolStatus"]["Status"] == "Terminated"

    listed = workshop.sagemaker.list_training_jobs(WarmPoolStatusEquals="Available")["TrainingJobSummaries"]
    assert [one["TrainingJobName"] for one in listed] == [second]
    assert listed[0]["WarmPoolStatus"]["Status"] == "Available"
    keep(workshop, second, 1800)
    job = workshop.sagemaker.describe_training_job(TrainingJobName=second)
    assert job["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 1800
    keep(workshop, second, 0)
    assert pool(workshop, second)["Status"] == "Terminated"
    third = workshop.train("pass", ResourceConfig={**kept, "KeepAlivePeriodInSeconds": 1})
    workshop.trained(third)
    ended = pool(workshop, third, "Terminated")
    assert ended["ResourceRetainedBillableTimeInSeconds"] >= 1
    assert "ReusedByJob" not in pool(workshop, second)


def test_who_may_keep_instances_and_which(workshop: Workshop) -> None:
    kept = {**RESOURCES, "KeepAlivePeriodInSeconds": 600}
    spot = {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": 9, "MaxWaitTimeInSeconds": 9},
    }
    with pytest.raises(ClientError, match="neither for InstanceGroups nor for EnableManagedSpotTraining"):
        workshop.train("pass", ResourceConfig=kept, **spot)
    for member, value in (
        ("ProfilerConfig", {"S3OutputPath": f"s3://{workshop.bucket}/p"}),
        ("RemoteDebugConfig", {"EnableRemoteDebug": True}),
    ):
        with pytest.raises(ClientError, match=f"{member}.* is not supported"):
            workshop.sagemaker.update_training_job(TrainingJobName=workshop.train("pass"), **{member: value})
    policy = allow("sagemaker:*", "iam:PassRole", "s3:*")
    acts = ["sagemaker:CreateTrainingJob", "sagemaker:UpdateTrainingJob"]
    long = {"NumericGreaterThan": {"sagemaker:KeepAlivePeriod": "300"}}
    policy["Statement"].append({"Effect": "Deny", "Action": acts, "Resource": "*", "Condition": long})
    account = workshop.account
    account.role("Thrifty", policy, trust={"AWS": f"arn:aws:iam::{account.id}:root"})
    workshop.sagemaker = account.client("sagemaker", account.as_role("Thrifty"))
    with pytest.raises(ClientError, match="AccessDenied"):
        workshop.train("pass", ResourceConfig=kept)
    name = workshop.train("pass", ResourceConfig={**RESOURCES, "KeepAlivePeriodInSeconds": 300})
    workshop.trained(name)
    with pytest.raises(ClientError, match="AccessDenied"):
        keep(workshop, name, 301)
    keep(workshop, name, 0)
    assert pool(workshop, name)["Status"] == "Terminated"

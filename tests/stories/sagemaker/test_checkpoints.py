"""Checkpoints in S3, jobs whose place others may take, and outputs that are uploaded while a job runs."""

from __future__ import annotations

import hashlib
import shutil

import pytest
from botocore.exceptions import ClientError

from tests.platform import REGION, Running
from tests.stories.sagemaker.conftest import IMAGE, Workshop
from tests.waiting import until


def keys(shop: Workshop, prefix: str) -> dict[str, bytes]:
    listed = shop.s3.list_objects_v2(Bucket=shop.bucket, Prefix=prefix).get("Contents", [])
    found = {}
    for one in listed:
        try:
            found[one["Key"].removeprefix(prefix)] = shop.s3.get_object(Bucket=shop.bucket, Key=one["Key"])[
                "Body"
            ].read()
        except shop.s3.exceptions.NoSuchKey:
            continue
    return found


def test_checkpoints_come_back_and_follow_the_job(workshop: Workshop) -> None:
    for name in ("old", "gone", "deep/er"):
        workshop.s3.put_object(Bucket=workshop.bucket, Key=f"check/{name}", Body=name.encode())
    script = """
import os, time
base = '/opt/ml/checkpoints/'
assert open(base + 'deep/er').read() == 'deep/er'
os.unlink(base + 'gone')
open(base + 'old', 'w').write('newer')
open(base + 'made', 'w').write('m')
os.symlink('/etc/passwd', base + 'link')
os.symlink('/etc', base + 'folder')
os.mkfifo(base + 'fifo')
while not os.path.exists('/tmp/over'):
    time.sleep(0.05)
"""
    config = {"S3Uri": f"s3://{workshop.bucket}/check"}
    name = workshop.train(script, CheckpointConfig=config)
    wanted = {"old": b"newer", "made": b"m", "deep/er": b"deep/er"}
    until(lambda: keys(workshop, "check/") == wanted)  # while it runs
    assert workshop.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "InProgress"
    workshop.sagemaker.stop_training_job(TrainingJobName=name)
    assert workshop.trained(name)["CheckpointConfig"] == config


def test_what_a_failing_job_left_last_is_kept(workshop: Workshop) -> None:
    script = "open('/opt/ml/state/last', 'w').write('9')\nraise ValueError('late')"
    config = {"S3Uri": f"s3://{workshop.bucket}/check/", "LocalPath": "/opt/ml/state"}
    job = workshop.trained(workshop.train(script, CheckpointConfig=config))
    assert job["TrainingJobStatus"] == "Failed"
    assert keys(workshop, "check/") == {"last": b"9"}
    with pytest.raises(ClientError, match="LocalPath must be below"):
        workshop.train("", CheckpointConfig={**config, "LocalPath": "/opt/ml/../../etc"})


def test_a_spot_job_gives_way_and_goes_on_from_its_checkpoint(workshop: Workshop) -> None:
    script = """
import os, sys, time, signal
path = '/opt/ml/checkpoints/epoch'
if os.path.exists(path):
    open('/opt/ml/model/m', 'w').write('from ' + open(path).read())
    sys.exit(0)
open(path, 'w').write('7')
print('waiting', flush=True)
time.sleep(100)
"""
    spot = workshop.train(
        script,
        EnableManagedSpotTraining=True,
        CheckpointConfig={"S3Uri": f"s3://{workshop.bucket}/check"},
        StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120},
    )
    until(lambda: keys(workshop, "check/") == {"epoch": b"7"})
    # Somebody who wants the whole machine and does not give way.
    large = {"InstanceType": "ml.m5.24xlarge", "InstanceCount": 5, "VolumeSizeInGB": 1}
    other = workshop.trained(workshop.train("print('all of it')", ResourceConfig=large))
    assert other["TrainingJobStatus"] == "Completed", other.get("FailureReason")
    assert any(
        one["Status"] == "Pending" and "waiting for" in one["StatusMessage"]
        for one in other["SecondaryStatusTransitions"]
    )
    job = workshop.trained(spot)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    said = [one["Status"] for one in job["SecondaryStatusTransitions"]]
    assert said[:4] == ["Starting", "Downloading", "Training", "Interrupted"]
    assert said[-3:] == ["Training", "Uploading", "Completed"]
    assert job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"]
    packed = workshop.s3.get_object(Bucket=workshop.bucket, Key=f"out/{spot}/output/model.tar.gz")["Body"].read()
    assert len(packed) > 0


def test_a_spot_job_says_how_long_it_waits(workshop: Workshop) -> None:
    with pytest.raises(ClientError, match="MaxWaitTimeInSeconds belongs"):
        workshop.train("", EnableManagedSpotTraining=True)
    with pytest.raises(ClientError, match="greater than or equal to MaxRuntimeInSeconds"):
        workshop.train(
            "",
            EnableManagedSpotTraining=True,
            StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 59},
        )
    job = workshop.trained(
        workshop.train(
            "import time\ntime.sleep(100)",
            EnableManagedSpotTraining=True,
            StoppingCondition={"MaxRuntimeInSeconds": 2, "MaxWaitTimeInSeconds": 2},
        )
    )
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")


@pytest.mark.parametrize("retries", [0, 30])
def test_an_internal_error_is_tried_again_as_often_as_asked(
    platform: Running, workshop: Workshop, retries: int
) -> None:
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{workshop.bucket}/data/"}
    fast = [{"ChannelName": "train", "InputMode": "FastFile", "DataSource": {"S3DataSource": source}}]
    name = workshop.name("broken")
    arn = f"arn:aws:sagemaker:{REGION}:{workshop.account.id}:training-job/{name}"
    # What is in the way of the job's lazy folder is nothing that the job or its role could have done.
    place = platform.data / "run" / "lazy" / f"job-{hashlib.sha256(arn.encode()).hexdigest()[:24]}-0"
    place.mkdir(parents=True)
    (place / "in-the-way").touch()
    more = {"RetryStrategy": {"MaximumRetryAttempts": retries}} if retries else {}
    workshop.train("print(1)", TrainingJobName=name, InputDataConfig=fast, **more)
    if retries:
        until(lambda: "Restarting" in seen(workshop, name))
        (place / "in-the-way").unlink()
    job = workshop.trained(name)
    if retries:
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    else:
        assert job["FailureReason"].startswith("InternalServerError")
        shutil.rmtree(place)


def seen(shop: Workshop, name: str) -> list[str]:
    job = shop.sagemaker.describe_training_job(TrainingJobName=name)
    return [one["Status"] for one in job["SecondaryStatusTransitions"]]


def test_a_model_of_plain_files(workshop: Workshop) -> None:
    name = workshop.train(
        "import os\nos.mkdir('/opt/ml/model/1')\nopen('/opt/ml/model/1/w', 'w').write('w')",
        OutputDataConfig={"S3OutputPath": f"s3://{workshop.bucket}/out", "CompressionType": "NONE"},
    )
    job = workshop.trained(name)
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{workshop.bucket}/out/{name}/output/model/"
    assert keys(workshop, f"out/{name}/output/model/") == {"1/w": b"w"}


@pytest.mark.parametrize(("regex", "why"), [("acc=(", "is not a pattern"), ("acc=[0-9]+", "has no group")])
def test_patterns_that_find_no_value_are_refused(workshop: Workshop, regex: str, why: str) -> None:
    algorithm = {
        "TrainingImage": IMAGE,
        "TrainingInputMode": "File",
        "MetricDefinitions": [{"Name": "a", "Regex": regex}],
    }
    with pytest.raises(ClientError, match=why):
        workshop.train("", AlgorithmSpecification=algorithm)


def test_a_processing_job_streams_in_and_uploads_while_it_runs(workshop: Workshop) -> None:
    script = b"""
import os, time
told = open('/opt/ml/processing/in_0').read()
open('/opt/ml/processing/out/early', 'w').write(told)
while os.path.exists('/opt/ml/processing/out/early'):
    time.sleep(0.05)
"""
    workshop.s3.put_object(Bucket=workshop.bucket, Key="code/x.py", Body=script)
    workshop.s3.put_object(Bucket=workshop.bucket, Key="data/a", Body=b"streamed")
    name = workshop.name("processing")

    def given(name: str, key: str, path: str, mode: str) -> dict[str, object]:
        source = {"S3Uri": f"s3://{workshop.bucket}/{key}", "LocalPath": path, "S3DataType": "S3Prefix"}
        return {"InputName": name, "S3Input": {**source, "S3InputMode": mode}}

    target = {"S3Uri": f"s3://{workshop.bucket}/made", "LocalPath": "/opt/ml/processing/out"}
    workshop.sagemaker.create_processing_job(
        ProcessingJobName=name,
        RoleArn=workshop.role,
        AppSpecification={"ImageUri": IMAGE, "ContainerEntrypoint": ["python3", "/opt/ml/processing/code/x.py"]},
        ProcessingResources={
            "ClusterConfig": {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}
        },
        ProcessingInputs=[
            given("code", "code/x.py", "/opt/ml/processing/code", "File"),
            given("data", "data/", "/opt/ml/processing/in", "Pipe"),
        ],
        ProcessingOutputConfig={
            "Outputs": [{"OutputName": "made", "S3Output": {**target, "S3UploadMode": "Continuous"}}]
        },
    )
    until(lambda: keys(workshop, "made/") == {"early": b"streamed"})
    found = workshop.sagemaker.describe_processing_job(ProcessingJobName=name)
    assert found["ProcessingJobStatus"] == "InProgress"
    workshop.sagemaker.stop_processing_job(ProcessingJobName=name)

    def over() -> bool:
        status = workshop.sagemaker.describe_processing_job(ProcessingJobName=name)["ProcessingJobStatus"]
        return status == "Stopped"

    until(over)

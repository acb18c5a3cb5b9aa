"""Training and processing jobs: real code on real paths, with the role's permissions and no others."""

from __future__ import annotations

import io
import tarfile
import time

import pytest
from botocore.exceptions import ClientError

from tests.platform import allow
from tests.stories.sagemaker.conftest import IMAGE, Workshop

MODEL = "open('/opt/ml/model/m.txt','w').write('m')"


def test_a_job_trains_and_leaves_model_logs_and_metrics(workshop: Workshop) -> None:
    name = workshop.train(f"import os\nprint(os.listdir('/opt/ml/input/data/train/part'))\nprint('acc=0.75')\n{MODEL}")
    job = workshop.trained(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert [one["Status"] for one in job["SecondaryStatusTransitions"]] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    assert job["FinalMetricDataList"][0]["Value"] == 0.75
    assert job["OutputDataConfig"]["KmsKeyId"] == ""
    artifacts = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert artifacts == f"s3://{workshop.bucket}/out/{name}/output/model.tar.gz"
    packed = workshop.s3.get_object(Bucket=workshop.bucket, Key=f"out/{name}/output/model.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert tar.getnames() == ["m.txt"]
    logs = workshop.account.client("logs")
    group = "/aws/sagemaker/TrainingJobs"
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")
    assert "nextToken" not in streams
    stream = streams["logStreams"][0]["logStreamName"]
    assert stream.startswith(f"{name}/algo-1-")
    events = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]
    assert [one["message"] for one in events][-2:] == ["['a.csv']", "acc=0.75"]


def test_a_failing_script_says_why(workshop: Workshop) -> None:
    job = workshop.trained(workshop.train("raise ValueError('boom')"))
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("AlgorithmError: ") and job["FailureReason"].endswith("exit code: 1")
    assert "ValueError: boom" in job["FailureReason"]
    assert "ModelArtifacts" not in job


def test_a_job_that_is_stopped_keeps_its_model(workshop: Workshop) -> None:
    name = workshop.train(f"import time\n{MODEL}\nprint('here', flush=True)\ntime.sleep(100)")
    while workshop.sagemaker.describe_training_job(TrainingJobName=name)["SecondaryStatus"] != "Training":
        time.sleep(0.05)
    time.sleep(0.5)
    workshop.sagemaker.stop_training_job(TrainingJobName=name)
    job = workshop.trained(name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    with pytest.raises(ClientError, match="ValidationException"):
        workshop.sagemaker.stop_training_job(TrainingJobName=name)


def test_a_job_ends_after_its_longest_time(workshop: Workshop) -> None:
    job = workshop.trained(workshop.train("import time\ntime.sleep(100)", StoppingCondition={"MaxRuntimeInSeconds": 1}))
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_a_role_that_may_not_read_the_data_fails_the_job_truly(workshop: Workshop) -> None:
    role = workshop.account.role("Blind", allow("logs:*"), trust={"Service": "sagemaker.amazonaws.com"})
    job = workshop.trained(workshop.train(MODEL, RoleArn=role))
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: Data download failed: AccessDenied")


def test_a_role_that_may_not_log_trains_in_silence(workshop: Workshop) -> None:
    role = workshop.account.role("Mute", allow("s3:*"), trust={"Service": "sagemaker.amazonaws.com"})
    name = workshop.train(MODEL, RoleArn=role)
    assert workshop.trained(name)["TrainingJobStatus"] == "Completed"
    groups = workshop.account.client("logs").describe_log_groups()["logGroups"]
    assert groups == []


def test_a_role_that_does_not_trust_sagemaker_is_refused_at_once(workshop: Workshop) -> None:
    role = workshop.account.role("Foreign")
    with pytest.raises(ClientError, match="Could not assume role"):
        workshop.train(MODEL, RoleArn=role)


def test_who_may_not_pass_the_role_may_not_train(workshop: Workshop) -> None:
    workshop.account.role("Limited", allow("sagemaker:*", "s3:*"))
    limited = workshop.account.client("sagemaker", workshop.account.as_role("Limited"))
    workshop.sagemaker = limited
    with pytest.raises(ClientError, match="iam:PassRole"):
        workshop.train(MODEL)


def test_names_are_taken_once_and_what_is_not_there_is_said(workshop: Workshop) -> None:
    name = workshop.train(MODEL)
    with pytest.raises(ClientError, match=r"ResourceInUse.*Training job names must be unique"):
        workshop.train(MODEL, TrainingJobName=name)
    with pytest.raises(ClientError, match="Requested resource not found"):
        workshop.sagemaker.describe_training_job(TrainingJobName="nobody")
    with pytest.raises(ClientError, match="ResourceLimitExceeded"):
        workshop.train(MODEL, ResourceConfig={"InstanceType": "ml.p3.2xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1})
    with pytest.raises(ClientError, match="not supported by Bastide yet"):
        workshop.train(MODEL, RemoteDebugConfig={"EnableRemoteDebug": True})
    workshop.trained(name)


def test_volume_and_model_under_a_key_of_ones_own(workshop: Workshop) -> None:
    key = workshop.account.client("kms").create_key()["KeyMetadata"]["Arn"]
    name = workshop.train(
        MODEL,
        OutputDataConfig={"S3OutputPath": f"s3://{workshop.bucket}/out", "KmsKeyId": key},
        ResourceConfig={
            "InstanceType": "ml.t3.medium",
            "InstanceCount": 1,
            "VolumeSizeInGB": 1,
            "VolumeKmsKeyId": key,
        },
    )
    job = workshop.trained(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    head = workshop.s3.head_object(Bucket=workshop.bucket, Key=f"out/{name}/output/model.tar.gz")
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)


def test_a_processing_job_reads_and_writes(workshop: Workshop) -> None:
    script = b"import shutil\nshutil.copy('/opt/ml/processing/in/part/a.csv', '/opt/ml/processing/out/b.csv')\n"
    workshop.s3.put_object(Bucket=workshop.bucket, Key="code/x.py", Body=script)
    workshop.s3.put_object(Bucket=workshop.bucket, Key="data/part/a.csv", Body=b"1,2\n")
    name = workshop.name("processing")

    def given(name: str, key: str, path: str) -> dict[str, object]:
        source = {"S3Uri": f"s3://{workshop.bucket}/{key}", "LocalPath": path, "S3DataType": "S3Prefix"}
        return {"InputName": name, "S3Input": {**source, "S3InputMode": "File"}}

    target = {
        "S3Uri": f"s3://{workshop.bucket}/made",
        "LocalPath": "/opt/ml/processing/out",
        "S3UploadMode": "EndOfJob",
    }
    workshop.sagemaker.create_processing_job(
        ProcessingJobName=name,
        RoleArn=workshop.role,
        AppSpecification={"ImageUri": IMAGE, "ContainerEntrypoint": ["python3", "/opt/ml/processing/code/x.py"]},
        ProcessingResources={
            "ClusterConfig": {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}
        },
        ProcessingInputs=[
            given("code", "code/x.py", "/opt/ml/processing/code"),
            given("data", "data/", "/opt/ml/processing/in"),
        ],
        ProcessingOutputConfig={"Outputs": [{"OutputName": "made", "S3Output": target}]},
    )
    until = time.monotonic() + 60
    while (job := workshop.sagemaker.describe_processing_job(ProcessingJobName=name))["ProcessingJobStatus"] in (
        "InProgress",
    ):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    assert workshop.s3.get_object(Bucket=workshop.bucket, Key="made/b.csv")["Body"].read() == b"1,2\n"

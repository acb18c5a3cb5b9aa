"""Trains the way a bank must: own keys for volume and model, no network, encrypted between hosts, tagged."""

import pathlib

import boto3
import sagemaker
from sagemaker.sklearn import SKLearn

session = sagemaker.Session()
pathlib.Path("train.py").write_text(
    "import os, pathlib\n"
    "print('purpose', os.environ['PURPOSE'], sorted(os.listdir(os.environ['SM_CHANNEL_TRAIN'])))\n"
    "pathlib.Path(os.environ['SM_MODEL_DIR'], 'model.txt').write_text('model')\n"
)
pathlib.Path("rows.csv").write_text("1,2\n")
key = boto3.client("kms").create_key(Description="models")["KeyMetadata"]["Arn"]
data = session.upload_data(
    "rows.csv", key_prefix="rows", extra_args={"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}
)
estimator = SKLearn(
    entry_point="train.py",
    framework_version="1.2-1",
    instance_type="ml.m5.large",
    instance_count=1,
    role=sagemaker.get_execution_role(),
    volume_kms_key=key,
    output_kms_key=key,
    enable_network_isolation=True,
    encrypt_inter_container_traffic=True,
    environment={"PURPOSE": "credit"},
    tags=[{"Key": "team", "Value": "risk"}],
    max_run=600,
    sagemaker_session=session,
)
estimator.fit({"train": data}, logs=True)
bucket, _, path = estimator.model_data.removeprefix("s3://").partition("/")
head = boto3.client("s3").head_object(Bucket=bucket, Key=path)
assert head["SSEKMSKeyId"] == key
job = session.describe_training_job(estimator.latest_training_job.name)
assert job["EnableNetworkIsolation"] and job["EnableInterContainerTrafficEncryption"]
assert job["ResourceConfig"]["VolumeKmsKeyId"] == key
assert {"Key": "team", "Value": "risk"} in session.list_tags(job["TrainingJobArn"])

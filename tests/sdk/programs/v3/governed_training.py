"""Trains with v3 the way a bank must: own keys for volume and model, no network, tagged."""

import pathlib

import boto3
from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session, get_execution_role
from sagemaker.core.shapes import OutputDataConfig, Tag
from sagemaker.core.training.configs import Compute, InputData, Networking, SourceCode, StoppingCondition
from sagemaker.train import ModelTrainer

session = Session()
bucket = session.default_bucket()
pathlib.Path("source").mkdir()
pathlib.Path("source/train.py").write_text(
    "import os, pathlib\n"
    "print('purpose', os.environ['PURPOSE'])\n"
    "pathlib.Path(os.environ['SM_MODEL_DIR'], 'model.txt').write_text('model')\n"
)
pathlib.Path("rows.csv").write_text("1,2\n")
key = boto3.client("kms").create_key(Description="models")["KeyMetadata"]["Arn"]
trainer = ModelTrainer(
    sagemaker_session=session,
    role=get_execution_role(),
    training_image=image_uris.retrieve(
        "sklearn", session.boto_region_name, version="1.2-1", instance_type="ml.m5.large"
    ),
    source_code=SourceCode(source_dir="source", entry_script="train.py"),
    compute=Compute(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=5, volume_kms_key_id=key),
    networking=Networking(enable_network_isolation=True, enable_inter_container_traffic_encryption=True),
    output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/models", kms_key_id=key),
    stopping_condition=StoppingCondition(max_runtime_in_seconds=600),
    environment={"PURPOSE": "credit"},
    tags=[Tag(key="team", value="risk")],
    base_job_name="governed",
)
data = session.upload_data("rows.csv", bucket, "rows")
trainer.train(input_data_config=[InputData(channel_name="train", data_source=data)], wait=True, logs=True)
job = trainer._latest_training_job
job.refresh()
assert job.training_job_status == "Completed" and job.enable_network_isolation
target, _, path = job.model_artifacts.s3_model_artifacts.removeprefix("s3://").partition("/")
assert boto3.client("s3").head_object(Bucket=target, Key=path)["SSEKMSKeyId"] == key
print("model", path)

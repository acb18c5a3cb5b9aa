"""Asks an endpoint of v3's that answers into S3."""

import pathlib
import tarfile
import time

from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session, get_execution_role
from sagemaker.core.inference_config import AsyncInferenceConfig
from sagemaker.core.resources import Endpoint
from sagemaker.core.s3 import S3Downloader, S3Uploader
from sagemaker.serve import ModelBuilder

INFERENCE = """
import json

def model_fn(model_dir):
    return 10

def input_fn(body, content_type):
    return json.loads(body)

def predict_fn(number, factor):
    return number * factor

def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""

session = Session()
bucket = session.default_bucket()
pathlib.Path("code").mkdir()
pathlib.Path("code/inference.py").write_text(INFERENCE)
with tarfile.open("model.tar.gz", "w:gz") as packed:
    packed.add("code")
builder = ModelBuilder(
    s3_model_data_url=session.upload_data("model.tar.gz", bucket, "async/model"),
    image_uri=image_uris.retrieve("sklearn", session.boto_region_name, version="1.2-1", instance_type="ml.m5.large"),
    env_vars={"SAGEMAKER_PROGRAM": "inference.py"},
    role_arn=get_execution_role(),
    sagemaker_session=session,
    instance_type="ml.m5.large",
)
builder.build(model_name="later")
endpoint = builder.deploy(
    endpoint_name="later",
    instance_type="ml.m5.large",
    initial_instance_count=1,
    inference_config=AsyncInferenceConfig(output_path=f"s3://{bucket}/async/out"),
)
try:
    question = S3Uploader.upload_string_as_file_body("4", f"s3://{bucket}/async/in/four", sagemaker_session=session)
    told = Endpoint.get("later").invoke_async(input_location=question, content_type="application/json")
    until = time.monotonic() + 60
    while not S3Downloader.list(told.output_location, sagemaker_session=session):
        assert time.monotonic() < until, "no answer came"
        time.sleep(1)
    assert S3Downloader.read_file(told.output_location, sagemaker_session=session) == "40"
finally:
    Endpoint.get("later").delete()

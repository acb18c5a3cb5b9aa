"""Keeps what an endpoint is asked and answers."""

import json
import pathlib
import tarfile
import time

import sagemaker
from sagemaker.deserializers import JSONDeserializer
from sagemaker.model_monitor import DataCaptureConfig
from sagemaker.s3 import S3Downloader
from sagemaker.serializers import JSONSerializer
from sagemaker.sklearn.model import SKLearnModel

INFERENCE = """
import json

def model_fn(model_dir):
    return 3

def input_fn(body, content_type):
    return json.loads(body)

def predict_fn(number, factor):
    return number * factor

def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""

session = sagemaker.Session()
bucket = session.default_bucket()
pathlib.Path("inference.py").write_text(INFERENCE)
pathlib.Path("nothing.json").write_text("{}")
with tarfile.open("model.tar.gz", "w:gz") as packed:
    packed.add("nothing.json")
model = SKLearnModel(
    model_data=session.upload_data("model.tar.gz", key_prefix="captured"),
    role=sagemaker.get_execution_role(),
    entry_point="inference.py",
    framework_version="1.2-1",
    sagemaker_session=session,
)
target = f"s3://{bucket}/capture"
predictor = model.deploy(
    initial_instance_count=1,
    instance_type="ml.m5.large",
    serializer=JSONSerializer(),
    deserializer=JSONDeserializer(),
    data_capture_config=DataCaptureConfig(enable_capture=True, sampling_percentage=100, destination_s3_uri=target),
)
try:
    assert predictor.predict(7) == 21
    until = time.monotonic() + 120
    while not (files := S3Downloader.list(f"{target}/{predictor.endpoint_name}")):
        assert time.monotonic() < until, "nothing was captured"
        time.sleep(2)
    line = json.loads(S3Downloader.read_file(files[0]).splitlines()[0])
    print("captured", line)
    assert line["captureData"]["endpointOutput"]["mode"] == "OUTPUT"
finally:
    predictor.delete_model()
    predictor.delete_endpoint()

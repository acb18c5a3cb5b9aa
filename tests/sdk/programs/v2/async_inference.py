"""Asks an endpoint that answers into S3."""

import json
import pathlib
import tarfile

import sagemaker
from sagemaker.async_inference import AsyncInferenceConfig, WaiterConfig
from sagemaker.deserializers import JSONDeserializer
from sagemaker.serializers import JSONSerializer
from sagemaker.sklearn.model import SKLearnModel

INFERENCE = """
import json, os

def model_fn(model_dir):
    return 10

def input_fn(body, content_type):
    return json.loads(body)

def predict_fn(number, factor):
    return number * factor

def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""

session = sagemaker.Session()
pathlib.Path("inference.py").write_text(INFERENCE)
pathlib.Path("nothing.json").write_text(json.dumps(None))
with tarfile.open("model.tar.gz", "w:gz") as packed:
    packed.add("nothing.json")
bucket = session.default_bucket()
model = SKLearnModel(
    model_data=session.upload_data("model.tar.gz", key_prefix="async"),
    role=sagemaker.get_execution_role(),
    entry_point="inference.py",
    framework_version="1.2-1",
    sagemaker_session=session,
)
predictor = model.deploy(
    initial_instance_count=1,
    instance_type="ml.m5.large",
    serializer=JSONSerializer(),
    deserializer=JSONDeserializer(),
    async_inference_config=AsyncInferenceConfig(output_path=f"s3://{bucket}/answers"),
)
try:
    # The SDK keeps looking for a failure after the answer, as often as it is told.
    answer = predictor.predict(data=4, waiter_config=WaiterConfig(delay=1, max_attempts=60))
    print("answer", answer)
    assert answer == 40
finally:
    predictor.delete_model()
    predictor.delete_endpoint()

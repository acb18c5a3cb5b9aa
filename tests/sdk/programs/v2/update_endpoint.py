"""Puts another model behind an endpoint that serves."""

import json
import pathlib
import tarfile

import sagemaker
from sagemaker.deserializers import JSONDeserializer
from sagemaker.serializers import JSONSerializer
from sagemaker.sklearn.model import SKLearnModel

INFERENCE = """
import json, os

def model_fn(model_dir):
    return json.load(open(os.path.join(model_dir, "factor.json")))

def input_fn(body, content_type):
    return json.loads(body)

def predict_fn(number, factor):
    return number * factor

def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""

session = sagemaker.Session()
pathlib.Path("inference.py").write_text(INFERENCE)


def model(factor: int) -> SKLearnModel:
    pathlib.Path("factor.json").write_text(json.dumps(factor))
    with tarfile.open("model.tar.gz", "w:gz") as packed:
        packed.add("factor.json")
    return SKLearnModel(
        model_data=session.upload_data("model.tar.gz", key_prefix=f"times{factor}"),
        role=sagemaker.get_execution_role(),
        entry_point="inference.py",
        framework_version="1.2-1",
        sagemaker_session=session,
    )


predictor = model(2).deploy(
    initial_instance_count=1,
    instance_type="ml.m5.large",
    endpoint_name="times",
    serializer=JSONSerializer(),
    deserializer=JSONDeserializer(),
)
try:
    assert predictor.predict(4) == 8
    other = model(3)
    other.create(instance_type="ml.m5.large")
    predictor.update_endpoint(model_name=other.name, initial_instance_count=2, instance_type="ml.m5.large")
    assert predictor.predict(4) == 12
finally:
    predictor.delete_endpoint()

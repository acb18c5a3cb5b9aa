"""Registers a model, approves the version, and deploys it from the registry."""

import json
import os
import pathlib
import tarfile

import boto3
import sagemaker
from sagemaker import ModelPackage
from sagemaker.deserializers import JSONDeserializer
from sagemaker.predictor import Predictor
from sagemaker.serializers import JSONSerializer
from sagemaker.sklearn.model import SKLearnModel

INFERENCE = """
import json, os

def model_fn(model_dir):
    return json.load(open(os.path.join(model_dir, "weights.json")))

def input_fn(body, content_type):
    return json.loads(body)

def predict_fn(rows, weights):
    return [sum(w * x for w, x in zip(weights, row)) for row in rows]

def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""

session = sagemaker.Session()
role = sagemaker.get_execution_role()
pathlib.Path("inference.py").write_text(INFERENCE)
pathlib.Path("weights.json").write_text(json.dumps([1.0, 10.0]))
with tarfile.open("model.tar.gz", "w:gz") as packed:
    packed.add("weights.json")
data = session.upload_data("model.tar.gz", key_prefix="weights")

client = boto3.client("sagemaker")
client.create_model_package_group(ModelPackageGroupName="weights")
model = SKLearnModel(
    model_data=data, role=role, entry_point="inference.py", framework_version="1.2-1", sagemaker_session=session
)
package = model.register(
    content_types=["application/json"],
    response_types=["application/json"],
    inference_instances=["ml.t2.medium"],
    transform_instances=["ml.m5.large"],
    model_package_group_name="weights",
    approval_status="PendingManualApproval",
    description="a weighted sum",
)
print("registered", package.model_package_arn)
package.update_approval_status(approval_status="Approved", approval_description="checked")
assert client.describe_model_package(ModelPackageName=package.model_package_arn)["ModelApprovalStatus"] == "Approved"

served = ModelPackage(role=role, model_package_arn=package.model_package_arn, sagemaker_session=session)
name = f"weights-{os.getpid()}"
served.deploy(initial_instance_count=1, instance_type="ml.t2.medium", endpoint_name=name)
predictor = Predictor(name, session, serializer=JSONSerializer(), deserializer=JSONDeserializer())
try:
    answer = predictor.predict([[1, 2], [3, 4]])
    print("answer", answer)
    assert answer == [21.0, 43.0]
finally:
    predictor.delete_endpoint()
    served.delete_model()

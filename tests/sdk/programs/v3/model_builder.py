"""Builds a model from an archive, registers it, deploys it, asks it, cleans up."""

import json
import pathlib
import tarfile

from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session, get_execution_role
from sagemaker.core.resources import Endpoint, ModelPackage
from sagemaker.serve import ModelBuilder

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

session = Session()
pathlib.Path("code").mkdir()
pathlib.Path("code/inference.py").write_text(INFERENCE)
pathlib.Path("weights.json").write_text(json.dumps([2.0, 3.0]))
with tarfile.open("model.tar.gz", "w:gz") as packed:
    packed.add("weights.json")
    packed.add("code")
data = session.upload_data("model.tar.gz", session.default_bucket(), "weights")

builder = ModelBuilder(
    s3_model_data_url=data,
    image_uri=image_uris.retrieve("sklearn", session.boto_region_name, version="1.2-1", instance_type="ml.m5.large"),
    env_vars={"SAGEMAKER_PROGRAM": "inference.py"},
    role_arn=get_execution_role(),
    sagemaker_session=session,
    instance_type="ml.m5.large",
)
model = builder.build(model_name="weighted-sum")
print("model", model.model_arn)

builder.register(
    model_package_group_name="weighted-sums",
    content_types=["application/json"],
    response_types=["application/json"],
    inference_instances=["ml.m5.large"],
    transform_instances=["ml.m5.large"],
    approval_status="PendingManualApproval",
)
package = ModelPackage.get("weighted-sums/1")
package.update(model_approval_status="Approved")
assert ModelPackage.get("weighted-sums/1").model_approval_status == "Approved"

endpoint = builder.deploy(endpoint_name="weighted-sum", instance_type="ml.m5.large", initial_instance_count=1)
try:
    answer = endpoint.invoke(body=json.dumps([[1, 1], [2, 0]]), content_type="application/json")
    told = json.loads(answer.body.read())
    print("answer", told)
    assert told == [5.0, 4.0]
finally:
    Endpoint.get("weighted-sum").delete()
    model.delete()

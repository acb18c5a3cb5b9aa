"""One endpoint, many models, named at each call."""

import json
import pathlib
import tarfile

import sagemaker
from sagemaker.deserializers import JSONDeserializer
from sagemaker.multidatamodel import MultiDataModel
from sagemaker.predictor import Predictor
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
bucket = session.default_bucket()
pathlib.Path("code").mkdir()
pathlib.Path("code/inference.py").write_text(INFERENCE)
archives = {}
for factor in (2, 5):
    pathlib.Path("factor.json").write_text(json.dumps(factor))
    with tarfile.open(f"times{factor}.tar.gz", "w:gz") as packed:
        packed.add("factor.json")
        packed.add("code")
    archives[factor] = session.upload_data(f"times{factor}.tar.gz", key_prefix="archives")
model = SKLearnModel(
    model_data=archives[2],
    role=sagemaker.get_execution_role(),
    entry_point="code/inference.py",
    framework_version="1.2-1",
    sagemaker_session=session,
)
many = MultiDataModel(name="many", model_data_prefix=f"s3://{bucket}/many/", model=model, sagemaker_session=session)
for factor, archive in archives.items():
    many.add_model(archive, f"times{factor}.tar.gz")
assert sorted(many.list_models()) == ["times2.tar.gz", "times5.tar.gz"]
many.deploy(initial_instance_count=1, instance_type="ml.m5.large", endpoint_name="many")
predictor = Predictor("many", session, serializer=JSONSerializer(), deserializer=JSONDeserializer())
try:
    answers = [predictor.predict(3, target_model=f"times{factor}.tar.gz") for factor in (2, 5)]
    print("answers", answers)
    assert answers == [6, 15]
finally:
    predictor.delete_endpoint()

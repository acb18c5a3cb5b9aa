"""Runs a model over a file with v3."""

import json
import pathlib
import tarfile

from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session, get_execution_role
from sagemaker.core.s3 import S3Downloader
from sagemaker.serve import ModelBuilder

INFERENCE = """
import json, os

def model_fn(model_dir):
    return json.load(open(os.path.join(model_dir, "factor.json")))

def input_fn(body, content_type):
    text = body.decode() if isinstance(body, bytes) else body
    return [float(line) for line in text.splitlines() if line]

def predict_fn(rows, factor):
    return [factor * row for row in rows]

def output_fn(prediction, accept):
    return "\\n".join(str(one) for one in prediction) + "\\n", "text/csv"
"""

session = Session()
bucket = session.default_bucket()
pathlib.Path("code").mkdir()
pathlib.Path("code/inference.py").write_text(INFERENCE)
pathlib.Path("factor.json").write_text(json.dumps(2.0))
with tarfile.open("model.tar.gz", "w:gz") as packed:
    packed.add("factor.json")
    packed.add("code")
pathlib.Path("rows.csv").write_text("1\n2\n3\n")
builder = ModelBuilder(
    s3_model_data_url=session.upload_data("model.tar.gz", bucket, "batch/model"),
    image_uri=image_uris.retrieve("sklearn", session.boto_region_name, version="1.2-1", instance_type="ml.m5.large"),
    env_vars={"SAGEMAKER_PROGRAM": "inference.py"},
    role_arn=get_execution_role(),
    sagemaker_session=session,
    instance_type="ml.m5.large",
)
builder.build(model_name="doubled")
transformer = builder.transformer(
    instance_count=1, instance_type="ml.m5.large", accept="text/csv", output_path=f"s3://{bucket}/batch/out"
)
transformer.transform(
    session.upload_data("rows.csv", bucket, "batch/in"), content_type="text/csv", wait=True, logs=True
)
text = S3Downloader.read_file(f"s3://{bucket}/batch/out/rows.csv.out", sagemaker_session=session)
print(text)
assert [float(one) for one in text.split()] == [2.0, 4.0, 6.0]

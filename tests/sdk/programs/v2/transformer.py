"""Runs a model over a file, line by line, and joins answers to what was asked."""

import json
import pathlib
import tarfile

import sagemaker
from sagemaker.s3 import S3Downloader
from sagemaker.sklearn.model import SKLearnModel

INFERENCE = """
import json, os

def model_fn(model_dir):
    return json.load(open(os.path.join(model_dir, "factor.json")))

def input_fn(body, content_type):
    text = body.decode() if isinstance(body, bytes) else body
    return [[float(one) for one in line.split(",")] for line in text.splitlines() if line]

def predict_fn(rows, factor):
    return [factor * sum(row) for row in rows]

def output_fn(prediction, accept):
    return "\\n".join(str(one) for one in prediction) + "\\n", "text/csv"
"""

session = sagemaker.Session()
pathlib.Path("inference.py").write_text(INFERENCE)
pathlib.Path("factor.json").write_text(json.dumps(2.0))
with tarfile.open("model.tar.gz", "w:gz") as packed:
    packed.add("factor.json")
pathlib.Path("rows.csv").write_text("1,2\n3,4\n5,6\n")
bucket = session.default_bucket()
rows = session.upload_data("rows.csv", key_prefix="batch/in")
model = SKLearnModel(
    model_data=session.upload_data("model.tar.gz", key_prefix="batch/model"),
    role=sagemaker.get_execution_role(),
    entry_point="inference.py",
    framework_version="1.2-1",
    sagemaker_session=session,
)
transformer = model.transformer(
    instance_count=1,
    instance_type="ml.m5.large",
    strategy="MultiRecord",
    assemble_with="Line",
    accept="text/csv",
    output_path=f"s3://{bucket}/batch/out",
)
transformer.transform(rows, content_type="text/csv", split_type="Line", join_source="Input", wait=True, logs=True)
told = S3Downloader.read_file(f"s3://{bucket}/batch/out/rows.csv.out").splitlines()
print(told)
assert [[float(one) for one in line.split(",")] for line in told] == [[1, 2, 6], [3, 4, 14], [5, 6, 22]]

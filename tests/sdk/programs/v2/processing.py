"""Splits a table in a processing job and reads what it wrote."""

import pathlib

import sagemaker
from sagemaker.processing import ProcessingInput, ProcessingOutput
from sagemaker.s3 import S3Downloader, S3Uploader
from sagemaker.sklearn.processing import SKLearnProcessor

SPLIT = """
import argparse
import pandas as pd
from sklearn.model_selection import train_test_split

parser = argparse.ArgumentParser()
parser.add_argument("--test-size", type=float, default=0.2)
args = parser.parse_args()
table = pd.read_csv("/opt/ml/processing/input/table.csv")
train, test = train_test_split(table, test_size=args.test_size, random_state=0)
train.to_csv("/opt/ml/processing/train/train.csv", index=False)
test.to_csv("/opt/ml/processing/test/test.csv", index=False)
print("rows", len(train), len(test))
"""

session = sagemaker.Session()
bucket = session.default_bucket()
pathlib.Path("split.py").write_text(SPLIT)
pathlib.Path("table.csv").write_text("a,b\n" + "".join(f"{one},{one * one}\n" for one in range(100)))
source = S3Uploader.upload("table.csv", f"s3://{bucket}/split/input")

processor = SKLearnProcessor(
    framework_version="1.2-1", role=sagemaker.get_execution_role(), instance_type="ml.m5.large", instance_count=1
)
processor.run(
    code="split.py",
    arguments=["--test-size", "0.25"],
    inputs=[ProcessingInput(source=source, destination="/opt/ml/processing/input")],
    outputs=[
        ProcessingOutput(output_name="train", source="/opt/ml/processing/train"),
        ProcessingOutput(output_name="test", source="/opt/ml/processing/test"),
    ],
    logs=True,
)
written = {
    one["OutputName"]: one["S3Output"]["S3Uri"]
    for one in processor.latest_job.describe()["ProcessingOutputConfig"]["Outputs"]
}
lines = S3Downloader.read_file(f"{written['test']}/test.csv").splitlines()
print("test rows", len(lines) - 1)
assert len(lines) == 26

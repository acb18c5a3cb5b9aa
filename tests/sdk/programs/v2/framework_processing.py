"""Runs a folder of sources in a processing job, with FrameworkProcessor's own launcher."""

import pathlib

import sagemaker
from sagemaker.processing import FrameworkProcessor, ProcessingOutput
from sagemaker.s3 import S3Downloader
from sagemaker.sklearn import SKLearn

session = sagemaker.Session()
folder = pathlib.Path("sources")
folder.mkdir()
(folder / "numbers.py").write_text("ANSWER = 42\n")
(folder / "main.py").write_text(
    "import numbers_of_ours as numbers\nopen('/opt/ml/processing/out/answer.txt', 'w').write(str(numbers.ANSWER))\n"
)
(folder / "numbers.py").rename(folder / "numbers_of_ours.py")
processor = FrameworkProcessor(
    estimator_cls=SKLearn,
    framework_version="1.2-1",
    role=sagemaker.get_execution_role(),
    instance_type="ml.m5.large",
    instance_count=1,
)
processor.run(
    code="main.py",
    source_dir="sources",
    outputs=[ProcessingOutput(output_name="out", source="/opt/ml/processing/out")],
    logs=True,
)
outputs = processor.latest_job.describe()["ProcessingOutputConfig"]["Outputs"]
written = next(one["S3Output"]["S3Uri"] for one in outputs if one["OutputName"] == "out")
assert S3Downloader.read_file(f"{written}/answer.txt") == "42"

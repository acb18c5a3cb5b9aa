"""A pipeline of v3: prepares, trains, evaluates, registers a model that is good enough; run again, it hits its cache."""

import os
import pathlib

import boto3
from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import get_execution_role
from sagemaker.core.processing import ScriptProcessor
from sagemaker.core.shapes import ProcessingInput, ProcessingOutput, ProcessingS3Input, ProcessingS3Output
from sagemaker.core.training.configs import Compute, InputData, SourceCode
from sagemaker.core.workflow.conditions import ConditionGreaterThanOrEqualTo
from sagemaker.core.workflow.functions import JsonGet
from sagemaker.core.workflow.parameters import ParameterFloat, ParameterString
from sagemaker.core.workflow.pipeline_context import PipelineSession
from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.fail_step import FailStep
from sagemaker.mlops.workflow.model_step import ModelStep
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.steps import CacheConfig, ProcessingStep, TrainingStep
from sagemaker.serve.model_builder import ModelBuilder
from sagemaker.train import ModelTrainer

SPLIT = """
rows = open("/opt/ml/processing/input/data/table.csv").readlines()
open("/opt/ml/processing/train/table.csv", "w").writelines(rows[:150])
open("/opt/ml/processing/test/table.csv", "w").writelines(rows[150:])
"""
TRAIN = """
import os
import joblib
import numpy as np
from sklearn.linear_model import Ridge
rows = np.loadtxt(os.path.join(os.environ["SM_CHANNEL_TRAIN"], "table.csv"), delimiter=",")
joblib.dump(Ridge().fit(rows[:, :1], rows[:, 1]), os.path.join(os.environ["SM_MODEL_DIR"], "model.joblib"))
"""
EVALUATE = """
import json, tarfile
import joblib
import numpy as np
tarfile.open("/opt/ml/processing/input/model/model.tar.gz").extractall("/tmp/model")
rows = np.loadtxt("/opt/ml/processing/input/test/table.csv", delimiter=",")
score = joblib.load("/tmp/model/model.joblib").score(rows[:, :1], rows[:, 1])
json.dump({"metrics": {"r2": {"value": score}}}, open("/opt/ml/processing/evaluation/evaluation.json", "w"))
"""
for name, text in (("split", SPLIT), ("evaluate", EVALUATE)):
    pathlib.Path(f"{name}.py").write_text(text)
pathlib.Path("source").mkdir(exist_ok=True)
pathlib.Path("source/train.py").write_text(TRAIN)
pathlib.Path("table.csv").write_text("".join(f"{one},{3 * one + 1}\n" for one in range(200)))

session = PipelineSession()
role = get_execution_role()
bucket = session.default_bucket()
boto3.client("s3").upload_file("table.csv", bucket, "lines/raw/table.csv")
image = image_uris.retrieve("sklearn", session.boto_region_name, version="1.2-1", instance_type="ml.m5.large")
name = f"lines-{os.getpid()}"


def given(called: str, uri: object) -> ProcessingInput:
    return ProcessingInput(
        input_name=called,
        s3_input=ProcessingS3Input(
            s3_uri=uri, local_path=f"/opt/ml/processing/input/{called}", s3_data_type="S3Prefix", s3_input_mode="File"
        ),
    )


def made(called: str) -> ProcessingOutput:
    return ProcessingOutput(
        output_name=called,
        s3_output=ProcessingS3Output(
            s3_uri=f"s3://{bucket}/lines/{called}", local_path=f"/opt/ml/processing/{called}", s3_upload_mode="EndOfJob"
        ),
    )


data = ParameterString(name="InputData", default_value=f"s3://{bucket}/lines/raw/")
least = ParameterFloat(name="LeastScore", default_value=0.9)
cache = CacheConfig(enable_caching=True, expire_after="PT1H")
processor = ScriptProcessor(
    role=role,
    image_uri=image,
    command=["python3"],
    instance_type="ml.m5.large",
    instance_count=1,
    sagemaker_session=session,
)
prepare = ProcessingStep(
    name="Prepare",
    step_args=processor.run(code="split.py", inputs=[given("data", data)], outputs=[made("train"), made("test")]),
    cache_config=cache,
)
outputs = prepare.properties.ProcessingOutputConfig.Outputs
trainer = ModelTrainer(
    sagemaker_session=session,
    role=role,
    training_image=image,
    source_code=SourceCode(source_dir="source", entry_script="train.py"),
    compute=Compute(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=5),
    base_job_name="lines",
)
train = TrainingStep(
    name="Train",
    step_args=trainer.train(
        input_data_config=[InputData(channel_name="train", data_source=outputs["train"].S3Output.S3Uri)]
    ),
    cache_config=cache,
)
artifact = train.properties.ModelArtifacts.S3ModelArtifacts
report = PropertyFile(name="Report", output_name="evaluation", path="evaluation.json")
evaluate = ProcessingStep(
    name="Evaluate",
    step_args=processor.run(
        code="evaluate.py",
        inputs=[given("model", artifact), given("test", outputs["test"].S3Output.S3Uri)],
        outputs=[made("evaluation")],
    ),
    property_files=[report],
)
builder = ModelBuilder(s3_model_data_url=artifact, image_uri=image, sagemaker_session=session, role_arn=role)
register = ModelStep(
    name="Register",
    step_args=builder.register(
        model_package_group_name=f"group-{name}",
        content_types=["text/csv"],
        response_types=["text/csv"],
        inference_instances=["ml.m5.large"],
        approval_status="PendingManualApproval",
    ),
)
check = ConditionStep(
    name="Check",
    conditions=[
        ConditionGreaterThanOrEqualTo(
            left=JsonGet(step_name="Evaluate", property_file=report, json_path="metrics.r2.value"), right=least
        )
    ],
    if_steps=[register],
    else_steps=[FailStep(name="TooBad", error_message="not good enough")],
)
pipeline = Pipeline(
    name=name, parameters=[data, least], steps=[prepare, train, evaluate, check], sagemaker_session=session
)
pipeline.upsert(role_arn=role)
execution = pipeline.start()
execution.wait(delay=1, max_attempts=240)
found = {one["StepName"]: one for one in execution.list_steps()}
print({one: step["StepStatus"] for one, step in found.items()})
client = boto3.client("sagemaker")
[package] = client.list_model_packages(ModelPackageGroupName=f"group-{name}")["ModelPackageSummaryList"]
print("registered", package["ModelPackageArn"])
again = pipeline.start(parameters={"LeastScore": 2.0})
try:
    again.wait(delay=1, max_attempts=240)
except Exception as error:
    print("as it should:", type(error).__name__)
second = {one["StepName"]: one for one in again.list_steps()}
assert second["Train"]["CacheHitResult"]["SourcePipelineExecutionArn"] == execution.arn
assert second["TooBad"]["FailureReason"] == "not good enough"
pipeline.delete()

"""A pipeline that prepares, trains, evaluates and registers a model that is good enough; its second run hits the cache."""

import os
import pathlib
import time

import boto3
import sagemaker
from sagemaker.inputs import TrainingInput
from sagemaker.processing import ProcessingInput, ProcessingOutput
from sagemaker.sklearn.estimator import SKLearn
from sagemaker.sklearn.model import SKLearnModel
from sagemaker.sklearn.processing import SKLearnProcessor
from sagemaker.workflow.condition_step import ConditionStep
from sagemaker.workflow.conditions import ConditionLessThanOrEqualTo
from sagemaker.workflow.execution_variables import ExecutionVariables
from sagemaker.workflow.fail_step import FailStep
from sagemaker.workflow.functions import Join, JsonGet
from sagemaker.workflow.model_step import ModelStep
from sagemaker.workflow.parameters import ParameterFloat, ParameterInteger, ParameterString
from sagemaker.workflow.pipeline import Pipeline
from sagemaker.workflow.pipeline_context import PipelineSession
from sagemaker.workflow.properties import PropertyFile
from sagemaker.workflow.retry import StepExceptionTypeEnum, StepRetryPolicy
from sagemaker.workflow.steps import CacheConfig, ProcessingStep, TrainingStep

SPLIT = """
import pandas as pd
from sklearn.model_selection import train_test_split
table = pd.read_csv("/opt/ml/processing/input/table.csv")
for name, part in zip(("train", "test"), train_test_split(table, test_size=0.25, random_state=0)):
    part.to_csv(f"/opt/ml/processing/{name}/{name}.csv", index=False)
"""
TRAIN = """
import argparse, os
import joblib
import pandas as pd
from sklearn.linear_model import Ridge
parser = argparse.ArgumentParser()
parser.add_argument("--alpha", type=float)
args = parser.parse_args()
table = pd.read_csv(os.path.join(os.environ["SM_CHANNEL_TRAIN"], "train.csv"))
joblib.dump(Ridge(alpha=args.alpha).fit(table[["a"]], table["b"]), os.path.join(os.environ["SM_MODEL_DIR"], "model.joblib"))
"""
EVALUATE = """
import json, tarfile
import joblib
import pandas as pd
from sklearn.metrics import mean_squared_error
tarfile.open("/opt/ml/processing/model/model.tar.gz").extractall("/tmp/model")
table = pd.read_csv("/opt/ml/processing/test/test.csv")
found = mean_squared_error(table["b"], joblib.load("/tmp/model/model.joblib").predict(table[["a"]]))
json.dump({"regression_metrics": {"mse": {"value": found}}}, open("/opt/ml/processing/evaluation/evaluation.json", "w"))
"""
INFERENCE = """
import joblib, os

def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))
"""
for name, text in (("split", SPLIT), ("train", TRAIN), ("evaluate", EVALUATE), ("inference", INFERENCE)):
    pathlib.Path(f"{name}.py").write_text(text)
pathlib.Path("table.csv").write_text("a,b\n" + "".join(f"{one},{3 * one + 1}\n" for one in range(200)))

session = PipelineSession()
role = sagemaker.get_execution_role()
bucket = session.default_bucket()
source = sagemaker.Session().upload_data("table.csv", bucket, "lines/raw")
client = boto3.client("sagemaker")
name = f"lines-{os.getpid()}"

data = ParameterString(name="InputData", default_value=source)
count = ParameterInteger(name="InstanceCount", default_value=1)
alpha = ParameterFloat(name="Alpha", default_value=0.5)
most = ParameterFloat(name="MostError", default_value=6.0)
cache = CacheConfig(enable_caching=True, expire_after="P30d")
retried = [StepRetryPolicy(exception_types=[StepExceptionTypeEnum.SERVICE_FAULT], max_attempts=3)]

sklearn = {"framework_version": "1.2-1", "role": role, "instance_type": "ml.m5.large", "sagemaker_session": session}
processor = SKLearnProcessor(**sklearn, instance_count=count, base_job_name="split")
prepare = ProcessingStep(
    name="Prepare",
    step_args=processor.run(
        code="split.py",
        inputs=[ProcessingInput(source=data, destination="/opt/ml/processing/input")],
        outputs=[
            ProcessingOutput(output_name="train", source="/opt/ml/processing/train"),
            ProcessingOutput(output_name="test", source="/opt/ml/processing/test"),
        ],
    ),
    cache_config=cache,
    retry_policies=retried,
)
outputs = prepare.properties.ProcessingOutputConfig.Outputs
estimator = SKLearn(entry_point="train.py", **sklearn, instance_count=1, hyperparameters={"alpha": alpha})
train = TrainingStep(
    name="Train",
    step_args=estimator.fit({"train": TrainingInput(outputs["train"].S3Output.S3Uri, content_type="text/csv")}),
    cache_config=cache,
)
artifact = train.properties.ModelArtifacts.S3ModelArtifacts
report = PropertyFile(name="Report", output_name="evaluation", path="evaluation.json")
evaluate = ProcessingStep(
    name="Evaluate",
    step_args=processor.run(
        code="evaluate.py",
        inputs=[
            ProcessingInput(source=artifact, destination="/opt/ml/processing/model"),
            ProcessingInput(source=outputs["test"].S3Output.S3Uri, destination="/opt/ml/processing/test"),
        ],
        outputs=[
            ProcessingOutput(
                output_name="evaluation",
                source="/opt/ml/processing/evaluation",
                destination=Join(on="/", values=["s3:/", bucket, "lines", ExecutionVariables.PIPELINE_EXECUTION_ID]),
            )
        ],
    ),
    property_files=[report],
)
model = SKLearnModel(
    model_data=artifact,
    role=role,
    entry_point="inference.py",
    framework_version="1.2-1",
    enable_network_isolation=True,  # so that the code has to be in the archive
    sagemaker_session=session,
)
register = ModelStep(
    name="Register",
    step_args=model.register(
        content_types=["text/csv"],
        response_types=["text/csv"],
        inference_instances=["ml.m5.large"],
        transform_instances=["ml.m5.large"],
        model_package_group_name=f"group-{name}",
        approval_status="PendingManualApproval",
    ),
)
fail = FailStep(name="TooBad", error_message=Join(on=" ", values=["the error is above", most]))
check = ConditionStep(
    name="Check",
    conditions=[
        ConditionLessThanOrEqualTo(
            left=JsonGet(step_name="Evaluate", property_file=report, json_path="regression_metrics.mse.value"),
            right=most,
        )
    ],
    if_steps=[register],
    else_steps=[fail],
)
pipeline = Pipeline(
    name=name,
    parameters=[data, count, alpha, most],
    steps=[prepare, train, evaluate, check],
    sagemaker_session=session,
)
pipeline.upsert(role_arn=role, description="lines", tags=[{"Key": "team", "Value": "risk"}])
pipeline.upsert(role_arn=role, description="the same again")
execution = pipeline.start(parallelism_config={"MaxParallelExecutionSteps": 4})
execution.wait(delay=1, max_attempts=240)
found = {one["StepName"]: one for one in execution.list_steps()}
print({one: step["StepStatus"] for one, step in found.items()})
[package] = client.list_model_packages(ModelPackageGroupName=f"group-{name}")["ModelPackageSummaryList"]
assert package["ModelApprovalStatus"] == "PendingManualApproval"
described = client.describe_model_package(ModelPackageName=package["ModelPackageArn"])
print("registered", described["InferenceSpecification"]["Containers"][0]["ModelDataUrl"])
assert any("RepackModel" in one for one in found), found  # the script is packed with the model by a step of its own

again = pipeline.start(parameters={"MostError": -1.0}, execution_display_name="again")
try:
    again.wait(delay=1, max_attempts=240)
except Exception as error:
    print("as it should:", type(error).__name__)
assert again.describe()["PipelineExecutionStatus"] == "Failed"
second = {one["StepName"]: one for one in again.list_steps()}
assert all(second[one]["CacheHitResult"]["SourcePipelineExecutionArn"] == execution.arn for one in ("Prepare", "Train"))
assert second["TooBad"]["FailureReason"] == "the error is above -1.0", second["TooBad"]
assert {one["Name"]: one["Value"] for one in again.list_parameters()["PipelineParameters"]}["MostError"] == "-1.0"
pipeline.delete()
print("over", time.strftime("%X"))

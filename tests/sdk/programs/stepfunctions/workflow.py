"""Builds a workflow of processing, training, tuning and hosting steps with the data science SDK of Step Functions, runs it,
reads its history, and sees a job that fails take the Catch path."""

import json
import pathlib
import time
import uuid

import boto3
import sagemaker
from sagemaker.processing import ProcessingInput, ProcessingOutput
from sagemaker.sklearn import SKLearn
from sagemaker.sklearn.processing import SKLearnProcessor
from sagemaker.tuner import ContinuousParameter, HyperparameterTuner
from stepfunctions.inputs import ExecutionInput
from stepfunctions.steps import (
    Catch,
    Chain,
    EndpointConfigStep,
    EndpointStep,
    Fail,
    ModelStep,
    ProcessingStep,
    TrainingStep,
    TuningStep,
)
from stepfunctions.workflow import Workflow
from stepfunctions.workflow.stepfunctions import ExecutionStatus

SPLIT = """
lines = open("/opt/ml/processing/input/numbers.csv").read().splitlines()
if not all(one.isdigit() for one in lines):
    raise SystemExit("this is no table of numbers")
open("/opt/ml/processing/train/numbers.csv", "w").write("\\n".join(lines[:50]))
"""
TRAIN = """
import argparse, os, json
import joblib

def model_fn(folder):
    return joblib.load(os.path.join(folder, "model.joblib"))

def predict_fn(data, model):
    return model["mean"] + data

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--shift", type=float, default=0.0)
    args, _ = parser.parse_known_args()
    lines = open(os.path.join(os.environ["SM_CHANNEL_TRAIN"], "numbers.csv")).read().split()
    mean = sum(map(float, lines)) / len(lines)
    print(f"loss={(args.shift - 1) ** 2:.6f};")
    joblib.dump({"mean": mean}, os.path.join(os.environ["SM_MODEL_DIR"], "model.joblib"))
"""

session = sagemaker.Session()
bucket, role = session.default_bucket(), sagemaker.get_execution_role()
pathlib.Path("split.py").write_text(SPLIT)
pathlib.Path("train.py").write_text(TRAIN)
pathlib.Path("numbers.csv").write_text("\n".join(str(one) for one in range(100)))
source = session.upload_data("numbers.csv", key_prefix="flow/input")
code = session.upload_data("split.py", key_prefix="flow/code")
names = ("Processing", "Training", "Tuning", "Model", "Endpoint", "Input")
given = ExecutionInput(schema=dict.fromkeys(names, str))
machine = {"instance_type": "ml.m5.large", "instance_count": 1}

processor = SKLearnProcessor(framework_version="1.2-1", role=role, **machine)
train_at = f"s3://{bucket}/flow/train"
split = ProcessingStep(
    "Split",
    processor=processor,
    job_name=given["Processing"],
    inputs=[
        ProcessingInput(source=given["Input"], destination="/opt/ml/processing/input", input_name="numbers"),
        ProcessingInput(source=code, destination="/opt/ml/processing/input/code", input_name="code"),
    ],
    outputs=[ProcessingOutput(source="/opt/ml/processing/train", destination=train_at, output_name="train")],
    container_entrypoint=["python3", "/opt/ml/processing/input/code/split.py"],
    result_path="$.Split",
)
estimator = SKLearn(
    entry_point="train.py", framework_version="1.2-1", role=role, hyperparameters={"shift": 1}, **machine
)
train = TrainingStep("Train", estimator=estimator, data={"train": train_at}, job_name=given["Training"])
tuner = HyperparameterTuner(
    SKLearn(entry_point="train.py", framework_version="1.2-1", role=role, **machine),
    objective_metric_name="loss",
    objective_type="Minimize",
    metric_definitions=[{"Name": "loss", "Regex": "loss=([0-9.]+);"}],
    hyperparameter_ranges={"shift": ContinuousParameter(0, 2)},
    max_jobs=2,
    max_parallel_jobs=2,
    strategy="Random",
)
tune = TuningStep("Tune", tuner=tuner, job_name=given["Tuning"], data={"train": train_at}, result_path="$.Tune")
model = ModelStep("Keep", train.get_expected_model(), model_name=given["Model"], result_path="$.Keep")
configure = EndpointConfigStep(
    "Configure",
    endpoint_config_name=given["Model"],
    model_name=given["Model"],
    initial_instance_count=1,
    instance_type="ml.m5.large",
    result_path="$.Configure",
)
serve = EndpointStep(
    "Serve", endpoint_name=given["Endpoint"], endpoint_config_name=given["Model"], result_path="$.Serve"
)
failed = Fail("Failed", error="WorkflowFailed", cause="a job failed")
split.add_catch(Catch(error_equals=["States.TaskFailed"], next_step=failed))
workflow = Workflow(
    name=f"flow-{uuid.uuid4().hex[:8]}",
    definition=Chain([split, tune, train, model, configure, serve]),
    role=role,
    execution_input=given,
)
arn = workflow.create()
assert workflow.create() == arn  # the same again is the same
print("machine", arn)


def named(word, place):
    return {**{one: f"{word}-{one.lower()}-{uuid.uuid4().hex[:6]}" for one in names}, "Input": place}


def over(execution):
    while (described := execution.describe())["status"] == "RUNNING":
        time.sleep(0.5)
    return described


inputs = named("good", source)
execution = workflow.execute(inputs=inputs)
described = over(execution)
told = [one for one in execution.list_events() if one["type"].endswith(("Failed", "TimedOut", "Aborted"))]
assert described["status"] == "SUCCEEDED", told
output = execution.get_output()
assert output["TrainingJobStatus"] == "Completed" and output["Serve"]["EndpointArn"], output
waited = [
    json.loads(one["taskSucceededEventDetails"]["output"])
    for one in execution.list_events()
    if one["type"] == "TaskSucceeded"
]
assert waited[0]["ProcessingJobStatus"] == waited[1]["HyperParameterTuningJobStatus"] == "Completed"
entered = [
    one["stateEnteredEventDetails"]["name"] for one in execution.list_events() if one["type"].endswith("StateEntered")
]
assert entered == ["Split", "Tune", "Train", "Keep", "Configure", "Serve"], entered
client = boto3.client("sagemaker")
client.get_waiter("endpoint_in_service").wait(
    EndpointName=inputs["Endpoint"], WaiterConfig={"Delay": 1, "MaxAttempts": 180}
)
answer = boto3.client("sagemaker-runtime").invoke_endpoint(
    EndpointName=inputs["Endpoint"], ContentType="application/json", Accept="application/json", Body=b"[1, 2]"
)
told = json.loads(answer["Body"].read())
print("answer", told)
assert told == [25.5, 26.5]
client.delete_endpoint(EndpointName=inputs["Endpoint"])

# A job that fails takes the Catch path, and the execution says so.
pathlib.Path("words.csv").write_text("no numbers")
execution = workflow.execute(inputs=named("bad", session.upload_data("words.csv", key_prefix="flow/wrong/numbers.csv")))
described = over(execution)
assert (described["status"], described["error"]) == ("FAILED", "WorkflowFailed"), described
[lost] = [one["taskFailedEventDetails"] for one in execution.list_events() if one["type"] == "TaskFailed"]
assert lost["error"] == "States.TaskFailed" and json.loads(lost["cause"])["ProcessingJobStatus"] == "Failed"
assert [one.name for one in workflow.list_executions(status_filter=ExecutionStatus.Succeeded)] == [
    one.name for one in workflow.list_executions()
][1:]

# What is no definition is refused, and so is a name that was used.
states = boto3.client("stepfunctions")
for call, more, code in (
    (states.update_state_machine, {"definition": '{"StartAt": "Nowhere", "States": {}}'}, "InvalidDefinition"),
    (states.start_execution, {"name": described["name"], "input": "{}"}, "ExecutionAlreadyExists"),
):
    try:
        call(stateMachineArn=arn, **more)
    except states.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == code, error
    else:
        raise AssertionError(f"{code} was expected")
workflow.delete()
try:
    states.start_execution(stateMachineArn=f"{arn}-none")
except states.exceptions.StateMachineDoesNotExist:
    print("over")

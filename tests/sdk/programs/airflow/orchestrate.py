"""Airflow's SageMaker operators process, train and register, from a plain Airflow: a DAG by `airflow dags test`; and a task
whose job fails."""

import json
import os
import pathlib
import subprocess
import sys

import boto3

FLOW = """
import datetime
import os
from airflow.providers.amazon.aws.operators.sagemaker import (
    SageMakerProcessingOperator,
    SageMakerRegisterModelVersionOperator,
    SageMakerTrainingOperator,
)
from airflow.sdk import DAG

BUCKET, ROLE, WORD = (os.environ[one] for one in ("FLOW_BUCKET", "FLOW_ROLE", "FLOW_WORD"))
ACCOUNT = "683313688378.dkr.ecr.us-east-1.amazonaws.com"
WAIT = {"wait_for_completion": True, "check_interval": 1}
MACHINE = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}


def channel(name, key):
    where = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/{key}", "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "ContentType": "text/csv", "DataSource": {"S3DataSource": where}}


def given(name, key):
    return {"InputName": name, "S3Input": {"S3Uri": f"s3://{BUCKET}/{key}", "LocalPath": f"/opt/ml/processing/{name}",
            "S3DataType": "S3Prefix", "S3InputMode": "File"}}


with DAG(dag_id="flow", schedule=None, start_date=datetime.datetime(2026, 1, 1)):
    split = SageMakerProcessingOperator(
        task_id="split", action_if_job_exists="fail", **WAIT,
        config={
            "ProcessingJobName": f"split-{WORD}",
            "RoleArn": ROLE,
            "AppSpecification": {"ImageUri": f"{ACCOUNT}/sagemaker-scikit-learn:1.2-1-cpu-py3",
                                 "ContainerEntrypoint": ["python3", "/opt/ml/processing/code/split.py"]},
            "ProcessingInputs": [given("code", "code/"), given("input", f"{WORD}/input/")],
            "ProcessingOutputConfig": {"Outputs": [{"OutputName": "train", "S3Output": {
                "S3Uri": f"s3://{BUCKET}/{WORD}/train", "LocalPath": "/opt/ml/processing/train",
                "S3UploadMode": "EndOfJob"}}]},
            "ProcessingResources": {"ClusterConfig": MACHINE},
        },
    )
    train = SageMakerTrainingOperator(
        task_id="train", action_if_job_exists="fail", print_log=False, **WAIT,
        config={
            "TrainingJobName": f"train-{WORD}",
            "RoleArn": ROLE,
            "AlgorithmSpecification": {"TrainingImage": f"{ACCOUNT}/sagemaker-xgboost:1.7-1", "TrainingInputMode": "File"},
            "HyperParameters": {"num_round": "3", "objective": "reg:squarederror"},
            "InputDataConfig": [channel("train", f"{WORD}/train/")],
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/{WORD}/models"},
            "ResourceConfig": MACHINE,
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        },
    )
    register = SageMakerRegisterModelVersionOperator(
        task_id="register",
        image_uri=f"{ACCOUNT}/sagemaker-xgboost:1.7-1",
        model_url=f"s3://{BUCKET}/{WORD}/models/train-{WORD}/output/model.tar.gz",
        package_group_name="flow",
    )
    split >> train >> register
"""
SPLIT = """
rows = open("/opt/ml/processing/input/rows.csv").read().splitlines()
[[float(one) for one in row.split(",")] for row in rows]
open("/opt/ml/processing/train/rows.csv", "w").write("\\n".join(rows[:50]))
"""

home = pathlib.Path.home() / "airflow"
(home / "dags").mkdir(parents=True)
(home / "dags" / "flow.py").write_text(FLOW)
account = boto3.client("sts").get_caller_identity()["Account"]
bucket = f"airflow-{account}"
s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
s3.create_bucket(Bucket=bucket)
s3.put_object(Bucket=bucket, Key="code/split.py", Body=SPLIT)
for word, rows in (("good", "\n".join(f"{2 * one},{one}" for one in range(100))), ("bad", "no,numbers")):
    s3.put_object(Bucket=bucket, Key=f"{word}/input/rows.csv", Body=rows)
surroundings = {
    **os.environ, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
    "FLOW_BUCKET": bucket, "FLOW_ROLE": f"arn:aws:iam::{account}:role/SageMakerExecution",
}  # fmt: skip


def airflow(*words, word=""):
    done = subprocess.run(
        [f"{sys.prefix}/bin/airflow", *words],
        check=False,
        env={**surroundings, "FLOW_WORD": word},
        capture_output=True,
        text=True,
    )
    print(done.stdout[-6000:], done.stderr[-6000:])
    return done


assert airflow("db", "migrate", word="good").returncode == 0
ran = airflow("dags", "test", "flow", "2026-01-02", word="good")
assert ran.returncode == 0
assert sagemaker.describe_processing_job(ProcessingJobName="split-good")["ProcessingJobStatus"] == "Completed"
assert sagemaker.describe_training_job(TrainingJobName="train-good")["TrainingJobStatus"] == "Completed"
[package] = sagemaker.list_model_packages(ModelPackageGroupName="flow")["ModelPackageSummaryList"]
held = sagemaker.describe_model_package(ModelPackageName=package["ModelPackageArn"])
print(json.dumps(held["InferenceSpecification"]["Containers"][0], default=str))
assert held["ModelPackageStatus"] == "Completed"

# A job that fails fails its task, and what comes after it is not run.
ran = airflow("dags", "test", "flow", "2026-01-03", word="bad")
assert sagemaker.describe_processing_job(ProcessingJobName="split-bad")["ProcessingJobStatus"] == "Failed"
assert "split-bad" in ran.stdout + ran.stderr
assert not [
    one for one in sagemaker.list_training_jobs()["TrainingJobSummaries"] if one["TrainingJobName"] == "train-bad"
]
print("over")

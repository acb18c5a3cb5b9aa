"""A pipeline that computes a baseline, registers a model with it, and checks later data against that of the registry."""

import os
import pathlib
import tarfile
import time

import boto3
import sagemaker
from sagemaker.drift_check_baselines import DriftCheckBaselines
from sagemaker.model import Model
from sagemaker.model_metrics import MetricsSource, ModelMetrics
from sagemaker.model_monitor import DatasetFormat
from sagemaker.workflow.check_job_config import CheckJobConfig
from sagemaker.workflow.model_step import ModelStep
from sagemaker.workflow.parameters import ParameterBoolean, ParameterString
from sagemaker.workflow.pipeline import Pipeline
from sagemaker.workflow.pipeline_context import PipelineSession
from sagemaker.workflow.quality_check_step import DataQualityCheckConfig, QualityCheckStep

session = PipelineSession()
role = sagemaker.get_execution_role()
bucket = session.default_bucket()
client = boto3.client("sagemaker")
name = f"checked-{os.getpid()}"
uploaded = {}
for kind, most in (("train", 7), ("later", 1000)):
    pathlib.Path(f"{kind}.csv").write_text("a,b\n" + "".join(f"{one},{one % most}\n" for one in range(200)))
    uploaded[kind] = sagemaker.Session().upload_data(f"{kind}.csv", bucket, f"checked/{kind}")
pathlib.Path("nothing.json").write_text("{}")
with tarfile.open("model.tar.gz", "w:gz") as packed:
    packed.add("nothing.json")
archive = sagemaker.Session().upload_data("model.tar.gz", bucket, "checked/model")

data = ParameterString(name="Data", default_value=uploaded["train"])
skip = ParameterBoolean(name="Skip", default_value=True)
register = ParameterBoolean(name="Register", default_value=True)
check = QualityCheckStep(
    name="Check",
    skip_check=skip,
    register_new_baseline=register,
    quality_check_config=DataQualityCheckConfig(
        baseline_dataset=data,
        dataset_format=DatasetFormat.csv(header=True),
        output_s3_uri=f"s3://{bucket}/checked/baseline-{name}",
    ),
    check_job_config=CheckJobConfig(
        role=role, instance_count=1, instance_type="ml.m5.large", volume_size_in_gb=5, sagemaker_session=session
    ),
    model_package_group_name=name,
)
kept = {
    "model_data_statistics": MetricsSource(
        s3_uri=check.properties.BaselineUsedForDriftCheckStatistics, content_type="application/json"
    ),
    "model_data_constraints": MetricsSource(
        s3_uri=check.properties.BaselineUsedForDriftCheckConstraints, content_type="application/json"
    ),
}
model = Model(
    image_uri=sagemaker.image_uris.retrieve("sklearn", "us-east-1", "1.2-1"),
    model_data=archive,
    role=role,
    sagemaker_session=session,
)
registered = ModelStep(
    name="Keep",
    step_args=model.register(
        content_types=["text/csv"],
        response_types=["text/csv"],
        inference_instances=["ml.m5.large"],
        transform_instances=["ml.m5.large"],
        model_package_group_name=name,
        approval_status="Approved",
        model_metrics=ModelMetrics(
            model_data_statistics=MetricsSource(
                s3_uri=check.properties.CalculatedBaselineStatistics, content_type="application/json"
            )
        ),
        drift_check_baselines=DriftCheckBaselines(**kept),
    ),
)
pipeline = Pipeline(name=name, parameters=[data, skip, register], steps=[check, registered], sagemaker_session=session)
pipeline.upsert(role_arn=role)


def ended(**parameters):
    """An execution's status, and its first step."""
    execution = pipeline.start(parameters=parameters)
    while (status := execution.describe()["PipelineExecutionStatus"]) == "Executing":
        time.sleep(1)
    steps = {one["StepName"]: one for one in execution.list_steps()}
    return status, steps["Check"], steps


status, first, steps = ended()
assert status == "Succeeded", steps
told = first["Metadata"]["QualityCheck"]
assert told["CalculatedBaselineStatistics"] == f"s3://{bucket}/checked/baseline-{name}/statistics.json", told
[package] = client.list_model_packages(ModelPackageGroupName=name)["ModelPackageSummaryList"]
baselines = client.describe_model_package(ModelPackageName=package["ModelPackageArn"])["DriftCheckBaselines"]
assert baselines["ModelDataQuality"]["Constraints"]["S3Uri"] == told["CalculatedBaselineConstraints"], baselines

status, again, steps = ended(Skip=False, Register=False)
assert status == "Succeeded", steps
assert "ViolationReport" not in again["Metadata"]["QualityCheck"]

status, drifted, steps = ended(Skip=False, Register=False, Data=uploaded["later"])
assert (status, drifted["StepStatus"]) == ("Failed", "Failed"), steps
assert drifted["Metadata"]["QualityCheck"]["ViolationReport"] in drifted["FailureReason"], drifted
assert set(steps) == {"Check"}
pipeline.delete()

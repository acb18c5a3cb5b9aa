"""A pipeline that asks how biased data is and what predictions rest on, and holds that against earlier answers."""

import os
import pathlib
import tarfile
import time

import sagemaker
from sagemaker import clarify
from sagemaker.sklearn.model import SKLearnModel
from sagemaker.workflow.check_job_config import CheckJobConfig
from sagemaker.workflow.clarify_check_step import (
    ClarifyCheckStep,
    DataBiasCheckConfig,
    ModelExplainabilityCheckConfig,
)
from sagemaker.workflow.functions import Join
from sagemaker.workflow.model_step import ModelStep
from sagemaker.workflow.parameters import ParameterBoolean, ParameterString
from sagemaker.workflow.pipeline import Pipeline
from sagemaker.workflow.pipeline_context import PipelineSession

INFERENCE = """
def model_fn(model_dir):
    return 0.4

def input_fn(body, content_type):
    text = body.decode() if isinstance(body, bytes) else body
    return [[float(one) for one in line.split(",")] for line in text.splitlines() if line]

def predict_fn(rows, factor):
    return [factor * row[0] + 0.002 * row[1] for row in rows]

def output_fn(prediction, accept):
    return "\\n".join(str(one) for one in prediction) + "\\n", "text/csv"
"""

session = PipelineSession()
role, bucket = sagemaker.get_execution_role(), session.default_bucket()
name = f"asked-{os.getpid()}"
upload = sagemaker.Session().upload_data
pathlib.Path("inference.py").write_text(INFERENCE)
pathlib.Path("nothing.json").write_text("{}")
with tarfile.open("model.tar.gz", "w:gz") as packed:
    packed.add("nothing.json")
uploaded = {}
for kind, most in (("train", 2), ("later", 8)):
    pathlib.Path(f"{kind}.csv").write_text("".join(f"{n % 5 // 4},{int(n % most == 0)},{n}\n" for n in range(120)))
    uploaded[kind] = upload(f"{kind}.csv", bucket, f"asked/{kind}")

data = ParameterString(name="Data", default_value=uploaded["train"])
skip = ParameterBoolean(name="Skip", default_value=True)
register = ParameterBoolean(name="Register", default_value=True)
before = ParameterString(name="Before", default_value=f"s3://{bucket}/asked/bias-first/analysis.json")
to = ParameterString(name="To", default_value="first")
model = SKLearnModel(
    model_data=upload("model.tar.gz", bucket, "asked/model"),
    role=role,
    entry_point="inference.py",
    framework_version="1.2-1",
    sagemaker_session=session,
)
made = ModelStep(name="Model", step_args=model.create(instance_type="ml.m5.large"))
job = CheckJobConfig(
    role=role, instance_count=1, instance_type="ml.m5.large", volume_size_in_gb=5, sagemaker_session=session
)


def source(kind):
    """What a check looks at, and where it answers."""
    return clarify.DataConfig(
        s3_data_input_path=data,
        s3_output_path=Join(on="", values=[f"s3://{bucket}/asked/{kind}-", to]),
        s3_analysis_config_output_path=f"s3://{bucket}/asked/config-{kind}",
        label="deny",
        headers=["deny", "sex", "income"],
        dataset_type="text/csv",
    )


bias = ClarifyCheckStep(
    name="Bias",
    clarify_check_config=DataBiasCheckConfig(
        data_config=source("bias"),
        data_bias_config=clarify.BiasConfig(
            label_values_or_threshold=[0], facet_name="sex", facet_values_or_threshold=[1]
        ),
        methods=["CI"],
    ),
    check_job_config=job,
    skip_check=skip,
    register_new_baseline=register,
    supplied_baseline_constraints=before,
)
rests = ClarifyCheckStep(
    name="Rests",
    clarify_check_config=ModelExplainabilityCheckConfig(
        data_config=source("rests"),
        model_config=clarify.ModelConfig(
            model_name=made.properties.ModelName,
            instance_type="ml.m5.large",
            instance_count=1,
            accept_type="text/csv",
            content_type="text/csv",
        ),
        explainability_config=clarify.SHAPConfig(baseline=[[0, 0]], num_samples=20, agg_method="mean_abs"),
    ),
    check_job_config=job,
    skip_check=True,
    register_new_baseline=True,
)
given = {"parameters": [data, skip, register, before, to], "steps": [made, bias, rests]}
pipeline = Pipeline(name=name, sagemaker_session=session, **given)
pipeline.upsert(role_arn=role)


def ended(**parameters):
    """An execution's status, and its steps."""
    execution = pipeline.start(parameters=parameters)
    while (status := execution.describe()["PipelineExecutionStatus"]) == "Executing":
        time.sleep(1)
    return status, {one["StepName"]: one for one in execution.list_steps()}


status, steps = ended()
assert status == "Succeeded", steps
told = steps["Bias"]["Metadata"]["ClarifyCheck"]
assert told["CalculatedBaselineConstraints"] == f"s3://{bucket}/asked/bias-first/analysis.json", told
assert steps["Rests"]["Metadata"]["ClarifyCheck"]["CheckType"] == "MODEL_EXPLAINABILITY", steps
status, steps = ended(Skip=False, Register=False, Data=uploaded["later"], To="second")
assert status == "Failed", steps
assert "found violations" in steps["Bias"]["FailureReason"], steps
pipeline.delete()

"""Computes the baselines of monitors of a model's quality, bias and attributions, and holds an endpoint against them."""

import json
import pathlib
import tarfile
import time
from datetime import UTC, datetime

import sagemaker
from sagemaker.clarify import BiasConfig, DataConfig, ModelConfig, ModelPredictedLabelConfig, SHAPConfig
from sagemaker.model_monitor import (
    BiasAnalysisConfig,
    CronExpressionGenerator,
    DataCaptureConfig,
    DatasetFormat,
    EndpointInput,
    ExplainabilityAnalysisConfig,
    ModelBiasMonitor,
    ModelExplainabilityMonitor,
    ModelQualityMonitor,
)
from sagemaker.s3 import S3Downloader, S3Uploader
from sagemaker.serializers import CSVSerializer
from sagemaker.sklearn.model import SKLearnModel

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

session = sagemaker.Session()
bucket, role = session.default_bucket(), sagemaker.get_execution_role()
where = {"role": role, "instance_count": 1, "instance_type": "ml.m5.large", "volume_size_in_gb": 5}
rows = "".join(f"{0.4 * (n % 2) + 0.002 * n},{int(n % 2 > 0)},{n % 3 // 2}\n" for n in range(300))
pathlib.Path("validation.csv").write_text(f"probability,prediction,label\n{rows}")
quality = ModelQualityMonitor(**where, sagemaker_session=session)
quality.suggest_baseline(
    baseline_dataset=session.upload_data("validation.csv", key_prefix="monitors/quality"),
    dataset_format=DatasetFormat.csv(header=True),
    output_s3_uri=f"s3://{bucket}/monitors/quality/baseline",
    problem_type="BinaryClassification",
    inference_attribute="prediction",
    probability_attribute="probability",
    ground_truth_attribute="label",
    wait=True,
)
found = quality.baseline_statistics().body_dict["binary_classification_metrics"]
limits = quality.suggested_constraints().body_dict["binary_classification_constraints"]
right = sum(1 for n in range(300) if int(n % 2 > 0) == n % 3 // 2)
assert abs(found["accuracy"]["value"] - right / 300) < 1e-9
assert limits["accuracy"] == {"threshold": found["accuracy"]["value"], "comparison_operator": "LessThanThreshold"}

pathlib.Path("inference.py").write_text(INFERENCE)
pathlib.Path("nothing.json").write_text("{}")
with tarfile.open("model.tar.gz", "w:gz") as packed:
    packed.add("nothing.json")
pathlib.Path("data.csv").write_text("".join(f"{n % 5 // 4},{n % 2},{n}\n" for n in range(120)))
model = SKLearnModel(
    model_data=session.upload_data("model.tar.gz", key_prefix="monitors/model"),
    role=role,
    entry_point="inference.py",
    framework_version="1.2-1",
    sagemaker_session=session,
)
model.create(instance_type="ml.m5.large")
asked = ModelConfig(
    model_name=model.name,
    instance_type="ml.m5.large",
    instance_count=1,
    accept_type="text/csv",
    content_type="text/csv",
)


def data(name: str) -> DataConfig:
    return DataConfig(
        s3_data_input_path=session.upload_data("data.csv", key_prefix="monitors/data"),
        s3_output_path=f"s3://{bucket}/monitors/{name}/baseline",
        label="deny",
        headers=["deny", "sex", "income"],
        dataset_type="text/csv",
    )


facet = BiasConfig(label_values_or_threshold=[0], facet_name="sex", facet_values_or_threshold=[1])
bias = ModelBiasMonitor(**where, sagemaker_session=session)
bias.suggest_baseline(
    data_config=data("bias"),
    bias_config=facet,
    model_config=asked,
    model_predicted_label_config=ModelPredictedLabelConfig(probability_threshold=0.3),
    wait=True,
)
found = bias.suggested_constraints().body_dict["post_training_bias_metrics"]["facets"]["sex"][0]["metrics"]
assert {one["name"]: one["value"] for one in found}["DPPL"] == 1.0
shap = SHAPConfig(baseline=[[0, 0]], num_samples=20, agg_method="mean_abs")
explained = ModelExplainabilityMonitor(**where, sagemaker_session=session)
explained.suggest_baseline(
    data_config=data("explained"),
    explainability_config=shap,
    model_config=asked,
    wait=True,
)
found = explained.suggested_constraints().body_dict["explanations"]["kernel_shap"]["label0"]["global_shap_values"]
assert abs(found["sex"] - 0.2) < 1e-9 and abs(found["income"] - 0.119) < 1e-9

# In production income is all that differs, and whom of the facet the model denies is not denied by the truth.
predictor = model.deploy(
    initial_instance_count=1,
    instance_type="ml.m5.large",
    endpoint_name="mortgages",
    serializer=CSVSerializer(),
    data_capture_config=DataCaptureConfig(
        enable_capture=True, sampling_percentage=100, destination_s3_uri=f"s3://{bucket}/monitors/captured"
    ),
)
for n in range(40):
    predictor.predict([[n % 2, 100 + 9 * n]], inference_id=f"call-{n}")
truths = [
    {
        "groundTruthData": {"data": str(n % 4 // 3), "encoding": "CSV"},
        "eventMetadata": {"eventId": f"call-{n}"},
        "eventVersion": "0",
    }
    for n in range(40)
]
now = datetime.now(UTC).strftime("%Y/%m/%d/%H")
truth = f"s3://{bucket}/monitors/truth"
S3Uploader.upload_string_as_file_body("".join(json.dumps(one) + "\n" for one in truths), f"{truth}/{now}/a.jsonl")
until = time.monotonic() + 120
while not S3Downloader.list(f"s3://{bucket}/monitors/captured/mortgages"):
    assert time.monotonic() < until, "nothing is captured"
    time.sleep(1)
once = {
    "schedule_cron_expression": CronExpressionGenerator.now(),
    "data_analysis_start_time": "-PT1H",
    "data_analysis_end_time": "-PT0H",
}
bias.create_monitoring_schedule(
    monitor_schedule_name="bias",
    endpoint_input=EndpointInput(
        "mortgages", "/opt/ml/processing/input/endpoint", probability_threshold_attribute=0.3, inference_attribute=None
    ),
    ground_truth_input=truth,
    analysis_config=BiasAnalysisConfig(facet, headers=["deny", "sex", "income"], label="deny"),
    output_s3_uri=f"s3://{bucket}/monitors/bias/reports",
    **once,
)
explained.create_monitoring_schedule(
    monitor_schedule_name="attributions",
    endpoint_input="mortgages",
    analysis_config=ExplainabilityAnalysisConfig(shap, asked, headers=["sex", "income"]),
    output_s3_uri=f"s3://{bucket}/monitors/explained/reports",
    **once,
)
for monitor, check in ((bias, "bias_drift_check"), (explained, "feature_attribution_drift_check")):
    while not (ran := monitor.list_executions()) or ran[-1].describe()["ProcessingJobStatus"] == "InProgress":
        assert time.monotonic() < until, "nothing is monitored"
        time.sleep(1)
    assert ran[-1].describe()["ExitMessage"].startswith("CompletedWithViolations"), ran[-1].describe()
    violations = monitor.latest_monitoring_constraint_violations().body_dict["violations"]
    assert {one["constraint_check_type"] for one in violations} == {check}, violations
    monitor.delete_monitoring_schedule()
predictor.delete_endpoint()
model.delete_model()

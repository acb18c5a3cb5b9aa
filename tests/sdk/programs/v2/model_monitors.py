"""Computes the baselines of monitors of a model's quality, bias and attributions."""

import pathlib
import tarfile

import sagemaker
from sagemaker.clarify import BiasConfig, DataConfig, ModelConfig, ModelPredictedLabelConfig, SHAPConfig
from sagemaker.model_monitor import DatasetFormat, ModelBiasMonitor, ModelExplainabilityMonitor, ModelQualityMonitor
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


bias = ModelBiasMonitor(**where, sagemaker_session=session)
bias.suggest_baseline(
    data_config=data("bias"),
    bias_config=BiasConfig(label_values_or_threshold=[0], facet_name="sex", facet_values_or_threshold=[1]),
    model_config=asked,
    model_predicted_label_config=ModelPredictedLabelConfig(probability_threshold=0.3),
    wait=True,
)
found = bias.suggested_constraints().body_dict["post_training_bias_metrics"]["facets"]["sex"][0]["metrics"]
assert {one["name"]: one["value"] for one in found}["DPPL"] == 1.0
explained = ModelExplainabilityMonitor(**where, sagemaker_session=session)
explained.suggest_baseline(
    data_config=data("explained"),
    explainability_config=SHAPConfig(baseline=[[0, 0]], num_samples=20, agg_method="mean_abs"),
    model_config=asked,
    wait=True,
)
found = explained.suggested_constraints().body_dict["explanations"]["kernel_shap"]["label0"]["global_shap_values"]
assert abs(found["sex"] - 0.2) < 1e-9 and abs(found["income"] - 0.119) < 1e-9
model.delete_model()

"""Asks how biased data and a model are, and what its predictions rest on."""

import json
import pathlib
import tarfile

import sagemaker
from sagemaker import clarify
from sagemaker.s3 import S3Downloader
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
pathlib.Path("inference.py").write_text(INFERENCE)
pathlib.Path("nothing.json").write_text("{}")
with tarfile.open("model.tar.gz", "w:gz") as packed:
    packed.add("nothing.json")
pathlib.Path("data.csv").write_text("".join(f"{n % 5 // 4},{n % 2},{n}\n" for n in range(120)))
model = SKLearnModel(
    model_data=session.upload_data("model.tar.gz", key_prefix="clarify/model"),
    role=role,
    entry_point="inference.py",
    framework_version="1.2-1",
    sagemaker_session=session,
)
model.create(instance_type="ml.m5.large")
processor = clarify.SageMakerClarifyProcessor(
    role=role, instance_count=1, instance_type="ml.m5.large", sagemaker_session=session
)
target = f"s3://{bucket}/clarify/out"
data = clarify.DataConfig(
    s3_data_input_path=session.upload_data("data.csv", key_prefix="clarify/data"),
    s3_output_path=target,
    label="deny",
    headers=["deny", "sex", "income"],
    dataset_type="text/csv",
)
processor.run_bias_and_explainability(
    data_config=data,
    model_config=clarify.ModelConfig(
        model_name=model.name,
        instance_type="ml.m5.large",
        instance_count=1,
        accept_type="text/csv",
        content_type="text/csv",
    ),
    explainability_config=[
        clarify.SHAPConfig(baseline=[[0, 0]], num_samples=20, agg_method="mean_abs", save_local_shap_values=True),
        clarify.PDPConfig(features=["sex"], grid_resolution=5),
    ],
    bias_config=clarify.BiasConfig(label_values_or_threshold=[0], facet_name="sex", facet_values_or_threshold=[1]),
    pre_training_methods="all",
    post_training_methods="all",
    model_predicted_label_config=clarify.ModelPredictedLabelConfig(probability_threshold=0.3),
    logs=False,
)
found = json.loads(S3Downloader.read_file(f"{target}/analysis.json", sagemaker_session=session))
pre = {one["name"]: one["value"] for one in found["pre_training_bias_metrics"]["facets"]["sex"][0]["metrics"]}
post = {one["name"]: one["value"] for one in found["post_training_bias_metrics"]["facets"]["sex"][0]["metrics"]}
assert pre["CI"] == 0.0 and post["DPPL"] == 1.0
shap = found["explanations"]["kernel_shap"]["label0"]["global_shap_values"]
assert abs(shap["sex"] - 0.2) < 1e-9 and abs(shap["income"] - 0.119) < 1e-9
model.delete_model()

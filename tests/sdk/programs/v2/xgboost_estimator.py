"""Trains XGBoost, the built-in and a script, at lower priority with checkpoints; attaches, looks at metrics, asks."""

import pathlib

import numpy
import sagemaker
from sagemaker import TrainingInput, image_uris
from sagemaker.deserializers import CSVDeserializer
from sagemaker.estimator import Estimator
from sagemaker.s3 import S3Downloader, S3Uploader
from sagemaker.serializers import CSVSerializer
from sagemaker.xgboost import XGBoost

TRAIN = """
import argparse, json, os
import numpy, xgboost
import helpful

def model_fn(folder):
    booster = xgboost.Booster()
    booster.load_model(os.path.join(folder, "xgboost-model"))
    return booster

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--max_depth", type=int)
    parser.add_argument("--said", type=str)
    parser.add_argument("--train", default=os.environ["SM_CHANNEL_TRAIN"])
    args = parser.parse_args()
    rows = numpy.loadtxt(os.path.join(args.train, "train.csv"), delimiter=",")
    settings = {"max_depth": args.max_depth, "objective": "binary:logistic"}
    booster = xgboost.train(settings, xgboost.DMatrix(rows[:, 1:], rows[:, 0]), 10)
    booster.save_model(os.path.join(os.environ["SM_MODEL_DIR"], "xgboost-model"))
    print(f"accuracy={helpful.ACCURACY}; {args.said} {os.environ['TONE']}")
    with open(os.path.join(os.environ["SM_OUTPUT_DATA_DIR"], "report.json"), "w") as report:
        json.dump({"depth": args.max_depth}, report)
"""

session, role = sagemaker.Session(), sagemaker.get_execution_role()
bucket = session.default_bucket()
features = numpy.random.default_rng(1).normal(size=(200, 3))
rows = numpy.column_stack([features[:, 0] > 0, features])
numpy.savetxt("train.csv", rows, delimiter=",", fmt="%.5f")
data = S3Uploader.upload("train.csv", f"s3://{bucket}/rows", sagemaker_session=session)

estimator = Estimator(
    image_uris.retrieve("xgboost", session.boto_region_name, "1.7-1"),
    role,
    instance_count=1,
    instance_type="ml.m5.xlarge",
    output_path=f"s3://{bucket}/models",
    use_spot_instances=True,
    max_run=600,
    max_wait=1200,
    checkpoint_s3_uri=f"s3://{bucket}/checkpoints",
    tags=[{"Key": "team", "Value": "credit"}],
    sagemaker_session=session,
)
estimator.set_hyperparameters(max_depth=5, eta=0.2, objective="binary:logistic", num_round=20)
channels = {name: TrainingInput(f"s3://{bucket}/rows", content_type="csv") for name in ("train", "validation")}
estimator.fit(channels)
assert len(S3Downloader.list(f"s3://{bucket}/checkpoints", sagemaker_session=session)) > 0
attached = Estimator.attach(estimator.latest_training_job.name, sagemaker_session=session)
assert attached.hyperparameters()["num_round"] == "20"
assert attached.model_data == estimator.model_data
curves = estimator.training_job_analytics.dataframe()
assert {"train:logloss", "validation:logloss"} <= set(curves["metric_name"])

pathlib.Path("source").mkdir()
pathlib.Path("source/train.py").write_text(TRAIN)
pathlib.Path("helpful").mkdir()
pathlib.Path("helpful/__init__.py").write_text("ACCURACY = 0.9\n")
script = XGBoost(
    "train.py",
    source_dir="source",
    dependencies=["helpful"],
    framework_version="1.7-1",
    instance_type="ml.m5.large",
    instance_count=1,
    role=role,
    hyperparameters={"max_depth": 3, "said": "yes, it is"},
    metric_definitions=[{"Name": "accuracy", "Regex": "accuracy=([0-9.]+);"}],
    environment={"TONE": "very well"},
    code_location=f"s3://{bucket}/code",
    output_path=f"s3://{bucket}/models",
    sagemaker_session=session,
)
script.fit({"train": f"s3://{bucket}/rows"})
described = script.latest_training_job.describe()
assert [round(one["Value"], 3) for one in described["FinalMetricDataList"]] == [0.9]
predictor = script.deploy(1, "ml.m5.large", serializer=CSVSerializer(), deserializer=CSVDeserializer())
try:
    answer = predictor.predict([[2, 0, 0], [-2, 0, 0]])
    told = [float(one) for line in answer for one in line]
    print("answer", told)
    assert told[0] > 0.5 > told[1]
finally:
    predictor.delete_model()
    predictor.delete_endpoint()

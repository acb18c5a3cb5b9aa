"""Searches hyperparameters and takes the best model."""

import pathlib

import sagemaker
from sagemaker.sklearn import SKLearn
from sagemaker.tuner import ContinuousParameter, HyperparameterTuner, IntegerParameter

TRAIN = """
import argparse, json, os
parser = argparse.ArgumentParser()
parser.add_argument("--place", type=float)
parser.add_argument("--steps", type=int)
args, _ = parser.parse_known_args()
print(f"loss={(args.place - 3) ** 2 + 0.01 * args.steps:.6f};")
with open(os.path.join(os.environ["SM_MODEL_DIR"], "x.json"), "w") as file:
    json.dump(args.place, file)
"""

session = sagemaker.Session()
pathlib.Path("train.py").write_text(TRAIN)
estimator = SKLearn(
    entry_point="train.py",
    framework_version="1.2-1",
    instance_type="ml.m5.large",
    instance_count=1,
    role=sagemaker.get_execution_role(),
    sagemaker_session=session,
)
tuner = HyperparameterTuner(
    estimator,
    objective_metric_name="loss",
    objective_type="Minimize",
    metric_definitions=[{"Name": "loss", "Regex": "loss=([0-9.]+);"}],
    hyperparameter_ranges={"place": ContinuousParameter(0, 10), "steps": IntegerParameter(1, 5)},
    max_jobs=4,
    max_parallel_jobs=2,
    strategy="Random",
)
tuner.fit(wait=True)
described = tuner.describe()
assert described["HyperParameterTuningJobStatus"] == "Completed", described
assert described["TrainingJobStatusCounters"]["Completed"] == 4
best = tuner.best_training_job()
frame = tuner.analytics().dataframe()
assert len(frame) == 4
assert frame.sort_values("FinalObjectiveValue").iloc[0]["TrainingJobName"] == best
estimator = tuner.best_estimator()
print("best", best, estimator.model_data)
assert estimator.model_data.startswith("s3://")
attached = HyperparameterTuner.attach(tuner.latest_tuning_job.name, sagemaker_session=session)
assert attached.best_training_job() == best

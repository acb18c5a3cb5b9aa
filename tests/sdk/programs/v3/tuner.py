"""Searches hyperparameters with v3."""

import pathlib

from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session, get_execution_role
from sagemaker.core.parameter import ContinuousParameter
from sagemaker.core.training.configs import Compute, SourceCode
from sagemaker.train import ModelTrainer
from sagemaker.train.tuner import HyperparameterTuner

TRAIN = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--place", type=float)
args, _ = parser.parse_known_args()
print(f"loss={(args.place - 3) ** 2:.6f};")
"""

session = Session()
pathlib.Path("source").mkdir()
pathlib.Path("source/train.py").write_text(TRAIN)
trainer = ModelTrainer(
    sagemaker_session=session,
    role=get_execution_role(),
    training_image=image_uris.retrieve(
        "sklearn", session.boto_region_name, version="1.2-1", instance_type="ml.m5.large"
    ),
    source_code=SourceCode(source_dir="source", entry_script="train.py"),
    compute=Compute(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=5),
    hyperparameters={"place": 1.0},
    base_job_name="search",
)
tuner = HyperparameterTuner(
    model_trainer=trainer,
    objective_metric_name="loss",
    objective_type="Minimize",
    metric_definitions=[{"Name": "loss", "Regex": "loss=([0-9.]+);"}],
    hyperparameter_ranges={"place": ContinuousParameter(0.0, 10.0)},
    max_jobs=3,
    max_parallel_jobs=2,
    strategy="Random",
)
tuner.tune(wait=True)
print("best", tuner.best_training_job())
assert tuner.describe().hyper_parameter_tuning_job_status == "Completed"

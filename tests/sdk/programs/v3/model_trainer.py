"""Trains a script with the ModelTrainer, its own launcher and all."""

import pathlib

from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session, get_execution_role
from sagemaker.core.training.configs import Compute, InputData, SourceCode
from sagemaker.train import ModelTrainer

TRAIN = """
import argparse, json, os
import joblib
import numpy as np
from sklearn.linear_model import Ridge

parser = argparse.ArgumentParser()
parser.add_argument("--alpha", type=float, default=1.0)
args = parser.parse_args()
rows = np.loadtxt(os.path.join(os.environ["SM_CHANNEL_TRAIN"], "rows.csv"), delimiter=",")
model = Ridge(alpha=args.alpha).fit(rows[:, 1:], rows[:, 0])
print(f"score={model.score(rows[:, 1:], rows[:, 0]):.4f} alpha={args.alpha}")
joblib.dump(model, os.path.join(os.environ["SM_MODEL_DIR"], "model.joblib"))
"""

source = pathlib.Path("source")
source.mkdir()
(source / "train.py").write_text(TRAIN)
pathlib.Path("rows.csv").write_text("".join(f"{2 * a + b},{a},{b}\n" for a in range(10) for b in range(10)))

session = Session()
image = image_uris.retrieve("sklearn", session.boto_region_name, version="1.2-1", instance_type="ml.m5.large")
trainer = ModelTrainer(
    sagemaker_session=session,
    role=get_execution_role(),
    training_image=image,
    source_code=SourceCode(source_dir="source", entry_script="train.py"),
    compute=Compute(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=5),
    hyperparameters={"alpha": 0.25},
    base_job_name="ridge",
)
data = session.upload_data("rows.csv", session.default_bucket(), "ridge/train")
trainer.train(input_data_config=[InputData(channel_name="train", data_source=data)], wait=True, logs=True)
job = trainer._latest_training_job
job.refresh()
print("status", job.training_job_status, "model", job.model_artifacts.s3_model_artifacts)
assert job.training_job_status == "Completed"

"""Trains a scikit-learn script, watches its log, deploys the model, asks it, and cleans up."""

import pathlib

import numpy as np
import sagemaker
from sagemaker.sklearn import SKLearn

TRAIN = """
import argparse, os
import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression

def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--regularisation", type=float, default=1.0)
    parser.add_argument("--train", default=os.environ["SM_CHANNEL_TRAIN"])
    parser.add_argument("--model-dir", default=os.environ["SM_MODEL_DIR"])
    args = parser.parse_args()
    rows = np.loadtxt(os.path.join(args.train, "rows.csv"), delimiter=",")
    model = LogisticRegression(C=args.regularisation).fit(rows[:, 1:], rows[:, 0])
    print(f"accuracy={model.score(rows[:, 1:], rows[:, 0]):.3f};")
    joblib.dump(model, os.path.join(args.model_dir, "model.joblib"))
"""

session = sagemaker.Session()
role = sagemaker.get_execution_role()

random = np.random.default_rng(7)
features = random.normal(size=(200, 3))
labels = (features.sum(axis=1) > 0).astype(float)
np.savetxt("rows.csv", np.column_stack([labels, features]), delimiter=",")
pathlib.Path("train.py").write_text(TRAIN)

data = session.upload_data("rows.csv", key_prefix="credit/train")
estimator = SKLearn(
    entry_point="train.py",
    framework_version="1.2-1",
    py_version="py3",
    instance_type="ml.m5.large",
    instance_count=1,
    role=role,
    hyperparameters={"regularisation": 0.5},
    metric_definitions=[{"Name": "accuracy", "Regex": "accuracy=([0-9.]+);"}],
)
estimator.fit({"train": data}, logs=True)
print("model", estimator.model_data)

predictor = estimator.deploy(initial_instance_count=1, instance_type="ml.t2.medium")
try:
    answer = predictor.predict(np.array([[2.0, 2.0, 2.0], [-2.0, -2.0, -2.0]]))
    print("answer", answer)
    assert list(answer) == [1.0, 0.0]
finally:
    predictor.delete_model()
    predictor.delete_endpoint(delete_endpoint_config=True)

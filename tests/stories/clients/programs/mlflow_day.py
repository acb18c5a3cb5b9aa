"""A data scientist's run with the plugin, as its README has it: the tracking URI is the server's ARN."""

import os
import sys

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("irises")
features, labels = load_iris(return_X_y=True)
with mlflow.start_run(run_name="first") as run:
    model = LogisticRegression(max_iter=200, C=0.5).fit(features, labels)
    mlflow.log_params({"C": 0.5, "max_iter": 200})
    mlflow.log_metric("accuracy", model.score(features, labels))
    for step in range(3):
        mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
    mlflow.set_tag("team", "flowers")
    mlflow.log_text("a note", "notes/first.txt")
    mlflow.sklearn.log_model(model, name="model", registered_model_name="irises", pip_requirements=[])

client = MlflowClient()
(found,) = client.search_runs(
    [run.info.experiment_id], "metrics.accuracy > 0.9 and params.C = '0.5' and tags.team = 'flowers'"
)
assert found.info.run_id == run.info.run_id
assert [one.value for one in client.get_metric_history(run.info.run_id, "loss")] == [1.0, 0.5, 1 / 3]
assert [one.path for one in client.list_artifacts(run.info.run_id, "notes")] == ["notes/first.txt"]
again = mlflow.sklearn.load_model("models:/irises/1")
assert (again.predict(features) == model.predict(features)).all()
client.set_registered_model_alias("irises", "champion", 1)
assert client.get_model_version_by_alias("irises", "champion").run_id == run.info.run_id

# The same as a role that may log no metric.
for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
    os.environ[name] = os.environ[f"READER_{name}"]
client.log_param(run.info.run_id, "by", "reader")
try:
    client.log_metric(run.info.run_id, "loss", 0.0)
except MlflowException as error:
    assert "is not authorized to perform: sagemaker-mlflow:LogMetric" in str(error), error
else:
    raise AssertionError("a metric was logged")
print(run.info.run_id, found.info.artifact_uri)

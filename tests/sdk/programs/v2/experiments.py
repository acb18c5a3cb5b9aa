"""Keeps what was tried: an experiment, a run, its parameters and metrics, a training job within it."""

import sagemaker
from sagemaker.analytics import ExperimentAnalytics
from sagemaker.experiments.run import Run, list_runs, load_run

session = sagemaker.Session()
with Run(experiment_name="credit", run_name="first", sagemaker_session=session) as run:
    run.log_parameter("depth", 3)
    run.log_parameters({"rate": 0.1, "kind": "tree"})
    for step in range(3):
        run.log_metric("loss", 1.0 / (step + 1), step=step)
with load_run(experiment_name="credit", run_name="first", sagemaker_session=session) as again:
    again.log_parameter("later", "yes")
runs = list_runs(experiment_name="credit", sagemaker_session=session)
print("runs", [one.run_name for one in runs])
assert [one.run_name for one in runs] == ["first"]
table = ExperimentAnalytics(experiment_name="credit", sort_by="metrics.loss.min", sagemaker_session=session).dataframe()
assert list(table["rate"]) == [0.1]

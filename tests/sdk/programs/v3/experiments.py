"""Keeps what was tried, with v3."""

from sagemaker.core.experiments.run import Run
from sagemaker.core.helper.session_helper import Session

session = Session()
with Run(experiment_name="credit", run_name="first", sagemaker_session=session) as run:
    run.log_parameters({"rate": 0.1, "kind": "tree"})
    for step in range(3):
        run.log_metric("loss", 1.0 / (step + 1), step=step)
print("run", run.run_name)

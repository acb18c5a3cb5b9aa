"""Looks over the jobs there are with v3's resources, and stops one."""

import pathlib

from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session, get_execution_role
from sagemaker.core.resources import TrainingJob
from sagemaker.core.training.configs import Compute, SourceCode
from sagemaker.train import ModelTrainer

session = Session()
pathlib.Path("source").mkdir()
pathlib.Path("source/slow.py").write_text("import time\nprint('begins')\ntime.sleep(100)\n")
trainer = ModelTrainer(
    sagemaker_session=session,
    role=get_execution_role(),
    training_image=image_uris.retrieve(
        "sklearn", session.boto_region_name, version="1.2-1", instance_type="ml.m5.large"
    ),
    source_code=SourceCode(source_dir="source", entry_script="slow.py"),
    compute=Compute(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=5),
    base_job_name="slow",
)
trainer.train(wait=False)
name = trainer._latest_training_job.training_job_name
assert [one.training_job_name for one in TrainingJob.get_all(status_equals="InProgress")] == [name]
job = TrainingJob.get(name)
job.stop()
job.wait(poll=1)
job.refresh()
print("status", job.training_job_status)
assert job.training_job_status == "Stopped"

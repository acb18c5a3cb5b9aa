"""A job in a container of one's own goes on, after the platform was killed, with the image that its tag meant before."""

from __future__ import annotations

import io
import json
import tarfile
import time
from pathlib import Path

import pytest

from tests.platform import Running, allow
from tests.stories.ecr import oci
from tests.stories.ecr.registry import Registry
from tests.stories.sagemaker.conftest import workshop_of

PULL = ("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability")


@pytest.mark.control("LIN-04")
def test_a_tag_that_moved_meanwhile_changes_nothing(tmp_path: Path) -> None:
    running = Running(tmp_path / "data")
    running.start()
    try:
        running.found()
        account = running.account()
        workshop = workshop_of(account)
        account.client("iam").put_role_policy(
            RoleName="Execution", PolicyName="pull", PolicyDocument=json.dumps(allow(*PULL))
        )
        registry = Registry(account, tmp_path)
        uri = registry.create("app")

        def push(word: str) -> str:
            script = f"sleep 2; echo {word} > /opt/ml/model/which"
            return registry.push(
                f"{uri}:one", [oci.system, oci.scripts(train=script)], {"Env": ["PATH=/usr/local/bin:/bin"]}
            )

        first = push("first")
        # As AWS writes it: the platform's own address is another one after each start here.
        image = f"{account.id}.dkr.ecr.us-east-1.amazonaws.com/app:one"
        algorithm = {"TrainingImage": image, "TrainingInputMode": "File"}
        name = workshop.train("", AlgorithmSpecification=algorithm, HyperParameters={})
        until = time.monotonic() + 60
        while workshop.sagemaker.describe_training_job(TrainingJobName=name)["SecondaryStatus"] != "Training":
            assert time.monotonic() < until
            time.sleep(0.02)
        assert push("second") != first
        running.kill()
        running.launch()
        workshop.sagemaker, workshop.s3 = account.client("sagemaker"), account.client("s3")
        job = workshop.trained(name)
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
        packed = workshop.s3.get_object(Bucket=workshop.bucket, Key=f"out/{name}/output/model.tar.gz")["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(packed)) as model:
            which = model.extractfile("which")
            assert which is not None and which.read() == b"first\n"
        # Its lineage names the image by that digest.
        [component] = workshop.sagemaker.list_trial_components(SourceArn=job["TrainingJobArn"])[
            "TrialComponentSummaries"
        ]
        led = workshop.sagemaker.list_associations(DestinationArn=component["TrialComponentArn"])[
            "AssociationSummaries"
        ]
        [artifact] = [one["SourceArn"] for one in led if one["SourceType"] == "Image"]
        source = workshop.sagemaker.describe_artifact(ArtifactArn=artifact)["Source"]
        assert source["SourceUri"] == image and source["SourceTypes"][0]["Value"] == first
    finally:
        running.stop()

"""A platform is upgraded while jobs run, wait and are served: the newer program carries on with all of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.platform import Running
from tests.stories.sagemaker.conftest import Workshop, workshop_of
from tests.stories.sagemaker.test_volumes import endpoint, left
from tests.stories.upgrade.test_upgrade import aged_in_place

SCRIPT = "print('begin', flush=True)\nimport time\ntime.sleep({})\nopen('/opt/ml/model/m.txt', 'w').write('the model')"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "data")
    made.start()
    made.found()
    yield made
    made.stop()


def _training(shop: Workshop, name: str) -> None:
    until = time.monotonic() + 60
    while shop.sagemaker.describe_training_job(TrainingJobName=name)["SecondaryStatus"] != "Training":
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_an_upgrade_carries_on_with_what_runs(running: Running, ending: str) -> None:
    shop = workshop_of(running.account())
    invoke = endpoint(shop, "served")
    answer = invoke()
    # Each wants the whole machine, whose memory is given out four times: with the endpoint, three run and one waits.
    whole: dict[str, Any] = {"InstanceType": "ml.m5.24xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1}
    jobs = [shop.train(SCRIPT.format(5), ResourceConfig=whole) for _ in range(3)]
    for name in jobs:
        _training(shop, name)
    jobs.append(shop.train(SCRIPT.format(0), ResourceConfig=whole))
    created = [shop.sagemaker.describe_training_job(TrainingJobName=name)["CreationTime"] for name in jobs]
    shop.s3.put_object(Bucket=shop.bucket, Key="acknowledged", Body=b"x" * 300_000)
    shop.s3.put_object(Bucket=shop.bucket, Key="last", Body=b"y")
    stood = [shop.sagemaker.describe_training_job(TrainingJobName=name)["SecondaryStatus"] for name in jobs]
    assert stood == ["Training", "Training", "Training", "Pending"]
    getattr(running, ending)()
    aged_in_place(running.data)
    running.launch()
    shop.sagemaker, shop.s3 = shop.account.client("sagemaker"), shop.account.client("s3")
    assert shop.endpoint("served", "InService")["EndpointStatus"] == "InService"
    until = time.monotonic() + 60
    while True:
        try:
            assert invoke() == answer
            break
        except shop.account.client("sagemaker-runtime").exceptions.ClientError:
            assert time.monotonic() < until
            time.sleep(0.1)
    for name in jobs:
        job = shop.trained(name)
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
        key = f"out/{name}/output/model.tar.gz"
        assert shop.s3.head_object(Bucket=shop.bucket, Key=key)["ContentLength"]
    assert [shop.sagemaker.describe_training_job(TrainingJobName=name)["CreationTime"] for name in jobs] == created
    assert shop.s3.get_object(Bucket=shop.bucket, Key="acknowledged")["Body"].read() == b"x" * 300_000
    assert shop.s3.get_object(Bucket=shop.bucket, Key="last")["Body"].read() == b"y"
    # Stopped in the middle of taking the endpoint down, the platform leaves no volume open.
    shop.sagemaker.delete_endpoint(EndpointName="served")
    running.stop()
    assert left(running) == []

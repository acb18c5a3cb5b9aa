"""The platform is killed before and after every step of a training job; the end is that of an undisturbed run."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.points import around
from tests.platform import Account, Running
from tests.stories.sagemaker.conftest import Workshop, workshop_of

SCRIPT = "print('begin')\nopen('/opt/ml/model/m.txt','w').write('the model')\nprint('end')"
POINTS = around("training", "assume", "reserve", "pin", "stage", "run", "watch", "collect", "settle")


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A platform of its own, for it is to die."""
    running = Running(tmp_path_factory.mktemp("crash") / "data")
    running.start()
    running.found()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def member(crashing: Running) -> Account:
    return crashing.account()


def _workshop(account: Account, made: dict[str, Workshop]) -> Workshop:
    """The account's workshop, with clients for the address that the platform has now."""
    if "it" not in made:
        made["it"] = workshop_of(account)
    made["it"].sagemaker, made["it"].s3 = account.client("sagemaker"), account.client("s3")
    return made["it"]


@pytest.fixture(scope="module")
def made() -> dict[str, Workshop]:
    return {}


def _end(workshop: Workshop, name: str) -> dict[str, Any]:
    job = workshop.trained(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    [component] = workshop.sagemaker.list_trial_components(SourceArn=job["TrainingJobArn"])["TrialComponentSummaries"]
    assert component["Status"]["PrimaryStatus"] == "Completed"
    # Its lineage is there, once.
    arn = component["TrialComponentArn"]
    led = workshop.sagemaker.list_associations(DestinationArn=arn)["AssociationSummaries"]
    assert sorted(one["SourceType"] for one in led) == ["Code", "DataSet", "Image"]
    assert len(workshop.sagemaker.list_associations(SourceArn=arn)["AssociationSummaries"]) == 1
    key = f"out/{name}/output/model.tar.gz"
    model = workshop.s3.get_object(Bucket=workshop.bucket, Key=key)["Body"].read()
    logs = workshop.account.client("logs")
    group = "/aws/sagemaker/TrainingJobs"
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
    lines = [
        [
            one["message"]
            for one in logs.get_log_events(logGroupName=group, logStreamName=s["logStreamName"], startFromHead=True)[
                "events"
            ]
        ]
        for s in streams
    ]
    return {"model": model, "lines": lines, "artifacts": job["ModelArtifacts"]["S3ModelArtifacts"]}


def _left(running: Running) -> list[str]:
    """Mounts and processes that know the platform's folder, beside the platform."""
    data = str(running.data)
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if data in line]
    listed = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True).stdout
    others = [line for line in listed.splitlines() if data in line and "bastide up" not in line]
    return mounts + others


@pytest.fixture(scope="module")
def undisturbed(crashing: Running, member: Account, made: dict[str, Workshop]) -> dict[str, Any]:
    workshop = _workshop(member, made)
    return _end(workshop, workshop.train(SCRIPT))


@pytest.mark.parametrize("point", POINTS)
def test_the_end_is_that_of_an_undisturbed_run(
    crashing: Running, member: Account, made: dict[str, Workshop], undisturbed: dict[str, Any], point: str
) -> None:
    crashing.stop()
    crashing.launch(BASTIDE_TEST_KILL_AT=point)
    workshop = _workshop(member, made)
    name = workshop.train(SCRIPT)
    assert crashing.process is not None
    assert crashing.process.wait(30) == -9
    crashing.kill()
    crashing.launch()
    workshop = _workshop(member, made)
    found = _end(workshop, name)
    assert found["model"] == undisturbed["model"]
    assert len(found["lines"]) == 1
    told = undisturbed["lines"][0]
    # Lines of the attempt that died may stand before those of the one that did not; none is there twice otherwise.
    assert found["lines"][0][-len(told) :] == told
    step = point.removeprefix("training/").partition(":")[0]
    if step in ("assume", "reserve", "pin", "stage", "settle"):
        assert found["lines"][0] == told
    until = time.monotonic() + 60
    while left := _left(crashing):
        assert time.monotonic() < until, left
        time.sleep(0.05)

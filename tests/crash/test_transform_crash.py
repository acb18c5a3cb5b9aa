"""The platform is killed before and after every step of a transform job, and stores what it would have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.points import around
from tests.platform import Account, Running
from tests.stories.sagemaker.conftest import Workshop, workshop_of
from tests.stories.sagemaker.serving import container, model
from tests.stories.sagemaker.test_transform import CSV, SCRIPT, begin, ended, outputs, put

POINTS = around("transform", "assume", "reserve", "pin", "deploy", "transform", "settle")


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


@pytest.fixture(scope="module")
def made(member: Account) -> Workshop:
    workshop = workshop_of(member)
    model(workshop, "m", container(workshop, "m", SCRIPT))
    put(workshop, a__csv="1,2\n3,4\n", b__csv="5,6\n")
    return workshop


@pytest.mark.parametrize("point", POINTS)
def test_the_end_is_that_of_an_undisturbed_run(crashing: Running, member: Account, made: Workshop, point: str) -> None:
    crashing.stop()
    crashing.launch(BASTIDE_TEST_KILL_AT=point)
    made.sagemaker, made.s3 = member.client("sagemaker"), member.client("s3")
    name = point.replace("/", "-").replace(":", "-")
    # What it writes is among what it reads: a job that is taken up again reads what was there when it began.
    ids = {"DestinationS3Uri": f"s3://{made.bucket}/seen", "GenerateInferenceId": True}
    begin(made, name, **CSV, S3OutputPath=f"s3://{made.bucket}/in/{name}", DataCaptureConfig=ids)
    assert crashing.process is not None
    assert crashing.process.wait(30) == -9
    crashing.kill()
    crashing.launch()
    made.sagemaker, made.s3 = member.client("sagemaker"), member.client("s3")
    job = ended(made, name)
    assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
    found = outputs(made, f"in/{name}/")
    rows = {key: [line.split(b",")[0] for line in body.splitlines()] for key, body in found.items()}
    assert rows == {"a.csv.out": [b"3.0", b"7.0"], "b.csv.out": [b"11.0"]}
    versions = made.s3.list_object_versions(Bucket=made.bucket, Prefix=f"in/{name}/")["Versions"]
    assert len({one["ETag"] for one in versions}) == 2
    for key in found:
        made.s3.delete_object(Bucket=made.bucket, Key=f"in/{name}/{key}")

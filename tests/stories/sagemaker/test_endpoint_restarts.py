"""A platform that is killed finds its endpoints, its updates and its captured data again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, Running
from tests.stories.sagemaker.conftest import Workshop, workshop_of
from tests.stories.sagemaker.serving import config, container, model, serve, until, variant


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "data")
    running.start()
    running.found()
    yield running
    running.stop()


def test_a_killed_platform_serves_again_what_was_and_goes_on_with_what_was_to_be(own: Running) -> None:
    workshop = workshop_of(own.account())
    for name in ("A", "B"):
        model(workshop, name, container(workshop, name))
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": f"s3://{workshop.bucket}/captured",
        "CaptureOptions": [{"CaptureMode": "Output"}],
    }
    serve(workshop, config(workshop, "A", variant("A"), DataCaptureConfig=capture))
    config(workshop, "B", variant("B"))
    routing = {"Type": "CANARY", "WaitIntervalInSeconds": 3, "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50}}
    deployment = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}
    client = workshop.sagemaker
    client.update_endpoint(EndpointName="e", EndpointConfigName="B", DeploymentConfig=deployment)
    runtime = workshop.account.client("sagemaker-runtime")

    def ask() -> bytes:
        answer: bytes = runtime.invoke_endpoint(EndpointName="e", Body=b"x", ContentType="text/plain")["Body"].read()
        return answer

    until(lambda: ask() == b"Bx")  # the canary sings, and half of the calls are still the old servers'
    assert client.describe_endpoint(EndpointName="e")["EndpointStatus"] == "Updating"
    until(lambda: ask() == b"Ax")
    own.kill()
    own.launch()
    account = Account(own, workshop.account.id, workshop.account.name)
    again = Workshop(account, workshop.bucket, workshop.role, account.client("sagemaker"), account.client("s3"))
    found = again.endpoint("e", "InService")
    assert found["EndpointConfigName"] == "B"
    runtime = again.account.client("sagemaker-runtime")

    def back() -> bytes | None:
        try:
            return ask()
        except ClientError as error:  # it had taken over when it was killed: its servers are on their way
            assert error.response["Error"]["Code"] == "ServiceUnavailable"
            return None

    assert until(back) == b"Bx"
    listed = until(lambda: again.s3.list_objects_v2(Bucket=again.bucket, Prefix="captured/e/").get("Contents"))
    bodies = [again.s3.get_object(Bucket=again.bucket, Key=one["Key"])["Body"].read() for one in listed]
    assert b'"mode":"OUTPUT"' in b"".join(bodies)

"""The platform is killed while functions run: their events are taken up again, and nothing of them outlives it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from tests.moved import until
from tests.platform import Running, allow, below
from tests.stories.lambda_.conftest import Bench, bench_of

CODE = """
import boto3, time
def handler(event, context):
    s3 = boto3.client("s3")
    s3.put_object(Bucket=event["bucket"], Key="begun", Body=b"")
    time.sleep(event["seconds"])
    s3.put_object(Bucket=event["bucket"], Key="done", Body=b"")
"""


DEPLOYS = "arn:aws:iam::aws:policy/service-role/AWSCodeDeployRoleForLambda"
CHECK = """
import boto3, time
def handler(event, context):
    time.sleep(0.5)
    boto3.client("codedeploy").put_lifecycle_event_hook_execution_status(
        deploymentId=event["DeploymentId"], lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
        status="Succeeded")
"""


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("crash") / "data")
    running.start()
    running.found()
    yield running
    running.stop()


def _left(running: Running) -> list[str]:
    data = str(running.data)
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if data in line]
    listed = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return mounts + [line for line in listed.splitlines() if data in line and "bastide up" not in line]


def _functions(running: Running) -> set[str]:
    """Processes of this platform's functions, by their control groups."""
    mark = hashlib.sha256(os.fsencode((running.data / "run").resolve())).hexdigest()[:10]
    groups = [one for one in below(Path("/sys/fs/cgroup")) if f"{mark}-lambda-" in one.name]
    found: set[str] = set()
    for group in groups:
        with contextlib.suppress(OSError):
            found |= set((group / "cgroup.procs").read_text().split())
    return found


def _has(bench: Bench, bucket: str, key: str) -> bool:
    try:
        bench.account.client("s3").head_object(Bucket=bucket, Key=key)
    except (ClientError, EndpointConnectionError):
        return False
    return True


class Led:
    """A deployment that waits for a function's check: the platform dies while that one runs."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        account, client = bench.account, bench.client
        role = account.role("Deploys", trust={"Service": "codedeploy.amazonaws.com"})
        account.client("iam").attach_role_policy(RoleName="Deploys", PolicyArn=DEPLOYS)
        account.client("iam").put_role_policy(
            RoleName="functions", PolicyName="checks", PolicyDocument=json.dumps(allow("codedeploy:*"))
        )
        bench.make(CHECK, "CodeDeployHook_late", Timeout=60)
        for _ in (1, 2):
            client.publish_version(FunctionName="warm")
            client.update_function_configuration(FunctionName="warm", Description="second")
            bench.settled("warm")
        client.create_alias(FunctionName="warm", Name="live", FunctionVersion="1")
        deploy = account.client("codedeploy")
        deploy.create_application(applicationName="a", computePlatform="Lambda")
        deploy.create_deployment_group(**self.named, serviceRoleArn=role)

    named: ClassVar[dict[str, Any]] = {"applicationName": "a", "deploymentGroupName": "g"}

    def begin(self) -> None:
        """The check has been asked for."""
        deploy = self.bench.account.client("codedeploy")
        properties = {"Name": "warm", "Alias": "live", "CurrentVersion": "1", "TargetVersion": "2"}
        spec = {
            "version": 0.0, "Resources": [{"w": {"Type": "AWS::Lambda::Function", "Properties": properties}}],
            "Hooks": [{"BeforeAllowTraffic": "CodeDeployHook_late"}],
        }  # fmt: skip
        revision = {"revisionType": "AppSpecContent", "appSpecContent": {"content": json.dumps(spec)}}
        self.id = deploy.create_deployment(**self.named, revision=revision)["deploymentId"]
        until(lambda: deploy.get_deployment(deploymentId=self.id)["deploymentInfo"]["status"] == "InProgress")

    def goes_on(self) -> None:
        """It is over, and the alias stands at the version."""
        deploy = self.bench.account.client("codedeploy")
        until(lambda: deploy.get_deployment(deploymentId=self.id)["deploymentInfo"]["status"] == "Succeeded")
        assert self.bench.client.get_alias(FunctionName="warm", Name="live")["FunctionVersion"] == "2"


def test_events_are_taken_up_and_nothing_is_left(crashing: Running) -> None:
    bench = bench_of(crashing.account())
    bucket = f"crash-{bench.account.id}"
    bench.account.client("s3").create_bucket(Bucket=bucket)
    warm = bench.make("def handler(event, context): return 1", "warm")
    assert bench.invoke(warm).payload == 1  # it stands frozen when the platform dies
    name = bench.make(CODE, "slow", Timeout=60)
    led = Led(bench)
    event = json.dumps({"bucket": bucket, "seconds": 0.5})
    led.begin()
    assert bench.client.invoke(FunctionName=name, InvocationType="Event", Payload=event)["StatusCode"] == 202
    until(lambda: _has(bench, bucket, "begun"))
    assert _functions(crashing)
    crashing.kill()
    until(lambda: not _functions(crashing))
    crashing.launch()
    bench.client = bench.account.client("lambda")
    led.goes_on()
    until(lambda: _has(bench, bucket, "done"))
    assert bench.invoke(warm).payload == 1
    bench.client.delete_function(FunctionName=name)
    for one in (warm, "CodeDeployHook_late"):
        bench.client.delete_function(FunctionName=one)
    end = time.monotonic() + 60
    while left := _left(crashing):
        assert time.monotonic() < end, left
        time.sleep(0.05)

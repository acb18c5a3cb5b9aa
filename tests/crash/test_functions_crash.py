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

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from tests.moved import until
from tests.platform import Running, below
from tests.stories.lambda_.conftest import Bench, bench_of

CODE = """
import boto3, time
def handler(event, context):
    s3 = boto3.client("s3")
    s3.put_object(Bucket=event["bucket"], Key="begun", Body=b"")
    time.sleep(event["seconds"])
    s3.put_object(Bucket=event["bucket"], Key="done", Body=b"")
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


def test_events_are_taken_up_and_nothing_is_left(crashing: Running) -> None:
    bench = bench_of(crashing.account())
    bucket = f"crash-{bench.account.id}"
    bench.account.client("s3").create_bucket(Bucket=bucket)
    warm = bench.make("def handler(event, context): return 1", "warm")
    assert bench.invoke(warm).payload == 1  # it stands frozen when the platform dies
    name = bench.make(CODE, "slow", Timeout=60)
    event = json.dumps({"bucket": bucket, "seconds": 0.5})
    assert bench.client.invoke(FunctionName=name, InvocationType="Event", Payload=event)["StatusCode"] == 202
    until(lambda: _has(bench, bucket, "begun"))
    assert _functions(crashing)
    crashing.kill()
    until(lambda: not _functions(crashing))
    crashing.launch()
    bench.client = bench.account.client("lambda")
    until(lambda: _has(bench, bucket, "done"))
    assert bench.invoke(warm).payload == 1
    bench.client.delete_function(FunctionName=name)
    bench.client.delete_function(FunctionName=warm)
    end = time.monotonic() + 60
    while left := _left(crashing):
        assert time.monotonic() < end, left
        time.sleep(0.05)

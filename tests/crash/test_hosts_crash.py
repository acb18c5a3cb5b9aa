"""The platform is killed under a job that has everything: hosts in a VPC, encryption, streams, checkpoints."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, Running, allow
from tests.stories.ec2.conftest import Vpc, make_vpc
from tests.stories.sagemaker.conftest import Workshop, workshop_of

SCRIPT = """
import json, os, socket, time
me = socket.gethostname()
whole = open('/opt/ml/input/data/stream_0').read()
fast = open('/opt/ml/input/data/fast/a.csv').read()
if me == 'algo-1':
    link, _ = socket.create_server(('', 5000)).accept()
    link.sendall(b'hello')
else:
    for _ in range(1200):
        try:
            assert socket.create_connection(('algo-1', 5000), 1).recv(5) == b'hello'
            break
        except OSError:
            time.sleep(0.05)
open('/opt/ml/checkpoints/' + me, 'w').write('c')
open('/opt/ml/model/' + me, 'w').write(whole + fast)
"""
QUOTAS = {"training/ml.m5.large": 2, "training-warm-pool/ml.t3.medium": 1}


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A platform of its own, for it is to die."""
    running = Running(tmp_path_factory.mktemp("crash") / "data")
    running.start()
    running.stop()
    file = running.data / "bastide.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "quotas": QUOTAS}))
    running.launch()
    running.found()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def place(crashing: Running) -> tuple[Account, Workshop, Vpc]:
    account = crashing.account()
    shop = workshop_of(account)
    names = ("CreateNetworkInterface", "DeleteNetworkInterface", "DescribeNetworkInterfaces", "DescribeSubnets")
    given = allow(*(f"ec2:{one}" for one in names), "ec2:DescribeSecurityGroups")
    account.client("iam").put_role_policy(RoleName="Execution", PolicyName="vpc", PolicyDocument=json.dumps(given))
    vpc = make_vpc(account)
    vpc.ec2.create_vpc_endpoint(
        VpcId=vpc.id, ServiceName="com.amazonaws.us-east-1.s3", RouteTableIds=[vpc.main_table()]
    )
    return account, shop, vpc


def _left(running: Running) -> list[str]:
    """Mounts, processes, files, control groups and namespaces that jobs left behind."""
    data = str(running.data)
    found = [line for line in Path("/proc/mounts").read_text().splitlines() if data in line]
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    assert running.process is not None
    mine = str(running.process.pid)
    for line in listed.splitlines()[1:]:
        _, parent, command = line.split(None, 2)
        if (data in line and "bastide up" not in line) or (parent == mine and "wireguard" in command):
            found.append(line)
    for folder in ("volumes", "lazy", "sandboxes"):
        inside = running.data / "run" / folder
        found += [str(one) for one in inside.iterdir()] if inside.is_dir() else []
    namespaces = []
    for one in Path(f"/proc/{mine}/fd").iterdir():
        try:
            if str(one.readlink()).startswith("net:["):
                namespaces.append(f"namespace {one}")
        except OSError:
            continue
    return found + namespaces[1:]  # one is the VPC's own, which has an endpoint


@pytest.mark.parametrize("point", ["run:after", "settle:before"])
def test_nothing_is_left_and_the_job_ends_well(
    crashing: Running, place: tuple[Account, Workshop, Vpc], point: str
) -> None:
    account, shop, vpc = place
    crashing.stop()
    crashing.launch(BASTIDE_TEST_KILL_AT=f"training/{point}")
    shop.sagemaker, shop.s3 = account.client("sagemaker"), account.client("s3")

    def channel(name: str, mode: str) -> dict[str, Any]:
        source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{shop.bucket}/data/part/"}
        return {"ChannelName": name, "InputMode": mode, "DataSource": {"S3DataSource": source}}

    name = shop.train(
        SCRIPT,
        InputDataConfig=[channel("stream", "Pipe"), channel("fast", "FastFile")],
        ResourceConfig={"InstanceType": "ml.t3.medium", "InstanceCount": 2, "VolumeSizeInGB": 1},
        VpcConfig={"Subnets": [vpc.subnet], "SecurityGroupIds": [vpc.group]},
        EnableInterContainerTrafficEncryption=True,
        CheckpointConfig={"S3Uri": f"s3://{shop.bucket}/check"},
    )
    assert crashing.process is not None
    assert crashing.process.wait(60) == -9
    crashing.kill()
    crashing.launch()
    shop.sagemaker, shop.s3 = account.client("sagemaker"), account.client("s3")
    job = shop.trained(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert account.client("ec2").describe_network_interfaces()["NetworkInterfaces"] == []
    until = time.monotonic() + 60
    while left := _left(crashing):
        assert time.monotonic() < until, left
        time.sleep(0.05)


def test_an_account_has_as_many_instances_as_its_quota_says(
    crashing: Running, place: tuple[Account, Workshop, Vpc]
) -> None:
    account, shop, _ = place
    shop.sagemaker, shop.s3 = account.client("sagemaker"), account.client("s3")
    two = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    first = shop.train("import time\ntime.sleep(60)", ResourceConfig=two)
    with pytest.raises(ClientError, match=r"ResourceLimitExceeded.*is 2 Instances, with current utilization of 2"):
        shop.train("", ResourceConfig={**two, "InstanceCount": 1})
    shop.train("", ResourceConfig={**two, "InstanceType": "ml.t3.medium", "InstanceCount": 1})
    shop.sagemaker.stop_training_job(TrainingJobName=first)
    shop.trained(first)
    shop.trained(shop.train("", ResourceConfig={**two, "InstanceCount": 1}))
    with pytest.raises(ClientError, match=r"ResourceLimitExceeded.*across a training job' is 20"):
        shop.train("", ResourceConfig={**two, "InstanceType": "ml.t3.medium", "InstanceCount": 21})


def test_a_warm_pool_counts_and_ends_with_the_platform(crashing: Running, place: tuple[Account, Workshop, Vpc]) -> None:
    account, shop, _ = place
    shop.sagemaker, shop.s3 = account.client("sagemaker"), account.client("s3")
    kept = {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1, "KeepAlivePeriodInSeconds": 3600}
    name = shop.train("", ResourceConfig=kept)
    for _ in range(2):
        with pytest.raises(ClientError, match=r"training-warm-pool job usage' is 1 .* utilization of 1"):
            shop.train("", ResourceConfig=kept)
        assert shop.trained(name)["WarmPoolStatus"]["Status"] == "Available"
    crashing.kill()
    crashing.launch()
    shop.sagemaker, shop.s3 = account.client("sagemaker"), account.client("s3")
    until = time.monotonic() + 60
    while (found := shop.trained(name)["WarmPoolStatus"])["Status"] != "Terminated":
        assert time.monotonic() < until, found
        time.sleep(0.05)
    shop.trained(shop.train("", ResourceConfig={**kept, "KeepAlivePeriodInSeconds": 1}))

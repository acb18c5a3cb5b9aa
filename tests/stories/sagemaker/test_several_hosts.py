"""Jobs of several instances: hosts that reach each other and nothing else, in clear or encrypted."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bastide.engines.network.kernel import enter
from tests.platform import Running, allow
from tests.stories.sagemaker.conftest import Workshop
from tests.stories.sagemaker.test_channels import channel, fill
from tests.stories.sagemaker.test_guardrails import refused, role
from tests.stories.sagemaker.test_job_role import policy
from tests.waiting import until

TALK = """
import json, os, socket, time
told = json.load(open('/opt/ml/input/config/resourceconfig.json'))
me, hosts = told['current_host'], told['hosts']
MARK = b'the-plain-text-of-the-gradients' * 20
if me == 'algo-1':
    server = socket.create_server(('', 5000))
    for _ in hosts[1:]:
        link, _ = server.accept()
        got = b''
        while len(got) < len(MARK):
            got += link.recv(65536)
        link.sendall(b'heard')
    os.makedirs('/opt/ml/model', exist_ok=True)
else:
    for _ in range(1200):
        try:
            link = socket.create_connection(('algo-1', 5000), 1)
            break
        except OSError:
            time.sleep(0.05)
    link.sendall(MARK)
    assert link.recv(5) == b'heard'
reached = []
for host in ('169.254.169.254', '10.77.255.254', '8.8.8.8', '192.168.0.1'):
    try:
        socket.create_connection((host, 80), 0.3)
        reached.append(host)
    except OSError:
        pass
open(f'/opt/ml/model/{me}.json', 'w').write(json.dumps({'told': told, 'reached': reached,
    'here': sorted(os.listdir('/opt/ml/input/data/train'))}))
open('/opt/ml/model/shared.txt', 'w').write(me)
print('done', me)
"""
INSTANCES = {"InstanceType": "ml.t3.medium", "InstanceCount": 3, "VolumeSizeInGB": 1}


def model_of(shop: Workshop, name: str) -> dict[str, bytes]:
    packed = shop.s3.get_object(Bucket=shop.bucket, Key=f"out/{name}/output/model.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar.getmembers()}  # type: ignore[union-attr]


def network_namespaces(process: int) -> set[str]:
    """Paths of the network namespaces that a process holds."""
    found: dict[str, str] = {}
    with contextlib.suppress(FileNotFoundError):
        for one in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                if (target := str(one.readlink())).startswith("net:["):
                    found[target] = str(one)
    return set(found.values())


class Tap:
    """Listens at every switch that a process makes while it is open."""

    def __init__(self, process: int) -> None:
        self.heard = bytearray()
        self.listens = False
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Tap:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()

    def _listen(self) -> None:
        taps: list[socket.socket] = []
        seen: set[str] = set()
        while not self._over.is_set():
            for path in network_namespaces(self._process):
                with contextlib.suppress(OSError):
                    if str(Path(path).readlink()) not in seen:
                        taps += self._tap(path, seen)
                        self.listens = bool(taps)
            for tap in taps:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        self.heard += tap.recv(65536)
            time.sleep(0.002)
        for tap in taps:
            tap.close()

    @staticmethod
    def _tap(path: str, seen: set[str]) -> list[socket.socket]:
        inside = os.open(path, os.O_RDONLY)
        enter(inside)
        os.close(inside)
        names = {name for _, name in socket.if_nameindex()}
        if "br0" not in names:
            if "eth0" in names:  # a host: it is no switch and never becomes one
                seen.add(str(Path(path).readlink()))
            return []
        seen.add(str(Path(path).readlink()))
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        tap.setblocking(False)
        return [tap]


@pytest.mark.control("GRD-06")
@pytest.mark.parametrize("encrypted", [False, True])
def test_hosts_reach_each_other_and_nothing_else(
    platform: Running, workshop: Workshop, mission: Path, encrypted: bool
) -> None:
    if encrypted:  # by who may not do otherwise
        guardrail = policy(mission, "23-guardrail-inter-container-encryption.json")
        workshop.sagemaker = role(
            workshop.account, "Bound", free=allow("sagemaker:*", "iam:PassRole"), guardrail=guardrail
        )
        for given in ({}, {"EnableInterContainerTrafficEncryption": False}):
            refused(workshop.train, script="", **given)
    from tests.stories.sagemaker.test_job_network import ASK

    fill(workshop, **dict.fromkeys("abcdefg", b"x"))
    assert platform.process is not None
    begin = f"{ASK}\nimport time\nwhile call('s3', '/{workshop.bucket}/go')[0] != 200: time.sleep(0.1)\n"
    with Tap(platform.process.pid) as tap:
        name = workshop.train(
            begin + TALK,
            InputDataConfig=[channel(workshop, "in/", S3DataDistributionType="ShardedByS3Key")],
            ResourceConfig=INSTANCES,
            EnableInterContainerTrafficEncryption=encrypted,
            EnableNetworkIsolation=False,
        )
        until(lambda: tap.listens)
        workshop.s3.put_object(Bucket=workshop.bucket, Key="go", Body=b"")
        job = workshop.trained(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert len(tap.heard) > 2000
    assert (b"the-plain-text-of-the-gradients" in tap.heard) is not encrypted
    model = model_of(workshop, name)
    assert set(model) == {"algo-1.json", "algo-2.json", "algo-3.json", "shared.txt"}
    told = [json.loads(model[f"algo-{number}.json"]) for number in (1, 2, 3)]
    assert sorted(one for host in told for one in host["here"]) == list("abcdefg")
    assert all(host["reached"] == [] for host in told)
    assert told[1]["told"]["current_host"] == "algo-2"
    assert told[1]["told"]["hosts"] == ["algo-1", "algo-2", "algo-3"]
    assert told[1]["told"]["network_interface_name"] == ("eth1" if encrypted else "eth0")
    logs = workshop.account.client("logs").describe_log_streams(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/"
    )["logStreams"]
    assert [one["logStreamName"].split("/")[1].rsplit("-", 1)[0] for one in logs] == ["algo-1", "algo-2", "algo-3"]


def test_all_end_when_one_fails(workshop: Workshop) -> None:
    script = """
import socket, time
if socket.gethostname() == 'algo-2':
    raise ValueError('only here')
time.sleep(100)
"""
    name = workshop.train(script, ResourceConfig={**INSTANCES, "InstanceCount": 2})
    job = workshop.trained(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert "only here" in job["FailureReason"]


def test_groups_have_types_and_channels_of_their_own(workshop: Workshop) -> None:
    fill(workshop, a=b"x")
    given = channel(workshop, "in/")
    given["DataSource"]["S3DataSource"]["InstanceGroupNames"] = ["second"]
    script = """
import json, os
told = json.load(open('/opt/ml/input/config/resourceconfig.json'))
told['train'] = os.path.exists('/opt/ml/input/data/train')
open(f"/opt/ml/model/{told['current_host']}", 'w').write(json.dumps(told))
"""
    groups = [
        {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "InstanceGroupName": "first"},
        {"InstanceType": "ml.m5.large", "InstanceCount": 1, "InstanceGroupName": "second"},
    ]
    name = workshop.train(
        script, InputDataConfig=[given], ResourceConfig={"InstanceGroups": groups, "VolumeSizeInGB": 1}
    )
    job = workshop.trained(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert "InstanceCount" not in job["ResourceConfig"]
    found = {host: json.loads(text) for host, text in model_of(workshop, name).items()}
    assert (found["algo-1"]["current_group_name"], found["algo-1"]["train"]) == ("first", False)
    assert (found["algo-2"]["current_instance_type"], found["algo-2"]["train"]) == ("ml.m5.large", True)
    assert [one["hosts"] for one in found["algo-1"]["instance_groups"]] == [["algo-1"], ["algo-2"]]

"""Jobs on a Ray cluster. `make cluster` runs them; they are not among `make test`'s, for Ray is large."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Nodes, free_port, lines_of, told_of
from tests.platform import Running
from tests.stories.sagemaker.conftest import IMAGE, Workshop

WAITS = "import time\nprint('begun', flush=True)\ntime.sleep(60)"


def _reaches(shop: Workshop, name: str, status: str) -> dict[str, Any]:
    until = time.monotonic() + 40
    while time.monotonic() < until:
        found: dict[str, Any] = shop.sagemaker.describe_training_job(TrainingJobName=name)
        if found["SecondaryStatus"] == status:
            return found
        assert found["TrainingJobStatus"] == "InProgress", found
        time.sleep(0.05)
    raise AssertionError(f"{name} does not reach {status}: {found}")


def _nodes(job: dict[str, Any]) -> set[str]:
    [said] = [one["StatusMessage"] for one in job["SecondaryStatusTransitions"] if one["Status"] == "Training"][-1:]
    assert "of the cluster." in said, said
    return set(said.partition("It runs on ")[2].partition(" of the cluster")[0].split(" and "))


def _completed(shop: Workshop, name: str) -> dict[str, Any]:
    job = shop.trained(name)
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines_of(shop.account, name))
    return job


def _left(cluster: tuple[Running, Nodes]) -> list[str]:
    """Mounts and processes of jobs."""
    running, nodes = cluster
    folders = (str(nodes.folder), str(running.data))
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if any(one in line for one in folders)]
    listed = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True).stdout
    words = ("bwrap", "gocryptfs", "wireguard-go")
    programs = [
        line for line in listed.splitlines() if any(one in line for one in words) and any(f in line for f in folders)
    ]
    return [*mounts, *programs]


def _nothing_left(cluster: tuple[Running, Nodes]) -> None:
    until = time.monotonic() + 25
    while left := _left(cluster):
        assert time.monotonic() < until, left
        time.sleep(0.2)


def _model(shop: Workshop, name: str) -> list[str]:
    packed = shop.s3.get_object(Bucket=shop.bucket, Key=f"out/{name}/output/model.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return tar.getnames()


def test_a_job_runs_on_a_node_sealed_in(cluster: tuple[Running, Nodes], shop: Workshop) -> None:
    _, nodes = cluster
    script = f"""
import json, os, socket
from pathlib import Path
reached = []
for host in ("127.0.0.1", {nodes.address!r}):
    for port in ({nodes.port}, 6379, 8265, 10001, 22):
        try:
            socket.create_connection((host, port), 1); reached.append([host, port])
        except OSError:
            pass
seen = [p for p in Path('/proc').iterdir() if p.name.isdecimal()]
words = {{p.name: (p / 'cmdline').read_bytes().decode(errors='replace') for p in seen}}
print(json.dumps({{"reached": reached, "ray": [k for k in os.environ if 'RAY' in k or 'BASTIDE_NODE' in k],
    "words": sorted(words.values()), "tmp": os.listdir('/tmp'), "rows": open('/opt/ml/input/data/train/part/a.csv').read(),
    "nodes": os.path.exists({str(nodes.folder)!r})}}), flush=True)
Path('/opt/ml/model/m.txt').write_text('the model')
print('acc=0.75')
"""
    shop.s3.put_object(Bucket=shop.bucket, Key="data/probe.py", Body=script.encode())
    algorithm = {
        "TrainingImage": IMAGE,
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["python3", "/opt/ml/input/data/train/probe.py"],
        "MetricDefinitions": [{"Name": "acc", "Regex": "acc=([0-9.]+)"}],
    }
    name = shop.train("", AlgorithmSpecification=algorithm, EnableNetworkIsolation=True)
    job = _completed(shop, name)
    assert _nodes(job) < {"one", "two"}
    [[told]] = told_of(shop.account, name).values()
    assert (told["reached"], told["ray"], told["nodes"]) == ([], [], False)
    assert told["rows"] == "1,2\n3,4\n"
    assert not any("ray" in word for word in told["words"])  # type: ignore[attr-defined]
    assert _model(shop, name) == ["m.txt"]
    assert job["FinalMetricDataList"][0]["Value"] == 0.75
    _nothing_left(cluster)


def test_the_job_role_answers_on_a_node_too(cluster: tuple[Running, Nodes], shop: Workshop) -> None:
    script = """
import json, os, ssl, urllib.request
token = os.environ['AWS_CONTAINER_AUTHORIZATION_TOKEN']
asked = urllib.request.Request(os.environ['AWS_CONTAINER_CREDENTIALS_FULL_URI'], headers={'Authorization': token})
with urllib.request.urlopen(asked) as answer:
    told = json.load(answer)
context = ssl.create_default_context(cafile=os.environ['AWS_CA_BUNDLE'])
with urllib.request.urlopen(os.environ['AWS_ENDPOINT_URL'] + '/_bastide/health', context=context) as answer:
    health = json.load(answer)['status']
print(json.dumps({'key': told['AccessKeyId'][:4], 'role': told['RoleArn'], 'health': health}))
"""
    name = shop.train(script)
    _completed(shop, name)
    [[told]] = told_of(shop.account, name).values()
    assert (told["key"], told["role"], told["health"]) == ("ASIA", shop.role, "ok")


@pytest.mark.parametrize("encrypted", [False, True])
def test_hosts_run_on_different_nodes_and_reach_each_other(
    cluster: tuple[Running, Nodes], shop: Workshop, encrypted: bool
) -> None:
    script = """
import json, os, socket, time
from pathlib import Path
told = json.load(open('/opt/ml/input/config/resourceconfig.json'))
me = told['current_host']
if me == 'algo-1':
    server = socket.create_server(('', 5000)); server.settimeout(20)
    peer, _ = server.accept()
    print(json.dumps({'got': peer.recv(100).decode(), 'interface': told['network_interface_name']}))
else:
    until = time.time() + 20
    while True:
        try:
            peer = socket.create_connection(('algo-1', 5000), 2); break
        except OSError:
            assert time.time() < until
            time.sleep(.1)
    peer.sendall(b'from algo-2')
Path(f'/opt/ml/model/{me}.txt').write_text(me)
"""
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    name = shop.train(script, ResourceConfig=resources, EnableInterContainerTrafficEncryption=encrypted)
    job = _completed(shop, name)
    assert _nodes(job) == {"one", "two"}
    told = [one for lines in told_of(shop.account, name).values() for one in lines]
    assert told == [{"got": "from algo-2", "interface": "eth1" if encrypted else "eth0"}]
    assert _model(shop, name) == ["algo-1.txt", "algo-2.txt"]
    _nothing_left(cluster)


def test_who_finds_the_nodes_booked_waits_and_says_for_what(cluster: tuple[Running, Nodes], shop: Workshop) -> None:
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    first = shop.train(WAITS, ResourceConfig=resources)
    _reaches(shop, first, "Training")
    second = shop.train("print('mine')")
    waiting = _reaches(shop, second, "Pending")
    said = [one["StatusMessage"] for one in waiting["SecondaryStatusTransitions"] if one["Status"] == "Pending"]
    assert said == ["Pending: waiting for 2 processors and 4.0 GiB of memory that are free on a node of the cluster"]
    third = shop.train("print('mine')")
    behind = _reaches(shop, third, "Pending")
    assert "1 that asked before" in behind["SecondaryStatusTransitions"][-1]["StatusMessage"]
    shop.sagemaker.stop_training_job(TrainingJobName=first)
    assert shop.trained(first)["TrainingJobStatus"] == "Stopped"
    assert [shop.trained(one)["TrainingJobStatus"] for one in (second, third)] == ["Completed", "Completed"]


def test_limits_hold_on_a_node(cluster: tuple[Running, Nodes], shop: Workshop) -> None:
    name = shop.train("held = []\nwhile True: held.append(bytes(64 << 20))")
    job = shop.trained(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert "OutOfMemoryError" in job["FailureReason"]


def test_what_only_this_machine_can_do_runs_here(cluster: tuple[Running, Nodes], shop: Workshop) -> None:
    name = shop.train("print('x')", CheckpointConfig={"S3Uri": f"s3://{shop.bucket}/checkpoints"})
    job = _completed(shop, name)
    assert not any("of the cluster" in one["StatusMessage"] for one in job["SecondaryStatusTransitions"])


def test_a_killed_platform_takes_its_jobs_on_nodes_up_again(cluster: tuple[Running, Nodes], shop: Workshop) -> None:
    running, nodes = cluster
    name = shop.train("import time\nprint('begun', flush=True)\ntime.sleep(4)\nprint('end')")
    _reaches(shop, name, "Training")
    running.kill()
    until = time.monotonic() + 20  # the kernel ends the bridge, Ray the agents, the kernel the sandboxes
    listing = ["ps", "-ewwo", "args"]
    while "bwrap" in (said := subprocess.run(listing, capture_output=True, text=True, check=True).stdout) and any(
        str(nodes.folder) in line for line in said.splitlines() if "gocryptfs" in line
    ):
        assert time.monotonic() < until
        time.sleep(0.2)
    running.launch()
    shop.sagemaker, shop.s3 = shop.account.client("sagemaker"), shop.account.client("s3")
    job = _completed(shop, name)
    assert _nodes(job) < {"one", "two"}
    assert [lines[-1] for lines in lines_of(shop.account, name).values()].count("end") >= 1
    _nothing_left(cluster)


def test_a_lost_node_fails_its_job_with_the_reason_or_the_job_is_tried_again(
    cluster: tuple[Running, Nodes], shop: Workshop
) -> None:
    _, nodes = cluster
    name = shop.train(WAITS)
    [where] = _nodes(_reaches(shop, name, "Training"))
    nodes.kill(where)
    job = shop.trained(name)
    assert job["TrainingJobStatus"] == "Failed", job
    assert f"InternalServerError: The node {where} was lost while the job was on it" in job["FailureReason"]
    # Of those that are left one takes the next, and is lost as well; a third node comes, and has the retry.
    [other] = {"one", "two"} - {where}
    script = "import os, time\nprint('begun', flush=True)\ntime.sleep(5)\nprint('end')"
    name = shop.train(script, RetryStrategy={"MaximumRetryAttempts": 2})
    assert _nodes(_reaches(shop, name, "Training")) == {other}
    nodes.kill(other)
    nodes.start("three", "--join", f"127.0.0.1:{nodes.port}", "--cpus", "2", "--memory", "8")
    job = _completed(shop, name)
    assert _nodes(job) == {"three"}
    assert "Restarting" in [one["Status"] for one in job["SecondaryStatusTransitions"]]
    for one in (where, other):  # their machines are gone; on this one, what they left is cleared by a node that begins
        nodes.start(one, "--folder", str(nodes.folder / "three"), "--join", f"127.0.0.1:{nodes.port}", "--cpus", "0")


def test_a_cluster_that_lets_everybody_in_is_refused(tmp_path: Path) -> None:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        f"--port={port}",
        "--num-cpus=0",
        "--block",
    ]
    command += ["--disable-usage-stats", "--include-dashboard=false", "--object-store-memory=80000000"]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    running = Running(tmp_path / "data", program=[sys.executable, "-m", "bastide"])
    subprocess.run([*running.program, "init", "--data", str(running.data)], check=True, capture_output=True)
    with (tmp_path / "log").open("wb") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    nodes = Nodes(tmp_path, tmp_path, port, processes={"head": head})
    try:
        done = None
        until = time.monotonic() + 30
        while time.monotonic() < until and (done is None or "lets in everybody" not in done.stderr):
            up = [*running.program, "up", "--data", str(running.data), "--listen", "127.0.0.1:0"]
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = subprocess.run(
                    [*up, "--cluster", f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=60, check=False
                )
        assert done is not None and done.returncode == 1
        assert "lets in everybody" in done.stderr, done.stderr
    finally:
        nodes.close()

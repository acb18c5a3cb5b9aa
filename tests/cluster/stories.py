"""More of jobs on a Ray cluster, that takes longer. `make cluster` runs it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.conftest import (
    WAITS,
    Nodes,
    completed,
    free_port,
    model_of,
    nodes_of,
    nothing_left,
    reaches,
    told_of,
)
from tests.platform import Running
from tests.stories.sagemaker.conftest import Workshop


def test_who_finds_the_nodes_booked_waits_and_says_for_what(cluster: tuple[Running, Nodes], shop: Workshop) -> None:
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    first = shop.train(WAITS, ResourceConfig=resources)
    reaches(shop, first, "Training")
    second = shop.train("print('mine')")
    waiting = reaches(shop, second, "Pending")
    said = [one["StatusMessage"] for one in waiting["SecondaryStatusTransitions"] if one["Status"] == "Pending"]
    assert said == ["Pending: waiting for 2 processors and 4.0 GiB of memory that are free on a node of the cluster"]
    third = shop.train("print('mine')")
    behind = reaches(shop, third, "Pending")
    assert "1 that asked before" in behind["SecondaryStatusTransitions"][-1]["StatusMessage"]
    shop.sagemaker.stop_training_job(TrainingJobName=first)
    assert shop.trained(first)["TrainingJobStatus"] == "Stopped"
    assert [shop.trained(one)["TrainingJobStatus"] for one in (second, third)] == ["Completed", "Completed"]


@pytest.mark.parametrize("encrypted", [False, True])
def test_hosts_run_on_different_nodes_and_reach_each_other(
    cluster: tuple[Running, Nodes], shop: Workshop, encrypted: bool
) -> None:
    running, nodes = cluster
    script = """
import json, os, socket, time
from pathlib import Path
told = json.load(open('/opt/ml/input/config/resourceconfig.json'))
me = told['current_host']
if me == 'algo-1':
    server = socket.create_server(('', 5000)); server.settimeout(60)
    peer, _ = server.accept()
    print(json.dumps({'got': peer.recv(100).decode(), 'interface': told['network_interface_name']}))
else:
    until = time.time() + 60
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
    job = completed(shop, name)
    assert nodes_of(job) == {"one", "two"}
    told = [one for lines in told_of(shop.account, name).values() for one in lines]
    assert told == [{"got": "from algo-2", "interface": "eth1" if encrypted else "eth0"}]
    assert model_of(shop, name) == ["algo-1.txt", "algo-2.txt"]
    nothing_left(running.data, nodes.folder)


def test_limits_hold_on_a_node(cluster: tuple[Running, Nodes], shop: Workshop) -> None:
    name = shop.train("held = []\nwhile True: held.append(bytes(64 << 20))")
    job = shop.trained(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert "OutOfMemoryError" in job["FailureReason"]


def test_what_only_this_machine_can_do_runs_here(cluster: tuple[Running, Nodes], shop: Workshop) -> None:
    name = shop.train("print('x')", CheckpointConfig={"S3Uri": f"s3://{shop.bucket}/checkpoints"})
    job = completed(shop, name)
    assert not any("of the cluster" in one["StatusMessage"] for one in job["SecondaryStatusTransitions"])


def test_a_lost_node_has_its_job_tried_again_where_the_job_says_so(
    cluster: tuple[Running, Nodes], shop: Workshop
) -> None:
    running, nodes = cluster
    script = "import os, time\nprint('begun', flush=True)\ntime.sleep(5)\nprint('end')"
    name = shop.train(script, RetryStrategy={"MaximumRetryAttempts": 2})
    [where] = nodes_of(reaches(shop, name, "Training"))
    nodes.kill(where)
    job = completed(shop, name)
    assert nodes_of(job) == {"one", "two"} - {where}
    assert "Restarting" in [one["Status"] for one in job["SecondaryStatusTransitions"]]
    nodes.start(where, "--join", f"127.0.0.1:{nodes.port}", "--cpus", "0")  # what the machine left is cleared
    nothing_left(running.data, nodes.folder)


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
        until = time.monotonic() + 60
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

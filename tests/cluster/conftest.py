"""A platform whose jobs run on a Ray cluster: a head and two nodes, all of them processes of this machine."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.platform import Account, Running
from tests.stories.sagemaker.conftest import Workshop, workshop_of

WAITS = "import time\nprint('begun', flush=True)\ntime.sleep(60)"


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def own_address() -> str:
    """The address by which other machines reach this one, where Ray listens; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect(("192.0.2.254", 9))
        return str(asked.getsockname()[0])


@dataclass
class Nodes:
    """What was started, by name."""

    secret: Path
    folder: Path
    port: int = field(default_factory=free_port)
    address: str = field(default_factory=own_address)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *more: str) -> None:
        """`bastide node`, in a session of its own as on a machine of its own."""
        command = [sys.executable, "-m", "bastide", "node", "--secret", str(self.secret), "--name", name]
        command += ["--folder", str(self.folder / name), *more]
        place = self.folder.parent / f"{name}.log"
        with place.open("wb") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + 120  # one after the other: two that start at a time take each other's ports
        while b"Ray runtime started" not in place.read_bytes():
            assert time.monotonic() < until and self.processes[name].poll() is None, place.read_text()
            time.sleep(0.1)

    def members(self, name: str) -> list[int]:
        """All processes of a node: those of its session, and of the sessions that came of it."""
        listed = subprocess.run(["ps", "-eo", "pid,ppid,sid"], capture_output=True, text=True, check=True).stdout
        rows = [tuple(map(int, line.split())) for line in listed.splitlines()[1:]]
        found = {self.processes[name].pid}
        while more := {pid for pid, parent, session in rows if parent in found or session in found} - found:
            found |= more
        return sorted(found)

    def kill(self, name: str) -> None:
        """SIGKILL to the raylet and everything, as when the machine is gone."""
        for pid in self.members(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.processes.pop(name).wait()

    def close(self) -> None:
        """As an operator ends them."""
        for process in self.processes.values():
            process.terminate()
        for name, process in list(self.processes.items()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            self.kill(name)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Nodes]]:
    """The platform and its nodes; one cluster at a time, whatever other test processes do: Ray's nodes share a folder."""
    held = os.open(Path(tempfile.gettempdir()) / "bastide-test-cluster", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    base = tmp_path_factory.mktemp("cluster")
    running = Running(base / "data", program=[sys.executable, "-m", "bastide"])
    subprocess.run([*running.program, "init", "--data", str(running.data), "--account-id", "111122223333"], check=True)
    secret = running.data / "cluster.key"
    secret.write_text(os.urandom(32).hex())
    secret.chmod(0o600)
    nodes = Nodes(secret, base / "nodes")
    nodes.folder.mkdir()
    try:
        nodes.start("head", "--port", str(nodes.port))
        for name in ("one", "two"):
            nodes.start(name, "--join", f"127.0.0.1:{nodes.port}", "--cpus", "2", "--memory", "8")
        running.arguments = ("--cluster", f"127.0.0.1:{nodes.port}", "--log-level", "info")
        running.launch()
        running.found()
        yield running, nodes
    finally:
        running.stop()
        nodes.close()
        os.close(held)


@pytest.fixture(scope="module")
def shop(cluster: tuple[Running, Nodes]) -> Workshop:
    return workshop_of(cluster[0].account())


def lines_of(account: Account, name: str) -> dict[str, list[str]]:
    """What the hosts of a job printed, by stream."""
    logs = account.client("logs")
    group = "/aws/sagemaker/TrainingJobs"
    found = {}
    for one in logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]:
        stream = one["logStreamName"]
        told = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]
        found[stream] = [event["message"] for event in told]
    return found


def told_of(account: Account, name: str) -> dict[str, list[dict[str, object]]]:
    """Lines of JSON among them."""
    return {
        stream: [json.loads(line) for line in lines if line.startswith("{")]
        for stream, lines in lines_of(account, name).items()
    }


def reaches(shop: Workshop, name: str, status: str) -> dict[str, Any]:
    until = time.monotonic() + 90
    while time.monotonic() < until:
        found: dict[str, Any] = shop.sagemaker.describe_training_job(TrainingJobName=name)
        if found["SecondaryStatus"] == status:
            return found
        assert found["TrainingJobStatus"] == "InProgress", found
        time.sleep(0.05)
    raise AssertionError(f"{name} does not reach {status}: {found}")


def nodes_of(job: dict[str, Any]) -> set[str]:
    [said] = [one["StatusMessage"] for one in job["SecondaryStatusTransitions"] if one["Status"] == "Training"][-1:]
    assert "of the cluster." in said, said
    return set(said.partition("It runs on ")[2].partition(" of the cluster")[0].split(" and "))


def completed(shop: Workshop, name: str) -> dict[str, Any]:
    job = shop.trained(name)
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines_of(shop.account, name))
    return job


def left_of(*folders: Path) -> list[str]:
    """Mounts and processes of jobs below some folders."""
    places = [str(one) for one in folders]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if any(one in line for one in places)]
    listed = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True).stdout
    words = ("bwrap", "gocryptfs", "wireguard-go")
    programs = [
        line for line in listed.splitlines() if any(one in line for one in words) and any(f in line for f in places)
    ]
    return [*mounts, *programs]


def nothing_left(*folders: Path) -> None:
    """Waits until that is so."""
    until = time.monotonic() + 60
    while left := left_of(*folders):
        assert time.monotonic() < until, left
        time.sleep(0.2)


def model_of(shop: Workshop, name: str) -> list[str]:
    packed = shop.s3.get_object(Bucket=shop.bucket, Key=f"out/{name}/output/model.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return tar.getnames()

"""Encrypted volumes of jobs and endpoints: nothing in the clear, nothing left however it ends, and keys that bite."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Running, allow
from tests.stories.sagemaker.conftest import IMAGE, Workshop, archive, workshop_of

MARK = "the-mark-of-the-bank-on-its-data"
WRITES = f"""
for name in ('model', 'output/data', 'checkpoints', 'input/data/train'):
    import os; os.makedirs('/opt/ml/' + name, exist_ok=True)
    open('/opt/ml/' + name + '/{MARK}', 'w').write('{MARK}' * 50_000)
os.sync()
print('{MARK.upper()}', flush=True)
"""
WAITS = WRITES + "import time\ntime.sleep(100)\n"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A platform of its own, whose processes and mounts are counted."""
    running = Running(tmp_path_factory.mktemp("volumes") / "data")
    running.start()
    running.found()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def shop(own: Running) -> Workshop:
    return workshop_of(own.account())


def left(running: Running) -> list[str]:
    """Mounts, loop devices, processes and folders of volumes."""
    data = str(running.data)
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if data in line]
    loops = subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout.splitlines()
    listed = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    others = [line for line in listed if data in line and "bastide up" not in line]
    volumes = running.data / "run" / "volumes"
    folders = [str(one) for one in volumes.iterdir()] if volumes.is_dir() else []
    return mounts + [line for line in loops if data in line] + others + folders


def nothing_left(running: Running) -> None:
    until = time.monotonic() + 60
    while found := left(running):
        assert time.monotonic() < until, found
        time.sleep(0.05)


def _readable(running: Running) -> list[str]:
    """Files of the platform's folder and of the machine's temporary places that show the mark, views in clear left out."""
    found = []
    for top in (running.data, Path("/dev/shm"), Path("/var/tmp")):
        for here, folders, files in os.walk(top):
            if here.endswith("/clear"):
                folders.clear()
                continue
            for name in files:
                path = Path(here) / name
                if MARK in name or (path.is_file() and not path.is_symlink() and _holds(path)):
                    found.append(str(path))
    return found


def _holds(path: Path) -> bool:
    told = subprocess.run(["grep", "-qaF", MARK, str(path)], check=False, capture_output=True)
    return told.returncode == 0


def _is_training(shop: Workshop, name: str) -> None:
    until = time.monotonic() + 60
    logs = shop.account.client("logs")
    group = "/aws/sagemaker/TrainingJobs"
    while time.monotonic() < until:
        found = shop.sagemaker.describe_training_job(TrainingJobName=name)
        assert found["TrainingJobStatus"] == "InProgress", found.get("FailureReason")
        if found["SecondaryStatus"] == "Training":
            for stream in logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]:
                events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
                if any(one["message"] == MARK.upper() for one in events):
                    return
        time.sleep(0.05)
    raise AssertionError(f"{name} does not begin")


def _keyed(key: str | None = None, size: int = 1) -> dict[str, Any]:
    given = {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": size}
    return given if key is None else given | {"VolumeKmsKeyId": key}


@pytest.mark.control("ENC-01", lacking="no test of the provider's key of S3 here; see tests/stories/s3")
def test_a_running_job_shows_the_disk_ciphertext_only(own: Running, shop: Workshop) -> None:
    name = shop.train(WAITS)
    _is_training(shop, name)
    [volume] = (own.data / "run" / "volumes").iterdir()
    assert (volume / "clear" / "ml" / "model" / MARK).read_text().startswith(MARK)
    assert len([path for path in (volume / "store" / "cipher").rglob("*") if path.is_file()]) > 4
    assert _readable(own) == []
    shop.sagemaker.stop_training_job(TrainingJobName=name)
    assert shop.trained(name)["TrainingJobStatus"] == "Stopped"
    nothing_left(own)
    assert _readable(own) == []


OUT_OF_MEMORY = "held = b'x' * (6 << 30)"
FULL = "big = open('/opt/ml/output/data/big', 'wb')\nos.posix_fallocate(big.fileno(), 0, 2 << 30)"
NO_ROOM = """
open('/opt/ml/model/a', 'wb').write(os.urandom(24 << 20))
try:
    for number in range(1000):
        with open(f'/opt/ml/{number}', 'wb') as big:
            os.posix_fallocate(big.fileno(), 0, 16 << 20)
except OSError:
    pass
"""
ENDINGS: dict[str, tuple[str, str]] = {
    "success": ("", "Completed"),
    "failure": ("raise ValueError('no')", "ValueError: no"),
    "out of memory": (OUT_OF_MEMORY, "OutOfMemory"),
    "a full disk": (FULL, "No space left on device"),
    "no room for the archive": (NO_ROOM, "ClientError: Artifact upload failed: the volume of 1 GB has no space left"),
}


@pytest.mark.parametrize(("script", "said"), ENDINGS.values(), ids=ENDINGS)
def test_every_ending_says_why_and_leaves_nothing(own: Running, shop: Workshop, script: str, said: str) -> None:
    assert left(own) == []
    job = shop.trained(shop.train(WRITES + script))
    assert said in f"{job['TrainingJobStatus']} {job.get('FailureReason', '')}", job
    nothing_left(own)
    assert _readable(own) == []


def _gocryptfs(running: Running) -> int:
    listed = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    found = [line.split() for line in listed if str(running.data) in line]
    [pid] = [int(words[0]) for words in found if words[1] == "gocryptfs"]
    return pid


def test_a_job_whose_volume_dies_fails_with_that_reason(own: Running, shop: Workshop) -> None:
    name = shop.train(WAITS)
    _is_training(shop, name)
    os.kill(_gocryptfs(own), signal.SIGKILL)
    job = shop.trained(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("InternalServerError: The encrypted volume of the job was lost")
    nothing_left(own)
    assert _readable(own) == []
    assert shop.trained(shop.train(WRITES))["TrainingJobStatus"] == "Completed"


def _again(own: Running, shop: Workshop) -> None:
    shop.sagemaker, shop.s3 = shop.account.client("sagemaker"), shop.account.client("s3")


def test_the_platforms_death_takes_the_volume_along(own: Running, shop: Workshop) -> None:
    name = shop.train(WAITS)
    _is_training(shop, name)
    own.kill()
    until = time.monotonic() + 60
    while found := [line for line in left(own) if "-masterkey" in line]:
        assert time.monotonic() < until, found
        time.sleep(0.05)
    [volume] = (own.data / "run" / "volumes").iterdir()
    with pytest.raises(OSError, match="not connected"):
        list((volume / "clear").iterdir())
    assert _readable(own) == []
    own.launch()
    _again(own, shop)
    _is_training(shop, name)
    shop.sagemaker.stop_training_job(TrainingJobName=name)
    shop.trained(name)
    nothing_left(own)


@pytest.mark.control("ENC-09")
def test_a_volume_key_that_may_not_be_used_fails_the_job_before_anything_is_read(own: Running, shop: Workshop) -> None:
    kms = shop.account.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    given = {"ResourceConfig": _keyed(key)}
    assert shop.trained(shop.train(WRITES, **given))["TrainingJobStatus"] == "Completed"
    service = {"Service": "sagemaker.amazonaws.com"}
    keyless = shop.account.role("Keyless", allow("s3:*", "logs:*"), trust=service)

    def refused(said: str, **more: Any) -> None:
        job = shop.trained(shop.train(WRITES, **given, **more))
        assert job["TrainingJobStatus"] == "Failed"
        assert job["FailureReason"].startswith(f"ClientError: The volume's key cannot be used: {said}"), job
        assert key in job["FailureReason"]
        nothing_left(own)
        assert _readable(own) == []

    refused("AccessDeniedException", RoleArn=keyless)
    kms.disable_key(KeyId=key)
    refused("DisabledException")
    kms.enable_key(KeyId=key)
    assert shop.trained(shop.train(WRITES, **given))["TrainingJobStatus"] == "Completed"
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    refused("KMSInvalidStateException")


SERVES = b"""
def model_fn(folder): return open(folder + '/m.txt').read()
def input_fn(body, kind): return body
def predict_fn(data, model): return model + data
def output_fn(prediction, accept): return prediction, 'text/plain'
"""


def endpoint(shop: Workshop, name: str, key: str | None = None) -> Callable[[], bytes]:
    """An endpoint in service; what invokes it."""
    packed = archive(**{"m.txt": MARK.encode(), "code/inference.py": SERVES})
    shop.s3.put_object(Bucket=shop.bucket, Key=f"{name}.tar.gz", Body=packed)
    container = {
        "Image": IMAGE,
        "ModelDataUrl": f"s3://{shop.bucket}/{name}.tar.gz",
        "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
    }
    client = shop.sagemaker
    client.create_model(ModelName=name, ExecutionRoleArn=shop.role, PrimaryContainer=container)
    variant = {"VariantName": "All", "ModelName": name, "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1}
    more = {} if key is None else {"KmsKeyId": key}
    client.create_endpoint_config(
        EndpointConfigName=name, ProductionVariants=[{**variant, "VolumeSizeInGB": 1}], **more
    )
    client.create_endpoint(EndpointName=name, EndpointConfigName=name)
    found = shop.endpoint(name, "InService", "Failed")
    assert found["EndpointStatus"] == "InService", found["FailureReason"]

    def invoke() -> bytes:
        runtime = shop.account.client("sagemaker-runtime")
        body: bytes = runtime.invoke_endpoint(EndpointName=name, Body=b"x", ContentType="text/plain")["Body"].read()
        return body

    return invoke


@pytest.mark.control("ENC-09")
def test_an_endpoint_whose_key_was_disabled_does_not_come_back_until_it_is_enabled(
    own: Running, shop: Workshop
) -> None:
    kms = shop.account.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    invoke = endpoint(shop, "keyed", key)
    assert invoke() == MARK.encode() + b"x"
    assert _readable(own) == []
    kms.disable_key(KeyId=key)
    own.stop()
    assert left(own) == []
    own.launch()
    _again(own, shop)
    found = shop.endpoint("keyed", "OutOfService")
    assert (
        "The volume's key cannot be used: DisabledException" in found["FailureReason"] and key in found["FailureReason"]
    )
    with pytest.raises(ClientError, match="ServiceUnavailable"):
        invoke()
    nothing_left(own)
    assert _readable(own) == []
    shop.account.client("kms").enable_key(KeyId=key)
    assert "FailureReason" not in shop.endpoint("keyed", "InService")
    assert invoke() == MARK.encode() + b"x"
    shop.sagemaker.delete_endpoint(EndpointName="keyed")
    nothing_left(own)

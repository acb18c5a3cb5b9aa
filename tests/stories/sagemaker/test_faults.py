"""What ends a job from outside, wherever it stands: its programs are killed, its disk is full, its rights and keys are
taken away. The reason is the true one, nothing is left on the machine, and no half model in S3.

The platform's own death is in tests/crash.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bastide.jail.probe import LAUNCHER
from tests.attack.test_hostile_jobs import left, until
from tests.platform import REGION, Running, allow
from tests.stories.sagemaker.conftest import Workshop
from tests.stories.sagemaker.test_channels import channel
from tests.stories.sagemaker.test_job_network import ASK

MODEL = "open('/opt/ml/model/m', 'wb').write(b'm')\n"
LARGE = "import os\nfor n in range(3):\n    open(f'/opt/ml/model/{n}', 'wb').write(os.urandom(12 << 20))\n"
RETRY = {"RetryStrategy": {"MaximumRetryAttempts": 1}}
RESOURCES = {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}
INTERNAL = "InternalServerError: "
MANY = 250
"""Objects of a channel that takes a moment to be staged."""


@pytest.fixture(autouse=True)
def clean(platform: Running, workshop: Workshop) -> Iterator[None]:
    """Nothing is left on the machine that was not there."""
    before = left(platform)
    yield
    end = time.monotonic() + 60
    while more := left(platform) - before:
        assert time.monotonic() < end, more
        time.sleep(0.1)


def place(shop: Workshop, name: str) -> Path:
    """The folder of a job's volume."""
    arn = f"arn:aws:sagemaker:{REGION}:{shop.account.id}:training-job/{name}"
    volumes = shop.account.platform.data / "run" / "volumes"
    return volumes / f"job-{hashlib.sha256(arn.encode()).hexdigest()[:24]}"


def children(running: Running) -> dict[int, str]:
    """Processes that the platform started, with their arguments. Looked at quickly: a launcher lives for an instant."""
    assert running.process is not None
    found = {}
    for thread in Path(f"/proc/{running.process.pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for pid in (thread / "children").read_text().split():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    found[int(pid)] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def programs(shop: Workshop, word: str, among: Callable[[int], bool] = lambda pid: True) -> list[int]:
    return [pid for pid, args in children(shop.account.platform).items() if word in args and among(pid)]


def kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def many(shop: Workshop, **more: Any) -> list[dict[str, Any]]:
    """A channel that takes a moment to be staged."""
    for number in range(MANY):
        shop.s3.put_object(Bucket=shop.bucket, Key=f"in/{number:03}", Body=b"x" * 100, **more)
    return [channel(shop, "in/")]


def staging(
    shop: Workshop, data: list[dict[str, Any]], act: Callable[[str], object], undo: Callable[[], object] = lambda: None
) -> str:
    """A job to which `act` does something while its inputs are staged: something is there, and not everything.

    A job that was quicker than `act` shows nothing: it is undone, and the next one is looked at.
    """
    for _ in range(20):
        name = begin(shop, MODEL, InputDataConfig=data)
        folder = place(shop, name) / "clear" / "ml" / "input" / "data" / "train"
        until(lambda folder=folder: folder.is_dir() and any(folder.iterdir()))
        act(name)
        late = False
        with contextlib.suppress(OSError):  # its volume is gone
            late = sum(1 for _ in folder.iterdir()) == MANY
        if shop.trained(name)["TrainingJobStatus"] == "Failed" and not late:
            return name
        undo()
        for one in shop.s3.list_objects_v2(Bucket=shop.bucket, Prefix="out/").get("Contents", ()):
            shop.s3.delete_object(Bucket=shop.bucket, Key=one["Key"])
    raise AssertionError("each job had its inputs before something could be done to it")


def training(shop: Workshop, name: str) -> None:
    """Until its own program says so."""
    until(lambda: shop.s3.head_object(Bucket=shop.bucket, Key=f"begun-{name}"))


BEGUN = f"{ASK}\ncall('s3', '/BUCKET/begun-' + os.environ['TRAINING_JOB_NAME'], 'PUT', b'x')\n"
AFTER = "import time\nwhile call('s3', '/BUCKET/go-' + os.environ['TRAINING_JOB_NAME'])[0] != 200: time.sleep(0.1)\n"


def begin(shop: Workshop, script: str, **more: Any) -> str:
    return shop.train(script.replace("BUCKET", shop.bucket), **more)


def go(shop: Workshop, name: str) -> None:
    """Lets it go on from AFTER."""
    shop.s3.put_object(Bucket=shop.bucket, Key=f"go-{name}", Body=b"x")


def failed(shop: Workshop, name: str, why: str) -> None:
    """It ended with that reason, and there is nothing of a model."""
    job = shop.trained(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(why), job["FailureReason"]
    assert "ModelArtifacts" not in job
    assert shop.s3.list_objects_v2(Bucket=shop.bucket, Prefix="out/")["KeyCount"] == 0


def test_its_volume_dies_while_inputs_are_staged(workshop: Workshop) -> None:
    name = staging(workshop, many(workshop), lambda name: kill(programs(workshop, str(place(workshop, name)))))
    failed(workshop, name, f"{INTERNAL}The encrypted volume of the job was lost")


def test_its_launcher_is_killed_before_the_program_starts(workshop: Workshop) -> None:
    before = set(children(workshop.account.platform))
    name = begin(workshop, f"{MODEL}\nimport time\ntime.sleep(100)")  # it is not over before it is looked for
    end = time.monotonic() + 60
    while not (found := programs(workshop, f" {LAUNCHER} ", lambda pid: pid not in before)):
        assert time.monotonic() < end, children(workshop.account.platform)
    kill(found)
    failed(workshop, name, INTERNAL)


@pytest.mark.parametrize("retried", [False, True])
def test_its_sandbox_is_killed_while_it_runs(workshop: Workshop, retried: bool) -> None:
    before = set(children(workshop.account.platform))
    name = begin(workshop, BEGUN + AFTER + MODEL, **(RETRY if retried else {}))
    training(workshop, name)
    kill(programs(workshop, "bwrap", lambda pid: pid not in before))
    if not retried:
        failed(workshop, name, f"{INTERNAL}The sandbox of the job was killed")
        return
    go(workshop, name)
    job = workshop.trained(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert "Restarting" in [one["Status"] for one in job["SecondaryStatusTransitions"]]
    workshop.s3.head_object(Bucket=workshop.bucket, Key=f"out/{name}/output/model.tar.gz")


def test_what_encrypts_between_its_hosts_is_killed(workshop: Workshop) -> None:
    before = set(children(workshop.account.platform))
    name = begin(
        workshop,
        BEGUN + AFTER,
        ResourceConfig={**RESOURCES, "InstanceCount": 2},
        EnableInterContainerTrafficEncryption=True,
    )
    training(workshop, name)
    links = programs(workshop, "wireguard", lambda pid: pid not in before)
    assert len(links) == 2
    kill(links[:1])
    failed(workshop, name, f"{INTERNAL}The network between its hosts of the job was lost")


@pytest.mark.parametrize("how", ["GZIP", "NONE"])
def test_its_volume_dies_while_the_model_is_uploaded(workshop: Workshop, how: str) -> None:
    target = {"S3OutputPath": f"s3://{workshop.bucket}/out", "CompressionType": how}
    check = {"S3Uri": f"s3://{workshop.bucket}/check"}
    kept = "open('/opt/ml/checkpoints/kept', 'w').write('k')\n"
    name = begin(workshop, kept + LARGE, OutputDataConfig=target, CheckpointConfig=check)

    def uploading() -> bool:
        job = workshop.sagemaker.describe_training_job(TrainingJobName=name)
        return bool(job["SecondaryStatus"] == "Uploading")

    until(uploading)
    kill(programs(workshop, str(place(workshop, name))))
    failed(workshop, name, f"{INTERNAL}The encrypted volume of the job was lost")
    # What was safe stays so: an empty folder that was none deletes no checkpoint.
    workshop.s3.head_object(Bucket=workshop.bucket, Key="check/kept")


def test_its_disk_is_full_while_inputs_are_staged(workshop: Workshop) -> None:
    def fill(name: str) -> None:
        with (place(workshop, name) / "store" / "full").open("wb") as file:
            taken, size = 0, 64 << 20
            while size >= 1024:
                try:
                    os.posix_fallocate(file.fileno(), taken, size)
                    taken += size
                except OSError:
                    size //= 2

    name = staging(workshop, many(workshop), fill)
    failed(workshop, name, "ClientError: Data download failed: ")
    assert "larger VolumeSizeInGB" in workshop.trained(name)["FailureReason"]


@pytest.mark.control("PRM-13")
def test_rights_and_keys_are_taken_away_while_inputs_are_staged(workshop: Workshop) -> None:
    kms, iam = workshop.account.client("kms"), workshop.account.client("iam")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    data = many(workshop, ServerSideEncryption="aws:kms", SSEKMSKeyId=key)

    def disable(_: str) -> None:
        kms.disable_key(KeyId=key)

    def deny(_: str) -> None:
        policy = allow("s3:GetObject", resource=f"arn:aws:s3:::{workshop.bucket}/in/*")
        policy["Statement"][0]["Effect"] = "Deny"
        iam.put_role_policy(RoleName="Execution", PolicyName="no", PolicyDocument=json.dumps(policy))

    name = staging(workshop, data, disable, lambda: kms.enable_key(KeyId=key))
    failed(workshop, name, "ClientError: Data download failed: KMS.DisabledException")
    kms.enable_key(KeyId=key)
    name = staging(workshop, data, deny, lambda: iam.delete_role_policy(RoleName="Execution", PolicyName="no"))
    failed(workshop, name, "ClientError: Data download failed: AccessDenied")


@pytest.mark.control("PRM-13")
def test_keys_are_disabled_while_the_job_reads_and_before_it_uploads(workshop: Workshop) -> None:
    kms = workshop.account.client("kms")
    reads, writes = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    for one in ("a", "b"):
        workshop.s3.put_object(
            Bucket=workshop.bucket, Key=f"in/{one}", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=reads
        )
    read = "print(open('/opt/ml/input/data/train/NAME').read(), flush=True)\n"
    script = read.replace("NAME", "a") + BEGUN + AFTER
    fast = begin(workshop, script + read.replace("NAME", "b"), InputDataConfig=[channel(workshop, "in/", "FastFile")])
    sealed = begin(
        workshop,
        BEGUN + AFTER + MODEL,
        OutputDataConfig={"S3OutputPath": f"s3://{workshop.bucket}/out", "KmsKeyId": writes},
        ResourceConfig={**RESOURCES, "VolumeKmsKeyId": writes},
    )
    for name in (fast, sealed):
        training(workshop, name)
    for key in (reads, writes):
        kms.disable_key(KeyId=key)
    for name in (fast, sealed):
        go(workshop, name)
    failed(workshop, fast, "ClientError: Data download failed: KMS.DisabledException")
    # Its volume was opened before: it runs to its end, and what it made is not stored.
    failed(workshop, sealed, "ClientError: Artifact upload failed: KMS.DisabledException")


def test_a_model_that_is_stored_in_part_is_taken_back(workshop: Workshop) -> None:
    policy = allow("s3:PutObject", resource=f"arn:aws:s3:::{workshop.bucket}/out/*/z")
    policy["Statement"][0]["Effect"] = "Deny"
    workshop.account.client("iam").put_role_policy(
        RoleName="Execution", PolicyName="no", PolicyDocument=json.dumps(policy)
    )
    target = {"S3OutputPath": f"s3://{workshop.bucket}/out", "CompressionType": "NONE"}
    script = "for name in 'abz':\n    open('/opt/ml/model/' + name, 'w').write('m')\n"
    failed(workshop, begin(workshop, script, OutputDataConfig=target), "ClientError: Artifact upload failed: AccessDen")

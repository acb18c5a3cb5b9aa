"""What goes wrong with a model's data or its server: a true reason, healing, and nothing that is left."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.platform import below
from tests.stories.sagemaker.conftest import Workshop
from tests.stories.sagemaker.serving import PROGRAM, config, container, model, serve, until, variant

# A program that fails in every way that it is asked to.
FAULTY = b"""
import os, socket, sys, threading, time
def model_fn(folder): return open(folder + '/m.txt').read()
def transform_fn(model, body, kind, accept):
    if body == 'die': os._exit(3)
    if body == 'garbage':
        for number in range(3, 64):
            try:
                os.write(number, b'\\x00\\xff this is no HTTP\\r\\n\\r\\n')
            except OSError:
                pass
        time.sleep(0.3)
        os._exit(3)
    return model + body, 'text/plain'
"""


def _tar(**more: object) -> Callable[[str, bytes], bytes]:
    def packed(name: str, content: bytes) -> bytes:
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w:gz") as tar:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for member, value in more.items():
                setattr(info, member, value)
            tar.addfile(info, io.BytesIO(content))
        return held.getvalue()

    return packed


def _zeros(size: int) -> bytes:
    """An archive of so many zeros, packed as it is written."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz", compresslevel=1) as tar, Path("/dev/zero").open("rb") as zeros:
        info = tarfile.TarInfo("weights.bin")
        info.size = size
        tar.addfile(info, zeros)
    return held.getvalue()


def _left(workshop: Workshop) -> list[str]:
    """What servers hold on this machine: mounts of the platform, and folders of volumes and sockets."""
    data = str(workshop.account.platform.data)
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    found = [one for one in mounts if one.startswith(data)]
    return found + [str(one) for one in below(Path(data)) if one.name.startswith("endpoint-")]


def test_data_that_is_no_model_fails_its_endpoint_and_leaves_nothing(workshop: Workshop) -> None:
    before = set(_left(workshop))
    archives = {
        "missing": (None, "Please ensure that the object exists"),
        "garbage": (b"\x1f\x8b\x00 this is none", "it is not a tar.gz archive"),
        "climbs": (_tar()("../../../etc/cron.d/x", b"x"), "leads outside of the model's folder"),
        "links": (_tar(type=tarfile.SYMTYPE, linkname="/etc/shadow", size=0)("a", b""), "is a link or a device"),
        "bomb": (_zeros(1100 << 20), "No space left on device"),
    }
    for name, (body, _) in archives.items():
        url = f"s3://{workshop.bucket}/bad/{name}.tar.gz"
        if body is not None:
            workshop.s3.put_object(Bucket=workshop.bucket, Key=f"bad/{name}.tar.gz", Body=body)
        part = {**container(workshop, "A"), "ModelDataUrl": url, "Environment": PROGRAM}
        config(workshop, name, variant(model(workshop, name, part)))
        workshop.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    for name, (_, why) in archives.items():
        found = workshop.endpoint(name, "Failed", "InService")
        assert found["EndpointStatus"] == "Failed" and why in found["FailureReason"], (name, found)
        assert "/etc/shadow" not in found["FailureReason"]
    assert not Path("/etc/cron.d/x").exists()
    until(lambda: set(_left(workshop)) <= before)
    # What was wrong with it is put right, and it serves.
    workshop.s3.copy_object(
        Bucket=workshop.bucket, Key="bad/missing.tar.gz", CopySource=f"{workshop.bucket}/models/A.tar.gz"
    )
    workshop.sagemaker.delete_endpoint(EndpointName="missing")
    assert serve(workshop, "missing", "again")(b"x") == b"Ax"


@pytest.mark.control("EXP-17", lacking="containers of your own")
def test_a_server_that_fails_under_load_says_so_and_heals(workshop: Workshop) -> None:
    before = set(_left(workshop))
    faulty = model(workshop, "m", container(workshop, "A", FAULTY))
    invoke = serve(workshop, config(workshop, "c", variant(faulty, InitialInstanceCount=2)))

    def ask(body: bytes) -> str:
        try:
            return invoke(body).decode()
        except ClientError as error:
            return str(error.response["Error"]["Code"])

    assert set(_left(workshop)) - before
    for fault in (b"garbage", b"die"):
        with ThreadPoolExecutor(6) as callers:
            answers = list(callers.map(ask, [fault, *[b"well"] * 12]))
        assert answers[0] == "ModelError", fault
        # Who was being answered by the server that fell is told so; nobody gets a wrong answer.
        assert set(answers[1:]) <= {"Awell", "ModelError", "ServiceUnavailable"}, fault
        until(lambda: {ask(b"well") for _ in range(4)} == {"Awell"})
    assert workshop.sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService"
    workshop.sagemaker.delete_endpoint(EndpointName="e")
    until(lambda: set(_left(workshop)) <= before)

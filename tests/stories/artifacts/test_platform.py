"""A whole platform whose objects lie in an S3-compatible store that others wrote."""

from __future__ import annotations

import io
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from click.testing import CliRunner

from bastide.commands import cli
from bastide.engines.artifacts import PlaceError
from bastide.main.objects import open_artifacts, owner_of, take_place
from bastide.store import SqliteStore
from bastide.store.directory import DataDirectory
from tests.object_stores import Fault, ObjectStore, Proxy, SeaweedFs, on_store
from tests.platform import PROGRAM, Running

MARK = b"plain-text-that-must-not-be-read"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    weed = SeaweedFs(tmp_path_factory.mktemp("weed"))
    weed.start()
    try:
        yield weed.bucket()
    finally:
        weed.kill()


@pytest.fixture(scope="module")
def proxy(store: ObjectStore) -> Iterator[Proxy]:
    with Proxy.before(store.endpoint) as made:
        yield made


@pytest.fixture(scope="module")
def running(store: ObjectStore, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = on_store(tmp_path_factory.mktemp("remote"), store.url("bank/objects", proxy.url))
    made.launch()
    made.client("s3").create_bucket(Bucket="kept")
    yield made
    made.stop()


def _program(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "300"},
    )


def _there(store: ObjectStore, prefix: str = "bank/objects/") -> dict[str, int]:
    """What lies below a prefix, but for whose it is."""
    pages = store.client().get_paginator("list_objects_v2").paginate(Bucket=store.bucket, Prefix=prefix)
    found = {one["Key"].removeprefix(prefix): one["Size"] for page in pages for one in page.get("Contents", ())}
    assert found.pop("owner", None) is not None
    return found


def _unfinished(store: ObjectStore) -> list[Any]:
    found: list[Any] = store.client().list_multipart_uploads(Bucket=store.bucket, Prefix="bank/").get("Uploads", [])
    return found


def _life(running: Running) -> dict[str, bytes]:
    """Writes in every way there is; what lies there then, by key."""
    s3 = running.client("s3")
    key = running.client("kms").create_key()["KeyMetadata"]["KeyId"]
    kept = {
        "small": MARK,
        "middle": MARK * 2000,
        "large": MARK * 600_000,
        "kms": MARK * 3000,
        "parts": MARK * 200_000 + b"the last part",
    }
    for name in ("small", "middle", "large"):
        s3.put_object(Bucket="kept", Key=name, Body=kept[name])
    s3.put_object(Bucket="kept", Key="kms", Body=kept["kms"], ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    upload = s3.create_multipart_upload(Bucket="kept", Key="parts")["UploadId"]
    cut = 5 * MIB
    where = {"Bucket": "kept", "Key": "parts", "UploadId": upload}
    parts = [
        {"PartNumber": number, "ETag": s3.upload_part(**where, PartNumber=number, Body=piece)["ETag"]}
        for number, piece in enumerate((kept["parts"][:cut], kept["parts"][cut:]), 1)
    ]
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    for name in ("large", "parts", "kms"):
        s3.copy_object(Bucket="kept", Key=f"copy of {name}", CopySource={"Bucket": "kept", "Key": name})
        kept[f"copy of {name}"] = kept[name]
    s3.put_object(Bucket="kept", Key="gone", Body=MARK * 4000)
    s3.delete_object(Bucket="kept", Key="gone")
    return kept


def _holds(running: Running, kept: dict[str, bytes]) -> None:
    s3 = running.client("s3")
    for name, body in kept.items():
        assert s3.get_object(Bucket="kept", Key=name)["Body"].read() == body, name
    for start, end in ((0, 9), (262_143, 262_144), (5 * MIB - 3, 5 * MIB + 3)):
        for name in ("large", "parts", "copy of parts"):
            got = s3.get_object(Bucket="kept", Key=name, Range=f"bytes={start}-{end}")["Body"].read()
            assert got == kept[name][start : end + 1]


def test_a_life(running: Running, store: ObjectStore, tmp_path: Path) -> None:
    """Everything is read again, after a restart and after a backup too; the store holds nothing that it could read."""
    kept = _life(running)
    _holds(running, kept)
    s3 = running.client("s3")
    s3.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
    versions = [s3.put_object(Bucket="kept", Key="v", Body=MARK * 3000 + b"%d" % n)["VersionId"] for n in range(3)]
    running.stop()
    running.launch()
    s3 = running.client("s3")
    _holds(running, kept)
    for number, version in enumerate(versions):
        body = s3.get_object(Bucket="kept", Key="v", VersionId=version)["Body"].read()
        assert body == MARK * 3000 + b"%d" % number
    assert not list((running.data / "objects").glob("*/*"))
    client = store.client()
    there = _there(store)
    # Objects of up to 16 KiB lie in the database; one in parts is two; what was deleted has gone.
    assert len(there) == 2 + 1 + 2 + 3 + 3
    for name in there:
        assert len(name) == 32
        answer = client.get_object(Bucket=store.bucket, Key=f"bank/objects/{name}")
        assert MARK not in answer["Body"].read() and not answer["Metadata"]
    for version in versions:
        s3.delete_object(Bucket="kept", Key="v", VersionId=version)
    s3.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Suspended"})
    assert len(_there(store)) == 8


def test_a_backup_holds_the_objects_and_brings_them_back_elsewhere(
    running: Running, store: ObjectStore, tmp_path: Path
) -> None:
    s3 = running.client("s3")
    bodies = {"backed up": MARK * 5000, "backed up in parts": os.urandom(20 * MIB), "backed up small": MARK}
    for name, body in bodies.items():
        s3.put_object(Bucket="kept", Key=name, Body=body)
    target = tmp_path / "bastide.backup"
    told = _program("backup", "--data", str(running.data), str(target))
    assert told.returncode == 0, told.stderr
    assert MARK not in target.read_bytes()
    s3.delete_object(Bucket="kept", Key="backed up")
    before = _there(store)
    words = ("restore", str(target), "--root-key", str(running.data / "root.key"))
    # Where the platform that was backed up lives, no other is made.
    told = _program(*words, "--data", str(tmp_path / "same"), "--object-store", store.url("bank/objects"))
    assert told.returncode != 0 and "is not empty" in told.stderr
    assert not (tmp_path / "same").exists() or not list((tmp_path / "same").iterdir())
    assert _there(store) == before
    for place in ("local", "elsewhere"):
        again = Running(tmp_path / place)
        more = () if place == "local" else ("--object-store", store.url("elsewhere"))
        told = _program(*words, "--data", str(again.data), *more)
        assert told.returncode == 0, told.stderr
        again.launch()
        try:
            client = again.client("s3")
            for name, body in bodies.items():
                assert client.get_object(Bucket="kept", Key=name)["Body"].read() == body
            client.put_object(Bucket="kept", Key="new", Body=MARK * 4000)
            assert client.get_object(Bucket="kept", Key="new")["Body"].read() == MARK * 4000
        finally:
            again.kill()
        files = list((again.data / "objects").glob("[0-9a-f][0-9a-f]/*"))
        assert bool(files) == (place == "local")
    assert _there(store) == before
    # One that is of another key, or was cut short, leaves nothing anywhere.
    cut = tmp_path / "cut.backup"
    cut.write_bytes(target.read_bytes()[:-100_000])
    safe = ("--safe", f"{target}.safe", "--root-key", str(running.data / "root.key"))
    url = store.url("from-a-cut-one")
    told = _program("restore", "--data", str(tmp_path / "none"), str(cut), *safe, "--object-store", url)
    assert told.returncode != 0 and "cut short" in told.stderr
    assert not list((tmp_path / "none").iterdir())
    left = store.client().list_objects_v2(Bucket=store.bucket, Prefix="from-a-cut-one/")
    assert left["KeyCount"] == 0


def _refused(call: Any, **given: Any) -> tuple[int, str]:
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**given)
    answer = error.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def test_while_the_store_is_down_s3_is_unavailable_and_the_rest_is_not(
    running: Running, proxy: Proxy, store: ObjectStore
) -> None:
    s3 = running.client("s3")
    s3.put_object(Bucket="kept", Key="there", Body=MARK * 4000)
    s3.put_object(Bucket="kept", Key="replaced", Body=MARK * 4000)
    before = _there(store)
    proxy.faults.append(Fault("down", times=100_000))
    try:
        assert _refused(s3.put_object, Bucket="kept", Key="new", Body=MARK * 4000) == (503, "ServiceUnavailable")
        assert _refused(s3.put_object, Bucket="kept", Key="new", Body=MARK * 600_000) == (503, "ServiceUnavailable")
        assert _refused(s3.get_object, Bucket="kept", Key="there") == (503, "ServiceUnavailable")
        source = {"Bucket": "kept", "Key": "there"}
        assert _refused(s3.copy_object, Bucket="kept", Key="new", CopySource=source) == (503, "ServiceUnavailable")
        # What needs no bytes of it goes on.
        s3.put_object(Bucket="kept", Key="small", Body=MARK)
        assert s3.get_object(Bucket="kept", Key="small")["Body"].read() == MARK
        assert s3.head_object(Bucket="kept", Key="there")["ContentLength"] == len(MARK) * 4000
        assert running.client("sts").get_caller_identity()["Account"]
        s3.delete_object(Bucket="kept", Key="replaced")
        keys = [one["Key"] for one in s3.list_objects_v2(Bucket="kept")["Contents"]]
        assert "new" not in keys and "replaced" not in keys
        found = CliRunner().invoke(cli, ["doctor", "--data", str(running.data), "--format", "json"])
        [told] = [one for one in json.loads(found.stdout) if one["name"] == "store of objects"]
        assert not told["ok"] and "cannot be used" in told["detail"] and found.exit_code == 1
    finally:
        proxy.faults.clear()
    assert s3.get_object(Bucket="kept", Key="there")["Body"].read() == MARK * 4000
    s3.put_object(Bucket="kept", Key="new", Body=MARK * 4000)
    # What was deleted meanwhile, and what was begun, goes with the calls that get through again.
    for number in range(20):
        if len(_there(store)) == len(before) and not _unfinished(store):
            break
        s3.put_object(Bucket="kept", Key="new", Body=MARK * 4000 + b"%d" % number)
    assert (len(_there(store)), _unfinished(store)) == (len(before), [])


def test_a_read_whose_store_fails_half_way_ends_short_and_never_wrong(running: Running, proxy: Proxy) -> None:
    s3 = running.client("s3")
    body = os.urandom(8 * MIB)
    s3.put_object(Bucket="kept", Key="cut", Body=body)
    proxy.faults += [Fault("cut answer", "GET", bytes=2 * MIB), Fault("slow down", "GET", times=100)]
    try:
        stream = s3.get_object(Bucket="kept", Key="cut")["Body"]
        with pytest.raises((botocore.exceptions.HTTPClientError, botocore.exceptions.IncompleteReadError)):
            io.BytesIO(stream.read())
    finally:
        proxy.faults.clear()
    assert s3.get_object(Bucket="kept", Key="cut")["Body"].read() == body
    s3.delete_object(Bucket="kept", Key="cut")


def test_a_changed_byte_in_the_store_is_an_error_and_never_data(running: Running, store: ObjectStore) -> None:
    s3 = running.client("s3")
    before = set(_there(store))
    s3.put_object(Bucket="kept", Key="changed", Body=MARK * 20_000)
    [name] = set(_there(store)) - before
    client = store.client()
    where = {"Bucket": store.bucket, "Key": f"bank/objects/{name}"}
    raw = bytearray(client.get_object(**where)["Body"].read())
    raw[100] ^= 1
    client.put_object(**where, Body=bytes(raw))
    assert _refused(s3.get_object, Bucket="kept", Key="changed")[0] == 500
    # A chunk that is whole is still read.
    assert (
        s3.get_object(Bucket="kept", Key="changed", Range="bytes=300000-300009")["Body"].read()
        == (MARK * 20_000)[300_000:300_010]
    )
    s3.delete_object(Bucket="kept", Key="changed")


def test_killed_in_the_middle_of_uploads_it_keeps_what_it_acknowledged_and_nothing_else(
    running: Running, store: ObjectStore
) -> None:
    acknowledged: dict[str, bytes] = {}
    stop = threading.Event()

    def writer(tag: int, size: int) -> None:
        s3 = running.client("s3")
        for number in range(1000):
            body = os.urandom(size)
            try:
                s3.put_object(Bucket="kept", Key=f"k/{tag}/{number}", Body=body)
            except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
                return
            acknowledged[f"k/{tag}/{number}"] = body
            if stop.is_set():
                return

    threads = [
        threading.Thread(target=writer, args=(tag, size)) for tag, size in enumerate((20_000, 700_000, 30 * MIB))
    ]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 60
    while not (_unfinished(store) and len(acknowledged) > 10) and time.monotonic() < until:
        time.sleep(0.01)
    running.kill()
    for thread in threads:
        thread.join()
    assert _unfinished(store) and acknowledged
    running.launch()
    assert _unfinished(store) == []
    s3 = running.client("s3")
    there = {}
    for one in s3.list_objects_v2(Bucket="kept")["Contents"]:
        there[one["Key"]] = one["Size"]
        if one["Key"].startswith("k/"):
            body = s3.get_object(Bucket="kept", Key=one["Key"])["Body"].read()
            assert acknowledged.get(one["Key"], body) == body
    assert acknowledged.keys() <= there.keys()
    # Each object of more than 16 KiB is one in the store; those that were copied or came in parts are two.
    sizes = sorted(size for size in _there(store).values())
    parts = sum(1 for key in there if key.endswith("parts") and not key.startswith("backed"))
    assert len(sizes) == sum(size > 16 * 1024 for size in there.values()) + (1 if parts else 0)


def test_a_platform_stays_with_its_store(running: Running, store: ObjectStore, proxy: Proxy) -> None:
    running.stop()
    directory = DataDirectory(running.data)
    told = json.loads(directory.configuration.read_text())
    assert store.keys.secret not in json.dumps(told)
    with SqliteStore(directory.database).reading() as view:
        owner = owner_of(view)

    def opened(objects: str, owner: str = owner) -> str:
        with pytest.raises(PlaceError) as error:
            open_artifacts(directory, replace(directory.load(), objects=objects), owner)
        return str(error.value)

    assert "which its configuration does not name" in opened("")
    assert "are local files" in opened(store.url(), "")
    assert "holds no platform's objects" in opened(store.url())
    other = store.url("other")
    take_place(other)
    assert "holds another platform's objects" in opened(other)
    try:
        proxy.faults.append(Fault("down", times=100_000))
        done = _program("up", "--data", str(running.data), "--listen", "127.0.0.1:0")
        assert done.returncode != 0 and "cannot be used" in done.stderr and "Traceback" not in done.stderr
    finally:
        proxy.faults.clear()
    # The same place by another road is the same place.
    directory.configuration.write_text(json.dumps({**told, "objects": store.url("bank/objects")}))
    running.launch()
    assert running.client("s3").list_objects_v2(Bucket="kept")["KeyCount"] > 0
    found = CliRunner().invoke(cli, ["doctor", "--data", str(running.data), "--format", "json"])
    assert [one["ok"] for one in json.loads(found.stdout) if one["name"] == "store of objects"] == [True]


@pytest.mark.usefixtures("running")  # whose objects are in the store
def test_init_says_what_is_wrong_with_a_store(store: ObjectStore, tmp_path: Path) -> None:
    done = _program("init", "--data", str(tmp_path / "none"), "--object-store", store.url("bank/objects"))
    assert done.returncode != 0 and "is not empty" in done.stderr and "Traceback" not in done.stderr
    assert list((tmp_path / "none").iterdir()) == []

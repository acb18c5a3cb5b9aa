"""A platform is backed up while it serves, and brought back equal on an empty machine; without the root key it is noise."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bastide.store.identities import Provider
from tests.platform import PROGRAM, Running, allow

MARK = b"plain-text-that-must-not-be-read"


def _program(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *words], check=False, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("original") / "data")
    running.start()
    running.found()
    s3, kms = running.client("s3"), running.client("kms")
    key = kms.create_key(Description="the bank's")["KeyMetadata"]["KeyId"]
    s3.create_bucket(Bucket="kept")
    s3.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
    for number in range(20):
        s3.put_object(Bucket="kept", Key=f"small/{number}", Body=MARK + bytes([number]))
        s3.put_object(Bucket="kept", Key="large", Body=MARK * 5000 + bytes([number]))
    s3.put_object(Bucket="kept", Key="sealed", Body=MARK * 9000, ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    running.client("secretsmanager").create_secret(Name="word", SecretString=MARK.decode())
    account = running.account("inside")
    account.role("reader", allow("s3:*"))
    Provider("https://login.example.com", "bastide").save(running.data / "identity-provider.json")
    yield running
    running.stop()


def _rows(data: Path) -> dict[str, list[Any]]:
    """Everything that the database keeps of resources, by table."""
    with sqlite3.connect(f"file:{data / 'bastide.db'}?mode=ro", uri=True) as database:
        return {
            table: sorted(database.execute(f"SELECT * FROM {table}"))
            for table in ("resource", "history", "token", "blob", "meta")
        }


def _bytes_of(running: Running) -> dict[str, bytes]:
    s3 = running.client("s3")
    found = {}
    for page in s3.get_paginator("list_object_versions").paginate(Bucket="kept"):
        for one in page["Versions"]:
            read = s3.get_object(Bucket="kept", Key=one["Key"], VersionId=one["VersionId"])["Body"].read()
            found[f"{one['Key']} {one['VersionId']}"] = read
    found["secret"] = running.client("secretsmanager").get_secret_value(SecretId="word")["SecretString"].encode()
    return found


def test_a_platform_comes_back_equal(original: Running, tmp_path: Path) -> None:
    target = tmp_path / "bastide.backup"
    told = _program("backup", "--data", str(original.data), str(target))
    assert told.returncode == 0, told.stderr
    before, kept = _rows(original.data), _bytes_of(original)
    again = Running(tmp_path / "machine" / "data")
    (tmp_path / "machine").mkdir()
    key = tmp_path / "root.key"
    shutil.copy(original.data / "root.key", key)
    key.chmod(0o600)
    told = _program("restore", "--data", str(again.data), str(target), "--root-key", str(key))
    assert told.returncode == 0, told.stderr
    assert _rows(again.data) == before
    modes = {oct(path.stat().st_mode & 0o077) for path in again.data.rglob("*")}
    assert modes == {"0o0"}
    assert Provider.load(again.data / "identity-provider.json") == Provider("https://login.example.com", "bastide")
    again.launch()
    try:
        assert _bytes_of(again) == kept
        assert again.administrator == original.administrator
        names = [one["Name"] for one in again.client("organizations").list_accounts()["Accounts"]]
        assert "inside" in names
    finally:
        again.stop()


def test_what_is_written_and_deleted_meanwhile_harms_nothing(original: Running, tmp_path: Path) -> None:
    """Writers put, overwrite and delete large objects all the while; each backup is whole."""
    original.client("s3").create_bucket(Bucket="busy")
    stop = threading.Event()
    failures: list[BaseException] = []

    def writer(name: str) -> None:
        s3 = original.client("s3")
        number = 0
        try:
            while not stop.is_set():
                s3.put_object(Bucket="busy", Key=name, Body=bytes([number % 251]) * 200_000)
                number += 1
                if number % 3 == 0:
                    s3.delete_object(Bucket="busy", Key=name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=writer, args=(f"w{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    try:
        for round in range(3):
            target = tmp_path / f"{round}.backup"
            told = _program("backup", "--data", str(original.data), str(target))
            assert told.returncode == 0, told.stderr
            data = tmp_path / f"data{round}"
            told = _program("restore", "--data", str(data), str(target), "--root-key", str(original.data / "root.key"))
            assert told.returncode == 0, told.stderr  # checks the database, and that every file it names is there
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    again = Running(tmp_path / "data2")
    again.launch()
    try:
        s3 = again.client("s3")
        for one in s3.list_objects_v2(Bucket="busy").get("Contents", ()):
            body = s3.get_object(Bucket="busy", Key=one["Key"])["Body"].read()
            assert len(body) == 200_000 and len(set(body)) == 1
    finally:
        again.stop()


def test_without_the_root_key_it_is_noise(original: Running, tmp_path: Path) -> None:
    target = tmp_path / "b"
    assert _program("backup", "--data", str(original.data), str(target)).returncode == 0
    content = target.read_bytes()
    assert oct(target.stat().st_mode & 0o777) == "0o600"
    for plain in (MARK, b"SQLite format", b"arn:aws", b"BEGIN PRIVATE KEY", original.administrator.secret.encode()):
        assert plain not in content
    assert (original.data / "root.key").read_bytes() not in content
    other = tmp_path / "other.key"
    other.write_bytes(os.urandom(32))
    other.chmod(0o600)
    data = tmp_path / "data"

    def refused(source: Path, key: Path, why: str) -> None:
        safe = str(tmp_path / "b.safe")
        told = _program("restore", "--data", str(data), str(source), "--safe", safe, "--root-key", str(key))
        assert told.returncode == 1 and why in told.stderr, told.stderr
        assert not data.exists() or not any(data.iterdir())

    refused(target, other, "this root key does not open")
    key = original.data / "root.key"
    for name, changed in (
        ("cut", content[:-1]),
        ("short", content[: len(content) // 2]),
        ("flipped", content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]),
        ("longer", content + b"x"),
    ):
        bad = tmp_path / name
        bad.write_bytes(changed)
        refused(bad, key, "cut short" if name != "longer" else "follows the end")
    bad = tmp_path / "none"
    bad.write_bytes(b"hello")
    refused(bad, key, "no backup")
    told = _program("restore", "--data", str(data), str(bad), "--root-key", str(key))
    assert told.returncode == 1 and "none.safe: a restore needs" in told.stderr
    safe = (tmp_path / "b.safe").read_bytes()
    (tmp_path / "b.safe").write_bytes(safe[:-10] + bytes([safe[-10] ^ 1]) + safe[-9:])
    refused(target, key, "")
    told = _program("restore", "--data", str(original.data), str(target), "--root-key", str(key))
    assert told.returncode == 1 and "not empty" in told.stderr
    told = _program("backup", "--data", str(original.data), str(target))
    assert told.returncode == 1 and "exists already" in told.stderr

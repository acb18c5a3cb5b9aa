"""`bastide verify` reads everything and names every kind of damage; a call that meets damage ends with an error."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from bastide.store import Journal, SqliteStore
from tests.platform import PROGRAM, Running
from tests.unit.store.test_sqlite import event


def _verified(data: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    words = [*PROGRAM, "verify", "--data", str(data), "--format", "json"]
    told = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120)
    return told.returncode, {one["part"].partition(" ")[0]: one for one in json.loads(told.stdout)}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("kept") / "data")
    running.start()
    try:
        _fill(running)
        yield running
    finally:
        running.stop()


def _fill(running: Running) -> None:
    s3, kms = running.client("s3"), running.client("kms")
    s3.create_bucket(Bucket="kept")
    s3.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
    key, _ = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    for size in (10, 20_000, 700_000):
        s3.put_object(Bucket="kept", Key=f"own-{size}", Body=os.urandom(size))
        s3.put_object(Bucket="kept", Key=f"own-{size}", Body=os.urandom(size))
        s3.put_object(
            Bucket="kept", Key=f"key-{size}", Body=os.urandom(size), ServerSideEncryption="aws:kms", SSEKMSKeyId=key
        )
    theirs = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": os.urandom(32)}
    s3.put_object(Bucket="kept", Key="theirs", Body=b"x", **theirs)
    s3.delete_object(Bucket="kept", Key="own-10")
    upload = s3.create_multipart_upload(Bucket="kept", Key="parts")["UploadId"]
    parts = []
    for number, body in ((1, os.urandom(5 << 20)), (2, b"end")):
        tag = s3.upload_part(Bucket="kept", Key="parts", UploadId=upload, PartNumber=number, Body=body)["ETag"]
        parts.append({"PartNumber": number, "ETag": tag})
    s3.complete_multipart_upload(Bucket="kept", Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})
    iam = running.client("iam")
    trust = json.dumps(TRUST).replace("s3.amazonaws.com", "lambda.amazonaws.com")
    role = iam.create_role(RoleName="of-functions", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("index.py", os.urandom(1_000_000))
    running.client("lambda").create_function(
        FunctionName="kept", Runtime="python3.11", Handler="index.handler", Role=role, Code={"ZipFile": code.getvalue()}
    )
    packages, ecr = running.client("codeartifact"), running.client("ecr")
    packages.create_domain(domain="kept", encryptionKey=key)
    packages.create_repository(domain="kept", repository="own")
    ecr.create_repository(repositoryName="kept")
    content = os.urandom(60_000)
    sha256 = hashlib.sha256(content).hexdigest()
    packages.publish_package_version(
        domain="kept", repository="own", format="generic", package="set", packageVersion="1", assetName="data",
        assetContent=content, assetSHA256=sha256,
    )  # fmt: skip
    upload = ecr.initiate_layer_upload(repositoryName="kept")["uploadId"]
    ecr.upload_layer_part(
        repositoryName="kept", uploadId=upload, partFirstByte=0, partLastByte=59_999, layerPartBlob=content
    )
    ecr.complete_layer_upload(repositoryName="kept", uploadId=upload, layerDigests=[f"sha256:{sha256}"])
    kms.disable_key(KeyId=key)
    for number in range(0, 300, 10):
        iam.create_role(RoleName=f"role-{number}", AssumeRolePolicyDocument=json.dumps(TRUST), Description="d" * 900)


TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def _flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        byte = os.pread(file.fileno(), 1, at)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 4]), at)


def test_a_sound_platform_is_called_sound_while_it_serves(kept: Running) -> None:
    code, found = _verified(kept.data)
    assert code == 0, found
    assert set(found) == {"database", "audit", "keys", "objects", "functions", "images", "packages", "repositories"}
    assert [(found[one]["read"], found[one]["locked"]) for one in ("images", "packages")] == [(1, 0), (1, 0)]
    assert found["functions"]["read"] == 1
    # Objects under a disabled key are opened all the same: that a key is disabled is no damage, and hides none.
    assert (found["objects"]["read"], found["objects"]["locked"]) == (11, 1)
    assert found["keys"]["read"] == 2 and found["database"]["read"] > 20
    words = [*PROGRAM, "verify", "--data", str(kept.data)]
    told = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120)
    assert told.returncode == 0 and "damaged" not in told.stdout


def test_damage_of_every_kind_is_found_and_named(kept: Running) -> None:
    kept.stop()
    [whole] = [path for path in (kept.data / "objects").rglob("*") if path.is_file() and path.stat().st_size > 4 << 20]
    [archive] = [
        one for one in (kept.data / "objects").rglob("*") if one.is_file() and 1e6 < one.stat().st_size < 4 << 20
    ]
    layers = [one for one in (kept.data / "objects").rglob("*") if one.is_file() and 6e4 < one.stat().st_size < 6.1e4]
    assert len(layers) == 2
    shard = sorted((kept.data / "safe").iterdir())[0]
    for path, at, part, said in (
        (whole, 3_000_000, "objects", "s3://kept/parts"),
        (shard, 20, "keys", str(shard)),
        (archive, 500_000, "functions", "/kept: its archive is damaged"),
        (kept.data / "bastide.db", 5 * 4096 + 77, "database", "page 6, at byte 20480"),
    ):
        _flip(path, at)
        code, found = _verified(kept.data)
        assert code == 1
        assert any(said in line for line in found[part]["damage"]), found
        _flip(path, at)
    for path in layers:
        _flip(path, 30_000)
    code, found = _verified(kept.data)
    assert code == 1
    for part in ("images", "packages"):
        assert [line for line in found[part]["damage"] if "its bytes are damaged" in line], found
    for path in layers:
        _flip(path, 30_000)
    held = whole.rename(whole.with_suffix(".away"))
    code, found = _verified(kept.data)
    assert code == 1 and any("s3://kept/parts" in line and "gone" in line for line in found["objects"]["damage"])
    held.rename(whole)
    assert _verified(kept.data)[0] == 0
    kept.launch()


def test_a_flipped_bit_of_a_row_is_an_internal_error_and_the_log_says_where(kept: Running) -> None:
    """Every page that holds a role in turn: each answer is the right one or an error, whatever was acknowledged stays."""
    iam = kept.client("iam")
    roles = {f"role-{number}": iam.get_role(RoleName=f"role-{number}")["Role"] for number in range(0, 300, 10)}
    kept.stop()
    database = kept.data / "bastide.db"
    content = database.read_bytes()
    pages = sorted({at // 4096 for at in _places(content, b"role-")})
    log = kept.data.parent / "up.log"
    failed = 0
    for page in pages[:: max(1, len(pages) // 2)][:2]:
        at = content.index(b"role-", page * 4096)
        _flip(database, at)
        said = log.stat().st_size
        try:
            kept.launch()
        except RuntimeError:
            failed += 1  # what a start itself reads
            kept.stop()
        else:
            iam = kept.client("iam")
            for name, role in roles.items():
                try:
                    assert iam.get_role(RoleName=name)["Role"] == role
                except botocore.exceptions.ClientError as error:
                    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 500
                    assert error.response["Error"]["Code"] in ("ServiceFailure", "InternalFailure", "InternalError")
                    failed += 1
        kept.kill()
        told = log.read_text()[said:]
        assert f'checksum fault offset {page * 4096} of "{database}"' in told or "checksum fault" not in told
        database.write_bytes(content)
        for left in kept.data.glob("bastide.db-*"):
            left.unlink()
    assert failed
    kept.launch()
    assert kept.client("iam").get_role(RoleName="role-0")["Role"] == roles["role-0"]


def _places(content: bytes, word: bytes) -> Iterator[int]:
    at = content.find(word)
    while at >= 0:
        yield at
        at = content.find(word, at + 1)


def test_damage_between_entries_of_the_record_costs_those_and_is_kept(tmp_path: Path) -> None:
    async def story() -> list[str]:
        store = SqliteStore(tmp_path / "db")
        first = Journal(tmp_path / "journal", store)
        first.append([event(1), event(2), event(3), event(4)])
        [path] = (tmp_path / "journal").glob("*.journal")
        content = path.read_bytes()
        at = content.index(b"id-2")
        path.write_bytes(content[:at] + b"id-9" + content[at + 4 :] + b"\x40\x00\x00\x00half")
        second = Journal(tmp_path / "journal", store)
        await second.recover()
        with store.reading() as view:
            found = [one.id for one in view.events("1")]
        await second.close()
        store.close()
        return found

    assert asyncio.run(story()) == ["id-4", "id-3", "id-1"]
    [kept] = (tmp_path / "journal").glob("*.damaged")
    assert b"id-9" in kept.read_bytes()

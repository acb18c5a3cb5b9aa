"""What time does to keys, on a platform whose clock the test moves: rotation, expiry, and an end that leaves nothing."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import sqlite3
import tarfile
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import load_der_public_key

from bastide.domain import MICROS, Refused, wall
from bastide.engines.keys import Gone, Safe, open_root
from bastide.kernel import Bytes, Caller
from bastide.main import backup
from bastide.main.compose import Platform
from bastide.services.kms.noun import KEY
from bastide.store.database import connect
from bastide.store.directory import DataDirectory
from tests.platform import HOME, REGION, initialise, lies_in, on_disk

DAY = 24 * 3600 * MICROS
MARK = b"the-customers-own-plaintext-"
ROOT = Caller("Root", HOME, f"arn:aws:iam::{HOME}:root", f"arn:aws:iam::{HOME}:root", HOME, "root")


@dataclass
class Moved:
    """A platform in this process."""

    data: Path
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    ahead: int = 0
    platform: Platform | None = None

    def start(self) -> Moved:
        self.platform = self.run(Platform.start(DataDirectory(self.data), "https://localhost:4566", clock=self.now))
        return self

    def now(self) -> int:
        return wall() + self.ahead

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def act(self, service: str, operation: str, body: bytes | None = None, **given: Any) -> dict[str, Any]:
        assert self.platform is not None
        sent = None if body is None else Bytes(body)
        found: dict[str, Any] = self.run(
            self.platform.calls.act(ROOT, service, operation, given, region=REGION, source="test", body=sent)
        )
        return found

    def kms(self, operation: str, **given: Any) -> dict[str, Any]:
        return self.act("kms", operation, **given)

    def refused(self, service: str, operation: str, **given: Any) -> str:
        with pytest.raises(Refused) as refused:
            self.act(service, operation, **given)
        return refused.value.code

    def days(self, days: float) -> None:
        """Later; the keeper has been round."""
        assert self.platform is not None
        self.ahead += int(days * DAY)
        self.run(self.platform.keeper.round())

    def stop(self) -> None:
        if self.platform is not None:
            self.run(self.platform.close())
            self.platform = None

    def close(self) -> None:
        self.stop()
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()


@pytest.fixture
def moved(tmp_path: Path) -> Iterator[Moved]:
    data = tmp_path / "data"
    initialise(data)
    moved = Moved(data).start()
    yield moved
    moved.close()


def _key(moved: Moved, **given: Any) -> str:
    return str(moved.kms("CreateKey", **given)["KeyMetadata"]["Arn"])


def _materials(data: Path, arn: str) -> list[bytes]:
    """A key's material in all versions, as the root key and the safe give it."""
    directory = DataDirectory(data)
    root = open_root(data)
    with sqlite3.connect(f"file:{directory.database}?mode=ro", uri=True) as database:
        query = "SELECT doc FROM resource WHERE kind=? AND name=?"
        [doc] = database.execute(query, (KEY.key, arn.rpartition("/")[2])).fetchone()
    safe = Safe(directory.safe, root)
    return [
        safe.unwrap(one["shard"], base64.b64decode(one["wrapped"]), f"{arn}|{one['id']}".encode())
        for one in json.loads(doc)["Materials"]
        if "wrapped" in one
    ]


def _holding(folder: Path, *needles: bytes) -> list[str]:
    """Files that hold one of these, as it is, in hex or in base64."""
    forms = [form for one in needles for form in (one, one.hex().encode(), base64.b64encode(one)[:-4])]
    return [
        path.name
        for path in on_disk(folder)
        if lies_in(path, *forms)
    ]  # fmt: skip


@pytest.mark.control("ENC-10")
def test_automatic_rotation(moved: Moved) -> None:
    key = _key(moved)
    given = {"KeyId": key, "EncryptionContext": {"a": "b"}}
    blobs = [moved.kms("Encrypt", Plaintext=b"x0", **given)["CiphertextBlob"]]
    assert not moved.kms("GetKeyRotationStatus", KeyId=key)["KeyRotationEnabled"]
    moved.kms("EnableKeyRotation", KeyId=key, RotationPeriodInDays=100)
    told = moved.kms("GetKeyRotationStatus", KeyId=key)
    assert (told["KeyRotationEnabled"], told["RotationPeriodInDays"]) == (True, 100)
    moved.days(99)
    assert moved.kms("ListKeyRotations", KeyId=key)["Rotations"] == []
    for number in range(1, 4):
        moved.days(100)
        blobs.append(moved.kms("Encrypt", Plaintext=b"x%d" % number, **given)["CiphertextBlob"])
    rotations = moved.kms("ListKeyRotations", KeyId=key)["Rotations"]
    assert [one["RotationType"] for one in rotations] == ["AUTOMATIC"] * 3
    assert rotations[1]["RotationDate"] - rotations[0]["RotationDate"] >= 99 * DAY
    opened = [moved.kms("Decrypt", CiphertextBlob=blob, EncryptionContext={"a": "b"}) for blob in blobs]
    assert [one["Plaintext"] for one in opened] == [b"x0", b"x1", b"x2", b"x3"]
    assert len({one["KeyMaterialId"] for one in opened}) == 4 == len(set(_materials(moved.data, key)))
    moved.kms("DisableKey", KeyId=key)
    moved.days(101)
    assert len(moved.kms("ListKeyRotations", KeyId=key)["Rotations"]) == 3
    moved.kms("EnableKey", KeyId=key)
    moved.days(0.1)
    assert len(moved.kms("ListKeyRotations", KeyId=key)["Rotations"]) == 4
    moved.kms("DisableKeyRotation", KeyId=key)
    moved.days(400)
    assert len(moved.kms("ListKeyRotations", KeyId=key)["Rotations"]) == 4
    signer = _key(moved, KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
    assert moved.refused("kms", "EnableKeyRotation", KeyId=signer) == "UnsupportedOperationException"


def test_a_destroyed_key_is_gone_from_every_copy(moved: Moved, tmp_path: Path) -> None:
    """Objects, a secret, a parameter and a ciphertext under a key; a backup; then the key is destroyed. The old backup
    opens with its own safe, which shows that the looking is right, and does not with the newest."""
    key, kept = _key(moved), _key(moved)
    moved.kms("RotateKeyOnDemand", KeyId=key)
    moved.kms("CreateAlias", AliasName="alias/doomed", TargetKeyId=key)
    moved.act("s3", "CreateBucket", Bucket="shredded")
    under = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}
    plain = {"small": MARK + b"small", "large": (MARK + b"large") * 9000}
    for name, body in plain.items():
        moved.act("s3", "PutObject", body, Bucket="shredded", Key=name, **under)
    moved.act("secretsmanager", "CreateSecret", Name="word", SecretString=(MARK + b"secret").decode(), KmsKeyId=key)
    word = (MARK + b"parameter").decode()
    moved.act("ssm", "PutParameter", Name="/word", Value=word, Type="SecureString", KeyId=key)
    blob = moved.kms("Encrypt", KeyId=key, Plaintext=MARK)["CiphertextBlob"]
    other = moved.kms("Encrypt", KeyId=kept, Plaintext=b"kept")["CiphertextBlob"]
    materials = _materials(moved.data, key)
    assert len(set(materials)) == 2
    directory, root = DataDirectory(moved.data), open_root(moved.data)

    def exported() -> tuple[bytes, bytes]:
        archive = io.BytesIO()
        backup.take(directory, root, archive)
        return archive.getvalue(), backup.safe_of(directory, root)

    archive, then = exported()
    moved.kms("ScheduleKeyDeletion", KeyId=key, PendingWindowInDays=7)
    assert moved.refused("kms", "Decrypt", CiphertextBlob=blob) == "KMSInvalidStateException"
    moved.days(6.9)
    assert moved.kms("DescribeKey", KeyId=key)["KeyMetadata"]["KeyState"] == "PendingDeletion"
    moved.days(0.2)
    for operation, given in (
        ("DescribeKey", {"KeyId": key}),
        ("DescribeKey", {"KeyId": "alias/doomed"}),
        ("Decrypt", {"CiphertextBlob": blob}),
        ("CancelKeyDeletion", {"KeyId": key}),
    ):
        assert moved.refused("kms", operation, **given) == "NotFoundException"
    assert moved.kms("Decrypt", CiphertextBlob=other)["Plaintext"] == b"kept"
    _, now = exported()

    # Neither the running platform's files, database pages, log and history among them, nor the old archive opened with the
    # root key hold what would open anything.
    assert _holding(moved.data, MARK, *materials) == []
    opened = tmp_path / "opened"
    with tarfile.open(fileobj=io.BufferedReader(backup._Opening(io.BytesIO(archive), root)), mode="r|") as tar:
        tar.extractall(opened, filter="data")
    assert (opened / "bastide.db").stat().st_size > 0
    assert _holding(opened, MARK, *materials) == []
    root_file = moved.data / "root.key"
    for safe, opens in ((then, True), (now, False)):
        data = tmp_path / f"again-{opens}"
        data.mkdir()
        backup.bring_back(io.BytesIO(archive), safe, root_file, DataDirectory(data))
        assert (_holding(data, *materials), _holding(data, MARK)) == ([], [])
        if opens:
            assert _materials(data, key) == materials
        else:
            with pytest.raises(Gone):
                _materials(data, key)
        again = Moved(data).start()
        try:
            assert again.kms("Decrypt", CiphertextBlob=other)["Plaintext"] == b"kept"
            reads = (
                ("kms", "Decrypt", {"CiphertextBlob": blob}),
                ("s3", "GetObject", {"Bucket": "shredded", "Key": "small"}),
                ("s3", "GetObject", {"Bucket": "shredded", "Key": "large"}),
                ("secretsmanager", "GetSecretValue", {"SecretId": "word"}),
                ("ssm", "GetParameter", {"Name": "/word", "WithDecryption": True}),
            )
            for service, operation, given in reads:
                if opens:
                    assert again.act(service, operation, **given)
                else:
                    code = again.refused(service, operation, **given)
                    assert "KMSInvalidState" in code or code in ("DecryptionFailure", "InvalidKeyId"), (operation, code)
        finally:
            again.close()


def test_a_start_ends_what_a_crash_left(moved: Moved) -> None:
    """The row is gone and the shard is not: as if the platform had died between the two."""
    key = _key(moved)
    assert moved.platform is not None
    safe = moved.platform.calls.engine(Safe)
    orphan = safe.make()
    moved.stop()
    moved.start()
    ids = set(Safe(moved.data / "safe", open_root(moved.data)).ids())
    assert orphan not in ids and len(ids) == 1
    assert moved.kms("Decrypt", CiphertextBlob=moved.kms("Encrypt", KeyId=key, Plaintext=b"x")["CiphertextBlob"])
    moved.kms("ScheduleKeyDeletion", KeyId=key, PendingWindowInDays=7)
    moved.stop()
    moved.ahead += 8 * DAY  # while it was stopped
    moved.start()
    assert moved.refused("kms", "DescribeKey", KeyId=key) == "NotFoundException"
    assert list(Safe(moved.data / "safe", open_root(moved.data)).ids()) == []


def test_keys_of_before_the_safe(moved: Moved) -> None:
    """Their material, wrapped by the root key alone, is taken out of rows, history and free pages; they go on working."""
    key = _key(moved)
    blob = moved.kms("Encrypt", KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    [material] = _materials(moved.data, key)
    old = base64.b64encode(open_root(moved.data).wrap(material, key.encode())).decode()

    moved.stop()
    database = connect(moved.data / "bastide.db")
    for table in ("resource", "history"):
        [(rowid, doc)] = database.execute(f"SELECT rowid, doc FROM {table} WHERE kind=?", (KEY.key,)).fetchall()
        told = json.loads(doc)
        for member in ("Spec", "Usage", "Origin", "Materials"):
            told.pop(member)
        database.execute(
            f"UPDATE {table} SET doc=? WHERE rowid=?", (json.dumps(told | {"Material": old}).encode(), rowid)
        )
    database.execute("DELETE FROM resource WHERE kind='kms:Shard'")
    database.execute("DELETE FROM meta WHERE key='kms:safe'")
    database.close()
    assert _holding(moved.data, old.encode())
    moved.start()
    assert moved.kms("Decrypt", CiphertextBlob=blob)["Plaintext"] == b"x"
    assert _holding(moved.data, old.encode()) == []
    assert _materials(moved.data, key) == [material]
    assert len(list((moved.data / "safe").iterdir())) == 1


OAEP = "RSAES_OAEP_SHA_256"


def _import(moved: Moved, key: str, material: bytes, way: str = "RSAES_OAEP_SHA_256", **given: Any) -> dict[str, Any]:
    """Imports as an owner does: wraps with the public key that KMS gave."""
    told = moved.kms("GetParametersForImport", KeyId=key, WrappingAlgorithm=way, WrappingKeySpec="RSA_2048")
    public = load_der_public_key(told["PublicKey"])
    assert isinstance(public, rsa.RSAPublicKey)
    hashed = hashes.SHA1() if way.endswith("SHA_1") else hashes.SHA256()
    oaep = padding.OAEP(padding.MGF1(hashed), hashed, None)
    if way.startswith("RSA_AES"):
        key_of_once = os.urandom(32)
        wrapped = public.encrypt(key_of_once, oaep) + aes_key_wrap_with_padding(key_of_once, material)
    else:
        wrapped = public.encrypt(material, oaep)
    given = {"ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"} | given
    return moved.kms(
        "ImportKeyMaterial", KeyId=key, ImportToken=told["ImportToken"], EncryptedKeyMaterial=wrapped, **given
    )


def test_imported_material(moved: Moved) -> None:
    made = moved.kms("CreateKey", Origin="EXTERNAL")["KeyMetadata"]
    key = made["Arn"]
    assert (made["KeyState"], made["Origin"], made["Enabled"]) == ("PendingImport", "EXTERNAL", False)
    assert moved.refused("kms", "Encrypt", KeyId=key, Plaintext=b"x") == "KMSInvalidStateException"
    assert moved.refused("kms", "EnableKey", KeyId=key) == "KMSInvalidStateException"
    material = os.urandom(32)
    id = _import(moved, key, material)["KeyMaterialId"]
    longest = moved.kms("GetParametersForImport", KeyId=key, WrappingAlgorithm=OAEP, WrappingKeySpec="RSA_4096")
    assert len(longest["ImportToken"]) <= 6144  # what ImportKeyMaterial takes
    told = moved.kms("DescribeKey", KeyId=key)["KeyMetadata"]
    assert (told["KeyState"], told["ExpirationModel"]) == ("Enabled", "KEY_MATERIAL_DOES_NOT_EXPIRE")
    blob = moved.kms("Encrypt", KeyId=key, Plaintext=MARK)["CiphertextBlob"]
    assert _materials(moved.data, key) == [material]
    assert moved.refused("kms", "EnableKeyRotation", KeyId=key) == "UnsupportedOperationException"
    assert moved.refused("kms", "RotateKeyOnDemand", KeyId=key) == "KMSInvalidStateException"  # nothing to rotate to
    shards = {path.name for path in (moved.data / "safe").iterdir()}
    moved.kms("DeleteImportedKeyMaterial", KeyId=key)
    assert not shards & {path.name for path in (moved.data / "safe").iterdir()}
    assert moved.refused("kms", "Decrypt", CiphertextBlob=blob) == "KMSInvalidStateException"
    assert _holding(moved.data, material, MARK) == []
    with pytest.raises(Refused) as refused:
        _import(moved, key, os.urandom(32))
    assert refused.value.code == "IncorrectKeyMaterialException"
    end = moved.now() + 2 * DAY
    for way in ("RSAES_OAEP_SHA_1", "RSA_AES_KEY_WRAP_SHA_1", "RSA_AES_KEY_WRAP_SHA_256"):
        again = _import(moved, key, material, way, ExpirationModel="KEY_MATERIAL_EXPIRES", ValidTo=end)
        assert again["KeyMaterialId"] == id
    assert moved.kms("Decrypt", CiphertextBlob=blob)["Plaintext"] == MARK
    assert moved.kms("DescribeKey", KeyId=key)["KeyMetadata"]["ValidTo"] == end
    moved.ahead += 3 * DAY  # the keeper has not been round
    assert moved.refused("kms", "Decrypt", CiphertextBlob=blob) == "KMSInvalidStateException"
    assert moved.kms("DescribeKey", KeyId=key)["KeyMetadata"]["KeyState"] == "PendingImport"
    moved.days(0)
    assert list((moved.data / "safe").iterdir()) == [] and _materials(moved.data, key) == []


def test_what_is_not_imported(moved: Moved) -> None:
    key, other = (moved.kms("CreateKey", Origin="EXTERNAL")["KeyMetadata"]["Arn"] for _ in range(2))
    ours = _key(moved)
    way = {"WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"}
    assert moved.refused("kms", "GetParametersForImport", KeyId=ours, **way) == "UnsupportedOperationException"
    assert moved.refused("kms", "DeleteImportedKeyMaterial", KeyId=ours) == "UnsupportedOperationException"
    old = {**way, "WrappingAlgorithm": "RSAES_PKCS1_V1_5"}
    assert moved.refused("kms", "GetParametersForImport", KeyId=key, **old) == "UnsupportedOperationException"
    token = moved.kms("GetParametersForImport", KeyId=key, **way)["ImportToken"]
    given = {"EncryptedKeyMaterial": b"x", "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"}

    def refused(to: str, sent: bytes, **more: Any) -> str:
        return moved.refused("kms", "ImportKeyMaterial", KeyId=to, ImportToken=sent, **{**given, **more})

    assert refused(other, token) == "InvalidImportTokenException"
    assert refused(key, token[:-1]) == "InvalidImportTokenException"
    assert refused(key, b"\xff") == "InvalidImportTokenException"
    assert refused(key, token) == "InvalidCiphertextException"
    assert refused(key, token, ExpirationModel="KEY_MATERIAL_EXPIRES") == "ValidationException"
    assert refused(key, token, ValidTo=moved.now() + DAY) == "ValidationException"
    with pytest.raises(Refused) as error:
        _import(moved, key, os.urandom(31))
    assert error.value.code == "IncorrectKeyMaterialException"
    moved.ahead += 2 * DAY
    assert refused(key, token) == "ExpiredImportTokenException"

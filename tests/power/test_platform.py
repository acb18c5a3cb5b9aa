"""The whole platform on a disk that loses what was not synced, that fills up, that cannot be read, that changes a bit."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import HOME, PROGRAM, Running
from tests.power.disk import (
    CREATE_FAILS,
    NAME_FAILS,
    READ_FAILS,
    SYNC_FAILS,
    TRUNCATE_FAILS,
    WRITE_FAILS,
    Disk,
    Faults,
    recorded,
    recorder,
    records,
)

ROUNDS = int(os.environ.get("BASTIDE_POWER_ROUNDS", "40"))
SEED = int(os.environ.get("BASTIDE_POWER_SEED", str(random.randrange(10**9))))
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
)
REFUSED = (
    botocore.exceptions.ClientError,
    botocore.exceptions.HTTPClientError,
    botocore.exceptions.ConnectionError,
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorder(tmp_path_factory.mktemp("recorder"))


@dataclass
class Kept:
    """What was answered with success, and how long the record of the disk was then."""

    objects: list[tuple[int, str, str]] = field(default_factory=list)
    roles: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass
class Recording:
    """A platform whose disk is recorded, from `bastide init` on."""

    running: Running
    logs: list[Path]
    faults: Faults
    kept: Kept = field(default_factory=Kept)

    def size(self) -> int:
        return self.logs[-1].stat().st_size

    def put(self, s3: Any, key: str, body: bytes) -> None:
        s3.put_object(Bucket="kept", Key=key, Body=body)
        self.kept.objects.append((self.size(), key, hashlib.sha256(body).hexdigest()))

    def role(self, iam: Any, name: str) -> None:
        answer = iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)
        self.kept.roles.append((self.size(), name, answer["ResponseMetadata"]["RequestId"]))


def _recording(library: Path, folder: Path) -> Recording:
    root = folder / "root"
    root.mkdir()
    faults = Faults(folder / "faults")
    logs = [folder / "init.log", folder / "up.record"]
    running = Running(root / "data")
    words = [*PROGRAM, "init", "--data", str(running.data), "--account-id", HOME]
    environment = {**os.environ, **recorded(library, root, logs[0])}
    subprocess.run(words, check=True, capture_output=True, env=environment, timeout=60)
    running.launch(**recorded(library, root, logs[1], faults.path))
    running.client("s3").create_bucket(Bucket="kept")
    return Recording(running, logs, faults)


@pytest.fixture
def recording(library: Path, tmp_path: Path) -> Iterator[Recording]:
    made = _recording(library, tmp_path)
    yield made
    made.faults.disarm()
    made.running.stop()


def _holds(running: Running, objects: list[tuple[int, str, str]], roles: list[tuple[int, str, str]]) -> None:
    s3, iam = running.client("s3"), running.client("iam")
    there = s3.list_objects_v2(Bucket="kept").get("Contents", ()) if objects else ()
    bodies = {
        one["Key"]: hashlib.sha256(s3.get_object(Bucket="kept", Key=one["Key"])["Body"].read()).hexdigest()
        for one in there  # whoever is listed can be read, acknowledged or not
    }
    for _, key, digest in objects:
        assert bodies.get(key) == digest, f"{key} was acknowledged"
    names = {one["RoleName"] for page in iam.get_paginator("list_roles").paginate() for one in page["Roles"]}
    assert {name for _, name, _ in roles} <= names
    told: dict[str, int] = {}
    asked = [{"AttributeKey": "EventName", "AttributeValue": "CreateRole"}]
    pages = running.client("cloudtrail").get_paginator("lookup_events").paginate(LookupAttributes=asked)
    for page in pages:
        for event in page["Events"]:
            id = json.loads(event["CloudTrailEvent"])["requestID"]
            told[id] = told.get(id, 0) + 1
    for _, name, request in roles:
        assert told.get(request) == 1, f"the making of {name} is recorded {told.get(request)} times"


def _busy(recording: Recording, rounds: int) -> None:
    def objects(tag: str, size: int) -> None:
        s3 = recording.running.client("s3")
        for number in range(rounds):
            recording.put(s3, f"{tag}-{number // 2}-{number}", os.urandom(size))

    def roles() -> None:
        iam = recording.running.client("iam")
        for number in range(rounds):
            recording.role(iam, f"role-{number}")

    jobs: list[Callable[[], None]] = [
        lambda: objects("small", 300),
        lambda: objects("middle", 20_000),
        lambda: objects("large", 700_000),
        roles,
    ]
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_the_platform_stands_again_after_a_loss_of_power(recording: Recording, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    made = recording.size()
    _busy(recording, 12)
    recording.running.kill()
    disk = Disk()
    for record in records(recording.logs[0].read_bytes()):
        disk.play(record)
    disk.restarted()
    log = list(records(recording.logs[1].read_bytes()))
    # The last one right behind the last answer; no moment is as likely to have left something unsynced as a middle one.
    stops = sorted(chance.sample([one.at for one in log if one.at >= made], max(2, ROUNDS // 20)))
    for number, record in enumerate(log):
        disk.play(record)
        if record.at not in stops:
            continue
        state = tmp_path / "state"
        disk.lose_power(state, chance, strict=number % 2 == 0)
        again = Running(state / "data")
        try:
            again.launch()
            objects = [one for one in recording.kept.objects if one[0] <= record.at]
            roles = [one for one in recording.kept.roles if one[0] <= record.at]
            _holds(again, objects, roles)
        except BaseException as error:
            error.add_note(
                f"seed {SEED}, behind {record.at} bytes of the record, {'strict' if number % 2 == 0 else ''}"
            )
            raise
        finally:
            again.kill()
    assert all(name.endswith("-shm") for name in disk.mapped), disk.mapped


TROUBLE = [
    ("full", CREATE_FAILS | WRITE_FAILS | TRUNCATE_FAILS, errno.ENOSPC, False),
    ("full at times", WRITE_FAILS, errno.ENOSPC, True),
    ("not synced", SYNC_FAILS, errno.EIO, False),
    ("not synced once", SYNC_FAILS, errno.EIO, True),
    ("not written", WRITE_FAILS, errno.EIO, False),
    ("not named", NAME_FAILS, errno.EIO, False),
    ("not read", READ_FAILS, errno.EIO, False),
]


def test_a_disk_that_fails_loses_nothing_that_was_acknowledged(recording: Recording) -> None:
    """Whatever fails, and at whichever step: the caller is told, the platform stays up, and goes on when the disk does."""
    chance = random.Random(SEED)
    clients = {name: recording.running.client(name, read_timeout=10) for name in ("s3", "iam")}
    failed: dict[str, int] = {}
    for number in range(max(21, ROUNDS // 2)):
        name, what, error, once = TROUBLE[number % len(TROUBLE)]
        sizes = (300, 20_000, 700_000)
        if recording.kept.objects:
            _, seen, digest = chance.choice(recording.kept.objects)
        after = 0 if what == NAME_FAILS else chance.choice((0, 0, 1, 2, 3, 5, 8))
        recording.faults.arm(what, error, after, once=once)
        for turn in range(4):
            try:
                match turn:
                    case 0:
                        recording.role(clients["iam"], f"role-{number}")
                    case 1 if recording.kept.objects:
                        body = clients["s3"].get_object(Bucket="kept", Key=seen)["Body"].read()
                        assert hashlib.sha256(body).hexdigest() == digest
                    case _:
                        recording.put(clients["s3"], f"o-{number}-{turn}", os.urandom(sizes[(number + turn) % 3]))
            except REFUSED as refused:
                assert not isinstance(refused, botocore.exceptions.ReadTimeoutError), f"{name}: no answer"
                failed[name] = failed.get(name, 0) + 1
                code = (getattr(refused, "response", None) or {}).get("Error", {}).get("Code", "")
                assert code in ("", "InternalError", "InternalFailure", "ServiceFailure", "ServiceUnavailable"), refused
        recording.faults.disarm()
        # The disk is well again, and so is the platform.
        recording.put(clients["s3"], f"after-{number}", os.urandom(100_000))
        recording.role(clients["iam"], f"after-{number}")
        assert recording.running.process is not None and recording.running.process.poll() is None
    assert set(failed) >= {"full", "not synced", "not written", "not named"}, failed
    _holds(recording.running, recording.kept.objects, recording.kept.roles)
    recording.running.kill()
    recording.running.launch()
    _holds(recording.running, recording.kept.objects, recording.kept.roles)
    print(f"{number + 1} troubles, calls that failed: {failed}")


def test_a_flipped_bit_is_an_error_and_never_data(recording: Recording) -> None:
    s3 = recording.running.client("s3")
    files = recording.running.data / "objects"
    for size in (20_000, 700_000):
        before = {path for path in files.rglob("*") if path.is_file()}
        recording.put(s3, f"bit-{size}", os.urandom(size))
        [path] = {path for path in files.rglob("*") if path.is_file()} - before
        sound = path.read_bytes()
        for place in (0, len(sound) // 2, len(sound) - 1):
            path.write_bytes(sound[:place] + bytes([sound[place] ^ 4]) + sound[place + 1 :])
            with pytest.raises((*REFUSED, botocore.exceptions.IncompleteReadError)):
                s3.get_object(Bucket="kept", Key=f"bit-{size}")["Body"].read()
        path.write_bytes(sound)
    _holds(recording.running, recording.kept.objects, recording.kept.roles)

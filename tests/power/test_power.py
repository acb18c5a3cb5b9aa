"""The power goes while the platform writes: what was acknowledged is there, and nothing else is half there.

Every write that was not synced may be lost. `BASTIDE_POWER_ROUNDS` says how many losses of power are looked at
(`make crash`: thousands).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bastide.engines.artifacts import unseal
from bastide.engines.artifacts.drivers.files import LocalFiles
from bastide.store import Journal, SqliteStore
from bastide.store.database import connect, damage
from tests.power.disk import MKDIR, SYNC_ENDS, WRITE, Disk, Record, recorded, recorder, records
from tests.power.writer import KEY, PLACE

ROUNDS = int(os.environ.get("BASTIDE_POWER_ROUNDS", "16"))
SEED = int(os.environ.get("BASTIDE_POWER_SEED", str(random.randrange(10**9))))
WRITER = Path(__file__).with_name("writer.py")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorder(tmp_path_factory.mktemp("recorder"))


@dataclass
class Promised:
    """What had been acknowledged when the power went."""

    rows: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Generation and text by name."""
    objects: dict[str, list[str]] = field(default_factory=dict)
    """Digests by name, in the order they were put."""
    events: set[str] = field(default_factory=set)

    def take(self, line: bytes) -> None:
        told = json.loads(line)
        if told["kind"] == "row":
            self.rows[told["name"]] = (told["generation"], told["text"])
            self.events.add(told["event"])
        elif told["kind"] == "object":
            self.objects.setdefault(told["name"], []).append(told["digest"])
        else:
            self.events.update(told["ids"])


def _written(library: Path, folder: Path, rounds: int, runs: int, chance: random.Random) -> list[list[Record]]:
    """Records of several runs on one folder; all but the last are killed."""
    logs = []
    for run in range(runs):
        log = folder / f"log{run}"
        words = (sys.executable, str(WRITER), str(folder / "root" / "data"), str(rounds), f"run{run}")
        process = subprocess.Popen(words, env={**os.environ, **recorded(library, folder / "root", log)})
        if run < runs - 1:
            until = time.monotonic() + 60
            while not (log.exists() and log.stat().st_size > 2_000_000) and time.monotonic() < until:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.2))
            process.kill()
            process.wait()
        else:
            assert process.wait(60) == 0
        logs.append(list(records(log.read_bytes())))
        log.unlink()
    return logs


async def _taken_up(data: Path, promised: Promised) -> None:
    """Opens everything as a start does, and compares."""
    # What a start makes of it first: it may be empty, or hold what is to be rolled back.
    SqliteStore(data / "bastide.db").close()
    assert damage(data / "bastide.db") == []
    store = SqliteStore(data / "bastide.db")
    journal = Journal(data / "journal", store)
    await journal.recover()
    await journal.flush()
    artifacts = LocalFiles(data / "objects")
    try:
        with store.reading() as view:
            rows = {row.name: row for row in view.scan("test:Row", *PLACE, limit=100_000)}
            objects = {row.name: row.doc for row in view.scan("test:Object", *PLACE, limit=100_000)}
            blobs = {doc["id"]: view.blob(doc["id"]) for doc in objects.values() if doc["inside"]}
            recorded_ids = [one.request_id for one in view.events_after(0, limit=1_000_000)]
        for name, (generation, text) in promised.rows.items():
            assert name in rows and rows[name].generation >= generation, f"{name} was acknowledged"
            assert rows[name].generation > generation or rows[name].doc["text"] == text
        assert len(set(recorded_ids)) == len(recorded_ids), "an entry is there twice"
        events = set(recorded_ids)
        assert promised.events <= events, "an entry of the record is missing"
        assert {row.doc["event"] for row in rows.values()} <= events, "a change is there without its entry"
        assert set(promised.objects) <= set(objects), "an object was acknowledged"
        named = {doc["id"] for doc in objects.values()}
        await artifacts.sweep(lambda one: one in named)
        for name, doc in objects.items():
            sealed = blobs.get(doc["id"])
            body = unseal(doc["id"], sealed, KEY) if sealed is not None else await artifacts.read(doc["id"], KEY)
            digest = hashlib.sha256(body).hexdigest()
            assert digest == doc["digest"], f"{name} is not what was put"
            # Overwritten meanwhile, perhaps, without an answer; never an older one than the last acknowledged.
            assert digest not in promised.objects.get(name, [])[:-1] or digest == promised.objects[name][-1]
        left = {path.name for path in (data / "objects").rglob("*") if path.is_file()}
        assert left == {doc["id"] for doc in objects.values() if not doc["inside"]}
    finally:
        await journal.close()
        artifacts.close()
        store.close()


def _moments(logs: list[list[Record]], count: int, chance: random.Random) -> Iterator[tuple[Disk, Promised]]:
    """The disk and what was promised at `count` moments, from the first write to the last."""
    disk, promised = Disk(), Promised()
    whole = sum(len(log) for log in logs)
    stops = sorted(chance.choices(range(1, whole + 1), k=count))
    done = 0
    for log in logs:
        disk.restarted()
        for record in log:
            if record.op == WRITE and disk.named(record.fd).endswith("acknowledged"):
                for line in record.data.splitlines():
                    promised.take(line)
            else:
                disk.play(record)
            done += 1
            while stops and stops[0] == done:
                stops.pop(0)
                yield disk, promised
    assert all(name.endswith("-shm") for name in disk.mapped), disk.mapped


def test_what_was_acknowledged_outlives_a_loss_of_power(library: Path, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    (tmp_path / "root").mkdir()
    logs = _written(library, tmp_path, 30, 3, chance)
    acknowledged = 0
    for number, (disk, promised) in enumerate(_moments(logs, ROUNDS, chance)):
        state = tmp_path / "state"
        disk.lose_power(state, chance, strict=number % 2 == 0)
        count = len(promised.rows) + len(promised.objects)
        acknowledged = max(acknowledged, count)
        if not (state / "data").is_dir():
            assert count == 0, f"seed {SEED}, round {number}: everything is gone"
            continue
        try:
            asyncio.run(_taken_up(state / "data", promised))
        except BaseException as error:
            error.add_note(f"seed {SEED}, round {number}, {'strict' if number % 2 == 0 else 'journalling'}: {state}")
            raise
    assert acknowledged > 50
    print(f"{ROUNDS} losses of power, {sum(map(len, logs))} changes, {acknowledged} acknowledged")


def test_what_a_killed_run_left_is_on_the_disk_before_anybody_acts_upon_it(library: Path, tmp_path: Path) -> None:
    """The system keeps what a killed program wrote and did not sync, and a loss of power takes it after all."""
    (tmp_path / "root").mkdir()
    first = (
        "import os, sys, pathlib; from bastide.store import SqliteStore, database;"
        "path = pathlib.Path(sys.argv[1]); SqliteStore(path); db = database.connect(path);"
        "db.execute('PRAGMA synchronous=OFF; BEGIN; CREATE TABLE told (word TEXT); INSERT INTO told VALUES (1); COMMIT');"
        "os._exit(0)"
    )
    second = (
        "import os, sys, pathlib; from bastide.store import SqliteStore; store = SqliteStore(pathlib.Path(sys.argv[1]));"
        "assert store._reader.execute('SELECT word FROM told').fetchone(); os.mkdir(sys.argv[1] + '-acted'); os._exit(0)"
    )
    disk = Disk()
    outcomes = set()
    for number, text in enumerate((first, second)):
        log = tmp_path / f"log{number}"
        words = [sys.executable, "-c", text, str(tmp_path / "root" / "bastide.db")]
        subprocess.run(words, check=True, timeout=60, env={**os.environ, **recorded(library, tmp_path / "root", log)})
        disk.restarted()
        for record in records(log.read_bytes()):
            disk.play(record)
            if record.op in (MKDIR, WRITE, SYNC_ENDS):
                state, strict = tmp_path / "state", len(outcomes) == 0
                disk.lose_power(state, random.Random(record.at), strict=strict)
                outcomes.add(_word(state / "bastide.db"))
    assert outcomes == {True, False}
    for number in range(40):
        disk.lose_power(tmp_path / "state", random.Random(number), strict=number % 2 == 0)
        assert _word(tmp_path / "state" / "bastide.db")


def _word(path: Path) -> bool:
    if not path.is_file():
        return False
    database = connect(path)
    try:
        return bool(database.execute("SELECT count(*) FROM sqlite_schema WHERE name='told'").get)
    finally:
        database.close()


def test_a_disk_forgets_what_was_not_synced(library: Path, tmp_path: Path) -> None:
    """The disk of these tests is a cruel one: it loses and reorders whatever it may, and nothing that it may not."""
    text = """
import os, sys
os.chdir(sys.argv[1])
def write(name, data, sync):
    handle = os.open(name, os.O_WRONLY | os.O_CREAT)
    os.write(handle, data)
    if sync: os.fsync(handle)
    os.close(handle)
write("kept", b"x" * 9000, True)
write("loose", b"x" * 9000, False)
write("moving", b"new", True)
folder = os.open(".", os.O_RDONLY)
os.fsync(folder)
os.rename("moving", "moved")
write("kept", b"y" * 9000, False)
write("unnamed", b"z", True)
"""
    (tmp_path / "root").mkdir()
    log = tmp_path / "log"
    words = [sys.executable, "-c", text, str(tmp_path / "root")]
    subprocess.run(words, check=True, timeout=60, env={**os.environ, **recorded(library, tmp_path / "root", log)})
    disk = Disk()
    for record in records(log.read_bytes()):
        disk.play(record)
    found: dict[str, set[bytes | None]] = {name: set() for name in ("kept", "loose", "unnamed")}
    moved = set()
    for number in range(200):
        state = tmp_path / "state"
        disk.lose_power(state, random.Random(number), strict=number % 2 == 0)
        names = {path.name: path.read_bytes() for path in state.iterdir()}
        for name, contents in found.items():
            contents.add(names.get(name))
        assert names.get("moving", names.get("moved")) == b"new"
        moved.add(("moving" in names, "moved" in names))
    assert moved == {(True, False), (False, True), (True, True)}
    assert found["unnamed"] == {None, b"z"}
    assert {b"", b"x" * 9000, bytes(4096) + b"x" * 4904} <= found["loose"] and None not in found["loose"]
    assert {b"x" * 9000, b"y" * 9000, b"x" * 4096 + b"y" * 4904} <= found["kept"]
    assert all(one is not None and set(one) <= set(b"xy") and len(one) == 9000 for one in found["kept"])

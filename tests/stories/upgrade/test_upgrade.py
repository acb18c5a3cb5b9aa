"""A data directory of the first schema is taken up by today's program, whatever interrupts the migration."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from bastide.store.database import connect, damage
from bastide.store.schema import MIGRATIONS
from tests.platform import PROGRAM, Running

STATEMENTS = sum(len(one) for one in MIGRATIONS[1:])
KILLED = """
import os, sys, pathlib, apsw
from bastide.store import SqliteStore, database
count = 0
def counted():
    global count
    count += 1
    if count == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
class Counting(apsw.Connection):
    def execute(self, text, *more):
        if not text.startswith("PRAGMA") or "user_version=" in text or "journal_mode=DELETE" in text:
            counted()
        return super().execute(text, *more)
database.apsw.Connection = Counting
for name in ("write_private", "sync_folder"):
    def step(*given, done=getattr(database, name)):
        counted()
        return done(*given)
    setattr(database, name, step)
SqliteStore(pathlib.Path(sys.argv[1]))
"""


def aged_in_place(data: Path) -> None:
    """Makes the database what a program of the first schema would have left: the same rows, without what came later."""
    new = sqlite3.connect(data / "bastide.db")
    old = sqlite3.connect(data / "old.db", isolation_level=None)
    old.execute("PRAGMA journal_mode=WAL")
    for statement in MIGRATIONS[0]:
        old.execute(statement)
    tables = [
        name
        for (name,) in old.execute("SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%'")
    ]
    for table in tables:
        width = len(old.execute(f"PRAGMA table_info({table})").fetchall())
        old.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * width)})", new.execute(f"SELECT * FROM {table}"))
    old.execute("PRAGMA user_version=1")
    old.close()
    new.close()
    for path in data.glob("bastide.db*"):
        path.unlink()
    (data / "old.db").rename(data / "bastide.db")


@pytest.fixture(scope="module")
def aged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    running = Running(tmp_path_factory.mktemp("old") / "data")
    running.start()
    s3, iam = running.client("s3"), running.client("iam")
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="small", Body=b"of old")
    s3.put_object(Bucket="kept", Key="large", Body=b"of old" * 50_000)
    iam.create_user(UserName="old", Tags=[{"Key": "team", "Value": "risk"}])
    running.stop()
    aged_in_place(running.data)
    return running.data


def _stands(data: Path) -> None:
    running = Running(data)
    running.launch()
    try:
        s3 = running.client("s3")
        assert s3.get_object(Bucket="kept", Key="small")["Body"].read() == b"of old"
        assert s3.get_object(Bucket="kept", Key="large")["Body"].read() == b"of old" * 50_000
        user = running.client("iam").get_user(UserName="old")["User"]
        assert user["Tags"] == [{"Key": "team", "Value": "risk"}]
        events = running.client("cloudtrail").lookup_events(
            LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "CreateUser"}]
        )["Events"]
        assert len(events) == 1
    finally:
        running.stop()
    database = sqlite3.connect(data / "bastide.db")
    assert database.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert ("team", "risk", "old") in database.execute("SELECT key, value, name FROM tag").fetchall()
    database.close()
    assert damage(data / "bastide.db") == []
    assert not list(data.glob("*.checked"))


def test_a_migration_may_be_killed_at_every_statement(aged: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(aged, data)
    killed = 0
    # Each migration is its statements, and a BEGIN, the new number and a COMMIT; the checksums are some steps of their own.
    for number in range(1, STATEMENTS + 3 * (len(MIGRATIONS) - 1) + 10):
        words = [sys.executable, "-c", KILLED, str(data / "bastide.db"), str(number)]
        ended = subprocess.run(words, check=False, timeout=60)
        if ended.returncode == 0:
            break  # a migration that was whole is not done again, so fewer statements are left
        assert ended.returncode == -9
        killed += 1
        database = sqlite3.connect(data / "bastide.db")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        assert 1 <= version <= len(MIGRATIONS)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()
    assert killed >= len(MIGRATIONS[1]) + 3
    _stands(data)


def test_an_older_program_refuses_a_newer_schema(aged: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(aged, data)
    database = connect(data / "bastide.db")
    database.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    database.close()
    words = [*PROGRAM, "up", "--data", str(data), "--listen", "127.0.0.1:0"]
    told = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert told.returncode != 0
    assert f"has schema {len(MIGRATIONS) + 1}, this program knows {len(MIGRATIONS)}" in told.stderr

"""Last use survives the program, and costs no commit a call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from bastide.kernel import ANONYMOUS, Caller, service_caller
from bastide.services.iam.last_use import LastUse, Use
from bastide.store import SqliteStore

ARN = "arn:aws:iam::1:user/U"
USER = Caller("User", "1", ARN, ARN, "AIDA", "U", "AKIA")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    held = SqliteStore(tmp_path / "db")
    yield held
    held.close()


def test_what_was_noted_is_known_at_once_and_after_a_restart(store: SqliteStore) -> None:
    last = LastUse(store)
    last.note(USER, "s3", "us-east-1", 10)
    last.note(USER, "iam", "us-east-1", 20)
    with store.reading() as view:
        assert view.changes == 0, "nothing was written"
        assert last.latest(view, "1", "AKIA") == Use(20, "iam", "us-east-1", ARN)
        assert last.latest(view, "2", "AKIA") is None
    asyncio.run(last.flush())
    last.note(USER, "s3", "eu-west-1", 30)
    asyncio.run(last.flush())
    with store.reading() as view:
        for id in ("AKIA", "AIDA"):
            assert LastUse(store).by_service(view, "1", id) == {
                "s3": Use(30, "s3", "eu-west-1", ARN),
                "iam": Use(20, "iam", "us-east-1", ARN),
            }


def test_who_signs_nothing_uses_nothing(store: SqliteStore) -> None:
    last = LastUse(store)
    last.note(ANONYMOUS, "s3", "us-east-1", 10)
    last.note(service_caller("sagemaker.amazonaws.com", "1"), "s3", "us-east-1", 10)
    assert not last._noted


def test_what_could_not_be_written_is_written_later(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    last = LastUse(store)
    last.note(USER, "s3", "us-east-1", 10)

    async def broken(work: object) -> None:
        last.note(USER, "s3", "us-east-1", 20)
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(store, "write", broken)
        with pytest.raises(RuntimeError):
            asyncio.run(last.flush())
    asyncio.run(last.flush())
    with store.reading() as view:
        assert LastUse(store).latest(view, "1", "AKIA") == Use(20, "s3", "us-east-1", ARN)


def test_what_is_gone_is_forgotten(store: SqliteStore) -> None:
    last = LastUse(store)
    last.note(USER, "s3", "us-east-1", 10)
    asyncio.run(last.flush())
    last.note(USER, "iam", "us-east-1", 20)
    asyncio.run(store.write(lambda tx: last.forget(tx, "1", "AKIA")))
    asyncio.run(last.flush())
    with store.reading() as view:
        assert last.latest(view, "1", "AKIA") is None
        assert last.latest(view, "1", "AIDA") is not None

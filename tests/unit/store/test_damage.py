"""A bit of the database's file that flipped is an error of the call that meets it, whichever bit it is, and never data."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bastide.store import Event, Row, SqliteStore, Transaction, View
from bastide.store.database import Damaged, damage

PLACE = ("1", "r")
ERRORS = (apsw.Error, Damaged)
LONG = {"text": "long " * 3000}
"""Spans several pages of its own."""


def _fill(tx: Transaction) -> None:
    for number in range(120):
        doc = LONG if number % 40 == 0 else {"n": number, "text": "x" * number}
        tx.insert(Row("svc:Kind", *PLACE, f"row-{number:03}", doc, "Ready", {"team": f"t{number % 7}"}))
        tx.append_log("stream", [(number, f"line {number}")])
        tx.emit("topic", {"n": number})
        tx.add_step("run", "step", "begin", {"n": number})
        tx.record([_event(number)])
        tx.put_blob(f"blob-{number:03}", bytes([number]) * (1 + number * 60))
    tx.keep_token("1", "Create", "token", b"digest", b"answer")
    tx.set_meta("name", "value")
    doc = {"state": "kept"}
    execution = {
        "id": "run",
        "flow": "f",
        "status": "Running",
        "step": "s",
        "due": 5,
        "owner": "",
        "lease": 0,
        "doc": doc,
    }
    tx.put_execution(execution)


def _event(number: int) -> Event:
    return Event(
        "1", number, f"id-{number}", "Get", "svc", f"u{number % 5}", "AK", False, "Management",
        "AccessDenied" if number % 9 == 0 else "", "rq", ("arn",), b'{"a":1}',
    )  # fmt: skip


def _questions() -> list[Callable[[View], Any]]:
    kind = ("svc:Kind", *PLACE)
    asked: list[Callable[[View], Any]] = [
        lambda view: view.scan(*kind, limit=1000),
        lambda view: view.scan(*kind, order="created", descending=True, limit=1000),
        lambda view: view.scan(*kind, order="created", status="Ready", limit=1000),
        lambda view: view.tagged(*kind, limit=1000),
        lambda view: view.tagged(*kind, key="team", limit=1000),
        lambda view: view.tagged(*kind, key="team", value="t3", limit=1000),
        lambda view: view.tag_keys(*PLACE),
        lambda view: view.tag_values(*PLACE, "team"),
        lambda view: view.token("1", "Create", "token"),
        lambda view: view.meta("name"),
        lambda view: view.outbox(0, limit=1000),
        lambda view: view.executions(due=10),
        lambda view: view.execution("run"),
        lambda view: view.steps("run"),
        lambda view: view.log_lines("stream"),
        lambda view: view.events("1", limit=1000),
        lambda view: view.events("1", where=("name", "Get"), limit=1000),
        lambda view: view.events("1", where=("user", "u3"), limit=1000),
        lambda view: view.events("1", where=("id", "id-7")),
        lambda view: view.events("1", where=("refused", ""), limit=1000),
        lambda view: view.events_after(0),
    ]
    for number in range(0, 120, 10):
        asked.append(lambda view, name=f"row-{number:03}": view.get(*kind, name))  # type: ignore[misc]
        asked.append(lambda view, name=f"row-{number:03}": view.history(*kind, name))  # type: ignore[misc]
        asked.append(lambda view, name=f"blob-{number:03}": view.blob(name))  # type: ignore[misc]
    asked.append(lambda view: view.get(*kind, "nobody"))
    return asked


QUESTIONS = _questions()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, list[Any]]:
    """A database that was closed, its bytes, and every answer that it gives."""
    path = tmp_path_factory.mktemp("kept") / "db"
    store = SqliteStore(path)
    asyncio.run(store.write(_fill))
    asyncio.run(store.write(lambda tx: tx.settle([])))
    with store.reading() as view:
        answers = [ask(view) for ask in QUESTIONS]
    store.close()
    assert all(answers[:-1]) and answers[-1] is None
    assert damage(path) == []
    return path, path.read_bytes(), answers


def _put(path: Path, content: bytes) -> None:
    for left in path.parent.iterdir():
        left.unlink()
    path.write_bytes(content)


def _wrong(store: SqliteStore, answers: list[Any]) -> int:
    """How many questions ended with an error; fails for an answer that is not the right one."""
    failed = 0
    for ask, answer in zip(QUESTIONS, answers, strict=True):
        try:
            with store.reading() as view:
                found = ask(view)
        except ERRORS:
            failed += 1
        else:
            assert found == answer
    return failed


def _flipped(content: bytes, place: int, bits: int) -> bytes:
    return content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :]


def _met(kept: tuple[Path, bytes, list[Any]], place: int, bits: int) -> None:
    path, content, answers = kept
    _put(path, _flipped(content, place, bits))
    assert damage(path), "nobody would find it"
    try:
        store = SqliteStore(path)
    except ERRORS:
        pass
    else:
        _wrong(store, answers)
        store.close()
    # While the platform runs: what it has not read yet.
    _put(path, content)
    store = SqliteStore(path)
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), _flipped(content, place, bits)[place : place + 1], place)
    store._renew()
    _wrong(store, answers)
    store.close()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(at=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_whichever_byte_changes(kept: tuple[Path, bytes, list[Any]], at: float, bits: int) -> None:
    _met(kept, int(at * len(kept[1])), bits)


@pytest.mark.parametrize("place", [0, 15, 16, 17, 18, 19, 20, 21, 24, 28, 31, 40, 43, 44, 56, 60, 63, 92, 96, 99, 100])
def test_whichever_bit_of_the_header_flips(kept: tuple[Path, bytes, list[Any]], place: int) -> None:
    for bit in range(8):
        _met(kept, place, 1 << bit)


def test_every_page_is_known_by_its_checksum(kept: tuple[Path, bytes, list[Any]]) -> None:
    path, content, _ = kept
    starts = range(4096, len(content), 4096)
    for some in (starts, starts[::7], starts[-1:]):
        changed = content
        for start in some:
            changed = _flipped(changed, start + 2000, 1)
        _put(path, changed)
        told = [line for line in damage(path) if line.startswith("page ")]
        assert [line.split(", ")[1] for line in told] == [f"at byte {start}" for start in some]


def test_a_page_that_is_damaged_changes_nothing_that_is_written(kept: tuple[Path, bytes, list[Any]]) -> None:
    """What shares a commit with work that meets it fails too, what comes later does not; the log says where it is."""
    path, content, _ = kept
    at = content.index(bytes([100]) * 4000)
    _put(path, _flipped(content, at, 4))
    store = SqliteStore(path)

    def insert(name: str) -> Callable[[Transaction], None]:
        return lambda tx: tx.insert(Row("o:K", *PLACE, name, {}))

    def read(tx: Transaction) -> None:
        insert("never")(tx)
        tx.blob("blob-100")

    async def both() -> list[Any]:
        works = (insert("before"), read, insert("behind"))
        return await asyncio.gather(*(store.write(work) for work in works), return_exceptions=True)

    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("bastide.store").addHandler(handler)
    try:
        ended = asyncio.run(both())
    finally:
        logging.getLogger("bastide.store").removeHandler(handler)
    # SQLite itself undoes the whole commit then; whoever shared it is told so, and nothing of it is there.
    assert all(isinstance(one, RuntimeError) and "could not be written" in str(one) for one in ended)
    assert any(f'checksum fault offset {at // 4096 * 4096} of "{path}"' in line for line in told)
    with store.reading() as view:
        assert view.scan("o:K", *PLACE) == []
    asyncio.run(store.write(insert("afterwards")))
    with store.reading() as view:
        assert [one.name for one in view.scan("o:K", *PLACE)] == ["afterwards"]
    store.close()


def test_nothing_of_the_database_is_mapped(kept: tuple[Path, bytes, list[Any]]) -> None:
    """What is mapped kills the process when the disk does not give it (SIGBUS); a read gives an error."""
    path, content, answers = kept
    _put(path, content)
    store = SqliteStore(path)
    assert _wrong(store, answers) == 0
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]
    store.close()
    assert all(f"{path}-shm" in line for line in mapped)

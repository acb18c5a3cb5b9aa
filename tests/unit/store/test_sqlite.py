"""The store's promises: savepoints of one commit, generations, memos that never show what was undone."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.store import Event, Journal, Row, SqliteStore, Stale, Taken, Transaction


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    held = SqliteStore(tmp_path / "db")
    yield held
    held.close()


def row(name: str, **doc: Any) -> Row:
    return Row("svc:Kind", "1", "r", name, doc)


def run(work: Any) -> Any:
    return asyncio.run(work)


def test_who_fails_is_undone_alone(store: SqliteStore) -> None:
    def good(tx: Transaction) -> str:
        tx.insert(row("good"))
        return "done"

    def bad(tx: Transaction) -> None:
        tx.insert(row("bad"))
        raise ValueError("no")

    async def both() -> list[Any]:
        return await asyncio.gather(store.write(good), store.write(bad), return_exceptions=True)

    first, second = run(both())
    assert first == "done"
    assert isinstance(second, ValueError)
    with store.reading() as view:
        assert [one.name for one in view.scan("svc:Kind", "1", "r")] == ["good"]


def test_two_writers_meet_in_a_generation(store: SqliteStore) -> None:
    run(store.write(lambda tx: tx.insert(row("x", n=1))))
    with store.reading() as view:
        mine, yours = view.get("svc:Kind", "1", "r", "x"), view.get("svc:Kind", "1", "r", "x")
    assert mine is not None and yours is not None
    run(store.write(lambda tx: tx.update(mine)))
    with pytest.raises(Stale):
        run(store.write(lambda tx: tx.update(yours)))
    with pytest.raises(Taken):
        run(store.write(lambda tx: tx.insert(row("x"))))


def test_history_keeps_every_change(store: SqliteStore) -> None:
    held = row("x", n=1)
    run(store.write(lambda tx: tx.insert(held, event="Create")))
    held.doc["n"] = 2
    run(store.write(lambda tx: tx.update(held, event="Change")))
    run(store.write(lambda tx: tx.delete(held, event="Delete")))
    with store.reading() as view:
        kept = view.history("svc:Kind", "1", "r", "x")
    assert [one["event"] for one in kept] == ["Delete", "Change", "Create"]
    assert kept[-1]["doc"] == {"n": 1}


def test_a_memo_follows_commits_and_forgets_what_was_undone(store: SqliteStore) -> None:
    def names() -> list[str]:
        with store.reading() as view:
            return view.memo(
                "names", [("svc:Kind", "1")], lambda: [one.name for one in view.scan("svc:Kind", "1", "r")]
            )

    assert names() == []
    run(store.write(lambda tx: tx.insert(row("a"))))
    assert names() == ["a"]
    seen: list[list[str]] = []

    def undone(tx: Transaction) -> None:
        tx.insert(row("b"))
        seen.append(tx.memo("names", [("svc:Kind", "1")], lambda: [one.name for one in tx.scan("svc:Kind", "1", "r")]))
        raise ValueError

    def after(tx: Transaction) -> list[str]:
        return tx.memo("names", [("svc:Kind", "1")], lambda: [one.name for one in tx.scan("svc:Kind", "1", "r")])

    with pytest.raises(ValueError):
        run(store.write(undone))
    assert seen == [["a", "b"]]
    assert run(store.write(after)) == ["a"]
    assert names() == ["a"]


@given(
    names=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=6),
        unique=True,
        max_size=30,
    ),
    prefix=st.text("ab/é\U00010000", max_size=2),
    size=st.integers(1, 7),
    descending=st.booleans(),
)
def test_pages_together_are_the_sorted_list(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], prefix: str, size: int, descending: bool
) -> None:
    store = SqliteStore(tmp_path_factory.mktemp("s") / "db")
    try:

        def fill(tx: Transaction) -> None:
            for name in names:
                tx.insert(row(prefix[:1] + name))

        run(store.write(fill))
        found: list[str] = []
        after: str | None = None
        with store.reading() as view:
            while page := view.scan(
                "svc:Kind", "1", "r", prefix=prefix, after=after, descending=descending, limit=size
            ):
                found += [one.name for one in page]
                after = page[-1].name
        wanted = [prefix[:1] + name for name in names if (prefix[:1] + name).startswith(prefix)]
        assert found == sorted(wanted, key=lambda name: name.encode(), reverse=descending)
    finally:
        store.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "db").close()
    with sqlite3.connect(tmp_path / "db") as db:
        db.execute("PRAGMA user_version=9999")
    db.close()
    with pytest.raises(RuntimeError, match="newer program"):
        SqliteStore(tmp_path / "db")


def event(number: int) -> Event:
    return Event(
        "1", number, f"id-{number}", "Get", "svc", "me", "AK", True, "Management", "", "rq", ("arn",), b'{"a":1}'
    )


def test_a_journal_left_behind_is_taken_up_once(tmp_path: Path) -> None:
    async def story() -> list[str]:
        store = SqliteStore(tmp_path / "db")
        first = Journal(tmp_path / "journal", store)
        first.append([event(1), event(2)])
        await first.flush()
        first.append([event(3)])  # never flushed: the program is killed here
        torn = next((tmp_path / "journal").glob("*.journal"))
        with torn.open("ab") as file:
            file.write(b"\x40\x00\x00\x00half an entry")
        second = Journal(tmp_path / "journal", store)
        await second.recover()
        with store.reading() as view:
            found = [one.id for one in view.events("1")]
        await second.close()
        store.close()
        return found

    assert asyncio.run(story()) == ["id-3", "id-2", "id-1"]

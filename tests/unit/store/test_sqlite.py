"""The store's promises: savepoints of one commit, generations, memos that never show what was undone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bastide.store import Event, Journal, Row, SqliteStore, Stale, Taken, Transaction, View
from bastide.store.database import connect


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
    steps=st.lists(
        st.tuples(st.sampled_from(["insert", "update", "delete", "undone", "read"]), st.sampled_from("abc")),
        max_size=40,
    )
)
def test_a_memo_by_rows_is_what_the_rows_are(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]
) -> None:
    """Whatever happens to the rows, and to others of their scope: the reader and the writer see what a fresh look sees."""
    store = SqliteStore(tmp_path_factory.mktemp("memo") / "db")
    count = itertools.count()

    def look(view: View) -> list[Any]:
        found = [view.get("svc:Kind", "1", "r", name) for name in "ab"]
        return [None if one is None else one.doc["n"] for one in found]

    def remembered(view: View) -> list[Any]:
        return view.memo("rows", [("svc:Kind", "1")], lambda: look(view), by_rows=True)

    def work(tx: Transaction, what: str, name: str) -> None:
        held = tx.get("svc:Kind", "1", "r", name)
        if what == "insert" and held is None:
            tx.insert(row(name, n=next(count)))
        elif what in ("update", "undone") and held is not None:
            held.doc["n"] = next(count)
            tx.update(held)
        elif what == "delete" and held is not None:
            tx.delete(held)
        assert remembered(tx) == look(tx)
        if what == "undone":
            raise ValueError

    try:
        for what, name in steps:
            with contextlib.suppress(ValueError):
                run(store.write(lambda tx, what=what, name=name: work(tx, what, name)))
            with store.reading() as view:
                assert remembered(view) == look(view)
    finally:
        store.close()


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
    db = connect(tmp_path / "db")
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


TAGS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"), max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from("klmn"), st.one_of(st.none(), TAGS)), max_size=12))
def test_tags_are_found_as_they_are(store: SqliteStore, steps: list[tuple[str, dict[str, str] | None]]) -> None:
    """Whatever was written, changed and removed, the index of tags says what the rows say."""
    account, kind = uuid.uuid4().hex, "svc:Kind"

    def work(tx: Transaction) -> None:
        for name, tags in steps:
            held = tx.get(kind, account, "r", name)
            if held is None and tags is not None:
                tx.insert(Row(kind, account, "r", name, {}, tags=dict(tags)))
            elif held is not None and tags is None:
                held.tags = {"a": "elsewhere"}  # what is removed is what is stored
                tx.delete(held)
            elif held is not None and tags is not None:
                held.tags = dict(tags)
                tx.update(held)
        tx.insert(Row("svc:NoResource", account, "r", "k", {}, tags={"none": "x"}), keep=False)
        tx.insert(Row(kind, account, "other", "k", {}, tags={"other": "x"}))

    run(store.write(work))
    with store.reading() as view:
        rows = view.scan(kind, account, "r")
        assert view.tagged(kind, account, "r") == [one for one in rows if one.tags]
        for key in "abc":
            having = [one for one in rows if key in one.tags]
            assert view.tagged(kind, account, "r", key=key) == having
            assert view.tagged(kind, account, "r", key=key, after="l") == [one for one in having if one.name > "l"]
            values = sorted({one.tags[key] for one in having})
            assert view.tag_values(account, "r", key) == values
            assert view.tag_values(account, "r", key, after="x", limit=1) == [one for one in values if one > "x"][:1]
            for value in values:
                found = view.tagged(kind, account, "r", key=key, value=value, limit=2)
                assert found == [one for one in rows if one.tags.get(key) == value][:2]
        assert view.tag_keys(account, "r") == sorted({key for one in rows for key in one.tags})


def test_every_walk_along_tags_has_an_index(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db")
    with store.reading() as view:
        seen: list[tuple[str, Any]] = []
        database: apsw.Connection = view._db  # type: ignore[attr-defined]
        database.exec_trace = lambda _, text, values: seen.append((text, values)) or True
        view.tagged("k", "1", "r")
        view.tagged("k", "1", "r", key="a")
        view.tagged("k", "1", "r", key="a", value="x")
        view.tag_keys("1", "r")
        view.tag_values("1", "r", "a")
        database.exec_trace = None
        plans = [
            " | ".join(str(one[3]) for one in database.execute(f"EXPLAIN QUERY PLAN {text}", values))
            for text, values in seen
        ]
    store.close()
    assert len(plans) == 5
    for plan in plans:
        assert "SCAN" not in plan and "TEMP B-TREE" not in plan, plan

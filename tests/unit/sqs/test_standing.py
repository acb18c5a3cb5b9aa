"""Laws of queues, whatever is done to them in whatever order: nothing is lost, nothing is given twice at a time, groups
keep their order; and receiving costs what it takes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.services.sqs.standing import GROUP, MESSAGE, Grouped, Loose, Place
from bastide.store import SqliteStore, Transaction

SECOND = 1_000_000
STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "take", "drop", "postpone", "wait"]), st.integers(0, 40), st.integers(0, 3)),
    max_size=60,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path_factory.mktemp("queues") / "db")
    yield made
    made.close()


def kept(store: SqliteStore, work: Any) -> None:
    """Runs in one transaction."""

    async def run() -> None:
        await store.write(work)

    asyncio.run(run())


_ids = itertools.count()


@given(STEPS, st.booleans())
def test_nothing_is_lost_or_given_twice(store: SqliteStore, steps: list[tuple[str, int, int]], fifo: bool) -> None:
    id = f"q{next(_ids)}"

    def work(tx: Transaction) -> None:
        place = Place("111122223333", "us-east-1", id)
        stand: Any = Grouped(tx, place) if fifo else Loose(tx, place)
        now, live, held, given = 1_000 * SECOND, {}, {}, []
        """live: group by number; held: row and until when, by number."""
        for what, number, group in steps:
            held = {key: one for key, one in held.items() if one[1] > now}
            if what == "add":
                due = now + (number % 3) * SECOND if not fifo else now
                live[stand.add({"group": f"g{group}"}, now, due, now)] = group
            elif what == "take":
                for row in stand.due(now, number % 10 + 1):
                    key = row.doc["n"]
                    assert key in live and key not in held, "it is gone, or somebody has it"
                    if fifo:
                        group_of = live[key]
                        earlier = [one for one, its in live.items() if its == group_of and one < key]
                        assert all(one in held and one in given for one in earlier), (
                            "something of its group was before it"
                        )
                        assert all(one in given for one in held if live[one] == group_of), "its group is in flight"
                    given.append(key)
                    until = now + (number % 5) * SECOND
                    held[key] = (stand.hold(row, until), until)
                given.clear()
                held = {key: one for key, one in held.items() if one[1] > now}
            elif held and what in ("drop", "postpone"):
                key = sorted(held)[number % len(held)]
                row = held[key][0]
                found = stand.find(row.name, key, row.doc["r"])
                assert found is not None and found.doc["n"] == key, "who has it can find it"
                if what == "drop":
                    stand.drop(found)
                    del held[key], live[key]
                else:
                    stand.postpone(found, now + group * SECOND)
                    held[key] = (row, now + group * SECOND)
            elif what == "wait":
                now += number * SECOND // 4
        counts = stand.counts(now)
        assert sum(counts.values()) == len(live)
        # In the end everything can be received and taken away, and nothing of it is left.
        now += 100 * SECOND
        while rows := stand.due(now, 10):
            for row in rows:
                stand.drop(stand.hold(row, now + SECOND))
                del live[row.doc["n"]]
        assert not live and not tx.scan(f"{MESSAGE}{id}", "111122223333", "us-east-1")
        assert not tx.scan(f"{GROUP}{id}", "111122223333", "us-east-1")

    kept(store, work)


@pytest.mark.parametrize("fifo", [False, True])
def test_receiving_costs_what_it_takes(store: SqliteStore, fifo: bool) -> None:
    steps: list[int] = []

    def work(tx: Transaction) -> None:
        place = Place("111122223333", "us-east-1", f"cost-{fifo}")
        stand: Any = Grouped(tx, place) if fifo else Loose(tx, place)
        now = 1_000 * SECOND
        db = tx._db  # type: ignore[attr-defined]
        for number in (20, 2000):
            for n in range(number):
                stand.add({"group": f"g{n % (number // 2)}"}, now, now + (n % 2) * 900 * SECOND * (not fifo), now)
            seen = 0

            def count() -> bool:
                nonlocal seen
                seen += 1
                return False

            db.set_progress_handler(count, 1)
            for row in stand.due(now, 5):
                stand.drop(stand.hold(row, now + SECOND))
            assert stand.soonest() is not None
            db.set_progress_handler(None, 1)
            steps.append(seen)

    kept(store, work)
    assert steps[1] <= 2 * steps[0] + 200, steps

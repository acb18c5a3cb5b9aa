"""Events leave in order, at least once, and are forgotten without a commit for each."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from bastide.kernel.outbox import Outbox
from bastide.store import SqliteStore, Transaction


async def _emit(store: SqliteStore, first: int, last: int) -> None:
    for number in range(first, last):

        def work(tx: Transaction, number: int = number) -> None:
            tx.emit("topic", {"number": number})

        await store.write(work)


async def _until(told: list[int], count: int) -> None:
    async with asyncio.timeout(60):
        while len(told) < count:
            await asyncio.sleep(0.01)


def _started(store: SqliteStore, told: list[int]) -> Outbox:
    outbox = Outbox(store)

    async def subscriber(body: dict[str, Any]) -> None:
        told.append(body["number"])

    outbox.subscribe("topic", subscriber)
    store.committed = outbox.wake
    outbox.start()
    return outbox


def _left(store: SqliteStore) -> int:
    with store.reading() as view:
        return len(view.outbox(0))


def test_events_are_told_in_order_across_pauses_in_which_the_table_becomes_empty(tmp_path: Path) -> None:
    async def story() -> None:
        store = SqliteStore(tmp_path / "db")
        told: list[int] = []
        outbox = _started(store, told)
        await _emit(store, 0, 5)
        await _until(told, 5)
        async with asyncio.timeout(60):
            while _left(store):  # a pause: they are forgotten, and the table numbers from one again
                await asyncio.sleep(0.02)
        await _emit(store, 5, 8)
        await _until(told, 8)
        assert told == list(range(8))
        await outbox.close()
        assert _left(store) == 0
        store.close()

    asyncio.run(story())


def test_what_a_crash_left_is_told_again_and_nothing_is_lost(tmp_path: Path) -> None:
    async def crashed() -> list[int]:
        store = SqliteStore(tmp_path / "db")
        told: list[int] = []
        outbox = _started(store, told)
        await _emit(store, 0, 3)
        await _until(told, 3)
        outbox._task.cancel()  # type: ignore[union-attr]  # no close: nothing was forgotten
        store.close()
        return told

    async def again() -> list[int]:
        store = SqliteStore(tmp_path / "db")
        told: list[int] = []
        outbox = _started(store, told)
        await _emit(store, 3, 4)
        await _until(told, 4)
        await outbox.close()
        store.close()
        return told

    assert asyncio.run(crashed()) == [0, 1, 2]
    assert asyncio.run(again()) == [0, 1, 2, 3]

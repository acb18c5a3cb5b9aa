"""What a service does by itself goes on, whatever one round or one name meets."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bastide.kernel import Rounds
from bastide.store import Row, SqliteStore, Transaction

KIND = "test:Named"


class Looking(Rounds):
    """Notes what it is told to look at. "broken" fails, "long" takes three times, and the second round fails as a whole."""

    seconds = 0.0

    def __init__(self, calls: Any) -> None:
        super().__init__(calls)
        self.rounds = 0
        self.seen: list[str] = []

    async def round(self) -> None:
        self.rounds += 1
        if self.rounds == 2:
            raise OSError("the disk does not answer")
        await self.each(KIND, self.look)

    async def look(self, name: str) -> bool:
        self.seen.append(name)
        if name == "broken":
            raise ValueError(name)
        return name == "long" and self.seen.count(name) % 3 != 0


def made(tmp_path: Path, *names: str) -> SimpleNamespace:
    """A store with rows of these names, and a clock."""
    store = SqliteStore(tmp_path / "db")

    def work(tx: Transaction) -> None:
        for name in names:
            tx.insert(Row(KIND, "", "", name, {}), keep=False)

    asyncio.run(store.write(work))
    return SimpleNamespace(store=store, now=0, clock=lambda: 0)


def test_one_that_fails_keeps_neither_others_nor_the_next_round(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    looking = Looking(made(tmp_path, "a", "broken", "long", "z"))

    async def story() -> None:
        looking.start()
        while looking.rounds < 4:
            await asyncio.sleep(0.001)
        await looking.close()

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(story())
    once = ["a", "broken", "long", "long", "long", "z"]
    assert looking.seen[: 2 * len(once)] == once * 2  # the first round and the third


def test_names_are_read_by_the_page_and_none_is_lost(tmp_path: Path) -> None:
    names = [f"{number:03}" for number in range(25)]
    looking = Looking(made(tmp_path, *names))
    for page in (1, 5, 24, 25, 26, 500):
        assert list(looking.names(KIND, page)) == names


def test_an_hourly_round_is_due_by_the_platforms_clock_wherever_that_was_set(tmp_path: Path) -> None:
    now = [1000]
    calls = made(tmp_path)
    calls.clock = lambda: now[0]
    looking = Looking(calls)
    looking.every = 100

    async def story() -> list[int]:
        looking.start()
        told = []
        for to in (1000, 1099, 1100, 1150, 500, 599, 600):
            now[0] = to
            for _ in range(20):
                await asyncio.sleep(0)
            told.append(looking.rounds)
        await looking.close()
        return told

    assert asyncio.run(story()) == [1, 1, 2, 2, 3, 3, 4]

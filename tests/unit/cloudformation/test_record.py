"""What is kept of stacks is found, however many there are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bastide.services.cloudformation import record
from bastide.store import Row, SqliteStore, Transaction


@pytest.mark.parametrize("at_a_time", [1, 2, 3, 500])
def test_all_stacks_that_are_there_are_gone_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    monkeypatch.setattr(record, "_AT_A_TIME", at_a_time)
    store = SqliteStore(tmp_path / "db")

    def work(tx: Transaction) -> None:
        for name in "abcde":
            tx.insert(Row(record.LIVE, "1", "r", name, {"id": f"u{name}"}), keep=False)
            if name != "c":  # whose stack is just going
                tx.insert(Row(record.STACK.key, "1", "r", f"{name}/u{name}", {}), keep=False)
        tx.insert(Row(record.LIVE, "2", "r", "z", {"id": "uz"}), keep=False)

    asyncio.run(store.write(work))
    with store.reading() as view:
        found = [one.name for one in record.living(view, "1", "r")]
    store.close()
    assert found == ["a/ua", "b/ub", "d/ud", "e/ue"]

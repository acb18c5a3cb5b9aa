"""What strangers send in numbers hides nothing of what an account has chosen."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from bastide.services.servicecatalog import paths
from bastide.store import Row, Transaction
from bastide.store.sqlite import SqliteStore


def test_portfolios_that_nobody_accepted_do_not_hide_the_one_that_somebody_did(tmp_path: Path) -> None:
    """Any account may offer a hundred portfolios to another one, and there are many accounts."""

    def fill(tx: Transaction) -> None:
        for number in range(250):
            offer = {"owner": "222222222222", "accepted": False}
            tx.insert(Row(paths.OFFER, "1", "r", f"port-{number:03d}", offer), keep=False)
        tx.insert(Row(paths.OFFER, "1", "r", "port-z", {"owner": "3", "accepted": True}), keep=False)
        tx.insert(Row(paths.SHARE, "3", "r", "port-z/ACCOUNT/1", {"type": "ACCOUNT"}), keep=False)

    async def story() -> Any:
        store = SqliteStore(tmp_path / "db")
        try:
            await store.write(fill)
            with store.reading() as view:
                return paths.imported(None, view, "1", "r")  # type: ignore[arg-type]
        finally:
            store.close()

    assert list(asyncio.run(story())) == ["port-z"]

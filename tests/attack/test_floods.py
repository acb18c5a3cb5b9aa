"""What strangers send in numbers hides nothing of what an account has chosen."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from bastide.engines.images.inventory import Inventory
from bastide.engines.images.layers import Unfit
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


def _layer(names: Iterable[str]) -> bytes:
    member, told = tarfile.TarInfo("x"), bytearray()
    for name in names:
        member.name = name
        told += member.tobuf()
    return bytes(told) + bytes(1024)


def test_what_a_scan_keeps_of_layers_is_bounded_and_found_without_looking_at_all_of_it() -> None:
    """A small layer can have as many packages' files as it likes, and take them away again as often."""
    names = [f"opt/x{number}.dist-info/METADATA" for number in range(300)]
    seen = Inventory()
    for layer, left in (
        (_layer([*names, *["opt/.wh..wh..opq", "opt/y"] * 300]), 300),
        (_layer(["opt/x0.dist-info/METADATA/z", "opt/.wh.x1.dist-info", "opt/x2.dist-info"]), 298),
        (_layer(["opt/.wh..wh..opq", names[5], "opt/.wh..wh..opq"]), 1),
    ):
        seen.put(io.BytesIO(layer), "tar", len(layer))
        assert len(seen._files) == left and seen._names == sorted(seen._files)
    flood = _layer(f"a/x{number}.dist-info/METADATA" for number in range(20_001))
    with pytest.raises(Unfit, match="larger than any"):
        Inventory().put(io.BytesIO(flood), "tar", len(flood))

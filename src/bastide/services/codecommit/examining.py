"""Looks through everything that is kept of repositories, for `bastide verify`."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Mapping

from bastide.domain import Refused
from bastide.engines.artifacts import Artifacts, Damaged
from bastide.engines.keys import RootKey
from bastide.services.codecommit import sealing
from bastide.services.codecommit.noun import PACK, by_id, rows_of
from bastide.store import Store, View

Unwrap = Callable[[View, bytes, Mapping[str, str]], bytes]


async def examine(
    store: Store, root: RootKey, artifacts: Artifacts, unwrap: Unwrap
) -> AsyncIterator[tuple[str, str, bool]]:
    """Of each pack its name, what is wrong with it, and whether it could not be opened, its key being gone.

    unwrap: the plaintext of KMS's ciphertext under a context, for who holds all keys; raises Refused.
    """
    del root  # every repository's key is KMS's
    with store.reading() as view:
        packs = rows_of(view, PACK, "", "", "")
    for pack in packs:
        id, _, file = pack.name.partition("/")
        with store.reading() as view:
            row = by_id(view, pack.doc["account"], pack.doc["region"], id)
            if row is None or view.get(PACK, "", "", pack.name) is None:
                continue  # deleted meanwhile, or gathered into another
            try:
                key = unwrap(view, base64.b64decode(row.doc["wrapped"]), sealing.context(id))
            except Refused:
                yield pack.name, "", True
                continue
        name, wrong, size = f"pack {file} of {row.account}/{row.region}/{row.name}", "", 0
        try:
            async for piece in artifacts.open(file, key):
                size += len(piece)
            wrong = "" if size == pack.doc["size"] else "it has another size"
        except FileNotFoundError:
            wrong = "its file is gone"
        except Damaged as error:
            wrong = f"its file is damaged: {error}"
        yield name, wrong, False

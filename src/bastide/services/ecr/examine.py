"""Every layer read and compared with its digest, beside the platform and asking nobody's permission."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from functools import partial

from bastide.engines.artifacts import Artifacts
from bastide.engines.artifacts.examining import examined
from bastide.engines.keys import RootKey
from bastide.services.ecr.repository import LAYER, REPOSITORY, holders, rows_of
from bastide.services.ecr.sealing import context_of, purpose
from bastide.store import Row, Store, View

Opened = Callable[[View, bytes, dict[str, str]], bytes]
"""What KMS makes of a ciphertext; raises Refused where the key's material is gone."""


async def examine(
    store: Store, root: RootKey, artifacts: Artifacts, opened: Opened
) -> AsyncIterator[tuple[str, str, bool]]:
    """Of each layer its name, what is wrong with it, and whether it could not be opened, its key being gone."""
    with store.reading() as view:
        where = holders(view)
        repositories = [row for a, r in where for row in view.scan(REPOSITORY.key, a, r, limit=1_000_000)]
    for repository in repositories:
        with store.reading() as view:
            rows = rows_of(view, LAYER, repository)
        for row in rows:
            name = f"layer {row.account}/{row.region}/{row.name}"
            key = partial(_key, store, root, opened, repository, row)
            wrong, locked = await examined(artifacts, row.doc["parts"], key, row.name.rpartition(":")[2])
            yield name, wrong, locked


def _key(store: Store, root: RootKey, opened: Opened, repository: Row, row: Row) -> bytes:
    blob = base64.b64decode(row.doc["key"])
    if repository.doc["encryptionConfiguration"]["encryptionType"] == "AES256":
        return root.unwrap(blob, purpose(repository))
    with store.reading() as view:
        return opened(view, blob, context_of(repository))

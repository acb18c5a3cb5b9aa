"""Every content of packages read and compared with its hash, beside the platform and asking nobody's permission."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from functools import partial

from bastide.engines.artifacts import Artifacts
from bastide.engines.artifacts.examining import examined
from bastide.engines.keys import RootKey
from bastide.services.codeartifact.noun import CONTENT, DOMAIN, HOLDER, rows_below
from bastide.services.codeartifact.sealing import context_of, purpose
from bastide.store import Row, Store, View

Opened = Callable[[View, bytes, dict[str, str]], bytes]
"""What KMS makes of a ciphertext; raises Refused where the key's material is gone."""


async def examine(
    store: Store, root: RootKey, artifacts: Artifacts, opened: Opened
) -> AsyncIterator[tuple[str, str, bool]]:
    """Of each content its name, what is wrong with it, and whether it could not be opened, its key being gone."""
    with store.reading() as view:
        holders = [row.name.partition("|") for row in view.scan(HOLDER, "", "", limit=1_000_000)]
        domains = [row for a, _, r in holders for row in view.scan(DOMAIN.key, a, r, limit=1_000_000)]
    for domain in domains:
        with store.reading() as view:
            rows = rows_below(view, CONTENT, domain, f"{domain.name}/")
        for row in rows:
            name = f"package content {row.account}/{row.region}/{row.name}"
            key = partial(_key, store, root, opened, domain, row)
            wrong, locked = await examined(artifacts, [row.doc["file"]], key, row.name.rpartition("/")[2])
            yield name, wrong, locked


def _key(store: Store, root: RootKey, opened: Opened, domain: Row, row: Row) -> bytes:
    blob = base64.b64decode(row.doc["key"])
    if not domain.doc["key"]:
        return root.unwrap(blob, purpose(domain))
    with store.reading() as view:
        return opened(view, blob, context_of(domain))

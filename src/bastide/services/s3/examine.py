"""Every stored byte read and compared with what authenticates it, beside the platform and asking nobody's permission."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidTag

from bastide.domain import Refused
from bastide.engines import keys as engine
from bastide.engines.artifacts import Artifacts, Damaged, unseal
from bastide.engines.keys import RootKey
from bastide.services.s3.asking import object_arn
from bastide.services.s3.bucket import BUCKET, NAME, key_for
from bastide.services.s3.encryption import CUSTOMER
from bastide.services.s3.reading import part_key
from bastide.services.s3.versions import MANIFEST, OBJECT, VERSION
from bastide.store import Row, Store, View

_PAGE: Final = 200
Opened = Callable[[View, bytes, dict[str, str]], bytes]
"""What KMS makes of a ciphertext; raises Refused where the key's material is gone."""


@dataclass(frozen=True, slots=True)
class Examined:
    """One version of an object. trouble: what is wrong with it, if anything is. locked: why its bytes were not opened, if
    they were not: the key is its customer's, or was destroyed."""

    name: str
    trouble: str = ""
    locked: str = ""


async def examine(store: Store, root: RootKey, artifacts: Artifacts, opened: Opened) -> AsyncIterator[Examined]:
    """Every version of every object. Raises what the store raises for rows that cannot be read."""
    after_bucket: str | None = None
    while True:
        with store.reading() as view:
            names = view.scan(NAME.key, "", "", after=after_bucket, limit=_PAGE)
        if not names:
            return
        for name in names:
            owner = (str(name.doc["Account"]), str(name.doc["Region"]))
            for kind in (OBJECT.key, VERSION.key):
                after: str | None = None
                while True:
                    with store.reading() as view:
                        rows = view.scan(kind, *owner, prefix=f"{name.name}/", after=after, limit=_PAGE)
                    if not rows:
                        break
                    for row in rows:
                        if not row.doc.get("dm"):
                            yield await _version(store, root, artifacts, opened, row)
                    after = rows[-1].name
        after_bucket = names[-1].name


async def _version(store: Store, root: RootKey, artifacts: Artifacts, opened: Opened, row: Row) -> Examined:
    bucket, _, rest = row.name.partition("/")
    key = rest.partition("\0")[0]
    doc = row.doc
    told = f"s3://{bucket}/{key}" + (f" version {doc['v']}" if doc.get("v") else "")
    if doc["sse"] == CUSTOMER:
        return Examined(told, locked="its key is its customer's")
    try:
        with store.reading() as view:
            # A row that went away meanwhile takes its bytes with it.
            if view.get(row.kind, row.account, row.region, row.name) is None:
                return Examined(told)
            try:
                data_key = _data_key(view, root, opened, row, bucket, key)
            except Refused as refused:
                return Examined(told, locked=refused.message)
            sealed = view.blob(doc["id"]) if doc.get("in") else None
            manifest = view.get(MANIFEST.key, row.account, row.region, doc["mf"]) if "mf" in doc else None
        if doc.get("in"):
            if sealed is None:
                return Examined(told, "its bytes are gone")
            size = len(unseal(doc["id"], sealed, data_key))
        elif "id" in doc:
            size = await _size(artifacts, doc["id"], data_key)
        else:
            if manifest is None:
                return Examined(told, "the list of its parts is gone")
            size = 0
            for part in manifest.doc["parts"]:
                size += await _size(artifacts, part["id"], part_key(data_key, base64.b64decode(part["k"])))
    except FileNotFoundError as error:
        with store.reading() as view:
            there = view.get(row.kind, row.account, row.region, row.name)
        if there is None or there.generation != row.generation:
            return Examined(told)  # deleted or replaced meanwhile
        return Examined(told, f"its file {error.filename} is gone")
    except (Damaged, Refused, OSError) as error:
        return Examined(told, str(error))
    return Examined(told, "" if size == doc["size"] else f"it has {size} bytes and not {doc['size']}")


async def _size(artifacts: Artifacts, id: str, data_key: bytes) -> int:
    return sum([len(piece) async for piece in artifacts.open(id, data_key)])


def _data_key(view: View, root: RootKey, opened: Opened, row: Row, bucket: str, key: str) -> bytes:
    doc: dict[str, Any] = row.doc
    blob = base64.b64decode(doc["k"])
    if doc["sse"] != "AES256":
        return opened(view, blob, doc["ctx"])
    held = BUCKET.find(view, row.account, "", bucket)
    try:
        own = root.unwrap(base64.b64decode(held.doc["Key"]), key_for(row.account, bucket))
    except (InvalidTag, ValueError):
        raise Damaged(f"the key of the bucket {bucket} is damaged") from None
    return engine.decrypt(own, blob, {"aws:s3:arn": object_arn(bucket, key)})

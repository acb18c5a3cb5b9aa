"""What time itself does to keys: their day of deletion comes, imported material expires, material is rotated.

The row changes first, the shard is destroyed once that is on the disk; if the platform dies between the two, the next start
destroys it (`Safe.sweep`). Nothing decides by what the keeper has done so far: a key whose day has come is gone for every
call at once.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import MICROS, Instant
from bastide.engines import keys as engine
from bastide.engines.keys import RootKey, Safe, specs
from bastide.engines.keys.specs import SYMMETRIC
from bastide.kernel import Calls, Rounds
from bastide.services.kms import alias, grant, rotation
from bastide.services.kms.noun import (
    DUE,
    KEY,
    SHARD,
    drop_material,
    due,
    find,
    is_expired,
    keep_material,
    locate,
    told,
    unwrapped,
)  # fmt: skip
from bastide.store import Row, SqliteStore, Transaction, View

_INTERVAL_SECONDS: Final = 5.0
_LATER: Final = 3600 * MICROS


class Keeper(Rounds):
    """The loop that does it."""

    seconds = _INTERVAL_SECONDS

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls)
        self._safe = calls.engine(Safe)
        self._root = calls.engine(RootKey)

    async def settle(self) -> None:
        """Before anything else runs: does what became due while nothing ran, destroys the shards of keys that are gone."""
        await self.round()
        with self._calls.store.reading() as view:
            self._safe.sweep(lambda shard: view.get(SHARD, "", "", shard) is not None)

    async def round(self) -> None:
        """Everything that is due now."""
        now = self._calls.clock()
        while True:
            with self._calls.store.reading() as view:
                found = [row for row in view.scan(DUE, "", "", limit=100) if int(row.name.partition("|")[0]) <= now]
            if not found:
                return
            for one in found:
                shards = await self._calls.store.write(lambda tx, one=one: self._settle(tx, one, now))  # type: ignore[misc]
                for shard in shards:
                    await asyncio.to_thread(self._safe.destroy, shard)
                if shards:
                    specs.forget()

    def _settle(self, tx: Transaction, entry: Row, now: Instant) -> list[str]:
        held = tx.get(DUE, "", "", entry.name)
        if held is not None:
            tx.delete(held, keep=False)
        _, what, account, region, name = entry.name.split("|")
        row = tx.get(KEY.key, account, region, name)
        if row is None:
            return []
        if what == "delete":
            return _delete(tx, row, now)
        if what == "expire":
            return _expire(tx, row, now)
        self._rotate(tx, row, now)
        return []

    def _rotate(self, tx: Transaction, row: Row, now: Instant) -> None:
        told = row.doc.get("Rotation")
        if told is None or told["next"] > now:
            return
        if row.status != "Enabled":
            due(tx, now + _LATER, "rotate", row)  # a key that cannot be used is rotated once it can
            return
        rotation.rotate(self._safe, self._root, tx, row, "AUTOMATIC", now)
        period = told["days"] * rotation.DAY
        told["next"] += period * ((now - told["next"]) // period + 1)  # what was missed is made up for once
        due(tx, told["next"], "rotate", row)
        KEY.change(tx, row, "RotateKey")


def _delete(tx: Transaction, row: Row, now: Instant) -> list[str]:
    if row.status != "PendingDeletion" or row.doc["DeletionDate"] > now:
        return []  # taken back meanwhile
    shards = [shard for one in row.doc["Materials"] for shard in drop_material(tx, one)]
    grant.end_all(tx, row)
    alias.end_all(tx, row)
    KEY.remove(tx, row, "DeleteKey")
    told(tx, row, "KMS CMK Deletion")
    return shards


def _expire(tx: Transaction, row: Row, now: Instant) -> list[str]:
    if not is_expired(row, now):
        return []
    shards = [shard for one in row.doc["Materials"] for shard in drop_material(tx, one)]
    if row.status != "PendingDeletion":
        row.status = "PendingImport"
    row.doc.pop("ValidTo", None)
    row.doc.pop("ExpirationModel", None)
    KEY.change(tx, row, "DeleteExpiredKeyMaterial")
    told(tx, row, "KMS Imported Key Material Expiration")
    return shards


def migrate(store: SqliteStore, safe: Safe, root: RootKey) -> None:
    """Puts keys of before there was a safe under shards, and takes their material, wrapped by the root key alone, out of
    every place where the database keeps it. Backups of that time keep it: see docs/decisions/0009."""

    def change(tx: Transaction, account: str, region: str, name: str, doc: dict[str, Any]) -> dict[str, Any] | None:
        if "Material" not in doc:
            return None
        wrapped = base64.b64decode(doc.pop("Material"))
        row = tx.get(KEY.key, account, region, name)
        if row is not None:  # history of what is gone keeps what happened, not the material
            if row.status == "PendingDeletion":
                due(tx, row.doc["DeletionDate"], "delete", row)
            arn = KEY.arn(account, region, name)
            if arn not in held:
                held[arn] = keep_material(safe, root, tx, arn, root.unwrap(wrapped, arn.encode()))
            doc["Materials"] = [held[arn]]
        return {"Spec": SYMMETRIC, "Usage": "ENCRYPT_DECRYPT", "Origin": "AWS_KMS", "Materials": []} | doc

    held: dict[str, dict[str, Any]] = {}
    store.rewrite(KEY.key, "kms:safe", change)


def opened(root: RootKey, safe: Safe, view: View, blob: bytes, context: Mapping[str, str]) -> bytes:
    """The plaintext of a ciphertext of a symmetric key, whatever the key's state, for who holds the root key and the safe.
    Raises Refused for a key or a material that is gone, and for a ciphertext that was changed."""
    arn, version = engine.key_of(blob)
    row = find(view, *locate(view, arn, "", ""))
    return engine.decrypt(unwrapped(root, safe, row, version), blob, context)

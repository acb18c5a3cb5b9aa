"""Rows of objects: the current version of each key, the older ones behind it, and what becomes of both.

The current version is a row of the kind Object named ``bucket/key``; older ones are rows of the kind ObjectVersion named
``bucket/key``, NUL and the complement of a sequence number, so that a walk along the names meets the newest first. A
version id holds its sequence number, so that every version is found by its id at once.

Source: S3 User Guide, "How S3 Versioning works", "Working with objects in a versioning-suspended bucket".
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass, field
from typing import Any, Final

from bastide.domain import Instant, Refused
from bastide.kernel import Kind
from bastide.services.s3 import lock
from bastide.services.s3.bucket import Bucket, set_tagged
from bastide.store import Row, Transaction, View

OBJECT = Kind("Object", service="s3", arn="object/{}", tags=False, history=False)
VERSION = Kind("ObjectVersion", service="s3", arn="version/{}", tags=False, history=False)
MANIFEST = Kind("Manifest", service="s3", arn="manifest/{}", tags=False, history=False)
"""The parts of an object that was uploaded in parts."""

NULL: Final = "null"
_TOP: Final = 10**20 - 1
_MOST_KEY_BYTES: Final = 1024


@dataclass(slots=True)
class Garbage:
    """Files that nobody names any more; they go when the transaction is on the disk."""

    ids: list[str] = field(default_factory=list)


def check_key(key: str) -> None:
    """Raises KeyTooLongError and InvalidArgument for what no object may be called; everything else may be, also
    ``a//b`` and ``../x``."""
    size = len(key) if key.isascii() else len(key.encode("utf-8", "surrogatepass"))
    if size > _MOST_KEY_BYTES:
        raise Refused(
            "KeyTooLongError",
            "Your key is too long",
            400,
            members={"Size": size, "MaxSizeAllowed": _MOST_KEY_BYTES},
        )
    if "\0" in key or "\U0010ffff" in key:
        raise Refused("InvalidArgument", "Object keys hold neither NUL nor the noncharacter U+10FFFF.", 400)


def name_of(bucket: str, key: str) -> str:
    """The name of an object's row."""
    return f"{bucket}/{key}"


def version_name(bucket: str, key: str, sequence: int) -> str:
    """The name of an older version's row."""
    return f"{bucket}/{key}\0{_TOP - sequence:020d}"


def _new_id(sequence: int) -> str:
    return base64.urlsafe_b64encode(sequence.to_bytes(8, "big") + os.urandom(16)).decode()


def sequence_of(id: str, argument: str = "versionId") -> int:
    """The sequence number in a version id; raises InvalidArgument, naming the argument, for what is none."""
    try:
        raw = base64.b64decode(id, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 24:
        raise Refused(
            "InvalidArgument",
            "Invalid version id specified",
            400,
            members={"ArgumentName": argument, "ArgumentValue": id[:1024]},
        )
    return int.from_bytes(raw[:8], "big")


def current(view: View, bucket: Bucket, key: str) -> Row | None:
    """The current version, a delete marker too; None if the key has no version."""
    return view.get(OBJECT.key, bucket.account, bucket.region, name_of(bucket.name, key))


def version(view: View, bucket: Bucket, key: str, id: str, now: Row | None) -> Row | None:
    """A version by its id; `now` is the key's current version."""
    if id != NULL:
        sequence = sequence_of(id)
    if now is None:
        return None
    if now.doc["v"] == id:
        return now
    if id == NULL:
        held = now.doc.get("nv")
        if held is None:
            return None
        sequence = held
    row = view.get(VERSION.key, bucket.account, bucket.region, version_name(bucket.name, key, sequence))
    return row if row is not None and row.doc["v"] == id else None


def release(
    tx: Transaction, bucket: Bucket, doc: dict[str, Any], now: Instant, garbage: Garbage, *, bypass: bool = False
) -> None:
    """Gives up a version's bytes; raises AccessDenied if it is locked. bypass: retention in governance mode."""
    lock.refuse_locked(doc, now, bypass=bypass)
    if doc.get("in"):
        tx.drop_blob(doc["id"])
    elif "id" in doc:
        garbage.ids.append(doc["id"])
    elif "mf" in doc:
        row = tx.get(MANIFEST.key, bucket.account, bucket.region, doc["mf"])
        if row is not None:
            garbage.ids += [part["id"] for part in row.doc["parts"]]
            tx.delete(row, keep=False)


def _drop(tx: Transaction, bucket: Bucket, row: Row, now: Instant, garbage: Garbage, *, bypass: bool = False) -> None:
    release(tx, bucket, row.doc, now, garbage, bypass=bypass)
    tx.delete(row, keep=False)


def _set_aside(tx: Transaction, bucket: Bucket, key: str, row: Row, now: Instant) -> int | None:
    """Makes the current version an older one; returns the sequence of the null version among the older ones."""
    doc = dict(row.doc)
    null = doc.pop("nv", None)
    doc["since"] = now  # when it ceased to be current, which lifecycle rules count from
    older = Row(
        VERSION.key, bucket.account, bucket.region, version_name(bucket.name, key, doc["n"]), doc, tags=row.tags
    )
    tx.insert(older, keep=False)
    sequence: int | None = doc["n"] if doc["v"] == NULL else null
    return sequence


def place(
    tx: Transaction, bucket: Bucket, key: str, doc: dict[str, Any], tags: dict[str, str], now: Instant, garbage: Garbage
) -> str | None:
    """Makes `doc` the key's current version as the bucket's versioning says; returns the version id that answers name
    (None unless the bucket makes versions: a null version is not named)."""
    lock.settle(bucket, doc, now)
    row = current(tx, bucket, key)
    doc["t"] = now
    sequence = now if row is None else max(now, row.doc["n"] + 1)
    doc["n"] = sequence
    if bucket.versioning == "Enabled":
        doc["v"] = _new_id(sequence)
    else:
        doc["v"] = NULL
    if row is not None:
        null = row.doc.get("nv")
        if bucket.versioning == "Enabled" or (bucket.versioning and row.doc["v"] != NULL):
            null = _set_aside(tx, bucket, key, row, now)
        else:
            release(tx, bucket, row.doc, now, garbage)
        if null is not None and doc["v"] == NULL:
            older = tx.get(VERSION.key, bucket.account, bucket.region, version_name(bucket.name, key, null))
            if older is not None:
                _drop(tx, bucket, older, now, garbage)
            null = None
        if null is not None:
            doc["nv"] = null
        row.doc, row.tags = doc, tags
        tx.update(row, keep=False)
    else:
        tx.insert(Row(OBJECT.key, bucket.account, bucket.region, name_of(bucket.name, key), doc, tags=tags), keep=False)
    if tags:
        set_tagged(tx, bucket)
    return doc["v"] if bucket.versioning == "Enabled" else None


def remove(
    tx: Transaction,
    bucket: Bucket,
    key: str,
    id: str | None,
    now: Instant,
    garbage: Garbage,
    *,
    bypass: bool = False,
) -> tuple[bool | None, str | None]:
    """Deletes a key or a version; returns whether a delete marker was made or removed, and the version id answered.

    Raises AccessDenied for a version that is locked. bypass: the caller may pass over retention in governance mode.
    """
    row = current(tx, bucket, key)
    if id is None:
        if not bucket.versioning:
            if row is not None:
                _drop(tx, bucket, row, now, garbage)
            return None, None
        made = {"dm": True}
        place(tx, bucket, key, made, {}, now, garbage)
        return True, str(made["v"])
    found = version(tx, bucket, key, id, row)
    if found is None or row is None:
        return None, id
    marker = True if found.doc.get("dm") else None
    if found is not row:
        _drop(tx, bucket, found, now, garbage, bypass=bypass)
        if id == NULL:
            row.doc.pop("nv", None)
            tx.update(row, keep=False)
        return marker, id
    older = tx.scan(VERSION.key, bucket.account, bucket.region, prefix=f"{name_of(bucket.name, key)}\0", limit=1)
    if not older:
        _drop(tx, bucket, row, now, garbage, bypass=bypass)
        return marker, id
    # The newest of the older ones becomes the current one.
    release(tx, bucket, row.doc, now, garbage, bypass=bypass)
    null = row.doc.get("nv")
    doc = older[0].doc
    doc.pop("since", None)
    if null is not None and doc["v"] != NULL:
        doc["nv"] = null
    tx.delete(older[0], keep=False)
    row.doc, row.tags = doc, older[0].tags
    tx.update(row, keep=False)
    return marker, id

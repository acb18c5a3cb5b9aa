"""Objects: what is asked about them, and how they are put.

An upload is written to a file of its own, under a key of its own, before the transaction that gives it its name; what it
replaces is removed when that is on the disk. Source: S3 API Reference, PutObject.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.artifacts import Artifacts, Written, seal
from bastide.kernel import Ask, Asked, Authorised, Bytes, Output, fills
from bastide.kernel.context import tag_keys
from bastide.services.s3 import encryption, heads, lifecycle, lock, notification
from bastide.services.s3.asking import EVERY, Keys, keys_for, object_asked
from bastide.services.s3.at_rest import kept, write
from bastide.services.s3.bucket import Bucket, bucket_of, lookup
from bastide.services.s3.versions import OBJECT, Garbage, check_key, current, place, version
from bastide.store import Event, Row, Transaction, View

SMALL: Final = 64 * 1024
"""Uploads up to this size are gathered before they are written."""
INLINE: Final = 16 * 1024
"""Uploads up to this size are kept in the store, encrypted like any other: one sync names and keeps them."""


@dataclass(slots=True)
class Staged:
    """What an upload has come to before its transaction.

    doc: of the new version. asked: records of the calls that were made for it. placed: its transaction has been run.
    """

    doc: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    written: Written | None = None
    sealed: bytes | None = None
    asked: list[Event] = field(default_factory=list)
    garbage: Garbage = field(default_factory=Garbage)
    placed: Callable[[View], bool] | None = None
    more: Any = None


# -- questions ---------------------------------------------------------------------------------------------------------


def found_row(asked: Asked) -> tuple[Bucket, Row] | None:
    """The version that a call names."""
    given = asked.call.input
    bucket = lookup(asked.view, given["Bucket"])
    if bucket is None:
        return None
    row = current(asked.view, bucket, given["Key"])
    id = given.get("VersionId")
    if id:
        with contextlib.suppress(Refused):
            row = version(asked.view, bucket, given["Key"], id, row)
    return (bucket, row) if row is not None else None


def _existing(asked: Asked) -> Keys:
    bucket = lookup(asked.view, asked.call.input["Bucket"])
    found = keys_for(asked, bucket)
    if bucket is not None and bucket.tagged:
        there = found_row(asked)
        if there is not None:
            found.update(tag_keys("s3:existingobjecttag/", there[1].tags.items()))
    return found


def _version_named(asked: Asked, found: Keys) -> Keys:
    found["s3:versionid"] = str(asked.call.input["VersionId"])
    return found


EXISTING_TAGS: Final = "s3:ExistingObjectTag/${key}"
REQUEST_TAGS: Final = ("s3:RequestObjectTag/${key}", "s3:RequestObjectTagKeys")

existing: Final = fills(*EVERY, EXISTING_TAGS)(_existing)
"""Condition keys of a question about an object that may be there: of its current version."""


@fills(*existing.names, "s3:versionid")
def existing_version(asked: Asked) -> Keys:
    """The same of a version that the call names."""
    return _version_named(asked, _existing(asked))


@fills(*EVERY, "s3:if-match")
def _removing(asked: Asked) -> Keys:
    found = keys_for(asked, lookup(asked.view, asked.call.input["Bucket"]))
    if asked.call.input.get("IfMatch"):
        found["s3:if-match"] = str(asked.call.input["IfMatch"])
    return found


@fills(*EVERY, "s3:versionid")
def _removing_version(asked: Asked) -> Keys:
    return _version_named(asked, keys_for(asked, lookup(asked.view, asked.call.input["Bucket"])))


def bypassing(asked: Asked) -> bool:
    """Whether a call says that it passes over retention, and the version that it names is held in governance mode: only
    then is a permission needed, as clients send the header with every deletion."""
    if not asked.input.get("BypassGovernanceRetention"):
        return False
    there = found_row(asked)
    return there is not None and lock.retained(there[1].doc, asked.call.request.at) == lock.GOVERNANCE


def bypassed(a: Authorised) -> bool:
    """Whether the caller was asked for, and has, the permission to pass over retention in governance mode."""
    return any(one.action == lock.BYPASS for one in a.questions)


ENCRYPTED: Final = (
    ("ServerSideEncryption", "s3:x-amz-server-side-encryption"),
    ("SSEKMSKeyId", "s3:x-amz-server-side-encryption-aws-kms-key-id"),
)
CUSTOMER: Final = ("SSECustomerAlgorithm", "s3:x-amz-server-side-encryption-customer-algorithm")
CONDITIONS: Final = (("IfMatch", "s3:if-match"), ("IfNoneMatch", "s3:if-none-match"))
_GIVEN: Final = (
    *ENCRYPTED,
    CUSTOMER,
    ("ACL", "s3:x-amz-acl"),
    ("GrantFullControl", "s3:x-amz-grant-full-control"),
    ("GrantRead", "s3:x-amz-grant-read"),
    ("GrantReadACP", "s3:x-amz-grant-read-acp"),
    ("GrantWriteACP", "s3:x-amz-grant-write-acp"),
    ("ObjectLockLegalHoldStatus", "s3:object-lock-legal-hold"),
    ("ObjectLockMode", "s3:object-lock-mode"),
    ("StorageClass", "s3:x-amz-storage-class"),
    ("WebsiteRedirectLocation", "s3:x-amz-website-redirect-location"),
)
CREATES: Final = "s3:ObjectCreationOperation"
"""Whether the operation makes an object; to begin an upload and to send its parts does not yet (S3 User Guide, "Enforce
conditional writes on Amazon S3 buckets")."""


def given_keys(asked: Asked, table: Iterable[tuple[str, str]], found: Keys) -> Keys:
    """Adds the keys of those members of the input that `table` names."""
    given = asked.call.input
    for member, key in table:
        value = given.get(member)
        if value:
            found[key] = str(value)
    return found


def writing_keys(asked: Asked, creates: bool) -> Keys:
    """What the request says of an object that is to be written."""
    given = asked.call.input
    found = keys_for(asked, lookup(asked.view, given["Bucket"]))
    given_keys(asked, _GIVEN, found)
    lock.retention_keys(None, given.get("ObjectLockRetainUntilDate"), asked.call.request.at, found)
    if given.get("Tagging"):
        found.update(_request_tags(given["Tagging"]))
    found[CREATES.lower()] = "true" if creates else "false"
    return found


BEGINNING: Final = (*EVERY, *(key for _, key in _GIVEN), *lock.RETAINED, *REQUEST_TAGS, CREATES)
WRITING: Final = (*BEGINNING, *(key for _, key in CONDITIONS))


@fills(*WRITING)
def writing(asked: Asked) -> Keys:
    """Condition keys of a question about an object that is to be written."""
    return given_keys(asked, CONDITIONS, writing_keys(asked, True))


@fills(*EVERY, EXISTING_TAGS, *REQUEST_TAGS)
def tags_brought(asked: Asked) -> Keys:
    """Condition keys of a question about tags that come with a new object."""
    given = asked.call.input
    bucket = lookup(asked.view, given["Bucket"])
    found = keys_for(asked, bucket)
    if given.get("Tagging"):
        found.update(_request_tags(given["Tagging"]))
    if bucket is not None and bucket.tagged:
        row = current(asked.view, bucket, given["Key"])
        if row is not None:
            found.update(tag_keys("s3:existingobjecttag/", row.tags.items()))
    return found


def _request_tags(text: Any) -> Keys:
    if isinstance(text, Mapping):
        tags = {str(tag["Key"]): str(tag["Value"]) for tag in text.get("TagSet") or ()}
    else:
        try:
            tags = heads.header_tags(str(text))
        except Refused:
            return {}
    found: Keys = {**tag_keys("s3:requestobjecttag/", tags.items())}
    found["s3:requestobjecttagkeys"] = tuple(tags)
    return found


def tagging(asked: Asked) -> bool:
    """Whether a call brings tags in a header."""
    return bool(asked.call.input.get("Tagging"))


LOCKING: Final = (
    Ask("s3:PutObjectRetention", object_asked, more=lock.retaining, when=lock.brings_retention),
    Ask("s3:PutObjectLegalHold", object_asked, more=lock.holding, when=lock.brings_hold),
)
"""Questions about the lock that a new object is to have from the first (S3 User Guide, "Required permissions for Amazon S3
API operations", "Managing Object Lock policies")."""


# -- writing -----------------------------------------------------------------------------------------------------------


async def write_body(a: Authorised, data_key: bytes, digest: str) -> Written:
    """Streams the call's body into a file under `data_key`; on the disk when this returns.

    digest: see `Artifacts.write`."""
    body = a.call.body
    if body is None:
        body = Bytes(a.input.get("Body") or b"")
    length = body.length
    if length is not None and length <= SMALL:
        pieces = [piece async for piece in body.chunks()]
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if len(data) <= SMALL:
            with kept():
                return await a.engine(Artifacts).write_small(data, data_key, digest=digest)
        return await write(a, Bytes(data).chunks(), data_key, digest)
    return await write(a, body.chunks(), data_key, digest)


def digest_for(sse: str) -> str:
    """The digest that an object's ETag is made of, if one is."""
    return "md5" if sse == "AES256" else ""


def etag_of(sse: str, md5: str) -> str:
    """An ETag: the MD5, but for objects under KMS, of which nobody is to learn a digest (S3 API Reference, Object)."""
    return md5 if sse == "AES256" else secrets.token_hex(16)


async def _stage_put(a: Authorised) -> Staged:
    given = a.input
    key = given["Key"]
    check_key(key)
    staged = Staged(heads.described(given, a.now), heads.header_tags(given.get("Tagging")))
    mark = len(a.events)
    with a.calls.store.reading() as view:
        bucket = bucket_of(a, view)
        lock.check(bucket, staged.doc)
        _check_write(given, view, bucket, key)
    data_key, kept = encryption.new_key(a, bucket, key, encryption.wanted(a, bucket))
    staged.asked = a.events[mark:]
    doc = staged.doc
    doc.update(kept)
    body = a.call.body
    if body is not None and body.length is not None and body.length <= INLINE:
        data = b"".join([piece async for piece in body.chunks()])
        written, staged.sealed = seal(data, data_key, digest=digest_for(doc["sse"]))
        doc["in"] = True
    else:
        written = staged.written = await write_body(a, data_key, digest_for(doc["sse"]))
    doc["id"] = written.id
    doc["size"] = written.size
    doc["etag"] = etag_of(doc["sse"], written.digest)
    sums = a.call.body.checksums() if a.call.body is not None else None
    if sums:
        doc["sums"] = dict(sums)
    return staged


def _check_write(given: Mapping[str, Any], view: View, bucket: Bucket, key: str) -> None:
    if given.get("IfMatch") is None and given.get("IfNoneMatch") is None:
        return
    row = current(view, bucket, key)
    heads.check_write(given, None if row is None or row.doc.get("dm") else row.doc, key)


async def undo(a: Authorised) -> None:
    """Removes the file of an upload whose transaction did not come to be."""
    staged = a.staged
    if not isinstance(staged, Staged) or staged.written is None:
        return
    placed = staged.placed
    # Whoever was cancelled while the disk was waited for does not know how it ended; a later transaction does.
    if placed is not None and await a.calls.store.write(placed):
        return
    await a.engine(Artifacts).delete(staged.written.id)


async def clear(a: Authorised, output: Output) -> Output:
    """Removes the files that nobody names any more."""
    ids = a.staged.garbage.ids
    if ids:
        artifacts = a.engine(Artifacts)
        for id in ids:
            await artifacts.delete(id)
    return output


async def stage_nothing(a: Authorised) -> Staged:
    """For an operation whose files go after its transaction."""
    return Staged()


def is_current(bucket: Bucket, key: str, id: str) -> Callable[[View], bool]:
    """Whether some version of a key has the file `id`."""

    def look(view: View) -> bool:
        row = current(view, bucket, key)
        if row is None:
            return False
        if row.doc.get("id") == id:
            return True
        older = view.scan(
            "s3:ObjectVersion", bucket.account, bucket.region, prefix=f"{bucket.name}/{key}\0", limit=1000
        )
        return any(one.doc.get("id") == id for one in older)

    return look


@OBJECT.operation(
    "PutObject",
    asks=[
        Ask("s3:PutObject", object_asked, more=writing),
        Ask("s3:PutObjectTagging", object_asked, more=tags_brought, when=tagging),
        *LOCKING,
    ],
    data=True,
    before=_stage_put,
    after=clear,
    undo=undo,
)
def put(a: Authorised, tx: Transaction) -> Output:
    staged: Staged = a.staged
    a.events += staged.asked
    given = a.input
    key = given["Key"]
    bucket = bucket_of(a, tx)
    _check_write(given, tx, bucket, key)
    doc = staged.doc
    if (
        (doc.get("lock") or bucket.lock)
        and a.request.signed in ("header", "query")
        and not (given.get("ContentMD5") or doc.get("sums"))
    ):
        raise Refused(
            "InvalidRequest",
            "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters",
            400,
        )
    staged.placed = is_current(bucket, key, doc["id"])
    if staged.sealed is not None:
        tx.put_blob(doc["id"], staged.sealed)
    id = place(tx, bucket, key, doc, staged.tags, a.now, staged.garbage)
    event = "ObjectCreated:Post" if a.request.signed == "form" else "ObjectCreated:Put"
    notification.happened(a, tx, bucket, event, key, doc, id)
    output: Output = {
        "ETag": f'"{doc["etag"]}"',
        **encryption.shown(doc),
        **lifecycle.shown(bucket, key, staged.tags, doc),
    }
    if doc.get("sums"):
        output.update(heads.checksums(doc))
    if id is not None:
        output["VersionId"] = id
    return output

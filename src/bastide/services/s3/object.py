"""Objects: put, got, deleted.

An upload is written to a file of its own, under a key of its own, before the transaction that gives it its name; what it
replaces is removed when that is on the disk. Source: S3 API Reference, PutObject, GetObject, HeadObject, DeleteObject,
DeleteObjects.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import keys as engine
from bastide.engines.artifacts import Artifacts, Damaged, Written, seal, unseal
from bastide.kernel import Ask, Asked, Authorised, Bytes, Call, Output, fills
from bastide.kernel.authorise import authorise
from bastide.kernel.context import tag_keys
from bastide.services.s3 import encryption, heads, lifecycle, lock, notification
from bastide.services.s3.asking import EVERY, Keys, given_version, keys, keys_for, no_version, object_asked
from bastide.services.s3.at_rest import kept, read, write
from bastide.services.s3.bucket import Bucket, bucket_of, lookup
from bastide.services.s3.versions import MANIFEST, OBJECT, Garbage, check_key, current, place, remove, version
from bastide.store import Event, Row, Transaction, View

SMALL: Final = 64 * 1024
"""Uploads up to this size are gathered before they are written."""
INLINE: Final = 16 * 1024
"""Uploads up to this size are kept in the store, encrypted like any other: one sync names and keeps them."""
_MOST_DELETED: Final = 1000
_MOST_PARTS: Final = 1000
"""On a page of GetObjectAttributes."""


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


async def write_body(a: Authorised, data_key: bytes) -> Written:
    """Streams the call's body into a file under `data_key`; on the disk when this returns."""
    body = a.call.body
    if body is None:
        body = Bytes(a.input.get("Body") or b"")
    length = body.length
    if length is not None and length <= SMALL:
        pieces = [piece async for piece in body.chunks()]
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if len(data) <= SMALL:
            with kept():
                return await a.engine(Artifacts).write_small(data, data_key)
        return await write(a, Bytes(data).chunks(), data_key)
    return await write(a, body.chunks(), data_key)


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
        written, staged.sealed = seal(data, data_key)
        doc["in"] = True
    else:
        written = staged.written = await write_body(a, data_key)
    doc["id"] = written.id
    doc["size"] = written.size
    doc["etag"] = etag_of(doc["sse"], written.md5)
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


# -- reading -----------------------------------------------------------------------------------------------------------


def no_such_key(a: Authorised, view: View, bucket: Bucket, key: str, *, marker: str | None = None) -> Refused:
    """What is said of a key that has no object: that there is none, to those who may list the bucket; to others that
    they may not (S3 API Reference, GetObject, "Permissions")."""
    listing = a.calls.registry.operations["s3", "HeadBucket"]
    try:
        authorise(a.calls, view, Call(listing, {"Bucket": bucket.name}, a.caller, a.account, a.region, a.request))
    except Refused as refused:
        return Refused("AccessDenied", refused.message, 403, kept={"questions": list(a.questions)})
    sent = [("x-amz-delete-marker", "true"), ("x-amz-version-id", marker)] if marker else []
    return Refused("NoSuchKey", "The specified key does not exist.", 404, members={"Key": key}, kept={"headers": sent})


def find_version(a: Authorised, view: View, bucket: Bucket, key: str, id: str | None) -> Row:
    """The version that is asked for; raises NoSuchKey, NoSuchVersion, MethodNotAllowed, or AccessDenied for those who may
    not know."""
    row = current(view, bucket, key)
    if not id:
        if row is None:
            raise no_such_key(a, view, bucket, key)
        if row.doc.get("dm"):
            raise no_such_key(a, view, bucket, key, marker=row.doc["v"])
        return row
    found = version(view, bucket, key, id, row)
    if found is None:
        refused = no_such_key(a, view, bucket, key)
        if refused.code == "NoSuchKey":
            raise Refused(
                "NoSuchVersion",
                "The specified version does not exist.",
                404,
                members={"Key": key, "VersionId": id},
            )
        raise refused
    if found.doc.get("dm"):
        raise Refused(
            "MethodNotAllowed",
            "The specified method is not allowed against this resource.",
            405,
            members={"Method": "GET", "ResourceType": "DeleteMarker"},
            kept={"headers": [("x-amz-delete-marker", "true"), ("x-amz-version-id", id), ("allow", "DELETE")]},
        )
    return found


def _read(a: Authorised, view: View) -> tuple[Bucket, Row, Output, tuple[int, int] | None]:
    given = a.input
    heads.refuse_unsupported(given)
    instead = heads.chosen(given, anonymous=a.caller.kind == "Anonymous")
    bucket = bucket_of(a, view)
    row = find_version(a, view, bucket, given["Key"], given.get("VersionId"))
    doc = row.doc
    heads.check_read(given, doc)
    output = heads.shown(doc, row.tags, bucket)
    if "lock" in doc:
        output.update(
            lock.shown(doc, retention=_may(a, view, "GetObjectRetention"), hold=_may(a, view, "GetObjectLegalHold"))
        )
    if row.kind == OBJECT.key:
        output.update(lifecycle.shown(bucket, given["Key"], row.tags, doc))
    if instead:
        output.update(instead)
    size = doc["size"]
    sums = doc
    if given.get("PartNumber") is not None:
        span, sums = _part(view, bucket, doc, given, output)
    else:
        span = heads.span(given.get("Range"), size)
    if given.get("ChecksumMode") == "ENABLED" and "sums" in sums and (span is None or sums is not doc):
        output.update(heads.checksums(sums))
    if span is None:
        output["ContentLength"] = size
    else:
        output["ContentLength"] = span[1] - span[0]
        output["ContentRange"] = f"bytes {span[0]}-{span[1] - 1}/{size}"
    return bucket, row, output, span


def _may(a: Authorised, view: View, operation: str) -> bool:
    """Whether the caller may ask another operation about the same version."""
    given = {name: a.input[name] for name in ("Bucket", "Key", "VersionId") if a.input.get(name)}
    single = a.calls.registry.operations["s3", operation]
    try:
        authorise(a.calls, view, Call(single, given, a.caller, a.account, a.region, a.request))
    except Refused:
        return False
    return True


def _parts_of(view: View, bucket: Bucket, doc: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts that an object was uploaded in; none if it came in one piece."""
    row = view.get(MANIFEST.key, bucket.account, bucket.region, doc["mf"]) if "mf" in doc else None
    return list(row.doc["parts"]) if row is not None else []


def _part(
    view: View, bucket: Bucket, doc: dict[str, Any], given: Mapping[str, Any], output: Output
) -> tuple[tuple[int, int] | None, dict[str, Any]]:
    """The bytes of the part that is asked for, None for all of an object without any, and what has their checksums; adds
    how many parts there are. An object that came in one piece is its own part 1. Raises InvalidRequest, InvalidPart.
    """
    if given.get("Range"):
        raise Refused("InvalidRequest", "Cannot specify both Range header and partNumber query parameter", 400)
    number = int(given["PartNumber"])
    parts = _parts_of(view, bucket, doc)
    numbers = [int(part.get("n", at)) for at, part in enumerate(parts, 1)] or [1]
    if number not in numbers:
        raise Refused("InvalidPart", "The requested partnumber is not satisfiable", 400, members={"PartNumber": number})
    if not parts:
        return ((0, doc["size"]) if doc["size"] else None), doc
    output["PartsCount"] = len(parts)
    at = numbers.index(number)
    start = sum(part["size"] for part in parts[:at])
    part = parts[at]
    end = start + part["size"]
    sums = {"sums": part["sums"], "sumtype": doc.get("sumtype", "FULL_OBJECT")} if part.get("sums") else {}
    return ((start, end) if end > start else None), sums


def content(
    a: Authorised,
    view: View,
    bucket: Bucket,
    key: str,
    doc: dict[str, Any],
    span: tuple[int, int] | None,
    prefix: str = "",
) -> AsyncIterator[bytes]:
    """An object's bytes, or those of a range; raises Refused if the caller may not use the key.

    prefix: "CopySource" if the object is a copy's source.
    """
    data_key = encryption.open_key(a, view, bucket, key, doc, prefix)
    artifacts = a.engine(Artifacts)
    if "id" in doc:
        start, end = (0, None) if span is None else span
        if doc.get("in"):
            sealed = view.blob(doc["id"])
            if sealed is None:
                raise Damaged(f"artifact {doc['id']} is gone")
            return _whole(unseal(doc["id"], sealed, data_key, start, end))
        return read(artifacts, doc["id"], data_key, start, end)
    row = view.get(MANIFEST.key, bucket.account, bucket.region, doc["mf"])
    parts = row.doc["parts"] if row is not None else []
    return _joined(artifacts, data_key, parts, *(span or (0, doc["size"])))


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


def part_key(data_key: bytes, blob: bytes) -> bytes:
    """The key of one part, which is wrapped by the key of its object."""
    return engine.decrypt(data_key, blob, {})


async def _joined(
    artifacts: Artifacts, data_key: bytes, parts: list[dict[str, Any]], start: int, end: int
) -> AsyncIterator[bytes]:
    at = 0
    for part in parts:
        below, above = max(start, at), min(end, at + part["size"])
        if below < above:
            key = part_key(data_key, base64.b64decode(part["k"]))
            async for piece in read(artifacts, part["id"], key, below - at, above - at):
                yield piece
        at += part["size"]


async def begin(a: Authorised, output: Output) -> Output:
    """Opens the file before the answer begins, so that what is deleted meanwhile is still read to its end."""
    stream = output["Body"]
    first = await anext(stream, None)
    output["Body"] = _from(first, stream)
    return output


async def _from(first: bytes | None, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first is not None:
        if first:
            yield first
        async for piece in rest:
            yield piece


@OBJECT.reads(
    "GetObject",
    asks=[
        Ask("s3:GetObject", object_asked, more=existing, when=no_version),
        Ask("s3:GetObjectVersion", object_asked, more=existing_version, when=given_version),
    ],
    data=True,
    after=begin,
)
def get(a: Authorised, view: View) -> Output:
    bucket, row, output, span = _read(a, view)
    output["Body"] = content(a, view, bucket, a.input["Key"], row.doc, span)
    return output


@OBJECT.reads(
    "HeadObject",
    asks=[
        Ask("s3:GetObject", object_asked, more=existing, when=no_version),
        Ask("s3:GetObjectVersion", object_asked, more=existing_version, when=given_version),
    ],
    data=True,
)
def head(a: Authorised, view: View) -> Output:
    bucket, row, output, _ = _read(a, view)
    sealed = row.doc["sse"] == encryption.CUSTOMER or encryption.customer_key(a) is not None
    if sealed or a.input.get("ChecksumMode") == "ENABLED":
        encryption.open_key(a, view, bucket, a.input["Key"], row.doc)
    return output


_ATTRIBUTES: Final = ("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize")


@OBJECT.reads(
    "GetObjectAttributes",
    asks=[
        Ask("s3:GetObject", object_asked, more=existing, when=no_version),
        Ask("s3:GetObjectAttributes", object_asked, more=existing, when=no_version),
        Ask("s3:GetObjectVersion", object_asked, more=existing_version, when=given_version),
        Ask("s3:GetObjectVersionAttributes", object_asked, more=existing_version, when=given_version),
    ],
    data=True,
)
def attributes(a: Authorised, view: View) -> Output:
    given = a.input
    bucket = bucket_of(a, view)
    doc = find_version(a, view, bucket, given["Key"], given.get("VersionId")).doc
    encryption.open_key(a, view, bucket, given["Key"], doc)
    wanted = given["ObjectAttributes"]
    output: Output = {"LastModified": doc["t"]}
    if bucket.versioning:
        output["VersionId"] = doc["v"]
    if "ETag" in wanted:
        output["ETag"] = doc["etag"]
    if "StorageClass" in wanted:
        output["StorageClass"] = "STANDARD"
    if "ObjectSize" in wanted:
        output["ObjectSize"] = doc["size"]
    if "Checksum" in wanted and doc.get("sums"):
        output["Checksum"] = heads.checksums(doc)
    if "ObjectParts" in wanted and "mf" in doc:
        output["ObjectParts"] = _page_of_parts(_parts_of(view, bucket, doc), given)
    return output


def _page_of_parts(parts: list[dict[str, Any]], given: Mapping[str, Any]) -> Output:
    limit, marker = given.get("MaxParts"), int(given.get("PartNumberMarker") or 0)
    most = _MOST_PARTS if limit is None else min(int(limit), _MOST_PARTS)
    if most < 0 or marker < 0:
        raise Refused("InvalidArgument", "max-parts and part-number-marker must be 0 or more", 400)
    numbered = [(int(part.get("n", at)), part) for at, part in enumerate(parts, 1)]
    behind = [one for one in numbered if one[0] > marker]
    page = [
        {
            "PartNumber": number,
            "Size": part["size"],
            **{heads.CHECKSUMS[name]: value for name, value in (part.get("sums") or {}).items()},
        }
        for number, part in behind[:most]
    ]
    return {
        "TotalPartsCount": len(parts),
        "PartNumberMarker": marker,
        "NextPartNumberMarker": page[-1]["PartNumber"] if page else marker,
        "MaxParts": most,
        "IsTruncated": len(behind) > most,
        "Parts": page,
    }


# -- deleting ----------------------------------------------------------------------------------------------------------


def _refuse_governance(given: Mapping[str, Any]) -> None:
    heads.refuse_unsupported(given)
    for member in ("IfMatchLastModifiedTime", "IfMatchSize"):
        if given.get(member) is not None:
            raise Refused("NotImplemented", f"{member} is not supported by Bastide yet.", 501)


def _delete(
    a: Authorised, tx: Transaction, bucket: Bucket, given: Mapping[str, Any], bypass: bool
) -> tuple[bool | None, str | None]:
    key = given["Key"]
    check_key(key)
    if given.get("IfMatch") is not None:
        _check_write({"IfMatch": given["IfMatch"]}, tx, bucket, key)
    id = given.get("VersionId") or None
    row = current(tx, bucket, key)
    gone = row if id is None else version(tx, bucket, key, id, row)
    marker, answered = remove(tx, bucket, key, id, a.now, a.staged.garbage, bypass=bypass)
    if gone is not None or marker:
        event = "ObjectRemoved:DeleteMarkerCreated" if id is None and marker else "ObjectRemoved:Delete"
        notification.happened(a, tx, bucket, event, key, {}, answered)
    return marker, answered


@OBJECT.operation(
    "DeleteObject",
    asks=[
        Ask("s3:DeleteObject", object_asked, more=_removing, when=no_version),
        Ask("s3:DeleteObjectVersion", object_asked, more=_removing_version, when=given_version),
        Ask(lock.BYPASS, object_asked, more=keys, when=lambda asked: given_version(asked) and bypassing(asked)),
    ],
    data=True,
    before=stage_nothing,
    after=clear,
)
def delete(a: Authorised, tx: Transaction) -> Output:
    _refuse_governance(a.input)
    marker, id = _delete(a, tx, bucket_of(a, tx), a.input, bypassed(a))
    return {"DeleteMarker": marker, "VersionId": id}


def _each_object(asked: Asked) -> list[str]:
    given = asked.call.input
    return [f"arn:aws:s3:::{given['Bucket']}/{one['Key']}" for one in given["Delete"]["Objects"]]


@OBJECT.operation(
    "DeleteObjects",
    # Asked for nobody here, and for everybody else object by object below: one refusal is not that of the others.
    asks=[Ask("s3:DeleteObject", _each_object, more=keys, needless=True)],
    data=True,
    before=stage_nothing,
    after=clear,
)
def delete_many(a: Authorised, tx: Transaction) -> Output:
    """Deletes up to 1,000 objects. What the caller may not delete, and what is locked, is an error of its own in the
    answer; if it is all of them, the answer is the same whether there is such a bucket or not."""
    given = a.input
    _refuse_governance(given)
    wanted = given["Delete"]["Objects"]
    if not wanted or len(wanted) > _MOST_DELETED:
        raise Refused("MalformedXML", "The XML you provided was not well-formed or did not validate against our "
                      "published schema", 400)  # fmt: skip
    single = a.calls.registry.operations["s3", "DeleteObject"]
    questions: list[Any] = []
    errors: list[dict[str, Any]] = []
    allowed: list[tuple[dict[str, Any], bool]] = []
    for one in wanted:
        input: dict[str, Any] = {"Bucket": given["Bucket"], "Key": one["Key"]}
        if one.get("VersionId"):
            input["VersionId"] = one["VersionId"]
        if one.get("ETag"):
            input["IfMatch"] = one["ETag"]
        if given.get("BypassGovernanceRetention"):
            input["BypassGovernanceRetention"] = True
        try:
            proof = authorise(a.calls, tx, Call(single, input, a.caller, a.account, a.region, a.request))
        except Refused as refused:
            questions += refused.kept.get("questions", ())
            errors.append({**_which(one), "Code": "AccessDenied", "Message": "Access Denied"})
        else:
            questions += proof.questions
            allowed.append((one, bypassed(proof)))
    a.questions = questions
    if not allowed:
        return {"Deleted": [], "Errors": errors}
    bucket = bucket_of(a, tx)
    deleted: list[dict[str, Any]] = []
    for one, bypass in allowed:
        try:
            _refuse_governance({"IfMatchSize": one.get("Size"), "IfMatchLastModifiedTime": one.get("LastModifiedTime")})
            marker, id = _delete(a, tx, bucket, {**one, "IfMatch": one.get("ETag")}, bypass)
        except Refused as refused:
            errors.append({**_which(one), "Code": refused.code, "Message": refused.message})
            continue
        done = _which(one)
        if marker:
            done |= {"DeleteMarker": True, "DeleteMarkerVersionId": id}
        deleted.append(done)
    if given["Delete"].get("Quiet"):
        deleted = []
    return {"Deleted": deleted, "Errors": errors}


def _which(one: Mapping[str, Any]) -> dict[str, Any]:
    found = {"Key": one["Key"]}
    if one.get("VersionId"):
        found["VersionId"] = one["VersionId"]
    return found

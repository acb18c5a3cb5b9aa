"""CopyObject: the source's bytes are decrypted for the caller and encrypted anew for the target.

Source: S3 API Reference, CopyObject, "Permissions" and "Response and special errors".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, fills
from bastide.kernel.context import tag_keys
from bastide.services.s3 import encryption, heads, lifecycle, lock, notification
from bastide.services.s3.asking import Keys, keys_for, object_arn, object_asked, source_of
from bastide.services.s3.at_rest import write
from bastide.services.s3.bucket import Bucket, bucket_of, expect, lookup, named
from bastide.services.s3.object import (
    LOCKING,
    WRITING,
    Staged,
    _check_write,
    clear,
    digest_for,
    etag_of,
    existing,
    existing_version,
    is_current,
    tags_brought,
    undo,
    writing,
)
from bastide.services.s3.reading import content, find_version
from bastide.services.s3.versions import OBJECT, check_key, current, place, version
from bastide.sigv4 import checksums
from bastide.store import Row, Transaction, View

_MOST_BYTES = 5 * 1024**3


def source_asked(asked: Asked) -> Iterable[str]:
    """The source's ARN."""
    bucket, key, _ = source_of(asked.input["CopySource"])
    return (object_arn(bucket, key),)


def versioned(asked: Asked) -> bool:
    """Whether the source names a version."""
    return source_of(asked.input["CopySource"])[2] is not None


def unversioned(asked: Asked) -> bool:
    """Whether the source is the current version."""
    return not versioned(asked)


def _source_row(asked: Asked) -> Row | None:
    try:
        name, key, id = source_of(asked.input["CopySource"])
    except Refused:
        return None  # The questions about the source say so, behind those about the target.
    bucket = lookup(asked.view, name)
    if bucket is None:
        return None
    row = current(asked.view, bucket, key)
    if id is None:
        return row
    try:
        return version(asked.view, bucket, key, id, row)
    except Refused:
        return None


def _source(asked: Asked) -> Keys:
    bucket = lookup(asked.view, source_of(asked.input["CopySource"])[0])
    found = keys_for(asked, bucket)
    if bucket is not None and bucket.tagged:
        row = _source_row(asked)
        if row is not None:
            found.update(tag_keys("s3:existingobjecttag/", row.tags.items()))
    return found


source_keys: Final = fills(*existing.names)(_source)
"""Condition keys of the questions about the source: of its current version."""


@fills(*existing_version.names)
def source_version_keys(asked: Asked) -> Keys:
    """The same of the version that is named."""
    return {**_source(asked), "s3:versionid": str(source_of(asked.input["CopySource"])[2])}


def copied(asked: Asked, found: Keys) -> Keys:
    """Adds the source as it is understood, not as it was encoded: a Deny on a source must not depend on its spelling."""
    try:
        bucket, key, id = source_of(asked.input["CopySource"])
        found["s3:x-amz-copy-source"] = f"{bucket}/{key}" + (f"?versionId={id}" if id is not None else "")
    except Refused:
        # The questions about the source say so, behind those about the target.
        found["s3:x-amz-copy-source"] = str(asked.input["CopySource"])
    return found


def _travelling(asked: Asked, found: Keys) -> Keys:
    if _tags_travel(asked):
        row = _source_row(asked)
        if row is not None:
            found.update(tag_keys("s3:requestobjecttag/", row.tags.items()))
            found["s3:requestobjecttagkeys"] = tuple(row.tags)
    return found


@fills(*WRITING, "s3:x-amz-copy-source", "s3:x-amz-metadata-directive")
def _target_keys(asked: Asked) -> Keys:
    found = copied(asked, dict(writing(asked)))
    if asked.input.get("MetadataDirective"):
        found["s3:x-amz-metadata-directive"] = str(asked.input["MetadataDirective"])
    return _travelling(asked, found)


@fills(*tags_brought.names)
def _target_tags(asked: Asked) -> Keys:
    return _travelling(asked, dict(tags_brought(asked)))


def _tags_travel(asked: Asked) -> bool:
    if asked.input.get("TaggingDirective", "COPY") != "COPY":
        return False
    row = _source_row(asked)
    return row is not None and bool(row.tags)


def _tags_written(asked: Asked) -> bool:
    if asked.input.get("TaggingDirective") == "REPLACE":
        return bool(asked.input.get("Tagging"))
    return _tags_travel(asked)


def source_bucket(view: View, given: dict[str, Any]) -> tuple[Bucket, str, str | None]:
    """The source's bucket, key and version; raises NoSuchBucket, AccessDenied."""
    name, key, id = source_of(given["CopySource"])
    bucket = named(view, name)
    expect(bucket, given.get("ExpectedSourceBucketOwner"))
    return bucket, key, id


async def _stage(a: Authorised) -> Staged:
    given = a.input
    key = given["Key"]
    check_key(key)
    described = heads.described(given, a.now)
    if given.get("AnnotationDirective") not in (None, "COPY"):
        raise Refused("NotImplemented", "Annotations are not supported by Bastide yet.", 501)
    replace = given.get("MetadataDirective", "COPY") == "REPLACE"
    mark = len(a.events)
    with a.calls.store.reading() as view:
        bucket = bucket_of(a, view)
        lock.check(bucket, described)
        source, source_key, id = source_bucket(view, given)
        row = find_version(a, view, source, source_key, id)
        heads.check_read(given, row.doc, "CopySource", copying=True)
        _check_write(given, view, bucket, key)
        doc = row.doc
        if doc["size"] > _MOST_BYTES:
            raise Refused(
                "InvalidRequest", "The specified copy source is larger than the maximum allowable size: 5368709120", 400
            )
        how = encryption.wanted(a, bucket)
        if (source.name, source_key) == (bucket.name, key) and id is None and not replace:
            changed = given.get("ServerSideEncryption") or given.get("TaggingDirective") == "REPLACE"
            if not changed and how.sse == doc["sse"] and given.get("StorageClass") is None:
                raise Refused(
                    "InvalidRequest",
                    "This copy request is illegal because it is trying to copy an object to itself without changing the "
                    "object's metadata, storage class, website redirect location or encryption attributes.",
                    400,
                )
        tags = (
            heads.header_tags(given.get("Tagging"))
            if given.get("TaggingDirective", "COPY") == "REPLACE"
            else dict(row.tags)
        )
        stream = content(a, view, source, source_key, doc, None, "CopySource")
    staged = Staged(
        described if replace else {name: doc[name] for name in ("type", "head", "meta") if name in doc}, tags
    )
    if "lock" in described:
        staged.doc["lock"] = described["lock"]  # The source's own lock stays with the source.
    data_key, kept = encryption.new_key(a, bucket, key, how)
    staged.asked = a.events[mark:]
    algorithm = str(given.get("ChecksumAlgorithm") or "").lower()
    summing = checksums.Sum(algorithm) if algorithm else None
    passing = summing.passing(stream) if summing is not None else stream
    written = staged.written = await write(a, passing, data_key, digest_for(kept["sse"]))
    staged.doc.update(kept)
    staged.doc |= {"id": written.id, "size": written.size, "etag": etag_of(kept["sse"], written.digest)}
    if summing is not None:
        staged.doc["sums"] = {algorithm: summing.value}
    elif doc.get("sums") and doc.get("sumtype", "FULL_OBJECT") == "FULL_OBJECT":
        staged.doc["sums"] = doc["sums"]
    staged.more = row.doc["v"] if source.versioning else None
    return staged


@OBJECT.operation(
    "CopyObject",
    asks=[
        Ask("s3:PutObject", object_asked, more=_target_keys),
        Ask("s3:PutObjectTagging", object_asked, more=_target_tags, when=_tags_written),
        *LOCKING,
        Ask("s3:GetObject", source_asked, more=source_keys, when=unversioned),
        Ask("s3:GetObjectVersion", source_asked, more=source_version_keys, when=versioned),
        Ask(
            "s3:GetObjectTagging",
            source_asked,
            more=source_keys,
            when=lambda asked: unversioned(asked) and _tags_travel(asked),
        ),
        Ask(
            "s3:GetObjectVersionTagging",
            source_asked,
            more=source_version_keys,
            when=lambda asked: versioned(asked) and _tags_travel(asked),
        ),
    ],
    data=True,
    before=_stage,
    after=clear,
    undo=undo,
)
def copy(a: Authorised, tx: Transaction) -> Output:
    staged: Staged = a.staged
    a.events += staged.asked
    key = a.input["Key"]
    bucket = bucket_of(a, tx)
    _check_write(a.input, tx, bucket, key)
    doc = staged.doc
    staged.placed = is_current(bucket, key, doc["id"])
    id = place(tx, bucket, key, doc, staged.tags, a.now, staged.garbage)
    notification.happened(a, tx, bucket, "ObjectCreated:Copy", key, doc, id)
    output: Output = {
        "CopyObjectResult": {"ETag": f'"{doc["etag"]}"', "LastModified": doc["t"], **heads.checksums(doc)},
        **encryption.shown(doc),
        **lifecycle.shown(bucket, key, staged.tags, doc),
    }
    if id is not None:
        output["VersionId"] = id
    if staged.more is not None:
        output["CopySourceVersionId"] = staged.more
    return output

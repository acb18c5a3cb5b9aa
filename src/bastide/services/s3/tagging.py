"""Tags of objects. Source: S3 API Reference, PutObjectTagging, GetObjectTagging, DeleteObjectTagging."""

from __future__ import annotations

from bastide.domain import tag_list
from bastide.kernel import Ask, Asked, Authorised, Fills, Output, fills
from bastide.services.s3 import heads, notification
from bastide.services.s3.asking import Keys, given_version, no_version, object_asked
from bastide.services.s3.bucket import Bucket, bucket_of, set_tagged
from bastide.services.s3.object import REQUEST_TAGS, _request_tags, existing, existing_version
from bastide.services.s3.reading import find_version
from bastide.services.s3.versions import OBJECT
from bastide.store import Row, Transaction, View


def _brought(asked: Asked) -> Keys:
    return _request_tags(asked.input.get("Tagging") or {"TagSet": []})


@fills(*existing.names, *REQUEST_TAGS)
def _putting(asked: Asked) -> Keys:
    return {**existing(asked), **_brought(asked)}


@fills(*existing_version.names, *REQUEST_TAGS)
def _putting_version(asked: Asked) -> Keys:
    return {**existing_version(asked), **_brought(asked)}


def _asks(action: str, more: Fills = existing, more_of_version: Fills = existing_version) -> list[Ask]:
    versioned = action.replace("Object", "ObjectVersion")
    return [
        Ask(f"s3:{action}", object_asked, more=more, when=no_version),
        Ask(f"s3:{versioned}", object_asked, more=more_of_version, when=given_version),
    ]


def _row(a: Authorised, view: View) -> tuple[Bucket, Row]:
    bucket = bucket_of(a, view)
    return bucket, find_version(a, view, bucket, a.input["Key"], a.input.get("VersionId"))


def _version(bucket: Bucket, row: Row) -> Output:
    return {"VersionId": row.doc["v"]} if bucket.versioning else {}


def _tell(a: Authorised, tx: Transaction, bucket: Bucket, row: Row, event: str) -> None:
    id = row.doc["v"] if bucket.versioning else None
    notification.happened(a, tx, bucket, event, a.input["Key"], row.doc, id)


@OBJECT.operation("PutObjectTagging", asks=_asks("PutObjectTagging", _putting, _putting_version), data=True)
def put(a: Authorised, tx: Transaction) -> Output:
    tags = heads.checked_tags([(str(tag["Key"]), str(tag["Value"])) for tag in a.input["Tagging"]["TagSet"]])
    bucket, row = _row(a, tx)
    row.tags = tags
    tx.update(row, keep=False)
    if tags:
        set_tagged(tx, bucket)
    _tell(a, tx, bucket, row, "ObjectTagging:Put")
    return _version(bucket, row)


@OBJECT.reads("GetObjectTagging", asks=_asks("GetObjectTagging"), data=True)
def get(a: Authorised, view: View) -> Output:
    bucket, row = _row(a, view)
    return {"TagSet": tag_list(dict(sorted(row.tags.items()))), **_version(bucket, row)}


@OBJECT.operation("DeleteObjectTagging", asks=_asks("DeleteObjectTagging"), data=True)
def delete(a: Authorised, tx: Transaction) -> Output:
    bucket, row = _row(a, tx)
    row.tags = {}
    tx.update(row, keep=False)
    _tell(a, tx, bucket, row, "ObjectTagging:Delete")
    return _version(bucket, row)

"""Buckets are made, found, listed and removed.

Source: S3 API Reference, CreateBucket, ListBuckets, HeadBucket, DeleteBucket, GetBucketLocation.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.keys import RootKey, new_material
from bastide.kernel import Ask, Asked, Authorised, Output, anything, fills, pages
from bastide.kernel.context import tag_keys
from bastide.services.s3 import ownership
from bastide.services.s3.asking import EVERY, bucket_asked, keys, own
from bastide.services.s3.bucket import (
    ALL_BLOCKED,
    BUCKET,
    NAME,
    bucket_arn,
    bucket_of,
    canonical_id,
    check_name,
    fresh,
    key_for,
    named,
    not_implemented,
    refuse_grants,
)
from bastide.services.s3.completing import abandon
from bastide.services.s3.heads import checked_tags
from bastide.services.s3.object import clear, stage_nothing
from bastide.services.s3.versions import OBJECT
from bastide.store import Row, Taken, Transaction, View

_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
_MOST_LISTED: Final = 10_000
_MOST_TAGS: Final = 50


_GIVEN: Final = (
    ("ACL", "s3:x-amz-acl"),
    ("BucketNamespace", "s3:x-amz-bucket-namespace"),
    ("GrantFullControl", "s3:x-amz-grant-full-control"),
    ("GrantRead", "s3:x-amz-grant-read"),
    ("GrantReadACP", "s3:x-amz-grant-read-acp"),
    ("GrantWrite", "s3:x-amz-grant-write"),
    ("GrantWriteACP", "s3:x-amz-grant-write-acp"),
    ("ObjectOwnership", "s3:x-amz-object-ownership"),
)


_TAGS: Final = ("aws:RequestTag/${TagKey}", "aws:TagKeys")


@fills(*EVERY, *_TAGS)
def _tagging(asked: Asked) -> dict[str, str | Sequence[str]]:
    found = dict(own(asked))
    wanted = asked.input.get("CreateBucketConfiguration") or {}
    tags = [(str(tag["Key"]), str(tag["Value"])) for tag in wanted.get("Tags") or ()]
    if tags:
        found.update(tag_keys("aws:requesttag/", tags))
        found["aws:tagkeys"] = tuple(key for key, _ in tags)
    return found


@fills(*EVERY, *(key for _, key in _GIVEN), "s3:locationconstraint", *_TAGS)
def _creating(asked: Asked) -> dict[str, str | Sequence[str]]:
    found = dict(_tagging(asked))
    wanted = asked.input.get("CreateBucketConfiguration") or {}
    if wanted.get("LocationConstraint"):
        found["s3:locationconstraint"] = str(wanted["LocationConstraint"])
    for member, key in _GIVEN:
        if asked.input.get(member):
            found[key] = str(asked.input[member])
    return found


def _place(a: Authorised, wanted: dict[str, Any]) -> str:
    """The region of a new bucket. Requests signed for us-east-1 may make buckets anywhere, as at S3's global endpoint."""
    constraint = wanted.get("LocationConstraint")
    if constraint == "EU":
        constraint = "eu-west-1"
    if a.region == "us-east-1":
        if constraint is None:
            return a.region
        if constraint == "us-east-1" or not _REGION.fullmatch(constraint):
            raise Refused("InvalidLocationConstraint", "The specified location-constraint is not valid", 400)
        return str(constraint)
    if constraint != a.region:
        said = f"The {constraint or 'unspecified'} location constraint"
        raise Refused(
            "IllegalLocationConstraintException",
            f"{said} is incompatible for the region specific endpoint this request was sent to.",
            400,
        )
    return a.region


@BUCKET.operation(
    "CreateBucket",
    asks=[
        Ask("s3:CreateBucket", bucket_asked, more=_creating),
        # API Reference, CreateBucketConfiguration, "Tags".
        Ask(
            "s3:TagResource",
            bucket_asked,
            more=_tagging,
            when=lambda asked: bool((asked.input.get("CreateBucketConfiguration") or {}).get("Tags")),
        ),
        # API Reference, CreateBucket, "Permissions".
        *(
            Ask(
                f"s3:{action}",
                bucket_asked,
                more=own,
                when=lambda asked: bool(asked.input.get("ObjectLockEnabledForBucket")),
            )
            for action in ("PutBucketObjectLockConfiguration", "PutBucketVersioning")
        ),
        Ask(
            "s3:PutBucketOwnershipControls",
            bucket_asked,
            more=own,
            when=lambda asked: bool(asked.input.get("ObjectOwnership")),
        ),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    name = str(given["Bucket"])
    check_name(name)
    refuse_grants(given, bucket=True)
    ownership.check(given.get("ObjectOwnership", ownership.ENFORCED))
    if given.get("BucketNamespace", "global") != "global":
        raise not_implemented("BucketNamespace")
    wanted = given.get("CreateBucketConfiguration") or {}
    if wanted.get("Location") or wanted.get("Bucket"):
        raise not_implemented("A directory bucket")
    tags = checked_tags([(str(tag["Key"]), str(tag["Value"])) for tag in wanted.get("Tags") or ()], _MOST_TAGS)
    region = _place(a, wanted)
    output = {"Location": f"/{name}", "BucketArn": bucket_arn(name)}
    doc = {"Account": a.account, "Region": region}
    try:
        tx.insert(Row(NAME.key, "", "", name, doc), keep=False)
    except Taken:
        there = named(tx, name)
        if there.account != a.account:
            raise Refused(
                "BucketAlreadyExists",
                "The requested bucket name is not available. The bucket namespace is shared by all users of the system. "
                "Please select a different name and try again.",
                409,
                members={"BucketName": name},
            ) from None
        if a.region == "us-east-1" and there.region == region:
            return output  # As in AWS, for the sake of old programs; nowhere else.
        raise Refused(
            "BucketAlreadyOwnedByYou",
            "Your previous request to create the named bucket succeeded and you already own it.",
            409,
            members={"BucketName": name},
        ) from None
    key = a.engine(RootKey).wrap(new_material(), key_for(a.account, name))
    kept = {
        "Region": region,
        "Key": base64.b64encode(key).decode(),
        "Encryption": {"SSEAlgorithm": "AES256", "BucketKeyEnabled": False},
        "PublicAccessBlock": dict(ALL_BLOCKED),
    }
    if given.get("ObjectLockEnabledForBucket"):
        kept |= {"Versioning": "Enabled", "ObjectLock": {}}
    row = Row(BUCKET.key, a.account, "", name, kept, tags=tags)
    tx.insert(row, event="CreateBucket", request_id=a.request.id)
    BUCKET._emit(tx, row, "CreateBucket", a.request.id)
    return output


@BUCKET.operation(
    "DeleteBucket", asks=[Ask("s3:DeleteBucket", bucket_asked, more=keys)], before=stage_nothing, after=clear
)
def delete(a: Authorised, tx: Transaction) -> Output:
    """Versions keep a bucket; uploads in progress go with it."""
    bucket = bucket_of(a, tx)
    if tx.scan(OBJECT.key, bucket.account, bucket.region, prefix=f"{bucket.name}/", limit=1):
        message = "The bucket you tried to delete is not empty"
        if bucket.versioning:
            message += ". You must delete all versions in the bucket."
        raise Refused("BucketNotEmpty", message, 409, members={"BucketName": bucket.name})
    abandon(tx, bucket, a.staged.garbage)
    BUCKET.remove(tx, fresh(tx, bucket), "DeleteBucket", a.request.id)
    row = tx.get(NAME.key, "", "", bucket.name)
    if row is not None:
        tx.delete(row, keep=False)
    return {}


@BUCKET.reads("ListBuckets", asks=[Ask("s3:ListAllMyBuckets", anything, more=own)])
def list_(a: Authorised, view: View) -> Output:
    given = a.input
    limit = int(given.get("MaxBuckets") or _MOST_LISTED)
    prefix = str(given.get("Prefix") or "")
    wanted = given.get("BucketRegion")
    after = pages.position(a, given.get("ContinuationToken"), code="InvalidArgument")
    found: list[dict[str, Any]] = []
    token: str | None = None
    while token is None:
        rows = view.scan(BUCKET.key, a.account, "", prefix=prefix, after=after, limit=1000)
        for row in rows:
            if len(found) == limit:
                token = pages.seal(a, after)
                break
            after = row.name
            if wanted and row.doc["Region"] != wanted:
                continue
            found.append(
                {
                    "Name": row.name,
                    "CreationDate": row.created,
                    "BucketRegion": row.doc["Region"],
                    "BucketArn": bucket_arn(row.name),
                }
            )
        if len(rows) < 1000:
            break
    output: Output = {"Buckets": found, "Owner": {"ID": canonical_id(a.account)}}
    if token is not None:
        output["ContinuationToken"] = token
    if prefix:
        output["Prefix"] = prefix
    return output


@BUCKET.reads("HeadBucket", asks=[Ask("s3:ListBucket", bucket_asked, more=keys)])
def head(a: Authorised, view: View) -> Output:
    # A client that does not know the region asks here; so the region does not have to be right.
    bucket = bucket_of(a, view, anywhere=True)
    return {"BucketRegion": bucket.region, "BucketArn": bucket.arn}


@BUCKET.reads("GetBucketLocation", asks=[Ask("s3:GetBucketLocation", bucket_asked, more=keys)])
def location(a: Authorised, view: View) -> Output:
    bucket = bucket_of(a, view, anywhere=True)
    return {"LocationConstraint": None if bucket.region == "us-east-1" else bucket.region}

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
from bastide.kernel import Ask, Asked, Authorised, Output, anything, pages
from bastide.services.s3.asking import bucket_asked, keys
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
from bastide.services.s3.object import clear, stage_nothing
from bastide.services.s3.upload import abandon
from bastide.services.s3.versions import OBJECT
from bastide.store import Row, Taken, Transaction, View

_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
_MOST_LISTED: Final = 10_000


def _creating(asked: Asked) -> dict[str, str | Sequence[str]]:
    found = keys(asked)
    wanted = asked.input.get("CreateBucketConfiguration") or {}
    if wanted.get("LocationConstraint"):
        found["s3:locationconstraint"] = str(wanted["LocationConstraint"])
    if asked.input.get("ACL"):
        found["s3:x-amz-acl"] = str(asked.input["ACL"])
    if asked.input.get("ObjectOwnership"):
        found["s3:x-amz-object-ownership"] = str(asked.input["ObjectOwnership"])
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
        Ask(
            "s3:PutBucketTagging",
            bucket_asked,
            more=_creating,
            when=lambda asked: bool((asked.input.get("CreateBucketConfiguration") or {}).get("Tags")),
        ),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    name = str(given["Bucket"])
    check_name(name)
    refuse_grants(given, bucket=True)
    if given.get("ObjectLockEnabledForBucket"):
        raise not_implemented("Object Lock")
    if given.get("ObjectOwnership", "BucketOwnerEnforced") != "BucketOwnerEnforced":
        raise not_implemented("An object ownership other than BucketOwnerEnforced")
    if given.get("BucketNamespace", "global") != "global":
        raise not_implemented("BucketNamespace")
    wanted = given.get("CreateBucketConfiguration") or {}
    if wanted.get("Location") or wanted.get("Bucket"):
        raise not_implemented("A directory bucket")
    tags = {str(tag["Key"]): str(tag["Value"]) for tag in wanted.get("Tags") or ()}
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
    row = Row(
        BUCKET.key,
        a.account,
        "",
        name,
        {
            "Region": region,
            "Key": base64.b64encode(key).decode(),
            "Encryption": {"SSEAlgorithm": "AES256", "BucketKeyEnabled": False},
            "PublicAccessBlock": dict(ALL_BLOCKED),
        },
        tags=tags,
    )
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


@BUCKET.reads("ListBuckets", asks=[Ask("s3:ListAllMyBuckets", anything)])
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

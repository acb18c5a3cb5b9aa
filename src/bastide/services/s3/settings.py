"""What is set on buckets: versioning, policy, encryption, public access, tags; and what is true of all of them.

Source: S3 API Reference, the operations named; S3 User Guide, "Blocking public access to your Amazon S3 storage".
"""

from __future__ import annotations

import json
from typing import Any, Final

from bastide.domain import Refused, tag_list
from bastide.kernel import Ask, Authorised, Output, principals
from bastide.policy import Document, Form
from bastide.services.s3 import public
from bastide.services.s3.asking import bucket_asked, given_version, keys, no_version, object_asked
from bastide.services.s3.bucket import BUCKET, Bucket, bucket_of, canonical_id, fresh, malformed_xml, not_implemented
from bastide.services.s3.heads import checked_tags
from bastide.services.s3.object import existing, existing_version
from bastide.services.s3.reading import find_version
from bastide.store import Row, Transaction, View

_MOST_POLICY_BYTES: Final = 20 * 1024
_MOST_TAGS: Final = 50
_FLAGS: Final = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


def _asks(action: str) -> list[Ask]:
    return [Ask(f"s3:{action}", bucket_asked, more=keys)]


def _change(a: Authorised, tx: Transaction) -> tuple[Bucket, Row]:
    bucket = bucket_of(a, tx)
    return bucket, fresh(tx, bucket)


def _save(a: Authorised, tx: Transaction, row: Row) -> Output:
    BUCKET.change(tx, row, a.operation.name, a.request.id)
    return {}


# -- versioning --------------------------------------------------------------------------------------------------------


@BUCKET.operation("PutBucketVersioning", asks=_asks("PutBucketVersioning"))
def put_versioning(a: Authorised, tx: Transaction) -> Output:
    wanted = a.input["VersioningConfiguration"]
    if a.input.get("MFA") or wanted.get("MFADelete") == "Enabled":
        raise not_implemented("MFA delete")
    status = wanted.get("Status")
    if status not in ("Enabled", "Suspended"):
        raise Refused("IllegalVersioningConfigurationException", "The Versioning element must be specified", 400)
    bucket, row = _change(a, tx)
    if bucket.lock is not None and status != "Enabled":
        raise Refused(
            "InvalidBucketState",
            "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.",
            409,
        )
    row.doc["Versioning"] = status
    return _save(a, tx, row)


@BUCKET.reads("GetBucketVersioning", asks=_asks("GetBucketVersioning"))
def get_versioning(a: Authorised, view: View) -> Output:
    return {"Status": bucket_of(a, view).versioning or None}


# -- policy ------------------------------------------------------------------------------------------------------------


def _own(a: Authorised, bucket: Bucket) -> None:
    """Bucket policies are for the owner's account alone, whatever they say."""
    if a.account != bucket.account:
        raise Refused("MethodNotAllowed", "The specified method is not allowed against this resource.", 405)


def _malformed(message: str) -> Refused:
    return Refused("MalformedPolicy", message, 400)


def _values(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _check_policy(text: str, bucket: Bucket) -> None:
    try:
        Document.parse(text, Form.RESOURCE, max_bytes=_MOST_POLICY_BYTES)
    except Refused as refused:
        raise _malformed(refused.message) from None
    statements = json.loads(text)["Statement"]
    for statement in statements if isinstance(statements, list) else [statements]:
        resources = statement.get("Resource", statement.get("NotResource"))
        if resources is None:
            raise _malformed("Missing required field Resource")
        for one in _values(resources):
            behind = one.removeprefix(bucket.arn)
            if one != "*" and (behind == one or (behind and behind[0] not in "/*?")):
                raise _malformed("Policy has invalid resource")
        for one in _values(statement.get("Action", statement.get("NotAction", []))):
            if one != "*" and not one.lower().startswith("s3:"):
                raise _malformed("Policy has invalid action")


@BUCKET.operation("PutBucketPolicy", asks=_asks("PutBucketPolicy"))
def put_policy(a: Authorised, tx: Transaction) -> Output:
    bucket, row = _change(a, tx)
    _own(a, bucket)
    text = a.input["Policy"]
    _check_policy(text, bucket)
    if (row.doc.get("PublicAccessBlock") or {}).get("BlockPublicPolicy") and public.is_public(text):
        raise Refused(
            "AccessDenied",
            f"User: {a.caller.arn} is not authorized to perform: s3:PutBucketPolicy on resource: "
            f'"{bucket.arn}" because public policies are prevented by the BlockPublicPolicy setting in S3 Block Public '
            "Access.",
            403,
        )
    row.doc["Policy"], row.doc["Principals"] = text, principals.kept(tx, text)
    return _save(a, tx, row)


def _policy(bucket: Bucket) -> str:
    text = bucket.row.doc.get("Policy")
    if not text:
        raise Refused(
            "NoSuchBucketPolicy", "The bucket policy does not exist", 404, members={"BucketName": bucket.name}
        )
    return str(text)


@BUCKET.reads("GetBucketPolicy", asks=_asks("GetBucketPolicy"))
def get_policy(a: Authorised, view: View) -> Output:
    bucket = bucket_of(a, view)
    _own(a, bucket)
    return {"Policy": principals.shown(view, _policy(bucket), bucket.row.doc.get("Principals", {}))}


@BUCKET.reads("GetBucketPolicyStatus", asks=_asks("GetBucketPolicyStatus"))
def get_policy_status(a: Authorised, view: View) -> Output:
    """A bucket without a policy is not public by it."""
    text = bucket_of(a, view).row.doc.get("Policy")
    return {"PolicyStatus": {"IsPublic": bool(text) and public.is_public(str(text))}}


@BUCKET.operation("DeleteBucketPolicy", asks=_asks("DeleteBucketPolicy"))
def delete_policy(a: Authorised, tx: Transaction) -> Output:
    bucket, row = _change(a, tx)
    _own(a, bucket)
    if row.doc.pop("Policy", None) is None:
        return {}
    return _save(a, tx, row)


# -- encryption --------------------------------------------------------------------------------------------------------


@BUCKET.operation("PutBucketEncryption", asks=_asks("PutEncryptionConfiguration"))
def put_encryption(a: Authorised, tx: Transaction) -> Output:
    rules = a.input["ServerSideEncryptionConfiguration"].get("Rules") or []
    if len(rules) != 1 or not rules[0].get("ApplyServerSideEncryptionByDefault"):
        raise malformed_xml()
    rule = rules[0]
    default = rule["ApplyServerSideEncryptionByDefault"]
    algorithm, key = default["SSEAlgorithm"], default.get("KMSMasterKeyID")
    if algorithm not in ("AES256", "aws:kms"):
        raise not_implemented(f"Encryption by {algorithm}")
    if key and algorithm != "aws:kms":
        raise Refused(
            "InvalidArgument",
            "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse",
            400,
        )
    blocked = (rule.get("BlockedEncryptionTypes") or {}).get("EncryptionType") or []
    if any(one not in ("NONE", "SSE-C") for one in blocked):
        raise not_implemented("BlockedEncryptionTypes")
    _, row = _change(a, tx)
    found = {"SSEAlgorithm": algorithm, "BucketKeyEnabled": bool(rule.get("BucketKeyEnabled"))}
    if key:
        found["KMSMasterKeyID"] = key
    row.doc["Encryption"] = found
    return _save(a, tx, row)


@BUCKET.reads("GetBucketEncryption", asks=_asks("GetEncryptionConfiguration"))
def get_encryption(a: Authorised, view: View) -> Output:
    bucket = bucket_of(a, view)
    default = {"SSEAlgorithm": bucket.sse}
    if bucket.kms_key:
        default["KMSMasterKeyID"] = bucket.kms_key
    rule = {"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": bucket.bucket_key}
    return {"ServerSideEncryptionConfiguration": {"Rules": [rule]}}


@BUCKET.operation("DeleteBucketEncryption", asks=_asks("PutEncryptionConfiguration"))
def delete_encryption(a: Authorised, tx: Transaction) -> Output:
    _, row = _change(a, tx)
    row.doc["Encryption"] = {"SSEAlgorithm": "AES256", "BucketKeyEnabled": False}
    return _save(a, tx, row)


# -- public access -----------------------------------------------------------------------------------------------------


@BUCKET.operation("PutPublicAccessBlock", asks=_asks("PutBucketPublicAccessBlock"))
def put_public_access_block(a: Authorised, tx: Transaction) -> Output:
    wanted = a.input["PublicAccessBlockConfiguration"]
    _, row = _change(a, tx)
    row.doc["PublicAccessBlock"] = {flag: bool(wanted.get(flag)) for flag in _FLAGS}
    return _save(a, tx, row)


@BUCKET.reads("GetPublicAccessBlock", asks=_asks("GetBucketPublicAccessBlock"))
def get_public_access_block(a: Authorised, view: View) -> Output:
    bucket = bucket_of(a, view)
    found = bucket.row.doc.get("PublicAccessBlock")
    if not found:
        raise Refused(
            "NoSuchPublicAccessBlockConfiguration",
            "The public access block configuration was not found",
            404,
            members={"BucketName": bucket.name},
        )
    return {"PublicAccessBlockConfiguration": found}


@BUCKET.operation("DeletePublicAccessBlock", asks=_asks("PutBucketPublicAccessBlock"))
def delete_public_access_block(a: Authorised, tx: Transaction) -> Output:
    _, row = _change(a, tx)
    if row.doc.pop("PublicAccessBlock", None) is None:
        return {}
    return _save(a, tx, row)


# -- tags --------------------------------------------------------------------------------------------------------------


@BUCKET.operation("PutBucketTagging", asks=_asks("PutBucketTagging"))
def put_tagging(a: Authorised, tx: Transaction) -> Output:
    pairs = [(str(tag["Key"]), str(tag["Value"])) for tag in a.input["Tagging"]["TagSet"]]
    tags = checked_tags(pairs, _MOST_TAGS)
    _, row = _change(a, tx)
    row.tags = tags
    return _save(a, tx, row)


@BUCKET.reads("GetBucketTagging", asks=_asks("GetBucketTagging"))
def get_tagging(a: Authorised, view: View) -> Output:
    bucket = bucket_of(a, view)
    if not bucket.row.tags:
        raise Refused("NoSuchTagSet", "The TagSet does not exist", 404, members={"BucketName": bucket.name})
    return {"TagSet": tag_list(bucket.row.tags)}


@BUCKET.operation("DeleteBucketTagging", asks=_asks("PutBucketTagging"))
def delete_tagging(a: Authorised, tx: Transaction) -> Output:
    _, row = _change(a, tx)
    row.tags = {}
    return _save(a, tx, row)


# -- what is true of every bucket --------------------------------------------------------------------------------------


def _owner_alone(bucket: Bucket) -> Output:
    owner = {"ID": canonical_id(bucket.account)}
    grantee = {**owner, "Type": "CanonicalUser"}
    return {"Owner": owner, "Grants": [{"Grantee": grantee, "Permission": "FULL_CONTROL"}]}


@BUCKET.reads("GetBucketAcl", asks=_asks("GetBucketAcl"))
def get_acl(a: Authorised, view: View) -> Output:
    return _owner_alone(bucket_of(a, view))


@BUCKET.reads(
    "GetObjectAcl",
    asks=[
        Ask("s3:GetObjectAcl", object_asked, more=existing, when=no_version),
        Ask("s3:GetObjectVersionAcl", object_asked, more=existing_version, when=given_version),
    ],
    data=True,
)
def get_object_acl(a: Authorised, view: View) -> Output:
    bucket = bucket_of(a, view)
    find_version(a, view, bucket, a.input["Key"], a.input.get("VersionId"))
    return _owner_alone(bucket)

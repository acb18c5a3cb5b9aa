"""Buckets: whose they are, where they are, and what was set on them.

A bucket's name is one for all accounts (a row of the kind BucketName under no account); its row is the owner's, under no
region, because buckets are listed over all regions. Its objects are kept under its owner and its region.

Source: S3 User Guide, "General purpose bucket naming rules".
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bastide import policy
from bastide.domain import Refused
from bastide.engines.keys import RootKey
from bastide.kernel import Authorised, Facts, Kind
from bastide.policy import Attached, Document, Form
from bastide.services.s3 import public
from bastide.store import Row, Transaction, View

BUCKET = Kind(
    "Bucket",
    service="s3",
    arn="{}",
    named_by="Bucket",
    arn_account=False,
    missing=("NoSuchBucket", "The specified bucket does not exist", 404),
)
NAME = Kind("BucketName", service="s3", arn="name/{}", tags=False, history=False, global_=True)

ALL_BLOCKED: Final = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
_LEGAL = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(slots=True)
class Bucket:
    """A bucket as it is remembered until one of its owner's buckets changes.

    versioning: "", "Enabled" or "Suspended". tagged: some object has or had tags, so that questions must look for them.
    lock: None without Object Lock, else the default retention, which may be empty.
    """

    name: str
    arn: str
    account: str
    region: str
    row: Row
    facts: Facts
    versioning: str
    sse: str
    kms_key: str
    bucket_key: bool
    tagged: bool
    lock: Mapping[str, Any] | None
    key: bytes | None = None


def bucket_arn(name: str) -> str:
    """The ARN of a bucket."""
    return f"arn:aws:s3:::{name}"


def canonical_id(account: str) -> str:
    """The canonical user id of an account, as S3 names owners."""
    return policy.canonical_id(account)


def lookup(view: View, name: str) -> Bucket | None:
    """A bucket of whatever account, or None."""

    def where() -> tuple[str, str] | None:
        row = view.get(NAME.key, "", "", name)
        return None if row is None else (str(row.doc["Account"]), str(row.doc["Region"]))

    found = view.memo(("s3:where", name), ((NAME.key, ""),), where)
    if found is None:
        return None
    account, region = found

    def load() -> Bucket | None:
        row = view.get(BUCKET.key, account, "", name)
        return None if row is None else _bucket(row, region)

    return view.memo(("s3:bucket", name), ((BUCKET.key, account), (NAME.key, "")), load)


def _bucket(row: Row, region: str) -> Bucket:
    doc = row.doc
    attached: Attached | None = None
    text = doc.get("Policy") or ""
    if text:
        blocked = doc.get("PublicAccessBlock") or {}
        if blocked.get("RestrictPublicBuckets") and public.is_public(text):
            text = public.restricted(text, row.name, row.account)
        attached = Attached(Document.parse_cached(text, Form.RESOURCE), f"policy of the bucket {row.name}")
    facts = Facts(
        row.account, {}, attached, "bucket" if attached is not None else "", "Bucket",
        text=text, principals=doc.get("Principals", {}),
    )  # fmt: skip
    encryption = doc["Encryption"]
    return Bucket(
        row.name,
        bucket_arn(row.name),
        row.account,
        region,
        row,
        facts,
        doc.get("Versioning", ""),
        encryption["SSEAlgorithm"],
        encryption.get("KMSMasterKeyID", ""),
        bool(encryption.get("BucketKeyEnabled")),
        bool(doc.get("Tagged")),
        doc.get("ObjectLock"),
    )


def facts(view: View, arn: Any, action: str) -> Facts | None:
    """Owner and policy of a bucket, for itself and for its objects. A bucket that does not exist is nobody's: then the
    caller's own policies decide who learns that. So they do for a new bucket's name."""
    if action == "s3:CreateBucket":
        return Facts("", type="Bucket")
    found = lookup(view, arn.resource.partition("/")[0])
    return found.facts if found is not None else Facts("", type="Bucket")


def bucket_of(a: Authorised, view: View, *, anywhere: bool = False) -> Bucket:
    """The bucket that a call names; raises NoSuchBucket, AccessDenied if the owner is not the one expected, and
    AuthorizationHeaderMalformed for a request that was signed for another region, unless `anywhere`, and PermanentRedirect
    for what a service does through a VPC endpoint of another region."""
    found = named(view, str(a.input["Bucket"]))
    expect(found, a.input.get("ExpectedBucketOwner"))
    if a.region != found.region:
        if a.request.signed and not anywhere:
            raise Refused(
                "AuthorizationHeaderMalformed",
                f"The authorization header is malformed; the region '{a.region}' is wrong; expecting '{found.region}'",
                400,
                members={"Region": found.region},
                kept={"headers": [("x-amz-bucket-region", found.region)]},
            )
        if a.request.vpce and not anywhere:
            raise Refused(
                "PermanentRedirect",
                f"The bucket {found.name} is in {found.region}, which the VPC endpoint in {a.region} does not lead to.",
                301,
                members={"Bucket": found.name},
            )
        a.region = found.region
    return found


def named(view: View, name: str) -> Bucket:
    """A bucket by its name; raises NoSuchBucket."""
    found = lookup(view, name)
    if found is None:
        raise Refused("NoSuchBucket", "The specified bucket does not exist", 404, members={"BucketName": name})
    return found


_ACCOUNT: Final = re.compile(r"\d{12}", re.ASCII)


def expect(bucket: Bucket, owner: str | None) -> None:
    """Raises AccessDenied if a caller expects another owner, InvalidBucketOwnerAWSAccountID for what is no account."""
    if owner is not None and not _ACCOUNT.fullmatch(owner):
        raise Refused(
            "InvalidBucketOwnerAWSAccountID",
            f"The value of the expected bucket owner parameter must be an AWS Account ID... [{owner[:100]}]",
            400,
        )
    if owner and owner != bucket.account:
        raise Refused("AccessDenied", "Access Denied", 403)


def fresh(tx: Transaction, bucket: Bucket) -> Row:
    """The bucket's row, to be changed."""
    return BUCKET.find(tx, bucket.account, "", bucket.name)


def set_tagged(tx: Transaction, bucket: Bucket) -> None:
    """Notes that from now on questions about this bucket's objects must look at their tags."""
    if not bucket.tagged:
        row = fresh(tx, bucket)
        row.doc["Tagged"] = True
        tx.update(row, keep=False)


def own_key(a: Authorised, bucket: Bucket) -> bytes:
    """The key of SSE-S3 for this bucket, unwrapped in memory only."""
    if bucket.key is None:
        wrapped = base64.b64decode(bucket.row.doc["Key"])
        bucket.key = a.engine(RootKey).unwrap(wrapped, key_for(bucket.account, bucket.name))
    return bucket.key


def key_for(account: str, name: str) -> bytes:
    """What a bucket's key is wrapped for."""
    return f"s3/{account}/{name}".encode()


# -- names -------------------------------------------------------------------------------------------------------------


def check_name(name: str) -> None:
    """Raises InvalidBucketName for what no general purpose bucket may be called."""
    legal = (
        _LEGAL.fullmatch(name) is not None
        and ".." not in name
        and not name.startswith(("xn--", "sthree-", "amzn-s3-demo-"))
        and not name.endswith(("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"))
    )
    if legal:
        try:
            ipaddress.IPv4Address(name)
            legal = False
        except ValueError:
            pass
    if not legal:
        raise Refused(
            "InvalidBucketName", "The specified bucket is not valid.", 400, members={"BucketName": name[:255]}
        )


def refuse_grants(given: dict[str, Any], *, bucket: bool = False) -> None:
    """Raises AccessControlListNotSupported for an ACL that gives anybody but the owner anything."""
    allowed = ("private", "bucket-owner-full-control") if bucket else ("bucket-owner-full-control",)
    grants = ("GrantFullControl", "GrantRead", "GrantReadACP", "GrantWrite", "GrantWriteACP")
    if given.get("ACL", allowed[0]) not in allowed or any(given.get(one) for one in grants):
        if bucket:
            raise Refused(
                "InvalidBucketAclWithObjectOwnership",
                "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
                400,
            )
        raise Refused("AccessControlListNotSupported", "The bucket does not allow ACLs", 400)


def malformed_xml() -> Refused:
    """The refusal of a body that is no document of its operation."""
    return Refused(
        "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema", 400
    )


def not_implemented(what: str) -> Refused:
    """The refusal of what S3 has and Bastide has not."""
    return Refused("NotImplemented", f"{what} is not supported by Bastide yet.", 501)

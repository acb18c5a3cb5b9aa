"""What S3 asks the policy engine: ARNs of buckets and objects, and the condition keys of its requests.

Source: Service Authorization Reference, "Actions, resources, and condition keys for Amazon S3".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import unquote

from bastide.domain import Refused
from bastide.kernel import Asked, fills
from bastide.services.s3.bucket import Bucket, lookup

Keys = dict[str, "str | Sequence[str]"]

_AUTH_TYPES: Final = {"query": "REST-QUERY-STRING", "form": "POST"}
EVERY: Final = (
    "s3:authType",
    "s3:ResourceAccount",
    "s3:signatureAge",
    "s3:signatureversion",
    "s3:TlsVersion",
    "s3:x-amz-content-sha256",
)
"""Condition keys that every request to S3 has."""


def object_arn(bucket: str, key: str) -> str:
    """The ARN of an object."""
    return f"arn:aws:s3:::{bucket}/{key}"


def bucket_asked(asked: Asked) -> Iterable[str]:
    """The bucket that the call names."""
    return (f"arn:aws:s3:::{asked.call.input['Bucket']}",)


def object_asked(asked: Asked) -> Iterable[str]:
    """The object that the call names."""
    given = asked.call.input
    return (f"arn:aws:s3:::{given['Bucket']}/{given['Key']}",)


@fills(*EVERY)
def keys(asked: Asked) -> Keys:
    """Condition keys of every request to S3."""
    name = asked.call.input.get("Bucket")
    return keys_for(asked, None if name is None else lookup(asked.view, name))


def keys_for(asked: Asked, bucket: Bucket | None) -> Keys:
    """The same for a bucket that has been looked up."""
    call = asked.call
    request = call.request
    found: Keys = {}
    if bucket is not None:
        found["s3:resourceaccount"] = bucket.account
    if call.caller.kind != "Anonymous":
        # Services call over no wire; on AWS they sign in the header, and policies that demand it mean them, too.
        found["s3:authtype"] = _AUTH_TYPES.get(request.signed, "REST-HEADER")
        found["s3:signatureversion"] = "AWS4-HMAC-SHA256"
        at = request.signed_at or request.at
        found["s3:signatureage"] = str(max(0, (request.at - at) // 1000))
    if request.signed == "query":
        found["s3:x-amz-content-sha256"] = request.content_sha256 or "UNSIGNED-PAYLOAD"
    elif request.content_sha256:
        found["s3:x-amz-content-sha256"] = request.content_sha256
    if request.tls.startswith("TLSv"):
        found["s3:tlsversion"] = request.tls[4:]
    return found


@fills(*EVERY)
def own(asked: Asked) -> Keys:
    """The same for what is the caller's account's own before there is a bucket: its list of buckets, a new one."""
    found = keys_for(asked, None)
    if asked.call.account:
        found["s3:resourceaccount"] = asked.call.account
    return found


def given_version(asked: Asked) -> bool:
    """Whether the call names a version."""
    return bool(asked.call.input.get("VersionId"))


def no_version(asked: Asked) -> bool:
    """Whether the call means the current version."""
    return not asked.call.input.get("VersionId")


@fills(*EVERY, "s3:prefix", "s3:delimiter", "s3:max-keys")
def listing(asked: Asked) -> Keys:
    """Condition keys of a list."""
    found = keys_for(asked, lookup(asked.view, asked.call.input["Bucket"]))
    given = asked.call.input
    if "Prefix" in given:
        found["s3:prefix"] = str(given["Prefix"])
    if "Delimiter" in given:
        found["s3:delimiter"] = str(given["Delimiter"])
    if "MaxKeys" in given:
        found["s3:max-keys"] = str(given["MaxKeys"])
    return found


def source_of(text: str) -> tuple[str, str, str | None]:
    """Bucket, key and version of an ``x-amz-copy-source``; raises InvalidArgument for what is none."""
    plain, _, query = text.partition("?")
    path = unquote(plain)
    version = unquote(query.removeprefix("versionId=")) if query.startswith("versionId=") else None
    bucket, slash, key = path.removeprefix("/").partition("/")
    if not bucket or not slash or not key or bucket.startswith("arn:"):
        raise Refused(
            "InvalidArgument",
            "Invalid copy source object key",
            400,
            members={"ArgumentName": "x-amz-copy-source", "ArgumentValue": text[:1024]},
        )
    return bucket, key, version

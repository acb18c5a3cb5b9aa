"""Which pages of other origins may let a browser ask a bucket, and with what.

The rules open nothing: they tell browsers whom to show an answer. Whether there is one, policies decide.
Source: S3 API Reference, PutBucketCors; S3 User Guide, "Using cross-origin resource sharing (CORS)", "Elements of a CORS
configuration", "How Amazon S3 evaluates the CORS configuration on a bucket"; the Fetch Standard, "CORS protocol".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Output
from bastide.services.s3.asking import bucket_asked, keys
from bastide.services.s3.bucket import BUCKET, bucket_of, fresh, lookup, malformed_xml
from bastide.store import Transaction, View

METHODS: Final = ("GET", "PUT", "POST", "DELETE", "HEAD")
_MOST_RULES: Final = 100
_MOST_ID: Final = 255
_MOST_LENGTH: Final = 2048
_MOST_LISTED: Final = 100
_MOST_SECONDS: Final = 2**31 - 1
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_ORIGIN: Final = re.compile(r"[\x21-\x7e]+")


def _invalid(text: str) -> Refused:
    return Refused("InvalidRequest", text, 400)


def _listed(rule: dict[str, Any], member: str) -> list[str]:
    values = [str(one) for one in rule.get(member) or ()]
    if len(values) > _MOST_LISTED:
        raise _invalid(f"A CORS rule must not have more than {_MOST_LISTED} {member}")
    for one in values:
        if len(one) > _MOST_LENGTH or (member != "AllowedOrigins" and not _TOKEN.fullmatch(one)):
            raise _invalid(f"{member} has a value that is no name of a header: {one[:256]}")
    return values


def _wildcards(values: list[str], member: str) -> None:
    for one in values:
        if one.count("*") > 1:
            raise _invalid(f'{member} "{one}" can not have more than one wildcard.')


def _rule(given: dict[str, Any]) -> dict[str, Any]:
    methods, origins = [str(one) for one in given.get("AllowedMethods") or ()], _listed(given, "AllowedOrigins")
    if not methods or not origins:
        raise malformed_xml()
    for method in methods:
        if method not in METHODS:
            raise _invalid(f"Found unsupported HTTP method in CORS config. Unsupported method is {method[:64]}")
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise _invalid(f'AllowedOrigin "{origin[:256]}" is no origin')
    _wildcards(origins, "AllowedOrigin")
    headers, exposed = _listed(given, "AllowedHeaders"), _listed(given, "ExposeHeaders")
    _wildcards(headers, "AllowedHeader")
    for one in exposed:
        if "*" in one:
            raise _invalid(
                f'ExposeHeader "{one}" contains wildcard. We currently do not support wildcard for ExposeHeader.'
            )
    name, seconds = given.get("ID"), given.get("MaxAgeSeconds")
    if name is not None and len(str(name)) > _MOST_ID:
        raise _invalid(f"The ID of a CORS rule must not be longer than {_MOST_ID} characters")
    if seconds is not None and not 0 <= int(seconds) <= _MOST_SECONDS:
        raise malformed_xml()
    kept = {
        "ID": name,
        "AllowedHeaders": headers,
        "AllowedMethods": methods,
        "AllowedOrigins": origins,
        "ExposeHeaders": exposed,
        "MaxAgeSeconds": seconds,
    }
    return {member: value for member, value in kept.items() if value not in (None, [])}


@BUCKET.operation("PutBucketCors", asks=[Ask("s3:PutBucketCORS", bucket_asked, more=keys)])
def put_cors(a: Authorised, tx: Transaction) -> Output:
    given = a.input["CORSConfiguration"].get("CORSRules") or []
    if not given or len(given) > _MOST_RULES:
        raise malformed_xml()
    rules = [_rule(one) for one in given]
    row = fresh(tx, bucket_of(a, tx))
    row.doc["Cors"] = rules
    BUCKET.change(tx, row, a.operation.name, a.request.id)
    return {}


@BUCKET.reads("GetBucketCors", asks=[Ask("s3:GetBucketCORS", bucket_asked, more=keys)])
def get_cors(a: Authorised, view: View) -> Output:
    bucket = bucket_of(a, view)
    rules = bucket.row.doc.get("Cors")
    if not rules:
        raise Refused(
            "NoSuchCORSConfiguration",
            "The CORS configuration does not exist",
            404,
            members={"BucketName": bucket.name},
        )
    return {"CORSRules": rules}


@BUCKET.operation("DeleteBucketCors", asks=[Ask("s3:PutBucketCORS", bucket_asked, more=keys)])
def delete_cors(a: Authorised, tx: Transaction) -> Output:
    row = fresh(tx, bucket_of(a, tx))
    if row.doc.pop("Cors", None) is not None:
        BUCKET.change(tx, row, a.operation.name, a.request.id)
    return {}


# -- what they say -----------------------------------------------------------------------------------------------------


def _fits(pattern: str, value: str) -> bool:
    """Whether a value is what a pattern with at most one ``*`` means."""
    before, star, after = pattern.partition("*")
    if not star:
        return pattern == value
    return len(value) >= len(before) + len(after) and value.startswith(before) and value.endswith(after)


def told(
    view: View, name: str, origin: str, method: str, headers: Sequence[str] | None
) -> list[tuple[str, str]] | None:
    """What the first rule that fits a request of `origin` says to its browser, as headers; None if none fits.

    headers: those that a preflight asks for; None for a request itself, whose own are not looked at.
    """
    bucket = lookup(view, name)
    for rule in bucket.row.doc.get("Cors") or () if bucket is not None else ():
        matched = next((one for one in rule["AllowedOrigins"] if _fits(one, origin)), None)
        if matched is None or method not in rule["AllowedMethods"]:
            continue
        allowed = [one.lower() for one in rule.get("AllowedHeaders") or ()]
        if any(not any(_fits(pattern, one.lower()) for pattern in allowed) for one in headers or ()):
            continue
        anybody = matched == "*"
        said = [
            ("Access-Control-Allow-Origin", "*" if anybody else origin),
            ("Access-Control-Allow-Methods", ", ".join(rule["AllowedMethods"])),
        ]
        if headers:
            said.append(("Access-Control-Allow-Headers", ", ".join(one.lower() for one in headers)))
        if rule.get("ExposeHeaders"):
            said.append(("Access-Control-Expose-Headers", ", ".join(rule["ExposeHeaders"])))
        if rule.get("MaxAgeSeconds") is not None:
            said.append(("Access-Control-Max-Age", str(rule["MaxAgeSeconds"])))
        if not anybody:
            said.append(("Access-Control-Allow-Credentials", "true"))
        said.append(("Vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"))
        return said
    return None


def preflight(view: View, name: str, origin: str, method: str, headers: Sequence[str]) -> list[tuple[str, str]]:
    """What a browser that asks beforehand is told, as headers.

    Raises Refused AccessForbidden for what no rule allows, a bucket that is not there included.
    """
    said = told(view, name, origin, method, headers)
    if said is not None:
        return said
    bucket = lookup(view, name)
    if bucket is None or not bucket.row.doc.get("Cors"):
        raise Refused("AccessForbidden", "CORSResponse: CORS is not enabled for this bucket.", 403)
    raise Refused(
        "AccessForbidden",
        "CORSResponse: This CORS request is not allowed. No CORS rule of the bucket allows this Origin together with "
        "this Access-Control-Request-Method and these Access-Control-Request-Headers.",
        403,
    )

"""Lifecycle rules: what is set on a bucket, and what the rules say about an object, a version, an upload.

There is one storage class, so rules may expire and abort, not move. `expiry` applies the rules.
Source: S3 API Reference, PutBucketLifecycleConfiguration; S3 User Guide, "Lifecycle configuration elements", "Expiring
objects", "Examples of S3 Lifecycle configurations" (how days are rounded).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import quote

from bastide.domain import MICROS, Instant, Refused
from bastide.kernel import Ask, Authorised, Output
from bastide.services.s3.asking import bucket_asked, keys
from bastide.services.s3.bucket import BUCKET, Bucket, bucket_of, fresh, malformed_xml, not_implemented
from bastide.services.s3.heads import checked_tags
from bastide.store import Transaction, View

DAY: Final = 86400 * MICROS
_MOST_RULES: Final = 1000
_MOST_ID: Final = 255
_MOST_PREFIX: Final = 1024
_MOST_KEPT: Final = 100
_MOST_DAYS: Final = 2**31 - 1
_SIZES: Final = "all_storage_classes_128K"


# -- what rules say ----------------------------------------------------------------------------------------------------


def due(at: Instant, days: int) -> Instant:
    """So many days after `at`, rounded up to the next midnight UTC."""
    return (at // DAY + days + 1) * DAY


def rules(bucket: Bucket) -> list[dict[str, Any]]:
    """The rules in force."""
    return [one for one in bucket.row.doc.get("Lifecycle") or () if one["Status"] == "Enabled"]


def prefix_of(rule: Mapping[str, Any]) -> str:
    """What the keys that a rule is about begin with."""
    chosen = rule.get("Filter") or {}
    return str(rule.get("Prefix") or chosen.get("Prefix") or (chosen.get("And") or {}).get("Prefix") or "")


def applies(rule: Mapping[str, Any], key: str, tags: Mapping[str, str], size: int | None) -> bool:
    """Whether a rule is about an object; size: None for what has none, a delete marker."""
    if not key.startswith(prefix_of(rule)):
        return False
    chosen = rule.get("Filter") or {}
    both = chosen.get("And") or {}
    wanted = list(both.get("Tags") or ()) + ([chosen["Tag"]] if "Tag" in chosen else [])
    if any(tags.get(tag["Key"]) != tag["Value"] for tag in wanted):
        return False
    for where in (chosen, both):
        above, below = where.get("ObjectSizeGreaterThan"), where.get("ObjectSizeLessThan")
        if (above is not None or below is not None) and size is None:
            return False
        if (above is not None and size is not None and size <= above) or (
            below is not None and size is not None and size >= below
        ):
            return False
    return True


def expiration(bucket: Bucket, key: str, tags: Mapping[str, str], doc: Mapping[str, Any]) -> tuple[Instant, str] | None:
    """When a current version expires, and by which rule: the first to come if there are several."""
    found: list[tuple[Instant, str]] = []
    for rule in rules(bucket):
        said = rule.get("Expiration") or {}
        if ("Days" in said or "Date" in said) and applies(rule, key, tags, doc["size"]):
            found.append((said["Date"] if "Date" in said else due(doc["t"], said["Days"]), rule["ID"]))
    return min(found, default=None)


def shown(bucket: Bucket, key: str, tags: Mapping[str, str], doc: Mapping[str, Any]) -> Output:
    """What answers about a current version say of its end: ``x-amz-expiration``."""
    found = expiration(bucket, key, tags, doc)
    if found is None:
        return {}
    at, rule = found
    return {"Expiration": f'expiry-date="{formatdate(at // MICROS, usegmt=True)}", rule-id="{quote(rule, safe="")}"'}


def aborting(bucket: Bucket, key: str, begun: Instant) -> tuple[Instant, str] | None:
    """When an upload that was begun then is aborted, and by which rule."""
    found = [
        (due(begun, rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]), rule["ID"])
        for rule in rules(bucket)
        if "AbortIncompleteMultipartUpload" in rule and key.startswith(prefix_of(rule))
    ]
    return min(found, default=None)


def abort_shown(bucket: Bucket, key: str, begun: Instant) -> Output:
    """What answers about an upload say of it: ``x-amz-abort-date`` and ``x-amz-abort-rule-id``."""
    found = aborting(bucket, key, begun)
    return {} if found is None else {"AbortDate": found[0], "AbortRuleId": found[1]}


# -- what is set -------------------------------------------------------------------------------------------------------


def _invalid(message: str) -> Refused:
    return Refused("InvalidArgument", message, 400)


def _request(message: str) -> Refused:
    return Refused("InvalidRequest", message, 400)


def _positive(value: Any, what: str) -> None:
    if not 0 < value <= _MOST_DAYS:
        raise _invalid(f"{what} must be a positive integer")


def _check_filter(rule: Mapping[str, Any]) -> None:
    """One predicate, or several under And; raises Refused."""
    if ("Prefix" in rule) == ("Filter" in rule):
        raise malformed_xml()
    chosen = rule.get("Filter") or {}
    both = chosen.get("And")
    if len(chosen) > 1:
        raise malformed_xml()
    if both is not None and len(both.get("Tags") or ()) + sum(name != "Tags" for name in both) < 2:
        raise malformed_xml()
    if len(prefix_of(rule).encode("utf-8", "surrogatepass")) > _MOST_PREFIX:
        raise _request("The maximum size of a prefix is 1024.")
    tags = list((both or {}).get("Tags") or ()) + ([chosen["Tag"]] if "Tag" in chosen else [])
    if len({tag["Key"] for tag in tags}) != len(tags):
        raise _request("Duplicate Tag Keys are not allowed.")
    checked_tags([(str(tag["Key"]), str(tag["Value"])) for tag in tags])
    for where in (chosen, both or {}):
        above, below = where.get("ObjectSizeGreaterThan"), where.get("ObjectSizeLessThan")
        if any(size is not None and not 0 <= size < 2**63 for size in (above, below)):
            raise _request("An object's size in a filter may not be negative.")
        if above is not None and below is not None and below <= above:
            raise _request("'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'.")
    selective = bool(tags) or any("ObjectSize" in name for where in (chosen, both or {}) for name in where)
    if selective and "AbortIncompleteMultipartUpload" in rule:
        raise _request("AbortIncompleteMultipartUpload cannot be specified with Tags or ObjectSize.")
    if selective and "ExpiredObjectDeleteMarker" in (rule.get("Expiration") or {}):
        raise _request("ExpiredObjectDeleteMarker cannot be specified with Tags or ObjectSize.")


def _check_actions(rule: Mapping[str, Any]) -> None:
    if rule.get("Transitions") or rule.get("NoncurrentVersionTransitions"):
        raise not_implemented("A transition to another storage class (there is one, STANDARD)")
    expires, older = rule.get("Expiration"), rule.get("NoncurrentVersionExpiration")
    aborts = rule.get("AbortIncompleteMultipartUpload")
    if expires is None and older is None and aborts is None:
        raise _request("At least one action needs to be specified in a rule.")
    if expires is not None:
        if len(expires) != 1:
            raise malformed_xml()
        if "Days" in expires:
            _positive(expires["Days"], "'Days' for Expiration action")
        if "Date" in expires and expires["Date"] % DAY:
            raise _invalid("'Date' must be at midnight GMT")
    if older is not None:
        if "NoncurrentDays" not in older:
            raise malformed_xml()
        _positive(older["NoncurrentDays"], "'NoncurrentDays' for NoncurrentVersionExpiration action")
        kept = older.get("NewerNoncurrentVersions")
        if kept is not None:
            if "Filter" not in rule:
                raise _request("NewerNoncurrentVersions can only be specified in a rule with a Filter.")
            if not 0 < kept <= _MOST_KEPT:
                raise _invalid(
                    "'NewerNoncurrentVersions' for NoncurrentVersionExpiration action must be between 1 and 100"
                )
    if aborts is not None:
        if "DaysAfterInitiation" not in aborts:
            raise malformed_xml()
        _positive(aborts["DaysAfterInitiation"], "'DaysAfterInitiation' for AbortIncompleteMultipartUpload action")


def _checked(given: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    seen: set[str] = set()
    for one in given:
        rule = {name: value for name, value in one.items() if value is not None}
        if len(str(rule.get("ID") or "")) > _MOST_ID:
            raise _invalid("ID length should not exceed allowed limit of 255")
        _check_filter(rule)
        _check_actions(rule)
        if not rule.get("ID"):
            rule["ID"] = secrets.token_urlsafe(36)
        if rule["ID"] in seen:
            raise _invalid("Rule ID must be unique. Found same ID for more than one rule")
        seen.add(rule["ID"])
        found.append(rule)
    if not 0 < len(found) <= _MOST_RULES:
        raise malformed_xml()
    return found


@BUCKET.operation(
    "PutBucketLifecycleConfiguration", asks=[Ask("s3:PutLifecycleConfiguration", bucket_asked, more=keys)]
)
def put(a: Authorised, tx: Transaction) -> Output:
    found = _checked((a.input.get("LifecycleConfiguration") or {}).get("Rules") or ())
    sizes = a.input.get("TransitionDefaultMinimumObjectSize") or _SIZES
    row = fresh(tx, bucket_of(a, tx))
    row.doc |= {"Lifecycle": found, "LifecycleSizes": sizes}
    BUCKET.change(tx, row, a.operation.name, a.request.id)
    return {"TransitionDefaultMinimumObjectSize": sizes}


@BUCKET.reads("GetBucketLifecycleConfiguration", asks=[Ask("s3:GetLifecycleConfiguration", bucket_asked, more=keys)])
def get(a: Authorised, view: View) -> Output:
    bucket = bucket_of(a, view)
    found = bucket.row.doc.get("Lifecycle")
    if not found:
        raise Refused(
            "NoSuchLifecycleConfiguration",
            "The lifecycle configuration does not exist",
            404,
            members={"BucketName": bucket.name},
        )
    return {"Rules": found, "TransitionDefaultMinimumObjectSize": bucket.row.doc.get("LifecycleSizes", _SIZES)}


@BUCKET.operation("DeleteBucketLifecycle", asks=[Ask("s3:PutLifecycleConfiguration", bucket_asked, more=keys)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = fresh(tx, bucket_of(a, tx))
    if row.doc.pop("Lifecycle", None) is not None:
        row.doc.pop("LifecycleSizes", None)
        BUCKET.change(tx, row, a.operation.name, a.request.id)
    return {}

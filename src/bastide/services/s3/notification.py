"""Event notifications: what is set on a bucket, and the events of its objects, which leave through the outbox.

What is told, and to whom, is written in the transaction of the change under the topic `TOPIC`; `telling` delivers it. A new
destination is sent a test message first, unless it is not to be validated. Source: S3 User Guide, "Amazon S3 Event
Notifications", "Event message structure", "EventBridge event message structure"; S3 API Reference,
PutBucketNotificationConfiguration.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote_plus

from bastide.domain import Arn, Instant, Refused, iso, new_id
from bastide.kernel import Ask, Authorised, Output
from bastide.services.s3.asking import bucket_asked, keys
from bastide.services.s3.bucket import BUCKET, Bucket, bucket_of, canonical_id, fresh
from bastide.services.s3.telling import TOPIC, validate
from bastide.store import Transaction, View

_KINDS: Final = {
    "TopicConfigurations": ("TopicArn", "sns"),
    "QueueConfigurations": ("QueueArn", "sqs"),
    "LambdaFunctionConfigurations": ("LambdaFunctionArn", "lambda"),
}
_MOST_ID: Final = 255
_MOST_VALUE: Final = 1024
_DETAIL: Final = {
    "ObjectCreated:Put": ("Object Created", "PutObject"),
    "ObjectCreated:Post": ("Object Created", "POST Object"),
    "ObjectCreated:Copy": ("Object Created", "CopyObject"),
    "ObjectCreated:CompleteMultipartUpload": ("Object Created", "CompleteMultipartUpload"),
    "ObjectRemoved:Delete": ("Object Deleted", "DeleteObject"),
    "ObjectRemoved:DeleteMarkerCreated": ("Object Deleted", "DeleteObject"),
    "LifecycleExpiration:Delete": ("Object Deleted", "Lifecycle Expiration"),
    "LifecycleExpiration:DeleteMarkerCreated": ("Object Deleted", "Lifecycle Expiration"),
    "ObjectTagging:Put": ("Object Tags Added", ""),
    "ObjectTagging:Delete": ("Object Tags Deleted", ""),
}
"""How EventBridge names them, and the reason it gives."""


# -- telling -----------------------------------------------------------------------------------------------------------


def happened(
    a: Authorised, tx: Transaction, bucket: Bucket, event: str, key: str, doc: Mapping[str, Any], version: str | None
) -> None:
    """Tells what a call has done to an object; doc: of the version, empty if it is gone or a marker."""
    if bucket.row.doc.get("Notification"):
        tell(
            tx, bucket, event, key, doc,
            version=version, now=a.now, request_id=a.request.id, who=a.caller.user_id, source=a.request.source_ip,
            requester=a.account,
        )  # fmt: skip


def tell(
    tx: Transaction,
    bucket: Bucket,
    event: str,
    key: str,
    doc: Mapping[str, Any],
    *,
    version: str | None,
    now: Instant,
    request_id: str,
    who: str,
    source: str,
    requester: str = "s3.amazonaws.com",
) -> None:
    """Puts an event (``ObjectCreated:Put``) into the outbox, once for each destination that wants it."""
    found = bucket.row.doc.get("Notification")
    if not found:
        return
    sequencer = f"{doc.get('n', now):018X}"
    for member, (destination, _) in _KINDS.items():
        for one in found.get(member) or ():
            if _wants(one, event, key):
                told = _record(bucket, event, key, doc, version, now, request_id, who, source, one["Id"], sequencer)
                where = {
                    "id": new_id(),
                    "account": bucket.account,
                    "bucket": bucket.arn,
                    "destination": one[destination],
                }
                tx.emit(TOPIC, {**where, "message": {"Records": [told]}})
    if "EventBridgeConfiguration" in found and event in _DETAIL:
        tx.emit(
            TOPIC,
            {
                "destination": f"arn:aws:events:{bucket.region}:{bucket.account}:event-bus/default",
                "message": _bridged(bucket, event, key, doc, version, now, request_id, requester, source, sequencer),
            },
        )


def _wants(one: Mapping[str, Any], event: str, key: str) -> bool:
    family = f"s3:{event.partition(':')[0]}:*"
    if not any(wanted in (f"s3:{event}", family) for wanted in one["Events"]):
        return False
    prefix, suffix = _affixes(one)
    return key.startswith(prefix) and key.endswith(suffix)


def _record(
    bucket: Bucket,
    event: str,
    key: str,
    doc: Mapping[str, Any],
    version: str | None,
    now: Instant,
    request_id: str,
    who: str,
    source: str,
    id: str,
    sequencer: str,
) -> dict[str, Any]:
    about: dict[str, Any] = {"key": quote_plus(key, safe="/"), "sequencer": sequencer}
    if "size" in doc and not event.endswith(":Delete"):
        about |= {"size": doc["size"], "eTag": doc["etag"]}
    if version is not None:
        about["versionId"] = version
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": bucket.region,
        "eventTime": f"{iso(now, fraction=True)[:-4]}Z",
        "eventName": event,
        "userIdentity": {"principalId": who},
        "requestParameters": {"sourceIPAddress": source},
        "responseElements": {"x-amz-request-id": request_id, "x-amz-id-2": ""},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": id,
            "bucket": {
                "name": bucket.name,
                "ownerIdentity": {"principalId": canonical_id(bucket.account)},
                "arn": bucket.arn,
            },
            "object": about,
        },
    }


def _bridged(
    bucket: Bucket,
    event: str,
    key: str,
    doc: Mapping[str, Any],
    version: str | None,
    now: Instant,
    request_id: str,
    requester: str,
    source: str,
    sequencer: str,
) -> dict[str, Any]:
    kind, reason = _DETAIL[event]
    about: dict[str, Any] = {"key": key, "sequencer": sequencer}
    if "etag" in doc:
        about["etag"] = doc["etag"]
        if kind == "Object Created":
            about["size"] = doc["size"]
    if version is not None:
        about["version-id"] = version
    detail: dict[str, Any] = {"version": "0", "bucket": {"name": bucket.name}, "object": about, "requester": requester}
    if request_id:
        detail |= {"request-id": request_id, "source-ip-address": source}
    if reason:
        detail["reason"] = reason
    if kind == "Object Deleted":
        marker = event.endswith("DeleteMarkerCreated")
        detail["deletion-type"] = "Delete Marker Created" if marker else "Permanently Deleted"
    return {
        "version": "0",
        "id": new_id(),
        "detail-type": kind,
        "source": "aws.s3",
        "account": bucket.account,
        "time": iso(now),
        "region": bucket.region,
        "resources": [bucket.arn],
        "detail": detail,
    }


# -- what is set -------------------------------------------------------------------------------------------------------


def _invalid(message: str, name: str = "", value: str = "") -> Refused:
    members = {"ArgumentName": name, "ArgumentValue": value[:1024]} if name else {}
    return Refused("InvalidArgument", message, 400, members=members)


def _affixes(one: Mapping[str, Any]) -> tuple[str, str]:
    found = {"prefix": "", "suffix": ""}
    for rule in ((one.get("Filter") or {}).get("Key") or {}).get("FilterRules") or ():
        found[str(rule["Name"]).lower()] = str(rule.get("Value") or "")
    return found["prefix"], found["suffix"]


def _check(one: Mapping[str, Any], service: str, arn: str, bucket: Bucket) -> None:
    if len(str(one.get("Id") or "")) > _MOST_ID:
        raise _invalid("The ID must be at most 255 characters long.")
    if not one["Events"]:
        raise _invalid("An event configuration must name an event.")
    try:
        parsed = Arn.parse(arn)
    except ValueError:
        raise _invalid("The ARN could not be parsed", "ARN", arn) from None
    if parsed.service != service or not parsed.account or not parsed.resource:
        raise _invalid("The ARN is not well formed", "ARN", arn)
    if parsed.region != bucket.region:
        raise _invalid(
            "The notification destination service region is not valid for the bucket location constraint", "ARN", arn
        )
    if service in ("sns", "sqs") and parsed.resource.endswith(".fifo"):
        raise _invalid("FIFO SNS topics and SQS queues are not supported as destinations", "ARN", arn)
    seen: set[str] = set()
    for rule in ((one.get("Filter") or {}).get("Key") or {}).get("FilterRules") or ():
        name = str(rule.get("Name") or "").lower()
        if name not in ("prefix", "suffix"):
            raise _invalid("filter rule name must be either prefix or suffix", "FilterRule.Name", name)
        if name in seen:
            raise _invalid(f"Cannot specify more than one {name} rule in a filter.", "FilterRule.Name", name)
        seen.add(name)
        value = str(rule.get("Value") or "")
        if len(value.encode("utf-8", "surrogatepass")) > _MOST_VALUE:
            raise _invalid("Size of filter rule value cannot exceed 1024 bytes in UTF-8 representation")


def _share(one: str, other: str) -> bool:
    """Whether two events, or a family and one of its events, are told for the same thing."""
    if one == other:
        return True
    families = [text[:-1] for text in (one, other) if text.endswith("*")]
    return any(one.startswith(family) and other.startswith(family) for family in families)


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if not any(_share(mine, yours) for mine in one["Events"] for yours in other["Events"]):
        return False
    (prefix, suffix), (other_prefix, other_suffix) = _affixes(one), _affixes(other)
    return (prefix.startswith(other_prefix) or other_prefix.startswith(prefix)) and (
        suffix.endswith(other_suffix) or other_suffix.endswith(suffix)
    )


def _all(given: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for member, (destination, service) in _KINDS.items():
        for one in given.get(member) or ():
            yield destination, service, one


_MOST: Final = 100


async def _validate(a: Authorised) -> None:
    """Sends each destination that is new a test message; raises InvalidArgument where that cannot be."""
    with a.calls.store.reading() as view:
        bucket = bucket_of(a, view)
        known = {one[name] for name, _, one in _all(bucket.row.doc.get("Notification") or {})}
    found = _checked(a, bucket)
    if a.input.get("SkipDestinationValidation"):
        return
    for name, _, one in found:
        if one[name] in known:
            continue
        try:
            await validate(a, bucket, one[name])
        except Refused as refused:
            raise _invalid(
                "Unable to validate the following destination configurations",
                one[name],
                f"The destination does not exist or Amazon S3 may not publish to it: {refused.code}",
            ) from None
        known.add(one[name])


def _checked(a: Authorised, bucket: Bucket) -> list[tuple[str, str, dict[str, Any]]]:
    found = list(_all(a.input["NotificationConfiguration"]))
    if len(found) > _MOST:
        raise _invalid("There are more than 100 configurations.")
    for place, (destination, service, one) in enumerate(found):
        _check(one, service, one[destination], bucket)
        if any(_overlap(one, other) for _, _, other in found[:place]):
            raise _invalid(
                "Configurations overlap. Configurations on the same bucket cannot share a common event type."
            )
        one["Id"] = one.get("Id") or secrets.token_urlsafe(36)
    if len({one["Id"] for _, _, one in found}) != len(found):
        raise _invalid("Same ID used for multiple configurations. IDs must be unique")
    return found


@BUCKET.operation(
    "PutBucketNotificationConfiguration",
    asks=[Ask("s3:PutBucketNotification", bucket_asked, more=keys)],
    before=_validate,
)
def put(a: Authorised, tx: Transaction) -> Output:
    given = a.input["NotificationConfiguration"]
    bucket = bucket_of(a, tx)
    _checked(a, bucket)
    row = fresh(tx, bucket)
    row.doc["Notification"] = {name: value for name, value in given.items() if value is not None and value != []}
    if not row.doc["Notification"]:
        del row.doc["Notification"]
    BUCKET.change(tx, row, a.operation.name, a.request.id)
    return {}


@BUCKET.reads("GetBucketNotificationConfiguration", asks=[Ask("s3:GetBucketNotification", bucket_asked, more=keys)])
def get(a: Authorised, view: View) -> Output:
    return dict(bucket_of(a, view).row.doc.get("Notification") or {})

"""Lifecycle rules applied: what has expired is removed, by the hour.

Nothing is remembered between two rounds: what is due follows from the rows, so a round that a crash cut short is begun
again. Every removal is looked at once more in the transaction that does it, and goes the way of a DeleteObject.
Source: S3 User Guide, "Managing the lifecycle of objects", "Expiring objects".
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Instant, Refused, iso, timed_id
from bastide.engines.artifacts import Artifacts
from bastide.kernel import Rounds
from bastide.services.s3 import lifecycle, notification
from bastide.services.s3.asking import object_arn
from bastide.services.s3.bucket import NAME, Bucket, lookup
from bastide.services.s3.completing import give_up
from bastide.services.s3.upload import UPLOAD
from bastide.services.s3.versions import OBJECT, VERSION, Garbage, remove
from bastide.store import Event, Row, Transaction, View

_HOUR: Final = 3600 * MICROS
_READ_AT_ONCE: Final = 500
_REMOVED_AT_ONCE: Final = 100
PRINCIPAL: Final = "s3.amazonaws.com"
AGENT: Final = "lifecycle.s3.amazonaws.com"


class Expiry(Rounds):
    """The loop that applies the rules of all buckets, an hour after the last round began by the platform's clock."""

    every = _HOUR

    async def round(self) -> None:
        """See the base."""
        await self.each(NAME.key, self._bucket)

    async def _bucket(self, name: str) -> None:
        for kind in (OBJECT.key, VERSION.key, UPLOAD.key):
            await self._walk(name, kind)

    async def _walk(self, name: str, kind: str) -> None:
        after: str | None = None
        while True:
            now = self._calls.clock()
            with self._calls.store.reading() as view:
                bucket = lookup(view, name)
                rules = lifecycle.rules(bucket) if bucket is not None else []
                if bucket is None or not rules:
                    return
                head = f"{name}/{_shared([lifecycle.prefix_of(rule) for rule in rules])}"
                rows = view.scan(kind, bucket.account, bucket.region, prefix=head, after=after, limit=_READ_AT_ONCE)
                expired = [row.name for row in rows if judge(view, bucket, row, now) is not None]
            for start in range(0, len(expired), _REMOVED_AT_ONCE):
                await self._remove(name, kind, expired[start : start + _REMOVED_AT_ONCE])
            if len(rows) < _READ_AT_ONCE:
                return
            after = rows[-1].name
            await asyncio.sleep(0)

    async def _remove(self, name: str, kind: str, expired: Sequence[str]) -> None:
        garbage = Garbage()
        now = self._calls.clock()

        def work(tx: Transaction) -> None:
            bucket = lookup(tx, name)
            if bucket is None:
                return
            for one in expired:
                row = tx.get(kind, bucket.account, bucket.region, one)
                rule = judge(tx, bucket, row, now) if row is not None else None
                if row is not None and rule is not None:
                    # What may not be deleted, a locked version, stays until it may.
                    with contextlib.suppress(Refused), tx.savepoint():
                        tx.record([_apply(tx, bucket, row, rule, now, garbage)])

        await self._calls.store.write(work)
        artifacts = self._calls.engine(Artifacts)
        for id in garbage.ids:
            await artifacts.delete(id)


def _shared(prefixes: Sequence[str]) -> str:
    """What all of them begin with."""
    first, last = min(prefixes), max(prefixes)
    end = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), None)
    return first[: min(len(first), len(last)) if end is None else end]


def judge(view: View, bucket: Bucket, row: Row, now: Instant) -> str | None:
    """The id of the rule by which an object, an older version or an upload has to go by now; None if it may stay."""
    key = row.name[len(bucket.name) + 1 :].partition("\0")[0]
    doc = row.doc
    if row.kind == UPLOAD.key:
        found = lifecycle.aborting(bucket, key, doc["t"])
        return found[1] if found is not None and found[0] <= now else None
    if row.kind == VERSION.key:
        return _judge_older(view, bucket, key, row, now)
    if not doc.get("dm"):
        found = lifecycle.expiration(bucket, key, row.tags, doc)
        return found[1] if found is not None and found[0] <= now else None
    return _judge_marker(view, bucket, key, doc, now)


def _judge_older(view: View, bucket: Bucket, key: str, row: Row, now: Instant) -> str | None:
    doc = row.doc
    if "since" not in doc:
        return None
    for rule in lifecycle.rules(bucket):
        said = rule.get("NoncurrentVersionExpiration")
        if said is None or lifecycle.due(doc["since"], said["NoncurrentDays"]) > now:
            continue
        if not lifecycle.applies(rule, key, row.tags, None if doc.get("dm") else doc["size"]):
            continue
        kept = said.get("NewerNoncurrentVersions")
        if kept is not None:
            head = f"{bucket.name}/{key}\0"
            newest = view.scan(VERSION.key, bucket.account, bucket.region, prefix=head, limit=kept)
            if any(one.name == row.name for one in newest):
                continue
        return str(rule["ID"])
    return None


def _judge_marker(view: View, bucket: Bucket, key: str, doc: dict[str, Any], now: Instant) -> str | None:
    """A delete marker goes when nothing is behind it: by a rule that says so, or one whose days have passed."""
    for rule in lifecycle.rules(bucket):
        said = rule.get("Expiration") or {}
        aged = "Days" in said and lifecycle.due(doc["t"], said["Days"]) <= now
        if not (said.get("ExpiredObjectDeleteMarker") or aged) or not lifecycle.applies(rule, key, {}, None):
            continue
        head = f"{bucket.name}/{key}\0"
        if not view.scan(VERSION.key, bucket.account, bucket.region, prefix=head, limit=1):
            return str(rule["ID"])
    return None


def _apply(tx: Transaction, bucket: Bucket, row: Row, rule: str, now: Instant, garbage: Garbage) -> Event:
    """Removes what a rule says; returns the record of it."""
    key, _, upload = row.name[len(bucket.name) + 1 :].partition("\0")
    told: dict[str, Any] = {"bucketName": bucket.name, "key": key}
    if row.kind == UPLOAD.key:
        give_up(tx, bucket, row, garbage)
        return _record(bucket, "AbortMultipartUpload", told | {"uploadId": upload}, rule, now)
    id = row.doc["v"] if row.kind == VERSION.key or row.doc.get("dm") else None
    marker, answered = remove(tx, bucket, key, id, now, garbage)
    made = id is None and marker
    event = "LifecycleExpiration:DeleteMarkerCreated" if made else "LifecycleExpiration:Delete"
    notification.tell(
        tx,
        bucket,
        event,
        key,
        {} if made else row.doc,
        version=answered,
        now=now,
        request_id="",
        who=PRINCIPAL,
        source="",
    )
    if answered is not None:
        told["versionId"] = answered
    return _record(bucket, "DeleteObject", told, rule, now)


def _record(bucket: Bucket, name: str, told: dict[str, Any], rule: str, now: Instant) -> Event:
    """An entry of what a service did by itself (CloudTrail User Guide, "AWS service events"), in the owner's account."""
    id = timed_id(now)
    arn = object_arn(bucket.name, told["key"])
    record: dict[str, Any] = {
        "eventVersion": "1.11",
        "userIdentity": {"type": "AWSService", "invokedBy": PRINCIPAL},
        "eventTime": iso(now),
        "eventSource": PRINCIPAL,
        "eventName": name,
        "awsRegion": bucket.region,
        "sourceIPAddress": PRINCIPAL,
        "userAgent": AGENT,
        "requestParameters": told,
        "responseElements": None,
        "requestID": id,
        "eventID": id,
        "readOnly": False,
        "eventType": "AwsServiceEvent",
        "managementEvent": False,
        "eventCategory": "Data",
        "recipientAccountId": bucket.account,
        "resources": [
            {"ARN": arn, "type": "AWS::S3::Object"},
            {"ARN": bucket.arn, "type": "AWS::S3::Bucket", "accountId": bucket.account},
        ],
        "serviceEventDetails": {"reason": "Lifecycle Expiration", "ruleId": rule},
        "additionalEventData": {"bastide": {"questions": []}},
    }
    return Event(
        bucket.account, now, id, name, PRINCIPAL, PRINCIPAL, "", False, "Data", "", id,
        (arn, told["key"].rpartition("/")[2], bucket.arn, bucket.name), orjson.dumps(record),
    )  # fmt: skip

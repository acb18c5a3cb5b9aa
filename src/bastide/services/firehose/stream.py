"""Delivery streams to S3: made, shown, tagged, written to, removed.

Source: Amazon Data Firehose API Reference; Developer Guide, "Configure destination settings".
"""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.domain import Instant, Refused, tag_list, tag_map
from bastide.domain.schedule import NoSchedule, zone
from bastide.engines.telemetry import Meter
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything
from bastide.services.firehose.prefix import checked as checked_prefix
from bastide.store import Row, Transaction, View

STREAM: Final = Kind(
    "DeliveryStream",
    service="firehose",
    arn="deliverystream/{}",
    missing=("ResourceNotFoundException", "Firehose {name} not found under account.", 400),
    taken=("ResourceInUseException", "Firehose {name} under account already exists.", 400),
)
RECORD: Final = "firehose:Record:"
"""With the stream's id behind it: rows by number, sealed."""
INDEX: Final = "firehose:StreamIndex"
"""Under account "": ARNs of streams, for whoever delivers."""
PURPOSE: Final = "firehose/record"
_MOST_STREAMS: Final = 5000
_MOST_RECORD: Final = 1_024_000
_MOST_BATCH: Final = 4 << 20
_MOST_RECORDS: Final = 500
_BUCKET: Final = re.compile(r"arn:aws:s3:::[a-z0-9.-]{3,63}")
_ROLE: Final = re.compile(r"arn:aws:iam::\d{12}:role/.{1,512}")
_MEMBERS: Final = (
    "RoleARN", "BucketARN", "Prefix", "ErrorOutputPrefix", "BufferingHints", "CompressionFormat", "EncryptionConfiguration",
    "FileExtension", "CustomTimeZone",
)  # fmt: skip
_OFF: Final[Mapping[str, Any]] = {
    "CloudWatchLoggingOptions": lambda value: not value.get("Enabled"),
    "ProcessingConfiguration": lambda value: not value.get("Enabled"),
    "DataFormatConversionConfiguration": lambda value: value.get("Enabled") is False,
    "DynamicPartitioningConfiguration": lambda value: not value.get("Enabled"),
    "S3BackupMode": lambda value: value == "Disabled",
}
"""What may be given as long as it is switched off."""


class _Numbers:
    def __init__(self) -> None:
        self._last = 0

    def next(self, now: Instant) -> str:
        self._last = max(self._last + 1, now * 1000)
        return f"{self._last:020d}"


_numbers = _Numbers()


def wrong(message: str) -> Refused:
    """InvalidArgumentException."""
    return Refused("InvalidArgumentException", message)


def _destination(given: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    held: dict[str, Any] = dict(before or {})
    for name, value in given.items():
        if value is None:
            continue
        if name in _OFF:
            if not _OFF[name](value):
                raise wrong(f"{name} is not supported by Bastide yet.")
        elif name not in _MEMBERS:
            raise wrong(f"{name} of a destination is not supported by Bastide yet.")
        else:
            held[name] = value
    if not _BUCKET.fullmatch(held["BucketARN"]) or not _ROLE.fullmatch(held["RoleARN"]):
        raise wrong("BucketARN is the ARN of a bucket, and RoleARN of a role.")
    hints = {"SizeInMBs": 5, "IntervalInSeconds": 300, **(held.get("BufferingHints") or {})}
    held["BufferingHints"] = hints
    if not 1 <= hints["SizeInMBs"] <= 128 or not 0 <= hints["IntervalInSeconds"] <= 900:
        raise wrong("BufferingHints: SizeInMBs is 1 to 128, IntervalInSeconds 0 to 900.")
    held.setdefault("CompressionFormat", "UNCOMPRESSED")
    if held["CompressionFormat"] not in ("UNCOMPRESSED", "GZIP"):
        raise wrong(f"CompressionFormat {held['CompressionFormat']} is not supported: UNCOMPRESSED and GZIP are.")
    held.setdefault("EncryptionConfiguration", {"NoEncryptionConfig": "NoEncryption"})
    checked_prefix(held.get("Prefix") or "")
    if "!{" in (held.get("Prefix") or "") and not held.get("ErrorOutputPrefix"):
        raise wrong("ErrorOutputPrefix cannot be null or empty when Prefix contains expressions.")
    if not re.fullmatch(r"(\.[0-9a-z!\-_.*'()]{0,127})?", held.get("FileExtension") or ""):
        raise wrong("FileExtension begins with a period.")
    try:
        zone(held.get("CustomTimeZone") or "UTC")
    except NoSchedule as error:
        raise wrong(f"CustomTimeZone: {error}") from None
    return held


def _passed(asked: Asked) -> Iterable[str]:
    return [
        str(one["RoleARN"])
        for name in ("ExtendedS3DestinationConfiguration", "S3DestinationConfiguration", "ExtendedS3DestinationUpdate",
                     "S3DestinationUpdate")
        if (one := asked.input.get(name)) and one.get("RoleARN")
    ]  # fmt: skip


_PASS: Final = Ask(
    "iam:PassRole",
    _passed,
    given={
        "iam:PassedToService": lambda _: "firehose.amazonaws.com",
        "iam:AssociatedResourceArn": lambda asked: list(STREAM.this(asked)),
    },
)


@STREAM.operation(
    "CreateDeliveryStream",
    asks=[
        Ask("firehose:CreateDeliveryStream", STREAM.this),
        Ask("firehose:TagDeliveryStream", STREAM.this, when=lambda asked: bool(asked.input.get("Tags"))),
        _PASS,
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    known = ("DeliveryStreamName", "DeliveryStreamType", "S3DestinationConfiguration",
             "ExtendedS3DestinationConfiguration", "Tags")  # fmt: skip
    for name, value in given.items():
        if value is not None and name not in known:
            raise wrong(f"{name} is not supported by Bastide yet.")
    if given.get("DeliveryStreamType") not in (None, "DirectPut"):
        raise wrong("DeliveryStreamType: DirectPut is supported.")
    places = [given[name] for name in known[2:4] if given.get(name)]
    if len(places) != 1:
        raise wrong("Exactly one destination configuration is supported for a Firehose.")
    doc = {
        "id": uuid.uuid4().hex, "version": 1, "extended": bool(given.get(known[3])), "to": _destination(places[0]),
    }  # fmt: skip
    if len(tx.scan(STREAM.key, a.account, a.region, limit=_MOST_STREAMS)) >= _MOST_STREAMS:
        raise Refused("LimitExceededException", f"An account has at most {_MOST_STREAMS} delivery streams.")
    tags = tag_map(given.get("Tags"), code="InvalidArgumentException")
    row = STREAM.create(a, tx, given["DeliveryStreamName"], doc, status="ACTIVE", tags=tags)
    arn = STREAM.arn(a.account, a.region, row.name)
    tx.insert(Row(INDEX, "", "", arn, {}), keep=False)
    return {"DeliveryStreamARN": arn}


@STREAM.operation("UpdateDestination", asks=[Ask("firehose:UpdateDestination", STREAM.this), _PASS])
def update(a: Authorised, tx: Transaction) -> Output:
    row, given = STREAM.named(a, tx), a.input
    known = ("DeliveryStreamName", "CurrentDeliveryStreamVersionId", "DestinationId", "S3DestinationUpdate",
             "ExtendedS3DestinationUpdate")  # fmt: skip
    for name, value in given.items():
        if value is not None and name not in known:
            raise wrong(f"{name} is not supported by Bastide yet.")
    if given["DestinationId"] != _DESTINATION:
        raise wrong("The delivery stream has no such destination.")
    if given["CurrentDeliveryStreamVersionId"] != str(row.doc["version"]):
        raise Refused("ConcurrentModificationException", "Cannot update firehose: the version is not the current one.")
    for name in known[3:]:
        if given.get(name):
            row.doc["to"] = _destination(given[name], row.doc["to"])
    row.doc["version"] += 1
    STREAM.change(tx, row, a.operation.name, a.request.id)
    return {}


_DESTINATION: Final = "destinationId-000000000001"


@STREAM.reads("DescribeDeliveryStream", asks=[Ask("firehose:DescribeDeliveryStream", STREAM.this)])
def describe(a: Authorised, view: View) -> Output:
    row = STREAM.named(a, view)
    to = row.doc["to"]
    plain = {name: value for name, value in to.items() if name not in ("FileExtension", "CustomTimeZone")}
    destination: Output = {"DestinationId": _DESTINATION, "S3DestinationDescription": plain}
    if row.doc["extended"]:
        destination["ExtendedS3DestinationDescription"] = {**to, "S3BackupMode": "Disabled"}
    return {
        "DeliveryStreamDescription": {
            "DeliveryStreamName": row.name, "DeliveryStreamARN": STREAM.arn(row.account, row.region, row.name),
            "DeliveryStreamStatus": row.status, "DeliveryStreamType": "DirectPut", "VersionId": str(row.doc["version"]),
            "CreateTimestamp": row.created, "LastUpdateTimestamp": row.modified, "Destinations": [destination],
            "DeliveryStreamEncryptionConfiguration": {"Status": "DISABLED"}, "HasMoreDestinations": False,
        }
    }  # fmt: skip


@STREAM.reads("ListDeliveryStreams", asks=[Ask("firehose:ListDeliveryStreams", anything)])
def listed(a: Authorised, view: View) -> Output:
    limit = int(a.input.get("Limit") or 10)
    if a.input.get("DeliveryStreamType") not in (None, "DirectPut"):
        return {"DeliveryStreamNames": [], "HasMoreDeliveryStreams": False}
    after = a.input.get("ExclusiveStartDeliveryStreamName")
    rows = view.scan(STREAM.key, a.account, a.region, after=after, limit=limit + 1)
    return {"DeliveryStreamNames": [row.name for row in rows[:limit]], "HasMoreDeliveryStreams": len(rows) > limit}


@STREAM.operation("DeleteDeliveryStream", asks=[Ask("firehose:DeleteDeliveryStream", STREAM.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    if a.input.get("AllowForceDelete"):
        raise wrong("AllowForceDelete is not needed: nothing waits for a key here.")
    row = STREAM.named(a, tx)
    held = tx.get(INDEX, "", "", STREAM.arn(row.account, row.region, row.name))
    if held is not None:
        tx.delete(held, keep=False)
    while records := tx.scan(f"{RECORD}{row.doc['id']}", row.account, row.region, limit=500):
        for one in records:
            tx.delete(one, keep=False)
    STREAM.remove(tx, row, a.operation.name, a.request.id)
    return {}


# -- writing -----------------------------------------------------------------------------------------------------------


def _put(a: Authorised, tx: Transaction, row: Row, data: bytes) -> str:
    if len(data) > _MOST_RECORD:
        raise wrong(f"A record has at most {_MOST_RECORD} bytes.")
    number = _numbers.next(tx.now)
    text = a.calls.sealer.seal(data, PURPOSE)
    tx.insert(
        Row(f"{RECORD}{row.doc['id']}", row.account, row.region, number, {"x": text, "size": len(data)}), keep=False
    )
    meter, where = a.engine(Meter), (("DeliveryStreamName", row.name),)
    meter.record(row.account, row.region, "AWS/Firehose", where, "IncomingRecords", 1.0, "Count")
    meter.record(row.account, row.region, "AWS/Firehose", where, "IncomingBytes", float(len(data)), "Bytes")
    return base64.b64encode(f"{row.doc['id']}/{number}".encode()).decode()


@STREAM.operation("PutRecord", asks=[Ask("firehose:PutRecord", STREAM.this)], data=True)
def put(a: Authorised, tx: Transaction) -> Output:
    return {"RecordId": _put(a, tx, STREAM.named(a, tx), a.input["Record"]["Data"]), "Encrypted": False}


@STREAM.operation("PutRecordBatch", asks=[Ask("firehose:PutRecordBatch", STREAM.this)], data=True)
def put_batch(a: Authorised, tx: Transaction) -> Output:
    row, records = STREAM.named(a, tx), a.input["Records"]
    if len(records) > _MOST_RECORDS or sum(len(one["Data"]) for one in records) > _MOST_BATCH:
        raise wrong(f"A batch has at most {_MOST_RECORDS} records, and 4 MiB together.")
    ids = [{"RecordId": _put(a, tx, row, one["Data"])} for one in records]
    return {"FailedPutCount": 0, "Encrypted": False, "RequestResponses": ids}


# -- tags --------------------------------------------------------------------------------------------------------------


@STREAM.operation("TagDeliveryStream", asks=[Ask("firehose:TagDeliveryStream", STREAM.this)])
def tag(a: Authorised, tx: Transaction) -> Output:
    row = STREAM.named(a, tx)
    row.tags = {**row.tags, **tag_map(a.input["Tags"], code="InvalidArgumentException")}
    if len(row.tags) > 50:
        raise Refused("LimitExceededException", "A delivery stream has at most 50 tags.")
    STREAM.change(tx, row, a.operation.name, a.request.id)
    return {}


@STREAM.operation("UntagDeliveryStream", asks=[Ask("firehose:UntagDeliveryStream", STREAM.this)])
def untag(a: Authorised, tx: Transaction) -> Output:
    row = STREAM.named(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["TagKeys"]}
    STREAM.change(tx, row, a.operation.name, a.request.id)
    return {}


@STREAM.reads("ListTagsForDeliveryStream", asks=[Ask("firehose:ListTagsForDeliveryStream", STREAM.this)])
def list_tags(a: Authorised, view: View) -> Output:
    row, after, limit = STREAM.named(a, view), a.input.get("ExclusiveStartTagKey"), int(a.input.get("Limit") or 50)
    keys = sorted(key for key in row.tags if after is None or key > after)
    return {"Tags": tag_list({key: row.tags[key] for key in keys[:limit]}), "HasMoreTags": len(keys) > limit}

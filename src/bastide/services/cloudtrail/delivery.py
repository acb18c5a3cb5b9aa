"""Delivery: recorded events travel into the bucket of each trail that logs, as the service cloudtrail.amazonaws.com; a
topic is told of each file, and a log group gets each event as a line.

The policies of bucket and topic decide, and the role of the log group, as on AWS. A file is written before the trail's
cursor moves, so that a crash between the two delivers twice rather than never; the file's name follows from the events, so
that twice is the same file. Topic and log group hold nothing up: what they refuse, the trail's status says.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bastide.domain import Arn, Refused, iso
from bastide.kernel import Bytes, Caller, Calls, Rounds, service_caller
from bastide.services.cloudtrail.selection import PRINCIPAL, Selection
from bastide.services.cloudtrail.telling import Telling
from bastide.services.cloudtrail.trail import INDEX, TRAIL
from bastide.store import Event, Transaction

_BATCH = 500
_LINES: Final = 900_000
"""Bytes of one PutLogEvents, which takes a megabyte."""
INTERVAL_SECONDS = 2.0


@dataclass
class _Round:
    """What one batch of a trail comes to."""

    trail: Arn
    doc: dict[str, Any]
    cursor: int
    told: dict[str, Any] = field(default_factory=dict)
    """Members of the trail's status that changed."""


class Delivery(Rounds):
    """The loop that delivers."""

    seconds = INTERVAL_SECONDS

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls)
        self._telling = Telling(calls)

    async def round(self) -> None:
        """See the base."""
        await self._telling.round()
        await self.each(INDEX, self._deliver)

    async def _deliver(self, name: str) -> bool:
        """Delivers the next batch; whether there may be more that can be delivered now."""
        trail = Arn.parse(name)
        with self._calls.store.reading() as view:
            row = TRAIL.get(view, trail.account, trail.region, trail.name)
            if row is None or "StartLoggingTime" not in row.doc:
                return False
            events = view.events_after(row.doc["Cursor"], limit=_BATCH)
        if not events:
            return False
        selection = Selection(self._calls, trail, row.doc)
        groups: dict[tuple[str, str], list[Event]] = {}
        found = _Round(trail, row.doc, row.doc["Cursor"])
        for event in events:
            record = orjson.loads(event.body)
            if selection.takes(event, record):
                groups.setdefault((event.account, str(record["awsRegion"])), []).append(event)
        files, refused = [], None
        for (account, region), chosen in groups.items():
            try:
                files.append(await self._put(trail, row.doc, account, region, chosen))
            except Refused as error:
                refused = error.code
        if refused is not None:
            found.told = {"LatestDeliveryError": refused}
            await self._advance(found)
            return False
        found.cursor, found.told["LatestDeliveryError"] = events[-1].seq, None
        await self._notify(found, files)
        await self._log(found, groups)
        await self._advance(found, delivered=bool(groups))
        return len(events) == _BATCH

    async def _put(self, trail: Arn, doc: dict[str, Any], account: str, region: str, events: list[Event]) -> str:
        """Writes a file; its key. Raises Refused."""
        records = b",".join(event.body for event in events)
        content = gzip.compress(b'{"Records":[' + records + b"]}", mtime=0)
        at = iso(events[-1].at)
        day = at[:10].replace("-", "/")
        mark = hashlib.sha256("".join(event.id for event in events).encode()).hexdigest()[:16]
        stamp = at.replace("-", "").replace(":", "")[:13] + "Z"
        prefix = f"{doc['S3KeyPrefix']}/" if doc["S3KeyPrefix"] else ""
        key = (
            f"{prefix}AWSLogs/{account}/CloudTrail/{region}/{day}/{account}_CloudTrail_{region}_{stamp}_{mark}.json.gz"
        )
        await self._calls.act(
            service_caller(PRINCIPAL, trail.account, str(trail)),
            "s3",
            "PutObject",
            {
                "Bucket": doc["S3BucketName"],
                "Key": key,
                "ACL": "bucket-owner-full-control",
                "ContentType": "application/json",
                "ContentEncoding": "gzip",
            },
            region=trail.region,
            source=PRINCIPAL,
            body=Bytes(content),
        )
        return key

    async def _notify(self, found: _Round, files: list[str]) -> None:
        """Tells the trail's topic of each file (CloudTrail User Guide, "Configuring Amazon SNS notifications")."""
        topic = found.doc.get("SnsTopicARN")
        if not topic:
            return
        caller = service_caller(PRINCIPAL, found.trail.account, str(found.trail))
        region = Arn.parse(topic).region
        for key in files:
            message = orjson.dumps({"s3Bucket": found.doc["S3BucketName"], "s3ObjectKey": [key]}).decode()
            asked = {"TopicArn": topic, "Message": message, "Subject": "CloudTrail log file delivery"}
            try:
                await self._calls.act(caller, "sns", "Publish", asked, region=region, source=PRINCIPAL)
            except Refused as error:
                found.told["LatestNotificationError"] = error.code
            else:
                found.told |= {"LatestNotificationError": None, "LatestNotificationTime": self._calls.clock()}

    async def _log(self, found: _Round, groups: dict[tuple[str, str], list[Event]]) -> None:
        """Writes each event as a line, with the trail's role."""
        if not found.doc.get("CloudWatchLogsRoleArn") or not groups:
            return
        trail, group = found.trail, Arn.parse(found.doc["CloudWatchLogsLogGroupArn"])
        try:
            role = found.doc["CloudWatchLogsRoleArn"]
            caller = await self._calls.assume(
                PRINCIPAL, role, "CloudTrail", account=trail.account, region=trail.region, source_arn=str(trail)
            )
            for (account, region), events in groups.items():
                where = {
                    "logGroupName": group.resource.removeprefix("log-group:").removesuffix(":*"),
                    "logStreamName": f"{account}_CloudTrail_{region}",
                }

                try:
                    await self._as(caller, group.region, "CreateLogStream", where)
                except Refused as refused:
                    if refused.code != "ResourceAlreadyExistsException":
                        raise
                for lines in _parts(events):
                    await self._as(caller, group.region, "PutLogEvents", {**where, "logEvents": lines})
        except Refused as refused:
            found.told["LatestCloudWatchLogsDeliveryError"] = refused.code
        else:
            now = self._calls.clock()
            found.told |= {"LatestCloudWatchLogsDeliveryError": None, "LatestCloudWatchLogsDeliveryTime": now}

    async def _as(self, caller: Caller, region: str, operation: str, given: dict[str, Any]) -> None:
        await self._calls.act(caller, "logs", operation, given, region=region, source=PRINCIPAL)

    async def _advance(self, found: _Round, *, delivered: bool = False) -> None:
        def work(tx: Transaction) -> None:
            trail = found.trail
            row = TRAIL.get(tx, trail.account, trail.region, trail.name)
            changed = {"Cursor": found.cursor, **found.told}
            if row is None or all(row.doc.get(member) == value for member, value in changed.items()):
                return
            row.doc |= changed
            if delivered:
                row.doc["LatestDeliveryTime"] = tx.now
            tx.update(row, keep=False)

        await self._calls.store.write(work)


def _parts(events: list[Event]) -> list[list[dict[str, Any]]]:
    """Lines of a log in the order of time, as many at a time as one call takes."""
    found: list[list[dict[str, Any]]] = []
    size = _LINES
    for event in sorted(events, key=lambda one: one.at):
        message = event.body.decode()
        if size + len(event.body) > _LINES:
            found.append([])
            size = 0
        size += len(event.body) + 26
        found[-1].append({"timestamp": event.at // 1000, "message": message})
    return found

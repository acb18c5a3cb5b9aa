"""Delivery: recorded events travel into the bucket of each trail that logs, as the service cloudtrail.amazonaws.com.

The bucket's policy decides, as on AWS. A file is written before the trail's cursor moves, so that a crash between the two
delivers twice rather than never; the file's name follows from the events, so that twice is the same file.
"""

from __future__ import annotations

import gzip
import hashlib
from typing import Any

import orjson

from bastide.domain import Arn, Refused, iso
from bastide.kernel import Bytes, Rounds, service_caller
from bastide.services.cloudtrail.trail import INDEX, TRAIL
from bastide.store import Event, Transaction

_PRINCIPAL = "cloudtrail.amazonaws.com"
_BATCH = 500
INTERVAL_SECONDS = 2.0


class Delivery(Rounds):
    """The loop that delivers."""

    seconds = INTERVAL_SECONDS

    async def round(self) -> None:
        """See the base."""
        await self.each(INDEX, self._deliver)

    async def _deliver(self, name: str) -> bool:
        """Delivers the next batch; whether there may be more that can be delivered now."""
        trail = Arn.parse(name)
        with self._calls.store.reading() as view:
            row = TRAIL.get(view, trail.account, trail.region, trail.name)
            if row is None or "StartLoggingTime" not in row.doc:
                return False
            events = view.events_after(row.doc["Cursor"], limit=_BATCH)
            members = None
            if row.doc["IsOrganizationTrail"]:
                members = {
                    one.account for one in events if self._calls.organisation.place(view, one.account) is not None
                }
        if not events:
            return False
        silent = [(start, until) for start, until in row.doc["Silent"] if until is None or until > events[0].at]
        accounts = {trail.account} if members is None else members | {trail.account}
        groups: dict[tuple[str, str], list[Event]] = {}
        for event in events:
            if event.account not in accounts or any(
                start < event.at and (until is None or event.at < until) for start, until in silent
            ):
                continue
            record = orjson.loads(event.body)
            if record["userIdentity"].get("invokedBy") == _PRINCIPAL or not _selected(record, row.doc["Selectors"]):
                continue
            region = str(record["awsRegion"])
            if not row.doc["IsMultiRegionTrail"] and region != trail.region:
                continue
            groups.setdefault((event.account, region), []).append(event)
        refused: str | None = None
        for (account, region), chosen in groups.items():
            refused = await self._put(trail, row.doc, account, region, chosen) or refused
        if refused is not None:
            await self._advance(trail, row.doc["Cursor"], refused)
            return False
        await self._advance(trail, events[-1].seq, None, delivered=bool(groups))
        return len(events) == _BATCH

    async def _put(self, trail: Arn, doc: dict[str, Any], account: str, region: str, events: list[Event]) -> str | None:
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
        try:
            await self._calls.act(
                service_caller(_PRINCIPAL, trail.account, str(trail)),
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
                source=_PRINCIPAL,
                body=Bytes(content),
            )
        except Refused as error:
            return error.code
        return None

    async def _advance(self, trail: Arn, cursor: int, error: str | None, *, delivered: bool = False) -> None:
        def work(tx: Transaction) -> None:
            row = TRAIL.get(tx, trail.account, trail.region, trail.name)
            if row is None or (row.doc["Cursor"] == cursor and row.doc.get("LatestDeliveryError") == error):
                return
            row.doc |= {"Cursor": cursor, "LatestDeliveryError": error}
            if delivered:
                row.doc["LatestDeliveryTime"] = tx.now
            tx.update(row, keep=False)

        await self._calls.store.write(work)


def _selected(record: dict[str, Any], selectors: list[dict[str, Any]]) -> bool:
    for selector in selectors:
        wanted = selector.get("ReadWriteType") or "All"
        if wanted != "All" and (wanted == "ReadOnly") != bool(record["readOnly"]):
            continue
        if record["managementEvent"]:
            if selector.get("IncludeManagementEvents", True) and record["eventSource"] not in (
                selector.get("ExcludeManagementEventSources") or ()
            ):
                return True
            continue
        for resource in selector.get("DataResources") or ():
            values = tuple(resource.get("Values") or ())
            for one in record["resources"]:
                if one.get("type") == resource["Type"] and str(one["ARN"]).startswith(values):
                    return True
    return False

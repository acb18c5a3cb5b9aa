"""Records reach S3: when there are enough of them, or the first has waited long enough, as the stream's role.

An object is named by its first record, so what is written again after a kill is the same object. Source: Amazon Data
Firehose Developer Guide, "Understand data delivery in Amazon Data Firehose".
"""

from __future__ import annotations

import asyncio
import gzip
import logging
from typing import Any, Final

from bastide.domain import MICROS, Arn, Instant, Refused
from bastide.engines.telemetry import Meter
from bastide.kernel import Bytes, Calls, Rounds
from bastide.services.firehose.prefix import key
from bastide.services.firehose.stream import INDEX, PURPOSE, RECORD, STREAM
from bastide.store import Row, Transaction, View

_log = logging.getLogger("bastide.firehose")
_PRINCIPAL: Final = "firehose.amazonaws.com"
_LOOK_SECONDS: Final = 0.5
_AT_A_TIME: Final = 2000
_MIB: Final = 1 << 20
_AGE: Final = 24 * 3600 * MICROS
_LONGEST_PAUSE: Final = 120


class Flusher(Rounds):
    """Delivers what streams were given."""

    seconds = _LOOK_SECONDS

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls)
        self._failed: dict[str, tuple[int, Instant]] = {}
        self._counted: dict[str, tuple[str, str, int, int]] = {}
        """Of a stream's records: the first, the last that was counted, their bytes and number."""

    async def round(self) -> None:
        """See the base."""
        await self.each(INDEX, self._flush)

    async def _flush(self, name: str) -> bool:
        """Delivers one object of a stream, if it is time; whether it did."""
        arn, now = Arn.parse(name), self._calls.clock()
        tries, again = self._failed.get(name, (0, 0))
        if again > now:
            return False
        with self._calls.store.reading() as view:
            row = STREAM.get(view, arn.account, arn.region, arn.name)
            if row is None:
                return False
            to, place = row.doc["to"], (f"{RECORD}{row.doc['id']}", row.account, row.region)
            first = view.scan(*place, limit=1)
            most = to["BufferingHints"]["SizeInMBs"] * _MIB
            waited = bool(first) and now - first[0].created >= to["BufferingHints"]["IntervalInSeconds"] * MICROS
            if not first or not (waited or self._full(view, place, first[0].name, most)):
                return False
            records = view.scan(*place, limit=_AT_A_TIME)
        chosen: list[Row] = []
        size = 0
        for one in records:
            if chosen and size + one.doc["size"] > most:
                break
            chosen.append(one)
            size += one.doc["size"]
        try:
            await self._write(row, chosen)
        except Refused as refused:
            if now - chosen[0].created < _AGE:
                self._failed[name] = (tries + 1, now + min(2**tries, _LONGEST_PAUSE) * MICROS)
                _log.warning("%s could not be delivered, and is tried again: %s", name, refused)
                self._count(row, "DeliveryToS3.Success", 0.0)
                return False
            _log.error("%d records of %s are given up: %s", len(chosen), name, refused)
        else:
            self._count(row, "DeliveryToS3.Success", 1.0)
            self._count(row, "DeliveryToS3.Records", float(len(chosen)))
        self._failed.pop(name, None)

        def gone(tx: Transaction) -> None:
            for one in chosen:
                held = tx.get(one.kind, one.account, one.region, one.name)
                if held is not None:
                    tx.delete(held, keep=False)

        await self._calls.store.write(gone)
        return True

    def _full(self, view: View, place: tuple[str, str, str], first: str, most: int) -> bool:
        """Whether there is enough for an object. What was counted is not read again."""
        begins, last, size, number = self._counted.get(place[0], (first, "", 0, 0))
        if begins != first:
            last, size, number = "", 0, 0
        for one in view.scan(*place, after=last or None, limit=_AT_A_TIME):
            last, size, number = one.name, size + one.doc["size"], number + 1
        self._counted[place[0]] = (first, last, size, number)
        return size >= most or number >= _AT_A_TIME

    async def _write(self, row: Row, chosen: list[Row]) -> None:
        to, calls = row.doc["to"], self._calls
        data = b"".join(calls.sealer.open(one.doc["x"], PURPOSE) for one in chosen)
        arn = STREAM.arn(row.account, row.region, row.name)
        session = await calls.assume(
            _PRINCIPAL, to["RoleARN"], row.name[:64], account=row.account, region=row.region, source_arn=arn
        )
        given: dict[str, Any] = {
            "Bucket": to["BucketARN"].rpartition(":")[2],
            "Key": key(row.name, row.doc["version"], to, chosen[0].name, chosen[0].created),
            "ContentType": "application/octet-stream",
        }  # fmt: skip
        if to["CompressionFormat"] == "GZIP":
            data = await asyncio.to_thread(gzip.compress, data, 6, mtime=0)
            given["ContentEncoding"] = "gzip"
        kms = (to["EncryptionConfiguration"].get("KMSEncryptionConfig") or {}).get("AWSKMSKeyARN")
        if kms:
            given |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms}
        await calls.act(session, "s3", "PutObject", given, region=row.region, source=_PRINCIPAL, body=Bytes(data))

    def _count(self, row: Row, name: str, value: float) -> None:
        where = (("DeliveryStreamName", row.name),)
        self._calls.engine(Meter).record(row.account, row.region, "AWS/Firehose", where, name, value, "Count")

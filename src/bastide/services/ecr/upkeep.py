"""What registries do by themselves: scans that wait, and images that expire, by the hour of the platform's clock."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Arn, Instant, iso, timed_id
from bastide.engines.artifacts import Artifacts
from bastide.kernel import Calls
from bastide.services.ecr import image, lifecycle, sealing
from bastide.services.ecr.repository import IMAGE, LIFECYCLES, REPOSITORY, arn_of, rows_of
from bastide.services.ecr.scanner import Scanner
from bastide.store import Event, Row, Transaction

_log = logging.getLogger("bastide.ecr")
_HOUR: Final = 3600 * MICROS
_LOOK_SECONDS: Final = 0.5
_MOST_AT_ONCE: Final = 100


class Upkeep:
    """The loop. Nothing is remembered between two rounds: what is due follows from the rows."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._scanner = Scanner(calls)
        self._task: asyncio.Task[None] | None = None
        self._last: Instant | None = None

    def start(self) -> None:
        """Works from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stops; what is due is so at the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self._scanner.round()
                now = self._calls.clock()
                if self._last is None or not self._last <= now < self._last + _HOUR:
                    self._last = now
                    await self._expire()
            except Exception:
                _log.exception("registries could not be looked after; it is tried again")

    async def _expire(self) -> None:
        after: str | None = None
        while True:
            with self._calls.store.reading() as view:
                names = [row.name for row in view.scan(LIFECYCLES, "", "", after=after, limit=500)]
            for name in names:
                while await self._some(Arn.parse(name)):
                    await asyncio.sleep(0)
            if len(names) < 500:
                return
            after = names[-1]

    async def _some(self, arn: Arn) -> bool:
        """Some images of a repository expire; whether there may be more."""
        files: list[str] = []

        def work(tx: Transaction) -> bool:
            files.clear()
            repository = REPOSITORY.get(tx, arn.account, arn.region, arn.resource.removeprefix("repository/"))
            if repository is None or not repository.doc.get("lifecycle"):
                return False
            rows = rows_of(tx, IMAGE, repository)
            now = self._calls.clock()
            found = lifecycle.expiring(lifecycle.parsed(repository.doc["lifecycle"]), rows, now)
            freed: set[str] = set()
            for name, priority in sorted(found.items())[:_MOST_AT_ONCE]:
                row = IMAGE.get(tx, repository.account, repository.region, name)
                if row is None:
                    continue
                freed |= image.take_away(tx, repository, row, "LifecyclePolicy")
                tx.record([_record(repository, row, priority, now)])
            files.extend(image.swept(tx, repository, freed, now) if found else ())
            repository.doc["evaluated"] = now
            tx.update(repository, keep=False)
            return len(found) > _MOST_AT_ONCE

        more = await self._calls.store.write(work)
        for one in files:
            with contextlib.suppress(OSError):
                await self._calls.engine(Artifacts).delete(one)
        return more


def _record(repository: Row, row: Row, priority: int, now: Instant) -> Event:
    """CloudTrail's entry of an image that expired (Amazon ECR User Guide, "Logging with CloudTrail")."""
    id, arn = timed_id(now), arn_of(repository)
    record: dict[str, Any] = {
        "eventVersion": "1.11",
        "userIdentity": {"type": "AWSService", "invokedBy": sealing.PRINCIPAL},
        "eventTime": iso(now),
        "eventSource": sealing.PRINCIPAL,
        "eventName": "PolicyExecutionEvent",
        "awsRegion": repository.region,
        "sourceIPAddress": sealing.PRINCIPAL,
        "userAgent": sealing.PRINCIPAL,
        "requestParameters": None,
        "responseElements": None,
        "requestID": id,
        "eventID": id,
        "readOnly": False,
        "eventType": "AwsServiceEvent",
        "managementEvent": True,
        "eventCategory": "Management",
        "recipientAccountId": repository.account,
        "resources": [{"ARN": arn, "type": "AWS::ECR::Repository", "accountId": repository.account}],
        "serviceEventDetails": {
            "repositoryName": repository.name,
            "lifecycleEventPolicy": {"rulePriority": priority},
            "lifecycleEventImageActions": [
                {"lifecycleEventImage": {"digest": row.name.rpartition("@")[2], "tagStatus": _tagged(row)}}
            ],
        },
        "additionalEventData": {"bastide": {"questions": []}},
    }
    return Event(
        repository.account, now, id, "PolicyExecutionEvent", sealing.PRINCIPAL, sealing.PRINCIPAL, "", False,
        "Management", "", id, (arn, repository.name), orjson.dumps(record),
    )  # fmt: skip


def _tagged(row: Row) -> str:
    return "Tagged" if row.doc["tags"] else "Untagged"

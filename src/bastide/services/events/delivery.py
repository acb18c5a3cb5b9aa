"""Events find their rules, and rules their targets.

What is to be delivered is a row before the event is forgotten by the outbox, so nothing is lost by a crash; a target may
be given an event twice, as on AWS. Source: EventBridge User Guide, "How EventBridge retries delivering events", "Using
dead-letter queues to process undelivered events".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from bastide.domain import MICROS, Arn, Instant, Refused, iso, new_id
from bastide.engines.telemetry import Dimensions, Meter
from bastide.kernel import Calls, service_caller
from bastide.kernel.deliveries import Deliveries
from bastide.kernel.happened import EVENTS
from bastide.kernel.outbox import Outbox
from bastide.kernel.pattern import Pattern
from bastide.services.events import archive, calling, recorded
from bastide.services.events.bus import BUS, DEFAULT
from bastide.services.events.replay import Archivist
from bastide.services.events.rule import RULE, SCHEDULES, WITH_READS
from bastide.services.events.schedule import Schedule
from bastide.services.events.ways import PRINCIPAL, Event, Parcel, deliver, queue_url
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.events")
_DELIVERY: Final = "events:Delivery"
"""Under account "": ``EVENT/RULE ARN/TARGET``, what is still to be delivered."""
_S3: Final = "s3:Notification"
_AGE_SECONDS: Final = 86400
_ATTEMPTS: Final = 185
_LONGEST_PAUSE: Final = 300
_PERMISSIONS: Final = ("AccessDenied", "AuthorizationError", "KMS", "Kms", "NotAuthorized")
_MISSING: Final = (
    "ResourceNotFound",
    "NotFound",
    "QueueDoesNotExist",
    "NoSuch",
    "StateMachineDoesNotExist",
    "NoResource",
)
_WRONG: Final = ("ValidationException", "Invalid", "HopDetected", "ParameterValueInvalid", "MissingParameter")
"""Beginnings of codes that trying again does not help."""


@lru_cache(4096)
def _pattern(text: str) -> Pattern:
    return Pattern(text)


class Rules:
    """Matches events and delivers them."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._meter = calls.engine(Meter)
        self._deliveries = Deliveries(calls, _DELIVERY, self._attempt, self._pause, self._give_up)
        self._archivist = Archivist(calls)
        self._task: asyncio.Task[None] | None = None

    def subscribe(self, outbox: Outbox) -> None:
        """Hears what happened."""
        outbox.subscribe_many(EVENTS, self.heard)
        outbox.subscribe(_S3, self._s3)

    async def _s3(self, body: dict[str, Any]) -> None:
        if ":event-bus/" in body["destination"]:
            await self.heard([body["message"] | {"_bus": body["destination"]}])

    def start(self) -> None:
        """Delivers from now on, with what an earlier run left."""
        self._deliveries.start()
        self._archivist.start()
        self._task = asyncio.get_running_loop().create_task(self._schedules())

    async def close(self) -> None:
        """Stops; what is not delivered waits for the next start."""
        await self._archivist.close()
        await self._deliveries.close()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    # -- matching ------------------------------------------------------------------------------------------------------

    def _rules(self, bus: Arn) -> list[Row]:
        name = bus.resource.removeprefix("event-bus/")
        with self._calls.store.reading() as view:

            def load() -> list[Row]:
                prefix = "" if name == DEFAULT else f"{name}/"
                rows = view.scan(RULE.key, bus.account, bus.region, prefix=prefix, limit=10_000)
                return [row for row in rows if row.doc["EventBusName"] == name and row.status != "DISABLED"]

            where = ("events:rules", bus.account, bus.region, name)
            return view.memo(where, ((RULE.key, bus.account),), load)

    async def heard(self, bodies: list[dict[str, Any]]) -> None:
        """Events came onto buses. What is to be done for all of them is one transaction."""
        found = [one for one in map(self._matched, bodies) if one is not None]
        if not found:
            return

        def work(tx: Transaction) -> list[Any]:
            made = []
            for event, rules, archives, hops in found:
                archive.keep(self._calls, tx, archives, event)
                made += self._put(tx, rules, event, hops)
            return made

        await self._kept(work)

    def _matched(self, body: dict[str, Any]) -> tuple[Event, list[Row], list[Row], int] | None:
        """The event, and the rules and archives that want it; None if nobody does."""
        bus = Arn.parse(body.get("_bus") or BUS.arn(body["account"], body["region"], DEFAULT))
        event = {name: value for name, value in body.items() if name[0] != "_"}
        only, quiet, untrailed = body.get("_rules"), recorded.hushed(event), recorded.UNTRAILED in body
        rules = [
            row
            for row in self._rules(bus)
            if "EventPattern" in row.doc
            and (only is None or RULE.arn(row.account, row.region, row.name) in only)
            and (not quiet or row.status == WITH_READS)
            and (not untrailed or recorded.names(row.doc["EventPattern"]))
            and _pattern(row.doc["EventPattern"]).matches(event)
        ]
        archives: list[Row] = []
        if not quiet:
            with self._calls.store.reading() as view:
                archives = archive.wanting(view, bus, event)
        if untrailed:
            archives = [row for row in archives if recorded.names(row.doc.get("EventPattern"))]
        return (event, rules, archives, int(body.get("_hops", 0))) if rules or archives else None

    async def _kept(self, work: Callable[[Transaction], list[Any]]) -> None:
        self._deliveries.wake(await self._calls.store.write(work))

    def _put(self, tx: Transaction, rows: list[Row], event: Event, hops: int) -> list[Any]:
        """Rows of what is to be delivered, for `Deliveries.wake`."""
        made = []
        for row in rows:
            arn = RULE.arn(row.account, row.region, row.name)
            self._count(arn, "MatchedEvents", "TriggeredRules")
            for id, target in row.doc["targets"].items():
                name = f"{event['id']}/{event.get('replay-name', '')}/{arn}/{id}"
                doc = {"event": event, "target": target, "rule": arn, "hops": hops, "account": row.account}
                made.append(self._deliveries.put(tx, name, doc))
        return made

    def _count(self, rule: str, *names: str) -> None:
        arn = Arn.parse(rule)
        bus, _, name = arn.resource.removeprefix("rule/").rpartition("/")
        dimensions: Dimensions = (("RuleName", name),)
        if bus:
            dimensions = (("EventBusName", bus), *dimensions)
        for one in names:
            self._meter.record(arn.account, arn.region, "AWS/Events", dimensions, one, 1.0, "Count")

    # -- schedules -----------------------------------------------------------------------------------------------------

    async def _schedules(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            try:
                await self._round()
            except Exception:
                _log.exception("schedules could not be looked at")

    async def _round(self) -> None:
        now, after, due = self._calls.clock(), None, []
        while True:
            with self._calls.store.reading() as view:
                rows = view.scan(SCHEDULES, "", "", after=after, limit=500)
                for held in rows:
                    arn = Arn.parse(held.name)
                    row = RULE.get(view, arn.account, arn.region, arn.resource.removeprefix("rule/"))
                    if row is None or not row.doc.get("ScheduleExpression"):
                        continue
                    if Schedule(row.doc["ScheduleExpression"]).due(held.doc["last"], now):
                        due.append((held, row))
            if len(rows) < 500:
                break
            after = rows[-1].name

        def work(tx: Transaction, held: Row, row: Row) -> list[Any]:
            current = tx.get(SCHEDULES, "", "", held.name)
            if current is None or current.generation != held.generation:
                return []
            current.doc["last"] = now
            tx.update(current, keep=False)
            event = {
                "version": "0", "id": new_id(), "detail-type": "Scheduled Event", "source": "aws.events",
                "account": row.account, "time": iso(now), "region": row.region, "resources": [held.name], "detail": {},
            }  # fmt: skip
            return self._put(tx, [row], event, 0) if row.status != "DISABLED" else []

        for held, row in due:
            await self._kept(lambda tx, held=held, row=row: work(tx, held, row))  # type: ignore[misc]

    # -- delivering ----------------------------------------------------------------------------------------------------

    def _parcel(self, doc: dict[str, Any]) -> Parcel:
        return Parcel(self._calls, doc["event"], doc["target"], doc["rule"], doc["hops"], doc["since"])

    async def _attempt(self, doc: dict[str, Any]) -> None:
        self._count(doc["rule"], "InvocationAttempts")
        if doc["attempts"] == 1:
            self._count(doc["rule"], "Invocations")
        else:
            self._count(doc["rule"], "RetryInvocationAttempts")
        parcel = self._parcel(doc)
        if parcel.arn.resource.startswith("api-destination/"):
            await calling.call(parcel)
        else:
            await deliver(parcel)
        self._count(doc["rule"], "SuccessfulInvocationAttempts")

    def _pause(self, doc: dict[str, Any], refused: Refused, now: Instant) -> float | None:
        if refused.code.startswith((*_PERMISSIONS, *_MISSING, *_WRONG)):
            return None
        retry = doc["target"].get("RetryPolicy") or {}
        if doc["attempts"] > retry.get("MaximumRetryAttempts", _ATTEMPTS):
            doc["over"] = "MaximumRetryAttempts"
            return None
        if (now - doc["since"]) / MICROS > retry.get("MaximumEventAgeInSeconds", _AGE_SECONDS):
            doc["over"] = "MaximumEventAgeInSeconds"
            return None
        return float(min(2 ** min(doc["attempts"], 20), _LONGEST_PAUSE))

    async def _give_up(self, doc: dict[str, Any], refused: Refused) -> None:
        self._count(doc["rule"], "FailedInvocations")
        _log.warning("an event of %s was not delivered to %s: %s", doc["rule"], doc["target"]["Arn"], refused)
        queue = (doc["target"].get("DeadLetterConfig") or {}).get("Arn")
        if not queue:
            return
        arn = Arn.parse(queue)
        told = {
            "RULE_ARN": doc["rule"], "TARGET_ARN": doc["target"]["Arn"], "ERROR_CODE": _told(refused),
            "ERROR_MESSAGE": f"{refused.code}: {refused.message}"[:1000], "RETRY_ATTEMPTS": str(doc["attempts"] - 1),
            "EXHAUSTED_RETRY_CONDITION": doc.get("over"),
        }  # fmt: skip
        letter = {
            "QueueUrl": queue_url(self._calls, arn), "MessageBody": json.dumps(doc["event"]),
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": value} for name, value in told.items() if value is not None
            },
        }  # fmt: skip
        caller = service_caller(PRINCIPAL, Arn.parse(doc["rule"]).account, doc["rule"])
        try:
            await self._calls.act(caller, "sqs", "SendMessage", letter, region=arn.region, source=PRINCIPAL)
        except Refused as error:
            self._count(doc["rule"], "InvocationsFailedToBeSentToDlq")
            _log.warning("the dead letter could not be left in %s: %s", queue, error)
        else:
            self._count(doc["rule"], "InvocationsSentToDlq")


def _told(refused: Refused) -> str:
    """An error as dead letters name it."""
    if refused.code.startswith(_PERMISSIONS):
        return "NO_PERMISSIONS"
    if refused.code.startswith(_MISSING):
        return "NO_RESOURCE"
    if refused.code.startswith("HopDetected"):
        return "THIRD_ACCOUNT_HOP_DETECTED"
    if refused.code.startswith(_WRONG):
        return "INVALID_PARAMETER"
    if refused.code.startswith("Throttl"):
        return "THROTTLING"
    return "CONNECTION_FAILURE" if refused.code == "Unreachable" else "SDK_CLIENT_ERROR"

"""Events find their rules, and rules their targets.

What is to be delivered is a row before the event is forgotten by the outbox, so nothing is lost by a crash; a target may
be given an event twice, as on AWS. Source: EventBridge User Guide, "How EventBridge retries delivering events".
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Arn, Instant, Refused, iso, new_id
from bastide.engines.telemetry import Dimensions, Meter
from bastide.kernel import Calls, service_caller
from bastide.kernel.happened import EVENTS
from bastide.kernel.outbox import Outbox
from bastide.services.events.bus import BUS, DEFAULT, FORWARDED
from bastide.services.events.matching import Pattern
from bastide.services.events.rule import RULE, SCHEDULES
from bastide.services.events.schedule import Schedule
from bastide.store import Row, Taken, Transaction

_log = logging.getLogger("bastide.events")
_DELIVERY: Final = "events:Delivery"
"""Under account "": ``EVENT/RULE ARN/TARGET``, what is still to be delivered."""
_PRINCIPAL: Final = "events.amazonaws.com"
_S3: Final = "s3:Notification"
_MOST_AT_ONCE: Final = 16
_MOST_HOPS: Final = 3
_AGE_SECONDS: Final = 86400
_ATTEMPTS: Final = 185
_LONGEST_PAUSE: Final = 300
_QUOTE: Final = re.compile(r'(?<!\\)"')
_FINAL: Final = ("AccessDenied", "ResourceNotFound", "ValidationException", "InvalidParameter", "NotAuthorized")
"""Beginnings of codes that trying again does not help."""

Event = dict[str, Any]
Deliver = Callable[[Calls, Event, Mapping[str, Any], str], Awaitable[None]]


@lru_cache(4096)
def _pattern(text: str) -> Pattern:
    return Pattern(text)


class Rules:
    """Matches events and delivers them."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._meter = calls.engine(Meter)
        self._due: list[tuple[Instant, str]] = []
        self._more = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._flying: set[asyncio.Task[None]] = set()

    def subscribe(self, outbox: Outbox) -> None:
        """Hears what happened."""
        outbox.subscribe(EVENTS, self.heard)
        outbox.subscribe(_S3, self._s3)

    async def _s3(self, body: dict[str, Any]) -> None:
        if ":event-bus/" in body["destination"]:
            await self.heard(body["message"] | {"_bus": body["destination"]})

    def start(self) -> None:
        """Delivers from now on, with what an earlier run left."""
        after: str | None = None
        while True:
            with self._calls.store.reading() as view:
                rows = view.scan(_DELIVERY, "", "", after=after, limit=500)
            for row in rows:
                heapq.heappush(self._due, (row.doc["due"], row.name))
            if len(rows) < 500:
                break
            after = rows[-1].name
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run()), loop.create_task(self._schedules())]

    async def close(self) -> None:
        """Stops; what is not delivered waits for the next start."""
        for task in [*self._tasks, *self._flying]:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # -- matching ------------------------------------------------------------------------------------------------------

    def _rules(self, bus: Arn) -> list[Row]:
        name = bus.resource.removeprefix("event-bus/")
        with self._calls.store.reading() as view:

            def load() -> list[Row]:
                prefix = "" if name == DEFAULT else f"{name}/"
                rows = view.scan(RULE.key, bus.account, bus.region, prefix=prefix, limit=10_000)
                return [row for row in rows if row.doc["EventBusName"] == name and row.status == "ENABLED"]

            where = ("events:rules", bus.account, bus.region, name)
            return view.memo(where, ((RULE.key, bus.account),), load)

    async def heard(self, body: dict[str, Any]) -> None:
        """An event came onto a bus."""
        bus = Arn.parse(body.get("_bus") or BUS.arn(body["account"], body["region"], DEFAULT))
        event = {name: value for name, value in body.items() if name[0] != "_"}
        matched = [
            row
            for row in self._rules(bus)
            if "EventPattern" in row.doc and _pattern(row.doc["EventPattern"]).matches(event)
        ]
        if matched:
            hops = int(body.get("_hops", 0))
            await self._kept(lambda tx: self._put(tx, matched, event, hops))

    async def _kept(self, work: Callable[[Transaction], list[str]]) -> None:
        for name in await self._calls.store.write(work):
            heapq.heappush(self._due, (self._calls.clock(), name))
        self._more.set()

    def _put(self, tx: Transaction, rows: list[Row], event: Event, hops: int) -> list[str]:
        """Rows of what is to be delivered; their names."""
        made = []
        for row in rows:
            arn = RULE.arn(row.account, row.region, row.name)
            self._count(arn, "MatchedEvents", "TriggeredRules")
            for id, target in row.doc["targets"].items():
                name = f"{event['id']}/{arn}/{id}"
                doc = {"event": event, "target": target, "rule": arn, "hops": hops, "attempts": 0}
                doc |= {"due": tx.now, "since": tx.now}
                try:
                    tx.insert(Row(_DELIVERY, "", "", name, doc), keep=False)
                except Taken:
                    continue  # told twice
                made.append(name)
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

        def work(tx: Transaction, held: Row, row: Row) -> list[str]:
            current = tx.get(SCHEDULES, "", "", held.name)
            if current is None or current.generation != held.generation:
                return []
            current.doc["last"] = now
            tx.update(current, keep=False)
            event = {
                "version": "0", "id": new_id(), "detail-type": "Scheduled Event", "source": "aws.events",
                "account": row.account, "time": iso(now), "region": row.region, "resources": [held.name], "detail": {},
            }  # fmt: skip
            return self._put(tx, [row], event, 0) if row.status == "ENABLED" else []

        for held, row in due:
            await self._kept(lambda tx, held=held, row=row: work(tx, held, row))  # type: ignore[misc]

    # -- delivering ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._more.clear()
            now = self._calls.clock()
            while self._due and self._due[0][0] <= now:
                _, name = heapq.heappop(self._due)
                while len(self._flying) >= _MOST_AT_ONCE:
                    await asyncio.wait(self._flying, return_when=asyncio.FIRST_COMPLETED)
                task = asyncio.get_running_loop().create_task(self._deliver(name))
                self._flying.add(task)
                task.add_done_callback(self._flying.discard)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._more.wait(), 1.0)

    async def _deliver(self, name: str) -> None:
        with self._calls.store.reading() as view:
            row = view.get(_DELIVERY, "", "", name)
        if row is None:
            return
        doc, final, failed = row.doc, False, ""
        self._count(doc["rule"], "Invocations")
        try:
            await deliver(self._calls, doc)
        except Refused as refused:
            failed, final = f"{refused.code}: {refused.message}", refused.code.startswith(_FINAL)
        except Exception:
            _log.exception("the event %s could not be delivered", name)
            failed = "an internal error"
        retry = doc["target"].get("RetryPolicy") or {}
        now, attempts = self._calls.clock(), doc["attempts"] + 1
        age = (now - doc["since"]) / MICROS
        over = attempts > retry.get("MaximumRetryAttempts", _ATTEMPTS)
        over = over or age > retry.get("MaximumEventAgeInSeconds", _AGE_SECONDS)

        def settle(tx: Transaction) -> Instant | None:
            held = tx.get(_DELIVERY, "", "", name)
            if held is None:
                return None
            if not failed or final or over:
                tx.delete(held, keep=False)
                return None
            due: Instant = now + min(2 ** min(attempts, 20), _LONGEST_PAUSE) * MICROS
            held.doc |= {"attempts": attempts, "due": due}
            tx.update(held, keep=False)
            return due

        again = await self._calls.store.write(settle)
        if again is not None:
            heapq.heappush(self._due, (again, name))
        elif failed:
            self._count(doc["rule"], "FailedInvocations")
            _log.warning("an event of %s was not delivered to %s: %s", doc["rule"], doc["target"]["Arn"], failed)


async def deliver(calls: Calls, doc: Mapping[str, Any]) -> None:
    """Delivers to a target once; raises Refused as what stands behind it does."""
    target, event = doc["target"], doc["event"]
    way = _WAYS[Arn.parse(target["Arn"]).service]
    await way(calls, {**event, "_hops": doc["hops"]}, target, doc["rule"])


def shaped(event: Mapping[str, Any], target: Mapping[str, Any]) -> str:
    """What a target is given of an event: text."""
    plain = {name: value for name, value in event.items() if name[0] != "_"}
    if target.get("Input"):
        return str(target["Input"])
    if target.get("InputPath"):
        return json.dumps(_at(plain, target["InputPath"]))
    change = target.get("InputTransformer")
    if not change:
        return json.dumps(plain)
    found = {name: _at(plain, path) for name, path in (change.get("InputPathsMap") or {}).items()}

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name in ("aws.events.event.json", "aws.events.event"):
            return json.dumps(plain)
        if name == "aws.events.rule-arn":
            return str(event.get("_rule", ""))
        if name not in found:
            return match[0]
        value = found[name]
        if len(_QUOTE.findall(match.string[: match.start()])) % 2:  # within a text of the template
            return json.dumps(value if isinstance(value, str) else json.dumps(value))[1:-1]
        return json.dumps(value)

    return re.sub(r"<([A-Za-z0-9._-]+)>", fill, change["InputTemplate"])


def _at(event: Any, path: str) -> Any:
    for name, number in re.findall(r"\.([\w-]+)|\[(\d+)\]", path):
        if number:
            event = event[int(number)] if isinstance(event, list) and int(number) < len(event) else None
        else:
            event = event.get(name) if isinstance(event, dict) else None
    return event


async def _to_logs(calls: Calls, event: Event, target: Mapping[str, Any], rule: str) -> None:
    """A stream of its own for each event, as EventBridge does; the account's resource policy of Logs decides."""
    arn = Arn.parse(target["Arn"])
    group = arn.resource.removeprefix("log-group:").removesuffix(":*")
    caller = service_caller(_PRINCIPAL, arn.account, rule)
    where = {"logGroupName": group, "logStreamName": event["id"]}
    with contextlib.suppress(_There):
        await _act(calls, caller, "logs", "CreateLogStream", where, arn.region)
    line = {"timestamp": calls.clock() // 1000, "message": shaped({**event, "_rule": rule}, target)}
    await _act(calls, caller, "logs", "PutLogEvents", {**where, "logEvents": [line]}, arn.region)


class _There(Exception):  # noqa: N818
    """It was made by an attempt before."""


async def _act(calls: Calls, caller: Any, service: str, operation: str, given: dict[str, Any], region: str) -> Any:
    try:
        return await calls.act(caller, service, operation, given, region=region, source=_PRINCIPAL)
    except Refused as refused:
        if refused.code == "ResourceAlreadyExistsException":
            raise _There from None
        raise


async def _to_bus(calls: Calls, event: Event, target: Mapping[str, Any], rule: str) -> None:
    """With the target's role; the other bus's policy decides, too. An event goes on a few times, and then no more."""
    if event["_hops"] >= _MOST_HOPS:
        raise Refused("ValidationException", f"The event has been sent on {_MOST_HOPS} times.")
    own = Arn.parse(rule)
    session = await calls.assume(
        _PRINCIPAL, target["RoleArn"], "events", account=own.account, region=own.region, source_arn=rule
    )
    sent = {**event, "_hops": event["_hops"] + 1}
    entry = {"Source": event["source"], "DetailType": event["detail-type"], "Detail": json.dumps(event["detail"])}
    answer = await calls.act(
        session,
        "events",
        "PutEvents",
        {"Entries": [entry | {"EventBusName": target["Arn"]}]},
        region=own.region,
        source=_PRINCIPAL,
        context={FORWARDED: orjson.dumps(sent).decode()},
    )
    [one] = answer["Entries"]
    if "ErrorCode" in one:
        raise Refused(one["ErrorCode"], one["ErrorMessage"])


_WAYS: Final[dict[str, Deliver]] = {"logs": _to_logs, "events": _to_bus}

"""Events that are handled later: kept before the caller is told, tried again, and told about in the end.

An event is a row until its end, so that a killed platform takes it up again; a function may get it twice, as on AWS. A
function that fails is tried again after one minute and after two; what is throttled, or cannot run at all, as long as the
event is young enough. Source: Lambda Developer Guide, "How Lambda handles errors and retries with asynchronous invocation",
"Capturing records of Lambda asynchronous invocations".
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Arn, Instant, Refused, iso
from bastide.engines.functions import Invocation, Outcome
from bastide.engines.telemetry import Meter
from bastide.kernel import Calls
from bastide.services.lambda_ import event_config
from bastide.services.lambda_.noun import LATEST, Named, find
from bastide.services.lambda_.runner import Runner, target
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.lambda")

EVENT: Final = "lambda:Event"
"""Under account "": what is still to be handled, or told."""
_PURPOSE: Final = "lambda/event"
_MOST_AT_ONCE: Final = 128
_MOST_OF_ONE: Final = 32
_AGE_SECONDS: Final = 21_600
_RETRIES: Final = 2
_LONGEST_PAUSE: Final = 300
_TELLING: Final = 5
"""Times that a destination is tried."""


class Events:
    """The queue of all functions; an engine of the platform."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._due: list[tuple[Instant, str]] = []
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._flying: set[asyncio.Task[None]] = set()
        self._of: Counter[str] = Counter()

    def start(self) -> None:
        """Handles events from now on, with those that an earlier run left."""
        after: str | None = None
        while True:
            with self._calls.store.reading() as view:
                rows = view.scan(EVENT, "", "", after=after, limit=200)
            for row in rows:
                heapq.heappush(self._due, (row.doc["due"], row.name))
            if len(rows) < 200:
                break
            after = rows[-1].name
        self._task = asyncio.get_running_loop().create_task(self._run(), name="events of functions")

    async def close(self) -> None:
        """Stops; what is not handled waits for the next start."""
        for task in [*([self._task] if self._task is not None else []), *self._flying]:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def put(self, what: Named, payload: bytes, client: str, request: str) -> None:
        """Keeps an event; on the disk when this returns."""
        name = uuid.uuid4().hex
        doc = {
            "account": what.account,
            "region": what.region,
            "name": what.name,
            "qualifier": what.qualifier,
            "payload": self._calls.sealer.seal(payload, _PURPOSE),
            "client": client,
            "request": request,
            "attempts": 0,
            "pauses": 0,
        }

        def work(tx: Transaction) -> Instant:
            now = tx.now
            tx.insert(Row(EVENT, "", "", name, doc | {"since": now, "due": now}), keep=False)
            return now

        self._push(await self._calls.store.write(work), name)

    def _push(self, due: Instant, name: str) -> None:
        heapq.heappush(self._due, (due, name))
        self._more.set()

    async def _run(self) -> None:
        while True:
            self._more.clear()
            now = self._calls.clock()
            while self._due and self._due[0][0] <= now:
                _, name = heapq.heappop(self._due)
                while len(self._flying) >= _MOST_AT_ONCE:
                    await asyncio.wait(self._flying, return_when=asyncio.FIRST_COMPLETED)
                task = asyncio.get_running_loop().create_task(self._handle(name))
                self._flying.add(task)
                task.add_done_callback(self._flying.discard)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._more.wait(), 0.5)

    # -- one event -------------------------------------------------------------------------------------------------------

    async def _handle(self, name: str) -> None:
        try:
            await self._one(name)
        except Exception:
            _log.exception("an event could not be handled, and is taken up again soon")
            self._push(self._calls.clock() + 5 * MICROS, name)

    async def _one(self, name: str) -> None:
        with self._calls.store.reading() as view:
            row = view.get(EVENT, "", "", name)
        if row is None:
            return
        doc = row.doc
        what = Named(doc["account"], doc["region"], doc["name"], doc["qualifier"])
        if "outcome" in doc:
            await self._tell(row, what)
            return
        if self._of[what.function] >= _MOST_OF_ONE:
            self._push(self._calls.clock() + MICROS // 4, name)
            return
        self._of[what.function] += 1
        try:
            await self._try(row, what)
        finally:
            self._of[what.function] -= 1
            if not self._of[what.function]:
                del self._of[what.function]

    async def _try(self, row: Row, what: Named) -> None:
        doc, now = row.doc, self._calls.clock()
        try:
            with self._calls.store.reading() as view:
                config = event_config.of(find(view, what), what.qualifier)
                to = target(self._calls, view, what)
        except Refused as refused:
            if refused.code == "ResourceConflictException" and now - doc["since"] < _AGE_SECONDS * MICROS:
                await self._again(row, now + MICROS, pauses=doc["pauses"] + 1)
            else:
                await self._gone(row)
            return
        most = int(config.get("MaximumEventAgeInSeconds") or _AGE_SECONDS)
        if now - doc["since"] > most * MICROS:
            await self._end(row, what, "EventAgeExceeded", None, to.version)
            return
        payload = self._calls.sealer.open(doc["payload"], _PURPOSE)
        call = Invocation(doc["request"], payload, what.arn, int(to.doc["Timeout"]), doc["client"])
        try:
            outcome = await self._calls.engine(Runner).run(to, call)
        except Refused as refused:
            pause = min(2 ** min(doc["pauses"], 10), _LONGEST_PAUSE) * MICROS
            _log.info("an event of %s waits: %s", what.function, refused.code)
            await self._again(row, self._calls.clock() + pause, pauses=doc["pauses"] + 1)
            return
        attempts = doc["attempts"] + 1
        if not outcome.error:
            await self._end(row, what, "Success", outcome, to.version)
            return
        retries = config.get("MaximumRetryAttempts")
        if attempts <= (_RETRIES if retries is None else int(retries)):
            await self._again(row, self._calls.clock() + 60 * attempts * MICROS, attempts=attempts, pauses=0)
        else:
            await self._end(row, what, "RetriesExhausted", outcome, to.version)

    async def _again(self, row: Row, due: Instant, **changed: int) -> None:
        def work(tx: Transaction) -> bool:
            held = tx.get(EVENT, "", "", row.name)
            if held is None:
                return False
            held.doc |= changed | {"due": due}
            tx.update(held, keep=False)
            return True

        if await self._calls.store.write(work):
            self._push(due, row.name)

    async def _gone(self, row: Row) -> None:
        def work(tx: Transaction) -> None:
            held = tx.get(EVENT, "", "", row.name)
            if held is not None:
                tx.delete(held, keep=False)

        await self._calls.store.write(work)

    # -- telling what became of it ---------------------------------------------------------------------------------------

    async def _end(self, row: Row, what: Named, condition: str, outcome: Outcome | None, version: str) -> None:
        """Notes what became of an event, where somebody is to be told; otherwise forgets it."""
        with self._calls.store.reading() as view:
            try:
                function = find(view, what)
            except Refused:
                function = None
        config = event_config.of(function, what.qualifier) if function is not None else {}
        which = "OnSuccess" if condition == "Success" else "OnFailure"
        target_arn = ((config.get("DestinationConfig") or {}).get(which) or {}).get("Destination")
        letters = (
            (function.doc.get("DeadLetterConfig") or {}).get("TargetArn") if function is not None else None
        ) or ""
        if not target_arn and (not letters or condition == "Success"):
            await self._gone(row)
            return
        assert function is not None
        told = self._record(row, what, condition, outcome, version)
        kept = {
            "destination": target_arn or "",
            "letters": letters if condition != "Success" else "",
            "record": self._calls.sealer.seal(orjson.dumps(told), _PURPOSE),
            "role": function.doc["Role"],
            "success": condition == "Success",
            "tries": 0,
        }

        def work(tx: Transaction) -> Row | None:
            held = tx.get(EVENT, "", "", row.name)
            if held is not None:
                held.doc["outcome"] = kept
                tx.update(held, keep=False)
            return held

        held = await self._calls.store.write(work)
        if held is not None:
            await self._tell(held, what)

    def _record(self, row: Row, what: Named, condition: str, outcome: Outcome | None, version: str) -> dict[str, Any]:
        doc = row.doc
        told: dict[str, Any] = {
            "version": "1.0",
            "timestamp": f"{iso(self._calls.clock(), fraction=True)[:-4]}Z",
            "requestContext": {
                "requestId": doc["request"],
                "functionArn": f"{what.function}:{what.qualifier or LATEST}",
                "condition": condition,
                "approximateInvokeCount": doc["attempts"] + (outcome is not None),
            },
            "requestPayload": orjson.loads(self._calls.sealer.open(doc["payload"], _PURPOSE)),
        }
        if outcome is not None:
            context: dict[str, Any] = {"statusCode": 200, "executedVersion": version}
            if outcome.error:
                context["functionError"] = outcome.error
            told |= {"responseContext": context, "responsePayload": _plain(outcome.payload)}
        return told

    async def _tell(self, row: Row, what: Named) -> None:
        kept = row.doc["outcome"]
        record = orjson.loads(self._calls.sealer.open(kept["record"], _PURPOSE))
        failed = ""
        for member in ("destination", "letters"):
            if not kept[member]:
                continue
            try:
                if member == "destination":
                    await self._send(what, kept, record)
                else:
                    await self._bury(row, what, kept, record)
            except Refused as refused:
                failed = f"{refused.code}: {refused.message}"
            except Exception:
                _log.exception("what became of an event of %s could not be told", what.function)
                failed = "an internal error"
            else:
                kept[member] = ""
        if not failed:
            await self._gone(row)
            return
        kept["tries"] += 1
        if kept["tries"] >= _TELLING:
            metric = "DestinationDeliveryFailures" if kept["destination"] else "DeadLetterErrors"
            self._calls.engine(Meter).record(
                what.account, what.region, "AWS/Lambda", (("FunctionName", what.name),), metric, 1.0, "Count"
            )
            _log.warning("what became of an event of %s was not told: %s", what.function, failed)
            await self._gone(row)
            return
        due = self._calls.clock() + 2 ** kept["tries"] * MICROS

        def work(tx: Transaction) -> bool:
            held = tx.get(EVENT, "", "", row.name)
            if held is None:
                return False
            held.doc |= {"outcome": kept, "due": due}
            tx.update(held, keep=False)
            return True

        if await self._calls.store.write(work):
            self._push(due, row.name)

    async def _send(self, what: Named, kept: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Tells a destination, with the function's role."""
        session = self._calls.engine(Runner).session(what, kept["role"])
        arn, text = Arn.parse(kept["destination"]), orjson.dumps(record).decode()
        if arn.service == "sqs":
            await session.act("sqs", "SendMessage", {"QueueUrl": queue_url(arn), "MessageBody": text})
        elif arn.service == "sns":
            await session.act("sns", "Publish", {"TopicArn": str(arn), "Message": text})
        elif arn.service == "lambda":
            asked = {"FunctionName": str(arn), "InvocationType": "Event", "Payload": text.encode()}
            await session.act("lambda", "Invoke", asked)
        else:
            verdict = "Success" if kept["success"] else "Failure"
            entry = {
                "Source": "lambda",
                "DetailType": f"Lambda Function Invocation Result - {verdict}",
                "Detail": text,
                "Resources": [str(arn), record["requestContext"]["functionArn"]],
                "EventBusName": str(arn),
            }
            [one] = (await session.act("events", "PutEvents", {"Entries": [entry]}))["Entries"]
            if "ErrorCode" in one:
                raise Refused(one["ErrorCode"], one["ErrorMessage"])

    async def _bury(self, row: Row, what: Named, kept: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Sends the event itself to the function's dead letters."""
        session = self._calls.engine(Runner).session(what, kept["role"])
        arn = Arn.parse(kept["letters"])
        said = record.get("responsePayload")
        message = (
            str(said.get("errorMessage") if isinstance(said, dict) else "") or record["requestContext"]["condition"]
        )
        attributes = {
            "RequestID": {"DataType": "String", "StringValue": row.doc["request"]},
            "ErrorCode": {"DataType": "Number", "StringValue": "200"},
            "ErrorMessage": {"DataType": "String", "StringValue": message[:1024]},
        }
        text = self._calls.sealer.open(row.doc["payload"], _PURPOSE).decode("utf-8", "replace")
        if arn.service == "sqs":
            asked = {"QueueUrl": queue_url(arn), "MessageBody": text, "MessageAttributes": attributes}
            await session.act("sqs", "SendMessage", asked)
        else:
            await session.act(
                "sns", "Publish", {"TopicArn": str(arn), "Message": text, "MessageAttributes": attributes}
            )


def queue_url(arn: Arn) -> str:
    """A queue's address, as AWS makes it from the ARN."""
    return f"https://sqs.{arn.region}.amazonaws.com/{arn.account}/{arn.resource}"


def _plain(payload: bytes) -> Any:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return payload.decode("utf-8", "replace")

"""Mappings at work: messages are read with the function's role, given to the function, and deleted when it took them.

What a function does not take stays in the queue, which shows it again when its time is over; a killed platform loses
nothing by that. Source: Lambda Developer Guide, "Using Lambda with Amazon SQS".
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import time
import uuid
from typing import Any, Final

import orjson

from bastide.domain import Arn, Refused
from bastide.engines.functions import Invocation
from bastide.kernel import Calls
from bastide.kernel.outbox import Outbox
from bastide.services.lambda_.asynchronous import queue_url
from bastide.services.lambda_.invocation import MOST_NOW
from bastide.services.lambda_.mapping import all_of
from bastide.services.lambda_.noun import MAPPING, read
from bastide.services.lambda_.runner import Runner, target
from bastide.services.lambda_.session import RoleSession
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.lambda")

_AT_ONCE: Final = 5
_WAIT_SECONDS: Final = 20
_A_CALL: Final = 10
_LONGEST_PAUSE: Final = 30.0
_ITEMS: Final = "ReportBatchItemFailures"


class Mappings:
    """All mappings that are enabled."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def subscribe(self, outbox: Outbox) -> None:
        """Hears which are made, changed and deleted."""

        async def heard(body: dict[str, Any]) -> None:
            if body["event"] == "EventSourceMappingResult":
                return
            with self._calls.store.reading() as view:
                row = MAPPING.get(view, body["account"], body["region"], body["name"])
            await self._follow(body["arn"], row)

        outbox.subscribe(MAPPING.key, heard)

    async def start(self) -> None:
        """Reads queues from now on."""
        with self._calls.store.reading() as view:
            rows = list(all_of(view))
        for row in rows:
            await self._follow(MAPPING.arn(row.account, row.region, row.name), row)

    async def close(self) -> None:
        """Stops; messages that are being handled are seen again."""
        self._closed = True
        for arn in list(self._tasks):
            await self._stop(arn)

    async def _follow(self, arn: str, row: Row | None) -> None:
        await self._stop(arn)
        if row is not None and row.doc["_enabled"] and not self._closed:
            self._tasks[arn] = asyncio.get_running_loop().create_task(self._run(row), name=f"mapping {arn}")

    async def _stop(self, arn: str) -> None:
        task = self._tasks.pop(arn, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self, row: Row) -> None:
        most = int((row.doc.get("ScalingConfig") or {}).get("MaximumConcurrency") or _AT_ONCE)
        room = asyncio.Semaphore(min(most, _AT_ONCE))
        working: set[asyncio.Task[None]] = set()
        pause = 0.0
        try:
            while True:
                await room.acquire()
                try:
                    batch = await self._batch(row)
                    result, pause = "No records processed" if not batch else "", 0.0 if batch else 0.05
                except Refused as refused:
                    batch, result = [], f"PROBLEM: {refused.code}: {refused.message}"
                    pause = min(max(1.0, 2 * pause), _LONGEST_PAUSE)
                except Exception:
                    _log.exception("the queue %s could not be read", row.doc["EventSourceArn"])
                    batch, result, pause = [], "PROBLEM: internal Lambda error", _LONGEST_PAUSE
                if not batch:
                    room.release()
                    if result.startswith("PROBLEM"):
                        await self._note(row, result)
                    await asyncio.sleep(pause)
                    continue
                task = asyncio.get_running_loop().create_task(self._handle(row, batch))
                working.add(task)
                task.add_done_callback(working.discard)
                task.add_done_callback(lambda _: room.release())
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    def _session(self, row: Row) -> RoleSession:
        what = read(row.doc["FunctionArn"], row.account, row.region)
        with self._calls.store.reading() as view:
            to = target(self._calls, view, what)
        return self._calls.engine(Runner).session(what, str(to.doc["Role"]))

    async def _batch(self, row: Row) -> list[dict[str, Any]]:
        """As many messages as the mapping wants; raises Refused."""
        session, arn = self._session(row), Arn.parse(row.doc["EventSourceArn"])
        size, window = int(row.doc["BatchSize"]), float(row.doc["MaximumBatchingWindowInSeconds"])
        found: list[dict[str, Any]] = []
        until, bytes_ = 0.0, 0
        while len(found) < size and bytes_ < MOST_NOW // 2:
            left = until - time.monotonic() if found else float(_WAIT_SECONDS)
            if found and left <= 0:
                break
            asked = {
                "QueueUrl": queue_url(arn),
                "MaxNumberOfMessages": min(_A_CALL, size - len(found)),
                "WaitTimeSeconds": max(0, min(_WAIT_SECONDS, int(left))),
                "AttributeNames": ["All"],
                "MessageAttributeNames": ["All"],
            }
            messages = (await session.act("sqs", "ReceiveMessage", asked)).get("Messages") or []
            if messages and not found:
                until = time.monotonic() + window
            found += messages
            bytes_ += sum(len(one["Body"].encode()) for one in messages)
            if not messages and (not found or left < 1):
                break
        return found

    async def _handle(self, row: Row, batch: list[dict[str, Any]]) -> None:
        result = "OK"
        try:
            result = await self._give(row, batch)
        except Refused as refused:
            result = f"PROBLEM: {refused.code}: {refused.message}"
            await asyncio.sleep(1.0)
        except Exception:
            _log.exception("messages of %s could not be handled", row.doc["EventSourceArn"])
            result = "PROBLEM: internal Lambda error"
        await self._note(row, result)

    async def _give(self, row: Row, batch: list[dict[str, Any]]) -> str:
        what = read(row.doc["FunctionArn"], row.account, row.region)
        arn = Arn.parse(row.doc["EventSourceArn"])
        with self._calls.store.reading() as view:
            to = target(self._calls, view, what)
        payload = orjson.dumps({"Records": [_record(arn, one) for one in batch]})
        call = Invocation(str(uuid.uuid4()), payload, what.arn, int(to.doc["Timeout"]))
        outcome = await self._calls.engine(Runner).run(to, call)
        if outcome.error:
            return "PROBLEM: Function call failed"
        failed = _failed(outcome.payload, batch) if _ITEMS in (row.doc.get("FunctionResponseTypes") or ()) else set()
        done = [one for one in batch if one["MessageId"] not in failed]
        session = self._calls.engine(Runner).session(what, str(to.doc["Role"]))
        for at in range(0, len(done), _A_CALL):
            entries = [
                {"Id": str(number), "ReceiptHandle": one["ReceiptHandle"]}
                for number, one in enumerate(done[at : at + _A_CALL])
            ]
            await session.act("sqs", "DeleteMessageBatch", {"QueueUrl": queue_url(arn), "Entries": entries})
        return "OK" if not failed else "PROBLEM: Function reported failed items"

    async def _note(self, row: Row, result: str) -> None:
        """What the last batch came to; written only when it is another one than before."""

        def work(tx: Transaction) -> None:
            held = MAPPING.get(tx, row.account, row.region, row.name)
            if held is not None and held.doc.get("LastProcessingResult") != result[:500]:
                held.doc["LastProcessingResult"] = result[:500]
                MAPPING.change(tx, held, "EventSourceMappingResult")

        with contextlib.suppress(Refused):
            await self._calls.store.write(work)


def _record(arn: Arn, message: dict[str, Any]) -> dict[str, Any]:
    """A message as functions get it."""
    attributes = {}
    for name, value in (message.get("MessageAttributes") or {}).items():
        told: dict[str, Any] = {"stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}
        if value.get("StringValue") is not None:
            told["stringValue"] = value["StringValue"]
        if value.get("BinaryValue") is not None:
            told["binaryValue"] = base64.b64encode(value["BinaryValue"]).decode()
        attributes[name] = told
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": dict(message.get("Attributes") or {}),
        "messageAttributes": attributes,
        "md5OfMessageAttributes": message.get("MD5OfMessageAttributes"),
        "md5OfBody": message.get("MD5OfBody", ""),
        "eventSource": "aws:sqs",
        "eventSourceARN": str(arn),
        "awsRegion": arn.region,
    }


def _failed(payload: bytes, batch: list[dict[str, Any]]) -> set[str]:
    """The messages that a function says it did not take; all of them, if what it says is not to be understood."""
    every = {str(one["MessageId"]) for one in batch}
    try:
        told = orjson.loads(payload)
        if told in (None, "", {}) or not told.get("batchItemFailures"):
            return set()
        found = {str(one["itemIdentifier"]) for one in told["batchItemFailures"]}
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        return every
    return found if found and found <= every else every

"""Schedules come due: each time is one invocation, whoever is killed meanwhile.

That a schedule is due, the invocation's row and when it is due next are one transaction. What came due while the platform
was away is invoked once when it is back, and goes on from now. Source: EventBridge Scheduler User Guide, "Configuring a
dead-letter queue", "Monitoring with CloudWatch metrics".
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any, Final

from bastide.domain import MICROS, Arn, Instant, Refused, iso
from bastide.engines.telemetry import Meter
from bastide.kernel import Caller, Calls, Rounds
from bastide.kernel.deliveries import Deliveries
from bastide.services.scheduler.group import DUE, GROUP, drop
from bastide.services.scheduler.schedule import PRINCIPAL, SCHEDULE, arrange
from bastide.services.scheduler.target import call, context, queue_url, text
from bastide.store import Transaction

_log = logging.getLogger("bastide.scheduler")
_KIND: Final = "scheduler:Invocation"
_LOOK_SECONDS: Final = 0.5
_AT_A_TIME: Final = 200
_AGE_SECONDS: Final = 86400
_ATTEMPTS: Final = 185
_LONGEST_PAUSE: Final = 300


class Clockwork(Rounds):
    """Invokes the targets of schedules."""

    seconds = _LOOK_SECONDS

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls)
        self._deliveries = Deliveries(calls, _KIND, self._attempt, self._pause, self._give_up)

    def start(self) -> None:
        """From now on, with what an earlier run left."""
        self._deliveries.start()
        super().start()

    async def close(self) -> None:
        """Ends; what is due waits for the next start."""
        await super().close()
        await self._deliveries.close()

    async def round(self) -> None:
        """See the base."""
        while await self._some() == _AT_A_TIME:
            pass

    async def _some(self) -> int:
        now = self._calls.clock()
        with self._calls.store.reading() as view:
            rows = view.scan(DUE, "", "", limit=_AT_A_TIME)
        due = [row.name for row in rows if int(row.name.partition("|")[0]) <= now]
        if due:
            self._deliveries.wake(await self._calls.store.write(lambda tx: [self._due(tx, name) for name in due]))
        return len(due)

    def _due(self, tx: Transaction, index: str) -> tuple[str, dict[str, Any]] | None:
        held = tx.get(DUE, "", "", index)
        if held is None:
            return None
        arn = Arn.parse(index.partition("|")[2])
        row = SCHEDULE.get(tx, arn.account, arn.region, arn.resource.removeprefix("schedule/"))
        if row is None or row.doc.get("_index") != index:
            tx.delete(held, keep=False)
            return None
        at = row.doc["_at"]
        id = hashlib.sha256(f"{arn} {at} {row.doc['_made']}".encode()).hexdigest()[:32]
        doc = {"schedule": str(arn), "account": row.account, "target": row.doc["Target"], "at": at, "id": id}
        made = self._deliveries.put(tx, f"{index}/{id}", doc)
        again = arrange(tx, row, max(at, tx.now))
        if not again and row.doc["ActionAfterCompletion"] == "DELETE":
            drop(tx, row, "ScheduleCompleted")
        else:
            tx.update(row, keep=False)
        return made

    # -- one invocation ------------------------------------------------------------------------------------------------

    def _count(self, doc: dict[str, Any], name: str) -> None:
        arn = Arn.parse(doc["schedule"])
        group = arn.resource.split("/")[1]
        meter = self._calls.engine(Meter)
        meter.record(arn.account, arn.region, "AWS/Scheduler", (("ScheduleGroup", group),), name, 1.0, "Count")

    async def _caller(self, doc: dict[str, Any]) -> Caller:
        arn = Arn.parse(doc["schedule"])
        group = GROUP.arn(arn.account, arn.region, arn.resource.split("/")[1])
        return await self._calls.assume(
            PRINCIPAL, doc["target"]["RoleArn"], "scheduler", account=arn.account, region=arn.region, source_arn=group
        )

    async def _attempt(self, doc: dict[str, Any]) -> None:
        self._count(doc, "InvocationAttemptCount")
        caller = await self._caller(doc)
        service, operation, given, region = call(self._calls, doc)
        try:
            answer = await self._calls.act(caller, service, operation, given, region=region, source=PRINCIPAL)
        except Refused as refused:
            if refused.code == "ExecutionAlreadyExists":
                return  # an attempt before began it
            self._count(doc, "TargetErrorCount")
            raise
        failed = next((one for one in answer.get("Entries") or () if "ErrorCode" in one), None)
        if failed is not None:
            raise Refused(failed["ErrorCode"], failed["ErrorMessage"])

    def _pause(self, doc: dict[str, Any], refused: Refused, now: Instant) -> float | None:
        retry = doc["target"].get("RetryPolicy") or {}
        if refused.status < 500 and not refused.code.startswith("Throttl"):
            return None
        if doc["attempts"] > retry.get("MaximumRetryAttempts", _ATTEMPTS):
            doc["over"] = "MaximumRetryAttempts"
            return None
        if (now - doc["since"]) / MICROS > retry.get("MaximumEventAgeInSeconds", _AGE_SECONDS):
            doc["over"] = "MaximumEventAgeInSeconds"
            return None
        return float(min(2 ** min(doc["attempts"], 20), _LONGEST_PAUSE))

    async def _give_up(self, doc: dict[str, Any], refused: Refused) -> None:
        self._count(doc, "InvocationDroppedCount")
        _log.warning("%s was not invoked: %s", doc["schedule"], refused)
        queue = (doc["target"].get("DeadLetterConfig") or {}).get("Arn")
        if not queue:
            return
        told = {
            "ERROR_CODE": refused.code, "ERROR_MESSAGE": refused.message[:1000], "EXECUTION_ID": doc["id"],
            "EXHAUSTED_RETRY_CONDITION": doc.get("over"), "RETRY_ATTEMPTS": str(doc["attempts"] - 1),
            "SCHEDULED_TIME": iso(doc["at"]), "SCHEDULE_ARN": doc["schedule"], "TARGET_ARN": doc["target"]["Arn"],
        }  # fmt: skip
        arn = Arn.parse(queue)
        letter = {
            "QueueUrl": queue_url(self._calls, arn), "MessageBody": text(doc["target"], context(doc)) or "{}",
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": value} for name, value in told.items() if value
            },
        }  # fmt: skip
        try:
            caller = await self._caller(doc)
            await self._calls.act(caller, "sqs", "SendMessage", letter, region=arn.region, source=PRINCIPAL)
        except Refused as error:
            self._count(doc, "InvocationsFailedToBeSentToDeadLetterCount")
            _log.warning("the dead letter could not be left in %s: %s", queue, error)
        else:
            self._count(doc, "InvocationsSentToDeadLetterCount")

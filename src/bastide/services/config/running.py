"""Rules come due: each time their function is asked once, whoever is killed meanwhile.

What came due while the platform was away is evaluated once when it is back. Source: Developer Guide, "Example Events for
AWS Config Rules".
"""

from __future__ import annotations

import json
import logging
import secrets
from typing import Any, Final

from bastide.domain import MICROS, Instant, Refused, iso
from bastide.kernel import Calls, Rounds, service_caller
from bastide.kernel.deliveries import Deliveries
from bastide.services.config.evaluation import digest
from bastide.services.config.rule import DUE, RULE, TOKEN, arn_of, arrange, next_time, rows_of
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.config")
PRINCIPAL: Final = "config.amazonaws.com"
_KIND: Final = "config:Asking"
_AT_A_TIME: Final = 200
_KEPT: Final = 24 * 3600 * MICROS
"""How long an evaluation may be reported about."""
_ATTEMPTS: Final = 3


class Evaluator(Rounds):
    """Asks the functions of rules."""

    seconds = 0.5

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
        now = self._calls.clock()
        with self._calls.store.reading() as view:
            rows = view.scan(DUE, "", "", limit=_AT_A_TIME)
        due = [row.name for row in rows if int(row.name.partition("|")[0]) <= now]
        if due:
            self._deliveries.wake(await self._calls.store.write(lambda tx: [self._due(tx, name) for name in due]))

    def _due(self, tx: Transaction, index: str) -> tuple[str, dict[str, Any]] | None:
        held = tx.get(DUE, "", "", index)
        if held is None:
            return None
        _, account, region, name = index.split("|", 3)
        row = RULE.get(tx, account, region, name)
        if row is None or row.doc["due"] != index:
            tx.delete(held, keep=False)
            return None
        arrange(tx, row, next_time(row, tx.now))
        tx.update(row, keep=False)
        doc = {"account": account, "region": region, "rule": name, "at": tx.now}
        return self._deliveries.put(tx, index, doc)

    def _token(self, tx: Transaction, doc: dict[str, Any]) -> tuple[Row, str] | None:
        """The rule, and what its function reports with; only its digest is kept."""
        row = RULE.get(tx, doc["account"], doc["region"], doc["rule"])
        if row is None:
            return None
        for old in rows_of(tx, TOKEN, row):
            if old.doc["at"] < tx.now - _KEPT:
                tx.delete(old, keep=False)
        token = f"{row.doc['id']}.{secrets.token_urlsafe(48)}"
        name = f"{row.doc['id']}/{digest(token)}"
        tx.insert(Row(TOKEN, row.account, row.region, name, {"at": tx.now}), keep=False)
        return row, token

    async def _attempt(self, doc: dict[str, Any]) -> None:
        made = await self._calls.store.write(lambda tx: self._token(tx, doc))
        if made is None:
            return
        row, token = made
        happened = {
            "awsAccountId": row.account, "notificationCreationTime": iso(self._calls.clock()),
            "messageType": "ScheduledNotification", "recordVersion": "1.0",
        }  # fmt: skip
        told = {
            "version": "1.0", "invokingEvent": json.dumps(happened), "ruleParameters": row.doc["InputParameters"],
            "resultToken": token, "eventLeftScope": False, "configRuleArn": arn_of(row), "configRuleName": row.name,
            "configRuleId": row.doc["id"], "accountId": row.account,
        }  # fmt: skip
        asked = {
            "FunctionName": row.doc["function"], "InvocationType": "Event", "Payload": json.dumps(told).encode(),
        }  # fmt: skip
        caller = service_caller(PRINCIPAL, row.account, arn_of(row))
        await self._calls.act(caller, "lambda", "Invoke", asked, region=row.region, source=PRINCIPAL)
        await self._noted(doc, invoked=self._calls.clock(), code="", why="")

    async def _noted(self, doc: dict[str, Any], **known: Any) -> None:
        def work(tx: Transaction) -> None:
            row = RULE.get(tx, doc["account"], doc["region"], doc["rule"])
            if row is not None:
                row.doc |= known
                tx.update(row, keep=False)

        await self._calls.store.write(work)

    def _pause(self, doc: dict[str, Any], refused: Refused, _: Instant) -> float | None:
        again = refused.status >= 500 or refused.code.startswith("Throttl")
        return float(2 ** doc["attempts"]) if again and doc["attempts"] < _ATTEMPTS else None

    async def _give_up(self, doc: dict[str, Any], refused: Refused) -> None:
        _log.warning("the rule %s was not evaluated: %s", doc["rule"], refused)
        why = f"The function of the rule cannot be invoked: {refused.message} ({refused.code})"[:1000]
        await self._noted(doc, failed=self._calls.clock(), code=refused.code, why=why)

"""The conditions of a stage: their rules are run one after the other; the first that fails has the condition's result.

What a rule found is in the execution's row before anything follows from it.
Source: CodePipeline User Guide, "How do stage conditions work?", "Rule structure reference".
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from bastide.domain import MICROS, Refused, new_id
from bastide.domain.schedule import zone
from bastide.kernel import Calls, Unforeseen
from bastide.protocol.patterns import strangers
from bastide.services.codepipeline.acting import Actor, Denied
from bastide.services.codepipeline.action_run import scope
from bastide.services.codepipeline.actions import invoke
from bastide.services.codepipeline.bells import Bells
from bastide.services.codepipeline.declaration import store_of, window
from bastide.services.codepipeline.noun import Doc, arn_of, execution, put
from bastide.services.codepipeline.variables import Unresolved, resolved
from bastide.services.codepipeline.work import Abandoned, ActionFailed, Gone, Work, cause, denied
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.codepipeline")
_MINUTES: Final = 1440
_LONGEST_PATTERN: Final = 200
_INTERNAL: Final = "An internal error occurred."


class RuleWork(Work):
    """A rule at work: its record lies among the stage's conditions."""

    moment: str = ""

    def noted(self, tx: Transaction, known: Mapping[str, Any], extra: Callable[[Row], None] | None = None) -> None:
        """As an action's, in the place where rules have theirs."""
        row = execution(tx, self.account, self.region, self.pipeline, self.execution)
        if row is None:
            return
        held = row.doc["stages"][self.stage].get("conditions", {}).get(self.moment, {}).get("rules", {})
        record = held.get(self.declared["name"])
        if record is None or record["id"] != self.id:
            return
        record.update(known)
        record["updated"] = tx.now
        put(tx, row)


class Conditions:
    """The conditions of one stage in one execution."""

    def __init__(self, calls: Calls, bells: Bells, where: tuple[str, str, str, str], doc: Doc, stage: Doc) -> None:
        self.calls = calls
        self.bells = bells
        self.where = where
        self.doc = doc
        self.stage = stage

    async def check(self, moment: str) -> str:
        """The result of the condition that is not met; empty if all are, if there is none, or if somebody overrode it."""
        listed = (self.stage.get(moment) or {}).get("conditions") or ()
        if not listed:
            return ""
        for condition in listed:
            held = await self.calls.store.write(lambda tx: self._begin(tx, moment))
            if held["status"] in ("Succeeded", "Overridden"):
                continue
            if held["status"] in ("Failed", "Errored"):
                return str(condition.get("result") or "FAIL")
            for rule in condition.get("rules") or ():
                if not await self._rule(moment, rule):
                    await self.calls.store.write(lambda tx: self._end(tx, moment, "Failed"))
                    return str(condition.get("result") or "FAIL")
            await self.calls.store.write(lambda tx: self._end(tx, moment, "Succeeded"))
        return ""

    def _held(self, tx: Transaction, moment: str) -> tuple[Row, Doc]:
        row = execution(tx, *self.where)
        if row is None:
            raise Gone
        conditions = row.doc["stages"][self.stage["name"]].setdefault("conditions", {})
        return row, conditions.setdefault(moment, {"status": "InProgress", "updated": tx.now, "rules": {}})

    def _begin(self, tx: Transaction, moment: str) -> Doc:
        row, held = self._held(tx, moment)
        put(tx, row)
        return held

    def _end(self, tx: Transaction, moment: str, status: str) -> None:
        row, held = self._held(tx, moment)
        held |= {"status": status, "updated": tx.now}
        failed = [one for one in held["rules"].values() if one["status"] == "Failed"]
        if failed:
            held["summary"] = (failed[-1].get("error") or {}).get("message") or failed[-1].get("summary") or ""
        put(tx, row)

    async def _rule(self, moment: str, rule: Doc) -> bool:
        """Whether a rule succeeds."""
        name = rule["name"]

        def begin(tx: Transaction) -> tuple[Row, Doc]:
            row, held = self._held(tx, moment)
            if name not in held["rules"]:
                record: Doc = {"id": new_id(), "status": "InProgress", "started": tx.now, "updated": tx.now}
                try:
                    record["resolved"] = {
                        key: resolved(value, scope(row)) for key, value in (rule.get("configuration") or {}).items()
                    }
                except Unresolved as error:
                    record |= {"resolved": {}, "unresolved": str(error)}
                held["rules"][name] = record
                put(tx, row)
            return row, held["rules"][name]

        row, record = await self.calls.store.write(begin)
        if record["status"] != "InProgress":
            return bool(record["status"] == "Succeeded")
        error: Doc = {}
        summary = ""
        try:
            if "unresolved" in record:
                raise ActionFailed("ConfigurationError", record["unresolved"])
            work = self._work(row, rule, record)
            work.moment = moment
            with self.bells.listening(arn_of(row)) as listener:
                work.listener = listener
                summary = await _RULES[rule["ruleTypeId"]["provider"]](work)
        except Abandoned:
            error = {"code": "JobFailed", "message": "The execution was given up."}
        except ActionFailed as failed:
            error = {"code": failed.code, "message": failed.message[:5000]}
        except Denied as why:
            error = {"code": "PermissionError", "message": denied(why).message}
        except Refused as refused:
            failed_ = cause(refused)
            error = {"code": failed_.code, "message": failed_.message[:5000]}
        except Unforeseen:
            _log.exception("the rule %s of %s failed", name, arn_of(row))
            error = {"code": "SystemUnavailable", "message": _INTERNAL}

        def end(tx: Transaction) -> None:
            row, held = self._held(tx, moment)
            told = held["rules"][name]
            told |= {"status": "Failed" if error else "Succeeded", "updated": tx.now, "summary": summary[:2048]}
            if error:
                told["error"] = error
            put(tx, row)

        await self.calls.store.write(end)
        return not error

    def _work(self, row: Row, rule: Doc, record: Doc) -> RuleWork:
        account, region, _, _ = self.where
        actor = Actor(
            self.calls, self.doc["roleArn"], rule.get("roleArn") or "", account=account, region=region, arn=arn_of(row),
            name=record["id"].replace("-", ""),
        )  # fmt: skip
        declared = {
            "name": rule["name"], "inputArtifacts": [], "outputArtifacts": [],
            "actionTypeId": {**rule["ruleTypeId"], "owner": "AWS", "version": "1"},
        }  # fmt: skip
        minutes = int(rule.get("timeoutInMinutes") or _MINUTES)
        store = store_of(self.doc, region)
        return RuleWork(self.calls, self.bells, row, self.stage["name"], declared, store, actor, record, minutes)


# -- rules ---------------------------------------------------------------------------------------------------------------


async def _variable(work: Work) -> str:
    given = work.configuration
    held, wanted, operator = given["Variable"], given["Value"], given["Operator"]
    if operator == "MATCHES":
        met = _matches(wanted, held)
    else:
        met = {"EQ": held == wanted, "NE": held != wanted, "CONTAINS": wanted in held}[operator]
    told = f"'{held[:200]}' {operator} '{wanted[:200]}'"
    if not met:
        raise ActionFailed("JobFailed", f"The variable check is not met: {told}.")
    return told


def _matches(pattern: str, text: str) -> bool:
    """Whether a text matches as a whole. Patterns that may take for ever are not tried."""
    found = strangers(pattern) if len(pattern) <= _LONGEST_PATTERN else None
    if found is None:
        raise ActionFailed(
            "ConfigurationError", "The pattern cannot be read, is too long, or cannot be tried in bounds."
        )
    return found(text[:2000])


async def _alarm(work: Work) -> str:
    given = work.configuration
    name, minutes = given["AlarmName"], int(given.get("WaitTime") or 0)
    monitored = [one.strip() for one in (given.get("AlarmStates") or "ALARM").split(",")]
    due = work.record["started"] + minutes * 60 * MICROS
    while (left := due - work.calls.clock()) > 0:
        await work.pause(left / MICROS)
    asked = {"AlarmNames": [name], "AlarmTypes": ["MetricAlarm", "CompositeAlarm"]}
    told = await work.actor.act("cloudwatch", "DescribeAlarms", asked)
    found = [*(told.get("MetricAlarms") or ()), *(told.get("CompositeAlarms") or ())]
    if not found:
        raise ActionFailed("ConfigurationError", f"There is no alarm {name[:255]}.")
    state = str(found[0]["StateValue"])
    if state in monitored:
        raise ActionFailed("JobFailed", f"The alarm {name} is in the state {state}.")
    return f"The alarm {name} is in the state {state}."


async def _window(work: Work) -> str:
    """Waits until the window is open."""
    schedule = window(work.configuration["Cron"])
    where = zone(work.configuration.get("TimeZone") or "UTC")
    while True:
        now = work.calls.clock()
        minute = now - now % (60 * MICROS)
        due = schedule.following(minute - 1, start=0, zone=where)
        if due == minute:
            return "The deployment window is open."
        if due is None:
            raise ActionFailed("JobFailed", "The deployment window does not open any more.")
        await work.pause((due - now) / MICROS)


_RULES: Final[dict[str, Callable[[Work], Awaitable[str]]]] = {
    "CloudWatchAlarm": _alarm,
    "DeploymentWindow": _window,
    "LambdaInvoke": invoke.function,
    "VariableCheck": _variable,
}

"""The loop that takes every deployment on: checks, shifts the alias by the clock, listens to alarms, takes back.

All that a step decides by is in the deployment's row, and what it changes elsewhere is changed in the transaction that
remembers it, so that a process that died leaves nothing half done; a function that checks may be called twice. Every call
is made with the group's role.
Source: CodeDeploy User Guide, "Deployments on an AWS Lambda compute platform", "Monitoring deployments with CloudWatch
alarms"; Lambda Developer Guide, "Implement Lambda canary deployments using a weighted alias".
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Instant, Refused
from bastide.engines.workflow import reach
from bastide.kernel import Calls, Output, RoleSession, Rounds
from bastide.kernel.happened import EVENTS as HAPPENED
from bastide.kernel.outbox import Outbox
from bastide.services.codedeploy import telling
from bastide.services.codedeploy.appspec import AFTER, ALLOW, BEFORE, MOST_BYTES, content, read, wrong
from bastide.services.codedeploy.config import shares
from bastide.services.codedeploy.deployment import end
from bastide.services.codedeploy.noun import DEPLOYMENT, GROUP, OVER, PRINCIPAL, RUNNING, group_row
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.codedeploy")
_LOOK_SECONDS: Final = 0.5
_ALARMS_EVERY: Final = 10 * MICROS
_CHECK_ENDS: Final = 3600 * MICROS
_LATER: Final = ("ThrottlingException", "TooManyRequestsException", "ServiceException", "InternalFailure")
_MOST_SESSIONS: Final = 500


class _Over(Exception):  # noqa: N818 - an outcome
    """The deployment cannot go on. by: the event of autoRollbackConfiguration that this is."""

    def __init__(self, status: str, code: str, message: str, by: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.by = by


def _failed(code: str, message: str) -> _Over:
    return _Over("Failed", code, message, "DEPLOYMENT_FAILURE")


class Deployer(Rounds):
    """One a platform."""

    seconds = _LOOK_SECONDS

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls)
        self._sessions: dict[str, RoleSession] = {}
        self._looked: dict[str, Instant] = {}
        """By deployment: when its alarms were looked at last."""

    def subscribe(self, outbox: Outbox) -> None:
        """When an alarm has changed, all are looked at anew."""

        async def heard(body: dict[str, Any]) -> None:
            if body.get("source") == "aws.cloudwatch":
                self._looked.clear()

        outbox.subscribe(HAPPENED, heard)

    async def round(self) -> None:
        """See the base."""
        await self.each(RUNNING, self._look)

    async def _look(self, name: str) -> bool:
        """One step of a deployment; whether there may be another now."""
        account, region, id = name.split("/")
        with self._calls.store.reading() as view:
            row = DEPLOYMENT.get(view, account, region, id)
            within = None if row is None else group_row(view, row)
        if row is None:
            await self._forget(name)
            return False
        session = self._session(row)
        if row.doc["_untold"]:
            await self._publish(row, session)
            return True
        if row.status in OVER:
            await self._forget(name)
            return False
        try:
            if within is None:
                raise _failed("DEPLOYMENT_GROUP_MISSING", "The deployment group is gone.")
            return await self._step(row, session)
        except _Over as over:
            await self._end(row, over)
            return True
        except Refused as refused:
            if refused.code in _LATER or refused.status == 429:
                return False
            await self._end(row, _failed(_code(refused), refused.message))
            return True

    async def _forget(self, name: str) -> None:
        self._looked.pop(name.rpartition("/")[2], None)
        self._sessions.pop(name.rpartition("/")[2], None)

        def work(tx: Transaction) -> None:
            held = tx.get(RUNNING, "", "", name)
            if held is not None:
                tx.delete(held, keep=False)

        await self._calls.store.write(work)

    def _session(self, row: Row) -> RoleSession:
        found = self._sessions.get(row.name)
        if found is None:
            if len(self._sessions) >= _MOST_SESSIONS:
                self._sessions.clear()
            arn = GROUP.arn(row.account, row.region, f"{row.doc['applicationName']}/{row.doc['deploymentGroupName']}")
            found = self._sessions[row.name] = RoleSession(
                self._calls,
                PRINCIPAL,
                row.doc["_role"],
                row.name,
                account=row.account,
                region=row.region,
                source_arn=arn,
            )
        return found

    async def _change(self, row: Row, change: Callable[[Transaction, Row], None]) -> None:
        """Changes a deployment that is still on its way."""
        await self._calls.store.write(lambda tx: self._changed(tx, row, change, strict=False))

    @staticmethod
    def _changed(tx: Transaction, row: Row, change: Callable[[Transaction, Row], None], *, strict: bool = True) -> None:
        """strict: where it is over or has moved on Refused is raised, which undoes the call that this is part of."""
        held = DEPLOYMENT.get(tx, row.account, row.region, row.name)
        if held is None or held.status in OVER or held.generation != row.generation:
            if strict:
                raise Refused("ThrottlingException", f"The deployment {row.name} has changed meanwhile.", 429)
            return
        change(tx, held)
        if held.status not in OVER:
            tx.update(held, keep=False)

    async def _end(self, row: Row, over: _Over) -> None:
        def ended(tx: Transaction, held: Row) -> None:
            end(tx, held, over.status, over.code, over.message, back_by=over.by)

        await self._change(row, ended)

    # -- the steps ---------------------------------------------------------------------------------------------------------

    async def _step(self, row: Row, session: RoleSession) -> bool:
        phase = row.doc["_phase"]
        reach(f"codedeploy/{phase}:before")
        if phase == "begin":
            await self._begin(row, session)
            return True
        await self._alarms(row, session)
        if phase in (BEFORE, AFTER):
            return await self._check(row, session, phase)
        if phase == ALLOW:
            return await self._shift(row, session)
        await self._alarms(row, session, now=True)
        await self._change(row, _ended_well)
        return True

    async def _begin(self, row: Row, session: RoleSession) -> None:
        """The AppSpec is there, and the alias stands where it says."""
        text = content(row.doc["revision"])
        spec = read(text if text is not None else await self._fetched(row, session))
        try:
            alias = await session.act("lambda", "GetAlias", {"FunctionName": spec["function"], "Name": spec["alias"]})
        except Refused as refused:
            raise _Over("Failed", _code(refused), refused.message, "") from None
        stands = alias["FunctionVersion"]
        back = row.doc.get("creator") == "codeDeployRollback"
        if stands != spec["current"] and not (back and stands == spec["target"]):
            raise _Over(
                "Failed", "INVALID_LAMBDA_CONFIGURATION",
                f"The alias {spec['alias']} stands at version {stands}, not at the CurrentVersion {spec['current']}.", "",
            )  # fmt: skip

        def began(tx: Transaction, held: Row) -> None:
            held.status = "InProgress"
            held.doc |= {"_spec": spec, "_phase": BEFORE, "startTime": tx.now, "_hooks": {}}
            telling.state(tx, held, "Start")

        await self._change(row, began)

    async def _fetched(self, row: Row, session: RoleSession) -> str:
        where = row.doc["revision"]["s3Location"]
        asked = {"Bucket": where["bucket"], "Key": where["key"]}
        if where.get("version"):
            asked["VersionId"] = where["version"]
        if where.get("eTag"):
            asked["IfMatch"] = where["eTag"]
        try:
            output = await session.act("s3", "GetObject", asked)
        except Refused as refused:
            raise _Over(
                "Failed", "IAM_ROLE_PERMISSIONS" if "Denied" in refused.code else "REVISION_MISSING",
                f"The revision s3://{where['bucket']}/{where['key']} cannot be read: {refused.message}", "",
            ) from None  # fmt: skip
        body, held = output["Body"], b""
        try:
            async for piece in body:
                held += piece
                if len(held) > MOST_BYTES:
                    raise wrong(f"The AppSpec has more than {MOST_BYTES} bytes.")
            return held.decode()
        except UnicodeDecodeError:
            raise wrong("The AppSpec is not UTF-8.") from None
        finally:
            with contextlib.suppress(Exception):
                await body.aclose()

    async def _check(self, row: Row, session: RoleSession, name: str) -> bool:
        """What a function checks before and after traffic is shifted; it answers by itself, within an hour."""
        doc, function = row.doc, row.doc["_spec"]["hooks"].get(name)
        event, hook = doc["_events"][name], doc["_hook"]
        if not function:
            await self._change(row, lambda tx, held: _passed(tx, held, name))
            return True
        if event["status"] == "Pending":

            def opened(tx: Transaction, held: Row) -> None:
                held.doc["_events"][name] = {"status": "InProgress", "start": tx.now}
                held.doc["_hook"] = {"asked": False}
                held.doc["_hooks"][name] = secrets.token_urlsafe(48)

            await self._change(row, opened)
            return True
        if event["status"] == "Failed":
            raise _failed("HOOK_EXECUTION_FAILURE", f"The function {function} did not let {name} pass.")
        if event["status"] == "Succeeded":
            await self._change(row, lambda tx, held: _passed(tx, held, name))
            return True
        if not hook["asked"]:
            payload = {"DeploymentId": row.name, "LifecycleEventHookExecutionId": doc["_hooks"][name]}
            asked = {"FunctionName": function, "InvocationType": "Event", "Payload": orjson.dumps(payload)}
            try:
                await session.act("lambda", "Invoke", asked)
            except Refused as refused:
                if refused.code in _LATER or refused.status == 429:
                    return False
                raise _failed(
                    "HOOK_EXECUTION_FAILURE", f"The function {function} of {name} cannot be invoked: {refused.message}"
                ) from None
            reach("codedeploy/hook:asked")
            await self._change(row, lambda _, held: held.doc["_hook"].update(asked=True))
            return False
        if event["start"] + _CHECK_ENDS <= self._calls.clock():
            raise _failed("TIMEOUT", f"The function {function} did not answer for {name} within an hour.")
        return False

    async def _shift(self, row: Row, session: RoleSession) -> bool:
        """Gives the new version its next share of what is invoked, when it is time."""
        doc, now = row.doc, self._calls.clock()
        spec, event = doc["_spec"], doc["_events"][ALLOW]
        begun = event.get("start") or now
        share, minutes = next(one for one in shares(doc["_routing"]) if one[0] > doc["_share"])
        if begun + minutes * 60 * MICROS > now:
            return False
        await self._alarms(row, session, now=True)
        last = share >= 100
        asked = {
            "FunctionName": spec["function"], "Name": spec["alias"],
            "FunctionVersion": spec["target"] if last else spec["current"],
            "RoutingConfig": {"AdditionalVersionWeights": {} if last else {spec["target"]: share / 100}},
        }  # fmt: skip

        def shifted(tx: Transaction, held: Row) -> None:
            told = held.doc["_events"][ALLOW]
            told |= {"status": "InProgress", "start": told.get("start") or tx.now}
            held.doc["_share"] = share
            if last:
                _passed(tx, held, ALLOW)

        def also(tx: Transaction, _: Output) -> None:
            self._changed(tx, row, shifted)

        await session.act("lambda", "UpdateAlias", asked, also=also)
        reach("codedeploy/shift:after")
        return True

    # -- alarms and topics -------------------------------------------------------------------------------------------------

    async def _alarms(self, row: Row, session: RoleSession, *, now: bool = False) -> None:
        """Raises _Over where one of the alarms says stop. now: whenever they were looked at last."""
        held, clock = row.doc["_alarms"], self._calls.clock()
        if not held["enabled"] or not held["alarms"]:
            return
        last = self._looked.get(row.name)
        if not now and last is not None and last <= clock < last + _ALARMS_EVERY:
            return
        self._looked[row.name] = clock
        names = [one["name"] for one in held["alarms"]]
        try:
            asked = {"AlarmNames": names, "AlarmTypes": ["MetricAlarm", "CompositeAlarm"]}
            told = await session.act("cloudwatch", "DescribeAlarms", asked)
        except Refused as refused:
            if held["ignorePollAlarmFailure"]:
                return
            raise _failed(_code(refused), f"The alarms cannot be looked at: {refused.message}") from None
        found = {
            one["AlarmName"]: one["StateValue"]
            for member in ("MetricAlarms", "CompositeAlarms")
            for one in told.get(member) or ()
        }
        missing = [one for one in names if one not in found]
        if missing and not held["ignorePollAlarmFailure"]:
            raise _failed("ALARM_ACTIVE", f"The state of these alarms is not known: {', '.join(missing)}.")
        active = sorted(name for name, state in found.items() if state == "ALARM")
        if active:
            raise _Over(
                "Stopped", "ALARM_ACTIVE",
                "One or more alarms have been activated according to the CloudWatch metrics you selected, and the affected "
                f"deployments have been stopped. Activated alarms: {', '.join(active)}",
                "DEPLOYMENT_STOP_ON_ALARM",
            )  # fmt: skip

    async def _publish(self, row: Row, session: RoleSession) -> None:
        """Tells one topic; that it cannot keeps nothing from happening."""
        told = row.doc["_untold"][0]

        def away(tx: Transaction) -> None:
            held = DEPLOYMENT.get(tx, row.account, row.region, row.name)
            if held is not None and told in held.doc["_untold"]:
                held.doc["_untold"].remove(told)
                tx.update(held, keep=False)

        try:
            await session.act("sns", "Publish", telling.message(row, told), also=lambda tx, _: away(tx))
        except Refused as refused:
            _log.info("the trigger %s of %s could not tell %s: %s", told["name"], row.name, told["topic"], refused.code)
            await self._calls.store.write(away)


def _passed(tx: Transaction, row: Row, name: str) -> None:
    """An event is over, and the next one begins."""
    event = row.doc["_events"][name]
    event |= {"status": "Succeeded", "start": event.get("start") or tx.now, "end": event.get("end") or tx.now}
    row.doc["_hook"] = None
    row.doc["_phase"] = {BEFORE: ALLOW, ALLOW: AFTER, AFTER: "end"}[name]


def _ended_well(tx: Transaction, row: Row) -> None:
    end(tx, row, "Succeeded")


def _code(refused: Refused) -> str:
    """CodeDeploy's code for what another service refused."""
    if "Denied" in refused.code or refused.code == "AuthorizationError":
        return "IAM_ROLE_PERMISSIONS"
    if refused.code == "InvalidRevisionException":
        return "INVALID_REVISION"
    return "INVALID_LAMBDA_FUNCTION" if "NotFound" in refused.code else "INVALID_LAMBDA_CONFIGURATION"

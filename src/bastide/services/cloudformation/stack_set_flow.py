"""How an operation on a stack set runs: Region after Region, some accounts at once, until too many have failed.

Every instance's stack belongs to its account and is made by a role there: the execution role that the administration role
may take on, or, where the organisation trusts CloudFormation, one that is made for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines.workflow import Flow, Run, Step
from bastide.kernel import Calls, service_caller
from bastide.kernel.outbox import Outbox
from bastide.services.cloudformation import record
from bastide.services.cloudformation.acting import Actor, Principal
from bastide.services.cloudformation.record import active
from bastide.services.cloudformation.stack_set import INSTANCE, MOST_INSTANCES, OPERATION, SERVICE, STACK_SET, TRUSTED
from bastide.services.cloudformation.stack_set_operation import ACCOUNT, add, begin, below
from bastide.services.cloudformation.types.own import Parent
from bastide.store import Row, Transaction
from bastide.store.directory import Configuration

_log = logging.getLogger("bastide.cloudformation")
FLOW: Final = "stack-set"
ADMINISTRATOR: Final = "arn:aws:iam::aws:policy/AdministratorAccess"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 3.0
_GOOD: Final = ("CREATE_COMPLETE", "UPDATE_COMPLETE")
_PENDING: Final = ("PENDING", "RUNNING")


class StackSetFlow:
    """The flow of operations on stack sets."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def flow(self) -> Flow:
        """The flow."""
        return Flow(FLOW, [Step("deploy", self.deploy), Step("settle", self.settle, always=True)])

    def _rows(self, run: Run) -> tuple[Row, Row]:
        state = run.state
        with self.calls.store.reading() as view:
            row = STACK_SET.find(view, state["account"], state["region"], state["name"])
            held = view.get(OPERATION, row.account, row.region, f"{row.name}/{state['operation']}")
        assert held is not None
        return row, held

    async def deploy(self, run: Run) -> dict[str, Any]:
        """All instances, as the preferences say; an instance that was settled before is passed over."""
        row, held = self._rows(run)
        results = held.doc["results"]
        preferences = held.doc.get("preferences") or {}
        regions = list(dict.fromkeys(one["region"] for one in results))
        order = [one for one in preferences.get("RegionOrder") or () if one in regions]
        for region in dict.fromkeys([*order, *regions]):
            mine = [number for number, one in enumerate(results) if one["region"] == region]
            most = _share(preferences, "MaxConcurrent", len(mine), 1, up=True)
            tolerated = _share(preferences, "FailureTolerance", len(mine), 0, up=False)
            waiting = iter([number for number in mine if results[number]["status"] in _PENDING])
            failed = sum(results[number]["status"] == "FAILED" for number in mine)
            counted = [failed]

            async def lane(waiting: Any = waiting, counted: list[int] = counted, tolerated: int = tolerated) -> None:
                for number in waiting:
                    if counted[0] > tolerated or self._stopped(run):
                        return
                    if not await self._one(run, row, number):
                        counted[0] += 1

            await asyncio.gather(*(lane() for _ in range(most)))
            if counted[0] > tolerated or self._stopped(run):
                break
        return {}

    def _stopped(self, run: Run) -> bool:
        _, held = self._rows(run)
        return held.status == "STOPPING"

    async def _one(self, run: Run, row: Row, number: int) -> bool:
        _, held = self._rows(run)
        one = held.doc["results"][number]
        await self._note(run, number, "RUNNING", "")
        try:
            await self._instance(row, held, one, run.state["operation"])
        except Refused as refused:
            await self._note(run, number, "FAILED", refused.message)
            await self._inoperable(row, one, refused.message)
            return False
        await self._note(run, number, "SUCCEEDED", "")
        return True

    async def _note(self, run: Run, number: int, status: str, reason: str) -> None:
        def work(tx: Transaction) -> None:
            row = STACK_SET.find(tx, run.state["account"], run.state["region"], run.state["name"])
            held = tx.get(OPERATION, row.account, row.region, f"{row.name}/{run.state['operation']}")
            assert held is not None
            held.doc["results"][number] |= {"status": status, "reason": reason[:1000]}
            tx.update(held, keep=False)

        await self.calls.store.write(work)

    async def _inoperable(self, row: Row, one: dict[str, str], reason: str) -> None:
        def work(tx: Transaction) -> None:
            held = tx.get(INSTANCE, row.account, row.region, f"{row.name}/{one['account']}/{one['region']}")
            if held is not None:
                held.doc |= {"reason": reason[:1000], "detailed": "FAILED"}
                held.status = "OUTDATED"
                tx.update(held, keep=False)

        await self.calls.store.write(work)

    # -- one instance --------------------------------------------------------------------------------------------------

    async def _principal(self, row: Row, account: str) -> Principal:
        if row.doc["model"] == "SELF_MANAGED":
            return {"roles": [row.doc["admin"], f"arn:aws:iam::{account}:role/{row.doc['execution']}"]}
        name = f"stacksets-exec-{hashlib.sha256(f'{self.calls.home}/{account}'.encode()).hexdigest()[:32]}"
        await self._member_role(account, name)
        return {"roles": [f"arn:aws:iam::{account}:role/{name}"], "service": SERVICE}

    async def _member_role(self, account: str, name: str) -> None:
        """The role that StackSets acts with in a member account; made when it is first wanted."""
        caller = service_caller(SERVICE, account)
        trust = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": {"Service": SERVICE}, "Action": "sts:AssumeRole"}],
        }
        asked: dict[str, Any] = {"RoleName": name, "AssumeRolePolicyDocument": orjson.dumps(trust).decode()}
        for operation, input in (
            ("CreateRole", asked),
            ("AttachRolePolicy", {"RoleName": name, "PolicyArn": ADMINISTRATOR}),
        ):
            try:
                await self.calls.act(caller, "iam", operation, input, region="us-east-1", source=SERVICE)
            except Refused as refused:
                if refused.code != "EntityAlreadyExists":
                    raise

    async def _instance(self, row: Row, held: Row, one: dict[str, str], operation: str) -> None:
        account, region = one["account"], one["region"]
        with self.calls.store.reading() as view:
            mine = view.get(INSTANCE, row.account, row.region, f"{row.name}/{account}/{region}")
        if mine is None:
            return
        stack = mine.doc.get("stack", "")
        if held.doc["action"] == "DELETE" and (held.doc.get("retain") or not stack):
            await self._forget(mine)
            return
        principal = await self._principal(row, account)
        arn = STACK_SET.arn(row.account, row.region, row.name)
        actor = Actor(self.calls, principal, account=account, region=region, arn=arn)
        parent = Parent("", "", principal)
        if held.doc["action"] == "DELETE":
            await actor.act("cloudformation", "DeleteStack", {"StackName": stack}, prepared=parent)
            await self._settled(account, region, stack, ("DELETE_COMPLETE",))
            await self._forget(mine)
            return
        asked = self._asked(row, mine)
        if not stack:
            stack = await self._create(actor, parent, row, mine, asked)
        else:
            try:
                await actor.act("cloudformation", "UpdateStack", {"StackName": stack, **asked}, prepared=parent)
            except Refused as refused:
                if "No updates are to be performed" not in refused.message and "_IN_PROGRESS" not in refused.message:
                    raise
        await self._settled(account, region, stack, _GOOD)

        def current(tx: Transaction) -> None:
            now = tx.get(INSTANCE, mine.account, mine.region, mine.name)
            if now is not None:
                now.status = "CURRENT"
                now.doc |= {"detailed": "SUCCEEDED", "reason": "", "operation": operation}
                tx.update(now, keep=False)

        await self.calls.store.write(current)

    def _asked(self, row: Row, mine: Row) -> dict[str, Any]:
        values = {
            **record.opened(self.calls, row.doc["parameters"]),
            **record.opened(self.calls, mine.doc["overrides"]),
        }
        return {
            "TemplateBody": record.opened(self.calls, row.doc["template"]),
            "Parameters": [{"ParameterKey": key, "ParameterValue": one} for key, one in values.items()],
            "Capabilities": row.doc["capabilities"],
            "Tags": [{"Key": key, "Value": one} for key, one in row.tags.items()],
        }

    async def _create(self, actor: Actor, parent: Parent, row: Row, mine: Row, asked: dict[str, Any]) -> str:
        """Makes an instance's stack, and notes it in the same transaction."""
        name = f"StackSet-{row.name.partition(':')[0]}-{hashlib.sha256(mine.name.encode()).hexdigest()[:32]}"[:128]
        made: list[str] = []

        def also(tx: Transaction, output: dict[str, Any]) -> None:
            now = tx.get(INSTANCE, mine.account, mine.region, mine.name)
            if now is not None:
                now.doc["stack"] = output["StackId"]
                tx.update(now, keep=False)

        output = await actor.act(
            "cloudformation", "CreateStack", {"StackName": name, **asked}, also=also, prepared=parent
        )
        made.append(output["StackId"])
        return made[0]

    async def _forget(self, mine: Row) -> None:
        def work(tx: Transaction) -> None:
            now = tx.get(INSTANCE, mine.account, mine.region, mine.name)
            if now is not None:
                tx.delete(now, keep=False)

        await self.calls.store.write(work)

    async def _settled(self, account: str, region: str, stack: str, good: tuple[str, ...]) -> None:
        pause = _FIRST_PAUSE
        while True:
            with self.calls.store.reading() as view:
                row = active(view, account, region, stack)
            if row is None or not row.status.endswith("_IN_PROGRESS"):
                break
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        if row is None or row.status not in good:
            why = "it is gone" if row is None else row.doc.get("reason") or row.doc.get("cause") or row.status
            raise Refused("StackInstanceFailed", f"ResourceLogicalId: {stack}: {why}")

    async def settle(self, run: Run) -> dict[str, Any]:
        """The operation's end."""

        def work(tx: Transaction) -> None:
            row = STACK_SET.get(tx, run.state["account"], run.state["region"], run.state["name"])
            if row is None:
                return
            held = tx.get(OPERATION, row.account, row.region, f"{row.name}/{run.state['operation']}")
            if held is None or held.doc.get("ended"):
                return
            results = held.doc["results"]
            for one in results:
                if one["status"] in _PENDING:
                    one |= {"status": "CANCELLED", "reason": "Cancelled since failure tolerance has exceeded"}
            lost = any(one["status"] in ("FAILED", "CANCELLED") for one in results)
            tolerated = self._tolerated(held)
            if held.status == "STOPPING":
                held.status = "STOPPED"
            else:
                held.status = "FAILED" if lost and not tolerated else "SUCCEEDED"
            held.doc["ended"] = tx.now
            tx.update(held, keep=False)
            row.doc.pop("running", None)
            STACK_SET.change(tx, row, "Ended")

        await self.calls.store.write(work)
        return {}

    @staticmethod
    def _tolerated(held: Row) -> bool:
        """Whether in each Region no more failed than was tolerated."""
        preferences = held.doc.get("preferences") or {}
        results = held.doc["results"]
        for region in {one["region"] for one in results}:
            mine = [one for one in results if one["region"] == region]
            lost = sum(one["status"] in ("FAILED", "CANCELLED") for one in mine)
            if lost > _share(preferences, "FailureTolerance", len(mine), 0, up=False):
                return False
        return True


def _share(preferences: dict[str, Any], what: str, of: int, default: int, *, up: bool) -> int:
    """A number, or a percentage of the accounts."""
    if preferences.get(f"{what}Count") is not None:
        return int(preferences[f"{what}Count"])
    if preferences.get(f"{what}Percentage") is not None:
        exact = of * int(preferences[f"{what}Percentage"]) / 100
        return max(1, int(exact)) if up else int(exact)
    return default


def subscribe(outbox: Outbox, calls: Calls, workflows: Any) -> None:
    """Operations begin once they are on the disk; accounts that come and go are followed."""

    async def stack_set(body: dict[str, Any]) -> None:
        if body["event"] not in ("Begin", "Ended"):
            return
        with calls.store.reading() as view:
            row = STACK_SET.get(view, body["account"], body["region"], body["name"])
        if row is None:
            return
        if row.doc.get("running"):
            where = {"account": row.account, "region": row.region, "name": row.name, "operation": row.doc["running"]}
            await workflows.begin(FLOW, f"{row.name}/{row.doc['running']}", where)
        else:
            await calls.store.write(lambda tx: _follow(calls, tx, row))

    async def account(body: dict[str, Any]) -> None:
        if body["event"] not in (
            "CreateAccount",
            "MoveAccount",
            "AcceptHandshake",
            "RemoveAccountFromOrganization",
            "LeaveOrganization",
        ):
            return
        with calls.store.reading() as view:
            if view.get(TRUSTED, "", "", SERVICE) is None:
                return
            sets = [
                one
                for region in _regions(calls)
                for one in view.scan(STACK_SET.key, calls.home, region, limit=1000)
                if one.doc["model"] == "SERVICE_MANAGED"
            ]

        def follow(tx: Transaction) -> None:
            for one in sets:
                _follow(calls, tx, one)

        await calls.store.write(follow)

    outbox.subscribe(STACK_SET.key, stack_set)
    outbox.subscribe(ACCOUNT, account)


def _regions(calls: Calls) -> tuple[str, ...]:
    return calls.engine(Configuration).regions


def _follow(calls: Calls, tx: Transaction, given: Row) -> None:
    """A set that deploys by itself goes where accounts came, and leaves those that went."""
    row = tx.get(given.kind, given.account, given.region, given.name)
    if row is None or row.doc.get("running") or not (row.doc.get("auto") or {}).get("Enabled"):
        return
    units, regions = row.doc.get("units", []), row.doc.get("regions", [])
    if not units or not regions or tx.get(TRUSTED, "", "", SERVICE) is None:
        return
    wanted = {(account, region): unit for account, unit in below(calls, tx, units).items() for region in regions}
    there = {}
    for held in tx.scan(INSTANCE, row.account, row.region, prefix=f"{row.name}/", limit=MOST_INSTANCES):
        _, account, region = held.name.rsplit("/", 2)
        there[account, region] = held.doc.get("unit", "")
    new = [{"account": a, "region": r, "unit": unit} for (a, r), unit in wanted.items() if (a, r) not in there]
    gone = [
        {"account": a, "region": r, "unit": unit} for (a, r), unit in there.items() if unit and (a, r) not in wanted
    ]
    preferences = {"FailureTolerancePercentage": 100, "MaxConcurrentCount": 4}
    if new:
        id = begin(calls, tx, row, "CREATE", new, preferences=preferences)
        add(calls, tx, row, new, id, record.seal(calls, {}))
    elif gone:
        retain = bool(row.doc["auto"].get("RetainStacksOnAccountRemoval"))
        begin(calls, tx, row, "DELETE", gone, preferences=preferences, retain=retain)

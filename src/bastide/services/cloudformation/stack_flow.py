"""How an operation on a stack runs: make, publish, undo, clean, settle.

Each step finds out from what is kept how far it came. `make` and `publish` fail the operation; the others run whatever
happened and decide by it: a failed operation is undone, unless somebody asked that what was made be kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.engines.workflow import Failed, Flow, Run, Step
from bastide.kernel import Calls
from bastide.kernel.outbox import Outbox
from bastide.services.cloudformation import record
from bastide.services.cloudformation.acting import Actor, Principal
from bastide.services.cloudformation.deployment import Deployment
from bastide.services.cloudformation.record import EXPORT, IMPORT, STACK, Held, arn_of
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.cloudformation")
FLOW: Final = "stack"
_MAKING: Final = ("create", "update", "import")
_UNDOING: Final = ("rollback", "continue")
_TICK: Final = 0.5
_TELLING: Final = 5.0


class StackFlow:
    """The flow of operations on stacks."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def flow(self) -> Flow:
        """The flow."""
        return Flow(
            FLOW,
            [
                Step("make", self.make),
                Step("publish", self.publish),
                Step("undo", self.undo, always=True),
                Step("clean", self.clean, always=True),
                Step("settle", self.settle, always=True),
            ],
        )

    def _row(self, run: Run) -> Row:
        with self.calls.store.reading() as view:
            return STACK.find(view, run.state["account"], run.state["region"], run.state["name"])

    async def _deployment(self, run: Run) -> Deployment:
        row = self._row(run)
        principal: Principal = row.doc["operation"]["principal"]
        actor = Actor(self.calls, principal, account=row.account, region=row.region, arn=arn_of(row))
        deployment = Deployment(self.calls, row, actor)
        if row.doc["operation"]["kind"] in _MAKING:
            await deployment.prepare()
        return deployment

    # -- forward -------------------------------------------------------------------------------------------------------

    async def make(self, run: Run) -> dict[str, Any]:
        """Makes and changes resources; fails with the first one's reason."""
        if self._row(run).doc["operation"]["kind"] not in _MAKING:
            return {}
        deployment = await self._deployment(run)
        watch = asyncio.ensure_future(self._watch(run, deployment))
        try:
            importing = deployment.operation["kind"] == "import"
            done = await (deployment.adopt() if importing else deployment.forward())
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await self._publish(deployment)
        if not done or deployment.halted:
            kind = deployment.operation["kind"]
            if deployment.halted == "cancel":
                raise Failed("Cancelled", "User Initiated")
            if deployment.halted == "time":
                raise Failed(
                    "Timeout", "Stack creation time exceeded the specified timeout. Rollback requested by user."
                )
            names = ", ".join(sorted(deployment.failed))
            told = f"The following resource(s) failed to {kind}: [{names}]. " if names else f"{deployment.cause} "
            raise Failed("Failed", told)
        return {}

    async def _watch(self, run: Run, deployment: Deployment) -> None:
        minutes = deployment.operation.get("timeout")
        ends = deployment.operation["began"] + minutes * 60 * MICROS if minutes else None
        while not deployment.halted:
            if run.asked("cancel"):
                deployment.halted = "cancel"
            elif ends is not None and run.clock() > ends:
                deployment.halted = "time"
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(run.signalled("cancel"), _TICK)

    async def publish(self, run: Run) -> dict[str, Any]:
        """Outputs and exports; the stack is what was asked for."""
        if self._row(run).doc["operation"]["kind"] not in _MAKING:
            return {}
        deployment = await self._deployment(run)
        try:
            outputs = deployment.outputs()
            imports = sorted(deployment.imports())
        except Refused as refused:
            raise Failed("Failed", refused.message) from None
        row = deployment.row
        self._exportable(row, outputs)

        def work(tx: Transaction) -> None:
            now = STACK.find(tx, row.account, row.region, row.name)
            if now.doc["operation"].get("published"):
                return
            self._export(tx, now, outputs)
            self._import(tx, now, imports)
            now.doc["outputs"] = {
                name: {**one, "value": record.seal(self.calls, one["value"])} for name, one in outputs.items()
            }
            if "next" in now.doc:
                now.doc["state"] = now.doc.pop("next")
                state = record.state_of(self.calls, now)
                now.tags, now.doc["Description"], now.doc["role"] = dict(state.tags), state.description, state.role
                now.doc["shown"] = now.doc.pop("next_shown", now.doc.get("shown"))
            now.doc["operation"]["published"] = True
            if now.doc["operation"]["kind"] == "update":
                now.doc["updated"] = tx.now
                record.become(tx, now, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
            else:
                STACK.change(tx, now, "Published")

        await self.calls.store.write(work)
        return {}

    def _exportable(self, row: Row, outputs: dict[str, dict[str, Any]]) -> None:
        """Raises Failed for an export that another stack has, or that others use and would change or go."""
        wanted = {one["export"]: one["value"] for one in outputs.values() if "export" in one}
        with self.calls.store.reading() as view:
            for name in wanted:
                held = view.get(EXPORT, row.account, row.region, name)
                if held is not None and held.doc["stack"] != row.name:
                    other = held.doc["stack"].partition("/")[0]
                    raise Failed(
                        "Failed",
                        f"Export with name {name} is already exported by stack {other}. Rollback requested by user.",
                    )
            for name in row.doc.get("exports", ()):
                held = view.get(EXPORT, row.account, row.region, name)
                if held is None or wanted.get(name) == held.doc["value"]:
                    continue
                used = view.scan(IMPORT, row.account, row.region, prefix=f"{name}\n", limit=1)
                if used:
                    verb = "update" if name in wanted else "delete"
                    raise Failed(
                        "Failed", f"Cannot {verb} export {name} as it is in use by {used[0].name.partition(chr(10))[2]}"
                    )

    def _export(self, tx: Transaction, row: Row, outputs: dict[str, dict[str, Any]]) -> None:
        wanted = {one["export"]: one["value"] for one in outputs.values() if "export" in one}
        for name in set(row.doc.get("exports", ())) - set(wanted):
            held = tx.get(EXPORT, row.account, row.region, name)
            if held is not None:
                tx.delete(held, keep=False)
        for name, value in wanted.items():
            held = tx.get(EXPORT, row.account, row.region, name)
            doc = {"value": value, "stack": row.name}
            if held is None:
                tx.insert(Row(EXPORT, row.account, row.region, name, doc), keep=False)
            else:
                held.doc = doc
                tx.update(held, keep=False)
        row.doc["exports"] = sorted(wanted)

    def _import(self, tx: Transaction, row: Row, names: list[str]) -> None:
        stack = row.name.partition("/")[0]
        for name in set(row.doc.get("imports", ())) - set(names):
            held = tx.get(IMPORT, row.account, row.region, f"{name}\n{stack}")
            if held is not None:
                tx.delete(held, keep=False)
        for name in names:
            if tx.get(IMPORT, row.account, row.region, f"{name}\n{stack}") is None:
                tx.insert(Row(IMPORT, row.account, row.region, f"{name}\n{stack}", {"stack": row.name}), keep=False)
        row.doc["imports"] = names

    # -- back ----------------------------------------------------------------------------------------------------------

    @staticmethod
    def _keeps(operation: dict[str, Any]) -> bool:
        """Whether what a failed operation made is to be left."""
        return bool(operation.get("disable_rollback")) or operation.get("on_failure") == "DO_NOTHING"

    async def undo(self, run: Run) -> dict[str, Any]:
        """Changes back what was changed, if the operation failed or was to do just that."""
        row = self._row(run)
        operation = row.doc["operation"]
        kind = operation["kind"]
        failed = run.failure is not None and kind in _MAKING
        if row.doc.get("then") or not (failed or kind in _UNDOING) or (failed and self._keeps(operation)):
            return {}
        reason = ""
        if run.failure is not None:
            reason = run.failure.message if run.failure.foreseen else "Internal Failure"
            if operation.get("on_failure") == "DELETE":
                reason = f"{reason}Delete requested by user."
            elif not reason.endswith("by user."):
                reason = f"{reason}Rollback requested by user." if reason.endswith(" ") else reason
        first = kind == "create" or operation.get("first")
        if kind == "import":
            status = "IMPORT_ROLLBACK_IN_PROGRESS"
        elif first:
            status = "DELETE_IN_PROGRESS" if operation.get("on_failure") == "DELETE" else "ROLLBACK_IN_PROGRESS"
        else:
            status = "UPDATE_ROLLBACK_IN_PROGRESS"
        await self._become(row, status, reason, cause=reason)
        if first or kind == "import":
            return {"back": True}
        deployment = await self._deployment(run)
        done = await deployment.back(operation.get("skip", ()))
        await self._publish(deployment)
        if not done:
            names = ", ".join(sorted(deployment.failed))
            return {"back": False, "why": f"The following resource(s) failed to update: [{names}]."}
        await self._become(self._row(run), "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")
        return {"back": True}

    async def _become(self, row: Row, status: str, reason: str = "", cause: str = "") -> None:
        def work(tx: Transaction) -> None:
            now = STACK.find(tx, row.account, row.region, row.name)
            if now.status != status:
                if cause:
                    now.doc["cause"] = cause
                record.become(tx, now, status, reason)

        await self.calls.store.write(work)

    # -- away ----------------------------------------------------------------------------------------------------------

    async def clean(self, run: Run) -> dict[str, Any]:
        """Removes what is not to be there any more."""
        row = self._row(run)
        operation = row.doc["operation"]
        kind = operation["kind"]
        failed = run.failure is not None or kind in _UNDOING
        undone = run.state.get("back")
        if row.doc.get("then") or (failed and kind != "delete" and not undone):
            return {}
        deployment = await self._deployment(run)
        if kind == "import":
            await deployment.let_go() if failed else None
            return {"clean": True}

        def gone(held: Held) -> bool:
            if kind == "delete":
                return True
            if failed:
                return bool(held.doc.get("operation") == deployment.id and held.doc.get("action") == "create")
            return held.logical not in declared

        declared: set[str] = set()
        if kind == "update" and not failed:
            declared = set(deployment.template.active(deployment.scope()))
        elif kind == "create" and not failed:
            declared = set(deployment.held)
        if failed and (kind == "create" or operation.get("first")) and operation.get("on_failure") == "DELETE":
            deployment.operation["deleting"] = True
        done = await deployment.clean(gone=gone, failed=failed)
        await self._publish(deployment)
        if done:
            return {"clean": True}
        names = ", ".join(sorted(deployment.failed))
        return {"clean": False, "why": f"The following resource(s) failed to delete: [{names}]. "}

    # -- the end -------------------------------------------------------------------------------------------------------

    async def settle(self, run: Run) -> dict[str, Any]:
        """The last status."""
        row = self._row(run)
        operation = row.doc["operation"]
        status, reason = self._verdict(run, operation)

        def work(tx: Transaction) -> None:
            now = STACK.find(tx, row.account, row.region, row.name)
            if now.doc["operation"]["run"] != operation["run"] or now.doc["operation"].get("over"):
                return
            now.doc["operation"]["over"] = True
            then = now.doc.pop("then", None)
            if then is not None:
                now.doc["operation"] = then
                record.become(tx, now, "DELETE_IN_PROGRESS", "User Initiated", "Begin")
                return
            if status != "UPDATE_FAILED" and not status.endswith("ROLLBACK_FAILED"):
                now.doc.pop("next", None)
                now.doc.pop("next_shown", None)
            if status == "DELETE_COMPLETE":
                now.doc["deleted"] = tx.now
                self._export(tx, now, {})
                self._import(tx, now, [])
                for signal in tx.scan(
                    record.SIGNAL, now.account, now.region, prefix=f"{now.name.partition('/')[2]}/", limit=1000
                ):
                    tx.delete(signal, keep=False)
                record.release(tx, now)
            record.become(tx, now, status, reason)

        await self.calls.store.write(work)
        deployment = await self._deployment(run)
        if deployment.stack.notifications:
            deployment.told.append(
                {
                    "logical": deployment.stack.stack_name,
                    "physical": deployment.stack.arn,
                    "type": "AWS::CloudFormation::Stack",
                    "status": status,
                    "reason": reason,
                }
            )
            await self._publish(deployment)
        return {}

    def _verdict(self, run: Run, operation: dict[str, Any]) -> tuple[str, str]:
        kind, state = operation["kind"], run.state
        failed = run.failure is not None
        why = state.get("why", "")
        if kind == "delete":
            return ("DELETE_COMPLETE", "") if state.get("clean") else ("DELETE_FAILED", why)
        first = kind == "create" or operation.get("first")
        if kind == "import":
            return ("IMPORT_ROLLBACK_COMPLETE" if failed else "IMPORT_COMPLETE"), ""
        if not failed and kind in _MAKING:
            return f"{kind.upper()}_COMPLETE", ""
        if failed and kind in _MAKING and self._keeps(operation):
            assert run.failure is not None
            return f"{kind.upper()}_FAILED", run.failure.message
        if first:
            if operation.get("on_failure") == "DELETE":
                return ("DELETE_COMPLETE", "") if state.get("clean") else ("DELETE_FAILED", why)
            return ("ROLLBACK_COMPLETE", "") if state.get("clean") else ("ROLLBACK_FAILED", why)
        if not state.get("back"):
            return "UPDATE_ROLLBACK_FAILED", why
        return "UPDATE_ROLLBACK_COMPLETE", ""

    # -- telling -------------------------------------------------------------------------------------------------------

    async def _publish(self, deployment: Deployment) -> None:
        """Tells the stack's topics what happened; that it cannot keeps nothing from happening."""
        told, deployment.told = deployment.told, []
        for arn in deployment.stack.notifications:
            for one in told:
                lines = {
                    "StackId": deployment.stack.arn,
                    "StackName": deployment.stack.stack_name,
                    "LogicalResourceId": one["logical"],
                    "PhysicalResourceId": one["physical"],
                    "ResourceType": one["type"],
                    "ResourceStatus": one["status"],
                    "ResourceStatusReason": one["reason"],
                }
                message = "".join(f"{name}='{value}'\n" for name, value in lines.items())
                asked = {"TopicArn": arn, "Subject": "AWS CloudFormation Notification", "Message": message}
                try:
                    await asyncio.wait_for(deployment.actor.act("sns", "Publish", asked), _TELLING)
                except Refused as refused:
                    _log.info("the topic %s was not told: %s", arn, refused.code)
                    break
                except TimeoutError:
                    break


def subscribe(outbox: Outbox, calls: Calls, workflows: Any) -> None:
    """What was asked of a stack begins once the asking is on the disk."""

    async def stack(body: dict[str, Any]) -> None:
        if body["event"] not in ("Begin", "Cancel"):
            return
        with calls.store.reading() as view:
            row = STACK.get(view, body["account"], body["region"], body["name"])
        if row is None or not row.doc.get("operation") or row.doc["operation"].get("over"):
            return
        run = row.doc["operation"]["run"]
        if body["event"] == "Begin":
            await workflows.begin(FLOW, run, {"account": row.account, "region": row.region, "name": row.name})
        else:
            await workflows.signal(run, "cancel")

    outbox.subscribe(STACK.key, stack)

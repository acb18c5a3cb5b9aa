"""What a record stands for, done: the stack made, changed or removed by whoever launches, in steps that a killed platform
takes up again.

The stack's id is written in the transaction that makes the stack, so that none is made twice.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines.workflow import Flow, Run, Step, Workflows, reach
from bastide.kernel import Calls, Output
from bastide.kernel.outbox import Outbox
from bastide.services.servicecatalog.acting import Actor
from bastide.services.servicecatalog.action import targets_of
from bastide.services.servicecatalog.noun import NAMED, PLAN, PROVISIONED, RECORD, arn_of
from bastide.services.servicecatalog.provisioned import ACTED, opened, seal
from bastide.store import Row, Transaction

FLOW: Final = "servicecatalog-record"
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 3.0
_GOOD: Final = {
    "PROVISION_PRODUCT": ("CREATE_COMPLETE",),
    "UPDATE_PROVISIONED_PRODUCT": ("UPDATE_COMPLETE", "CREATE_COMPLETE"),
    "TERMINATE_PROVISIONED_PRODUCT": ("DELETE_COMPLETE",),
}
_LONGEST: Final = 2000


class Launch:
    """The steps of a record."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def flow(self) -> Flow:
        """The workflow."""
        steps = [Step("ask", self.ask), Step("settle", self.settle), Step("end", self.end, always=True)]
        return Flow(FLOW, steps)

    def _rows(self, run: Run) -> tuple[Row, Row]:
        state = run.state
        with self._calls.store.reading() as view:
            record = RECORD.find(view, state["account"], state["region"], state["record"])
            product = PROVISIONED.find(view, state["account"], state["region"], record.doc["ProvisionedProductId"])
        return record, product

    def _actor(self, record: Row, product: Row) -> Actor:
        return Actor(
            self._calls, record.doc.get("LaunchRoleArn") or "", record.doc["who"], account=record.account,
            region=record.region, arn=arn_of(product),
        )  # fmt: skip

    async def ask(self, run: Run) -> dict[str, Any]:
        """Asks CloudFormation, once."""
        record, product = self._rows(run)
        await self._calls.store.write(lambda tx: self._begun(tx, record))
        if record.doc.get("asked"):
            return {"stack": record.doc["stack"]}
        actor, type = self._actor(record, product), record.doc["RecordType"]

        def also(tx: Transaction, output: Output) -> None:
            now = RECORD.find(tx, record.account, record.region, record.name)
            now.doc["stack"], now.doc["asked"] = output.get("StackId") or now.doc.get("stack", ""), True
            RECORD.change(tx, now, "Asked")
            held = PROVISIONED.find(tx, product.account, product.region, product.name)
            held.doc["stack"] = now.doc["stack"]
            PROVISIONED.change(tx, held, "Asked")
            made.append(now.doc["stack"])

        made: list[str] = []
        if type == ACTED:
            return await self._run(actor, record)
        if record.doc.get("set"):
            await actor.act("ExecuteChangeSet", {"ChangeSetName": record.doc["set"]}, also)
        elif type == "PROVISION_PRODUCT":
            asked = opened(self._calls, record.doc["order"])
            await actor.act("CreateStack", {"StackName": f"SC-{record.account}-{product.name}", **asked}, also)
        elif type == "UPDATE_PROVISIONED_PRODUCT":
            asked = opened(self._calls, record.doc["order"])
            try:
                await actor.act("UpdateStack", {"StackName": record.doc["stack"], **asked}, also)
            except Refused as refused:
                if "No updates are to be performed" not in refused.message:
                    raise
        elif record.doc.get("stack") and not record.doc.get("retain"):
            await actor.act("DeleteStack", {"StackName": record.doc["stack"]}, also)
        else:
            return {"stack": ""}
        reach(f"{FLOW}/{type}:asked")
        return {"stack": made[-1] if made else record.doc["stack"]}

    async def _run(self, actor: Actor, record: Row) -> dict[str, Any]:
        """Starts the runbook of a service action."""
        definition = record.doc["definition"]
        given = dict(opened(self._calls, record.doc["given"]))
        missing = [
            one["Name"]
            for one in orjson.loads(definition.get("Parameters") or "[]")
            if one["Type"] == "TARGET" and one["Name"] not in given
        ]
        version = {"DocumentVersion": definition["Version"]}
        if missing:
            named = {"Name": definition["Name"], **version}
            held = (await actor.act("DescribeDocument", named, service="ssm"))["Document"]
            answer = await actor.act("ListStackResources", {"StackName": record.doc["stack"]})
            targets = targets_of(answer["StackResourceSummaries"], held.get("TargetType") or "")
            if not targets:
                raise Refused(
                    "InvalidTarget", f"What was provisioned has nothing of the type {held.get('TargetType')}."
                )
            given |= dict.fromkeys(missing, targets)

        def also(tx: Transaction, output: Output) -> None:
            now = RECORD.find(tx, record.account, record.region, record.name)
            now.doc["automation"], now.doc["asked"] = output["AutomationExecutionId"], True
            RECORD.change(tx, now, "Asked")

        asked = {"DocumentName": definition["Name"], **version, "Parameters": given}
        await actor.act("StartAutomationExecution", asked, also, service="ssm")
        return {"stack": record.doc["stack"]}

    async def _ran(self, actor: Actor, id: str) -> dict[str, Any]:
        """Waits for the end of a runbook; raises Refused if it did not succeed."""
        pause = _FIRST_PAUSE
        while True:
            told = await actor.act("GetAutomationExecution", {"AutomationExecutionId": id}, service="ssm")
            held = told["AutomationExecution"]
            status = str(held["AutomationExecutionStatus"])
            if status in ("Success", "Failed", "Cancelled", "TimedOut"):
                break
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        if status != "Success":
            raise Refused("AutomationFailed", f"{status}: {held.get('FailureMessage') or id}")
        return {"outputs": seal(self._calls, [])}

    def _begun(self, tx: Transaction, record: Row) -> None:
        now = RECORD.find(tx, record.account, record.region, record.name)
        if now.status == "CREATED":
            now.status = "IN_PROGRESS"
            RECORD.change(tx, now, "Begun")

    async def settle(self, run: Run) -> dict[str, Any]:
        """Waits until nothing happens to the stack any more; raises Refused if it is not what was asked for."""
        stack = run.state["stack"]
        if not stack:
            return {"outputs": seal(self._calls, [])}
        record, product = self._rows(run)
        actor, pause = self._actor(record, product), _FIRST_PAUSE
        if record.doc["RecordType"] == ACTED:
            return await self._ran(actor, record.doc["automation"])
        while True:
            told = (await actor.act("DescribeStacks", {"StackName": stack}))["Stacks"][0]
            if not told["StackStatus"].endswith("_IN_PROGRESS"):
                break
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        status = str(told["StackStatus"])
        if status not in _GOOD[record.doc["RecordType"]]:
            raise Refused("StackFailed", f"{status}: {await self._why(actor, stack, told)}", kept={"status": status})
        outputs = [
            {
                "OutputKey": "CloudformationStackARN", "OutputValue": stack,
                "Description": "The ARN of the launched Cloudformation Stack",
            }
        ]  # fmt: skip
        for one in told.get("Outputs") or ():
            outputs.append({name: one[name] for name in ("OutputKey", "OutputValue", "Description") if one.get(name)})
        return {"outputs": seal(self._calls, outputs)}

    async def _why(self, actor: Actor, stack: str, told: Output) -> str:
        """The first cause, as the stack's events tell it."""
        try:
            events = (await actor.act("DescribeStackEvents", {"StackName": stack}))["StackEvents"]
        except Refused:
            return str(told.get("StackStatusReason") or "")
        causes = [
            f"{one['LogicalResourceId']} ({one['ResourceType']}): {one.get('ResourceStatusReason', '')}"
            for one in reversed(events)
            if one["ResourceStatus"].endswith("_FAILED") and "cancelled" not in one.get("ResourceStatusReason", "")
        ]
        return causes[0] if causes else str(told.get("StackStatusReason") or "")

    async def end(self, run: Run) -> None:
        """Writes how it ended."""
        failure = run.failure

        def work(tx: Transaction) -> None:
            record = RECORD.find(tx, run.state["account"], run.state["region"], run.state["record"])
            if record.status in ("SUCCEEDED", "FAILED"):
                return
            held = PROVISIONED.get(tx, record.account, record.region, record.doc["ProvisionedProductId"])
            type = record.doc["RecordType"]
            if failure is not None:
                message = failure.message if failure.foreseen else "An internal error occurred."
                record.status = "FAILED"
                record.doc["errors"] = [{"Code": failure.code, "Description": message[:_LONGEST]}]
            else:
                record.status = "SUCCEEDED"
                record.doc["outputs"] = run.state["outputs"]
            record.doc.pop("order", None)
            RECORD.change(tx, record, "Ended")
            plan = PLAN.get(tx, record.account, record.region, record.doc.get("plan") or "")
            if plan is not None:
                plan.status = "EXECUTE_SUCCESS" if failure is None else "EXECUTE_FAILED"
                PLAN.change(tx, plan, "Executed")
            if held is None:
                return
            if type == "TERMINATE_PROVISIONED_PRODUCT" and (failure is None or record.doc.get("ignore")):
                named = tx.get(NAMED, held.account, held.region, held.doc["Name"])
                if named is not None and named.doc["id"] == held.name:
                    tx.delete(named, keep=False)
                PROVISIONED.remove(tx, held, "Terminated")
                return
            if type == ACTED:
                held.status = record.doc["before"]
            elif failure is None:
                held.status = "AVAILABLE"
                held.doc |= {
                    "ProvisioningArtifactId": record.doc["ProvisioningArtifactId"], "PathId": record.doc["PathId"],
                    "tags": record.doc["tags"], "values": record.doc["values"], "StatusMessage": "",
                    "LaunchRoleArn": record.doc["LaunchRoleArn"], "LastProvisioningRecordId": record.name,
                    "LastSuccessfulProvisioningRecordId": record.name,
                }  # fmt: skip
            else:
                held.status = "TAINTED" if type == "UPDATE_PROVISIONED_PRODUCT" else "ERROR"
                held.doc["StatusMessage"] = record.doc["errors"][0]["Description"]
                if type != "TERMINATE_PROVISIONED_PRODUCT":
                    held.doc["LastProvisioningRecordId"] = record.name
            PROVISIONED.change(tx, held, "Ended")

        await self._calls.store.write(work)


def subscribe(outbox: Outbox, calls: Calls, workflows: Workflows) -> None:
    """A record's work begins once it is on the disk."""

    async def record(body: dict[str, Any]) -> None:
        if body["status"] == "CREATED":
            where = {"account": body["account"], "region": body["region"], "record": body["name"]}
            await workflows.begin(FLOW, f"{body['account']}/{body['region']}/{body['name']}", where)

    outbox.subscribe(RECORD.key, record)

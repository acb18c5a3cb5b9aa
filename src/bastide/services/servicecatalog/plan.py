"""Plans: what a launch or an update would make and change, before it does; a change set of the stack.

Source: Service Catalog API Reference, "CreateProvisionedProductPlan", "ExecuteProvisionedProductPlan".
"""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.templates import parameters
from bastide.engines.workflow import Flow, Run, Step, Workflows
from bastide.kernel import Asked, Authorised, Calls, Output, anything, once
from bastide.kernel.outbox import Outbox
from bastide.services.servicecatalog import fetching
from bastide.services.servicecatalog.acting import Actor, kept
from bastide.services.servicecatalog.noun import (
    NAMED,
    PLAN,
    PROVISIONED,
    RECORD,
    arn_of,
    ask,
    check_level,
    invalid,
    is_level,
    levels,
    listed_levels,
    new,
    newest,
    owner,
    shown_tags,
    sliced,
)
from bastide.services.servicecatalog.order import Order, ordered
from bastide.services.servicecatalog.provisioned import opened, seal, shown_record
from bastide.store import Row, Transaction, View

FLOW: Final = "servicecatalog-plan"
_ACTIONS: Final = {"Add": "ADD", "Modify": "MODIFY", "Remove": "REMOVE"}
_READY: Final = ("AVAILABLE", "TAINTED")
_DELETING: Final = "DELETING"
"""Of a plan that is about to be gone; it is shown as what it was."""


def _named(asked: Asked) -> Row | None:
    held = asked.view.get(
        NAMED, asked.call.account, asked.call.region, str(asked.input.get("ProvisionedProductName") or "")
    )
    if held is None:
        return None
    return PROVISIONED.get(asked.view, asked.call.account, asked.call.region, held.doc["id"])


def _asked(asked: Asked) -> Row | None:
    return PLAN.get(asked.view, asked.call.account, asked.call.region, str(asked.input.get("PlanId") or ""))


def _shown_parameters(order: Order) -> list[dict[str, str]]:
    hidden = parameters.hidden(fetching.read(order.template).parameters)
    return [{"Key": key, "Value": parameters.HIDDEN if key in hidden else one} for key, one in order.parameters.items()]


def _existing(a: Authorised, tx: Transaction, row: Row) -> Order:
    if row.status not in _READY:
        raise invalid(f"The provisioned product {row.name} is {row.status}; it cannot be planned for now.")
    order = ordered(a, tx, earlier=opened(a.calls, row.doc["values"]), tags=row.doc["tags"])
    if order.path.product.name != row.doc["ProductId"]:
        raise invalid("A provisioned product is updated to versions of its own product only.")
    row.status = "PLAN_IN_PROGRESS"
    PROVISIONED.change(tx, row, a.operation.name, a.request.id)
    return order


def _fresh(a: Authorised, tx: Transaction, name: str) -> tuple[Row, Order]:
    order = ordered(a, tx)
    doc: dict[str, Any] = {
        "Name": name, "owner": owner(a.caller), "ProductId": order.path.product.name,
        "ProvisioningArtifactId": order.artifact.name.partition("/")[2], "PathId": order.path.id,
        "LaunchRoleArn": order.role, "LastRecordId": "", "LastProvisioningRecordId": "",
        "IdempotencyToken": a.input["IdempotencyToken"], "tags": order.tags, "stack": "",
        "ProductName": order.path.product.doc["Name"], "ProvisioningArtifactName": order.artifact.doc["Name"],
    }  # fmt: skip
    row = PROVISIONED.create(a, tx, new("pp"), doc, status="PLAN_IN_PROGRESS")
    tx.insert(Row(NAMED, a.account, a.region, name, {"id": row.name}), keep=False)
    return row, order


@PLAN.operation(
    "CreateProvisionedProductPlan", asks=ask("CreateProvisionedProductPlan", anything, given=levels(_named))
)
def create(a: Authorised, tx: Transaction) -> Output:
    given = a.input

    def make() -> Output:
        name = given["ProvisionedProductName"]
        held = tx.get(NAMED, a.account, a.region, name)
        row = PROVISIONED.get(tx, a.account, a.region, held.doc["id"]) if held is not None else None
        if row is not None:
            order = _existing(a, tx, row)
        else:
            row, order = _fresh(a, tx, name)
        doc = {
            "PlanName": given["PlanName"], "product": row.name, "name": name, "ProductId": order.path.product.name,
            "ProvisioningArtifactId": order.artifact.name.partition("/")[2], "PathId": order.path.id,
            "owner": owner(a.caller), "role": order.role, "who": {} if order.role else kept(a.caller),
            "order": seal(a.calls, order.asked()), "values": seal(a.calls, order.parameters), "tags": order.tags,
            "topics": order.topics, "shown": _shown_parameters(order), "stack": row.doc["stack"],
            "fresh": held is None, "changes": [],
        }  # fmt: skip
        plan = PLAN.create(a, tx, new("plan"), doc, status="CREATE_IN_PROGRESS")
        return {
            "PlanName": given["PlanName"], "PlanId": plan.name, "ProvisionProductId": row.name,
            "ProvisionedProductName": name, "ProvisioningArtifactId": doc["ProvisioningArtifactId"],
        }  # fmt: skip

    return once(a, tx, given["IdempotencyToken"], make, code="InvalidParametersException")


def _summary(row: Row) -> Output:
    doc = row.doc
    return {
        "PlanName": doc["PlanName"], "PlanId": row.name, "ProvisionProductId": doc["product"],
        "ProvisionProductName": doc["name"], "PlanType": "CLOUDFORMATION",
        "ProvisioningArtifactId": doc["ProvisioningArtifactId"],
    }  # fmt: skip


@PLAN.reads(
    "DescribeProvisionedProductPlan", asks=ask("DescribeProvisionedProductPlan", anything, given=levels(_asked))
)
def describe(a: Authorised, view: View) -> Output:
    row = PLAN.find(view, a.account, a.region, a.input["PlanId"])
    doc = row.doc
    told = {
        **_summary(row), "CreatedTime": row.created, "UpdatedTime": row.modified, "ProductId": doc["ProductId"],
        "PathId": doc["PathId"], "Status": doc.get("was") or row.status, "NotificationArns": doc["topics"],
        "ProvisioningParameters": doc["shown"], "Tags": shown_tags(doc["tags"]),
        **({"StatusMessage": doc["message"]} if doc.get("message") else {}),
    }  # fmt: skip
    changes = [(f"{number:05d}", one) for number, one in enumerate(doc["changes"])]
    return {"ProvisionedProductPlanDetails": told, **sliced(a, "ResourceChanges", changes)}


@PLAN.reads("ListProvisionedProductPlans", asks=ask("ListProvisionedProductPlans", anything, given=listed_levels()))
def listed(a: Authorised, view: View) -> Output:
    level, wanted = check_level(a), a.input.get("ProvisionProductId")

    def mine(row: Row) -> bool:
        return is_level(level, a.caller, row.doc) and wanted in (None, row.doc["product"])

    return newest(a, view, PLAN, "ProvisionedProductPlans", mine, _summary)


@PLAN.operation(
    "ExecuteProvisionedProductPlan", asks=ask("ExecuteProvisionedProductPlan", anything, given=levels(_asked))
)
def execute(a: Authorised, tx: Transaction) -> Output:
    def make() -> Output:
        plan = PLAN.find(tx, a.account, a.region, a.input["PlanId"])
        doc = plan.doc
        row = PROVISIONED.find(tx, a.account, a.region, doc["product"])
        if plan.status != "CREATE_SUCCESS" or row.status != "PLAN_IN_PROGRESS":
            raise Refused("InvalidStateException", f"The plan {plan.name} is {plan.status}; it cannot be executed.")
        id = new("rec")
        told = {
            "ProvisionedProductName": doc["name"], "ProvisionedProductId": row.name, "plan": plan.name,
            "RecordType": "PROVISION_PRODUCT" if doc["fresh"] else "UPDATE_PROVISIONED_PRODUCT", "set": doc["set"],
            "ProductId": doc["ProductId"], "ProvisioningArtifactId": doc["ProvisioningArtifactId"],
            "PathId": doc["PathId"], "LaunchRoleArn": doc["role"], "owner": owner(a.caller), "stack": doc["stack"],
            "who": {} if doc["role"] else kept(a.caller), "tags": doc["tags"], "values": doc["values"],
        }  # fmt: skip
        record = RECORD.create(a, tx, id, told, status="CREATED")
        row.status, row.doc["LastRecordId"] = "UNDER_CHANGE", id
        PROVISIONED.change(tx, row, a.operation.name, a.request.id)
        plan.status = "EXECUTE_IN_PROGRESS"
        PLAN.change(tx, plan, a.operation.name, a.request.id)
        return {"RecordDetail": {**shown_record(record), "CreatedTime": tx.now, "UpdatedTime": tx.now}}

    return once(a, tx, a.input["IdempotencyToken"], make, code="InvalidParametersException")


@PLAN.operation(
    "DeleteProvisionedProductPlan", asks=ask("DeleteProvisionedProductPlan", anything, given=levels(_asked))
)
def delete(a: Authorised, tx: Transaction) -> Output:
    plan = PLAN.find(tx, a.account, a.region, a.input["PlanId"])
    if plan.status in ("CREATE_IN_PROGRESS", "EXECUTE_IN_PROGRESS", _DELETING):
        raise invalid(f"The plan {plan.name} is {plan.status}; please wait until that is over.")
    if plan.status.startswith("EXECUTE"):
        PLAN.remove(tx, plan, a.operation.name, a.request.id)
        return {}
    plan.doc |= {"was": plan.status, "ignore": bool(a.input.get("IgnoreErrors"))}
    plan.doc["run"] = plan.doc.get("run", 0) + 1
    plan.status = _DELETING
    PLAN.change(tx, plan, a.operation.name, a.request.id)
    return {}


class Planning:
    """The steps of a plan: its change set made, or taken away."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def flow(self) -> Flow:
        """The workflow."""
        return Flow(FLOW, [Step("work", self.work), Step("end", self.end, always=True)])

    async def work(self, run: Run) -> dict[str, Any]:
        """Asks CloudFormation; the ids are written in the transaction that makes the change set."""
        state = run.state
        with self._calls.store.reading() as view:
            plan = PLAN.find(view, state["account"], state["region"], state["plan"])
            product = PROVISIONED.find(view, plan.account, plan.region, plan.doc["product"])
        doc = plan.doc
        actor = Actor(
            self._calls, doc["role"], doc["who"], account=plan.account, region=plan.region, arn=arn_of(product)
        )
        if state["action"] == "delete":
            await self._away(actor, doc)
            return {}

        def also(tx: Transaction, output: Output) -> None:
            now = PLAN.find(tx, plan.account, plan.region, plan.name)
            now.doc |= {"set": output["Id"], "stack": output["StackId"]}
            PLAN.change(tx, now, "Asked")

        made = doc.get("set")
        if not made:
            asked = opened(self._calls, doc["order"])
            asked |= {
                "StackName": doc["stack"] or f"SC-{plan.account}-{product.name}", "ChangeSetName": plan.name,
                "ChangeSetType": "CREATE" if doc["fresh"] else "UPDATE",
            }  # fmt: skip
            made = (await actor.act("CreateChangeSet", asked, also))["Id"]
        changes: list[dict[str, Any]] = []
        more: dict[str, Any] = {"ChangeSetName": made}
        while True:
            told = await actor.act("DescribeChangeSet", more)
            changes += [_change(one["ResourceChange"]) for one in told.get("Changes") or ()]
            if not told.get("NextToken"):
                break
            more["NextToken"] = told["NextToken"]
        if told["Status"] != "CREATE_COMPLETE":
            raise Refused("PlanFailed", str(told.get("StatusReason") or told["Status"]))
        return {"changes": changes}

    @staticmethod
    async def _away(actor: Actor, doc: dict[str, Any]) -> None:
        if not doc.get("set"):
            return
        if doc["fresh"]:
            await actor.act("DeleteStack", {"StackName": doc["stack"]})
        else:
            await actor.act("DeleteChangeSet", {"ChangeSetName": doc["set"]})

    async def end(self, run: Run) -> None:
        """Writes how it ended."""
        state, failure = run.state, run.failure

        def work(tx: Transaction) -> None:
            plan = PLAN.get(tx, state["account"], state["region"], state["plan"])
            if plan is None:
                return
            message = "" if failure is None else failure.message if failure.foreseen else "An internal error occurred."
            if state["action"] == "create":
                if plan.status == "CREATE_IN_PROGRESS":
                    plan.status = "CREATE_SUCCESS" if failure is None else "CREATE_FAILED"
                    plan.doc |= {"message": message[:2000], "changes": state.get("changes", [])}
                    PLAN.change(tx, plan, "Planned")
                return
            if failure is not None and not plan.doc["ignore"]:
                plan.status = plan.doc.pop("was")
                plan.doc["message"] = message[:2000]
                PLAN.change(tx, plan, "Kept")
                return
            self._forget(tx, plan)

        await self._calls.store.write(work)

    @staticmethod
    def _forget(tx: Transaction, plan: Row) -> None:
        held = PROVISIONED.get(tx, plan.account, plan.region, plan.doc["product"])
        PLAN.remove(tx, plan, "Deleted")
        if held is None or held.status != "PLAN_IN_PROGRESS":
            return
        if plan.doc["fresh"]:
            named = tx.get(NAMED, held.account, held.region, held.doc["Name"])
            if named is not None and named.doc["id"] == held.name:
                tx.delete(named, keep=False)
            PROVISIONED.remove(tx, held, "PlanDeleted")
        else:
            held.status = "AVAILABLE"
            PROVISIONED.change(tx, held, "PlanDeleted")


def _change(given: dict[str, Any]) -> dict[str, Any]:
    """A change of a resource as the catalog tells it."""
    names = ("LogicalResourceId", "PhysicalResourceId", "ResourceType", "Scope")
    found = {name: given[name] for name in names if given.get(name)}
    if given.get("Replacement"):
        found["Replacement"] = str(given["Replacement"]).upper()
    return {**found, "Action": _ACTIONS.get(given["Action"], "MODIFY")}


def subscribe(outbox: Outbox, calls: Calls, workflows: Workflows) -> None:
    """A plan's work begins once it is on the disk."""

    async def plan(body: dict[str, Any]) -> None:
        action = {"CREATE_IN_PROGRESS": "create", _DELETING: "delete"}.get(body["status"])
        if action is None or body["event"] == "Asked":
            return
        with calls.store.reading() as view:
            row = PLAN.get(view, body["account"], body["region"], body["name"])
        if row is not None:
            where = {"account": row.account, "region": row.region, "plan": row.name, "action": action}
            await workflows.begin(FLOW, f"{row.account}/{row.name}/{action}/{row.doc.get('run', 0)}", where)

    outbox.subscribe(PLAN.key, plan)

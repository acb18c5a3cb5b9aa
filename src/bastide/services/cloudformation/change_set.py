"""Change sets: what an update would do, looked at first and then done as it was shown.

Source: CloudFormation User Guide, "Update CloudFormation stacks using change sets".
"""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused, new_id
from bastide.kernel import Ask, Authorised, Output, each, pages
from bastide.services.cloudformation import importing, planning, record
from bastide.services.cloudformation.acting import Actor, as_role
from bastide.services.cloudformation.deployment import Deployment
from bastide.services.cloudformation.intake import actor_of, intake
from bastide.services.cloudformation.macros import Untransformed
from bastide.services.cloudformation.record import (
    CHANGE_SET,
    SET_ID,
    STACK,
    State,
    active,
    arn_of,
    found,
    of_set,
    set_of,
    stack_of_set,
    this,
)
from bastide.services.cloudformation.stack import (
    GIVEN,
    PASS_ROLE,
    TAG,
    differs,
    invalid,
    new_row,
    role_of,
    shown_parameters,
    start_update,
    take_state,
    updatable,
    who,
)
from bastide.store import Row, Taken, Transaction, View

REVIEW: Final = "REVIEW_IN_PROGRESS"
_PAGE: Final = 100
_NOTHING: Final = (
    "The submitted information didn't contain changes. Submit different information to create a change set."
)


def absent(name: str) -> Refused:
    """There is no such change set."""
    return Refused("ChangeSetNotFound", f"ChangeSet [{name}] does not exist", 404)


_NAMED: Final = {"cloudformation:ChangeSetName": each("ChangeSetName")}
_GIVEN: Final = {
    **{key: given for key, given in {**GIVEN, **_NAMED}.items() if key != "cloudformation:StackPolicyUrl"},
    "cloudformation:ImportResourceTypes": each("ResourcesToImport.ResourceType"),
}


def _held(a: Authorised, view: View) -> tuple[Row, Row]:
    """The stack and the change set that a call names; raises Refused."""
    name = a.input["ChangeSetName"]
    if not name.startswith("arn:") and not a.input.get("StackName"):
        raise invalid("StackName must be specified if ChangeSetName is not specified as an ARN.")
    stack = stack_of_set(view, a.account, a.region, a.input)
    if stack is None:
        if a.input.get("StackName") and not name.startswith("arn:"):
            raise invalid(f"Stack [{a.input['StackName']}] does not exist")
        raise absent(name)
    row = set_of(view, stack, name)
    if row is None:
        raise absent(name)
    return stack, row


# -- creating ----------------------------------------------------------------------------------------------------------


async def _before_create(a: Authorised) -> Any:
    for member in ("IncludeNestedStacks",):
        if a.input.get(member):
            raise invalid(f"{member} is not supported by Bastide yet; please leave it out.")
    kind = a.input.get("ChangeSetType") or "UPDATE"
    if bool(a.input.get("ResourcesToImport")) != (kind == "IMPORT"):
        raise invalid("ResourcesToImport is to be given with the ChangeSetType IMPORT, and with no other.")
    with a.calls.store.reading() as view:
        row = active(view, a.account, a.region, a.input["StackName"])
    fresh = row is None or row.status == REVIEW
    if kind == "CREATE" and not fresh:
        raise invalid(
            f"Stack [{a.input['StackName']}] already exists and cannot be created again with the changeSet "
            f"[{a.input['ChangeSetName']}]."
        )
    imports = importing.asked(a.calls, a.input) if kind == "IMPORT" else {}
    if kind == "UPDATE" and fresh:
        raise invalid(f"Stack [{a.input['StackName']}] does not exist")
    name = a.input["StackName"]
    if row is None:
        row = new_row(a, name, new_id())
    else:
        name = row.name.partition("/")[0]
        if kind != "CREATE" and not fresh:
            updatable(row)
    earlier = record.state_of(a.calls, row) if kind != "CREATE" and not fresh else None
    try:
        state = await intake(
            a, a.input, arn=arn_of(row), name=name, role=role_of(a, row), earlier=earlier, reviewed=True
        )
    except Untransformed as failed:
        return row, failed.message, None
    plan = await planned(a, row, state)
    if kind == "IMPORT":
        importing.check(a, row, state, earlier, plan, imports)
    return row, state, plan


async def planned(a: Authorised, row: Row, state: State) -> planning.Plan:
    """What a state would change of a stack; raises Refused."""
    doc = {**row.doc, "next": record.seal(a.calls, state.kept()), "operation": {"id": "plan", "kind": "plan"}}
    copy = Row(row.kind, row.account, row.region, row.name, doc, row.status, row.tags)
    deployment = Deployment(a.calls, copy, actor_of(a, arn_of(row)))
    await deployment.prepare()
    return planning.changes(deployment)


@STACK.operation(
    "CreateChangeSet",
    asks=[Ask("cloudformation:CreateChangeSet", this(), given=_GIVEN), PASS_ROLE, TAG],
    before=_before_create,
)
def create(a: Authorised, tx: Transaction) -> Output:
    stack, given, plan = a.staged
    failed = given if isinstance(given, str) else ""
    state: State = State(str(a.input.get("TemplateBody") or ""), "{}") if failed else given
    changes = list(plan.found.values()) if plan is not None else []
    kind = a.input.get("ChangeSetType") or "UPDATE"
    name = a.input["ChangeSetName"]
    current = active(tx, a.account, a.region, a.input["StackName"])
    if current is None:
        try:
            record.claim(tx, stack)
        except Taken:
            raise Refused("AlreadyExistsException", f"Stack [{a.input['StackName']}] already exists", 400) from None
        take_state(a, stack, state)
        stack.status = REVIEW
        record.tell(tx, stack, status=REVIEW, reason="User Initiated")
        STACK.insert(tx, stack, "Review", a.request.id)
    elif current.name != stack.name or current.generation != stack.generation:
        raise Refused("ConflictException", "The stack was changed at the same time. Please try again.", 409)
    uuid = stack.name.partition("/")[2]
    id = f"{name}/{new_id()}"
    arn = f"arn:aws:cloudformation:{a.region}:{a.account}:changeSet/{id}"
    there = current is not None and current.status != REVIEW and kind != "CREATE"
    earlier = record.state_of(a.calls, current) if current is not None and there else None
    same = earlier is None or not differs(earlier, state, stack) or not _beside(earlier, state)
    empty = not failed and not changes and same
    doc = {
        "arn": arn,
        "name": name,
        "type": kind,
        "Description": a.input.get("Description") or "",
        "state": record.seal(a.calls, state.kept()),
        "changes": changes,
        "imports": importing.asked(a.calls, a.input) if kind == "IMPORT" else {},
        "contexts": record.seal(a.calls, plan.contexts if plan is not None else {}),
        "shown": shown_parameters(state),
        "on_failure": a.input.get("OnStackFailure") or "",
        "reason": failed or (_NOTHING if empty else ""),
        "execution": "UNAVAILABLE" if empty or failed else "AVAILABLE",
        "tags": state.tags,
        "capabilities": state.capabilities,
        "notifications": state.notifications,
    }
    try:
        status = "FAILED" if empty or failed else "CREATE_COMPLETE"
        tx.insert(Row(CHANGE_SET, a.account, a.region, f"{uuid}/{name}", doc, status), keep=False)
    except Taken:
        raise Refused(
            "AlreadyExistsException",
            f"ChangeSet {name} cannot be created due to a mismatch with existing attributes",
            400,
        ) from None
    tx.insert(Row(SET_ID, a.account, a.region, id, {"stack": stack.name}), keep=False)
    return {"Id": arn, "StackId": arn_of(stack)}


def _beside(earlier: State, state: State) -> bool:
    """Whether something changes that is no resource: outputs, tags, topics."""
    return (
        earlier.tags != state.tags
        or earlier.notifications != state.notifications
        or earlier.processed != state.processed
    )


# -- looking -----------------------------------------------------------------------------------------------------------


@STACK.reads("DescribeChangeSet", asks=[Ask("cloudformation:DescribeChangeSet", of_set, given=_NAMED)])
def describe(a: Authorised, view: View) -> Output:
    stack, row = _held(a, view)
    doc = row.doc
    after = int(pages.position(a, a.input.get("NextToken")) or 0)
    contexts = record.opened(a.calls, doc["contexts"]) if a.input.get("IncludePropertyValues") else None
    changes = [told for one in doc["changes"] if (told := planning.told(one, contexts)) is not None]
    answer: Output = {
        **_told(stack, row),
        "Parameters": doc["shown"],
        "NotificationARNs": doc["notifications"],
        "RollbackConfiguration": {},
        "Capabilities": doc["capabilities"],
        "Tags": [{"Key": key, "Value": value} for key, value in doc["tags"].items()],
        "Changes": [{"Type": "Resource", "ResourceChange": one} for one in changes[after : after + _PAGE]],
    }
    if doc["on_failure"]:
        answer["OnStackFailure"] = doc["on_failure"]
    if len(changes) > after + _PAGE:
        answer["NextToken"] = pages.seal(a, after + _PAGE)
    return answer


def _told(stack: Row, row: Row) -> Output:
    doc = row.doc
    told: Output = {
        "ChangeSetId": doc["arn"],
        "ChangeSetName": doc["name"],
        "StackId": arn_of(stack),
        "StackName": stack.name.partition("/")[0],
        "Status": row.status,
        "ExecutionStatus": doc["execution"],
        "CreationTime": row.created,
        "IncludeNestedStacks": False,
    }
    if doc["Description"]:
        told["Description"] = doc["Description"]
    if doc["reason"]:
        told["StatusReason"] = doc["reason"]
    return told


@STACK.reads("ListChangeSets", asks=[Ask("cloudformation:ListChangeSets", this())])
def listed(a: Authorised, view: View) -> Output:
    stack = found(view, a.account, a.region, a.input["StackName"])
    after = pages.position(a, a.input.get("NextToken"))
    uuid = stack.name.partition("/")[2]
    rows = view.scan(CHANGE_SET, stack.account, stack.region, prefix=f"{uuid}/", after=after, limit=_PAGE + 1)
    answer: Output = {"Summaries": [_told(stack, one) for one in rows[:_PAGE]]}
    if len(rows) > _PAGE:
        answer["NextToken"] = pages.seal(a, rows[_PAGE - 1].name)
    return answer


@STACK.operation("DeleteChangeSet", asks=[Ask("cloudformation:DeleteChangeSet", of_set, given=_NAMED)])
def delete(a: Authorised, tx: Transaction) -> Output:
    try:
        _, row = _held(a, tx)
    except Refused as refused:
        if refused.code == "ChangeSetNotFound":
            return {}
        raise
    if row.doc["execution"] == "EXECUTE_IN_PROGRESS":
        raise Refused("InvalidChangeSetStatus", f"ChangeSet [{row.doc['arn']}] is being executed.", 400)
    _forget(tx, row)
    return {}


def _forget(tx: Transaction, row: Row) -> None:
    held = tx.get(SET_ID, row.account, row.region, row.doc["arn"].partition(":changeSet/")[2])
    if held is not None:
        tx.delete(held, keep=False)
    tx.delete(row, keep=False)


# -- doing -------------------------------------------------------------------------------------------------------------


async def _before_execute(a: Authorised) -> Any:
    with a.calls.store.reading() as view:
        stack, row = _held(a, view)
    state = State(**record.opened(a.calls, row.doc["state"]))
    if state.role:
        await Actor(a.calls, as_role(state.role), account=a.account, region=a.region, arn=arn_of(stack)).caller()
    return state


@STACK.operation(
    "ExecuteChangeSet",
    asks=[Ask("cloudformation:ExecuteChangeSet", of_set, given=_NAMED)],
    before=_before_execute,
)
def execute(a: Authorised, tx: Transaction) -> Output:
    state: State = a.staged
    stack, row = _held(a, tx)
    if row.doc["execution"] != "AVAILABLE":
        raise Refused(
            "InvalidChangeSetStatus",
            f"ChangeSet [{row.doc['arn']}] cannot be executed in its current execution status of [{row.doc['execution']}]",
            400,
        )
    stack.doc["ChangeSetId"] = row.doc["arn"]
    on_failure = row.doc["on_failure"]
    if row.doc["type"] == "CREATE":
        if stack.status != REVIEW:
            raise invalid(f"Stack [{stack.name.partition('/')[0]}] is in {stack.status} state.")
        take_state(a, stack, state)
        keeps = "DO_NOTHING" if a.input.get("DisableRollback") else "ROLLBACK"
        record.begin(
            stack, "create", who(a, state.role), on_failure=on_failure or keeps, timeout=None, began=tx.now,
            token=a.input.get("ClientRequestToken"), first=True,
            retain_except_on_create=bool(a.input.get("RetainExceptOnCreate")),
        )  # fmt: skip
        stack.doc["DisableRollback"] = (on_failure or keeps) == "DO_NOTHING"
        record.become(tx, stack, "CREATE_IN_PROGRESS", "User Initiated", "Begin")
    elif row.doc["type"] == "IMPORT":
        if stack.status != REVIEW:
            updatable(stack)
        take_state(a, stack, state, next=stack.status != REVIEW)
        record.begin(
            stack, "import", who(a, state.role), began=tx.now, token=a.input.get("ClientRequestToken"),
            imports=row.doc["imports"],
        )  # fmt: skip
        record.become(tx, stack, "IMPORT_IN_PROGRESS", "User Initiated", "Begin")
    else:
        updatable(stack)
        start_update(a, tx, stack, state, disable=a.input.get("DisableRollback") or on_failure == "DO_NOTHING")
    row.doc["execution"] = "EXECUTE_COMPLETE"
    tx.update(row, keep=False)
    uuid = stack.name.partition("/")[2]
    for other in tx.scan(CHANGE_SET, stack.account, stack.region, prefix=f"{uuid}/", limit=1000):
        if other.name != row.name and other.doc["execution"] == "AVAILABLE":
            other.doc["execution"] = "OBSOLETE"
            tx.update(other, keep=False)
    return {}

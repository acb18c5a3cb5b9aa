"""Stacks: made, changed, removed, undone.

Source: CloudFormation API Reference, "CreateStack" and its like.
"""

from __future__ import annotations

import re
from typing import Any, Final

from bastide.domain import Refused, new_id
from bastide.engines import templates
from bastide.kernel import Ask, Authorised, Output, each, member, once
from bastide.kernel.address import Address
from bastide.services.cloudformation import record, stack_policy
from bastide.services.cloudformation.acting import CLOUDFORMATION, Actor, Principal, as_role, principal
from bastide.services.cloudformation.fetching import template_at
from bastide.services.cloudformation.intake import actor_of, intake
from bastide.services.cloudformation.record import IMPORT, STACK, State, active, arn_of, found, rows_of, this
from bastide.services.cloudformation.types.own import Parent
from bastide.store import Row, Taken, Transaction, View

_NAME: Final = re.compile(r"[a-zA-Z][-a-zA-Z0-9]{0,127}")
UPDATABLE: Final = (
    "CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "CREATE_FAILED", "UPDATE_FAILED",
    "IMPORT_COMPLETE", "IMPORT_ROLLBACK_COMPLETE",
)  # fmt: skip
GIVEN: Final = {
    "cloudformation:TemplateUrl": each("TemplateURL"),
    "cloudformation:StackPolicyUrl": each("StackPolicyURL"),
    "cloudformation:RoleArn": each("RoleARN"),
    "cloudformation:ResourceTypes": each("ResourceTypes"),
}
PASS_ROLE: Final = Ask(
    "iam:PassRole", member("RoleARN"), given={"iam:PassedToService": lambda _: CLOUDFORMATION},
    when=lambda asked: bool(asked.input.get("RoleARN")) and not isinstance(asked.call.prepared, Parent),
)  # fmt: skip
TAG: Final = Ask(
    "cloudformation:TagResource",
    this(),
    given={"cloudformation:CreateAction": lambda asked: asked.call.operation.name},
    when=lambda asked: bool(asked.input.get("Tags")),
)


def invalid(message: str) -> Refused:
    """ValidationError, CloudFormation's word for nearly everything."""
    return Refused("ValidationError", message)


def parent_of(a: Authorised) -> Parent | None:
    """The stack that this one is made for; callers cannot say so."""
    return a.call.prepared if isinstance(a.call.prepared, Parent) else None


def who(a: Authorised, role: str) -> Principal:
    """Who makes the calls of an operation."""
    parent = parent_of(a)
    if parent is not None:
        return parent.principal
    return as_role(role) if role else principal(a.caller)


def role_of(a: Authorised, row: Row | None) -> str:
    """The service role that a call gives, or that the stack has."""
    return str(a.input.get("RoleARN") or (row.doc.get("role") if row is not None else "") or "")


def shown_parameters(state: State) -> list[dict[str, str]]:
    """Parameters as they are shown."""
    found_ = []
    for name, value in state.parameters.items():
        one = {"ParameterKey": name, "ParameterValue": templates.parameters.HIDDEN if name in state.hidden else value}
        if name in state.stored and name not in state.hidden:
            one["ResolvedValue"] = state.stored[name]
        found_.append(one)
    return found_


def shown(a: Authorised, row: Row) -> Output:
    """A stack as DescribeStacks has it."""
    doc = row.doc
    told: Output = {
        "StackId": arn_of(row),
        "StackName": row.name.partition("/")[0],
        "CreationTime": row.created,
        "StackStatus": row.status,
        "DisableRollback": bool(doc.get("DisableRollback")),
        "NotificationARNs": doc.get("notifications", []),
        "Capabilities": doc.get("capabilities", []),
        "Parameters": doc.get("shown", []),
        "Tags": [{"Key": key, "Value": value} for key, value in row.tags.items() if not key.startswith("aws:")],
        "Outputs": [
            {
                "OutputKey": name,
                "OutputValue": record.opened(a.calls, one["value"]),
                **({"Description": one["description"]} if one.get("description") else {}),
                **({"ExportName": one["export"]} if "export" in one else {}),
            }
            for name, one in doc.get("outputs", {}).items()
        ],
        "EnableTerminationProtection": bool(doc.get("protected")),
        "DriftInformation": doc.get("drift") or {"StackDriftStatus": "NOT_CHECKED"},
        "RollbackConfiguration": {"RollbackTriggers": []},
    }
    for name, value in (
        ("Description", doc.get("Description")),
        ("StackStatusReason", doc.get("reason")),
        ("RoleARN", doc.get("role")),
        ("TimeoutInMinutes", doc.get("timeout")),
        ("LastUpdatedTime", doc.get("updated")),
        ("DeletionTime", doc.get("deleted")),
        ("ParentId", doc.get("ParentId")),
        ("RootId", doc.get("RootId")),
        ("ChangeSetId", doc.get("ChangeSetId")),
    ):
        if value:
            told[name] = value
    return told


def take_state(a: Authorised, row: Row, state: State, *, next: bool = False) -> None:
    """Puts a state into a stack's row: as it is, or as it is to be."""
    sealed = record.seal(a.calls, state.kept())
    if next:
        row.doc["next"], row.doc["next_shown"] = sealed, shown_parameters(state)
    else:
        row.doc["state"], row.doc["shown"] = sealed, shown_parameters(state)
        row.tags = dict(state.tags)
        row.doc["Description"] = state.description
        row.doc["role"] = state.role
    row.doc["capabilities"], row.doc["notifications"] = state.capabilities, state.notifications


async def policy_text(a: Authorised, body: str, url: str) -> str:
    """A stack policy that is given as a text or a URL; empty if it is not."""
    if a.input.get(body) and a.input.get(url):
        raise invalid(f"You cannot specify both {url} and {body}")
    text = a.input.get(body) or ""
    if a.input.get(url):
        text = await template_at(actor_of(a, ""), a.input[url], a.engine(Address).hosts)
    return stack_policy.checked(text) if text else ""


# -- creating ----------------------------------------------------------------------------------------------------------


async def _before_create(a: Authorised) -> Any:
    name = a.input["StackName"]
    if not _NAME.fullmatch(name):
        raise invalid(
            f"1 validation error detected: Value '{name[:128]}' at 'stackName' failed to satisfy "
            "constraint: Member must satisfy regular expression pattern: "
            "[a-zA-Z][-a-zA-Z0-9]*|arn:[-a-zA-Z0-9:/._+]*"
        )
    uuid = new_id()
    arn = STACK.arn(a.account, a.region, f"{name}/{uuid}")
    parent = parent_of(a)
    role = a.input.get("RoleARN") or ""
    state = await intake(a, a.input, arn=arn, name=name, role=role)
    if parent is not None:
        state.role = str((parent.principal.get("roles") or [""])[0])
    return uuid, state, await policy_text(a, "StackPolicyBody", "StackPolicyURL")


@STACK.operation(
    "CreateStack", asks=[Ask("cloudformation:CreateStack", this(), given=GIVEN), PASS_ROLE, TAG], before=_before_create
)
def create(a: Authorised, tx: Transaction) -> Output:
    uuid, state, policy = a.staged
    if a.input.get("DisableRollback") is not None and a.input.get("OnFailure"):
        raise invalid("You can specify either DisableRollback or OnFailure, but not both.")

    def make() -> Output:
        on_failure = a.input.get("OnFailure") or ("DO_NOTHING" if a.input.get("DisableRollback") else "ROLLBACK")
        row = new_row(a, a.input["StackName"], uuid)
        take_state(a, row, state)
        row.doc["policy"] = policy
        row.doc["DisableRollback"] = on_failure == "DO_NOTHING"
        row.doc["protected"] = bool(a.input.get("EnableTerminationProtection"))
        row.doc["timeout"] = a.input.get("TimeoutInMinutes")
        start_create(a, tx, row, state, on_failure=on_failure, timeout=a.input.get("TimeoutInMinutes"))
        return {"StackId": arn_of(row)}

    return once(a, tx, token_of(a), make, code="TokenAlreadyExistsException")


def token_of(a: Authorised) -> str | None:
    """The request's token, bound to what it is about."""
    token = a.input.get("ClientRequestToken")
    return f"{a.input.get('StackName')}/{token}" if token else None


def new_row(a: Authorised, name: str, uuid: str) -> Row:
    """A stack's row, not yet written."""
    parent = parent_of(a)
    doc: dict[str, Any] = {"StackName": name}
    if parent is not None:
        doc["ParentId"], doc["RootId"] = parent.arn, parent.root
    return Row(STACK.key, a.account, STACK.region(a.region), f"{name}/{uuid}", doc)


def start_create(
    a: Authorised, tx: Transaction, row: Row, state: State, *, on_failure: str, timeout: Any = None
) -> None:
    """Writes a new stack, and begins to make it; raises Refused if its name is taken."""
    try:
        record.claim(tx, row)
    except Taken:
        raise Refused("AlreadyExistsException", f"Stack [{row.name.partition('/')[0]}] already exists", 400) from None
    record.begin(
        row, "create", who(a, state.role), on_failure=on_failure, timeout=timeout, began=tx.now,
        token=a.input.get("ClientRequestToken"), first=True,
        retain_except_on_create=bool(a.input.get("RetainExceptOnCreate")),
    )  # fmt: skip
    row.status = "CREATE_IN_PROGRESS"
    row.doc["reason"] = "User Initiated"
    record.tell(tx, row, status=row.status, reason="User Initiated")
    STACK.insert(tx, row, "Begin", a.request.id)


# -- changing ----------------------------------------------------------------------------------------------------------


def updatable(row: Row) -> None:
    """Raises Refused for a stack that cannot be updated now."""
    if row.status not in UPDATABLE:
        raise invalid(f"Stack:{arn_of(row)} is in {row.status} state and can not be updated.")


async def _before_update(a: Authorised) -> Any:
    with a.calls.store.reading() as view:
        row = found(view, a.account, a.region, a.input["StackName"])
    updatable(row)
    earlier = record.state_of(a.calls, row)
    role = role_of(a, row)
    parent = parent_of(a)
    given = {**a.input, "UsePreviousTemplate": a.input.get("UsePreviousTemplate")}
    state = await intake(
        a, given, arn=arn_of(row), name=row.name.partition("/")[0], role="" if parent else role, earlier=earlier
    )
    if parent is not None:
        state.role = earlier.role
    policies = (
        await policy_text(a, "StackPolicyBody", "StackPolicyURL"),
        await policy_text(a, "StackPolicyDuringUpdateBody", "StackPolicyDuringUpdateURL"),
    )
    return row.generation, state, policies


@STACK.operation(
    "UpdateStack", asks=[Ask("cloudformation:UpdateStack", this(), given=GIVEN), PASS_ROLE, TAG], before=_before_update
)
def update(a: Authorised, tx: Transaction) -> Output:
    _, state, (policy, during) = a.staged
    row = found(tx, a.account, a.region, a.input["StackName"])

    def make() -> Output:
        updatable(row)
        start_update(a, tx, row, state, policy=policy, during=during)
        return {"StackId": arn_of(row)}

    return once(a, tx, token_of(a), make, code="TokenAlreadyExistsException")


def start_update(
    a: Authorised, tx: Transaction, row: Row, state: State, *, policy: str = "", during: str = "", disable: Any = None
) -> None:
    """Begins to change a stack; raises Refused if nothing would change."""
    earlier = record.state_of(a.calls, row)
    if not differs(earlier, state, row) and (not policy or policy == row.doc.get("policy")):
        raise invalid("No updates are to be performed.")
    if policy:
        row.doc["policy"] = policy
    take_state(a, row, state, next=True)
    record.begin(
        row, "update", who(a, state.role), began=tx.now, token=a.input.get("ClientRequestToken"), policy=during,
        disable_rollback=bool(a.input.get("DisableRollback") if disable is None else disable),
        retain_except_on_create=bool(a.input.get("RetainExceptOnCreate")),
    )  # fmt: skip
    record.become(tx, row, "UPDATE_IN_PROGRESS", "User Initiated", "Begin")


def differs(earlier: State, state: State, row: Row) -> bool:
    """Whether an update would change anything. A stack that failed may always be tried again."""
    if row.status in ("CREATE_FAILED", "UPDATE_FAILED"):
        return True
    names = ("processed", "values", "tags", "notifications")
    return any(getattr(earlier, name) != getattr(state, name) for name in names)


@STACK.operation("CancelUpdateStack", asks=[Ask("cloudformation:CancelUpdateStack", this())])
def cancel(a: Authorised, tx: Transaction) -> Output:
    row = found(tx, a.account, a.region, a.input["StackName"])
    if row.status != "UPDATE_IN_PROGRESS":
        raise invalid(f"CancelUpdateStack cannot be called from current stack status: {row.status}")
    STACK.change(tx, row, "Cancel", a.request.id)
    return {}


async def _before_roll(a: Authorised) -> Any:
    with a.calls.store.reading() as view:
        row = found(view, a.account, a.region, a.input["StackName"])
    role = role_of(a, row)
    if role:
        await Actor(a.calls, as_role(role), account=a.account, region=a.region, arn=arn_of(row)).caller()
    return role


@STACK.operation(
    "ContinueUpdateRollback",
    asks=[
        Ask("cloudformation:ContinueUpdateRollback", this(), given={"cloudformation:RoleArn": each("RoleARN")}),
        PASS_ROLE,
    ],
    before=_before_roll,
)
def continue_rollback(a: Authorised, tx: Transaction) -> Output:
    row = found(tx, a.account, a.region, a.input["StackName"])
    if row.status != "UPDATE_ROLLBACK_FAILED":
        raise invalid(f"Stack:{arn_of(row)} is in {row.status} state and can not continue a rollback.")
    skip = list(a.input.get("ResourcesToSkip") or ())
    failed = {one.name.partition("/")[2] for one in rows_of(tx, row) if one.status == "UPDATE_FAILED"}
    unknown = [one for one in skip if one not in failed]
    if unknown:
        raise invalid(f"ResourcesToSkip: [{', '.join(unknown)}] did not fail in this rollback.")
    record.begin(
        row, "continue", who(a, a.staged), same=True, skip=skip, began=tx.now, token=a.input.get("ClientRequestToken")
    )
    record.become(tx, row, "UPDATE_ROLLBACK_IN_PROGRESS", "User Initiated", "Begin")
    return {}


@STACK.operation(
    "RollbackStack",
    asks=[Ask("cloudformation:RollbackStack", this(), given={"cloudformation:RoleArn": each("RoleARN")}), PASS_ROLE],
    before=_before_roll,
)
def rollback(a: Authorised, tx: Transaction) -> Output:
    row = found(tx, a.account, a.region, a.input["StackName"])
    if row.status not in ("CREATE_FAILED", "UPDATE_FAILED"):
        raise invalid(f"Stack:{arn_of(row)} is in {row.status} state and can not be rolled back.")
    first = row.status == "CREATE_FAILED"
    record.begin(
        row, "rollback", who(a, a.staged), same=True, first=first, began=tx.now,
        token=a.input.get("ClientRequestToken"),
    )  # fmt: skip
    status = "ROLLBACK_IN_PROGRESS" if first else "UPDATE_ROLLBACK_IN_PROGRESS"
    record.become(tx, row, status, "User Initiated", "Begin")
    return {"StackId": arn_of(row)}


# -- removing ----------------------------------------------------------------------------------------------------------


async def _before_delete(a: Authorised) -> Any:
    with a.calls.store.reading() as view:
        row = active(view, a.account, a.region, a.input["StackName"])
    role = "" if row is None else role_of(a, row)
    if a.input.get("RoleARN"):
        await Actor(a.calls, as_role(role), account=a.account, region=a.region, arn=arn_of(row) if row else "").caller()
    return role


@STACK.operation(
    "DeleteStack",
    asks=[Ask("cloudformation:DeleteStack", this(), given={"cloudformation:RoleArn": each("RoleARN")}), PASS_ROLE],
    before=_before_delete,
)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = active(tx, a.account, a.region, a.input["StackName"])
    if row is None or row.status == record.OVER:
        return {}
    stack = row.name.partition("/")[0]
    if a.input.get("DeletionMode") not in (None, "STANDARD"):
        raise invalid("DeletionMode: what cannot be deleted is kept with RetainResources.")
    if row.doc.get("protected"):
        raise invalid(f"Stack [{stack}] cannot be deleted while TerminationProtection is enabled")
    root = _root(tx, row)
    if root is not None and root.doc.get("protected") and parent_of(a) is None:
        raise invalid(f"Stack [{stack}] cannot be deleted while TerminationProtection is enabled")
    retain = list(a.input.get("RetainResources") or ())
    if retain and row.status != "DELETE_FAILED":
        raise invalid("Invalid operation on stack. To retain resources, the stack must be in the DELETE_FAILED state.")
    if row.status == "DELETE_IN_PROGRESS":
        return {}
    for export in row.doc.get("exports", ()):
        used = tx.scan(IMPORT, row.account, row.region, prefix=f"{export}\n", limit=1)
        if used and used[0].doc["stack"] != row.name:
            raise invalid(f"Export {export} cannot be deleted as it is in use by {used[0].name.partition(chr(10))[2]}")
    if row.status.endswith("_IN_PROGRESS") and row.status != "REVIEW_IN_PROGRESS":
        if row.status != "CREATE_IN_PROGRESS":
            raise invalid(f"Stack [{stack}] cannot be deleted while in status {row.status}")
        going = row.doc["operation"]
        record.begin(
            row, "delete", who(a, a.staged), retain=retain, began=tx.now, token=a.input.get("ClientRequestToken")
        )
        row.doc["then"], row.doc["operation"] = row.doc["operation"], going
        STACK.change(tx, row, "Cancel", a.request.id)
        return {}
    row.doc.pop("next", None)
    record.begin(row, "delete", who(a, a.staged), retain=retain, began=tx.now, token=a.input.get("ClientRequestToken"))
    record.become(tx, row, "DELETE_IN_PROGRESS", "User Initiated", "Begin")
    return {}


def _root(view: View, row: Row) -> Row | None:
    root = row.doc.get("RootId")
    return None if not root else active(view, row.account, row.region, root)


# -- what a stack is protected by --------------------------------------------------------------------------------------


@STACK.operation("UpdateTerminationProtection", asks=[Ask("cloudformation:UpdateTerminationProtection", this())])
def protect(a: Authorised, tx: Transaction) -> Output:
    row = found(tx, a.account, a.region, a.input["StackName"])
    if row.doc.get("ParentId"):
        raise invalid("Termination protection of a nested stack is set on its root stack.")
    row.doc["protected"] = bool(a.input["EnableTerminationProtection"])
    STACK.change(tx, row, a.operation.name, a.request.id)
    return {"StackId": arn_of(row)}


async def _before_policy(a: Authorised) -> Any:
    return await policy_text(a, "StackPolicyBody", "StackPolicyURL")


@STACK.operation(
    "SetStackPolicy",
    asks=[
        Ask("cloudformation:SetStackPolicy", this(), given={"cloudformation:StackPolicyUrl": each("StackPolicyURL")})
    ],
    before=_before_policy,
)
def set_policy(a: Authorised, tx: Transaction) -> Output:
    row = found(tx, a.account, a.region, a.input["StackName"])
    if not a.staged:
        raise invalid("Either Stack Policy URL or Stack Policy Body must be specified.")
    row.doc["policy"] = a.staged
    STACK.change(tx, row, a.operation.name, a.request.id)
    return {}


@STACK.reads("GetStackPolicy", asks=[Ask("cloudformation:GetStackPolicy", this())])
def get_policy(a: Authorised, view: View) -> Output:
    row = found(view, a.account, a.region, a.input["StackName"])
    policy = row.doc.get("policy")
    return {"StackPolicyBody": policy} if policy else {}


# -- signals -----------------------------------------------------------------------------------------------------------


@STACK.operation("SignalResource", asks=[Ask("cloudformation:SignalResource", this())])
def signal(a: Authorised, tx: Transaction) -> Output:
    from bastide.services.cloudformation.signals import keep  # noqa: PLC0415 - it knows stacks' types

    row = found(tx, a.account, a.region, a.input["StackName"])
    logical = a.input["LogicalResourceId"]
    held = tx.get(record.RESOURCE, row.account, row.region, f"{row.name.partition('/')[2]}/{logical}")
    if (
        held is None
        or held.doc.get("type") != "AWS::CloudFormation::WaitCondition"
        or held.status != "CREATE_IN_PROGRESS"
    ):
        raise invalid(f"Signal for resource {logical} is not expected: it is no WaitCondition in CREATE_IN_PROGRESS.")
    answer = {"Status": a.input["Status"], "UniqueId": a.input["UniqueId"], "Reason": "SignalResource", "Data": ""}
    keep(a.calls, tx, row, logical, f"handle-{logical}", answer)
    return {}

"""Stack sets: one template, a stack in each of many accounts and Regions.

Source: CloudFormation User Guide, "Managing stacks across accounts and Regions with StackSets".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused, new_id
from bastide.kernel import Ask, Asked, Authorised, Calls, Kind, Output, anything, each, pages
from bastide.kernel.address import Address
from bastide.services.cloudformation import record
from bastide.services.cloudformation.intake import actor_of, body_of, check_capabilities, check_types
from bastide.services.cloudformation.looking import parsed
from bastide.services.cloudformation.stack import invalid
from bastide.store import Row, Transaction, View

STACK_SET = Kind("StackSet", service="cloudformation", arn="stackset/{}", named_by="StackSetName")
NAMED: Final = "cloudformation:StackSetName"
"""Rows that tell which stack set has a name now."""
INSTANCE: Final = "cloudformation:StackInstance"
OPERATION: Final = "cloudformation:StackSetOperation"
TRUSTED: Final = "organizations:TrustedService"
SERVICE: Final = "member.org.stacksets.cloudformation.amazonaws.com"
ADMIN_ROLE: Final = "AWSCloudFormationStackSetAdministrationRole"
EXECUTION_ROLE: Final = "AWSCloudFormationStackSetExecutionRole"
_NAME: Final = re.compile(r"[a-zA-Z][-a-zA-Z0-9]{0,127}")
_PAGE: Final = 100
MOST_INSTANCES: Final = 2000


def absent(name: str) -> Refused:
    """There is no such stack set."""
    return Refused("StackSetNotFoundException", f"StackSet {name} not found", 404)


def held(view: View, account: str, region: str, given: str) -> Row | None:
    """The stack set of a name or id (NAME:UUID), None if there is none."""
    name = given.partition(":stackset/")[2] or given
    if ":" not in name:
        named = view.get(NAMED, account, region, name)
        if named is None:
            return None
        name = f"{name}:{named.doc['id']}"
    return view.get(STACK_SET.key, account, region, name)


def found(a: Authorised, view: View) -> Row:
    """The stack set that a call names; raises StackSetNotFoundException."""
    if a.input.get("CallAs") not in (None, "SELF"):
        raise invalid("CallAs: stack sets are called from the management account itself; please leave it out.")
    row = held(view, a.account, a.region, a.input["StackSetName"])
    if row is None or row.status == "DELETED":
        raise absent(a.input["StackSetName"])
    return row


def this(asked: Asked) -> Iterable[str]:
    """The ARN of the stack set that a call names."""
    given = asked.input.get("StackSetName")
    row = held(asked.view, asked.call.account, asked.call.region, given) if given else None
    if row is not None:
        return (STACK_SET.arn(row.account, row.region, row.name),)
    name = str(given or "*")
    return (STACK_SET.arn(asked.call.account, asked.call.region, name if ":" in name else f"{name}:*"),)


def shown(calls: Calls, row: Row) -> Output:
    """A stack set."""
    doc = row.doc
    told: Output = {
        "StackSetName": row.name.partition(":")[0],
        "StackSetId": row.name,
        "StackSetARN": STACK_SET.arn(row.account, row.region, row.name),
        "Status": row.status,
        "TemplateBody": record.opened(calls, doc["template"]),
        "Parameters": doc["shown"],
        "Capabilities": doc["capabilities"],
        "Tags": [{"Key": key, "Value": value} for key, value in row.tags.items()],
        "PermissionModel": doc["model"],
        "ManagedExecution": {"Active": False},
        "OrganizationalUnitIds": doc.get("units", []),
    }
    for name, member in (
        ("Description", "description"),
        ("AdministrationRoleARN", "admin"),
        ("ExecutionRoleName", "execution"),
        ("AutoDeployment", "auto"),
    ):
        if doc.get(member):
            told[name] = doc[member]
    return told


# -- making and changing -----------------------------------------------------------------------------------------------

GIVEN: Final = {
    "cloudformation:TemplateUrl": each("TemplateURL"),
    "cloudformation:RoleArn": each("AdministrationRoleARN"),
}
TARGETS: Final = {"cloudformation:TargetRegion": each("Regions")}


async def template_of(a: Authorised, earlier: str | None = None) -> str:
    """The template that a call brings, checked as far as it can be without parameters."""
    if a.input.get("StackId"):
        raise invalid("StackId: existing stacks cannot be imported into stack sets yet.")
    if a.input.get("UsePreviousTemplate") and earlier is not None:
        return earlier
    body = await body_of(actor_of(a, ""), a.input, None, a.engine(Address).hosts)
    template = parsed(body)
    check_types(a.calls, template)
    check_capabilities(template, body, list(a.input.get("Capabilities") or ()), reviewed=False)
    return body


def roles(a: Authorised, view: View, row: Row | None) -> dict[str, Any]:
    """How a stack set gets into its accounts; raises Refused for what does not go together."""
    doc = row.doc if row is not None else {}
    model = a.input.get("PermissionModel") or doc.get("model") or "SELF_MANAGED"
    if model == "SELF_MANAGED":
        if a.input.get("AutoDeployment"):
            raise invalid("AutoDeployment is for the permission model SERVICE_MANAGED.")
        admin = (
            a.input.get("AdministrationRoleARN") or doc.get("admin") or f"arn:aws:iam::{a.account}:role/{ADMIN_ROLE}"
        )
        return {
            "model": model,
            "admin": admin,
            "execution": a.input.get("ExecutionRoleName") or doc.get("execution") or EXECUTION_ROLE,
        }
    if view.get(TRUSTED, "", "", SERVICE) is None:
        raise invalid("You must enable organizations access to operate a service managed stack set")
    if a.account != a.calls.home:
        raise invalid("Service managed stack sets belong to the organisation's management account.")
    auto = a.input.get("AutoDeployment") or doc.get("auto")
    if not auto:
        raise invalid("AutoDeployment must be given for the permission model SERVICE_MANAGED.")
    if auto.get("DependsOn"):
        raise invalid("AutoDeployment.DependsOn is not supported yet; please leave it out.")
    return {
        "model": model,
        "auto": {
            "Enabled": bool(auto.get("Enabled")),
            "RetainStacksOnAccountRemoval": bool(auto.get("RetainStacksOnAccountRemoval")),
        },
    }


def pass_role(asked: Asked) -> Iterable[str]:
    """The administration role that is given."""
    role = asked.input.get("AdministrationRoleARN")
    return (role,) if role else ()


PASS_ROLE: Final = Ask(
    "iam:PassRole", pass_role, given={"iam:PassedToService": lambda _: "cloudformation.amazonaws.com"},
    when=lambda asked: bool(asked.input.get("AdministrationRoleARN")),
)  # fmt: skip


async def _before_create(a: Authorised) -> Any:
    return await template_of(a)


@STACK_SET.operation(
    "CreateStackSet",
    asks=[Ask("cloudformation:CreateStackSet", anything, given=GIVEN), PASS_ROLE],
    before=_before_create,
)
def create(a: Authorised, tx: Transaction) -> Output:
    name = a.input["StackSetName"]
    if not _NAME.fullmatch(name):
        raise invalid(f"The stack set name {name[:128]} is not legal.")
    if tx.get(NAMED, a.account, a.region, name) is not None:
        raise Refused("NameAlreadyExistsException", f"The name {name} is already used by another stack set.", 409)
    if (a.input.get("ManagedExecution") or {}).get("Active"):
        raise invalid("ManagedExecution is not supported yet; operations on a stack set run one after the other.")
    uuid = new_id()
    doc = {**content(a, a.staged), **roles(a, tx, None)}
    tx.insert(Row(NAMED, a.account, a.region, name, {"id": uuid}), keep=False)
    tags = {one["Key"]: one["Value"] for one in a.input.get("Tags") or ()}
    STACK_SET.create(a, tx, f"{name}:{uuid}", doc, status="ACTIVE", tags=tags)
    return {"StackSetId": f"{name}:{uuid}"}


def content(a: Authorised, body: str, earlier: dict[str, Any] | None = None) -> dict[str, Any]:
    """Template and parameters, as they are kept."""
    template = parsed(body)
    before = record.opened(a.calls, earlier["parameters"]) if earlier is not None else {}
    told = {}
    for one in a.input.get("Parameters") or ():
        key = one["ParameterKey"]
        told[key] = before.get(key, "") if one.get("UsePreviousValue") else str(one.get("ParameterValue") or "")
    unknown = sorted(set(told) - set(template.parameters))
    if unknown:
        raise invalid(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    hidden = {key for key, one in template.parameters.items() if str(one.get("NoEcho", "")).lower() == "true"}
    description = a.input.get("Description")
    return {
        "template": record.seal(a.calls, body),
        "parameters": record.seal(a.calls, told),
        "shown": [
            {"ParameterKey": key, "ParameterValue": "****" if key in hidden else one} for key, one in told.items()
        ],
        "capabilities": list(a.input.get("Capabilities") or ()),
        "description": description if description is not None else (earlier or {}).get("description", ""),
    }


@STACK_SET.operation("DeleteStackSet", asks=[Ask("cloudformation:DeleteStackSet", this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = held(tx, a.account, a.region, a.input["StackSetName"])
    if row is None:
        return {}
    if tx.scan(INSTANCE, row.account, row.region, prefix=f"{row.name}/", limit=1):
        raise Refused("StackSetNotEmptyException", "StackSet is not empty", 409)
    named = tx.get(NAMED, row.account, row.region, row.name.partition(":")[0])
    if named is not None:
        tx.delete(named, keep=False)
    STACK_SET.remove(tx, row, a.operation.name, a.request.id)
    return {}


# -- looking -----------------------------------------------------------------------------------------------------------


@STACK_SET.reads("DescribeStackSet", asks=[Ask("cloudformation:DescribeStackSet", this)])
def describe(a: Authorised, view: View) -> Output:
    return {"StackSet": shown(a.calls, found(a, view))}


@STACK_SET.reads("ListStackSets", asks=[Ask("cloudformation:ListStackSets", anything)])
def listed(a: Authorised, view: View) -> Output:
    if a.input.get("Status") == "DELETED":
        return {"Summaries": []}
    after = pages.position(a, a.input.get("NextToken"))
    size = int(a.input.get("MaxResults") or _PAGE)
    rows = view.scan(STACK_SET.key, a.account, a.region, after=after, limit=size + 1)
    names = (
        "StackSetName",
        "StackSetId",
        "Description",
        "Status",
        "AutoDeployment",
        "PermissionModel",
        "ManagedExecution",
    )
    told = [{name: one for name, one in shown(a.calls, row).items() if name in names} for row in rows[:size]]
    answer: Output = {"Summaries": told}
    if len(rows) > size:
        answer["NextToken"] = pages.seal(a, rows[size - 1].name)
    return answer


def _instance(row: Row) -> Output:
    set_, account, region = row.name.rsplit("/", 2)
    told: Output = {
        "StackSetId": set_,
        "Account": account,
        "Region": region,
        "Status": row.status,
        "StackInstanceStatus": {"DetailedStatus": row.doc.get("detailed", "PENDING")},
        "DriftStatus": "NOT_CHECKED",
    }
    for name, member in (
        ("StackId", "stack"),
        ("StatusReason", "reason"),
        ("OrganizationalUnitId", "unit"),
        ("LastOperationId", "operation"),
    ):
        if row.doc.get(member):
            told[name] = row.doc[member]
    return told


@STACK_SET.reads("DescribeStackInstance", asks=[Ask("cloudformation:DescribeStackInstance", this)])
def instance(a: Authorised, view: View) -> Output:
    row = found(a, view)
    where = f"{row.name}/{a.input['StackInstanceAccount']}/{a.input['StackInstanceRegion']}"
    one = view.get(INSTANCE, row.account, row.region, where)
    if one is None:
        raise Refused("StackInstanceNotFoundException", f"Stack instance not found for StackSet: {row.name}", 404)
    overrides = [
        {"ParameterKey": key, "ParameterValue": "****"} for key in record.opened(a.calls, one.doc["overrides"])
    ]
    return {"StackInstance": {**_instance(one), "ParameterOverrides": overrides}}


@STACK_SET.reads("ListStackInstances", asks=[Ask("cloudformation:ListStackInstances", this)])
def instances(a: Authorised, view: View) -> Output:
    row = found(a, view)
    after = pages.position(a, a.input.get("NextToken"))
    account, region = a.input.get("StackInstanceAccount"), a.input.get("StackInstanceRegion")
    size = int(a.input.get("MaxResults") or _PAGE)
    prefix = f"{row.name}/{account}/" if account else f"{row.name}/"
    rows = view.scan(INSTANCE, row.account, row.region, prefix=prefix, after=after, limit=size + 1)
    kept = [one for one in rows[:size] if not region or one.name.endswith(f"/{region}")]
    answer: Output = {"Summaries": [_instance(one) for one in kept]}
    if len(rows) > size:
        answer["NextToken"] = pages.seal(a, rows[size - 1].name)
    return answer


# -- trust of the organisation -----------------------------------------------------------------------------------------


@STACK_SET.operation("ActivateOrganizationsAccess", asks=[Ask("cloudformation:ActivateOrganizationsAccess", anything)])
def activate(a: Authorised, tx: Transaction) -> Output:
    if a.account != a.calls.home:
        raise Refused("InvalidOperationException", "You must be the organization's management account.", 400)
    a.forward(
        tx, "organizations", "EnableAWSServiceAccess", {"ServicePrincipal": SERVICE}, "cloudformation.amazonaws.com"
    )
    return {}


@STACK_SET.operation(
    "DeactivateOrganizationsAccess", asks=[Ask("cloudformation:DeactivateOrganizationsAccess", anything)]
)
def deactivate(a: Authorised, tx: Transaction) -> Output:
    a.forward(
        tx, "organizations", "DisableAWSServiceAccess", {"ServicePrincipal": SERVICE}, "cloudformation.amazonaws.com"
    )
    return {}


@STACK_SET.reads("DescribeOrganizationsAccess", asks=[Ask("cloudformation:DescribeOrganizationsAccess", anything)])
def access(a: Authorised, view: View) -> Output:
    trusted = view.get(TRUSTED, "", "", SERVICE) is not None
    return {"Status": "ENABLED" if trusted else "DISABLED"}

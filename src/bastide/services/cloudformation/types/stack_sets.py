"""Stack sets as resources of a stack."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.services.cloudformation.resource import Resource, Type, is_gone
from bastide.services.cloudformation.types.regular import calls_of

_SET: Final = (
    "Description", "TemplateBody", "TemplateURL", "Parameters", "Capabilities", "AdministrationRoleARN",
    "ExecutionRoleName", "PermissionModel", "AutoDeployment", "ManagedExecution",
)  # fmt: skip


def _asked(r: Resource) -> dict[str, Any]:
    if r.get("CallAs") not in (None, "SELF"):
        raise Refused("ValidationError", "CallAs: stack sets are called from their own account; please leave it out.")
    asked = {"StackSetName": r.get("StackSetName"), **r.only(*_SET)}
    tags = r.tags()
    return {**asked, **({"Tags": tags} if tags else {})}


def _groups(properties: dict[str, Any]) -> list[dict[str, Any]]:
    return list(properties.get("StackInstancesGroup") or ())


def _where(r: Resource, group: dict[str, Any]) -> dict[str, Any]:
    targets = dict(group["DeploymentTargets"])
    if not targets.get("OrganizationalUnitIds"):
        targets = {"Accounts": targets.get("Accounts") or []}
    more = {"ParameterOverrides": group["ParameterOverrides"]} if group.get("ParameterOverrides") else {}
    preferences = r.only("OperationPreferences")
    return {
        "StackSetName": r.physical,
        "Regions": group["Regions"],
        "DeploymentTargets": targets,
        **more,
        **preferences,
    }


async def _done(r: Resource, id: str) -> None:
    last: dict[str, Any] = {}

    async def done() -> bool:
        asked = {"StackSetName": r.physical, "OperationId": id}
        last.update((await r.read("DescribeStackSetOperation", asked))["StackSetOperation"])
        return last["Status"] not in ("RUNNING", "QUEUED", "STOPPING")

    await r.until(done)
    if last["Status"] != "SUCCEEDED":
        told = await r.read("ListStackSetOperationResults", {"StackSetName": r.physical, "OperationId": id})
        why = [one.get("StatusReason", "") for one in told["Summaries"] if one["Status"] == "FAILED"]
        raise Refused("NotStabilized", f"The operation {id} of the stack set {last['Status']}: {' '.join(why)[:1000]}")


async def _instances(r: Resource) -> None:
    """The groups that went are taken away, and those that came are made."""
    before, after = _groups(r.old), _groups(r.properties)
    for group in before:
        if group not in after:
            asked = {name: one for name, one in _where(r, group).items() if name != "ParameterOverrides"}
            made = await r.do("DeleteStackInstances", {**asked, "RetainStacks": False})
            await _done(r, made["OperationId"])
    for group in after:
        if group not in before:
            made = await r.do("CreateStackInstances", _where(r, group))
            await _done(r, made["OperationId"])


async def _create(r: Resource) -> None:
    made = await r.do("CreateStackSet", _asked(r), key="create")
    r.thing.physical = made["StackSetId"]
    r.thing.attributes = {"StackSetId": made["StackSetId"]}
    await _instances(r)


async def _update(r: Resource) -> None:
    if r.changed(*_SET, "Tags"):
        made = await r.do("UpdateStackSet", {**_asked(r), **r.only("OperationPreferences")}, key="update")
        await _done(r, made["OperationId"])
    await _instances(r)


async def _delete(r: Resource) -> None:
    try:
        held = await r.read("ListStackInstances", {"StackSetName": r.physical})
    except Refused as refused:
        if is_gone(refused):
            return
        raise
    if held["Summaries"]:
        for group in _groups(r.properties):
            asked = {name: one for name, one in _where(r, group).items() if name != "ParameterOverrides"}
            made = await r.do("DeleteStackInstances", {**asked, "RetainStacks": False})
            await _done(r, made["OperationId"])
    await r.drop("DeleteStackSet", {"StackSetName": r.physical})


_CALLS: Final = ("CreateStackSet", "UpdateStackSet", "DeleteStackSet", "CreateStackInstances", "DeleteStackInstances")
TYPES: Final = (
    Type(
        "AWS::CloudFormation::StackSet", "cloudformation", _create, _delete, _update, None,
        calls_of("cloudformation", _CALLS),
        frozenset({"StackSetName", "PermissionModel"}), named="StackSetName",
    ),
)  # fmt: skip
"""The type of stack sets."""

"""Deploy actions for stack sets and their instances.

Source: CodePipeline User Guide, "AWS CloudFormation StackSets deploy action reference".
"""

from __future__ import annotations

import json
from typing import Any

from bastide.domain import Refused
from bastide.services.codepipeline.actions.stacks import capabilities, template
from bastide.services.codepipeline.artifacts import located
from bastide.services.codepipeline.work import ActionFailed, Work, cause

_MOST: int = 51_200


async def _json(work: Work, text: str, what: str) -> Any:
    """A value of the configuration: JSON as it stands, or in a file ARTIFACT::FILE."""
    if "::" in text and text.lstrip()[:1] not in ("{", "["):
        text = (await work.file(*located(text), _MOST)).decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ActionFailed("ConfigurationError", f"{what} is no JSON.") from None


async def _parameters(work: Work, name: str) -> list[dict[str, Any]]:
    text = work.configuration.get(name) or ""
    if not text:
        return []
    if text.lstrip().startswith("ParameterKey="):
        pairs = [dict(part.split("=", 1) for part in one.split(",")) for one in text.split() if "=" in one]
        return [dict(one) for one in pairs]
    found = await _json(work, text, name)
    return list(found) if isinstance(found, list) else [
        {"ParameterKey": key, "ParameterValue": value} for key, value in found.items()
    ]  # fmt: skip


async def _targets(work: Work) -> dict[str, Any]:
    """Accounts, or DeploymentTargets; and the regions."""
    given = work.configuration
    found: dict[str, Any] = {}
    text = given.get("DeploymentTargets") or ""
    if text and text.lstrip()[:1] not in ("{", "[") and "::" not in text:
        found["Accounts"] = [one.strip() for one in text.split(",")]
    elif text:
        value = await _json(work, text, "DeploymentTargets")
        if isinstance(value, list):
            found["Accounts"] = value
        else:
            found["DeploymentTargets"] = value
    if given.get("Regions"):
        found["Regions"] = [one.strip() for one in given["Regions"].split(",")]
    return found


def _preferences(work: Work) -> dict[str, Any]:
    given = work.configuration
    names = ("FailureTolerancePercentage", "FailureToleranceCount", "MaxConcurrentPercentage", "MaxConcurrentCount")
    try:
        held = {name: int(given[name]) for name in names if given.get(name)}
    except ValueError:
        raise ActionFailed("ConfigurationError", "The preferences of an operation are numbers.") from None
    return {"OperationPreferences": held} if held else {}


def _as(work: Work) -> dict[str, str]:
    return {"CallAs": work.configuration["CallAs"]} if work.configuration.get("CallAs") else {}


async def _over(work: Work, name: str, operation: str) -> None:
    asked = {"StackSetName": name, "OperationId": operation, **_as(work)}

    async def look() -> dict[str, Any] | None:
        told = (await work.actor.act("cloudformation", "DescribeStackSetOperation", asked))["StackSetOperation"]
        return None if told["Status"] in ("RUNNING", "QUEUED", "STOPPING") else told

    ended = await work.until(look)
    if ended["Status"] != "SUCCEEDED":
        results = await work.actor.act("cloudformation", "ListStackSetOperationResults", asked)
        reasons = [
            f"{one.get('Account')} {one.get('Region')}: {one.get('StatusReason')}"
            for one in results.get("Summaries") or ()
            if one.get("Status") == "FAILED"
        ]
        told = "; ".join(reasons)[:3500] or str(ended.get("StatusReason") or "no result tells why")
        raise ActionFailed("JobFailed", f"The operation {operation} on the stack set {name} {ended['Status']}: {told}")


async def stack_set(work: Work) -> str:
    """The stack set made or updated, and instances in its targets."""
    given, name = work.configuration, work.configuration["StackSetName"]
    try:
        if "operation" not in work.record:
            await _set(work, name)
        if work.record["operation"]:
            await _over(work, name, work.record["operation"])
        if given.get("DeploymentTargets") and given.get("Regions") and work.record.get("created"):
            await _instances(work, name, [])
    except Refused as refused:
        raise cause(refused, f"The stack set {name} cannot be deployed") from None
    await work.note(external={"id": name, "url": ""})
    work.publish(StackSetId=work.record.get("set") or name)
    return f"Stack set {name} is deployed."


async def _set(work: Work, name: str) -> None:
    given = work.configuration
    asked: dict[str, Any] = {
        "StackSetName": name,
        **await template(work),
        "Parameters": await _parameters(work, "Parameters"),
        "Capabilities": capabilities(given),
        **_as(work),
    }
    for key, member in (
        ("Description", "Description"),
        ("PermissionModel", "PermissionModel"),
        ("AdministrationRoleArn", "AdministrationRoleARN"),
        ("ExecutionRoleName", "ExecutionRoleName"),
    ):
        if given.get(key):
            asked[member] = given[key]
    automatic = given.get("OrganizationsAutoDeployment")
    if automatic:
        asked["AutoDeployment"] = {
            "Enabled": automatic != "Disabled",
            **({"RetainStacksOnAccountRemoval": True} if automatic == "EnabledWithStackRetention" else {}),
        }
        if automatic == "Enabled":
            asked["AutoDeployment"]["RetainStacksOnAccountRemoval"] = False
    there = await work.actor.seen(
        "cloudformation", "DescribeStackSet", {"StackSetName": name, **_as(work)}, "StackSetNotFound"
    )
    if there is None:
        asked["ClientRequestToken"] = work.id
        tell: Any = lambda output: {"operation": "", "created": True, "set": output["StackSetId"]}  # noqa: E731
        await work.begin("cloudformation", "CreateStackSet", asked, tell)
        return
    asked |= {"OperationId": work.id, **_preferences(work)}
    id = there["StackSet"].get("StackSetId", name)
    await work.begin(
        "cloudformation", "UpdateStackSet", asked,
        lambda output: {"operation": output["OperationId"], "created": True, "set": id},
    )  # fmt: skip


async def _instances(work: Work, name: str, parameters: list[dict[str, Any]]) -> None:
    """Instances where there are none yet; the others are updated with the set, or with their own parameters."""
    if "instances" not in work.record:
        targets = await _targets(work)
        asked: dict[str, Any] = {
            "StackSetName": name, **targets, **_preferences(work), **_as(work), "OperationId": f"{work.id}-i",
        }  # fmt: skip
        if parameters:
            asked["ParameterOverrides"] = parameters
        listed = await work.actor.act("cloudformation", "ListStackInstances", {"StackSetName": name, **_as(work)})
        held = {(one["Account"], one["Region"]) for one in listed.get("Summaries") or ()}
        wanted = {(one, region) for one in targets.get("Accounts") or () for region in targets.get("Regions") or ()}
        update = bool(wanted) and wanted <= held
        if update and not parameters:
            return
        operation = "UpdateStackInstances" if update else "CreateStackInstances"
        await work.begin("cloudformation", operation, asked, lambda output: {"instances": output["OperationId"]})
    await _over(work, name, work.record["instances"])


async def instances(work: Work) -> str:
    """Instances of a stack set made, or updated with their own parameters."""
    name = work.configuration["StackSetName"]
    try:
        await _instances(work, name, await _parameters(work, "ParameterOverrides"))
    except Refused as refused:
        raise cause(refused, f"Instances of the stack set {name} cannot be deployed") from None
    await work.note(external={"id": name, "url": ""})
    return f"Instances of the stack set {name} are deployed."

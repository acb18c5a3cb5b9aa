"""CodeDeploy's types, and the deployment that an alias asks for (``CodeDeployLambdaAliasUpdate``).

Source: CloudFormation Template Reference, "AWS::CodeDeploy::DeploymentGroup", "UpdatePolicy attribute".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types.regular import Tagging, calls_of, regular, retag

_SERVICE: Final = "codedeploy"
_TAGGING: Final = Tagging("TagResource", "UntagResource", "ResourceArn", "_arn")
_OVER: Final = ("Succeeded", "Failed", "Stopped")
POLICY: Final = "CodeDeployLambdaAliasUpdate"
_MEMBERS: Final = ("ApplicationName", "DeploymentGroupName", "BeforeAllowTrafficHook", "AfterAllowTrafficHook")


def _arn(r: Resource, rest: str) -> str:
    return f"arn:aws:codedeploy:{r.stack.region}:{r.stack.account}:{rest}"


async def _application(r: Resource) -> None:
    name = r.name(100, given=r.get("ApplicationName"))
    asked = {"applicationName": name, "computePlatform": r.get("ComputePlatform") or "Server", "tags": r.tags()}
    await r.do("CreateApplication", asked, key="create")
    r.thing.physical = name
    r.thing.attributes = {"_arn": _arn(r, f"application:{name}")}


async def _update_application(r: Resource) -> None:
    await retag(r, _TAGGING)


async def _delete_application(r: Resource) -> None:
    await r.drop("DeleteApplication", {"applicationName": r.physical})


def _group_of(r: Resource) -> dict[str, Any]:
    """The group's members; what was taken out of the template is emptied."""
    if r.get("Deployment"):
        raise Refused("ValidationError", "Deployment is not for the compute platform Lambda; please leave it out.")
    given = r.but("ApplicationName", "DeploymentGroupName", "Tags")
    for name, empty in (
        ("AlarmConfiguration", {"Enabled": False}), ("AutoRollbackConfiguration", {"Enabled": False}),
        ("TriggerConfigurations", []), ("DeploymentConfigName", "CodeDeployDefault.LambdaAllAtOnce"),
    ):  # fmt: skip
        if name in r.old and name not in given:
            given[name] = empty
    return given


async def _group(r: Resource) -> None:
    first, name = r.get("ApplicationName"), r.name(100, given=r.get("DeploymentGroupName"))
    asked = {**_group_of(r), "applicationName": first, "deploymentGroupName": name, "tags": r.tags()}
    await r.do("CreateDeploymentGroup", asked, key="create")
    r.thing.physical = name
    r.thing.attributes = {"_arn": _arn(r, f"deploymentgroup:{first}/{name}")}


async def _update_group(r: Resource) -> None:
    named = {"applicationName": r.get("ApplicationName"), "currentDeploymentGroupName": r.physical}
    await r.do("UpdateDeploymentGroup", {**_group_of(r), **named}, key="update")
    await retag(r, _TAGGING)


async def _delete_group(r: Resource) -> None:
    named = {"applicationName": r.get("ApplicationName"), "deploymentGroupName": r.physical}
    await r.drop("DeleteDeploymentGroup", named)


# -- aliases -------------------------------------------------------------------------------------------------------------


async def shift(r: Resource, policy: Mapping[str, Any], before: str) -> None:
    """Leads an alias from the version `before` to the one that it is to have, as a deployment; raises Refused where that
    ends otherwise, once it is taken back."""
    hooks = [
        {event: policy[f"{event}Hook"]}
        for event in ("BeforeAllowTraffic", "AfterAllowTraffic")
        if policy.get(f"{event}Hook")
    ]
    properties = {
        "Name": str(r.get("FunctionName")).rpartition(":function:")[2], "Alias": r.get("Name"), "CurrentVersion": before,
        "TargetVersion": str(r.get("FunctionVersion")),
    }  # fmt: skip
    resource = {"Type": "AWS::Lambda::Function", "Properties": properties}
    spec = {"version": 0.0, "Resources": [{r.logical: resource}], "Hooks": hooks}
    made = await r.do(
        "CreateDeployment",
        {
            "applicationName": policy["ApplicationName"], "deploymentGroupName": policy["DeploymentGroupName"],
            "description": f"CloudFormation: {r.stack.stack_name}, {r.logical}"[:256],
            "revision": {"revisionType": "AppSpecContent", "appSpecContent": {"content": orjson.dumps(spec).decode()}},
        },
        service=_SERVICE, key="shift",
    )  # fmt: skip
    told = await _settled(r, str(made["deploymentId"]))
    if told["status"] == "Succeeded":
        return
    error = told.get("errorInformation") or {}
    raise Refused(
        str(error.get("code") or "DeploymentFailed"),
        f"CodeDeploy deployment {made['deploymentId']} {told['status'].lower()}: {error.get('message') or 'see there'}",
    )


async def _settled(r: Resource, id: str) -> dict[str, Any]:
    """A deployment that is over, and so is what takes it back."""
    found: dict[str, Any] = {}

    async def over(one: str) -> bool:
        told = await r.read("GetDeployment", {"deploymentId": one}, service=_SERVICE)
        if one == id:
            found.update(told["deploymentInfo"])
        return bool(told["deploymentInfo"]["status"] in _OVER)

    await r.until(lambda: over(id))
    back = (found.get("rollbackInfo") or {}).get("rollbackDeploymentId")
    if back:
        await r.until(lambda: over(back))
    return found


async def end_shift(r: Resource) -> None:
    """A deployment that an update began, and that is still going while the update is undone, is stopped."""
    for step, answer in list(r.journal.items()):
        if step.startswith("update/CreateDeployment:"):
            named = {"deploymentId": answer["deploymentId"]}
            try:
                await r.do("StopDeployment", {**named, "autoRollbackEnabled": True}, service=_SERVICE, key="stop")
            except Refused as refused:
                if refused.code not in ("DeploymentAlreadyCompletedException", "DeploymentDoesNotExistException"):
                    raise
            await _settled(r, str(answer["deploymentId"]))


def _type(name: str, create: Any, delete: Any, update: Any, *calls: str) -> Type:
    return Type(
        f"AWS::CodeDeploy::{name}", _SERVICE, create, delete, update, None, calls_of(_SERVICE, calls),
        mark=lambda r: str(r.fact("_arn")), named=f"{name}Name",
    )  # fmt: skip


TYPES: Final = (
    _type("Application", _application, _delete_application, _update_application, "CreateApplication",
          "DeleteApplication", "TagResource", "UntagResource"),
    _type("DeploymentGroup", _group, _delete_group, _update_group, "CreateDeploymentGroup", "UpdateDeploymentGroup",
          "DeleteDeploymentGroup", "TagResource", "UntagResource"),
    regular(
        "AWS::CodeDeploy::DeploymentConfig", _SERVICE, create="CreateDeploymentConfig", delete="DeleteDeploymentConfig",
        key=("DeploymentConfigName",), ref="DeploymentConfigName", named="DeploymentConfigName", most=100, tags="",
    ),
)  # fmt: skip
"""CodeDeploy's types."""


def policy_of(given: Any) -> dict[str, Any] | None:
    """What an alias's UpdatePolicy says, resolved, None if nothing; raises Refused."""
    held = (given or {}).get(POLICY) if isinstance(given, Mapping) else None
    if not held:
        return None
    if not isinstance(held, Mapping) or set(held) - set(_MEMBERS):
        raise Refused("ValidationError", f"UpdatePolicy: {POLICY} has {', '.join(_MEMBERS)}, and no more.")
    if not held.get("ApplicationName") or not held.get("DeploymentGroupName"):
        raise Refused("ValidationError", f"UpdatePolicy: {POLICY} needs ApplicationName and DeploymentGroupName.")
    return {name: str(one) for name, one in held.items() if one}

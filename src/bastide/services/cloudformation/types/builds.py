"""CodeBuild's types: properties are the API's members with capital letters."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types.regular import calls_of

_SERVICE: Final = "codebuild"
_NOT_SENT: Final = ("Name", "Tags", "Triggers", "Visibility", "ResourceAccessRole")
_NAMES: Final = {"BuildSpec": "buildspec"}


def _member(name: str) -> str:
    return _NAMES.get(name) or name[:1].lower() + name[1:]


def _members(value: Any) -> Any:
    """Properties as the API has them."""
    if isinstance(value, dict):
        return {_member(key): _members(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_members(one) for one in value]
    return value


def _tags(r: Resource) -> list[dict[str, str]]:
    return [{"key": one["Key"], "value": one["Value"]} for one in r.tags()]


def _asked(r: Resource) -> dict[str, Any]:
    if (r.get("Triggers") or {}).get("Webhook") or (r.get("Triggers") or {}).get("FilterGroups"):
        raise Refused("ValidationError", "Triggers: webhooks are not supported yet; nobody outside can reach them.")
    if (r.get("Triggers") or {}).get("BuildType"):
        raise Refused("ValidationError", "Triggers: webhooks are not supported yet; nobody outside can reach them.")
    if r.get("Visibility") not in (None, "PRIVATE"):
        raise Refused("ValidationError", "Visibility: a project here is PRIVATE.")
    if r.get("ResourceAccessRole"):
        raise Refused("ValidationError", "ResourceAccessRole is for public builds, which are not supported yet.")
    asked: dict[str, Any] = _members(r.but(*_NOT_SENT))
    for name in ("timeoutInMinutes", "queuedTimeoutInMinutes", "concurrentBuildLimit", "autoRetryLimit"):
        if isinstance(asked.get(name), str):
            asked[name] = int(asked[name])
    if (asked.get("environment") or {}).get("type") == "linuxContainer":
        # As templates of the service's first years have it.
        asked["environment"] = {**asked["environment"], "type": "LINUX_CONTAINER"}
    role = str(asked.get("serviceRole") or "")
    if role and not role.startswith("arn:"):  # many templates refer to a role, which gives its name
        asked["serviceRole"] = f"arn:aws:iam::{r.stack.account}:role/{role}"
    return {**asked, "name": r.thing.attributes["Name"], "tags": _tags(r)}


async def _create_project(r: Resource) -> None:
    r.thing.attributes["Name"] = r.name(150, given=r.get("Name"))
    made = await r.do("CreateProject", _asked(r), key="create")
    r.thing.physical = made["project"]["name"]
    r.thing.attributes["Arn"] = made["project"]["arn"]


async def _update_project(r: Resource) -> None:
    asked = _asked(r)
    # What is not there any more is as if it had never been.
    empty: dict[str, Any] = {
        "description": "", "secondarySources": [], "secondaryArtifacts": [], "secondarySourceVersions": [],
        "vpcConfig": {}, "cache": {"type": "NO_CACHE"}, "logsConfig": {}, "timeoutInMinutes": 60,
        "queuedTimeoutInMinutes": 480, "concurrentBuildLimit": -1,
    }  # fmt: skip
    await r.do("UpdateProject", {**empty, **asked}, key="update")


async def _delete_project(r: Resource) -> None:
    await r.drop("DeleteProject", {"name": r.physical})


async def _read_project(r: Resource) -> dict[str, Any] | None:
    told = await r.seen("BatchGetProjects", {"names": [r.physical]})
    if not told or not told.get("projects"):
        return None
    [project] = told["projects"]
    found = {}
    for name in r.properties:
        if name in _NOT_SENT or _member(name) not in project:
            continue
        found[name] = _shown(r.properties[name], project[_member(name)])
    return found


def _shown(wanted: Any, told: Any) -> Any:
    """What the API tells of a property, of those of its members that the template has."""
    if isinstance(wanted, dict) and isinstance(told, dict):
        return {key: _shown(one, told.get(_member(key))) for key, one in wanted.items()}
    if isinstance(wanted, list) and isinstance(told, list) and len(wanted) == len(told):
        return [_shown(*pair) for pair in zip(wanted, told, strict=True)]
    if isinstance(wanted, str) and told is not None and not isinstance(told, (dict, list)):
        same = str(told).lower() if told in (True, False) else str(told)
        return wanted if wanted == same else told
    return told


async def _create_group(r: Resource) -> None:
    r.thing.attributes["Name"] = r.name(128, given=r.get("Name"))
    asked = {
        "name": r.thing.attributes["Name"],
        "type": r.get("Type"),
        "exportConfig": _members(r.get("ExportConfig")),
        "tags": _tags(r),
    }
    made = await r.do("CreateReportGroup", asked, key="create")
    r.thing.physical = r.thing.attributes["Arn"] = made["reportGroup"]["arn"]


async def _update_group(r: Resource) -> None:
    asked = {"arn": r.physical, "exportConfig": _members(r.get("ExportConfig")), "tags": _tags(r)}
    await r.do("UpdateReportGroup", asked, key="update")


async def _delete_group(r: Resource) -> None:
    asked: dict[str, Any] = {"arn": r.physical}
    if r.get("DeleteReports") in (True, "true"):
        asked["deleteReports"] = True
    await r.drop("DeleteReportGroup", asked)


async def _read_group(r: Resource) -> dict[str, Any] | None:
    told = await r.seen("BatchGetReportGroups", {"reportGroupArns": [r.physical]})
    if not told or not told.get("reportGroups"):
        return None
    [group] = told["reportGroups"]
    return {
        name: _shown(r.properties[name], group[_member(name)])
        for name in ("Type", "ExportConfig")
        if name in r.properties
    }


TYPES: Final = (
    Type(
        "AWS::CodeBuild::Project",
        _SERVICE,
        _create_project,
        _delete_project,
        _update_project,
        _read_project,
        calls_of(_SERVICE, ["CreateProject", "DeleteProject", "UpdateProject", "BatchGetProjects"]),
        frozenset(),
        lambda r: str(r.fact("Arn") or ""),
        False,
        "Name",
    ),
    Type(
        "AWS::CodeBuild::ReportGroup",
        _SERVICE,
        _create_group,
        _delete_group,
        _update_group,
        _read_group,
        calls_of(_SERVICE, ["CreateReportGroup", "DeleteReportGroup", "UpdateReportGroup", "BatchGetReportGroups"]),
        frozenset(),
        lambda r: str(r.fact("Arn") or ""),
        False,
        "Name",
    ),
)

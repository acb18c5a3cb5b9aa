"""Step Functions' types."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines.templates import text
from bastide.services.cloudformation.fetching import fetched
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types.identity import document
from bastide.services.cloudformation.types.regular import Tagging, calls_of, regular, retag

# -- Step Functions ----------------------------------------------------------------------------------------------------

_STATES_TAGS: Final = Tagging("TagResource", "UntagResource", "resourceArn", "Arn", "tags", "tagKeys")


async def _definition(r: Resource) -> str:
    """The definition, wherever it lies, with its ``${names}`` filled in; raises Refused."""
    if r.get("DefinitionString") is not None:
        source = document(r.get("DefinitionString"))
    elif r.get("Definition") is not None:
        source = document(r.get("Definition"))
    elif r.get("DefinitionS3Location") is not None:
        where = r.get("DefinitionS3Location")
        source = (await fetched(r.actor, where["Bucket"], where["Key"], where.get("Version", ""))).decode(
            "utf-8", "replace"
        )
    else:
        raise Refused(
            "ValidationError", "A state machine needs a Definition, a DefinitionString or a DefinitionS3Location."
        )
    held = r.get("DefinitionSubstitutions") or {}

    def replaced(match: re.Match[str]) -> str:
        return text(held[match[1]]) if match[1] in held else match[0]

    return re.sub(r"\$\{([A-Za-z0-9_]+)\}", replaced, source)


_DEFINED: Final = ("Definition", "DefinitionString", "DefinitionS3Location", "DefinitionSubstitutions")
_MACHINE: Final = {"RoleArn": "roleArn", "LoggingConfiguration": "loggingConfiguration",
                   "TracingConfiguration": "tracingConfiguration", "EncryptionConfiguration":
                   "encryptionConfiguration"}  # fmt: skip


async def _create_machine(r: Resource) -> None:
    name = r.name(80, given=r.get("StateMachineName"))
    asked = {
        "name": name,
        "definition": await _definition(r),
        **{_MACHINE[one]: r.get(one) for one in _MACHINE if r.get(one)},
    }
    if r.get("StateMachineType"):
        asked["type"] = r.get("StateMachineType")
    tags = r.tags()
    if tags:
        asked["tags"] = tags
    made = await r.do("CreateStateMachine", asked, key="create")
    r.thing.physical = made["stateMachineArn"]
    r.thing.attributes = {"Arn": r.physical, "Name": name}
    await _revision(r)


async def _revision(r: Resource) -> None:
    told = await r.read("DescribeStateMachine", {"stateMachineArn": r.physical})
    r.thing.attributes["StateMachineRevisionId"] = told.get("revisionId") or "INITIAL"


async def _update_machine(r: Resource) -> None:
    if r.changed(*_DEFINED, *_MACHINE):
        asked = {"definition": await _definition(r), **{_MACHINE[one]: r.get(one) for one in _MACHINE if r.get(one)}}
        await r.do("UpdateStateMachine", {"stateMachineArn": r.physical, **asked}, key="update")
        await _revision(r)
    await retag(r, _STATES_TAGS)


async def _delete_machine(r: Resource) -> None:
    named = {"stateMachineArn": r.physical}
    await r.drop("DeleteStateMachine", named)

    async def gone() -> bool:
        return await r.seen("DescribeStateMachine", named) is None

    await r.until(gone)


async def _read_machine(r: Resource) -> dict[str, Any] | None:
    told = await r.seen("DescribeStateMachine", {"stateMachineArn": r.physical})
    if told is None or told.get("status") == "DELETING":
        return None
    found: dict[str, Any] = {"RoleArn": told["roleArn"]}
    if "DefinitionString" in r.properties and not r.get("DefinitionSubstitutions"):
        same = _parsed(told["definition"]) == _parsed(document(r.get("DefinitionString")))
        found["DefinitionString"] = r.get("DefinitionString") if same else told["definition"]
    return found


def _parsed(value: str) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


async def _create_machine_alias(r: Resource) -> None:
    asked = {"name": r.name(80, given=r.get("Name")), "routingConfiguration": _routes(r), **_described(r)}
    made = await r.do("CreateStateMachineAlias", asked, key="create")
    r.thing.physical = made["stateMachineAliasArn"]
    r.thing.attributes = {"Arn": r.physical}


def _described(r: Resource) -> dict[str, Any]:
    return {"description": r.get("Description")} if r.get("Description") else {}


def _routes(r: Resource) -> list[dict[str, Any]]:
    if r.get("DeploymentPreference"):
        held = r.get("DeploymentPreference")
        if held.get("Type") != "ALL_AT_ONCE":
            raise Refused("ValidationError", "DeploymentPreference: aliases are shifted ALL_AT_ONCE here.")
        return [{"stateMachineVersionArn": held["StateMachineVersionArn"], "weight": 100}]
    return [
        {"stateMachineVersionArn": one["StateMachineVersionArn"], "weight": one["Weight"]}
        for one in r.get("RoutingConfiguration") or ()
    ]


async def _update_machine_alias(r: Resource) -> None:
    asked = {"stateMachineAliasArn": r.physical, "routingConfiguration": _routes(r), **_described(r)}
    await r.do("UpdateStateMachineAlias", asked, key="update")


async def _delete_machine_alias(r: Resource) -> None:
    await r.drop("DeleteStateMachineAlias", {"stateMachineAliasArn": r.physical})


_NAMES: Final = [f"{verb}StateMachine" for verb in ("Create", "Delete", "Update", "Describe")]
TYPES: Final = (
    Type(
        "AWS::StepFunctions::StateMachine", "stepfunctions", _create_machine, _delete_machine, _update_machine,
        _read_machine,
        calls_of("stepfunctions", _NAMES), named="StateMachineName", mark=lambda r: r.physical,
    ),
    regular(
        "AWS::StepFunctions::Activity", "stepfunctions", create="CreateActivity", delete="DeleteActivity",
        key={"activityArn": "Arn"}, ref="Arn", attributes={"Arn": "activityArn"}, named="Name", most=80, tags="tags",
        tagging=_STATES_TAGS,
    ),
    regular(
        "AWS::StepFunctions::StateMachineVersion", "stepfunctions", create="PublishStateMachineVersion",
        delete="DeleteStateMachineVersion", key={"stateMachineVersionArn": "Arn"}, ref="Arn",
        attributes={"Arn": "stateMachineVersionArn"}, tags="",
        rename={"StateMachineRevisionId": "revisionId"},
        replaces=("StateMachineArn", "StateMachineRevisionId", "Description"),
    ),
    Type(
        "AWS::StepFunctions::StateMachineAlias", "stepfunctions", _create_machine_alias, _delete_machine_alias,
        _update_machine_alias, None,
        calls_of("stepfunctions", ["CreateStateMachineAlias", "UpdateStateMachineAlias", "DeleteStateMachineAlias"]),
    ),
)  # fmt: skip
"""Step Functions' types."""

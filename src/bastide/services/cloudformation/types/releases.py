"""CodePipeline's types. Webhooks are not there: nothing outside calls in."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from bastide.domain import Refused
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types.regular import Tagging, calls_of, retag

_TAGS: Final = Tagging("TagResource", "UntagResource", "resourceArn", "Arn", "tags", "tagKeys")
_PLAIN: Final = ("RoleArn", "ArtifactStore", "Stages", "ExecutionMode", "PipelineType", "Variables", "Triggers")


def _declared(r: Resource, name: str) -> dict[str, Any]:
    found = {member: r.get(member) for member in _PLAIN if r.get(member) is not None}
    if r.get("ArtifactStores"):
        found["artifactStores"] = {one["Region"]: one["ArtifactStore"] for one in r.get("ArtifactStores")}
    return {**found, "name": name}


async def _create(r: Resource) -> None:
    name = r.name(100, given=r.get("Name"))
    asked: dict[str, Any] = {"pipeline": _declared(r, name)}
    tags = r.tags()
    if tags:
        asked["tags"] = tags
    made = await r.do("CreatePipeline", asked, key="create")
    r.thing.physical = name
    arn = f"arn:aws:codepipeline:{r.actor.region}:{r.actor.account}:{name}"
    r.thing.attributes = {"Arn": arn, "Version": str(made["pipeline"]["version"])}
    await _transitions(r)


async def _update(r: Resource) -> None:
    if r.changed(*_PLAIN, "ArtifactStores"):
        made = await r.do("UpdatePipeline", {"pipeline": _declared(r, r.physical)}, key="update")
        r.thing.attributes["Version"] = str(made["pipeline"]["version"])
        if r.get("RestartExecutionOnUpdate") in (True, "true"):
            await r.do("StartPipelineExecution", {"name": r.physical}, key="restart")
    await _transitions(r)
    await retag(r, _TAGS)


async def _transitions(r: Resource) -> None:
    """Closes the ways in that are to be closed, and opens those that were."""
    closed = {one["StageName"]: one["Reason"] for one in r.get("DisableInboundStageTransitions") or ()}
    before = {one["StageName"]: one["Reason"] for one in (r.old or {}).get("DisableInboundStageTransitions") or ()}
    for stage, reason in closed.items():
        if before.get(stage) != reason:
            given = {"pipelineName": r.physical, "stageName": stage, "transitionType": "Inbound", "reason": reason}
            await r.do("DisableStageTransition", given, key=f"close-{stage}")
    for stage in set(before) - set(closed):
        with contextlib.suppress(Refused):  # the stage itself may have gone
            given = {"pipelineName": r.physical, "stageName": stage, "transitionType": "Inbound"}
            await r.do("EnableStageTransition", given, key=f"open-{stage}")


async def _delete(r: Resource) -> None:
    await r.drop("DeletePipeline", {"name": r.physical})


async def _read(r: Resource) -> dict[str, Any] | None:
    told = await r.seen("GetPipeline", {"name": r.physical})
    if told is None:
        return None
    held = told["pipeline"]
    return {"RoleArn": held["roleArn"], "ExecutionMode": held["executionMode"], "PipelineType": held["pipelineType"]}


TYPES: Final = (
    Type(
        "AWS::CodePipeline::Pipeline", "codepipeline", _create, _delete, _update, _read,
        calls_of(
            "codepipeline",
            ["CreatePipeline", "UpdatePipeline", "DeletePipeline", "GetPipeline", "StartPipelineExecution",
             "DisableStageTransition", "EnableStageTransition", "TagResource", "UntagResource"],
        ),
        frozenset({"Name"}), lambda r: str(r.thing.attributes.get("Arn") or ""), named="Name",
    ),
)  # fmt: skip
"""CodePipeline's types."""

"""Build and test actions: a build of a CodeBuild project whose source and artifacts are the pipeline's.

Source: CodePipeline User Guide, "AWS CodeBuild build and test action reference"; CodeBuild API Reference, StartBuild.
"""

from __future__ import annotations

import json
from typing import Any

from bastide.domain import Refused
from bastide.services.codepipeline.work import ActionFailed, Work, cause


async def build(work: Work) -> str:
    """Until the build is over. It reads and writes the artifacts with the project's own role."""
    name = work.configuration["ProjectName"]
    if "external" not in work.record:
        asked = await _asked(work)
        try:
            await work.begin(
                "codebuild",
                "StartBuild",
                asked,
                lambda output: {"external": {"id": output["build"]["id"], "url": ""}},
            )
        except Refused as refused:
            raise cause(refused, f"The project {name} cannot be built") from None
    id = work.record["external"]["id"]

    async def look() -> dict[str, Any] | None:
        try:
            told = await work.actor.act("codebuild", "BatchGetBuilds", {"ids": [id]})
        except Refused as refused:
            raise cause(refused, f"The build {id} cannot be followed") from None
        found = (told.get("builds") or [None])[0]
        if found is None:
            raise ActionFailed("JobFailed", f"The build {id} is gone.")
        return None if found["buildStatus"] == "IN_PROGRESS" else found

    ended = await work.until(look, id)
    logs = (ended.get("logs") or {}).get("cloudWatchLogsArn") or ""
    if logs:
        await work.note(log=logs)
    if ended["buildStatus"] != "SUCCEEDED":
        raise ActionFailed("JobFailed", f"The build {id} ended as {ended['buildStatus']}: {_why(ended)}")
    told = {one.get("artifactIdentifier") or "": one for one in ended.get("secondaryArtifacts") or ()}
    for number, one in enumerate(work.declared["outputArtifacts"]):
        held = (ended.get("artifacts") or {}) if number == 0 else told.get(one["name"], {})
        await work.adopt(one["name"], str(held.get("sha256sum") or ""))
    work.publish(**{one["name"]: one["value"] for one in ended.get("exportedEnvironmentVariables") or ()})
    return f"The build {id} succeeded."


def _why(ended: dict[str, Any]) -> str:
    """Phase and message of what failed."""
    for phase in ended.get("phases") or ():
        if phase.get("phaseStatus") not in (None, "SUCCEEDED"):
            told = "; ".join(str(one.get("message")) for one in phase.get("contexts") or () if one.get("message"))
            return f"the phase {phase['phaseType']} {phase['phaseStatus']}{': ' if told else ''}{told[:3000]}"
    return "no phase tells why"


async def _asked(work: Work) -> dict[str, Any]:
    given = work.configuration
    inputs = [one["name"] for one in work.declared["inputArtifacts"]]
    first = given.get("PrimarySource") or inputs[0]
    if first not in inputs:
        raise ActionFailed("ConfigurationError", f"PrimarySource: {first[:100]} is no input artifact of the action.")
    places, versions = {}, {}
    for name in inputs:
        held = await work.verify(name)
        places[name] = f"{held['bucket']}/{held['key']}"
        # The build reads it later: the digest goes with it, so that nobody changes it in between.
        versions[name] = f"sha256:{held['sha256']}"
    asked: dict[str, Any] = {
        "projectName": given["ProjectName"],
        "sourceLocationOverride": places[first],
        "sourceVersion": versions[first],
        "idempotencyToken": work.id,
    }
    others = [{"type": "S3", "sourceIdentifier": name, "location": places[name]} for name in inputs if name != first]
    if others:
        asked["secondarySourcesOverride"] = others
        asked["secondarySourcesVersionOverride"] = [
            {"sourceIdentifier": name, "sourceVersion": versions[name]} for name in inputs if name != first
        ]
    key = (work.store.get("encryptionKey") or {}).get("id")
    if key:
        asked["encryptionKeyOverride"] = key
    outputs = []
    for one in work.declared["outputArtifacts"]:
        bucket, name = await work.place_for(one["name"])
        path, _, last = name.rpartition("/")
        outputs.append(
            {"type": "S3", "location": bucket, "path": path, "name": last, "packaging": "ZIP", "namespaceType": "NONE"}
        )
    if outputs:
        asked["artifactsOverride"] = outputs[0]
        if outputs[1:]:
            # Of several, the buildspec's secondary artifacts are named as the action's outputs are.
            asked["artifactsOverride"], *asked["secondaryArtifactsOverride"] = (
                {**held, "artifactIdentifier": one["name"]}
                for held, one in zip(outputs, work.declared["outputArtifacts"], strict=True)
            )
    variables = _variables(given.get("EnvironmentVariables"))
    if variables:
        asked["environmentVariablesOverride"] = variables
    return asked


def _variables(text: str | None) -> list[dict[str, str]]:
    try:
        found = json.loads(text or "[]")
        return [
            {"name": str(one["name"]), "value": str(one["value"]), "type": str(one.get("type") or "PLAINTEXT")}
            for one in found
        ]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ActionFailed(
            "ConfigurationError", "EnvironmentVariables is a JSON list of objects with name, value and type."
        ) from None

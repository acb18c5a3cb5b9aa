"""Condition keys that a project's or a build's request fills: the request's own members, by their paths.

A list fills each of its members' keys with all values, and one key an element that has an identifier; a structure fills its
own key with ``true``. Source: Service Authorization Reference, "Condition keys for AWS CodeBuild".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bastide.kernel import Asked, Fills

Values = dict[str, "str | Sequence[str]"]

_SOURCE: Final = (
    "location", "insecureSsl", "buildspec", "auth.resource", "auth.type", "buildStatusConfig.targetUrl",
    "buildStatusConfig.context",
)  # fmt: skip
_ARTIFACTS: Final = ("bucketOwnerAccess", "encryptionDisabled", "location")
_ENVIRONMENT: Final = (
    "type", "computeType", "image", "imagePullCredentialsType", "privilegedMode", "certificate", "fleet.fleetArn",
    "registryCredential", "registryCredential.credential", "registryCredential.credentialProvider",
)  # fmt: skip
_COMPUTE: Final = ("computeConfiguration", *(
    f"computeConfiguration.{one}" for one in ("disk", "instanceType", "machineType", "memory", "vCpu")
))  # fmt: skip
_LOGS: Final = ("s3Logs", *(
    f"s3Logs.{one}" for one in ("bucketOwnerAccess", "encryptionDisabled", "location", "status")
))  # fmt: skip
_BATCH: Final = ("serviceRole", "restrictions.computeTypesAllowed", "restrictions.fleetsAllowed")
_CACHE: Final = ("type", "location", "modes")
_VPC: Final = ("vpcId", "subnets", "securityGroupIds")
_FLAGS: Final = ("buildspec",)
"""Members of which it is told only that they are there: what they say is not a policy's business."""
_LISTS: Final = {
    "secondarySources": ("sourceIdentifier", _SOURCE),
    "secondaryArtifacts": ("artifactIdentifier", _ARTIFACTS),
    "fileSystemLocations": ("identifier", ("type", "location")),
    "environment.environmentVariables": ("name", ("value",)),
}
_STRUCTURES: Final = {
    "source": _SOURCE,
    "artifacts": _ARTIFACTS,
    "environment": (*_ENVIRONMENT, *_COMPUTE),
    "logsConfig": _LOGS,
    "buildBatchConfig": _BATCH,
    "cache": _CACHE,
    "vpcConfig": _VPC,
}
_PLAIN: Final = ("autoRetryLimit", "concurrentBuildLimit", "encryptionKey", "serviceRole")
_NO_BUILD: Final = (
    "fileSystemLocations", "buildBatchConfig", "vpcConfig", "concurrentBuildLimit", "environment.computeConfiguration",
)  # fmt: skip
"""What StartBuild cannot override."""
_OVERRIDES: Final = {
    "secondarySourcesOverride": "secondarySources",
    "artifactsOverride": "artifacts",
    "secondaryArtifactsOverride": "secondaryArtifacts",
    "environmentVariablesOverride": "environment.environmentVariables",
    "sourceTypeOverride": "source.type",
    "sourceLocationOverride": "source.location",
    "sourceAuthOverride": "source.auth",
    "buildspecOverride": "source.buildspec",
    "insecureSslOverride": "source.insecureSsl",
    "buildStatusConfigOverride": "source.buildStatusConfig",
    "environmentTypeOverride": "environment.type",
    "imageOverride": "environment.image",
    "computeTypeOverride": "environment.computeType",
    "certificateOverride": "environment.certificate",
    "privilegedModeOverride": "environment.privilegedMode",
    "registryCredentialOverride": "environment.registryCredential",
    "imagePullCredentialsTypeOverride": "environment.imagePullCredentialsType",
    "fleetOverride": "environment.fleet",
    "cacheOverride": "cache",
    "serviceRoleOverride": "serviceRole",
    "encryptionKeyOverride": "encryptionKey",
    "logsConfigOverride": "logsConfig",
    "autoRetryLimitOverride": "autoRetryLimit",
}


def _names(build: bool) -> tuple[str, ...]:
    found = [*_PLAIN]
    for top, members in _STRUCTURES.items():
        found += [top, *(f"{top}.{one}" for one in members)]
    for top, (identifier, members) in _LISTS.items():
        if top != "fileSystemLocations":
            found.append(top)
        found += [f"{top}.{one}" for one in (identifier, *members)]
        found += [f"{top}/${{{identifier}}}.{one}" for one in members]
    if build:
        found = [one for one in found if not one.startswith(_NO_BUILD)]
    return tuple(f"codebuild:{one}" for one in found)


def _at(given: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(given, Mapping):
            return None
        given = given.get(part)
    return given


def _text(value: Any, member: str) -> str | Sequence[str] | None:
    if value is None:
        return None
    if member in _FLAGS or isinstance(value, Mapping):
        return "true"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return [str(one) for one in value]
    return str(value)


def _read(given: Mapping[str, Any]) -> Values:
    found: Values = {}

    def put(name: str, value: str | Sequence[str] | None) -> None:
        if value is not None:
            found[f"codebuild:{name}"] = value

    for name in _PLAIN:
        put(name, _text(given.get(name), name))
    for top, members in _STRUCTURES.items():
        if top not in given:
            continue
        put(top, "true")
        for one in members:
            put(f"{top}.{one}", _text(_at(given[top], one), one))
    if "environment" in given and _at(given, "environment.image") is not None:
        # A guardrail must not be passed by saying nothing.
        found.setdefault("codebuild:environment.privilegedMode", "false")
    for top, (identifier, members) in _LISTS.items():
        rows = _at(given, top)
        if not isinstance(rows, list):
            continue
        if top != "fileSystemLocations":
            put(top, "true")
        put(f"{top}.{identifier}", [str(row[identifier]) for row in rows if row.get(identifier)])
        for one in members:
            values = [(row, _text(_at(row, one), one)) for row in rows]
            texts = [str(value) for _, value in values if value is not None]
            if texts:
                put(f"{top}.{one}", "true" if one in _FLAGS else texts)
            for row, value in values:
                if row.get(identifier):
                    put(f"{top}/{row[identifier]}.{one}", value)
    return found


def _of_project(asked: Asked) -> Mapping[str, str | Sequence[str]]:
    return _read(asked.input)


def _of_build(asked: Asked) -> Mapping[str, str | Sequence[str]]:
    given: dict[str, Any] = {}
    for member, path in _OVERRIDES.items():
        value = asked.input.get(member)
        if value is None:
            continue
        top, _, rest = path.partition(".")
        if rest:
            given.setdefault(top, {})[rest] = value
        else:
            given[top] = value
    found = dict(_read(given))
    if "privilegedModeOverride" not in asked.input:
        found.pop("codebuild:environment.privilegedMode", None)
    return found


PROJECT_KEYS: Final = Fills(_names(build=False), _of_project)
BUILD_KEYS: Final = Fills(_names(build=True), _of_build)

"""What a project may say: every member is known, has an effect, or is refused.

Source: CodeBuild API Reference, "CreateProject" and its structures; User Guide, "Build environment compute types".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bastide.services.codebuild.noun import invalid, unsupported

GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Compute:
    """A compute type: processors, bytes of memory, bytes of disk."""

    cpus: float
    memory: int
    disk: int


COMPUTE: Final = {
    "BUILD_GENERAL1_SMALL": Compute(2, 4 * GIB, 64 * GIB),
    "BUILD_GENERAL1_MEDIUM": Compute(4, 8 * GIB, 128 * GIB),
    "BUILD_GENERAL1_LARGE": Compute(8, 16 * GIB, 128 * GIB),
    "BUILD_GENERAL1_XLARGE": Compute(36, 72 * GIB, 256 * GIB),
    "BUILD_GENERAL1_2XLARGE": Compute(72, 144 * GIB, 824 * GIB),
}
SOURCES: Final = ("CODECOMMIT", "CODEPIPELINE", "S3", "NO_SOURCE")
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_]{1,128}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_MANAGED: Final = re.compile(r"aws/codebuild/(?P<name>[a-z0-9_-]+)(?::(?P<tag>[A-Za-z0-9._-]+))?")
_LINUX: Final = re.compile(
    r"(?:standard|amazonlinux2?-(?:x86_64|aarch64)-standard|amazonlinux-x86_64-base|amazonlinux)"
)
CURATED: Final = ("aws/codebuild/amazonlinux-x86_64-standard:5.0", "aws/codebuild/standard:7.0")
"""Those that are shown; every release of them means the same here."""
_OWN: Final = re.compile(r"(?:[A-Za-z0-9.-]+(?::[0-9]{1,5})?/)?[0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.")
_REPOSITORY: Final = re.compile(r"(?:.*/repos/|)([A-Za-z0-9._-]{1,100})")
_MOST_SPEC: Final = 1 << 20


def managed(image: str) -> bool:
    """Whether an image is one of CodeBuild's own, for which the environment that Bastide brings stands."""
    found = _MANAGED.fullmatch(image)
    return found is not None and _LINUX.fullmatch(found["name"]) is not None


def own(image: str) -> bool:
    """Whether an image is one of ECR."""
    return _OWN.match(image) is not None


def location(given: str, what: str) -> tuple[str, str]:
    """Bucket and key of ``BUCKET/KEY``, of an S3 URI or an ARN; raises Refused."""
    text = given.removeprefix("s3://").removeprefix("arn:aws:s3:::")
    bucket, _, key = text.partition("/")
    if not bucket or not key:
        raise invalid(f"Invalid {what}: location must be a bucket and an object key, such as my-bucket/source.zip.")
    return bucket, key


def repository(given: str) -> str:
    """The name of a CodeCommit repository from its clone URL, or its name; raises Refused."""
    found = _REPOSITORY.fullmatch(given)
    if found is None:
        raise invalid(f"Invalid project source: {given[:200]} is not the clone URL of a CodeCommit repository.")
    return found[1]


def source(given: Mapping[str, Any], *, secondary: bool = False, what: str = "project source") -> dict[str, Any]:
    """A source; raises Refused."""
    kind = given["type"]
    if kind not in SOURCES:
        raise invalid(
            f"Invalid {what}: the type {kind} is not supported by Bastide: nothing outside of the platform is reachable. "
            f"There are {', '.join(SOURCES)}."
        )
    unsupported(given, f"Invalid {what}: ", "auth", "reportBuildStatus", "buildStatusConfig", "insecureSsl")
    if given.get("gitCloneDepth") and kind != "CODECOMMIT":
        raise invalid(f"Invalid {what}: gitCloneDepth is for CODECOMMIT.")
    if (given.get("gitSubmodulesConfig") or {}).get("fetchSubmodules"):
        raise invalid(f"Invalid {what}: gitSubmodulesConfig.fetchSubmodules is not supported by Bastide.")
    if len(str(given.get("buildspec") or "").encode()) > _MOST_SPEC:
        raise invalid(f"Invalid {what}: the buildspec is longer than {_MOST_SPEC} bytes.")
    place = given.get("location") or ""
    if kind == "S3" and not (place.endswith("/") and "/" in place[:-1]):
        location(place, what)
    elif kind == "CODECOMMIT":
        repository(place)
        if not place:
            raise invalid(f"Invalid {what}: location is needed, the clone URL of a CodeCommit repository.")
    elif kind == "NO_SOURCE":
        if place:
            raise invalid(f"Invalid {what}: location must be empty for the source type NO_SOURCE.")
        if not secondary and not given.get("buildspec"):
            raise invalid(f"Invalid {what}: source type NO_SOURCE requires a valid yaml for buildspec.")
    identifier = given.get("sourceIdentifier")
    if secondary:
        if kind in ("NO_SOURCE", "CODEPIPELINE"):
            raise invalid(f"Invalid {what}: a secondary source is of CODECOMMIT or S3.")
        if not identifier or _IDENTIFIER.fullmatch(identifier) is None:
            raise invalid(f"Invalid {what}: sourceIdentifier is needed: letters, digits and underscores.")
    elif identifier:
        raise invalid(f"Invalid {what}: the primary source has no sourceIdentifier.")
    return dict(given)


def artifacts(given: Mapping[str, Any], *, secondary: bool = False, what: str = "artifacts") -> dict[str, Any]:
    """Where artifacts go, with the defaults; raises Refused."""
    kind = given["type"]
    if given.get("bucketOwnerAccess") not in (None, "NONE"):
        raise invalid(f"Invalid {what}: bucketOwnerAccess: objects are always the bucket owner's.")
    identifier = given.get("artifactIdentifier")
    if secondary and (not identifier or _IDENTIFIER.fullmatch(identifier) is None):
        raise invalid(f"Invalid {what}: artifactIdentifier is needed: letters, digits and underscores.")
    if kind != "S3":
        if kind == "NO_ARTIFACTS" and secondary:
            raise invalid(f"Invalid {what}: secondary artifacts go to S3.")
        for name in ("location", "path", "name", "packaging", "namespaceType"):
            if kind == "NO_ARTIFACTS" and given.get(name) not in (None, "", "NONE"):
                raise invalid(f"Invalid {what}: {name} has no meaning for the type NO_ARTIFACTS.")
        return dict(given)
    bucket = given.get("location") or ""
    if not bucket or "/" in bucket:
        raise invalid(f"Invalid {what}: location must be the name of a bucket.")
    name = given.get("name") or ""
    if not name and not given.get("overrideArtifactName"):
        raise invalid(f"Invalid {what}: name is needed for the type S3, or overrideArtifactName.")
    for part in (given.get("path") or "", name):
        if ".." in part.split("/") or any(ord(char) < 32 for char in part):
            raise invalid(f"Invalid {what}: path and name are plain.")
    return {"namespaceType": "NONE", "packaging": "NONE", **given}


def cache(given: Mapping[str, Any]) -> dict[str, Any]:
    """A cache; raises Refused."""
    kind = given["type"]
    unsupported(given, "Invalid cache: ", "cacheNamespace")
    if kind == "LOCAL":
        raise invalid(
            "Invalid cache: the type LOCAL is not supported by Bastide: every build has a disk of its own. S3 is."
        )
    if kind == "S3":
        if not given.get("location"):
            raise invalid("Invalid cache: location is needed, a bucket and a prefix.")
    elif given.get("location") and kind == "NO_CACHE":
        raise invalid("Invalid cache: location must be empty for the type NO_CACHE.")
    if given.get("modes"):
        raise invalid("Invalid cache: modes are for the type LOCAL, which is not supported by Bastide.")
    return dict(given)


def variables(given: Sequence[Mapping[str, Any]]) -> None:
    """Raises Refused for names that no shell has, and for values that no process can be given."""
    for one in given:
        name = one["name"]
        if _VARIABLE.fullmatch(name) is None:
            raise invalid(f"Invalid environment variable: the name {name[:100]!r} has letters, digits and underscores.")
        if "\0" in one["value"]:
            raise invalid(f"Invalid environment variable: the value of {name} holds a zero byte.")


def environment(given: Mapping[str, Any]) -> dict[str, Any]:
    """Where a build runs; raises Refused."""
    if given["type"] != "LINUX_CONTAINER":
        raise invalid(f"Invalid environment: type {given['type']} is not supported by Bastide, LINUX_CONTAINER is.")
    if given["computeType"] not in COMPUTE:
        raise invalid(
            f"Invalid environment: computeType {given['computeType']} is not supported by Bastide. There are "
            f"{', '.join(COMPUTE)}."
        )
    what = "Invalid environment: "
    unsupported(given, what, "certificate", "registryCredential", "dockerServer", "computeConfiguration", "fleet")
    unsupported(given, what, "hostKernel")
    image = given["image"]
    pulling = given.get("imagePullCredentialsType")
    if not managed(image):
        if not own(image):
            raise invalid(
                f"Invalid environment: the image {image[:200]} is neither one of CodeBuild's for Linux "
                "(aws/codebuild/standard:7.0, aws/codebuild/amazonlinux-x86_64-standard:5.0, ...), for which the "
                "environment stands that Bastide brings, nor one of this platform's ECR."
            )
        if pulling == "CODEBUILD":
            raise invalid(f"{what}imagePullCredentialsType must be SERVICE_ROLE for an image of your own.")
    elif pulling == "SERVICE_ROLE":
        raise invalid(f"{what}imagePullCredentialsType must be CODEBUILD for CodeBuild's own images.")
    variables(given.get("environmentVariables") or ())
    if given.get("privilegedMode") and not managed(image):
        raise invalid(
            f"{what}privilegedMode is for CodeBuild's own images, in whose place Bastide's has what builds images."
        )
    found = {"environmentVariables": [], "privilegedMode": False, **given}
    found["environmentVariables"] = [{"type": "PLAINTEXT", **one} for one in found["environmentVariables"]]
    found.setdefault("imagePullCredentialsType", "CODEBUILD" if managed(image) else "SERVICE_ROLE")
    return found


def logs(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Where logs go; raises Refused."""
    found = dict(given or {})
    cloud, s3 = found.get("cloudWatchLogs"), found.get("s3Logs")
    if cloud and cloud["status"] == "DISABLED" and (cloud.get("groupName") or cloud.get("streamName")):
        raise invalid("Invalid logsConfig: cloudWatchLogs is disabled and names a group or a stream.")
    if s3:
        if s3.get("bucketOwnerAccess") not in (None, "NONE"):
            raise invalid("Invalid logsConfig: s3Logs.bucketOwnerAccess: objects are always the bucket owner's.")
        if s3["status"] == "ENABLED" and not s3.get("location"):
            raise invalid("Invalid logsConfig: s3Logs.location is needed, a bucket and a prefix.")
    return found


def vpc(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """A VPC's configuration; empty without one. Raises Refused."""
    if not given or not any(given.values()):
        return {}
    for name in ("vpcId", "subnets", "securityGroupIds"):
        if not given.get(name):
            raise invalid(f"Invalid vpcConfig: {name} is needed.")
    return dict(given)


def plain(path: str) -> bool:
    """Whether a path leads nowhere but below where it begins."""
    return not path.startswith("/") and ".." not in path.split("/") and posixpath.normpath(path) != ".."


def project(given: Mapping[str, Any]) -> dict[str, Any]:
    """A project's members as they are kept; raises Refused."""
    unsupported(given, "Invalid project: ", "badgeEnabled", "fileSystemLocations", "buildBatchConfig", "autoRetryLimit")
    found: dict[str, Any] = {
        "description": given.get("description") or "",
        "source": source(given["source"]),
        "secondarySources": [
            source(one, secondary=True, what="secondary source") for one in given.get("secondarySources") or ()
        ],
        "secondarySourceVersions": list(given.get("secondarySourceVersions") or ()),
        "artifacts": artifacts(given["artifacts"]),
        "secondaryArtifacts": [
            artifacts(one, secondary=True, what="secondary artifacts") for one in given.get("secondaryArtifacts") or ()
        ],
        "cache": cache(given.get("cache") or {"type": "NO_CACHE"}),
        "environment": environment(given["environment"]),
        "serviceRole": given["serviceRole"],
        "timeoutInMinutes": given.get("timeoutInMinutes") or 60,
        "queuedTimeoutInMinutes": given.get("queuedTimeoutInMinutes") or 480,
        "logsConfig": logs(given.get("logsConfig")),
        "vpcConfig": vpc(given.get("vpcConfig")),
    }
    for name in ("sourceVersion", "encryptionKey", "concurrentBuildLimit"):
        if given.get(name):
            found[name] = given[name]
    together(found)
    return found


def together(found: Mapping[str, Any]) -> None:
    """Raises Refused for what contradicts itself across members."""
    pipeline = [found["source"]["type"] == "CODEPIPELINE", found["artifacts"]["type"] == "CODEPIPELINE"]
    if pipeline[0] != pipeline[1]:
        raise invalid("Invalid artifacts: source and artifacts are both of the type CODEPIPELINE, or neither is.")
    for name, key in (("secondarySources", "sourceIdentifier"), ("secondaryArtifacts", "artifactIdentifier")):
        names = [one[key] for one in found[name]]
        if len(set(names)) != len(names):
            raise invalid(f"Invalid {name}: each {key} is there once.")
    known = {one["sourceIdentifier"] for one in found["secondarySources"]}
    for one in found["secondarySourceVersions"]:
        if one["sourceIdentifier"] not in known:
            raise invalid(f"Invalid secondarySourceVersions: there is no secondary source {one['sourceIdentifier']}.")

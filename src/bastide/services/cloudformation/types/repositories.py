"""CodeCommit's type. Source: CloudFormation Template Reference, AWS::CodeCommit::Repository."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import zips
from bastide.services.cloudformation.fetching import fetched
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types.regular import calls_of

_MOST_BYTES: Final = 20 << 20
_MOST_FILES: Final = 10_000
_AT_ONCE: Final = 100
_BYTES_AT_ONCE: Final = 15 << 20
"""Of files that CreateCommit takes at once."""


def _wrong(why: str) -> Refused:
    return Refused("ValidationError", f"Code.S3: {why}")


def _seed(archive: bytes) -> list[dict[str, Any]]:
    """The files of an archive, which is hostile, as CreateCommit takes them; paths it checks itself. Raises Refused."""
    found: list[dict[str, Any]] = []
    size = 0
    try:
        with zips.opened(io.BytesIO(archive), _MOST_FILES) as held:
            for entry in held.infolist():
                if entry.is_dir():
                    continue
                mode = entry.external_attr >> 16
                size += entry.file_size
                if len(found) >= _MOST_FILES or size > _MOST_BYTES:
                    raise _wrong(f"the archive has {_MOST_FILES} files and {_MOST_BYTES} bytes at most.")
                with held.open(entry) as file:
                    raw = file.read(entry.file_size + 1)
                if len(raw) != entry.file_size:
                    raise _wrong(f"{entry.filename[:200]} has not the size that the archive says.")
                kind = "SYMLINK" if stat.S_ISLNK(mode) else "EXECUTABLE" if mode & 0o111 else "NORMAL"
                found.append({"filePath": entry.filename, "fileContent": raw, "fileMode": kind})
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise _wrong(f"the archive cannot be read: {str(error)[:200]}") from None
    if not found:
        raise _wrong("the archive is empty.")
    return found


def _parts(files: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    parts: list[list[dict[str, Any]]] = [[]]
    size = 0
    for one in files:
        size += len(one["fileContent"])
        if len(parts[-1]) >= _AT_ONCE or (parts[-1] and size > _BYTES_AT_ONCE):
            parts.append([])
            size = len(one["fileContent"])
        parts[-1].append(one)
    return parts


def _triggers(r: Resource) -> list[dict[str, Any]]:
    return [
        {
            "name": one["Name"], "destinationArn": one["DestinationArn"], "events": one["Events"],
            **({"branches": one["Branches"]} if one.get("Branches") else {}),
            **({"customData": one["CustomData"]} if one.get("CustomData") else {}),
        }
        for one in r.get("Triggers") or ()
    ]  # fmt: skip


async def _create(r: Resource) -> None:
    name = str(r.get("RepositoryName"))
    code = r.get("Code")
    files: list[dict[str, Any]] = []
    if code:
        where = code["S3"]
        archive = await fetched(
            r.actor, where["Bucket"], where["Key"], where.get("ObjectVersion") or "", most=_MOST_BYTES
        )
        files = _seed(archive)
    asked: dict[str, Any] = {"repositoryName": name}
    if r.get("RepositoryDescription"):
        asked["repositoryDescription"] = r.get("RepositoryDescription")
    if r.get("KmsKeyId"):
        asked["kmsKeyId"] = r.get("KmsKeyId")
    if tags := r.tags():
        asked["tags"] = {one["Key"]: one["Value"] for one in tags}
    made = (await r.do("CreateRepository", asked, key="create"))["repositoryMetadata"]
    r.thing.physical = made["repositoryId"]
    r.thing.attributes |= {"Arn": made["Arn"], "Name": name, "CloneUrlHttp": made["cloneUrlHttp"]}
    branch, parent = str((code or {}).get("BranchName") or "main"), ""
    for number, part in enumerate(_parts(files) if files else ()):
        given: dict[str, Any] = {"repositoryName": name, "branchName": branch, "putFiles": part}
        given |= {"commitMessage": "Initial commit by AWS CloudFormation", "authorName": "AWS CloudFormation"}
        given |= {"parentCommitId": parent} if parent else {}
        parent = (await r.do("CreateCommit", given, key=f"seed-{number}"))["commitId"]
    if r.get("Triggers"):
        await r.do("PutRepositoryTriggers", {"repositoryName": name, "triggers": _triggers(r)}, key="create")


async def _update(r: Resource) -> None:
    name = str(r.get("RepositoryName"))
    if r.changed("RepositoryName"):
        await r.do("UpdateRepositoryName", {"oldName": r.thing.attributes["Name"], "newName": name})
        made = (await r.read("GetRepository", {"repositoryName": name}))["repositoryMetadata"]
        r.thing.attributes |= {"Arn": made["Arn"], "Name": name, "CloneUrlHttp": made["cloneUrlHttp"]}
    if r.changed("RepositoryDescription"):
        given = {"repositoryName": name, "repositoryDescription": r.get("RepositoryDescription") or ""}
        await r.do("UpdateRepositoryDescription", given)
    if r.changed("KmsKeyId"):
        key = r.get("KmsKeyId") or "alias/aws/codecommit"
        await r.do("UpdateRepositoryEncryptionKey", {"repositoryName": name, "kmsKeyId": key})
    if r.changed("Triggers"):
        await r.do("PutRepositoryTriggers", {"repositoryName": name, "triggers": _triggers(r)})
    before = {one["Key"]: str(one["Value"]) for one in r.old.get("Tags") or ()}
    after = {one["Key"]: one["Value"] for one in r.tags()}
    named = {"resourceArn": r.thing.attributes["Arn"]}
    gone = sorted(set(before) - set(after))
    if gone:
        await r.do("UntagResource", {**named, "tagKeys": gone})
    if before != after and after:
        await r.do("TagResource", {**named, "tags": after})


async def _delete(r: Resource) -> None:
    await r.drop("DeleteRepository", {"repositoryName": str(r.fact("Name") or r.get("RepositoryName"))})


async def _read(r: Resource) -> dict[str, Any] | None:
    name = str(r.fact("Name"))
    told = await r.seen("GetRepository", {"repositoryName": name})
    if told is None or told["repositoryMetadata"]["repositoryId"] != r.physical:
        return None
    held = told["repositoryMetadata"]
    found = {"RepositoryName": name, "RepositoryDescription": held.get("repositoryDescription")}
    return {key: value for key, value in found.items() if value is not None and key in r.properties}


TYPES: Final = (
    Type(
        "AWS::CodeCommit::Repository", "codecommit", _create, _delete, _update, _read,
        calls_of(
            "codecommit",
            [
                "CreateRepository", "DeleteRepository", "GetRepository", "UpdateRepositoryName", "CreateCommit",
                "UpdateRepositoryDescription", "UpdateRepositoryEncryptionKey", "PutRepositoryTriggers", "TagResource",
                "UntagResource", ("s3", "GetObject"),
            ],
        ),
        mark=lambda r: str(r.fact("Arn") or ""), named="RepositoryName",
    ),
)  # fmt: skip
"""What keeps code."""

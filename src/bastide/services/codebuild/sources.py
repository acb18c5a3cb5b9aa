"""Sources on their way into a build, with the project's role: archives and folders of S3, trees of CodeCommit.

Everything is fetched and unpacked before anything of the build runs. Source: CodeBuild User Guide, "Source versions",
"Change a build project's source".
"""

from __future__ import annotations

import asyncio
import errno
import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.workflow import Failed
from bastide.services.codebuild import archive, checking, objects
from bastide.services.codebuild.archive import Unfit
from bastide.services.codebuild.buildspec import MOST_BYTES
from bastide.services.codebuild.session import RoleSession

_MOST_OBJECTS: Final = 20_000
_SPEC: Final = "buildspec.yml"
DIGEST: Final = "sha256:"
"""What a source version begins with that says what an archive's bytes are to be; a version of S3's never has a colon."""


async def get(
    session: RoleSession, given: Mapping[str, Any], version: str, folder: Path, packed: Path, *, most: int
) -> str:
    """Puts a source into an empty folder; what its version was found to mean. packed: where an archive may lie meanwhile.
    most: bytes. Raises Failed."""
    kind, place = given["type"], str(given.get("location") or "")
    what = f"the source {place[:300]}"
    try:
        if kind in ("S3", "CODEPIPELINE"):
            return await _from_s3(session, place, version, folder, packed, most)
        if kind == "CODECOMMIT":
            return await _from_git(session, place, version, folder, packed, most)
    except Refused as refused:
        raise Failed("CLIENT_ERROR", f"{what} could not be downloaded: {refused.code}: {refused.message}") from None
    except Unfit as unfit:
        raise Failed("CLIENT_ERROR", f"{what} could not be unpacked: {unfit}.") from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise Failed("CLIENT_ERROR", f"{what} does not fit on the disk of the build's compute type.") from None
    finally:
        await asyncio.to_thread(packed.unlink, missing_ok=True)
    return ""


async def _from_s3(session: RoleSession, place: str, version: str, folder: Path, packed: Path, most: int) -> str:
    if place.endswith("/"):
        await _prefix(session, place, folder, most)
        return ""
    bucket, key = checking.location(place, "source")
    asked = {"Bucket": bucket, "Key": key}
    wanted = version.removeprefix(DIGEST) if version.startswith(DIGEST) else ""
    if version and version != "null" and not wanted:
        asked["VersionId"] = version
    told = await objects.fetch(session, asked, packed, most=most)
    if wanted and told["sha256"] != wanted:
        raise Unfit(f"its SHA-256 is {told['sha256'][:16]}..., and was to be {wanted[:16]}...: somebody changed it")
    await asyncio.to_thread(archive.unpack, packed, folder, most_bytes=most)
    return str(told.get("VersionId") or told.get("ETag") or "").strip('"')


async def _prefix(session: RoleSession, place: str, folder: Path, most: int) -> None:
    text = place.removeprefix("s3://").removeprefix("arn:aws:s3:::")
    bucket, _, prefix = text.partition("/")
    token, count, left = None, 0, most
    while True:
        asked: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
        if token:
            asked["ContinuationToken"] = token
        page = await session.act("s3", "ListObjectsV2", asked)
        for one in page.get("Contents") or ():
            name = one["Key"][len(prefix) :]
            if not name or name.endswith("/"):
                continue
            count += 1
            if count > _MOST_OBJECTS:
                raise Unfit(f"there are more than {_MOST_OBJECTS} objects below it")
            parts = name.split("/")
            if any(part in ("", ".", "..") or "\0" in part or len(part.encode()) > 255 for part in parts):
                raise Unfit(f"`{name[:200]}` cannot be the name of a file")
            target = folder.joinpath(*parts)
            try:
                await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
                await objects.fetch(session, {"Bucket": bucket, "Key": one["Key"]}, target, most=left)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise Unfit(f"`{name[:200]}` is both a file and a folder") from None
            left -= int(one["Size"])
        token = page.get("NextContinuationToken")
        if not token:
            return


async def _from_git(session: RoleSession, place: str, version: str, folder: Path, packed: Path, most: int) -> str:
    asked = {"repositoryName": checking.repository(place), "format": "zip"}
    if version:
        asked["commitSpecifier"] = version.removeprefix("refs/heads/").removeprefix("refs/tags/")
    told = await session.act("codecommit", "GitPull", asked)
    await asyncio.to_thread(packed.write_bytes, bytes(told["archive"]))
    await asyncio.to_thread(archive.unpack, packed, folder, most_bytes=most)
    return str(told["commitId"])


async def history(session: RoleSession, given: Mapping[str, Any], target: Path) -> None:
    """Puts a CodeCommit repository's whole history into a new file, a bundle that git reads in the build; raises Failed."""
    name = checking.repository(str(given.get("location") or ""))
    try:
        told = await session.act("codecommit", "GitPull", {"repositoryName": name, "format": "bundle"})
    except Refused as refused:
        raise Failed(
            "CLIENT_ERROR", f"the history of {name} could not be downloaded: {refused.code}: {refused.message}"
        ) from None
    await asyncio.to_thread(target.write_bytes, bytes(told["archive"]))


async def buildspec(session: RoleSession, given: Mapping[str, Any], folder: Path) -> str:
    """The text of a build's buildspec: given in the project, or a file of the source, or an object; raises Failed."""
    text = str(given.get("buildspec") or "")
    if "\n" in text or text.lstrip().startswith("{") or text.startswith("version:"):
        return text
    if text.startswith("arn:aws:s3:::"):
        return await _of_object(session, text)
    relative = posixpath.normpath(text or _SPEC)
    if not checking.plain(relative):
        raise Failed("YAML_FILE_ERROR", f"YAML file does not exist: {text[:200]} leads out of the source.")

    def read() -> bytes | None:
        top = archive.top_of(folder)
        try:
            return archive.text_of(top, relative, MOST_BYTES + 1)
        finally:
            os.close(top)

    found = await asyncio.to_thread(read)
    if found is None and not text:
        relative = "buildspec.yaml"
        found = await asyncio.to_thread(read)
    if found is None:
        raise Failed("YAML_FILE_ERROR", f"YAML file does not exist: {text or _SPEC} is not in the source.")
    return _decoded(found)


async def _of_object(session: RoleSession, text: str) -> str:
    bucket, _, key = text.removeprefix("arn:aws:s3:::").partition("/")
    try:
        output = await session.act("s3", "GetObject", {"Bucket": bucket, "Key": key})
        if int(output.get("ContentLength") or 0) > MOST_BYTES:
            raise Failed("YAML_FILE_ERROR", f"The buildspec {text[:200]} is longer than {MOST_BYTES} bytes.")
        return _decoded(b"".join([piece async for piece in output["Body"]]))
    except Refused as refused:
        raise Failed(
            "YAML_FILE_ERROR", f"The buildspec {text[:200]} could not be read: {refused.code}: {refused.message}"
        ) from None


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise Failed("YAML_FILE_ERROR", "The buildspec is not UTF-8.") from None

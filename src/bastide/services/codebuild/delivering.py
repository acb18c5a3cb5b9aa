"""What a build made, on its way to S3: files that the buildspec's patterns mean, in the folders of the source.

The program has ended by then, and nobody changes its files any more; links are followed nowhere. Source: CodeBuild User
Guide, "artifacts" in "Build specification reference"; API Reference, ProjectArtifacts.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.workflow import Failed
from bastide.services.codebuild import archive, objects
from bastide.services.codebuild.archive import Unfit
from bastide.services.codebuild.buildspec import Artifact
from bastide.services.codebuild.session import RoleSession

_CHUNK: Final = 1 << 20


def key_of(target: Mapping[str, Any], name: str, id: str) -> str:
    """Where a target's artifact lies in its bucket."""
    parts = [str(target.get("path") or "").strip("/")]
    if target.get("namespaceType") == "BUILD_ID":
        parts.append(id)
    parts.append(name.strip("/"))
    return "/".join(part for part in parts if part)


async def deliver(
    session: RoleSession,
    target: Mapping[str, Any],
    wanted: Artifact,
    source: Path,
    place: Path,
    *,
    name: str,
    id: str,
    kms_key: str,
    most: int,
) -> dict[str, Any]:
    """Uploads what an artifact of a buildspec means; what the build then says of it. source: the folder of the source.
    place: a new file for an archive. name: what the build worked out. kms_key: empty for the bucket's own way. Raises
    Failed."""
    called = name if target.get("overrideArtifactName") and name else str(target.get("name") or name)
    key, bucket = key_of(target, called, id), str(target["location"])
    try:
        return await _deliver(session, target, wanted, source, place, bucket, key, kms_key, most)
    except Refused as refused:
        raise Failed(
            "CLIENT_ERROR", f"Error while uploading to s3://{bucket}/{key}: {refused.code}: {refused.message}"
        ) from None
    except Unfit as unfit:
        raise Failed("CLIENT_ERROR", f"Error while uploading artifacts: {unfit}.") from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise Failed(
            "CLIENT_ERROR",
            "Error while uploading artifacts: the disk of the build's compute type has no room for them.",
        ) from None
    finally:
        await asyncio.to_thread(place.unlink, missing_ok=True)


async def _deliver(
    session: RoleSession,
    target: Mapping[str, Any],
    wanted: Artifact,
    source: Path,
    place: Path,
    bucket: str,
    key: str,
    kms_key: str,
    most: int,
) -> dict[str, Any]:
    top = archive.top_of(source)
    try:
        files = await asyncio.to_thread(archive.select, top, wanted.base, wanted.files, wanted.exclude)
        if wanted.flat:
            files = archive.flattened(files)
        if not files:
            below = f" in base directory {wanted.base}" if wanted.base else ""
            raise Unfit(f"no matching artifact paths found: {', '.join(wanted.files)[:500]}{below}")
        found: dict[str, Any] = {}
        if target.get("packaging") == "ZIP":
            await asyncio.to_thread(archive.pack, top, files, place, most_bytes=most)
            found = await asyncio.to_thread(_digests, place)
            folder = archive.top_of(place.parent)
            try:
                await objects.store(session, bucket, key, folder, place.name, kms_key)
            finally:
                os.close(folder)
        else:
            for name, path in files:
                await objects.store(session, bucket, f"{key}/{name}".lstrip("/"), top, path, kms_key)
    finally:
        os.close(top)
    return {"location": f"arn:aws:s3:::{bucket}/{key}", **found}


def _digests(path: Path) -> dict[str, str]:
    sha, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            sha.update(piece)
            md5.update(piece)
    return {"sha256sum": sha.hexdigest(), "md5sum": md5.hexdigest()}

"""Objects in and out of S3, with a role's session and nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.workflow import Failed
from bastide.services.sagemaker.session import RoleSession

_CHUNK: Final = 1 << 20
_MOST_OBJECTS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Entry:
    """An object as it was listed."""

    key: str
    etag: str
    size: int


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``; raises Refused for anything else."""
    if not uri.startswith("s3://"):
        raise Refused("ValidationException", f"`{uri[:200]}` is not an S3 URI: it begins with s3://")
    bucket, _, key = uri[5:].partition("/")
    if not bucket:
        raise Refused("ValidationException", f"`{uri[:200]}` names no bucket")
    return bucket, key


async def listing(session: RoleSession, bucket: str, prefix: str) -> list[Entry]:
    """All objects under a prefix, in S3's order; raises Refused, and Failed for more than can be staged."""
    found: list[Entry] = []
    token: str | None = None
    while True:
        asked: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
        if token:
            asked["ContinuationToken"] = token
        page = await session.act("s3", "ListObjectsV2", asked)
        found += [Entry(one["Key"], one["ETag"], one["Size"]) for one in page.get("Contents") or ()]
        token = page.get("NextContinuationToken")
        if not token:
            return found
        if len(found) > _MOST_OBJECTS:
            raise Failed("ClientError", f"s3://{bucket}/{prefix} holds more than {_MOST_OBJECTS} objects.")


def below(folder: Path, relative: str) -> Path:
    """A path inside of `folder` for an object's name; raises Failed for a name that no file can have."""
    parts = relative.split("/")
    if any(part in ("", ".", "..") or "\0" in part or len(part.encode()) > 255 for part in parts):
        raise Failed("ClientError", f"Data download failed: `{relative[:200]}` cannot be the name of a file.")
    return folder.joinpath(*parts)


async def content(session: RoleSession, bucket: str, key: str, etag: str = "") -> AsyncIterator[bytes]:
    """An object's bytes, piece by piece; raises Refused. etag: the content must be that, still."""
    asked = {"Bucket": bucket, "Key": key, **({"IfMatch": etag} if etag else {})}
    body = (await session.act("s3", "GetObject", asked))["Body"]
    try:
        async for piece in body:
            yield piece
    finally:
        if hasattr(body, "aclose"):
            with contextlib.suppress(Exception):
                await body.aclose()


async def read(session: RoleSession, bucket: str, key: str, *, most: int) -> tuple[bytes, str]:
    """A small object and its ETag; raises Refused, also for one of more than `most` bytes."""
    output = await session.act("s3", "GetObject", {"Bucket": bucket, "Key": key})
    body = output["Body"]
    found = bytearray()
    try:
        if int(output.get("ContentLength") or 0) > most:
            raise Refused("ValidationException", f"it has more than {most} bytes")
        async for piece in body:
            found += piece
    finally:
        if hasattr(body, "aclose"):
            with contextlib.suppress(Exception):
                await body.aclose()
    return bytes(found), str(output.get("ETag", ""))


async def part(session: RoleSession, bucket: str, key: str, first: int, last: int, etag: str) -> bytes:
    """The bytes of an object from `first` to the one before `last`; raises Refused."""
    if last <= first:
        return b""
    asked = {"Bucket": bucket, "Key": key, "Range": f"bytes={first}-{last - 1}", "IfMatch": etag}
    body = (await session.act("s3", "GetObject", asked))["Body"]
    return b"".join([piece async for piece in body])


async def fetch(
    session: RoleSession, bucket: str, key: str, target: Path, *, etag: str | None = None
) -> dict[str, str]:
    """Writes an object to a new file; returns its ETag and VersionId. etag: the content must be that, still.

    Raises Refused, Failed where there is no room for it, and OSError, FileExistsError where the file is there.
    """
    asked = {"Bucket": bucket, "Key": key}
    if etag:
        asked["IfMatch"] = etag
    output = await session.act("s3", "GetObject", asked)
    body = output["Body"]
    handle = -1
    try:
        await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        async for piece in body:
            await asyncio.to_thread(_write, handle, piece)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        text = f"{error.strerror} while writing {target.name}. Please use a larger VolumeSizeInGB."
        raise Failed("ClientError", f"Data download failed: {text}") from None
    finally:
        if handle >= 0:
            os.close(handle)
        if hasattr(body, "aclose"):
            with contextlib.suppress(Exception):
                await body.aclose()
    return {"ETag": str(output.get("ETag", "")), "VersionId": str(output.get("VersionId") or "")}


def _write(handle: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(handle, rest) :]


class FileBody:
    """A file on its way into S3."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.length: int | None = path.stat(follow_symlinks=False).st_size

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's bytes."""
        handle = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            while piece := await asyncio.to_thread(os.read, handle, _CHUNK):
                yield piece
        finally:
            os.close(handle)

    def checksums(self) -> Mapping[str, str]:
        """None were given."""
        return {}


async def store(session: RoleSession, bucket: str, key: str, path: Path, kms_key: str | None) -> dict[str, str]:
    """Uploads a file; it appears whole or not at all. kms_key: the key it is encrypted under. Returns its ETag and
    VersionId."""
    asked = {"Bucket": bucket, "Key": key}
    if kms_key:
        asked |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key}
    output = await session.act("s3", "PutObject", asked, body=FileBody(path))
    return {"ETag": str(output.get("ETag", "")), "VersionId": str(output.get("VersionId") or "")}


async def store_all(
    session: RoleSession, bucket: str, folder: str, every: Sequence[tuple[str, Path]], kms_key: str | None
) -> None:
    """Uploads files with their names below a folder. Where one of them cannot be, those that are there go again, as far as
    the role may delete: half a model looks like one."""
    stored: list[dict[str, str]] = []
    try:
        for name, path in every:
            key = f"{folder}/{name}"
            got = await store(session, bucket, key, path, kms_key)
            stored.append({"Bucket": bucket, "Key": key, **({"VersionId": v} if (v := got["VersionId"]) else {})})
    except Exception:
        for one in stored:
            with contextlib.suppress(Refused):
                await session.act("s3", "DeleteObject", one)
        raise


def relative_name(key: str, prefix: str) -> str:
    """Where an object lands below its channel: behind the prefix's last folder; one that the prefix names, by its name.

    Source: SageMaker developer guide, "your-algorithms-training-algo-running-container".
    """
    if key == prefix:
        return key.rsplit("/", 1)[-1]
    behind = key[len(prefix) :]
    if prefix.endswith("/") or behind.startswith("/") or not prefix:
        return behind.lstrip("/")
    return key[len(prefix.rpartition("/")[0]) :].lstrip("/")

"""Objects in and out of S3, with a build's session and nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

from bastide.services.codebuild.archive import Unfit, opened
from bastide.services.codebuild.session import RoleSession

_CHUNK: Final = 1 << 20


async def fetch(session: RoleSession, asked: Mapping[str, Any], target: Path, *, most: int) -> dict[str, Any]:
    """Writes an object to a new file; returns what S3 said of it, and the SHA-256 of what was written as `sha256`. Raises
    Refused, Unfit for more than `most` bytes, and OSError where there is no room for it."""
    output = await session.act("s3", "GetObject", dict(asked))
    body, left, digest = output["Body"], most, hashlib.sha256()
    handle = -1
    try:
        if int(output.get("ContentLength") or 0) > most:
            raise Unfit(f"it has more than {most} bytes")
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        async for piece in body:
            left -= len(piece)
            if left < 0:
                raise Unfit(f"it has more than {most} bytes")
            digest.update(piece)
            await asyncio.to_thread(_write, handle, piece)
    finally:
        if handle >= 0:
            os.close(handle)
        if hasattr(body, "aclose"):
            with contextlib.suppress(Exception):
                await body.aclose()
    return {**output, "sha256": digest.hexdigest()}


def _write(handle: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(handle, rest) :]


class FileBody:
    """A file below a folder's descriptor, on its way into S3. Raises Unfit for what is no plain file."""

    def __init__(self, top: int, relative: str) -> None:
        try:
            self._handle = opened(top, relative, os.O_RDONLY)
        except OSError as error:
            raise Unfit(f"`{relative[:200]}` cannot be read: {error.strerror}") from None
        told = os.fstat(self._handle)
        if not stat.S_ISREG(told.st_mode):
            os.close(self._handle)
            raise Unfit(f"`{relative[:200]}` is no plain file")
        self.length: int | None = told.st_size

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's bytes."""
        while piece := await asyncio.to_thread(os.read, self._handle, _CHUNK):
            yield piece

    def checksums(self) -> Mapping[str, str]:
        """None were given."""
        return {}

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._handle)


async def store(session: RoleSession, bucket: str, key: str, top: int, relative: str, kms_key: str) -> dict[str, Any]:
    """Uploads a file; it appears whole or not at all. kms_key: what encrypts it; empty for the bucket's own way."""
    asked = {"Bucket": bucket, "Key": key}
    if kms_key:
        asked |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key}
    body = FileBody(top, relative)
    try:
        return await session.act("s3", "PutObject", asked, body=body)
    finally:
        body.close()

"""Folders of a running job that S3 follows: checkpoints, and outputs that are uploaded continuously.

The job owns the folder and works in it meanwhile, so nothing on the way to a file is believed to stay a folder: every part
of a path is opened by itself and links are not followed. Source: developer guide, "model-checkpoints"; API reference,
ProcessingS3Output.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from bastide.domain import Refused
from bastide.engines.workflow import Failed
from bastide.kernel import Unforeseen
from bastide.services.sagemaker import archive, objects
from bastide.services.sagemaker.archive import Unfit
from bastide.services.sagemaker.channels import Content, Source, stage
from bastide.services.sagemaker.session import RoleSession

_SECONDS: Final = 1.0
"""Between two looks at a folder."""
_SHARE: Final = 5
"""So many times as long as a look took, the next one is waited for: a job with many files is not to keep a thread busy."""
_CHUNK: Final = 1 << 20

Seen = tuple[int, int, int]


class _Body:
    """A file as long as it was when it was opened; raises OSError if it became shorter."""

    def __init__(self, handle: int, length: int) -> None:
        self._handle = handle
        self.length: int | None = length
        self._left = length

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's bytes."""
        while self._left:
            piece = await asyncio.to_thread(os.read, self._handle, min(_CHUNK, self._left))
            if not piece:
                raise OSError("it became shorter while it was read")
            self._left -= len(piece)
            yield piece

    def checksums(self) -> Mapping[str, str]:
        """None were given."""
        return {}


class Mirror:
    """What lies in a folder below `ml`, at `bucket`/`base`. deletes: what is deleted there is deleted in S3. most_bytes:
    that the folder may hold, as its files are read."""

    def __init__(
        self,
        session: RoleSession,
        bucket: str,
        base: str,
        ml: Path,
        folder: str,
        *,
        deletes: bool,
        most_bytes: int,
        kms_key: str | None = None,
    ) -> None:
        self._session = session
        self._bucket = bucket
        self._base = f"{base.rstrip('/')}/" if base else ""
        self._ml = ml
        self._folder = folder
        self._deletes = deletes
        self._most = most_bytes
        self._kms_key = kms_key
        self._known: dict[str, Seen] = {}

    async def restore(self) -> None:
        """Fetches what is in S3; raises Failed."""
        place = self._ml / self._folder
        await asyncio.to_thread(place.mkdir, parents=True, exist_ok=True)
        source = Source("checkpoints", self._bucket, self._base, self._folder)
        try:
            entries = await objects.listing(self._session, self._bucket, self._base)
        except Refused as refused:
            raise Failed(
                "ClientError", f"Checkpoints cannot be read: {refused.code}: {refused.message} ({source.where})"
            ) from None
        content = Content.of(source, entries)
        await stage(self._session, source, content.items, place)
        self._known = await asyncio.to_thread(self._look)

    def _look(self) -> dict[str, Seen]:
        """Regular files with what tells whether they changed. Raises Unfit and OSError."""
        base = os.open(self._ml, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            top = archive.opened(base, self._folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno not in archive.MOVED:  # a volume that is gone is no empty folder: S3 would be emptied
                raise
            return {}
        finally:
            os.close(base)
        try:
            return {name: _seen(told) for name, told in archive.regular(top, most_bytes=self._most)}
        except Unfit as unfit:
            raise Unfit(f"`{self._folder}`: {unfit}") from None
        finally:
            os.close(top)

    async def sync(self) -> None:
        """Makes S3 as the folder is now; raises Refused, Unfit and OSError."""
        now = await asyncio.to_thread(self._look)
        for name, seen in sorted(now.items()):
            if self._known.get(name) != seen and (stored := await self._store(name)) is not None:
                self._known[name] = stored
        for name in [one for one in self._known if one not in now]:
            if self._deletes:
                await self._session.act("s3", "DeleteObject", {"Bucket": self._bucket, "Key": self._base + name})
            del self._known[name]

    async def _store(self, name: str) -> Seen | None:
        base = os.open(self._ml, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            handle = await asyncio.to_thread(archive.opened, base, f"{self._folder}/{name}", os.O_RDONLY)
        except OSError as error:
            if error.errno not in archive.MOVED:
                raise
            return None  # gone again
        finally:
            os.close(base)
        try:
            told = os.fstat(handle)
            if not stat.S_ISREG(told.st_mode):
                return None
            asked = {"Bucket": self._bucket, "Key": self._base + name}
            if self._kms_key:
                asked |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self._kms_key}
            await self._session.act("s3", "PutObject", asked, body=_Body(handle, told.st_size))
            return _seen(told)
        finally:
            os.close(handle)

    @property
    def stored(self) -> Mapping[str, Seen]:
        """What S3 has, by path in the folder, and what tells whether a file changed."""
        return self._known

    def open(self, name: str) -> int:
        """A descriptor of a file, to read; raises OSError, also for what is none and for a link on the way."""
        base = os.open(self._ml, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            handle = archive.opened(base, f"{self._folder}/{name}", os.O_RDONLY)
        finally:
            os.close(base)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError("it is no plain file")
        return handle

    async def run(self) -> None:
        """Follows the folder until cancelled. What goes wrong is tried again, and told by the last `sync`."""
        pause = _SECONDS
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            with contextlib.suppress(Refused, Unfit, OSError, Unforeseen):
                await self.sync()
            pause = max(_SECONDS, _SHARE * (time.monotonic() - began))


def _seen(told: os.stat_result) -> Seen:
    return told.st_mtime_ns, told.st_size, told.st_ino

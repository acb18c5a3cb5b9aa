"""Pipe mode: an input streams through FIFOs, an epoch each, as fast as the job reads and through no file.

Source: SageMaker developer guide, "your-algorithms-training-algo-running-container"; MXNet's RecordIO as SageMaker's
``sagemaker.amazon.common`` writes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import zlib
from collections.abc import AsyncIterator
from typing import Final

import orjson

from bastide.domain import Refused
from bastide.engines.workflow import Failed
from bastide.services.sagemaker import objects
from bastide.services.sagemaker.channels import Content, Item, failed
from bastide.services.sagemaker.session import RoleSession

_MAGIC: Final = 0xCED7230A
_LONGEST_PART: Final = (1 << 29) - 8
"""Bytes of a record in one part: the length has 29 bits."""
_MOST_UNPACKED: Final = 256 << 20
"""Bytes of a gzip object that becomes one record, whose length stands before it."""
_SLOWEST: Final = 0.05
"""Seconds until a reader is looked for again."""


async def recordio(pieces: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """`size` bytes as a record; one that is longer than a part is several parts."""
    most, left, inside, first = _LONGEST_PART, size, 0, True
    if not size:
        yield _head(0, 0)
        return
    async for piece in pieces:
        rest = memoryview(piece)
        while rest:
            if not inside:
                inside = min(left, most)
                flag = (0 if first else 3) if inside == left else (1 if first else 2)
                yield _head(flag, inside)
                padding, first = -inside % 4, False
            now = rest[:inside]
            yield bytes(now)
            rest, inside, left = rest[len(now) :], inside - len(now), left - len(now)
            if not inside and padding:
                yield b"\0" * padding


def _head(flag: int, length: int) -> bytes:
    return _MAGIC.to_bytes(4, "little") + (flag << 29 | length).to_bytes(4, "little")


async def unpacked(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What a gzip stream of one or several members holds; raises zlib.error and EOFError."""
    one = zlib.decompressobj(zlib.MAX_WBITS | 16)
    begun = False
    async for piece in pieces:
        rest = piece
        while rest:
            begun = True
            found = one.decompress(rest, 1 << 20)
            if found:
                yield found
            rest = one.unconsumed_tail
            if one.eof:
                rest, one, begun = one.unused_data, zlib.decompressobj(zlib.MAX_WBITS | 16), False
    if begun:
        if found := one.flush():
            yield found
        if not one.eof:
            raise EOFError


async def _only(content: bytes) -> AsyncIterator[bytes]:
    yield content


class Pipe:
    """The FIFOs of one input on one host. folder: a descriptor of the folder they are in. name: theirs, without the epoch.
    host: from 0."""

    def __init__(self, session: RoleSession, content: Content, folder: int, name: str, host: int, hosts: int) -> None:
        self._session = session
        self._content = content
        self._folder = folder
        self._name = name
        self._host, self._hosts = host, hosts
        self._make(0)

    def _make(self, epoch: int) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkfifo(f"{self._name}_{epoch}", 0o644, dir_fd=self._folder)
            owner = os.fstat(self._folder)
            os.chown(f"{self._name}_{epoch}", owner.st_uid, owner.st_gid, dir_fd=self._folder, follow_symlinks=False)

    async def run(self) -> None:
        """Serves epoch after epoch, until cancelled; raises Failed when the input cannot be had."""
        try:
            await self._run()
        except OSError as error:  # the folder is the job's: it may have removed it or put something in the FIFO's way
            raise Failed("ClientError", f"Data download failed: {self._name}: {error.strerror}") from None

    async def _run(self) -> None:
        epoch = 0
        while True:
            handle = await self._opened(epoch)
            try:
                await asyncio.to_thread(self._make, epoch + 1)
                with contextlib.suppress(BrokenPipeError):  # it has read enough of this epoch
                    for item in self._content.share(self._host, self._hosts, epoch):
                        async for piece in self._stream(item):
                            await _write(handle, piece)
            finally:
                os.close(handle)
            # Who would open it again would wait for ever.
            with contextlib.suppress(FileNotFoundError):
                await asyncio.to_thread(os.unlink, f"{self._name}_{epoch}", dir_fd=self._folder)
            epoch += 1

    async def _opened(self, epoch: int) -> int:
        """A descriptor to write to, when somebody reads. What the job put in the FIFO's place is not written to."""
        pause = 0.002
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            try:
                handle = await asyncio.to_thread(os.open, f"{self._name}_{epoch}", flags, dir_fd=self._folder)
            except OSError as error:
                if error.errno not in (errno.ENXIO, errno.ENOENT, errno.ELOOP, errno.EISDIR):
                    raise
            else:
                if stat.S_ISFIFO(os.fstat(handle).st_mode):
                    return handle
                os.close(handle)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _SLOWEST)

    async def _stream(self, item: Item) -> AsyncIterator[bytes]:
        if item.line is None:
            async for piece in self._object(item.bucket, item.key, item.etag, item.size):
                yield piece
            return
        for name in self._content.source.attributes:
            value = item.line[name]
            if name.endswith("-ref"):
                try:
                    bucket, key = objects.split(str(value))
                except Refused as refused:
                    raise failed(self._content.source, refused) from None
                async for piece in self._object(bucket, key):
                    yield piece
                continue
            told = value.encode() if isinstance(value, str) else orjson.dumps(value)
            async for piece in recordio(_only(told), len(told)) if self._content.source.recordio else _only(told):
                yield piece

    async def _object(self, bucket: str, key: str, etag: str = "", size: int = -1) -> AsyncIterator[bytes]:
        source = self._content.source
        try:
            if source.recordio and size < 0:
                head = await self._session.act("s3", "HeadObject", {"Bucket": bucket, "Key": key})
                etag, size = str(head["ETag"]), int(head["ContentLength"])
            pieces = objects.content(self._session, bucket, key, etag)
            if source.packed:
                pieces = unpacked(pieces)
                if source.recordio:
                    whole = bytearray()
                    async for piece in pieces:
                        whole += piece
                        if len(whole) > _MOST_UNPACKED:
                            raise Failed(
                                "ClientError", f"Data download failed: s3://{bucket}/{key} is too long for one record."
                            )
                    pieces, size = _only(bytes(whole)), len(whole)
            async for piece in recordio(pieces, size) if source.recordio else pieces:
                yield piece
        except Refused as refused:
            raise Failed(
                "ClientError", f"Data download failed: {refused.code}: {refused.message} (s3://{bucket}/{key})"
            ) from None
        except (zlib.error, EOFError):
            raise Failed("ClientError", f"Data download failed: s3://{bucket}/{key} is not gzip.") from None


async def _write(handle: int, piece: bytes) -> None:
    """All of it, as the reader takes it."""
    loop = asyncio.get_running_loop()
    rest = memoryview(piece)
    while rest:
        try:
            rest = rest[os.write(handle, rest) :]
        except BlockingIOError:
            ready = asyncio.Event()
            loop.add_writer(handle, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_writer(handle)

"""An S3-compatible store, for platforms whose objects do not lie on their machine.

The store is given sealed chunks under random ids and nothing else. What fits one part goes in one call; more goes in
parts, two on their way while the next is gathered. A read asks for the range that holds its chunks, and takes it up where
it stood when a connection breaks. What cannot be removed, because the store is away, a backup runs or somebody still
reads it, is removed later: by the next call that gets through, or by the sweep of the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import secrets
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from bastide.engines.artifacts.deletions import Deletions
from bastide.engines.artifacts.drivers.bucket import PART, READING, Bucket
from bastide.engines.artifacts.drivers.threads import settled
from bastide.engines.artifacts.sealing import (
    CHUNK,
    SEALED,
    Cipher,
    Damaged,
    Extent,
    Unavailable,
    Written,
    check_id,
    check_range,
    check_small,
    digest_of,
)

THREADS = 16
"""Calls at once; each of them blocks a thread."""

_CHUNKS = PART // CHUNK
_PLAIN = _CHUNKS * CHUNK
"""Plaintext of a part."""
_ON_THE_WAY = 2
_AT_ONCE = 4
"""Chunks that a reader is given together."""
_RESUMES = 4

_T = TypeVar("_T")


class S3Objects:
    """Artifacts in a bucket. root: the folder of objects that the platform would have; its lock is shared with backups."""

    def __init__(self, bucket: Bucket, root: Path) -> None:
        self._bucket = bucket
        self._deletions = Deletions(root)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="artifacts")
        self._readers: Counter[str] = Counter()
        self._mutex = threading.Lock()
        self._left: set[str] = set()
        """What is to be removed once it can be."""

    async def _run(self, work: Callable[..., _T], *given: Any) -> _T:
        return await settled(asyncio.get_running_loop().run_in_executor(self._threads, work, *given))

    # -- writing -------------------------------------------------------------------------------------------------------

    async def write(self, chunks: AsyncIterator[bytes], data_key: bytes, *, digest: str = "md5") -> Written:
        """Writes a stream; the store has acknowledged it when this returns."""
        id = secrets.token_hex(16)
        upload = _Upload(self._bucket, Cipher(data_key, id), digest)
        loop = asyncio.get_running_loop()
        sending: set[asyncio.Future[None]] = set()
        kept = False
        try:
            pieces: list[bytes] = []
            waiting = size = 0
            async for piece in chunks:
                pieces.append(piece)
                waiting += len(piece)
                size += len(piece)
                # A part is sent only once more is known to follow: the last one says that it is the last.
                while waiting > _PLAIN:
                    gathered = b"".join(pieces)
                    plain, rest = gathered[:_PLAIN], gathered[_PLAIN:]
                    del gathered
                    pieces, waiting = [rest], len(rest)
                    sealed = await self._run(upload.seal, plain, False)
                    if upload.id is None:
                        await self._run(upload.begin)
                    while len(sending) >= _ON_THE_WAY:
                        sending = await _one_done(sending)
                    sending.add(loop.run_in_executor(self._threads, upload.send, *sealed))
                    del plain, sealed
            while sending:
                sending = await _one_done(sending)
            await self._run(upload.finish, b"".join(pieces))
            kept = True
        finally:
            if not kept:
                await self._undo(upload, sending)
        self._tidy()
        return Written(id, size, upload.digest())

    async def _undo(self, upload: _Upload, sending: set[asyncio.Future[None]]) -> None:
        async def undo() -> None:
            await asyncio.gather(*sending, return_exceptions=True)
            if not await asyncio.get_running_loop().run_in_executor(self._threads, upload.forget):
                self._leave(upload.artifact)

        await settled(asyncio.ensure_future(undo()))

    async def write_small(self, data: bytes, data_key: bytes, *, digest: str = "md5") -> Written:
        """Writes at most `SMALL` bytes in one call."""
        check_small(data)
        id = secrets.token_hex(16)
        kept = False
        try:
            await self._run(self._bucket.put, id, Cipher(data_key, id).seal(0, data, True))
            kept = True
        finally:
            if not kept:
                self._leave(id)  # it may have been written, and only its answer be lost
        self._tidy()
        return Written(id, len(data), digest_of(digest, data))

    # -- reading -------------------------------------------------------------------------------------------------------

    async def read(self, id: str, data_key: bytes, start: int = 0, end: int | None = None) -> bytes:
        """Bytes `start` to `end`; raises Damaged, FileNotFoundError, Unavailable."""
        return b"".join([piece async for piece in self.open(id, data_key, start, end)])

    async def open(
        self, id: str, data_key: bytes, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The same as a stream; what is deleted meanwhile goes when nobody reads it any more."""
        check_range(start, end)
        range_ = _Range(self._bucket, Cipher(data_key, id), start, end)
        self._readers[id] += 1
        try:
            while not range_.ended:
                yield await self._run(range_.take)
        finally:
            range_.close()
            self._readers[id] -= 1
            if not self._readers[id]:
                del self._readers[id]
                self._tidy()

    # -- removing ------------------------------------------------------------------------------------------------------

    async def delete(self, id: str) -> None:
        """Removes an object, now or later."""
        self._leave(check_id(id))
        await self._run(self._remove, self._removable(id))

    def _leave(self, *ids: str) -> None:
        with self._mutex:
            self._left.update(ids)

    def _removable(self, first: str = "") -> list[str]:
        """What may go now, taken out of what is left: nobody else shall try it at the same time."""
        with self._mutex:
            free = self._left.difference(self._readers)
            chosen = sorted(free, key=first.__ne__)[:_AT_ONCE]
            self._left.difference_update(chosen)
        return chosen

    def _tidy(self) -> None:
        """Removes what was left, beside what else is done."""
        if self._left and (chosen := self._removable()):
            self._threads.submit(self._remove, chosen)

    def _remove(self, ids: list[str]) -> None:
        left = list(ids)
        try:
            with self._deletions.sharing() as may:
                while may and left:
                    self._bucket.delete(left[0])
                    del left[0]
        except Unavailable:
            pass  # it was logged, and is tried again
        finally:
            self._leave(*left)

    async def sweep(self, alive: Callable[[str], bool]) -> int:
        """Removes uploads that were not completed, and objects that nobody names."""
        return await self._run(self._sweep, alive)

    def _sweep(self, alive: Callable[[str], bool]) -> int:
        with self._deletions.sharing() as may:
            if not may:
                return 0
            removed = 0
            for id, upload in list(self._bucket.uploads()):
                self._bucket.abort(id, upload)
                removed += 1
            for id in [id for id, _ in self._bucket.sizes() if not alive(id)]:
                self._bucket.delete(id)
                removed += 1
            return removed

    def close(self) -> None:
        """Ends the threads, after what they were given."""
        self._threads.shutdown()
        self._deletions.close()


class S3Copies:
    """Copies, of the objects in a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def sizes(self) -> dict[str, int]:
        """Bytes by id."""
        return dict(self._bucket.sizes())

    @contextlib.contextmanager
    def reading(self, id: str) -> Iterator[BinaryIO]:
        """The object, taken up where it stood when a connection breaks."""
        with io.BufferedReader(_Raw(self._bucket, check_id(id)), 1024 * 1024) as file:
            yield file

    def bring(self, id: str, sealed: BinaryIO, size: int) -> None:
        """Makes the object."""
        self._bucket.bring(check_id(id), sealed, size)


async def _one_done(sending: set[asyncio.Future[None]]) -> set[asyncio.Future[None]]:
    """Waits for one of several calls, raises what went wrong, and gives those that are still on their way."""
    done, rest = await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
    for one in done:
        one.result()
    return rest


def _pause(failures: int, error: Exception) -> None:
    """Between two tries to take a body up where it broke off; raises Unavailable when it was tried often enough."""
    if failures == _RESUMES:
        raise Unavailable(f"the store of objects broke off: {type(error).__name__}") from None
    time.sleep(secrets.randbelow(100) / 1000 * 2**failures)


class _Upload:
    """An object that comes to be. `seal` and `finish` are called one after another, `send` by several threads."""

    def __init__(self, bucket: Bucket, cipher: Cipher, digest: str) -> None:
        self._bucket, self._cipher = bucket, cipher
        self._digest = hashlib.new(digest, usedforsecurity=False) if digest else None
        self._number = self._size = 0
        self._tags: dict[int, str] = {}
        self.artifact = cipher.id
        self.id: str | None = None

    def begin(self) -> None:
        self.id = self._bucket.begin(self.artifact)

    def seal(self, plain: bytes, last: bool) -> tuple[int, bytes]:
        """A part's number and what it holds."""
        if self._digest is not None:
            self._digest.update(plain)
        view = memoryview(plain)
        count = max(1, -(-len(view) // CHUNK))
        sealed = b"".join(
            self._cipher.seal(self._number + at, view[at * CHUNK : (at + 1) * CHUNK], last and at == count - 1)
            for at in range(count)
        )
        part = self._number // _CHUNKS + 1
        self._number += count
        self._size += len(sealed)
        return part, sealed

    def send(self, part: int, sealed: bytes) -> None:
        assert self.id is not None
        self._tags[part] = self._bucket.part(self.artifact, self.id, part, sealed)

    def finish(self, rest: bytes) -> None:
        """Sends what is left, and makes the object."""
        part, sealed = self.seal(rest, True)
        if self.id is None:
            self._bucket.put(self.artifact, sealed)
        else:
            self.send(part, sealed)
            tags = [self._tags[number] for number in sorted(self._tags)]
            self._bucket.complete(self.artifact, self.id, tags, self._size)

    def forget(self) -> bool:
        """Removes whatever came to be; False if that has to be done later."""
        try:
            if self.id is not None:
                self._bucket.abort(self.artifact, self.id)
            self._bucket.delete(self.artifact)
        except Unavailable:
            return False
        return True

    def digest(self) -> str:
        return self._digest.hexdigest() if self._digest is not None else ""


class _Range:
    """A range of an object that is read. Used by one thread at a time."""

    def __init__(self, bucket: Bucket, cipher: Cipher, start: int, end: int | None) -> None:
        self._bucket, self._cipher, self._start, self._end = bucket, cipher, start, end
        self._body: Any = None
        self._extent: Extent | None = None
        self._stored = 0
        self._next = start // CHUNK

    @property
    def ended(self) -> bool:
        """Whether everything was taken."""
        return self._extent is not None and self._next > self._extent.numbers[-1]

    def _open(self) -> Extent:
        id = self._cipher.id
        end = None if self._end is None else max(self._next, (self._end - 1) // CHUNK) * SEALED + SEALED
        try:
            self._body, stored = self._bucket.get(id, self._next * SEALED, end)
        except IndexError:
            if self._extent is not None:
                raise Damaged(f"artifact {id} was cut short while it was read") from None
            # Past the end: the last chunk says whether that is so.
            stored = self._bucket.size(id)
            if not stored:
                raise Damaged(f"artifact {id} is empty") from None
            self._next = Extent(stored, self._start, self._end).numbers[0]
            self._body, stored = self._bucket.get(id, self._next * SEALED)
        if self._extent is None:
            self._stored = stored
            extent = Extent(stored, self._start, self._end)
            if extent.numbers[0] != self._next:
                raise Damaged(f"artifact {id} has another size than it had a moment ago")
            self._extent = extent
        elif stored != self._stored:
            raise Damaged(f"artifact {id} has another size than it had a moment ago")
        return self._extent

    def take(self) -> bytes:
        """The wanted bytes of the next chunks. Raises Damaged, FileNotFoundError, Unavailable."""
        found: list[bytes] = []
        failures = 0
        while not self.ended and len(found) < _AT_ONCE:
            try:
                extent = self._extent
                if self._body is None or extent is None:
                    extent = self._open()
                sealed = self._chunk()
            except (Unavailable, FileNotFoundError):
                raise
            except READING as error:
                self.close()
                failures += 1
                _pause(failures, error)
                continue
            found.append(extent.wanted(self._cipher, self._next, sealed))
            self._next += 1
            failures = 0
        if self.ended:
            self.close()
        return found[0] if len(found) == 1 else b"".join(found)

    def _chunk(self) -> bytes:
        wanted = min(SEALED, self._stored - self._next * SEALED)
        sealed = bytearray()
        while len(sealed) < wanted:
            piece = self._body.read(wanted - len(sealed))
            if not piece:
                raise ConnectionError("the body ended before its end")
            sealed += piece
        return bytes(sealed)

    def close(self) -> None:
        """Lets go of the connection."""
        if self._body is not None:
            self._body.close()
            self._body = None


class _Raw(io.RawIOBase):
    """An object's sealed bytes."""

    def __init__(self, bucket: Bucket, id: str) -> None:
        super().__init__()
        self._bucket, self._id = bucket, id
        self._body: Any = None
        self._size = bucket.size(id)
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        failures = 0
        while self._at < self._size:
            try:
                if self._body is None:
                    self._body, _ = self._bucket.get(self._id, self._at)
                piece = self._body.read(min(len(buffer), self._size - self._at))
                if not piece:
                    raise ConnectionError("the body ended before its end")
            except (Unavailable, FileNotFoundError):
                raise
            except READING as error:
                self._drop()
                failures += 1
                _pause(failures, error)
                continue
            buffer[: len(piece)] = piece
            self._at += len(piece)
            return len(piece)
        return 0

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def close(self) -> None:
        self._drop()
        super().close()

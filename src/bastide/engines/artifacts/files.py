"""Local files: each under a data key of its own, in authenticated chunks, content first and name last.

A file is a sequence of chunks of 256 KiB, each AES-256-GCM with its number as nonce (the key is used for this file only)
and, as additional data, the file's id, the chunk's number and whether it is the last: a flipped bit, a chunk in another
place, a file cut short or exchanged is an error and never data. A range read opens only the chunks it needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import struct
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CHUNK = 256 * 1024
_TAG = 16
SMALL = 64 * 1024
"""What is read or written at once on the event loop's thread."""

_FANOUT = 256


class Damaged(Exception):  # noqa: N818
    """What lies on the disk is not what was written."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file that is on the disk. size: bytes of plaintext. md5: hex, of the plaintext."""

    id: str
    size: int
    md5: str


def _nonce(number: int) -> bytes:
    return struct.pack(">IQ", 0, number)


def _aad(id: str, number: int, last: bool) -> bytes:
    return struct.pack(">16sQ?", bytes.fromhex(id), number, last)


class Artifacts:
    """Files below `root`, named by random ids; never by what users call them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._drafts = root / "drafts"
        self._drafts.mkdir(mode=0o700, exist_ok=True)
        for number in range(_FANOUT):
            (root / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
        self._folders = [os.open(root / f"{number:02x}", os.O_RDONLY | os.O_DIRECTORY) for number in range(_FANOUT)]
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="artifacts")

    def _path(self, id: str) -> Path:
        if len(id) != 32 or not all(char in "0123456789abcdef" for char in id):
            raise ValueError("not an artifact's id")
        return self._root / id[:2] / id

    def _finish(self, handle: int, draft: Path, id: str) -> None:
        os.fsync(handle)
        draft.rename(self._path(id))
        os.fsync(self._folders[int(id[:2], 16)])

    async def write(self, chunks: AsyncIterator[bytes], data_key: bytes) -> Written:
        """Writes a stream under `data_key` (32 bytes, for this file only); on the disk when this returns.

        Whatever ends it before, nothing is left.
        """
        loop = asyncio.get_running_loop()
        id = secrets.token_hex(16)
        cipher = AESGCM(data_key)
        digest = hashlib.md5(usedforsecurity=False)
        draft = self._drafts / id
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            buffer = bytearray()
            number = size = 0

            def put(batch: list[tuple[int, bytes, bool]]) -> None:
                for index, plain, last in batch:
                    digest.update(plain)
                    _write_all(handle, cipher.encrypt(_nonce(index), plain, _aad(id, index, last)))

            async for piece in chunks:
                buffer += piece
                size += len(piece)
                # A chunk is written only once more is known to follow: the last one says that it is the last.
                if len(buffer) > 4 * CHUNK:
                    batch = []
                    whole = (len(buffer) - 1) // CHUNK
                    for index in range(whole):
                        batch.append((number, bytes(buffer[index * CHUNK : (index + 1) * CHUNK]), False))
                        number += 1
                    del buffer[: whole * CHUNK]
                    await loop.run_in_executor(self._threads, put, batch)
            rest: list[tuple[int, bytes, bool]] = []
            while True:
                plain = bytes(buffer[:CHUNK])
                del buffer[:CHUNK]
                rest.append((number, plain, not buffer))
                number += 1
                if not buffer:
                    break

            def end() -> None:
                put(rest)
                self._finish(handle, draft, id)

            await loop.run_in_executor(self._threads, end)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
            with contextlib.suppress(FileNotFoundError):
                self._path(id).unlink()
            raise
        finally:
            os.close(handle)
        return Written(id, size, digest.hexdigest())

    async def write_small(self, data: bytes, data_key: bytes) -> Written:
        """Writes at most `SMALL` bytes; on the disk when this returns."""
        id = secrets.token_hex(16)
        sealed = AESGCM(data_key).encrypt(_nonce(0), data, _aad(id, 0, True))
        path = self._path(id)

        def put() -> None:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                _write_all(handle, sealed)
                os.fsync(handle)
            finally:
                os.close(handle)
            os.fsync(self._folders[int(id[:2], 16)])

        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, put)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Written(id, len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())

    async def read(self, id: str, data_key: bytes, start: int = 0, end: int | None = None) -> bytes:
        """Bytes `start` to `end` (exclusive; None: all); raises Damaged, and FileNotFoundError."""
        return b"".join([piece async for piece in self.open(id, data_key, start, end)])

    async def open(self, id: str, data_key: bytes, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The same as a stream; the file stays readable while it is read, also when it is deleted meanwhile."""
        handle = os.open(self._path(id), os.O_RDONLY | os.O_CLOEXEC)
        try:
            stored = os.fstat(handle).st_size
            count = max(1, -(-stored // (CHUNK + _TAG)))
            size = stored - count * _TAG
            stop = size if end is None else min(end, size)
            cipher = AESGCM(data_key)
            first = start // CHUNK
            last = max(first, (stop - 1) // CHUNK if stop > 0 else 0)

            def take(number: int) -> bytes:
                sealed = os.pread(handle, CHUNK + _TAG, number * (CHUNK + _TAG))
                try:
                    plain = cipher.decrypt(_nonce(number), sealed, _aad(id, number, number == count - 1))
                except InvalidTag:
                    raise Damaged(f"artifact {id} is damaged in chunk {number}") from None
                below = start - number * CHUNK if number == first else 0
                above = stop - number * CHUNK if number == last else CHUNK
                return plain[max(0, below) : max(0, above)]

            if stored <= SMALL + _TAG:
                yield take(0)
                return
            loop = asyncio.get_running_loop()

            def several(numbers: range) -> bytes:
                return b"".join([take(one) for one in numbers])

            for number in range(first, min(last, count - 1) + 1, 4):
                yield await loop.run_in_executor(
                    self._threads, several, range(number, min(number + 4, last + 1, count))
                )
        finally:
            os.close(handle)

    async def delete(self, id: str) -> None:
        """Removes a file; one that is gone is fine."""
        with contextlib.suppress(FileNotFoundError):
            self._path(id).unlink()

    def sweep(self, alive: Callable[[str], bool]) -> int:
        """Removes drafts, and files that nobody names: what a killed run left. Returns how many."""
        removed = 0
        for draft in self._drafts.iterdir():
            draft.unlink()
            removed += 1
        for number in range(_FANOUT):
            for path in (self._root / f"{number:02x}").iterdir():
                if not alive(path.name):
                    path.unlink()
                    removed += 1
        return removed


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]

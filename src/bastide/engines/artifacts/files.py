"""Local files: each under a key of its own, in authenticated chunks, content first and name last.

A file is a sequence of chunks of 256 KiB, each AES-256-GCM with its number as nonce and, as additional data, the file's
id, the chunk's number and whether it is the last: a flipped bit, a chunk in another place, a file cut short or exchanged
is an error and never data. A range read opens only the chunks it needs. The key is derived from the data key and the
random id, so that even a data key given twice never meets the same nonce twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import hmac
import os
import secrets
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bastide.engines.artifacts.batches import Batches
from bastide.store.directory import sync_folder

CHUNK = 256 * 1024
SMALL = 64 * 1024
"""What is encrypted, or read and decrypted, at once on the event loop's thread."""

HOLD = ".lock"
"""Suffix of the file beside the folder whose lock says whether files may go away."""

_TAG = 16
_SEALED = CHUNK + _TAG
_FANOUT = 256
_BATCH = 4
_IN_A_ROW = 512
_SYNC_EVERY = 8 * 1024 * 1024
"""A long file goes to the disk while the rest of it is still on its way."""

_T = TypeVar("_T")


class Damaged(Exception):  # noqa: N818
    """What lies on the disk is not what was written."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file that is on the disk. size: bytes of plaintext. digest: hex, of the plaintext, as it was asked for; empty where
    none was."""

    id: str
    size: int
    digest: str


def _nonce(number: int) -> bytes:
    return struct.pack(">IQ", 0, number)


def _digest(name: str, data: bytes) -> str:
    return hashlib.new(name, data, usedforsecurity=False).hexdigest() if name else ""


def _aad(id: str, number: int, last: bool) -> bytes:
    return struct.pack(">16sQ?", bytes.fromhex(id), number, last)


def _cipher(data_key: bytes, id: str) -> AESGCM:
    if len(data_key) != 32:
        raise ValueError("a data key has 32 bytes")
    return AESGCM(hmac.digest(data_key, b"bastide/artifact/" + bytes.fromhex(id), "sha256"))


async def _settled(work: asyncio.Future[_T]) -> _T:
    """What a thread does, to its end: also when the caller is cancelled meanwhile, who is told afterwards.

    A descriptor must not be closed under a thread that still writes to it: its number may be another file's by then.
    """
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((work,))
        if not work.cancelled():
            work.exception()
        raise


class Artifacts:
    """Files below `root`, named by random ids; never by what users call them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._drafts = root / "drafts"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("drafts", *(f"{number:02x}" for number in range(_FANOUT))):
            (root / name).mkdir(mode=0o700, exist_ok=True)
        sync_folder(root)
        sync_folder(root.parent)
        self._lock = os.open(root.with_name(root.name + HOLD), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._mutex = threading.Lock()
        self._deleters = 0
        self._kept: set[Path] = set()
        """Files to be removed once nobody holds deletions back."""
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="artifacts")
        self._batches = Batches(_create_all, self._threads)
        self._folder = ""
        self._given = 0

    def _path(self, id: str) -> Path:
        if len(id) != 32 or not all(char in "0123456789abcdef" for char in id):
            raise ValueError("not an artifact's id")
        return self._root / id[:2] / id

    def _new_id(self) -> str:
        # Random, but for a while in one folder: a commit of the file system's journal that holds one folder costs half of
        # one that holds many.
        if self._given % _IN_A_ROW == 0:
            self._folder = secrets.token_hex(1)
        self._given += 1
        return self._folder + secrets.token_hex(15)

    async def write(self, chunks: AsyncIterator[bytes], data_key: bytes, *, digest: str = "md5") -> Written:
        """Writes a stream under `data_key` (32 bytes); on the disk when this returns.

        digest: the algorithm of `hashlib` that `Written` tells about, none if empty: MD5 costs more than all the rest.
        Whatever ends it before, nothing is left: an error of the stream's, of the disk's (OSError), a cancellation.
        """
        id = self._new_id()
        draft = _Draft(self._drafts / id, self._path(id), _cipher(data_key, id), id, digest)
        loop = asyncio.get_running_loop()
        # One batch is encrypted and written while the next one arrives.
        pending: asyncio.Future[None] | None = None
        syncing: asyncio.Future[None] | None = None
        named = False
        try:
            pieces: list[bytes] = []
            waiting = size = unsynced = 0
            async for piece in chunks:
                pieces.append(piece)
                waiting += len(piece)
                size += len(piece)
                # A chunk is written only once more is known to follow: the last one says that it is the last.
                if waiting > _BATCH * CHUNK:
                    if pending is not None:
                        await _settled(pending)
                    pending = loop.run_in_executor(self._threads, draft.put, pieces, False)
                    unsynced += waiting
                    pieces, waiting = [], 0
                    if unsynced > _SYNC_EVERY and (syncing is None or syncing.done()):
                        if syncing is not None:
                            syncing.result()
                        syncing = loop.run_in_executor(self._threads, os.fdatasync, draft.handle)
                        unsynced = 0
            if pending is not None:
                await _settled(pending)
            if syncing is not None:
                await _settled(syncing)
            pending = loop.run_in_executor(self._threads, draft.put, pieces, True)
            await _settled(pending)
            named = True
        finally:
            try:
                for work in (pending, syncing):
                    if work is not None and not work.done():
                        await asyncio.gather(_settled(work), return_exceptions=True)
            finally:
                draft.close(kept=named)
        return Written(id, size, draft.digest())

    async def write_small(self, data: bytes, data_key: bytes, *, digest: str = "md5") -> Written:
        """Writes at most `SMALL` bytes; on the disk when this returns. What is written together is synced together."""
        if len(data) > SMALL:
            raise ValueError(f"more than {SMALL} bytes are a stream")
        id = self._new_id()
        path = self._path(id)
        sealed = _cipher(data_key, id).encrypt(_nonce(0), data, _aad(id, 0, True))
        try:
            await _settled(self._batches.add((path, sealed)))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Written(id, len(data), _digest(digest, data))

    def seal(self, data: bytes, data_key: bytes, *, digest: str = "md5") -> tuple[Written, bytes]:
        """What a small file would hold, for keeping it elsewhere: the store, with the row that names it."""
        if len(data) > SMALL:
            raise ValueError(f"more than {SMALL} bytes are a stream")
        # In the order of time, so that what is kept together is found together.
        id = f"{time.time_ns() // 1000:016x}{secrets.token_hex(8)}"
        sealed = _cipher(data_key, id).encrypt(_nonce(0), data, _aad(id, 0, True))
        return Written(id, len(data), _digest(digest, data)), sealed

    def unseal(self, id: str, sealed: bytes, data_key: bytes, start: int = 0, end: int | None = None) -> bytes:
        """Bytes `start` to `end` of what `seal` made; raises Damaged."""
        try:
            plain = _cipher(data_key, id).decrypt(_nonce(0), sealed, _aad(id, 0, True))
        except InvalidTag:
            raise Damaged(f"artifact {id} is damaged") from None
        return plain[start:end]

    async def read(self, id: str, data_key: bytes, start: int = 0, end: int | None = None) -> bytes:
        """Bytes `start` to `end` (exclusive; None: all); raises Damaged, and FileNotFoundError."""
        file = _Stored(self._path(id), _cipher(data_key, id), id, start, end)
        try:
            if file.small:
                return file.take(file.numbers)
            work = asyncio.get_running_loop().run_in_executor(self._threads, file.take, file.numbers)
            return await _settled(work)
        finally:
            file.close()

    async def open(self, id: str, data_key: bytes, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The same as a stream; the file stays readable while it is read, also when it is deleted meanwhile."""
        file = _Stored(self._path(id), _cipher(data_key, id), id, start, end)
        try:
            if file.small:
                yield file.take(file.numbers)
                return
            loop = asyncio.get_running_loop()
            for numbers in file.several():
                yield await _settled(loop.run_in_executor(self._threads, file.take, numbers))
        finally:
            file.close()

    async def delete(self, id: str) -> None:
        """Removes a file; one that is gone is fine."""
        path = self._path(id)
        # Freeing a file's blocks waits for the disk.
        await asyncio.get_running_loop().run_in_executor(self._threads, self._remove, path)

    def _remove(self, path: Path) -> None:
        with self._deleting() as may:
            if not may:
                self._kept.add(path)
                return
            path.unlink(missing_ok=True)
            with contextlib.suppress(KeyError):  # another thread may have taken the last one
                while self._kept:
                    self._kept.pop().unlink(missing_ok=True)

    @contextlib.contextmanager
    def _deleting(self) -> Iterator[bool]:
        """Shares the lock that `deletions_held` takes alone; False while somebody has it.

        The descriptor is one for all threads, so the first to come takes the lock and the last to go lets go of it.
        """
        with self._mutex:
            may = self._deleters > 0
            if not may:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    may = True
            self._deleters += may
        try:
            yield may
        finally:
            with self._mutex:
                self._deleters -= may
                if may and self._deleters == 0:
                    fcntl.flock(self._lock, fcntl.LOCK_UN)

    def sweep(self, alive: Callable[[str], bool]) -> int:
        """Removes drafts, and files that nobody names: what a killed run left. Returns how many.

        For the start, before anything is written: it cannot tell a draft that was left from one that grows. While
        deletions are held back it leaves everything to the next start.
        """
        with self._deleting() as may:
            return self._sweep(alive) if may else 0

    def _sweep(self, alive: Callable[[str], bool]) -> int:
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

    def close(self) -> None:
        """Ends the threads, after what they were given."""
        self._threads.shutdown()
        os.close(self._lock)


@contextlib.contextmanager
def deletions_held(root: Path) -> Iterator[None]:
    """While this lasts no file below `root` goes away, whatever process serves it; what is deleted meanwhile goes
    afterwards. Ends with the process that holds it, however that ends."""
    lock = os.open(root.with_name(root.name + HOLD), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


class _Draft:
    """A file that grows under another name until it is whole. Used by one thread at a time."""

    def __init__(self, path: Path, final: Path, cipher: AESGCM, id: str, digest: str) -> None:
        self._path, self._final, self._cipher, self._id = path, final, cipher, id
        self._digest = hashlib.new(digest, usedforsecurity=False) if digest else None
        self._rest = b""
        self._number = 0
        # Encrypted in place of the last batch: new memory for each chunk costs more than encrypting it.
        self._sealed = memoryview(bytearray(_BATCH * _SEALED))
        self._filled = 0
        self.handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def put(self, pieces: list[bytes], last: bool) -> None:
        """Writes the whole chunks there are; at the end the rest too, and then gives the file its name."""
        plain = memoryview(b"".join((self._rest, *pieces)))
        whole = max(0, len(plain) - 1) // CHUNK
        if self._digest is not None:
            self._digest.update(plain if last else plain[: whole * CHUNK])
        for number in range(whole):
            self._chunk(plain[number * CHUNK : (number + 1) * CHUNK], False)
        self._rest = bytes(plain[whole * CHUNK :])
        if last:
            self._chunk(memoryview(self._rest), True)
        self._flush()
        if last:
            os.fsync(self.handle)
            self._path.rename(self._final)
            sync_folder(self._final.parent)

    def _chunk(self, plain: memoryview, last: bool) -> None:
        end = self._filled + len(plain) + _TAG
        room = self._sealed[self._filled : end]
        self._cipher.encrypt_into(_nonce(self._number), plain, _aad(self._id, self._number, last), room)
        self._number += 1
        self._filled = end
        if end > len(self._sealed) - _SEALED:
            self._flush()

    def _flush(self) -> None:
        _write_all(self.handle, self._sealed[: self._filled])
        self._filled = 0

    def digest(self) -> str:
        """Hex, of what was written; empty if none was asked for."""
        return self._digest.hexdigest() if self._digest is not None else ""

    def close(self, *, kept: bool) -> None:
        """Lets go of the file; one that is not kept is removed under either name."""
        os.close(self.handle)
        if not kept:
            self._path.unlink(missing_ok=True)
            self._final.unlink(missing_ok=True)


class _Stored:
    """A range of a file that is read."""

    def __init__(self, path: Path, cipher: AESGCM, id: str, start: int, end: int | None) -> None:
        if start < 0 or (end is not None and end < 0):
            raise ValueError("a range counts from the beginning")
        self._cipher, self._id = cipher, id
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        stored = os.fstat(self._handle).st_size
        self._count = max(1, -(-stored // _SEALED))
        size = max(0, stored - self._count * _TAG)
        self._start = min(start, size)
        self._end = max(self._start, size if end is None else min(end, size))
        first = min(self._start // CHUNK, self._count - 1)
        # Whoever asks for nothing still learns whether the chunk that would hold it is sound.
        self.numbers = range(first, max(first, (self._end - 1) // CHUNK) + 1)
        self.small = stored <= SMALL + _TAG

    def several(self) -> Iterator[range]:
        """The numbers, a few at a time."""
        for at in range(0, len(self.numbers), _BATCH):
            yield self.numbers[at : at + _BATCH]

    def take(self, numbers: range) -> bytes:
        """The wanted bytes of these chunks; raises Damaged."""
        found = []
        for number in numbers:
            sealed = os.pread(self._handle, _SEALED, number * _SEALED)
            try:
                plain = self._cipher.decrypt(_nonce(number), sealed, _aad(self._id, number, number == self._count - 1))
            except InvalidTag:
                raise Damaged(f"artifact {self._id} is damaged in chunk {number}") from None
            base = number * CHUNK
            if self._start > base or self._end < base + len(plain):
                plain = plain[max(0, self._start - base) : max(0, self._end - base)]
            found.append(plain)
        return found[0] if len(found) == 1 else b"".join(found)

    def close(self) -> None:
        os.close(self._handle)


def _create_all(files: list[tuple[Path, bytes]]) -> list[OSError | None]:
    """Creates files and brings them to the disk: all are written before the first is synced, so that one commit of the
    file system's journal takes them all."""
    ended: list[OSError | None] = [None] * len(files)
    handles: list[int] = []
    try:
        for index, (path, data) in enumerate(files):
            try:
                handles.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                _write_all(handles[index], data)
            except OSError as error:
                ended[index] = error
                if len(handles) == index:
                    handles.append(-1)
        for index, handle in enumerate(handles):
            if ended[index] is None:
                try:
                    os.fsync(handle)
                except OSError as error:
                    ended[index] = error
    finally:
        for handle in handles:
            if handle >= 0:
                os.close(handle)
    folders: dict[Path, OSError | None] = {}
    for index, (path, _) in enumerate(files):
        folder = path.parent
        if ended[index] is None:
            if folder not in folders:
                try:
                    sync_folder(folder)
                    folders[folder] = None
                except OSError as error:
                    folders[folder] = error
            ended[index] = folders[folder]
    return ended


def _write_all(handle: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]

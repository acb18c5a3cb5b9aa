"""Local files: each grows under another name, is synced, and then gets its own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from bastide.engines.artifacts.deletions import Deletions
from bastide.engines.artifacts.drivers.batches import Batches
from bastide.engines.artifacts.drivers.threads import settled
from bastide.engines.artifacts.sealing import (
    CHUNK,
    SEALED,
    SMALL,
    TAG,
    Cipher,
    Extent,
    Written,
    check_id,
    check_range,
    check_small,
    digest_of,
    legal_id,
)
from bastide.store.directory import sync_folder

_FANOUT = 256
_BATCH = 4
_IN_A_ROW = 512
_SYNC_EVERY = 8 * 1024 * 1024
"""A long file goes to the disk while the rest of it is still on its way."""


class LocalFiles:
    """Artifacts as files below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._drafts = root / "drafts"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("drafts", *(f"{number:02x}" for number in range(_FANOUT))):
            (root / name).mkdir(mode=0o700, exist_ok=True)
        sync_folder(root)
        sync_folder(root.parent)
        self._deletions = Deletions(root)
        self._kept: set[Path] = set()
        """Files to be removed once nobody holds deletions back."""
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="artifacts")
        self._batches = Batches(_create_all, self._threads)
        self._folder = ""
        self._given = 0

    def _path(self, id: str) -> Path:
        return self._root / check_id(id)[:2] / id

    def _new_id(self) -> str:
        # Random, but for a while in one folder: a commit of the file system's journal that holds one folder costs half of
        # one that holds many.
        if self._given % _IN_A_ROW == 0:
            self._folder = secrets.token_hex(1)
        self._given += 1
        return self._folder + secrets.token_hex(15)

    async def write(self, chunks: AsyncIterator[bytes], data_key: bytes, *, digest: str = "md5") -> Written:
        """Writes a stream; on the disk when this returns, and nothing is left if it does not."""
        id = self._new_id()
        draft = _Draft(self._drafts / id, self._path(id), Cipher(data_key, id), digest)
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
                        await settled(pending)
                    pending = loop.run_in_executor(self._threads, draft.put, pieces, False)
                    unsynced += waiting
                    pieces, waiting = [], 0
                    if unsynced > _SYNC_EVERY and (syncing is None or syncing.done()):
                        if syncing is not None:
                            syncing.result()
                        syncing = loop.run_in_executor(self._threads, os.fdatasync, draft.handle)
                        unsynced = 0
            if pending is not None:
                await settled(pending)
            if syncing is not None:
                await settled(syncing)
            pending = loop.run_in_executor(self._threads, draft.put, pieces, True)
            await settled(pending)
            named = True
        finally:
            try:
                for work in (pending, syncing):
                    if work is not None and not work.done():
                        await asyncio.gather(settled(work), return_exceptions=True)
            finally:
                draft.close(kept=named)
        return Written(id, size, draft.digest())

    async def write_small(self, data: bytes, data_key: bytes, *, digest: str = "md5") -> Written:
        """Writes at most `SMALL` bytes; on the disk when this returns. What is written together is synced together."""
        check_small(data)
        id = self._new_id()
        path = self._path(id)
        sealed = Cipher(data_key, id).seal(0, data, True)
        try:
            await settled(self._batches.add((path, sealed)))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Written(id, len(data), digest_of(digest, data))

    async def read(self, id: str, data_key: bytes, start: int = 0, end: int | None = None) -> bytes:
        """Bytes `start` to `end`; raises Damaged, FileNotFoundError, OSError."""
        file = _Stored(self._path(id), Cipher(data_key, id), start, end)
        try:
            if file.small:
                return file.take(file.extent.numbers)
            work = asyncio.get_running_loop().run_in_executor(self._threads, file.take, file.extent.numbers)
            return await settled(work)
        finally:
            file.close()

    async def open(
        self, id: str, data_key: bytes, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The same as a stream; the file stays readable while it is read, also when it is deleted meanwhile."""
        file = _Stored(self._path(id), Cipher(data_key, id), start, end)
        try:
            if file.small:
                yield file.take(file.extent.numbers)
                return
            loop = asyncio.get_running_loop()
            for numbers in file.extent.several(_BATCH):
                yield await settled(loop.run_in_executor(self._threads, file.take, numbers))
        finally:
            file.close()

    async def delete(self, id: str) -> None:
        """Removes a file; one that is gone is fine."""
        path = self._path(id)
        # Freeing a file's blocks waits for the disk.
        await asyncio.get_running_loop().run_in_executor(self._threads, self._remove, path)

    def _remove(self, path: Path) -> None:
        with self._deletions.sharing() as may:
            if not may:
                self._kept.add(path)
                return
            path.unlink(missing_ok=True)
            with contextlib.suppress(KeyError):  # another thread may have taken the last one
                while self._kept:
                    self._kept.pop().unlink(missing_ok=True)

    async def sweep(self, alive: Callable[[str], bool]) -> int:
        """Removes drafts, and files that nobody names."""
        with self._deletions.sharing() as may:
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
        self._deletions.close()


class LocalCopies:
    """Copies, of the files below `root`; a folder that is not there yet is empty."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def sizes(self) -> dict[str, int]:
        """Bytes by id."""
        return {path.name: path.stat().st_size for path in self._root.glob("[0-9a-f][0-9a-f]/*") if legal_id(path.name)}

    @contextlib.contextmanager
    def reading(self, id: str) -> Iterator[BinaryIO]:
        """The file."""
        with (self._root / check_id(id)[:2] / id).open("rb") as file:
            yield file

    def bring(self, id: str, sealed: BinaryIO, size: int) -> None:
        """Writes the file; its name is on the disk once the folders are synced, which is the caller's."""
        path = self._root / check_id(id)[:2] / id
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as target:
            shutil.copyfileobj(sealed, target, 1024 * 1024)
            target.flush()
            os.fsync(target.fileno())


class _Draft:
    """A file that grows under another name until it is whole. Used by one thread at a time."""

    def __init__(self, path: Path, final: Path, cipher: Cipher, digest: str) -> None:
        self._path, self._final, self._cipher = path, final, cipher
        self._digest = hashlib.new(digest, usedforsecurity=False) if digest else None
        self._rest = b""
        self._number = 0
        # Encrypted in place of the last batch: new memory for each chunk costs more than encrypting it.
        self._sealed = memoryview(bytearray(_BATCH * SEALED))
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
        end = self._filled + len(plain) + TAG
        self._cipher.seal_into(self._number, plain, last, self._sealed[self._filled : end])
        self._number += 1
        self._filled = end
        if end > len(self._sealed) - SEALED:
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

    def __init__(self, path: Path, cipher: Cipher, start: int, end: int | None) -> None:
        check_range(start, end)
        self._cipher = cipher
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        stored = os.fstat(self._handle).st_size
        self.extent = Extent(stored, start, end)
        self.small = stored <= SMALL + TAG

    def take(self, numbers: range) -> bytes:
        """The wanted bytes of these chunks; raises Damaged."""
        found = []
        for number in numbers:
            sealed = os.pread(self._handle, SEALED, number * SEALED)
            found.append(self.extent.wanted(self._cipher, number, sealed))
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

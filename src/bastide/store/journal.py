"""Audit entries of allowed reads: written before the answer, synced within 100 ms, searchable soon after.

A read changes nothing, so waiting for a commit would cost more than the read. Its entry is appended to a file with one
write: from then on the operating system holds it, and killing the program loses nothing. A task syncs the file and
moves entries into the store in batches. After a crash the whole file is moved again: an entry's id keeps it from being
there twice, and none is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import orjson

from bastide.store.directory import sync_folder
from bastide.store.port import Event, Store, Transaction

_log = logging.getLogger("bastide.store")
_HEAD = struct.Struct("<II")
_ROTATE = 64 * 1024 * 1024
_BATCH = 2000
SYNC_SECONDS = 0.1


def _frame(event: Event) -> bytes:
    head = orjson.dumps(
        (
            event.account, event.at, event.id, event.name, event.source, event.user, event.access_key, event.read_only,
            event.category, event.error, event.request_id, event.resources,
        )
    )  # fmt: skip
    payload = head + b"\n" + event.body
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def _events(data: bytes, at: int = 0) -> Iterable[tuple[Event, int]]:
    """The entries of a file's bytes from a place on, and where each ends, up to the first that is not whole."""
    while at + _HEAD.size <= len(data):
        size, crc = _HEAD.unpack_from(data, at)
        payload = data[at + _HEAD.size : at + _HEAD.size + size]
        # A loss of power leaves zeros where a file had grown and its bytes were not there yet; their checksum is right.
        if size == 0 or len(payload) != size or zlib.crc32(payload) != crc:
            return
        head, _, body = payload.partition(b"\n")
        fields = orjson.loads(head)
        account, when, id_, name, source, user, key, read_only, category, error, request_id, resources = fields
        at += _HEAD.size + size
        yield (
            Event(
                account, when, id_, name, source, user, key, read_only, category, error, request_id, tuple(resources), body
            ),
            at,
        )  # fmt: skip


def read(data: bytes) -> tuple[list[Event], bool]:
    """The entries of a file's bytes, and whether some between them are damaged.

    What is not whole at the end was being written, and zeros are what a loss of power left; neither is damage.
    """
    found: list[Event] = []
    at, damaged = 0, False
    while True:
        for event, end in _events(data, at):
            found.append(event)
            at = end
        following = next((place for place in _heads(data, at) if any(_events(data, place))), None)
        if following is None:
            return found, damaged
        damaged = damaged or any(data[at:following])
        at = following


def _heads(data: bytes, at: int) -> Iterable[int]:
    """Where entries may begin behind a place: the payload of each begins alike."""
    place = data.find(b'["', at + _HEAD.size + 1)
    while place >= 0:
        yield place - _HEAD.size
        place = data.find(b'["', place + 1)


class Journal:
    """An append-only file beside the store. `append` is called on the event loop's thread."""

    def __init__(self, folder: Path, store: Store) -> None:
        """Opens a new segment below `folder`; `recover` takes up what an earlier run left."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(folder.parent)
        self._folder = folder
        self._store = store
        numbers = [int(path.stem) for path in folder.glob("*.journal") if path.stem.isdigit()]
        self._number = max(numbers, default=0)
        self._old = sorted(numbers)
        self._pending: list[Event] = []
        self._file = -1
        self._size = 0
        self._torn = False
        """Whether something that was not written whole follows the last entry."""
        self._full: list[tuple[int, int]] = []
        """Segments that nothing is appended to any more, until their entries are in the store: descriptor and number."""
        self._task: asyncio.Task[None] | None = None
        self._moving = asyncio.Lock()
        self._next()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.journal"

    def _next(self) -> None:
        path = self._path(self._number + 1)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            sync_folder(self._folder)
        except OSError:
            os.close(file)
            raise
        if self._file >= 0:
            self._full.append((self._file, self._number))
        self._file, self._size, self._torn = file, 0, False
        self._number += 1

    def append(self, events: Iterable[Event]) -> None:
        """Hands the entries to the operating system; raises OSError if they cannot be written whole."""
        events = list(events)
        frames = b"".join([_frame(event) for event in events])
        if self._torn:
            # Whoever reads the file stops there, and would miss what follows.
            os.ftruncate(self._file, self._size)
            self._torn = False
        written = os.write(self._file, frames)
        if written != len(frames):
            self._torn = True
            raise OSError("an audit entry could not be written whole")
        self._size += written
        self._pending += events

    async def recover(self) -> int:
        """Moves what an earlier run left behind into the store; returns how many entries that were. A file with
        damage in it is kept beside, as ``.damaged``."""
        moved = 0
        for number in self._old:
            path = self._path(number)
            events, damaged = read(await asyncio.to_thread(path.read_bytes))
            for start in range(0, len(events), _BATCH):
                await self._record(events[start : start + _BATCH])
            if damaged:
                kept = path.with_suffix(".damaged")
                path.replace(kept)
                _log.error("entries of the record are damaged and cannot be read: %s", kept)
            else:
                path.unlink()
            moved += len(events)
        self._old = []
        return moved

    async def _record(self, events: list[Event]) -> None:
        def work(tx: Transaction) -> None:
            tx.settle(events)

        await self._store.write(work)

    async def flush(self) -> None:
        """Syncs, and makes everything appended so far searchable."""
        async with self._moving:
            with self._store.reading() as view:
                waiting = view.unsettled()
            if not self._pending:
                if waiting:
                    await self._record([])
                return
            if self._size >= _ROTATE:
                self._next()
            full = self._full[:]
            events, self._pending = self._pending, []
            try:
                for file in (*(file for file, _ in full), self._file):
                    await asyncio.to_thread(os.fsync, file)
                for start in range(0, len(events), _BATCH):
                    await self._record(events[start : start + _BATCH])
            except BaseException:
                self._pending = events + self._pending
                raise
            for file, number in full:
                self._full.remove((file, number))
                os.close(file)
                self._path(number).unlink()

    def start(self) -> None:
        """Syncs and moves entries every 100 ms from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            # Whatever a failing disk makes of it: the entries are in the file, and the next turn tries again.
            with contextlib.suppress(Exception):
                await self.flush()

    async def close(self) -> None:
        """Moves what is left and removes the segment if nothing in it is needed any more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self.flush()
        os.close(self._file)
        self._path(self._number).unlink(missing_ok=True)

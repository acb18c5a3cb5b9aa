"""What MLflow's tracking servers hold, in backups.

Runs are in SQLite on an encrypted volume of each server. A backup has SQLite itself copy them, through the volume that is
open where the server runs, else through one that is opened for it: a copy is as of one moment, whatever is written
meanwhile. It goes from memory into the sealed archive, and at a restore into a new volume: in the clear it lies nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from bastide.engines.keys import RootKey
from bastide.engines.sandbox import SandboxError
from bastide.engines.sandbox.drivers.gocryptfs import Gocryptfs
from bastide.services.sagemaker import tracks
from bastide.store import SqliteStore
from bastide.store.directory import DataDirectory

_TRIES: Final = 5
_SECONDS: Final = 30.0
_BLOCK: Final = 1 << 20


class Unkept(Exception):  # noqa: N818
    """A server's runs could not be read or laid down."""


def read(directory: DataDirectory, snapshot: Path, root: RootKey, scratch: Path) -> Iterator[tuple[str, bytes]]:
    """Ids of servers that a snapshot of the database names, and what each holds. scratch: a folder for mounts.

    A server that never stood, or whose volume is gone, holds nothing. Raises Unkept.
    """
    for id, name, key in _known(snapshot, root):
        place = directory.tracking / id
        if not place.is_dir():
            continue
        found = _copied(directory.run / "volumes" / name, name, key, place, scratch)
        if found is not None:
            yield id, found


def lay(directory: DataDirectory, root: RootKey, id: str, content: BinaryIO, scratch: Path) -> None:
    """Lays what a server held onto a volume of its own, for when it is started. Raises Unkept."""
    known = {one: (name, key) for one, name, key in _known(directory.database, root)}
    if id not in known:
        raise Unkept(f"no tracking server is {id}")
    name, key = known[id]

    async def work() -> None:
        async with _opened(name, key, directory.tracking / id, scratch) as clear:
            place = clear / tracks.STORE
            place.parent.mkdir(mode=0o700, exist_ok=True)
            with place.open("xb") as file:
                shutil.copyfileobj(content, file, _BLOCK)
                file.flush()
                os.fsync(file.fileno())

    try:
        asyncio.run(work())
    except (SandboxError, OSError) as error:
        raise Unkept(f"the runs of a tracking server need an encrypted volume, as jobs do: {error}") from None


def unmount(scratch: Path) -> None:
    """Detaches what a killed backup left mounted, so that removing its folder removes nothing behind it."""
    asyncio.run(Gocryptfs(scratch).recover())


def _known(database: Path, root: RootKey) -> list[tuple[str, str, bytes]]:
    store = SqliteStore(database)
    try:
        with store.reading() as view:
            return tracks.volumes(view, root)
    finally:
        store.close()


def _copied(live: Path, name: str, key: bytes, place: Path, scratch: Path) -> bytes | None:
    """A server may be started or stopped while its runs are copied: what was read then counts for nothing."""
    told = ""
    for _ in range(_TRIES):
        running = os.path.ismount(live / "clear")
        try:
            store = live / "clear" / tracks.STORE
            found = _store(store) if running else asyncio.run(_closed(name, key, place, scratch))
        except (sqlite3.Error, SandboxError, OSError) as error:
            told = str(error)
            continue
        if running == os.path.ismount(live / "clear"):
            return found
    raise Unkept(f"the runs of a tracking server could not be read: {told or 'it is being started and stopped'}")


async def _closed(name: str, key: bytes, place: Path, scratch: Path) -> bytes | None:
    async with _opened(name, key, place, scratch) as clear:
        return _store(clear / tracks.STORE)


@contextlib.asynccontextmanager
async def _opened(name: str, key: bytes, place: Path, scratch: Path) -> AsyncIterator[Path]:
    volumes = Gocryptfs(scratch)
    try:
        yield await volumes.keep(name, key, place)
    finally:
        await volumes.close(name)


def _store(path: Path) -> bytes | None:
    """SQLite's own copy of a database, as of one moment; None where there is none yet."""
    if not path.exists():
        return None
    with (
        contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_SECONDS)) as source,
        contextlib.closing(sqlite3.connect(":memory:")) as copy,
    ):
        source.backup(copy)
        if copy.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("the database is damaged")
        return copy.serialize()

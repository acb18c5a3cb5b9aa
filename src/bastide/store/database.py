"""SQLite as this platform opens it: every page carries a checksum, and a page that is not what was written is an error.

SQLite by itself takes what the disk gives. Its checksum VFS (https://sqlite.org/cksumvfs.html), which APSW brings,
writes eight bytes at the end of each page of the file and compares them when a page is read: a bit that flipped in a row,
an index or the schema fails the call that meets it. Nothing is mapped into memory, so a read that the disk refuses is an
error of that call as well, and not the end of the process (SIGBUS). The write-ahead log has checksums of its own, which
SQLite compares when it takes up the log of a program that ended. A checksum is no seal: whoever may write the file can
write a checksum.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import apsw
import apsw.sqlite_extra

from bastide.store.directory import sync_folder, write_private

_log = logging.getLogger("bastide.store")
_VFS: Final = "cksmvfs"
_RESERVED: Final = 8
"""Bytes at the end of a page that the checksum takes; the number in the file's header is what turns checksums on."""
_TROUBLE: Final = frozenset(
    {apsw.SQLITE_IOERR, apsw.SQLITE_CORRUPT, apsw.SQLITE_NOTADB, apsw.SQLITE_FULL, apsw.SQLITE_CANTOPEN}
)


class Damaged(Exception):  # noqa: N818
    """The database is not what was written."""


def _told(code: int, message: str) -> None:
    """SQLite's own log: where in which file the trouble is, and in which statement; statements hold no values."""
    if code & 0xFF in _TROUBLE:
        _log.error("the database: %s (%d)", message, code)


apsw.config(apsw.SQLITE_CONFIG_LOG, _told)
apsw.sqlite_extra.load(apsw.Connection(":memory:"), "cksumvfs")


def connect(path: Path, *, read_only: bool = False) -> apsw.Connection:
    """A connection to the database at `path`, made with checksums if there is none. Raises apsw.Error."""
    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    db = apsw.Connection(str(path), flags=flags, vfs=_VFS, statementcachesize=512)
    db.set_busy_timeout(10_000)
    if not path.stat().st_size:
        db.reserve_bytes(reserve=_RESERVED)
    return db


def checked(db: apsw.Connection) -> bool:
    """Whether the pages that are read now are compared with their checksums, as the header says that was read last."""
    return bool(db.execute("PRAGMA checksum_verification").get == "1")


def give_checksums(path: Path) -> None:
    """Has a database written anew with checksums take the place of one without, at once or not at all. Nobody else may have
    it open."""
    draft, whole = path.with_name(path.name + ".wider"), path.with_name(path.name + ".checked")
    db = connect(path)
    try:
        db.execute("PRAGMA user_version").fetchall()  # reads the header
        if checked(db):
            return
        db.execute("PRAGMA journal_mode=DELETE").fetchall()  # so that all of it is in the one file
        # Into another file: a VACUUM in place that is undone after a kill would get checksums over what pages held there.
        write_private(draft, b"")
        db.reserve_bytes(reserve=_RESERVED)
        db.execute("VACUUM INTO ?", (str(draft),))
    finally:
        db.close()
    # Pages that were written before the header said so have no checksums yet.
    wider = connect(draft)
    try:
        wider.execute("PRAGMA user_version; PRAGMA checksum_verification=OFF").fetchall()
        whole.unlink(missing_ok=True)
        _into(wider, whole)
    finally:
        wider.close()
    with whole.open("rb") as file:
        os.fsync(file.fileno())
    whole.replace(path)
    draft.unlink()
    sync_folder(path.parent)


def copy(source: Path, target: Path) -> None:
    """A snapshot of the database as of one commit in a new file, without stopping who writes it. Raises apsw.Error for a
    damaged page."""
    db = connect(source)
    try:
        _into(db, target)
    finally:
        db.close()


def _into(db: apsw.Connection, target: Path) -> None:
    """Writes all pages into a new file, each with its checksum."""
    write_private(target, b"")
    new = connect(target)
    new.execute("PRAGMA user_version=1")
    new.close()
    new = connect(target)
    try:
        new.execute("PRAGMA user_version").fetchall()  # reads the header: from here on pages get checksums
        with new.backup("main", db, "main") as work:
            work.step()
    finally:
        new.close()


def damage(path: Path) -> list[str]:
    """What is wrong with the database at `path`, a line each; none if every page is what was written and all of them make
    sense together. May be asked while the platform serves."""
    try:
        db = connect(path, read_only=True)
    except (apsw.Error, OSError) as error:
        return [f"the database cannot be opened: {error}"]
    found: list[str] = []
    try:
        db.execute("BEGIN; PRAGMA user_version").fetchall()
        if not checked(db):
            return ["the header of the database says that pages have no checksums"]
        found = _pages(path)
        found += _trees(db)
        # It ends at the first page that cannot be read, so it is for what sound pages say together.
        made = [] if found else [str(line) for (line,) in db.execute("PRAGMA integrity_check(1000)")]
    except apsw.Error as error:
        return [*found, f"the database cannot be read: {error}"]
    finally:
        db.close()
    return found if made in ([], ["ok"]) else made


def _pages(path: Path) -> list[str]:
    """Damaged pages of the file. Those that are being written are looked at again."""
    db = apsw.Connection(":memory:")  # the database's own would have to read its schema, which may be what is damaged
    with path.open("rb", buffering=0) as file:
        told = int.from_bytes(os.pread(file.fileno(), 2, 16))
        size = 65536 if told == 1 else told or 4096
        odd: Sequence[int] = range(path.stat().st_size // size)
        for turn in range(5):
            if turn > 0 and odd:
                time.sleep(0.05)
            odd = [
                number
                for number in odd
                if not db.execute("SELECT verify_checksum(?)", (os.pread(file.fileno(), size, number * size),)).get
            ]
    return [f"page {number + 1}, at byte {number * size}, is not what was written" for number in odd]


def _trees(db: apsw.Connection) -> list[str]:
    """Tables and indexes that cannot be read to their end; an index over some rows only is walked by SQLite's own check."""
    found = []
    listed = (
        "SELECT type, name, tbl_name FROM sqlite_schema WHERE rootpage > 0 AND coalesce(sql, '') NOT LIKE '% WHERE %'"
    )
    for kind, name, table in db.execute(listed).fetchall():
        way = "NOT INDEXED" if kind == "table" else f'INDEXED BY "{name}"'
        try:
            for _ in db.execute(f'SELECT * FROM "{table}" {way}'):  # noqa: S608
                pass
        except apsw.Error as error:
            found.append(f"the {kind} {name} cannot be read whole: {error}")
    return found

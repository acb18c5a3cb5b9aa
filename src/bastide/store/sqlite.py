"""The embedded driver: SQLite in WAL mode, one writer, grouped commits that reach the disk before the answer.

Two connections belong to the event loop's thread: the writer, whose concurrent pieces of work are savepoints of one
commit, and the reader, which sees the last committed state. The commit waits for the disk: on a thread of its own while the
next group gathers, unless the disk is so quick of late that the thread would cost more than the wait.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import apsw
import orjson

from bastide.domain import Clock, wall
from bastide.store.database import Damaged, checked, connect, give_checksums
from bastide.store.memo import Memo
from bastide.store.port import Transaction, View
from bastide.store.schema import CHECKED, MIGRATIONS
from bastide.store.sqlite_transaction import Recorded, SqliteTransaction
from bastide.store.sqlite_view import SqliteView

T = TypeVar("T")

_QUICK_SECONDS = 0.002
"""A disk that syncs faster than this is waited for: handing the commit to a thread would cost more."""


class SqliteStore:
    """One file, one process. See the module's text for how reading and writing share it."""

    def __init__(self, path: Path, clock: Clock = wall) -> None:
        """Opens or creates the database at `path`; raises RuntimeError if a newer program has written it, Damaged or
        apsw.Error if it cannot be read."""
        self._clock = clock
        self._bring(path.with_name(path.name + "-wal"))
        self._path = path
        self._writer = self._connect(path)
        self._migrate()
        self._reader = self._reading_connection()
        self._transaction = SqliteTransaction(self._writer)
        self._view = SqliteView(self._reader)
        self._waiting: list[tuple[Callable[[Transaction], Any], asyncio.Future[Any]]] = []
        self._committing: asyncio.Task[None] | None = None
        self._pace = _QUICK_SECONDS
        """How long commits take of late, in seconds."""
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self.committed: Callable[[], None] = lambda: None
        """Called after a commit that put something into the outbox."""

    def tell_recorded(self, told: Recorded) -> None:
        """Calls `told` with what each transaction records, within it."""
        self._transaction.recorded = told

    @staticmethod
    def _connect(path: Path) -> apsw.Connection:
        db = connect(path)
        for setting in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-65536"):
            db.execute(f"PRAGMA {setting}").fetchall()
        return db

    def _reading_connection(self) -> apsw.Connection:
        db = self._connect(self._path)
        db.execute("PRAGMA query_only=ON")
        return db

    @staticmethod
    def _bring(log: Path) -> None:
        """To the disk: commits that a killed program had written and not synced. They are read as if they had been, and
        what is done because of them must not outlive them when the power goes."""
        # The log alone: closing a descriptor of the database itself would give up the locks that SQLite holds on it.
        for file in (log, log.parent):
            if file.exists():
                handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)

    def _migrate(self) -> None:
        version = int(self._writer.execute("PRAGMA user_version").get)
        if version > len(MIGRATIONS):
            raise RuntimeError(
                f"the data directory has schema {version}, this program knows {len(MIGRATIONS)}: use the newer program"
            )
        if version >= CHECKED and not checked(self._writer):
            raise Damaged("the header of the database is damaged: it says that pages have no checksums")
        for number, statements in enumerate(MIGRATIONS[version:], version + 1):
            if number == CHECKED:
                self._writer.close()
                give_checksums(self._path)
                self._writer = self._connect(self._path)
            self._writer.execute("BEGIN IMMEDIATE")
            for statement in statements:
                self._writer.execute(statement)
            self._writer.execute(f"PRAGMA user_version={number}")
            self._writer.execute("COMMIT")

    def rewrite(
        self,
        kind: str,
        mark: str,
        change: Callable[[Transaction, str, str, str, dict[str, Any]], dict[str, Any] | None],
    ) -> None:
        """Changes documents of a kind, once, wherever they are kept, history too, and leaves nothing of what they were in
        free pages or the write-ahead log. For a start, before anybody is served. mark: the value (`View.meta`) that tells
        that it was done. change: is given account, region, name and document, and returns the new document or None."""
        tx = self._transaction
        if tx.meta(mark) == "done":
            return
        if tx.meta(mark) is None:
            self._writer.execute("BEGIN IMMEDIATE")
            tx.now = self._clock()
            tx.touched = set()
            try:
                changed = sum(self._rewrite(table, kind, change) for table in ("resource", "history"))
                # Should the platform die before the file is compacted, the next start does it.
                tx.set_meta(mark, "compact" if changed else "done")
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")
        if tx.meta(mark) == "compact":
            self._writer.execute("VACUUM")
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            tx.set_meta(mark, "done")

    def _rewrite(
        self,
        table: str,
        kind: str,
        change: Callable[[Transaction, str, str, str, dict[str, Any]], dict[str, Any] | None],
    ) -> int:
        changed = 0
        found: list[Any] = self._writer.execute(
            f"SELECT rowid, account, region, name, doc FROM {table} WHERE kind=?",  # noqa: S608
            (kind,),
        ).fetchall()
        for rowid, account, region, name, doc in found:
            new = change(self._transaction, account, region, name, orjson.loads(doc))
            if new is not None:
                self._writer.execute(
                    f"UPDATE {table} SET doc=? WHERE rowid=?",  # noqa: S608
                    (orjson.dumps(new), rowid),
                )
                changed += 1
        return changed

    @contextmanager
    def reading(self) -> Iterator[View]:
        """The last committed state; the snapshot is kept until the next commit, so most calls begin none."""
        try:
            # SQLite ends it by itself when the disk fails.
            if not self._reader.in_transaction:
                self._begin(self._reader, "BEGIN")
            yield self._view
        except (apsw.Error, Damaged):
            self._renew()
            raise

    @staticmethod
    def _begin(db: apsw.Connection, way: str) -> None:
        db.execute(way)
        # Reads the header if it changed. A bit of it turns the checksums off; then nothing else is believed, either.
        db.execute("PRAGMA user_version").fetchall()
        if not checked(db):
            raise Damaged("the header of the database is damaged: it says that pages have no checksums")

    def _refresh(self) -> None:
        try:
            if self._reader.in_transaction:
                self._reader.execute("COMMIT")
        except apsw.Error:
            self._renew()

    def _renew(self) -> None:
        """Another reader in place of one that met a disk that fails: SQLite would go on with what it half read."""
        with suppress(apsw.Error):
            renewed = self._reading_connection()
            self._reader.close()
            self._reader = self._view._db = renewed

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Runs `work` in the next group; returns once the group is on the disk."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._waiting.append((work, done))
        if self._committing is None:
            self._committing = loop.create_task(self._groups())
        # A caller that goes away must not undo what others share.
        return await asyncio.shield(done)

    async def _groups(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                await self._group(loop, group)
        finally:
            self._committing = None

    async def _group(
        self, loop: asyncio.AbstractEventLoop, group: list[tuple[Callable[[Transaction], Any], asyncio.Future[Any]]]
    ) -> None:
        tx = self._transaction
        results: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
        try:
            if self._writer.in_transaction:
                self._undo()
            self._begin(self._writer, "BEGIN IMMEDIATE")
            tx.now = self._clock()
            tx.touched, tx.ended = set(), set()
            tx.emitted = False
            for work, done in group:
                try:
                    with tx.savepoint():
                        result = work(tx)
                    results.append((done, result, None))
                except Exception as error:
                    # A page that it cannot read has SQLite undo the whole transaction; what follows would be one by itself.
                    if not self._writer.in_transaction:
                        raise
                    results.append((done, None, error))
                tx.changes += 1
            if self._pace < _QUICK_SECONDS:
                self._commit()
            else:
                await loop.run_in_executor(self._disk, self._commit)
        except BaseException as error:
            tx._memo = Memo()
            tx.changes += 1
            for _, done in group:
                if not done.done():
                    done.set_exception(RuntimeError(f"the state could not be written: {error}"))
            if self._writer.in_transaction:
                self._undo()
            if not isinstance(error, Exception):
                raise
            return
        self._refresh()
        self._view.changes = tx.changes
        self._view._memo.touch(tx.touched, tx.ended)
        for done, result, failed in results:
            if done.done():
                continue
            if failed is None:
                done.set_result(result)
            else:
                done.set_exception(failed)
        if tx.emitted:
            self.committed()

    def _undo(self) -> None:
        """Ends a transaction that failed. A disk that fails may not even let go of it: the next group tries again."""
        with suppress(apsw.Error):
            self._writer.execute("ROLLBACK")

    def _commit(self) -> None:
        began = time.perf_counter()
        self._writer.execute("COMMIT")
        self._pace += (time.perf_counter() - began - self._pace) / 8

    def close(self) -> None:
        """Closes both connections; work that waits is lost, and was never acknowledged."""
        self._disk.shutdown(wait=True)
        self._refresh()
        self._reader.close()
        self._writer.close()

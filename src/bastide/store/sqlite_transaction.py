"""What is written to the database, through one connection: `Transaction` of the port."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import apsw
import orjson

from bastide.domain import Instant, Tags
from bastide.store.port import Event, Row, Stale, Taken, Transaction
from bastide.store.sqlite_view import NO_TAGS, ROW, SqliteView

_FIELDS: Final = (
    "account, at, id, name, source, user, access_key, read_only, category, error, request_id, resources, body"
)
_RECORD: Final = f"INSERT INTO {{}} ({_FIELDS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"  # noqa: S608

Recorded = Callable[[Transaction, Sequence[Event]], None]
"""Told what a transaction records, within it."""


class SqliteTransaction(SqliteView):
    """Writes through a connection, within a commit that others may share; what fails is undone by itself (`savepoint`)."""

    def __init__(self, connection: apsw.Connection) -> None:
        super().__init__(connection)
        self.now: Instant = 0
        self.touched: set[tuple[str, str]] = set()
        self.ended: set[tuple[str, str]] = set()
        self.emitted = False
        self.recorded: Recorded = lambda tx, events: None

    def _touch(self, row: Row, *, end: bool = False) -> None:
        scope = (row.kind, row.account)
        self.touched.add(scope)
        if end:
            self.ended.add(scope)
        self._memo.touch((scope,), (scope,) if end else ())

    def _keep(self, row: Row, event: str, request_id: str, tags: bytes, doc: bytes) -> None:
        self._db.execute(
            "INSERT INTO history (kind, account, region, name, generation, at, event, request_id, status, tags, doc) "
            "VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (
                row.kind,
                row.account,
                row.region,
                row.name,
                row.generation,
                self.now,
                event,
                request_id,
                row.status,
                tags,
                doc,
            ),
        )

    def _label(self, row: Row, before: Tags) -> None:
        """Keeps the index of tags."""
        place = (row.account, row.region)
        gone = [(*place, key, value, row.kind, row.name) for key, value in before.items() if row.tags.get(key) != value]
        new = [(*place, key, value, row.kind, row.name) for key, value in row.tags.items() if before.get(key) != value]
        if gone:
            self._db.executemany(
                "DELETE FROM tag WHERE account=? AND region=? AND key=? AND value=? AND kind=? AND name=?", gone
            )
        if new:
            self._db.executemany("INSERT INTO tag (account, region, key, value, kind, name) VALUES (?,?,?,?,?,?)", new)

    def insert(self, row: Row, *, event: str = "", request_id: str = "", keep: bool = True) -> None:
        row.generation = 1
        row.created = row.created or self.now
        row.modified = row.modified or self.now
        doc, tags = orjson.dumps(row.doc), orjson.dumps(row.tags) if row.tags else NO_TAGS
        try:
            self._db.execute(
                f"INSERT INTO resource ({ROW}) VALUES (?,?,?,?,?,?,?,?,?,?)",  # noqa: S608
                (
                    row.kind, row.account, row.region, row.name, doc, row.status, tags,
                    row.created, row.modified, row.generation,
                ),
            )  # fmt: skip
        except apsw.ConstraintError:
            raise Taken(row.name) from None
        self._touch(row)
        if keep:
            self._label(row, {})
            self._keep(row, event or "Created", request_id, tags, doc)

    def update(self, row: Row, *, event: str = "", request_id: str = "", keep: bool = True) -> None:
        row.modified = self.now
        doc, tags = orjson.dumps(row.doc), orjson.dumps(row.tags) if row.tags else NO_TAGS
        before = self._labels(row) if keep else row.tags
        self._db.execute(
            "UPDATE resource SET doc=?, status=?, tags=?, modified=?, generation=generation+1 "
            "WHERE kind=? AND account=? AND region=? AND name=? AND generation=?",
            (doc, row.status, tags, row.modified, row.kind, row.account, row.region, row.name, row.generation),
        )
        if self._db.changes() != 1:
            raise Stale(row.name)
        row.generation += 1
        self._touch(row)
        if keep:
            if before != row.tags:
                self._label(row, before)
            self._keep(row, event or "Updated", request_id, tags, doc)

    def _labels(self, row: Row) -> Tags:
        """The tags as they are stored."""
        found = self._db.execute(
            "SELECT tags FROM resource WHERE kind=? AND account=? AND region=? AND name=?",
            (row.kind, row.account, row.region, row.name),
        ).fetchone()
        return {} if found is None or found[0] == NO_TAGS else dict(orjson.loads(found[0]))

    def delete(self, row: Row, *, event: str = "", request_id: str = "", keep: bool = True) -> None:
        before = self._labels(row) if keep else {}
        self._db.execute(
            "DELETE FROM resource WHERE kind=? AND account=? AND region=? AND name=? AND generation=?",
            (row.kind, row.account, row.region, row.name, row.generation),
        )
        if self._db.changes() != 1:
            raise Stale(row.name)
        self._touch(row, end=True)
        if keep:
            if before:
                self._label(Row(row.kind, row.account, row.region, row.name, {}), before)
            self._keep(row, event or "Deleted", request_id, orjson.dumps(row.tags), orjson.dumps(row.doc))

    def keep_token(self, account: str, operation: str, token: str, digest: bytes, answer: bytes) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO token (account, operation, token, at, digest, answer) VALUES (?,?,?,?,?,?)",
            (account, operation, token, self.now, digest, answer),
        )

    def emit(self, topic: str, body: dict[str, Any]) -> None:
        self.emitted = True
        self._db.execute("INSERT INTO outbox (at, topic, body) VALUES (?,?,?)", (self.now, topic, orjson.dumps(body)))

    def record(self, events: Iterable[Event]) -> None:
        events = list(events)
        self._db.executemany(_RECORD.format("event_new"), [_values(event) for event in events])
        self.recorded(self, events)

    def settle(self, events: Iterable[Event]) -> None:
        events = list(events)
        self._db.execute(
            f"INSERT INTO event ({_FIELDS}) SELECT {_FIELDS} FROM event_new WHERE true ORDER BY seq "  # noqa: S608
            "ON CONFLICT (id, account) DO NOTHING"
        )
        self._db.execute("DELETE FROM event_new")
        self._db.executemany(
            _RECORD.format("event") + " ON CONFLICT (id, account) DO NOTHING", [_values(event) for event in events]
        )
        self.recorded(self, events)

    def put_blob(self, id: str, data: bytes) -> None:
        self._db.execute("INSERT INTO blob (id, data) VALUES (?,?)", (id, data))

    def drop_blob(self, id: str) -> None:
        self._db.execute("DELETE FROM blob WHERE id=?", (id,))

    def append_log(self, stream: str, lines: Iterable[tuple[Instant, str | bytes]]) -> None:
        self._db.executemany(
            "INSERT INTO log_line (stream, at, ingested, message) VALUES (?,?,?,?)",
            [(stream, at, self.now, message) for at, message in lines],
        )

    def expire_log(self, stream: str, before: Instant, limit: int) -> int:
        self._db.execute(
            "DELETE FROM log_line WHERE seq IN (SELECT seq FROM log_line WHERE stream=? AND at<? ORDER BY at LIMIT ?)",
            (stream, before, limit),
        )
        return self._db.changes()

    def drop_log(self, stream: str) -> None:
        self._db.execute("DELETE FROM log_line WHERE stream=?", (stream,))

    def set_meta(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?,?)", (key, value))

    def trim_outbox(self, upto: int) -> None:
        self._db.execute("DELETE FROM outbox WHERE id<=?", (upto,))

    def put_execution(self, execution: dict[str, Any]) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO execution (id, flow, status, step, due, owner, lease, doc) "
            "VALUES (?,?,?,?,?,?,?,?)",
            (
                *(execution[key] for key in ("id", "flow", "status", "step", "due", "owner", "lease")),
                orjson.dumps(execution["doc"]),
            ),
        )

    def add_step(self, execution: str, step: str, event: str, detail: dict[str, Any]) -> None:
        self._db.execute(
            "INSERT INTO step (execution, step, event, at, detail) VALUES (?,?,?,?,?)",
            (execution, step, event, self.now, orjson.dumps(detail)),
        )

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        before = set(self.touched)
        self._db.execute("SAVEPOINT work")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK TO work")
                self._db.execute("RELEASE work")
            # What was read while it was changed must not be remembered.
            self._memo.touch(self.touched - before, self.touched - before)
            self._memo.values.clear()
            self.touched = before
            raise
        self._db.execute("RELEASE work")


def _values(event: Event) -> tuple[Any, ...]:
    return (
        event.account, event.at, event.id, event.name, event.source, event.user, event.access_key,
        "true" if event.read_only else "false", event.category, event.error, event.request_id,
        "\n".join(event.resources), event.body,
    )  # fmt: skip

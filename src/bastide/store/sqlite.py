"""The embedded driver: SQLite in WAL mode, one writer, grouped commits that reach the disk before the answer.

Two connections belong to the event loop's thread: the writer, whose concurrent pieces of work are savepoints of one
commit, and the reader, which sees the last committed state. The commit waits for the disk: on a thread of its own while the
next group gathers, unless the disk is so quick of late that the thread would cost more than the wait.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import apsw
import orjson

from bastide.domain import Clock, Instant, Tags, wall
from bastide.store.database import Damaged, checked, connect, give_checksums
from bastide.store.port import Event, LogLine, Order, Row, Stale, Taken, Transaction, View
from bastide.store.schema import CHECKED, MIGRATIONS

T = TypeVar("T")
Recorded = Callable[[Transaction, Sequence[Event]], None]
"""Told what a transaction records, within it."""

_FIELDS = "account, at, id, name, source, user, access_key, read_only, category, error, request_id, resources, body"
_RECORD = f"INSERT INTO {{}} ({_FIELDS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"  # noqa: S608
_EVENT = "seq, account, at, id, name, source, user, access_key, read_only, category, error, request_id, resources, body"
_ROW = "kind, account, region, name, doc, status, tags, created, modified, generation"
_NO_TAGS = b"{}"
_LAST = "\U0010ffff"
_MEMO_LIMIT = 50_000
_QUICK_SECONDS = 0.002
"""A disk that syncs faster than this is waited for: handing the commit to a thread would cost more."""


def _row(found: tuple[Any, ...]) -> Row:
    kind, account, region, name, doc, status, tags, created, modified, generation = found
    labels = {} if tags == _NO_TAGS else orjson.loads(tags)
    return Row(kind, account, region, name, orjson.loads(doc), status, labels, created, modified, generation)


def _event(found: tuple[Any, ...]) -> Event:
    seq, account, at, id_, name, source, user, key, read_only, category, error, request_id, resources, body = found
    names = tuple(resources.split("\n")) if resources else ()
    return Event(
        account, at, id_, name, source, user, key, read_only == "true", category, error, request_id, names, body, seq
    )


class _Memo:
    """Values that hold until something they were read from changes. One for the reader and one for the writer: what
    is not yet committed must not reach a decision of somebody who reads."""

    __slots__ = ("ends", "epochs", "values")

    def __init__(self) -> None:
        self.epochs: dict[tuple[str, str], int] = {}
        self.ends: dict[tuple[str, str], int] = {}
        """How often a row of the scope was deleted: a row made anew begins to count its generations again."""
        self.values: dict[Any, tuple[tuple[int, ...], Any, Sequence[_Read] | None]] = {}

    def stamp(self, scopes: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        """What the scopes' rows have come to."""
        epochs = self.epochs
        return tuple([epochs.get(scope, 0) for scope in scopes])

    def kept(self, scopes: Sequence[tuple[str, str]], reads: Sequence[_Read] | None) -> Sequence[_Read] | None:
        """The reads, with the ends of their scopes before them."""
        if reads is None:
            return None
        return [("", "", "", "", sum(self.ends.get(scope, 0) for scope in scopes)), *reads]

    def hold(self, key: Any, stamp: tuple[int, ...], value: Any, reads: Sequence[_Read] | None) -> None:
        """Remembers a value."""
        if len(self.values) >= _MEMO_LIMIT:
            self.values.clear()
        self.values[key] = (stamp, value, reads)

    def touch(self, scopes: Iterable[tuple[str, str]], ended: Iterable[tuple[str, str]] = ()) -> None:
        for scope in scopes:
            self.epochs[scope] = self.epochs.get(scope, 0) + 1
        for scope in ended:
            self.ends[scope] = self.ends.get(scope, 0) + 1


_Read = tuple[str, str, str, str, int]
"""A row that was read: kind, account, region, name, and its generation then, 0 if there was none."""


class _View:
    def __init__(self, connection: apsw.Connection) -> None:
        self._db = connection
        self._memo = _Memo()
        self._reads: list[_Read] | None = None
        """The rows that are being read for a value whose rows are remembered beside it."""
        self._listed = False
        self.changes = 0

    def memo(self, key: Any, scopes: Sequence[tuple[str, str]], load: Callable[[], T], *, by_rows: bool = False) -> T:
        if self._reads is not None:
            return load()  # what an inner value was read from belongs to the outer one, too
        memo = self._memo
        stamp = memo.stamp(scopes)
        held = memo.values.get(key)
        if held is not None:
            value: T = held[1]
            if held[0] == stamp:
                return value
            if held[2] is not None and self._unchanged(scopes, held[2]):
                memo.values[key] = (stamp, value, held[2])
                return value
        if not by_rows:
            value = load()
            memo.hold(key, stamp, value, None)
            return value
        self._reads, self._listed = [], False
        try:
            value = load()
            reads = None if self._listed else self._reads
        finally:
            self._reads = None
        memo.hold(key, stamp, value, memo.kept(scopes, reads))
        return value

    def _unchanged(self, scopes: Sequence[tuple[str, str]], reads: Sequence[_Read]) -> bool:
        """Whether the rows that a value was read from are what they were, and none of their scopes lost one."""
        if sum(self._memo.ends.get(scope, 0) for scope in scopes) != reads[0][4]:
            return False
        query = "SELECT generation FROM resource WHERE kind=? AND account=? AND region=? AND name=?"
        for *place, generation in reads[1:]:
            found = self._db.execute(query, place).fetchone()
            if (0 if found is None else found[0]) != generation:
                return False
        return True

    def get(self, kind: str, account: str, region: str, name: str) -> Row | None:
        found = self._db.execute(
            f"SELECT {_ROW} FROM resource WHERE kind=? AND account=? AND region=? AND name=?",  # noqa: S608
            (kind, account, region, name),
        ).fetchone()
        row = None if found is None else _row(found)
        if self._reads is not None:
            self._reads.append((kind, account, region, name, 0 if row is None else row.generation))
        return row

    def scan(
        self,
        kind: str,
        account: str,
        region: str,
        *,
        order: Order = "name",
        descending: bool = False,
        prefix: str = "",
        after: tuple[Instant, str] | str | None = None,
        at_or_after: str | None = None,
        status: str | None = None,
        created_from: Instant | None = None,
        created_to: Instant | None = None,
        limit: int = 100,
    ) -> list[Row]:
        self._listed = True
        where = ["kind=?", "account=?", "region=?"]
        values: list[Any] = [kind, account, region]
        beyond, way = ("<", "DESC") if descending else (">", "ASC")
        if status is not None:
            where.append("status=? AND status<>''")
            values.append(status)
        # Of several bounds on one side SQLite seeks by one it likes: it is given the narrowest, as one.
        ends = [prefix + _LAST] if prefix else []
        if isinstance(after, str) and descending:
            ends.append(after)
        if ends:
            where.append("name<?")
            values.append(min(ends))
        least = max(prefix, at_or_after or "")
        if isinstance(after, str) and not descending and after >= least:
            where.append("name>?")
            values.append(after)
        elif least:
            where.append("name>=?")
            values.append(least)
        if isinstance(after, tuple):
            # The same of creation times: what lies on the walked side of the position is no bound any more.
            if descending and (created_to is None or after[0] <= created_to):
                created_to = None
            elif not descending and (created_from is None or after[0] >= created_from):
                created_from = None
            else:
                after = None
        if created_from is not None:
            where.append("created>=?")
            values.append(created_from)
        if created_to is not None:
            where.append("created<=?")
            values.append(created_to)
        if isinstance(after, tuple):
            where.append(f"(created,name){beyond}(?,?)")
            values += after
        by = f"created {way}, name {way}" if order == "created" else f"name {way}"
        # The planner has no statistics of a young table, so the index is named; AWS's lists are short of surprises.
        index = "resource_name" if order == "name" else "resource_status" if status else "resource_created"
        values.append(limit)
        found = self._db.execute(
            f"SELECT {_ROW} FROM resource INDEXED BY {index} WHERE {' AND '.join(where)} ORDER BY {by} LIMIT ?",  # noqa: S608
            values,
        ).fetchall()
        return [_row(one) for one in found]

    def count(self, kind: str, account: str, region: str, *, at_or_after: str = "", before: str, limit: int) -> int:
        found = self._db.execute(
            "SELECT count(*) FROM (SELECT 1 FROM resource INDEXED BY resource_name "
            "WHERE kind=? AND account=? AND region=? AND name>=? AND name<? LIMIT ?)",
            (kind, account, region, at_or_after, before, limit),
        ).fetchone()
        return int(found[0]) if found is not None else 0

    def tagged(
        self,
        kind: str,
        account: str,
        region: str,
        *,
        key: str | None = None,
        value: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> list[Row]:
        if key is None:
            found = self._db.execute(
                f"SELECT {_ROW} FROM resource INDEXED BY resource_tagged "  # noqa: S608
                "WHERE kind=? AND account=? AND region=? AND name>? AND tags<>x'7b7d' ORDER BY name LIMIT ?",
                (kind, account, region, after, limit),
            ).fetchall()
            return [_row(one) for one in found]
        # The planner is given the order of the walk: along the tags, looking up each resource.
        index, more, values = "INDEXED BY tag_key", "", [account, region, kind, key, after]
        if value is not None:
            index, more = "", "AND t.value=? "  # the primary key, all of which is given
            values.append(value)
        columns = ", ".join(f"r.{name.strip()}" for name in _ROW.split(","))
        found = self._db.execute(
            f"SELECT {columns} FROM tag AS t {index} CROSS JOIN resource AS r INDEXED BY resource_name "  # noqa: S608
            "ON r.kind=t.kind AND r.account=t.account AND r.region=t.region AND r.name=t.name "
            f"WHERE t.account=? AND t.region=? AND t.kind=? AND t.key=? AND t.name>? {more}ORDER BY t.name LIMIT ?",
            (*values, limit),
        ).fetchall()
        return [_row(one) for one in found]

    def tag_keys(self, account: str, region: str, *, after: str = "", limit: int = 100) -> list[str]:
        found: list[str] = []
        while len(found) < limit:
            # One seek a key, however many resources have it.
            row = self._db.execute(
                "SELECT key FROM tag WHERE account=? AND region=? AND key>? ORDER BY key LIMIT 1",
                (account, region, after),
            ).fetchone()
            if row is None:
                break
            after = str(row[0])
            found.append(after)
        return found

    def tag_values(
        self, account: str, region: str, key: str, *, after: str | None = None, limit: int = 100
    ) -> list[str]:
        found: list[str] = []
        beyond = ">=" if after is None else ">"
        after = after or ""
        while len(found) < limit:
            row = self._db.execute(
                f"SELECT value FROM tag WHERE account=? AND region=? AND key=? AND value{beyond}? ORDER BY value LIMIT 1",  # noqa: S608
                (account, region, key, after),
            ).fetchone()
            if row is None:
                break
            after, beyond = str(row[0]), ">"
            found.append(after)
        return found

    def history(self, kind: str, account: str, region: str, name: str, *, limit: int = 100) -> list[dict[str, Any]]:
        found: list[Any] = self._db.execute(
            "SELECT id, generation, at, event, request_id, status, tags, doc FROM history "
            "WHERE kind=? AND account=? AND region=? AND name=? ORDER BY id DESC LIMIT ?",
            (kind, account, region, name, limit),
        ).fetchall()
        keys = ("id", "generation", "at", "event", "request_id", "status")
        return [
            {**dict(zip(keys, one[:6], strict=True)), "tags": orjson.loads(one[6]), "doc": orjson.loads(one[7])}
            for one in found
        ]

    def token(self, account: str, operation: str, token: str) -> tuple[bytes, bytes] | None:
        found: tuple[bytes, bytes] | None = self._db.execute(
            "SELECT digest, answer FROM token WHERE account=? AND operation=? AND token=?", (account, operation, token)
        ).fetchone()
        return found

    def events(
        self,
        account: str,
        *,
        before: tuple[Instant, int] | None = None,
        start: Instant | None = None,
        end: Instant | None = None,
        where: tuple[str, str] | None = None,
        category: str | None = None,
        limit: int = 50,
    ) -> list[Event]:
        asked = ["account=?"]
        values: list[Any] = [account]
        index = "event_at"
        if where is not None:
            column, value = where
            if column == "resources":
                asked.append("instr(char(10)||resources||char(10), char(10)||?||char(10))>0")
            elif column == "refused":
                asked.append("error<>''")
                index = "event_refused"
            elif column in {"id", "name", "source", "user", "access_key", "read_only", "request_id", "error"}:
                asked.append(f"{column}=?")
                index = {"name": "event_name", "user": "event_user", "id": "event_id"}.get(column, index)
            else:
                raise ValueError(f"events are not searched by `{column}`")
            if column != "refused":
                values.append(value)
        if category is not None:
            asked.append("category=?")
            values.append(category)
        elif index == "event_at":
            # The index is by category: each is walked by itself, since one walk over both would sort all there is.
            every = [
                self.events(account, before=before, start=start, end=end, where=where, category=one, limit=limit)
                for one in ("Management", "Data")
            ]
            return sorted(itertools.chain(*every), key=lambda event: (event.at, event.seq), reverse=True)[:limit]
        if before is not None and end is not None:
            before, end = (before, None) if before[0] <= end else (None, end)
        if start is not None:
            asked.append("at>=?")
            values.append(start)
        if end is not None:
            asked.append("at<=?")
            values.append(end)
        if before is not None:
            asked.append("(at,seq)<(?,?)")
            values += before
        values.append(limit)
        found = self._db.execute(
            f"SELECT {_EVENT} FROM event INDEXED BY {index} WHERE {' AND '.join(asked)} "  # noqa: S608
            "ORDER BY at DESC, seq DESC LIMIT ?",
            values,
        ).fetchall()
        return [_event(one) for one in found]

    def unsettled(self) -> bool:
        return self._db.execute("SELECT 1 FROM event_new LIMIT 1").fetchone() is not None

    def events_after(self, seq: int, *, limit: int = 1000) -> list[Event]:
        found = self._db.execute(
            f"SELECT {_EVENT} FROM event WHERE seq>? ORDER BY seq LIMIT ?",  # noqa: S608
            (seq, limit),
        ).fetchall()
        return [_event(one) for one in found]

    def log_lines(
        self,
        stream: str,
        *,
        start: Instant | None = None,
        end: Instant | None = None,
        after: tuple[Instant, int] | None = None,
        before: tuple[Instant, int] | None = None,
        forward: bool = True,
        limit: int = 10_000,
    ) -> list[LogLine]:
        asked = ["stream=?"]
        values: list[Any] = [stream]
        # One bound a side, the tighter: SQLite seeks by one of several, and steps over what the others leave out.
        if after is not None and start is not None:
            after, start = (after, None) if after[0] >= start else (None, start)
        if before is not None and end is not None:
            before, end = (before, None) if before[0] < end else (None, end)
        for clause, value in (("at>=?", start), ("at<?", end)):
            if value is not None:
                asked.append(clause)
                values.append(value)
        for clause, place in (("(at,seq)>(?,?)", after), ("(at,seq)<(?,?)", before)):
            if place is not None:
                asked.append(clause)
                values += place
        way = "ASC" if forward else "DESC"
        found: list[Any] = self._db.execute(
            f"SELECT seq, at, ingested, message FROM log_line WHERE {' AND '.join(asked)} "  # noqa: S608
            f"ORDER BY at {way}, seq {way} LIMIT ?",
            [*values, limit],
        ).fetchall()
        lines = [LogLine(*one) for one in found]
        return lines if forward else lines[::-1]

    def blob(self, id: str) -> bytes | None:
        found = self._db.execute("SELECT data FROM blob WHERE id=?", (id,)).fetchone()
        return None if found is None else bytes(found[0])

    def meta(self, key: str) -> str | None:
        found = self._db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def outbox(self, after: int, *, limit: int = 500) -> list[tuple[int, str, dict[str, Any]]]:
        found: list[Any] = self._db.execute(
            "SELECT id, topic, body FROM outbox WHERE id>? ORDER BY id LIMIT ?", (after, limit)
        ).fetchall()
        return [(id_, topic, orjson.loads(body)) for id_, topic, body in found]

    def executions(self, *, due: Instant, limit: int = 100) -> list[dict[str, Any]]:
        found = self._db.execute(
            "SELECT id, flow, status, step, due, owner, lease, doc FROM execution "
            "WHERE status='Running' AND due<=? AND lease<=? ORDER BY due LIMIT ?",
            (due, due, limit),
        ).fetchall()
        return [_execution(one) for one in found]

    def execution(self, id: str) -> dict[str, Any] | None:
        found = self._db.execute(
            "SELECT id, flow, status, step, due, owner, lease, doc FROM execution WHERE id=?", (id,)
        ).fetchone()
        return None if found is None else _execution(found)

    def steps(self, execution: str) -> list[dict[str, Any]]:
        found: list[Any] = self._db.execute(
            "SELECT step, event, at, detail FROM step WHERE execution=? ORDER BY seq", (execution,)
        ).fetchall()
        return [{"step": s, "event": e, "at": at, "detail": orjson.loads(d)} for s, e, at, d in found]


def _values(event: Event) -> tuple[Any, ...]:
    return (
        event.account, event.at, event.id, event.name, event.source, event.user, event.access_key,
        "true" if event.read_only else "false", event.category, event.error, event.request_id,
        "\n".join(event.resources), event.body,
    )  # fmt: skip


def _execution(found: tuple[Any, ...]) -> dict[str, Any]:
    keys = ("id", "flow", "status", "step", "due", "owner", "lease")
    return {**dict(zip(keys, found[:7], strict=True)), "doc": orjson.loads(found[7])}


class _Transaction(_View):
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
        doc, tags = orjson.dumps(row.doc), orjson.dumps(row.tags) if row.tags else _NO_TAGS
        try:
            self._db.execute(
                f"INSERT INTO resource ({_ROW}) VALUES (?,?,?,?,?,?,?,?,?,?)",  # noqa: S608
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
        doc, tags = orjson.dumps(row.doc), orjson.dumps(row.tags) if row.tags else _NO_TAGS
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
        return {} if found is None or found[0] == _NO_TAGS else dict(orjson.loads(found[0]))

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
        self._transaction = _Transaction(self._writer)
        self._view = _View(self._reader)
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
            tx._memo = _Memo()
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

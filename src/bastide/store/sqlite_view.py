"""What is read of the database, through one connection: `View` of the port."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import apsw
import orjson

from bastide.domain import Instant
from bastide.store.memo import Memo, Read
from bastide.store.port import Event, LogLine, Order, Row

T = TypeVar("T")

_EVENT: Final = (
    "seq, account, at, id, name, source, user, access_key, read_only, category, error, request_id, resources, body"
)
ROW: Final = "kind, account, region, name, doc, status, tags, created, modified, generation"
NO_TAGS: Final = b"{}"
_LAST: Final = "\U0010ffff"


def _row(found: tuple[Any, ...]) -> Row:
    kind, account, region, name, doc, status, tags, created, modified, generation = found
    labels = {} if tags == NO_TAGS else orjson.loads(tags)
    return Row(kind, account, region, name, orjson.loads(doc), status, labels, created, modified, generation)


def _event(found: tuple[Any, ...]) -> Event:
    seq, account, at, id_, name, source, user, key, read_only, category, error, request_id, resources, body = found
    names = tuple(resources.split("\n")) if resources else ()
    return Event(
        account, at, id_, name, source, user, key, read_only == "true", category, error, request_id, names, body, seq
    )


def _execution(found: tuple[Any, ...]) -> dict[str, Any]:
    keys = ("id", "flow", "status", "step", "due", "owner", "lease")
    return {**dict(zip(keys, found[:7], strict=True)), "doc": orjson.loads(found[7])}


class SqliteView:
    """Reads through a connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._db = connection
        self._memo = Memo()
        self._reads: list[Read] | None = None
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

    def _unchanged(self, scopes: Sequence[tuple[str, str]], reads: Sequence[Read]) -> bool:
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
            f"SELECT {ROW} FROM resource WHERE kind=? AND account=? AND region=? AND name=?",  # noqa: S608
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
            f"SELECT {ROW} FROM resource INDEXED BY {index} WHERE {' AND '.join(where)} ORDER BY {by} LIMIT ?",  # noqa: S608
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
                f"SELECT {ROW} FROM resource INDEXED BY resource_tagged "  # noqa: S608
                "WHERE kind=? AND account=? AND region=? AND name>? AND tags<>x'7b7d' ORDER BY name LIMIT ?",
                (kind, account, region, after, limit),
            ).fetchall()
            return [_row(one) for one in found]
        # The planner is given the order of the walk: along the tags, looking up each resource.
        index, more, values = "INDEXED BY tag_key", "", [account, region, kind, key, after]
        if value is not None:
            index, more = "", "AND t.value=? "  # the primary key, all of which is given
            values.append(value)
        columns = ", ".join(f"r.{name.strip()}" for name in ROW.split(","))
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

"""The store of values: a database of its own, written by one thread in groups.

Each value goes into a row of its minute, its five minutes and its hour at once (and of its second, where that was asked
for): late values need no second thought, reading picks the coarsest rows that fit, and removing what is too old is
removing whole stretches of time, by which the rows are ordered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sqlite3
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from bastide.domain import MICROS, Clock, Instant
from bastide.engines.telemetry.summary import Summary

_log = logging.getLogger("bastide.telemetry")

Dimensions = tuple[tuple[str, str], ...]
"""Name and value, ordered by name."""

_DAY: Final = 86400
LEVELS: Final = {1: (3600, _DAY // 8), 60: (_DAY, 15 * _DAY), 300: (7 * _DAY, 63 * _DAY), 3600: (30 * _DAY, 455 * _DAY)}
"""Seconds of a row: seconds of a stretch, and after how many a row is removed (CloudWatch User Guide)."""
_GATHER_SECONDS: Final = 1.0
_MOST_WAITING: Final = 200_000
_MOST_KNOWN: Final = 100_000
_SEEN_SECONDS: Final = 600
_PRUNE_SECONDS: Final = 3600
DEFAULT_BYTES: Final = 2 << 30

_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS metric (
        id INTEGER PRIMARY KEY, account TEXT NOT NULL, region TEXT NOT NULL, namespace TEXT NOT NULL,
        name TEXT NOT NULL, dimensions TEXT NOT NULL, last INTEGER NOT NULL)""",
    "CREATE UNIQUE INDEX IF NOT EXISTS metric_whole ON metric (account, region, namespace, name, dimensions)",
    "CREATE INDEX IF NOT EXISTS metric_all ON metric (account, region, id)",
    "CREATE INDEX IF NOT EXISTS metric_namespace ON metric (account, region, namespace, id)",
    "CREATE INDEX IF NOT EXISTS metric_name ON metric (account, region, namespace, name, id)",
    """CREATE TABLE IF NOT EXISTS dimension (
        account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, metric INTEGER NOT NULL,
        PRIMARY KEY (account, region, name, value, metric)) WITHOUT ROWID""",
    *(
        f"""CREATE TABLE IF NOT EXISTS point_{level} (
            stretch INTEGER NOT NULL, metric INTEGER NOT NULL, unit TEXT NOT NULL, at INTEGER NOT NULL,
            count REAL NOT NULL, total REAL NOT NULL, low REAL NOT NULL, high REAL NOT NULL, sketch BLOB,
            PRIMARY KEY (stretch, metric, unit, at)) WITHOUT ROWID"""
        for level in LEVELS
    ),
)


class Full(Exception):  # noqa: N818
    """The configured room is used up."""


class Metric(NamedTuple):
    """Whose values, and of what. id: for pages. last: about when the latest came, seconds."""

    id: int
    namespace: str
    name: str
    dimensions: Dimensions
    last: int


@dataclass(slots=True)
class Point:
    """Values of one time. at: seconds since 1970. fine: kept by the second, too."""

    account: str
    region: str
    namespace: str
    dimensions: Dimensions
    name: str
    unit: str
    at: int
    summary: Summary
    fine: bool = False


_Key = tuple[str, str, str, Dimensions, str]


class Meter:
    """Takes values and tells them.

    limit_bytes: room for all of it; when it is used up, nothing more is taken until old rows are gone. days: no row is kept
    longer, whatever its resolution.
    """

    def __init__(self, path: Path, clock: Clock, *, limit_bytes: int = DEFAULT_BYTES, days: int = 455) -> None:
        self._path = path
        self._clock = clock
        self._limit = limit_bytes
        self._oldest = days * _DAY
        self._raw: list[tuple[str, str, str, Dimensions, str, str, Instant, float]] = []
        self._puts: list[tuple[Sequence[Point], asyncio.Future[None]]] = []
        self._known: dict[_Key, list[int]] = {}
        self._wake = asyncio.Event()
        self._one = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="telemetry")
        self._pruned = 0
        self._full = False
        self.lost = 0
        """Values that `record` could not keep, since the start."""
        self._writer = _open(path)
        for statement in _SCHEMA:
            self._writer.execute(statement)
        self._reader = _open(path)
        self._reader.execute("PRAGMA query_only=ON")

    # -- taking --------------------------------------------------------------------------------------------------------

    def record(
        self,
        account: str,
        region: str,
        namespace: str,
        dimensions: Dimensions,
        name: str,
        value: float,
        unit: str = "None",
        at: Instant | None = None,
    ) -> None:
        """Takes one value of now (or of `at`) and never waits: it is on the disk about a second later. For what happens
        often; when nothing can be written, it is counted as lost."""
        if len(self._raw) >= _MOST_WAITING:
            self.lost += 1
            return
        self._raw.append((account, region, namespace, dimensions, name, unit, at or self._clock(), value))

    async def put(self, points: Sequence[Point]) -> None:
        """Takes values; they are on the disk when this returns. Raises Full, and OSError if the disk fails."""
        if self._full:
            raise Full
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._puts.append((points, done))
        self._wake.set()
        await done

    def start(self) -> None:
        """Writes from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Writes what waits, and ends."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            await self._flush()
        self._thread.shutdown()
        self._writer.close()
        self._reader.close()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _GATHER_SECONDS)
            self._wake.clear()
            await asyncio.shield(self._flush())

    async def _flush(self) -> None:
        async with self._one:
            await self._flush_all()

    async def _flush_all(self) -> None:
        raw, self._raw = self._raw, []
        puts, self._puts = self._puts, []
        now = self._clock() // MICROS
        prune = now - self._pruned >= _PRUNE_SECONDS
        if not (raw or puts or prune):
            return
        loop = asyncio.get_running_loop()
        failed: Exception | None = None
        try:
            if self._full:
                self.lost += len(raw)
                raw = []
            await loop.run_in_executor(self._thread, self._write, raw, [points for points, _ in puts], now, prune)
        except sqlite3.Error as error:
            _log.exception("measured values could not be written")
            failed = OSError(str(error))
            self._raw = (raw + self._raw)[:_MOST_WAITING]
            self.lost += max(0, len(raw) - len(self._raw))
            self._known.clear()
        for _, done in puts:
            if done.done():
                continue
            if failed is None:
                done.set_result(None)
            else:
                done.set_exception(failed)

    # -- writing, in its thread ----------------------------------------------------------------------------------------

    def _write(self, raw: list[Any], puts: list[Sequence[Point]], now: int, prune: bool) -> None:
        cells: dict[tuple[_Key, str, int, int], Summary] = {}

        def fold(key: _Key, unit: str, at: int, level: int, summary: Summary) -> None:
            place = (key, unit, level, at // level * level)
            held = cells.get(place)
            if held is None:
                cells[place] = summary.copy()
            else:
                held.add(summary)

        for account, region, namespace, dimensions, name, unit, at, value in raw:
            fold((account, region, namespace, dimensions, name), unit, at // MICROS, 60, Summary.of(value))
        for points in puts:
            for one in points:
                key = (one.account, one.region, one.namespace, one.dimensions, one.name)
                fold(key, one.unit, one.at, 60, one.summary)
                if one.fine:
                    fold(key, one.unit, one.at, 1, one.summary)
        for (key, unit, level, at), summary in list(cells.items()):
            if level == 60:
                for above in (300, 3600):
                    fold(key, unit, at, above, summary)
        db = self._writer
        db.execute("BEGIN IMMEDIATE")
        try:
            for (key, unit, level, at), summary in cells.items():
                self._merge(level, self._id(key, at), unit, at, summary)
            if prune:
                self._prune(now)
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        if prune:
            self._pruned = now
        [[pages]], [[free]], [[size]] = (
            db.execute(f"PRAGMA {name}").fetchall() for name in ("page_count", "freelist_count", "page_size")
        )
        full = (pages - free) * size > self._limit
        if full and not self._full:
            _log.error(
                "measured values use all of their %d bytes; no more are taken until old ones are gone", self._limit
            )
        self._full = full

    def _id(self, key: _Key, at: int) -> int:
        known = self._known.get(key)
        if known is None:
            account, region, namespace, dimensions, name = key
            whole = (account, region, namespace, name, json.dumps(dimensions))
            found = self._writer.execute(
                "SELECT id, last FROM metric WHERE account=? AND region=? AND namespace=? AND name=? AND dimensions=?",
                whole,
            ).fetchone()
            if found is None:
                made = self._writer.execute(
                    "INSERT INTO metric (account, region, namespace, name, dimensions, last) VALUES (?,?,?,?,?,?)",
                    (*whole, at),
                ).lastrowid
                assert made is not None
                self._writer.executemany(
                    "INSERT INTO dimension VALUES (?,?,?,?,?)", [(account, region, *pair, made) for pair in dimensions]
                )
                found = (made, at)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[key] = list(found)
        if at - known[1] >= _SEEN_SECONDS:
            self._writer.execute("UPDATE metric SET last=? WHERE id=?", (at, known[0]))
            known[1] = at
        return known[0]

    def _merge(self, level: int, metric: int, unit: str, at: int, summary: Summary) -> None:
        stretch = at // LEVELS[level][0]
        held = self._writer.execute(
            f"SELECT count, total, low, high, sketch FROM point_{level}"  # noqa: S608
            " WHERE stretch=? AND metric=? AND unit=? AND at=?",
            (stretch, metric, unit, at),
        ).fetchone()
        if held is not None:
            whole = Summary.unpack(*held)
            whole.add(summary)
            summary = whole
        self._writer.execute(
            f"INSERT OR REPLACE INTO point_{level} VALUES (?,?,?,?,?,?,?,?,?)",  # noqa: S608
            (stretch, metric, unit, at, summary.count, summary.total, summary.low, summary.high, summary.packed()),
        )

    def _prune(self, now: int) -> None:
        for level, (stretch, age) in LEVELS.items():
            before = (now - min(age, self._oldest)) // stretch
            self._writer.execute(f"DELETE FROM point_{level} WHERE stretch < ?", (before,))  # noqa: S608
        gone = (now - min(LEVELS[3600][1], self._oldest) - 2 * LEVELS[3600][0],)
        self._writer.execute("DELETE FROM dimension WHERE metric IN (SELECT id FROM metric WHERE last < ?)", gone)
        self._writer.execute("DELETE FROM metric WHERE last < ?", gone)
        self._known.clear()

    # -- telling -------------------------------------------------------------------------------------------------------

    def read(
        self,
        account: str,
        region: str,
        namespace: str,
        dimensions: Dimensions,
        name: str,
        start: int,
        end: int,
        period: int,
        unit: str | None = None,
    ) -> dict[str, dict[int, Summary]]:
        """Summaries of the periods that begin in ``[start, end)``, by unit and by their beginning; seconds everywhere.

        The periods begin at `start`. unit: that one alone.
        """
        row = self._reader.execute(
            "SELECT id FROM metric WHERE account=? AND region=? AND namespace=? AND name=? AND dimensions=?",
            (account, region, namespace, name, json.dumps(dimensions)),
        ).fetchone()
        found: dict[str, dict[int, Summary]] = {}
        if row is None or end <= start:
            return found
        level = next((one for one in (3600, 300, 60) if period % one == 0 and start % one == 0), 1)
        stretch = LEVELS[level][0]
        last = start + -(-(end - start) // period) * period
        for number in range(start // stretch, (last - 1) // stretch + 1):
            for told, at, *rest in self._reader.execute(
                f"SELECT unit, at, count, total, low, high, sketch FROM point_{level}"  # noqa: S608
                " WHERE stretch=? AND metric=? AND at>=? AND at<?" + (" AND unit=?" if unit is not None else ""),
                (number, row[0], start, last, *((unit,) if unit is not None else ())),
            ):
                periods = found.setdefault(told, {})
                begins = start + (at - start) // period * period
                summary = Summary.unpack(*rest)
                if begins in periods:
                    periods[begins].add(summary)
                else:
                    periods[begins] = summary
        return found

    def metrics(
        self,
        account: str,
        region: str,
        *,
        namespace: str | None = None,
        name: str | None = None,
        dimensions: Iterable[tuple[str, str | None]] = (),
        since: int = 0,
        after: int = 0,
        limit: int = 500,
    ) -> list[Metric]:
        """Metrics behind the id `after`, in order of id, that have all of these dimensions (of any value: None)."""
        asked: list[Any] = []
        wanted = list(dimensions)
        first = next((one for one in wanted if one[1] is not None), None)
        if first is not None:
            text = (
                "FROM dimension AS d JOIN metric AS m ON m.id=d.metric"
                " WHERE d.account=? AND d.region=? AND d.name=? AND d.value=? AND d.metric>?"
            )
            asked += [account, region, *first, after]
            column = "d.metric"
        else:
            text, column = "FROM metric AS m WHERE m.account=? AND m.region=? AND m.id>?", "m.id"
            asked += [account, region, after]
        for member, value in (("namespace", namespace), ("name", name)):
            if value is not None:
                text += f" AND m.{member}=?"
                asked.append(value)
        if since:
            text += " AND m.last>=?"
            asked.append(since)
        for key, value in wanted:
            if (key, value) != first:
                text += " AND EXISTS (SELECT 1 FROM dimension AS o WHERE o.account=m.account AND o.region=m.region"
                text += " AND o.name=? AND o.metric=m.id" + (" AND o.value=?)" if value is not None else ")")
                asked += [key] if value is None else [key, value]
        rows = self._reader.execute(
            f"SELECT m.id, m.namespace, m.name, m.dimensions, m.last {text} ORDER BY {column} LIMIT ?",
            (*asked, limit),
        )
        return [Metric(row[0], row[1], row[2], tuple((k, v) for k, v in json.loads(row[3])), row[4]) for row in rows]


def _open(path: Path) -> sqlite3.Connection:
    path.touch(mode=0o600, exist_ok=True)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for setting in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        db.execute(f"PRAGMA {setting}")
    return db

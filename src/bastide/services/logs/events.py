"""Lines of streams: written in batches, read forwards and backwards, searched."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.kernel import Ask, Authorised, Output, pages
from bastide.services.logs.metric_filter import measured, values
from bastide.services.logs.pattern import Pattern
from bastide.services.logs.retention import oldest as oldest_line
from bastide.services.logs.sealing import Lines
from bastide.services.logs.stream import LOG_STREAM, find, group_asked, group_name, group_row, stream_asked
from bastide.store import Row, Transaction, View
from bastide.store.port import LogLine

_MOST_BYTES: Final = 1024 * 1024
_OVERHEAD: Final = 26  # bytes AWS counts an event beside its message
_LONGEST: Final = 1024 * 1024
_MOST_EVENTS: Final = 10_000
_TOO_OLD: Final = 14 * 86400 * MICROS
_TOO_NEW: Final = 2 * 3600 * MICROS
_DAY: Final = 86_400_000
_MOST_STREAMS: Final = 100
_MOST_EXAMINED: Final = 50_000


@LOG_STREAM.operation("PutLogEvents", asks=[Ask("logs:PutLogEvents", stream_asked)], data=True, after=measured)
def put(a: Authorised, tx: Transaction) -> Output:
    row = find(a, tx, a.input["logGroupName"], a.input["logStreamName"])
    group = group_row(a, tx, a.input["logGroupName"])
    events = a.input["logEvents"]
    size = 0
    last = 0
    for event in events:
        length = len(event["message"].encode())
        size += length + _OVERHEAD
        if length > _LONGEST:
            raise Refused(
                "InvalidParameterException", f"Log event too large: {length} bytes exceeds limit of {_LONGEST}"
            )
        if event["timestamp"] < last:
            raise Refused(
                "InvalidParameterException",
                "Log events in a single PutLogEvents request must be in chronological order.",
            )
        last = event["timestamp"]
    if size > _MOST_BYTES:
        raise Refused("InvalidParameterException", f"Upload too large: {size} bytes exceeds limit of {_MOST_BYTES}")
    if events and events[-1]["timestamp"] - events[0]["timestamp"] > _DAY:
        raise Refused(
            "InvalidParameterException",
            "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.",
        )
    expired = oldest_line(group, a.now)
    oldest, newest = max(a.now - _TOO_OLD, expired) // 1000, (a.now + _TOO_NEW) // 1000
    kept = [e for e in events if oldest <= e["timestamp"] <= newest]
    rejected: Output = {}
    if old := sum(e["timestamp"] < oldest for e in events):
        rejected["expiredLogEventEndIndex" if expired > a.now - _TOO_OLD else "tooOldLogEventEndIndex"] = old
    if events and events[-1]["timestamp"] > newest:
        rejected["tooNewLogEventStartIndex"] = next(i for i, e in enumerate(events) if e["timestamp"] > newest)
    if kept:
        lines = Lines(a, tx, group, row)
        tx.append_log(row.doc["lines"], [(e["timestamp"] * 1000, lines.seal(e["message"])) for e in kept])
        doc = row.doc
        doc["first"] = min(doc.get("first", kept[0]["timestamp"]), kept[0]["timestamp"])
        doc["last"] = max(doc.get("last", 0), kept[-1]["timestamp"])
        doc["ingested"] = a.now // 1000
        tx.update(row, keep=False)
    output: Output = {"nextSequenceToken": "0", **({"rejectedLogEventsInfo": rejected} if rejected else {})}
    if group.doc.get("filters"):
        a.call.prepared = values(tx, group, [e["message"] for e in kept])
    return output


_TOKEN = re.compile(r"([fb])/([0-9]{20})([0-9]{20})")


def _token(way: str, place: tuple[int, int]) -> str:
    return f"{way}/{place[0]:020d}{place[1]:020d}"


def _within(a: Authorised, group: Row) -> dict[str, Any]:
    found = {"start": max((a.input.get("startTime") or 0) * 1000, oldest_line(group, a.now))}
    if a.input.get("endTime") is not None:
        found["end"] = a.input["endTime"] * 1000
    return found


def _fitting(lines: list[LogLine], forward: bool) -> list[LogLine]:
    """As many as an answer may hold."""
    size = 0
    for index, line in enumerate(lines if forward else lines[::-1]):
        size += len(line.message) + _OVERHEAD
        if size > _MOST_BYTES and index:
            return lines[:index] if forward else lines[len(lines) - index :]
    return lines


@LOG_STREAM.reads("GetLogEvents", asks=[Ask("logs:GetLogEvents", stream_asked)])
def get(a: Authorised, view: View) -> Output:
    name = group_name(a.input, a.account, a.region)
    row = find(a, view, name, a.input["logStreamName"])
    group = group_row(a, view, name)
    limit = int(a.input.get("limit") or _MOST_EVENTS)
    token = a.input.get("nextToken")
    forward = bool(a.input.get("startFromHead"))
    place: tuple[int, int] | None = None
    if token:
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise Refused("InvalidParameterException", "The specified nextToken is invalid.")
        forward = match[1] == "f"
        place = (int(match[2]), int(match[3]))
    lines = view.log_lines(
        row.doc["lines"],
        **_within(a, group),
        after=place if forward else None,
        before=None if forward else place,
        forward=forward,
        limit=limit,
    )
    lines = _fitting(lines, forward)
    if lines:
        first, last = (lines[0].at, lines[0].seq), (lines[-1].at, lines[-1].seq)
    elif place is not None:
        # Nothing more this way: the same token again, and the way back begins here.
        first = last = place
    else:
        edge = _within(a, group)["start"]
        first = last = (edge, 0)
    opened = Lines(a, view, group, row)
    return {
        "events": [
            {"timestamp": line.at // 1000, "message": opened.open(line.message), "ingestionTime": line.ingested // 1000}
            for line in lines
        ],
        "nextForwardToken": _token("f", last),
        "nextBackwardToken": _token("b", first),
    }


# -- searching ---------------------------------------------------------------------------------------------------------


def walk(
    a: Authorised,
    view: View,
    group: Row,
    row: Row,
    after: tuple[int, int] | None,
    within: dict[str, Any],
    first: int = 1000,
) -> Iterator[tuple[Any, ...]]:
    """The lines of a stream in order: time, sequence, stream, line with its text. first: how many are read at first."""
    opened = Lines(a, view, group, row)
    name = row.name.split(":log-stream:", 1)[1]
    count = first
    while True:
        lines = view.log_lines(row.doc["lines"], **within, after=after, limit=count)
        for line in lines:
            line.message = opened.open(line.message)
            yield line.at, line.seq, name, line
        if len(lines) < count:
            return
        after = (lines[-1].at, lines[-1].seq)
        count = min(1000, count * 4)


@LOG_STREAM.reads("FilterLogEvents", asks=[Ask("logs:FilterLogEvents", group_asked)])
def search(a: Authorised, view: View) -> Output:
    group = group_name(a.input, a.account, a.region)
    held_group = group_row(a, view, group)
    names, prefix = a.input.get("logStreamNames"), a.input.get("logStreamNamePrefix")
    if names and prefix:
        raise Refused("InvalidParameterException", "logStreamNames and logStreamNamePrefix exclude each other.")
    if a.input.get("startFromHead") is False:
        raise Refused("InvalidParameterException", "startFromHead=false is not supported by Bastide yet.")
    matches = Pattern(a.input.get("filterPattern") or "").matches
    if names:
        rows = [find(a, view, group, name) for name in names]
    else:
        head = f"{group}:log-stream:{prefix or ''}"
        rows = view.scan(LOG_STREAM.key, a.account, a.region, prefix=head, limit=_MOST_STREAMS + 1)
        if len(rows) > _MOST_STREAMS:
            raise Refused(
                "InvalidParameterException",
                f"More than {_MOST_STREAMS} streams would be searched. Please name a logStreamNamePrefix.",
            )
    limit = int(a.input.get("limit") or _MOST_EVENTS)
    held = pages.position(a, a.input.get("nextToken"), code="InvalidParameterException")
    place = (held[0], held[1]) if held else None
    found: list[Output] = []
    size = 0
    first = min(limit + 1, 1000)
    walks = heapq.merge(*(walk(a, view, held_group, row, place, _within(a, held_group), first) for row in rows))
    for examined, (at, seq, name, line) in enumerate(walks, 1):
        if matches(line.message):
            size += len(line.message.encode()) + _OVERHEAD
            if len(found) == limit or (found and size > _MOST_BYTES):
                return {"events": found, "searchedLogStreams": [], "nextToken": pages.seal(a, list(place or (0, 0)))}
            found.append(
                {
                    "logStreamName": name,
                    "timestamp": at // 1000,
                    "message": line.message,
                    "ingestionTime": line.ingested // 1000,
                    "eventId": f"{seq:056d}",
                }
            )
        place = (at, seq)
        if examined >= _MOST_EXAMINED:
            return {"events": found, "searchedLogStreams": [], "nextToken": pages.seal(a, list(place))}
    return {"events": found, "searchedLogStreams": []}

"""Data of an execution: JSON, bounded; texts of it as AWS writes them, and times.

Source: Step Functions developer guide, "Quotas"; Amazon States Language, "Timestamps".
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Instant
from bastide.engines.asl.problems import LIMIT, RUNTIME, Problem

LARGEST: Final = 262_144
"""Bytes of UTF-8 that an input, an output or a result may have."""
DEEPEST: Final = 200
_TIME: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:\d\d(?::\d\d)?)\Z"
)


def loads(text: str | bytes) -> Any:
    """Parses JSON; raises ValueError, also for what is nested too deeply."""
    value = orjson.loads(text)
    if not shallow(value):
        raise ValueError(f"the JSON is nested more than {DEEPEST} levels deep")
    return value


def shallow(value: Any) -> bool:
    """Whether a value is nested no deeper than anything here can bear."""
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below += [item for item in one.values() if isinstance(item, (dict, list))]
            elif isinstance(one, list):
                below += [item for item in one if isinstance(item, (dict, list))]
        if not below:
            return True
        level = below
    return False


def dumps(value: Any) -> str:
    """Compact JSON, as AWS writes it."""
    try:
        return orjson.dumps(value).decode()
    except (TypeError, orjson.JSONEncodeError):
        pass
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Problem(RUNTIME, f"A value cannot be written as JSON: {error}") from None


def small(text: str) -> bool:
    """Whether a text of JSON is within the limit of a payload."""
    return len(text) * 4 <= LARGEST or len(text.encode("utf-8", "surrogatepass")) <= LARGEST


def bounded(text: str, state: str) -> str:
    """The text itself; raises Problem when it is larger than a payload may be."""
    if not small(text):
        raise Problem(
            LIMIT,
            f"The state/task '{state}' returned a result with a size exceeding the maximum number of bytes service limit.",
        )
    return text


def instant(text: Any) -> Instant | None:
    """The time that an RFC 3339 text names (date, T, time, offset), or None if it names none."""
    match = _TIME.match(text) if isinstance(text, str) else None
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    offset = "+00:00" if zone == "Z" else zone
    try:
        at = datetime.fromisoformat(f"{year}-{month}-{day}T{hour}:{minute}:{second or '00'}{offset}")
    except ValueError:
        return None
    micros = int((fraction or "").ljust(9, "0")[:6])
    return int(at.timestamp()) * MICROS + micros


def stamp(at: Instant) -> str:
    """``2025-01-15T10:30:00.000Z``, as the context object has it."""
    whole, micros = divmod(at, MICROS)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{micros // 1000:03d}Z"


def number(value: Any) -> bool:
    """Whether a value is a JSON number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def kind(value: Any) -> str:
    """The name of a JSON type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"

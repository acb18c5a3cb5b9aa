"""Time: UTC as integer microseconds since 1970, everywhere but on the wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

Instant = int
"""Microseconds since the epoch, UTC."""

Clock = Callable[[], Instant]
"""What tells the time; tests inject their own, no API can."""

MICROS = 1_000_000
"""Microseconds a second."""


def wall() -> Instant:
    """The machine's clock."""
    return time.time_ns() // 1000


def iso(at: Instant, *, fraction: bool = False) -> str:
    """``2026-11-24T01:02:03Z``, with microseconds if asked for."""
    text = _second(at // MICROS)
    return f"{text}.{at % MICROS:06d}Z" if fraction else f"{text}Z"


@lru_cache(1024)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")

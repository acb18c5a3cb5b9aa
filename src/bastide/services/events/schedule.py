"""When a rule's schedule is due. Source: EventBridge User Guide, "Creating a rule that runs on a schedule"."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from bastide.domain import MICROS, Instant, Refused

_RATE: Final = re.compile(r"rate\((\d+) (minute|minutes|hour|hours|day|days)\)")
_CRON: Final = re.compile(r"cron\((\S+) (\S+) (\S+) (\S+) (\S+) (\S+)\)")
_SECONDS: Final = {"minute": 60, "hour": 3600, "day": 86400}
_MONTHS: Final = {
    name: n
    for n, name in enumerate(("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"), 1)
}
_DAYS: Final = {name: n for n, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)}
_FIELDS: Final = (
    ("minutes", 0, 59),
    ("hours", 0, 23),
    ("day", 1, 31),
    ("month", 1, 12),
    ("weekday", 1, 7),
    ("year", 1970, 2199),
)


def _wrong(text: str = "") -> Refused:
    return Refused("ValidationException", f"Parameter ScheduleExpression is not valid.{text}")


class Schedule:
    """A checked ``rate(...)`` or ``cron(...)``; raises Refused."""

    def __init__(self, text: str) -> None:
        self._every = 0
        rate, cron = _RATE.fullmatch(text), _CRON.fullmatch(text)
        if rate is not None:
            number, unit = int(rate[1]), rate[2]
            if number < 1 or (number == 1) == unit.endswith("s"):
                raise _wrong()
            self._every = number * _SECONDS[unit.rstrip("s")] * MICROS
        elif cron is not None:
            if (cron[3] == "?") == (cron[5] == "?"):
                raise _wrong(" Exactly one of day-of-month and day-of-week is ?.")
            self._sets = [_values(part, *field) for part, field in zip(cron.groups(), _FIELDS, strict=True)]
        else:
            raise _wrong()

    def due(self, last: Instant, now: Instant) -> bool:
        """Whether it is due now, if it was the last time at `last`. What was missed while nobody looked stays missed."""
        if self._every:
            return now - last >= self._every
        minute = 60 * MICROS
        if now // minute <= last // minute:
            return False
        at = datetime.fromtimestamp(now // MICROS, UTC)
        told = (at.minute, at.hour, at.day, at.month, at.isoweekday() % 7 + 1, at.year)
        return all(held is None or value in held for held, value in zip(self._sets, told, strict=True))


def _values(part: str, name: str, low: int, high: int) -> frozenset[int] | None:
    """The values of a field; None for all."""
    if part == "*" or (part == "?" and name in ("day", "weekday")):
        return None
    words = _MONTHS if name == "month" else _DAYS if name == "weekday" else {}

    def number(text: str) -> int:
        value = words.get(text.upper(), int(text) if text.isascii() and text.isdigit() else -1)
        if not low <= value <= high:
            raise _wrong(f" {text} is no {name} (L, W and # are not supported by Bastide yet).")
        return value

    found: set[int] = set()
    for one in part.split(","):
        span, _, step = one.partition("/")
        if step and not (step.isdigit() and int(step) > 0):
            raise _wrong()
        first, _, last = span.partition("-")
        start = low if first == "*" else number(first)
        end = number(last) if last else high if step or first == "*" else start
        found.update(range(start, end + 1, int(step or 1)))
    if not found:
        raise _wrong()
    return frozenset(found)

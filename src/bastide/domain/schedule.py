"""When something is due: ``rate(...)``, ``cron(...)`` with a time zone, ``at(...)``.

Source: EventBridge User Guide, "Cron expressions", "Rate expressions"; EventBridge Scheduler User Guide, "Schedule types";
Application Auto Scaling User Guide, "Scheduled scaling". Local times that daylight saving leaps over are skipped, those
that it repeats count once.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bastide.domain.clock import MICROS, Instant

_RATE: Final = re.compile(r"rate\((\d{1,6}) (minute|minutes|hour|hours|day|days)\)")
_AT: Final = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")
_CRON: Final = re.compile(r"cron\((\S+) (\S+) (\S+) (\S+) (\S+)(?: (\S+))?\)")
_SECONDS: Final = {"minute": 60, "hour": 3600, "day": 86400}
_MONTHS: Final = {
    name: n
    for n, name in enumerate(("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"), 1)
}
_DAYS: Final = {name: n for n, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)}
_FIRST, _LAST = 1970, 2199
_MOST_DAYS: Final = 366 * 9
"""How far is looked: nothing but the 29th of February, around 2100, is further away than eight years."""
_LONGEST: Final = 256


class NoSchedule(ValueError):  # noqa: N818
    """A text that is none; the message says why."""


def zone(name: str) -> ZoneInfo:
    """A time zone by its name; raises NoSchedule."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise NoSchedule(f"There is no time zone {name[:100]}.") from None


@lru_cache(4096)
def _parsed(text: str) -> Schedule:
    return Schedule(text)


class Schedule:
    """A checked expression; raises NoSchedule."""

    every: int
    """Microseconds of a rate; 0 for others."""

    def __init__(self, text: str) -> None:
        self.every = 0
        self._at: datetime | None = None
        self._cron: _Cron | None = None
        if len(text) > _LONGEST:
            raise NoSchedule("It is too long.")
        rate, at, cron = _RATE.fullmatch(text), _AT.fullmatch(text), _CRON.fullmatch(text)
        if rate is not None:
            number, unit = int(rate[1]), rate[2]
            if number < 1 or (number == 1) == unit.endswith("s"):
                raise NoSchedule("A rate is rate(1 hour), rate(5 minutes).")
            self.every = number * _SECONDS[unit.rstrip("s")] * MICROS
        elif at is not None:
            try:
                self._at = datetime.fromisoformat(at[1])
            except ValueError:
                raise NoSchedule("There is no such moment.") from None
        elif cron is not None and cron[6] is not None:
            self._cron = _Cron(*cron.groups())
        else:
            raise NoSchedule(
                "It is rate(N unit), at(yyyy-mm-ddThh:mm:ss) or cron(minutes hours day month weekday year)."
            )

    @classmethod
    def of(cls, text: str) -> Schedule:
        """The same, of a text that may have been read before."""
        return _parsed(text)

    @property
    def once(self) -> bool:
        """Whether it is due a single time."""
        return self._at is not None

    @property
    def clocked(self) -> bool:
        """Whether it is due at times of a clock, and no rate."""
        return not self.every

    def following(self, after: Instant, *, start: Instant, zone: ZoneInfo) -> Instant | None:
        """The first moment behind `after` when it is due; None if there is none. start: when a rate began."""
        if self.every:
            if after < start:
                return start
            return start + ((after - start) // self.every + 1) * self.every
        if self._at is not None:
            due = _instant(self._at, zone)
            return due if due is not None and due > after else None
        assert self._cron is not None
        return self._cron.following(after, zone)


def _instant(local: datetime, zone: ZoneInfo) -> Instant | None:
    """The moment of a local time, the first if there are two; None of one that there is not."""
    aware = local.replace(tzinfo=zone)
    back = aware.astimezone(UTC).astimezone(zone).replace(tzinfo=None)
    return int(aware.timestamp()) * MICROS if back == local else None


class _Cron:
    def __init__(self, minutes: str, hours: str, day: str, month: str, weekday: str, year: str) -> None:
        if (day == "?") == (weekday == "?"):
            raise NoSchedule("Exactly one of day-of-month and day-of-week is ?.")
        self._minutes = sorted(_values(minutes, "minutes", 0, 59) or range(60))
        self._hours = sorted(_values(hours, "hours", 0, 23) or range(24))
        self._months = _values(month, "month", 1, 12, _MONTHS)
        self._years = _values(year, "year", _FIRST, _LAST)
        self._day, self._weekday = _day(day), _weekday(weekday)

    def following(self, after: Instant, zone: ZoneInfo) -> Instant | None:
        """See `Schedule.following`."""
        begins = datetime.fromtimestamp(after // MICROS, zone).date()
        # A day of a zone can hold moments of which some are behind `after` only by the repetition of an hour.
        for one in self._days(begins):
            best: Instant | None = None
            for hour in self._hours:
                for minute in self._minutes:
                    due = _instant(datetime(one.year, one.month, one.day, hour, minute), zone)
                    if due is not None and due > after and (best is None or due < best):
                        best = due
                if best is not None:
                    return best
        return None

    def _days(self, one: date) -> Iterator[date]:
        """Days that it is due on, from that one."""
        looked = 0
        while looked < _MOST_DAYS and one.year <= _LAST:
            if self._years is not None and one.year not in self._years:
                later = [year for year in self._years if year > one.year]
                if not later:
                    return
                one = date(min(later), 1, 1)
                continue
            if self._months is not None and one.month not in self._months:
                looked += 28
                one = (one.replace(day=1) + timedelta(days=32)).replace(day=1)
                continue
            looked += 1
            if self._day(one) and self._weekday(one):
                yield one
            one += timedelta(days=1)


def _number(text: str, name: str, low: int, high: int, words: dict[str, int]) -> int:
    value = words.get(text.upper(), int(text) if text.isascii() and text.isdigit() and len(text) < 5 else -1)
    if not low <= value <= high:
        raise NoSchedule(f"{text[:20]} is no {name}.")
    return value


def _values(part: str, name: str, low: int, high: int, words: dict[str, int] | None = None) -> frozenset[int] | None:
    """The values of a field; None for all."""
    if part == "*":
        return None
    found: set[int] = set()
    for one in part.split(","):
        span, slash, step = one.partition("/")
        if slash and not (step.isascii() and step.isdigit() and int(step[:6]) > 0):
            raise NoSchedule(f"{one[:20]} is no {name}.")
        first, _, last = span.partition("-")
        start = low if first == "*" else _number(first, name, low, high, words or {})
        end = _number(last, name, low, high, words or {}) if last else high if slash or first == "*" else start
        if end < start and name == "weekday":
            found.update(range(start, high + 1))
            start = low
        if end < start:
            raise NoSchedule(f"{one[:20]} is no {name}.")
        found.update(range(start, end + 1, int(step or 1)))
    return frozenset(found)


class _Any:
    def __call__(self, _: date) -> bool:
        return True


def _last_day(one: date) -> int:
    return calendar.monthrange(one.year, one.month)[1]


class _Day:
    """A day of the month: numbers, ``L`` (the last), ``L-3``, ``15W`` and ``LW`` (the nearest of Monday to Friday)."""

    def __init__(self, part: str) -> None:
        self._numbers = self._back = self._near = None
        found = re.fullmatch(r"L(?:-(\d{1,2}))?|(\d{1,2}|L)W", part)
        if found is None:
            self._numbers = _values(part, "day", 1, 31)
        elif found[2]:
            self._near = 0 if found[2] == "L" else _number(found[2], "day", 1, 31, {})
        else:
            self._back = int(found[1] or 0)
            if self._back > 30:
                raise NoSchedule(f"{part} is no day.")

    def __call__(self, one: date) -> bool:
        if self._back is not None:
            return one.day == _last_day(one) - self._back
        if self._near is not None:
            return one.day == self._nearest(one, self._near or _last_day(one))
        return self._numbers is None or one.day in self._numbers

    @staticmethod
    def _nearest(one: date, wanted: int) -> int:
        last = _last_day(one)
        if wanted > last:
            return 0
        weekday = one.replace(day=wanted).isoweekday()
        if weekday == 6:
            return wanted - 1 if wanted > 1 else wanted + 2
        if weekday == 7:
            return wanted + 1 if wanted < last else wanted - 2
        return wanted


class _Weekday:
    """A day of the week: numbers and names, ``5L`` (the last of the month), ``3#2`` (the second)."""

    def __init__(self, part: str) -> None:
        self._numbers = self._which = None
        self._wanted = 0
        found = re.fullmatch(r"([A-Za-z]{3}|\d)(?:L|#(\d))|L", part)
        if found is None:
            self._numbers = _values(part, "weekday", 1, 7, _DAYS)
        else:
            self._wanted = _number(found[1], "weekday", 1, 7, _DAYS) if found[1] else 7
            self._which = int(found[2] or 0)
            if found[2] and not 1 <= self._which <= 5:
                raise NoSchedule(f"{part} is no weekday.")
            if part == "L":
                self._numbers, self._which = frozenset({7}), None

    def __call__(self, one: date) -> bool:
        number = one.isoweekday() % 7 + 1
        if self._which is None:
            return self._numbers is None or number in self._numbers
        if number != self._wanted:
            return False
        return one.day > _last_day(one) - 7 if self._which == 0 else (one.day - 1) // 7 + 1 == self._which


def _day(part: str) -> _Day | _Any:
    return _Any() if part == "?" else _Day(part)


def _weekday(part: str) -> _Weekday | _Any:
    return _Any() if part == "?" else _Weekday(part)

"""When a monitoring schedule is due, and which time each of its executions looks at.

Source: API Reference, ScheduleConfig, EndpointInput; developer guide, "model-monitor-schedule-expression".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import MICROS, Instant, Refused, iso

NOW: Final = "NOW"
_CRON: Final = re.compile(r"cron\(0 (?:(\*)|([0-9]{1,2})(?:/([0-9]{1,2}))?) \? \* \* \*\)", re.ASCII)
_OFFSET: Final = re.compile(
    r"[+-]?P(?=[0-9T])(?:([0-9]{1,4})D)?(?:T(?=[0-9])(?:([0-9]{1,5})H)?(?:([0-9]{1,6})M)?(?:([0-9]{1,8})S)?)?", re.ASCII
)
_UNITS: Final = (86400, 3600, 60, 1)
HOUR: Final = 3600 * MICROS
DAY: Final = 24 * HOUR
DELAY: Final = 120 * MICROS
"""An execution begins that long after its hour, so that what was captured in it has reached S3: AWS takes up to twenty
minutes, data capture here at most one."""


def _wrong(text: str) -> Refused:
    return Refused("ValidationException", text)


@dataclass(frozen=True, slots=True)
class Times:
    """hours: of a day, UTC, at which a schedule is due; none of them: it is due once, at once. every: hours between."""

    hours: tuple[int, ...]
    every: int

    def following(self, after: Instant) -> Instant:
        """The first hour behind `after`."""
        found = after - after % HOUR + HOUR
        while found // HOUR % 24 not in self.hours:
            found += HOUR
        return found

    def span(self, at: Instant) -> int:
        """Hours since the time before one that it is due at; 0 if it is due once."""
        every = range(1, 25) if self.every else ()
        return next((hours for hours in every if (at // HOUR - hours) % 24 in self.hours), 0)


def times(config: Mapping[str, Any] | None, name: str) -> Times:
    """What a ScheduleConfig says; without one a schedule is due daily, at an hour that follows from its name. Raises
    Refused."""
    if not config:
        return Times((hashlib.sha256(name.encode()).digest()[0] % 24,), 24)
    text = str(config["ScheduleExpression"])
    if text == NOW:
        return Times((), 0)
    found = _CRON.fullmatch(text)
    first, step = (int(found[2] or 0), int(found[3] or 24)) if found and not found[1] else (0, 1)
    if found is None or first > 23 or not 1 <= step <= 24:
        raise _wrong(
            f"Invalid ScheduleExpression {text[:100]}: it is cron(0 * ? * * *) for every hour, cron(0 12 ? * * *) for "
            "every day, cron(0 0/6 ? * * *) for every six hours, or NOW."
        )
    return Times(tuple(sorted({(first + hour) % 24 for hour in range(0, 24, step)})), step)


def offset(text: str, what: str) -> Instant:
    """How long before the scheduled time, of an ISO 8601 duration as ``-PT1H`` or ``P1D``; raises Refused."""
    found = _OFFSET.fullmatch(text)
    if found is None:
        raise _wrong(f"{what} is a duration before the scheduled time such as -PT1H, not {text[:20]}.")
    return sum(int(part or 0) * unit for part, unit in zip(found.groups(), _UNITS, strict=True)) * MICROS


def window(
    config: Mapping[str, Any] | None, source: Mapping[str, Any], at: Instant, every: int
) -> tuple[Instant, Instant]:
    """What an execution scheduled for `at` looks at, from the first moment to the one behind the last. source: the input,
    which may bring offsets; every: hours between executions. Raises Refused."""
    config = config or {}
    if every == 0 and not (config.get("DataAnalysisStartTime") and config.get("DataAnalysisEndTime")):
        raise _wrong("DataAnalysisStartTime and DataAnalysisEndTime are needed with the ScheduleExpression NOW.")
    start, end = at - every * HOUR, at
    for member, told in (("StartTimeOffset", source), ("DataAnalysisStartTime", config)):
        if told.get(member):
            start = at - offset(told[member], member)
    for member, told in (("EndTimeOffset", source), ("DataAnalysisEndTime", config)):
        if told.get(member):
            end = at - offset(told[member], member)
    if not start < end:
        raise _wrong("The end of the time to analyse must be behind its start.")
    if config.get("DataAnalysisStartTime") and end - start > DAY:
        raise _wrong("DataAnalysisEndTime must not follow DataAnalysisStartTime by more than 24 hours.")
    return start, end


def hours(start: Instant, end: Instant) -> Iterator[str]:
    """``2026/11/24/01`` of each hour that a window touches, in their order."""
    at = start - start % HOUR
    while at < end:
        yield folder(at)
        at += HOUR


def folder(at: Instant) -> str:
    """``2026/11/24/01``."""
    return re.sub(r"[-T]", "/", iso(at)[:13])

"""Schedules: when they are due next, in whose time."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain import MICROS
from bastide.domain.schedule import NoSchedule, Schedule, zone


def at(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp()) * MICROS


def told(due: int | None) -> str | None:
    return None if due is None else datetime.fromtimestamp(due / MICROS, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@pytest.mark.parametrize(
    ("text", "after", "due"),
    [
        ("cron(0 10 * * ? *)", "2026-01-01T10:00:00", "2026-01-02T10:00:00"),
        ("cron(15 12 * * ? *)", "2026-03-04T12:14:59", "2026-03-04T12:15:00"),
        ("cron(0 18 ? * MON-FRI *)", "2026-01-02T18:00:00", "2026-01-05T18:00:00"),
        ("cron(0/15 * * * ? *)", "2026-01-01T05:31:00", "2026-01-01T05:45:00"),
        ("cron(5,35 14 * * ? *)", "2026-01-01T14:05:00", "2026-01-01T14:35:00"),
        ("cron(0 8 1 JAN,JUL ? 2027)", "2026-02-01T00:00:00", "2027-01-01T08:00:00"),
        ("cron(0 8 1 * ? 2020)", "2026-02-01T00:00:00", None),
        ("cron(0 0 L * ? *)", "2026-02-01T00:00:00", "2026-02-28T00:00:00"),
        ("cron(0 0 L-2 * ? *)", "2028-02-01T00:00:00", "2028-02-27T00:00:00"),
        ("cron(0 0 15W * ? *)", "2026-08-01T00:00:00", "2026-08-14T00:00:00"),
        ("cron(0 0 1W * ? *)", "2026-07-31T00:00:00", "2026-08-03T00:00:00"),
        ("cron(0 0 LW * ? *)", "2026-05-01T00:00:00", "2026-05-29T00:00:00"),
        ("cron(0 0 ? * 6L *)", "2026-01-01T00:00:00", "2026-01-30T00:00:00"),
        ("cron(0 0 ? * MON#2 *)", "2026-01-01T00:00:00", "2026-01-12T00:00:00"),
        ("cron(0 0 29 2 ? *)", "2096-03-01T00:00:00", "2104-02-29T00:00:00"),
        ("at(2026-05-01T10:00:00)", "2026-01-01T00:00:00", "2026-05-01T10:00:00"),
        ("at(2026-05-01T10:00:00)", "2026-05-01T10:00:00", None),
        ("rate(5 minutes)", "2026-01-01T00:00:00", "2026-01-01T00:02:00"),
        ("rate(5 minutes)", "2026-01-01T00:02:00", "2026-01-01T00:07:00"),
        ("rate(1 day)", "2026-01-05T00:00:00", "2026-01-05T00:02:00"),
    ],
)
def test_what_is_due_next(text: str, after: str, due: str | None) -> None:
    found = Schedule.of(text).following(at(after), start=at("2026-01-01T00:02:00"), zone=ZoneInfo("UTC"))
    assert told(found) == due


@pytest.mark.parametrize(
    ("text", "after", "due"),
    [
        ("cron(0 9 * * ? *)", "2026-03-28T12:00:00", "2026-03-29T07:00:00"),  # the clocks went forward at night
        ("cron(0 9 * * ? *)", "2026-10-25T00:00:00", "2026-10-25T08:00:00"),
        ("cron(30 2 * * ? *)", "2026-03-28T12:00:00", "2026-03-30T00:30:00"),  # there is no such time on the 29th
        ("cron(30 2 * * ? *)", "2026-10-24T12:00:00", "2026-10-25T00:30:00"),  # there are two, and it is due once
        ("cron(30 2 * * ? *)", "2026-10-25T00:30:00", "2026-10-26T01:30:00"),
        ("at(2026-07-01T12:00:00)", "2026-01-01T00:00:00", "2026-07-01T10:00:00"),
    ],
)
def test_the_clock_of_a_time_zone(text: str, after: str, due: str) -> None:
    assert told(Schedule.of(text).following(at(after), start=0, zone=zone("Europe/Berlin"))) == due


@pytest.mark.parametrize(
    "text",
    [
        "rate(1 minutes)", "rate(5 minute)", "rate(0 hours)", "cron(0 10 * * * *)", "cron(60 * * * ? *)", "",
        "cron(* * * *)", "cron(0 0 32 * ? *)", "cron(0 0 ? * 8 *)", "cron(0 0 ? * MON#6 *)", "at(2026-13-01T00:00:00)",
        "cron(0 0 5-1 * ? *)",
        "cron(1/0 * * * ? *)", "cron(0 0 L-31 * ? *)", "at(tomorrow)", "cron(" + "1," * 200 + " * * * ? *)",
    ],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    with pytest.raises(NoSchedule):
        Schedule(text)


def test_zones_are_names_and_no_paths() -> None:
    for name in ("Nowhere/City", "../etc/passwd", "/etc/passwd", "", "x" * 500):
        with pytest.raises(NoSchedule):
            zone(name)


@given(
    st.integers(0, 59), st.integers(0, 23), st.integers(1, 28), st.integers(0, 4_000_000_000),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
)  # fmt: skip
def test_what_is_due_is_later_and_reads_as_it_was_written(
    minute: int, hour: int, day: int, seconds: int, name: str
) -> None:
    after = seconds * MICROS
    due = Schedule(f"cron({minute} {hour} {day} * ? *)").following(after, start=0, zone=zone(name))
    assert due is not None and after < due < after + 95 * 86400 * MICROS
    local = datetime.fromtimestamp(due // MICROS, ZoneInfo(name))
    assert (local.minute, local.hour, local.day, local.second) == (minute, hour, day, 0)

"""Values that go in come out: sums exactly, percentiles to a percent, for as long as they are kept."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain import MICROS
from bastide.engines.telemetry import Full, Meter, Point, Summary

DAY = 86400
NOW = 1_900_000_800
WHERE = ("111122223333", "us-east-1", "N", (("a", "1"), ("b", "2")))


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now * MICROS


def point(at: int, value: float, count: float = 1, *, name: str = "m", unit: str = "None", fine: bool = False) -> Point:
    return Point(*WHERE, name, unit, at, Summary.of(value, count), fine)


def put(path: Path, *points: Point, clock: Clock | None = None, **more: int) -> Meter:
    async def work() -> None:
        meter = Meter(path, clock or Clock(), **more)
        meter.start()
        await meter.put(points)
        await meter.close()

    asyncio.run(work())
    return Meter(path, clock or Clock(), **more)


VALUES = st.lists(st.floats(0, 1e12, allow_nan=False), min_size=1, max_size=80)


@given(VALUES, VALUES, st.sampled_from([0, 10, 50, 90, 99, 99.9, 100]))
def test_percentiles_of_merged_summaries_are_right_to_a_percent(one: list[float], two: list[float], p: float) -> None:
    summaries = []
    for values in (one, two):
        summary = Summary.of(values[0])
        for value in values[1:]:
            summary.add(Summary.of(value))
        summaries.append(Summary.unpack(summary.count, summary.total, summary.low, summary.high, summary.packed()))
    summaries[0].add(summaries[1])
    whole, every = summaries[0], sorted(one + two)
    assert (whole.count, whole.low, whole.high) == (len(every), every[0], every[-1])
    assert math.isclose(whole.total, math.fsum(every), rel_tol=1e-9, abs_tol=1e-9)
    exact = every[max(0, math.ceil(len(every) * p / 100) - 1)]
    found = whole.percentile(p)
    assert found is not None and math.isclose(found, exact, rel_tol=0.0101, abs_tol=1e-290)


def test_what_lies_between_the_ends_of_a_statistic_set_is_not_invented() -> None:
    summary = Summary(10, 55, 1, 10, known=False)
    assert summary.percentile(50) is None and summary.trimmed(10, 90) is None
    summary.add(Summary.of(3))
    assert (summary.count, summary.percentile(50)) == (11, None)
    negative = Summary.of(-1)
    negative.add(Summary.of(1))
    assert negative.percentile(50) is None


def test_reading_by_any_period_finds_the_same_sum(tmp_path: Path) -> None:
    start = NOW // 3600 * 3600 - 7200
    meter = put(tmp_path / "m.db", *(point(start + n, n % 7, fine=True) for n in range(0, 7200, 13)))
    exact = sum(n % 7 for n in range(0, 7200, 13))
    for period in (1, 5, 10, 30, 60, 300, 900, 3600, 7200):
        periods = meter.read(*WHERE, "m", start, start + 7200, period)["None"]
        assert sum(one.total for one in periods.values()) == exact
        assert all((at - start) % period == 0 for at in periods)
    shifted = meter.read(*WHERE, "m", start + 420, start + 420 + 600, 300)["None"]
    assert sum(one.count for one in shifted.values()) == len([n for n in range(0, 7200, 13) if 420 <= n < 1020])
    assert sorted(shifted) == [start + 420, start + 720]


def test_units_are_kept_apart_and_a_restart_forgets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    put(path, point(NOW, 1, unit="Seconds"), point(NOW, 2, unit="Count"))
    meter = put(path, point(NOW, 3, unit="Count"))
    start = NOW // 60 * 60
    found = meter.read(*WHERE, "m", start, start + 60, 60)
    assert {unit: one[start].total for unit, one in found.items()} == {"Seconds": 1, "Count": 5}
    assert list(meter.read(*WHERE, "m", start, start + 60, 60, "Count")) == ["Count"]


def test_rows_go_when_their_time_is_over(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "m.db"
    put(path, point(NOW, 1, fine=True), clock=clock)
    start = NOW // 3600 * 3600

    def left() -> list[int]:
        meter = put(path, clock=clock)
        return [period for period in (1, 60, 300, 3600) if meter.read(*WHERE, "m", start, start + 3600, period)]

    assert left() == [1, 60, 300, 3600]
    for days, kept in ((1, [60, 300, 3600]), (17, [300, 3600]), (71, [3600]), (490, [])):
        clock.now = NOW + days * DAY
        assert left() == kept
    clock.now = NOW + 560 * DAY
    assert put(path, clock=clock).metrics(*WHERE[:2]) == []


def test_a_configured_age_is_shorter(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "m.db"
    put(path, point(NOW, 1), clock=clock, days=2)
    clock.now += 33 * DAY
    meter = put(path, clock=clock, days=2)
    assert not any(meter.read(*WHERE, "m", NOW // 3600 * 3600, NOW + 3600, period) for period in (60, 300, 3600))


def test_metrics_are_found_by_their_parts_page_by_page(tmp_path: Path) -> None:
    meter = put(tmp_path / "m.db", *(point(NOW, 1, name=f"m{n}") for n in range(7)))
    where, seen, after = WHERE[:2], [], 0
    while page := meter.metrics(*where, dimensions=[("a", "1"), ("b", None)], after=after, limit=3):
        seen += [one.name for one in page]
        after = page[-1].id
    assert seen == [f"m{n}" for n in range(7)]
    assert [one.name for one in meter.metrics(*where, namespace="N", name="m3")] == ["m3"]
    assert meter.metrics(*where, dimensions=[("a", "2")]) == meter.metrics(*where, dimensions=[("c", None)]) == []
    assert meter.metrics("444455556666", "us-east-1") == meter.metrics(WHERE[0], "eu-west-1") == []


def test_a_full_meter_takes_no_more_and_says_so(tmp_path: Path) -> None:
    async def work() -> None:
        meter = Meter(tmp_path / "m.db", Clock(), limit_bytes=1)
        meter.start()
        await meter.put([point(NOW, 1)])
        with pytest.raises(Full):
            await meter.put([point(NOW, 1)])
        meter.record(*WHERE, "m", 1.0)
        await meter.close()
        assert meter.lost == 1

    asyncio.run(work())


def test_recorded_values_are_there_after_closing(tmp_path: Path) -> None:
    async def work() -> None:
        meter = Meter(tmp_path / "m.db", Clock())
        meter.start()
        for n in range(10_000):
            meter.record(*WHERE, "m", float(n))
        await meter.close()

    asyncio.run(work())
    periods = Meter(tmp_path / "m.db", Clock()).read(*WHERE, "m", NOW // 60 * 60, NOW + 60, 60)["None"]
    [summary] = periods.values()
    assert (summary.count, summary.total) == (10_000, sum(range(10_000)))
    assert summary.percentile(50) == pytest.approx(5000, rel=0.011)

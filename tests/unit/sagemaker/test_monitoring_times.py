"""When monitoring schedules are due: at their hours, one after the other, and together they look at all time there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain import MICROS, Refused
from bastide.services.sagemaker.monitoring_times import DAY, HOUR, NOW, hours, offset, times, window

INSTANTS = st.integers(0, 4_000_000_000).map(lambda seconds: seconds * MICROS + 7)
EXPRESSIONS = st.one_of(
    st.just("cron(0 * ? * * *)"),
    st.integers(0, 23).map(lambda hour: f"cron(0 {hour} ? * * *)"),
    st.tuples(st.integers(0, 23), st.integers(1, 24)).map(lambda two: f"cron(0 {two[0]}/{two[1]} ? * * *)"),
)


@given(EXPRESSIONS, INSTANTS)
def test_the_next_time_is_the_first_of_its_hours(expression: str, after: int) -> None:
    when = times({"ScheduleExpression": expression}, "s")
    due = when.following(after)
    assert after < due <= after + DAY and due % HOUR == 0
    between = range(after - after % HOUR + HOUR, due, HOUR)
    assert due // HOUR % 24 in when.hours and not any(at // HOUR % 24 in when.hours for at in between)


@given(EXPRESSIONS, INSTANTS)
def test_windows_follow_each_other_without_a_gap(expression: str, after: int) -> None:
    config = {"ScheduleExpression": expression}
    when = times(config, "s")
    due = when.following(after)
    following = when.following(due)
    assert window(config, {}, following, when.span(following)) == (due, following)
    assert len(list(hours(due, following))) == when.span(following) <= when.every


@given(st.text(max_size=40))
def test_any_other_text_is_refused_in_words(text: str) -> None:
    with pytest.raises(Refused, match="ValidationException"):
        times({"ScheduleExpression": f"{text}!"}, "s")


def test_without_a_schedule_it_is_due_daily() -> None:
    when = times(None, "a-name")
    assert (len(when.hours), when.every) == (1, 24) and times(None, "a-name") == when


def test_offsets_lead_back_from_the_scheduled_time() -> None:
    assert offset("-PT1H", "x") == offset("PT60M", "x") == HOUR
    assert offset("P3D", "x") == 3 * DAY and offset("-PT0H", "x") == 0
    source = {"StartTimeOffset": "P3D", "EndTimeOffset": "P1D"}
    assert window({}, source, 10 * DAY, 24) == (7 * DAY, 9 * DAY)
    now = {"ScheduleExpression": NOW, "DataAnalysisStartTime": "-PT2H", "DataAnalysisEndTime": "-PT1H"}
    assert window(now, {}, DAY, 0) == (DAY - 2 * HOUR, DAY - HOUR)
    for config, source in (
        ({"ScheduleExpression": NOW}, {}),
        ({**now, "DataAnalysisStartTime": "-PT1H"}, {}),
        ({**now, "DataAnalysisStartTime": "-PT26H"}, {}),
        ({}, {"StartTimeOffset": "tomorrow"}),
        ({}, {"StartTimeOffset": "P"}),
    ):
        with pytest.raises(Refused):
            window(config, source, DAY, 1 if source else 0)

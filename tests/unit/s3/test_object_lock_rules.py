"""The rules of Object Lock: whatever is asked for, nothing that holds a version is held less."""

from __future__ import annotations

import copy
import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain import MICROS, Refused
from bastide.services.s3 import lock

NOW = 1_700_000_000 * MICROS
WHEN = st.integers(-10 * MICROS, 10 * MICROS).map(lambda by: NOW + by)
LOCKS = st.fixed_dictionaries(
    {"mode": st.sampled_from(lock.MODES), "until": WHEN.map(lambda at: at // MICROS * MICROS)},
    optional={"hold": st.booleans()},
)
WANTED = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"Mode": st.sampled_from((*lock.MODES, "x")), "RetainUntilDate": WHEN}),
    st.fixed_dictionaries({"Mode": st.sampled_from(lock.MODES)}),
    st.fixed_dictionaries({"RetainUntilDate": WHEN}),
)


def refused(doc: dict[str, Any], now: int, bypass: bool) -> bool:
    try:
        lock.refuse_locked(doc, now, bypass=bypass)
    except Refused:
        return True
    return False


@given(LOCKS, WANTED, st.booleans(), st.integers(0, 20 * MICROS))
def test_nothing_that_is_held_is_held_less(held: dict[str, Any], wanted: dict[str, Any], bypass: bool, on: int) -> None:
    doc = {"lock": held}
    before = copy.deepcopy(doc)
    try:
        lock.change(doc, wanted, NOW, bypass=bypass)
    except Refused:
        assert doc == before
    if lock.retained(before, NOW) == lock.COMPLIANCE or not bypass:
        # At any later moment, to those with the bypass and those without, it is refused at least as it was.
        for passing in (False, True):
            assert refused(doc, NOW + on, passing) >= refused(before, NOW + on, passing)
    assert doc.get("lock", {}).get("hold") == held.get("hold")


@given(LOCKS, st.integers(0, 20 * MICROS), st.booleans())
def test_what_holds_a_version(held: dict[str, Any], on: int, bypass: bool) -> None:
    at = NOW + on
    retained = held["until"] > at and not (bypass and held["mode"] == lock.GOVERNANCE)
    assert refused({"lock": held}, at, bypass) is bool(held.get("hold") or retained)


@given(WHEN)
def test_a_date_is_kept_in_whole_seconds_and_never_shorter(at: int) -> None:
    if at <= NOW - MICROS:
        with pytest.raises(Refused):
            lock.until_of(at, NOW)
    elif at > NOW:
        kept = lock.until_of(at, NOW)
        assert kept % MICROS == 0 and at <= kept < at + MICROS


def test_a_year_is_one_of_the_calendar() -> None:
    start = datetime.datetime(2028, 2, 29, 12, tzinfo=datetime.UTC)
    for years, end in ((1, (2029, 3, 1)), (4, (2032, 2, 29)), (10, (2038, 3, 1))):
        until = lock._after(int(start.timestamp()) * MICROS, {"Mode": "COMPLIANCE", "Years": years})
        assert until == int(datetime.datetime(*end, 12, tzinfo=datetime.UTC).timestamp()) * MICROS

"""What a call counts as."""

from __future__ import annotations

import asyncio

import pytest

from bastide.engines.serving import Answer, Loading, Lost, NoModel, NotLoaded, NotReady, Slow, Throttled
from bastide.services.sagemaker.observing import counted


@pytest.mark.parametrize(
    ("outcome", "status", "at_fault"),
    [
        (Answer(200), 200, False),
        (Answer(415), 415, True),
        (Answer(503), 503, True),
        (NotLoaded(Answer(507)), 507, True),
        (NotReady("Variant x not found."), 400, False),
        (NotReady(), 503, True),
        (NoModel("none"), 400, False),
        (Throttled(), 429, False),
        (Loading(), 429, False),
        (Lost("it closed the connection"), 500, True),
        (Slow("primary"), 500, True),
        (RuntimeError(), 500, False),
        (asyncio.CancelledError(), 0, False),
    ],
)
def test_whose_mistake_it_was_decides_what_is_counted(
    outcome: Answer | BaseException, status: int, at_fault: bool
) -> None:
    assert counted(outcome) == (status, at_fault)

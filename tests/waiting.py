"""Waiting for what comes by itself, as long as a loaded machine may need; if it never comes, what was seen instead."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SECONDS = 60.0
"""Long enough for a machine on which four tests run at a time on two processors."""


def until(look: Callable[[], T], seconds: float = SECONDS, *, told: Callable[[], object] | None = None) -> T:
    """What `look` finds, once it finds something; fails with what it found last, and with what `told` says then."""
    ends = time.monotonic() + seconds
    while True:
        # The last look begins after the end: a process that stood still has seen what came meanwhile.
        late = time.monotonic() > ends
        if found := look():
            return found
        if late:
            more = "" if told is None else f"; {told()}"
            raise AssertionError(f"it does not come within {seconds:.0f} s: last seen was {found!r}{more}")
        time.sleep(0.05)

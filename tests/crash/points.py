"""Where the platform is killed."""

from __future__ import annotations

import os
from collections.abc import Sequence


def around(flow: str, *steps: str) -> Sequence[str]:
    """Before and after every step of a flow in `make crash`; every fifth of these in the tests that CI runs."""
    points = [f"{flow}/{step}:{when}" for step in steps for when in ("before", "after")]
    return points if "BASTIDE_CRASH_ROUNDS" in os.environ else points[::5]

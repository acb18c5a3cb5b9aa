"""Where the platform is killed."""

from __future__ import annotations

import os
from collections.abc import Sequence


def around(flow: str, *steps: str) -> Sequence[str]:
    """Before and after every step of a flow in `make crash`; in the tests that CI runs, before and after in turn."""
    points = [f"{flow}/{step}:{when}" for step in steps for when in ("before", "after")]
    return (
        points if "BASTIDE_CRASH_ROUNDS" in os.environ else [one for at, one in enumerate(points) if at % 4 in (0, 3)]
    )

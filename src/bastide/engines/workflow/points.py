"""Named points where a test may end this process as a fire would.

Harmless in production: the one thing it can do is end the process that was started with `BASTIDE_TEST_KILL_AT` in its
environment, once, at that point. Who sets a process's environment can end it anyway, and an ended platform goes on where
it was when it is started again; that is what the crash tests show.
"""

from __future__ import annotations

import os
import signal

_KILL_AT = os.environ.get("BASTIDE_TEST_KILL_AT", "")


def reach(point: str) -> None:
    """The work has come to `point`."""
    if _KILL_AT and point == _KILL_AT:
        os.kill(os.getpid(), signal.SIGKILL)

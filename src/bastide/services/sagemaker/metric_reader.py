"""Finds metrics in log lines; a program of its own, because the expressions are a stranger's and may run for ever.

Reads a JSON list of [name, expression] as the first line of its input, then log lines; writes a JSON line ``[name, value]``
for every match. An expression that takes longer than a twentieth of a second on a line three times is not tried again.
Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import resource
import signal
import sys
from typing import Any

LONGEST = 8192
SECONDS = 0.05
PATIENCE = 3
CPU_SECONDS = 3600
MEMORY = 512 << 20


class Slow(Exception):  # noqa: N818
    """The expression takes too long."""


def _slow(*_: Any) -> None:
    raise Slow


def confine() -> None:
    """Gives up what a reader of lines does not need."""
    "".encode("latin-1")  # loaded now: no file can be opened later
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    for what, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 3),
    ):
        resource.setrlimit(what, (most, most))


def main() -> None:
    """Until the input ends."""
    confine()
    signal.signal(signal.SIGALRM, _slow)
    source = sys.stdin.buffer
    wanted = []
    for name, expression in json.loads(source.readline()):
        with contextlib.suppress(re.error, RecursionError):
            wanted.append([name, re.compile(expression), 0])
    while raw := source.readline():
        line = raw[:LONGEST].decode("utf-8", "replace").rstrip("\r\n")
        for one in wanted:
            if one[2] >= PATIENCE:
                continue
            try:
                signal.setitimer(signal.ITIMER_REAL, SECONDS)
                match = one[1].search(line)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Slow:
                one[2] += 1
                continue
            if match is None or not match.re.groups:
                continue
            with contextlib.suppress(ValueError, TypeError):
                value = float(match[1])
                if math.isfinite(value):
                    sys.stdout.write(json.dumps([one[0], value]) + "\n")
                    sys.stdout.flush()


if __name__ == "__main__":
    main()

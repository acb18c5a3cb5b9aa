"""`make conformance [SUITE=name]`: what others wrote about AWS's behaviour, held against ours."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

SUITES = {
    "protocols": "tests.conformance.protocols",
    "iam": "tests.conformance.iam",
    "s3": "tests.conformance.s3",
    "stacks": "tests.conformance.stacks",
    "asl": "tests.conformance.asl",
    "records": "tests.conformance.records",
}
FETCHED = {"s3", "stacks", "records"}
"""Suites that are a checkout of their own, not a folder of cases; they run when they are named."""


def main() -> int:
    """Runs every suite, or the one named; ends each with `N passed, N failed`."""
    folder = Path(os.environ.get("BASTIDE_CONFORMANCE", "../shared/conformance"))
    chosen = sys.argv[1:] or [name for name in SUITES if name not in FETCHED]
    worst = 0
    for name in chosen:
        if name not in SUITES:
            print(f"there is no suite `{name}`; there are: {', '.join(SUITES)}")
            return 2
        if name not in FETCHED and not (folder / name).is_dir():
            print(f"{name}: no cases below {folder}; set BASTIDE_CONFORMANCE to their folder")
            return 2
        print(f"== {name}")
        passed, failed = importlib.import_module(SUITES[name]).run(folder / name, True)
        print(f"{passed} passed, {failed} failed")
        worst = max(worst, 1 if failed else 0)
    return worst


if __name__ == "__main__":
    sys.exit(main())

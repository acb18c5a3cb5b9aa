"""``python -m tests.sdk [NAME ...]``: programs against a platform of their own, and a table of how they ended."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.clients.environments import build
from tests.platform import Running
from tests.sdk.catalogue import PROGRAMS
from tests.sdk.harness import Outcome, attempt_all


def main(words: list[str]) -> int:
    """Returns 0 if every program ended as the catalogue says."""
    chosen = [one for one in PROGRAMS if not words or any(word in one.name for word in words)]
    for name in sorted({one.environment for one in chosen}):
        build(name, lambda line: print(line, flush=True))
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="bastide-sdk-") as folder:
        platform = Running(Path(folder) / "platform" / "data")
        platform.data.parent.mkdir()
        platform.start()
        try:
            platform.found()
            at_once = int(os.environ.get("BASTIDE_SDK_AT_ONCE", "3"))
            for one in attempt_all(platform, chosen, Path(folder) / "homes", at_once):
                outcomes.append(one)
                print(f"{one.program.name}: {one.fault or one.note or 'passed'} ({one.seconds:.0f} s)", flush=True)
                if one.fault:
                    print(one.told[-6000:], flush=True)
        finally:
            platform.stop()
    table = Table("program", "seconds", "outcome")
    order = [one.name for one in PROGRAMS]
    for one in sorted(outcomes, key=lambda outcome: order.index(outcome.program.name)):
        table.add_row(
            one.program.name, f"{one.seconds:.0f}", f"FAILED {one.fault}" if one.fault else one.note or "passed"
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return int(any(one.fault for one in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

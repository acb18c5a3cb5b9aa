"""``python -m tests.bench.landing [--repeats N]``: seconds of `plan`, `apply`, `apply` again, `drift`, `destroy`.

Each repetition has a platform of its own and the default blueprint: six accounts, five networks with ten endpoints each,
guardrails, keys, buckets, roles, people. Nothing is asserted about time; what stands is counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.platform import PROGRAM, Running


def _asked(platform: Running, *words: str) -> tuple[float, Any]:
    began = time.perf_counter()
    done = subprocess.run(
        [*PROGRAM, "landing", words[0], "--data", str(platform.data), *words[1:]],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"bastide landing {words[0]}: {done.stderr}{done.stdout[-2000:]}")
    return time.perf_counter() - began, json.loads(done.stdout) if "--json" in words else None


def measured() -> Iterator[tuple[str, float, str]]:
    """Each command, its seconds and what it did."""
    with tempfile.TemporaryDirectory() as place:
        platform = Running(Path(place) / "data")
        platform.start()
        try:
            file = str(Path(place) / "landing.yaml")
            _asked(platform, "init", file)
            took, told = _asked(platform, "plan", file, "--json")
            yield "plan", took, f"{sum(len(one['resources']) for one in told['stacks'])} resources"
            took, told = _asked(platform, "apply", file, "--yes", "--json")
            yield "apply", took, f"{len(told['stacks'])} stacks in {len(told['accounts']) + 1} accounts"
            took, told = _asked(platform, "apply", file, "--yes", "--json")
            yield "apply, nothing to do", took, f"{sum(one['what'] == 'unchanged' for one in told['stacks'])} unchanged"
            took, told = _asked(platform, "drift", file, "--json")
            yield "drift", took, f"{len(told)} differences"
            took, told = _asked(platform, "destroy", file, "--yes", "--json", "--empty-buckets")
            yield "destroy", took, f"{len(told['stacks'])} stacks"
        finally:
            platform.stop()


def main() -> int:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    found: dict[str, list[float]] = {}
    what: dict[str, str] = {}
    for _ in range(parser.parse_args().repeats):
        for name, took, did in measured():
            found.setdefault(name, []).append(took)
            what[name] = did
    table = Table(
        "bastide landing", "median s", "worst s", "what", title="the default landing zone, a process a command"
    )
    for name, times in found.items():
        table.add_row(name, f"{median(times):.2f}", f"{max(times):.2f}", what[name])
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

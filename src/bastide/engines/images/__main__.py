"""``python -m bastide.engines.images build NAME [--root DIR]``: build an environment, or say which there are."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bastide.engines.images.environment import build, default_root, names


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="python -m bastide.engines.images")
    verbs = parser.add_subparsers(dest="verb", required=True)
    building = verbs.add_parser("build", help="build an environment")
    building.add_argument("name", choices=names())
    building.add_argument("--root", type=Path, default=default_root(), help="where environments stand")
    verbs.add_parser("list", help="list the environments that can be built")
    chosen = parser.parse_args(arguments)
    if chosen.verb == "list":
        sys.stdout.write("".join(f"{name}\n" for name in names()))
        return 0
    try:
        build(chosen.name, chosen.root, lambda line: print(line, flush=True))  # noqa: T201 - the command line's answer
    except (OSError, RuntimeError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

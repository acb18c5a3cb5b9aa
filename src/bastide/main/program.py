"""The program `bastide`: the clients' commands, and those that run the platform itself."""

from __future__ import annotations

import gc

from bastide.commands import cli

cli.later("bastide.main.run", "init", "up", "rotate-root-key")
cli.later("bastide.main.node", "node")
cli.later("bastide.main.backup", "backup", "restore")
cli.later("bastide.main.mirrors", "packages")
cli.later("bastide.main.verify", "verify")


def main() -> None:
    """Entry point of the command line."""
    # Little of what a start makes is garbage: looking for it every 700 objects was a fifth of the start.
    gc.set_threshold(50_000, 10, 10)
    cli(prog_name="bastide")

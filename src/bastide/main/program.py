"""The program `bastide`: the clients' commands, and those that run the platform itself."""

from __future__ import annotations

from bastide.commands import cli
from bastide.main.run import init, up

cli.add_command(init)
cli.add_command(up)


def main() -> None:
    """Entry point of the command line."""
    cli(prog_name="bastide")

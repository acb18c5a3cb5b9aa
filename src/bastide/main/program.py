"""The program `bastide`: the clients' commands, and those that run the platform itself."""

from __future__ import annotations

from bastide.commands import cli
from bastide.main.backup import backup, restore
from bastide.main.node import node
from bastide.main.run import init, rotate_root_key, up
from bastide.main.verify import verify

for command in (init, up, node, backup, restore, rotate_root_key, verify):
    cli.add_command(command)


def main() -> None:
    """Entry point of the command line."""
    cli(prog_name="bastide")

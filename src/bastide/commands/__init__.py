"""The command line: a client of the platform like any other, with tables for people and JSON for programs."""

from bastide.commands.cli import DATA_OPTION, cli

__all__ = ["DATA_OPTION", "cli"]

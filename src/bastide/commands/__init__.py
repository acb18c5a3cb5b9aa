"""The command line: a client of the platform like any other, with tables for people and JSON for programs."""

from bastide.commands.cli import cli
from bastide.commands.options import DATA_OPTION

__all__ = ["DATA_OPTION", "cli"]

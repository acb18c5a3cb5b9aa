"""Options of several commands that run or make platforms."""

from __future__ import annotations

import click

from bastide.engines.artifacts.place import SYNTAX

OBJECTS_OPTION = click.option(
    "--object-store",
    "objects",
    default="",
    help=f"Where objects lie, if not below DATA: {SYNTAX}. Its bucket exists, and below its prefix there is nothing. "
    "Credentials come from the file, or from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
)

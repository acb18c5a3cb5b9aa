"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path

import click

_DEFAULT = Path(os.environ.get("XDG_DATA_HOME", str(Path.home() / ".local" / "share"))) / "bastide"

DATA_OPTION = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="BASTIDE_DATA",
    default=_DEFAULT,
    show_default=True,
    help="The platform's data directory (also BASTIDE_DATA).",
)

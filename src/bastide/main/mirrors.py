"""`bastide packages`: what the operator brings to a platform that reaches nothing outside."""

from __future__ import annotations

from pathlib import Path

import click

from bastide.commands import DATA_OPTION
from bastide.engines.indexes import Mismatch, PublicIndex
from bastide.services import codeartifact
from bastide.store.directory import DataDirectory


@click.group()
def packages() -> None:
    """The mirror of public Python packages that repositories may be connected to."""


@packages.command()
@DATA_OPTION
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def load(data: Path, folder: Path) -> None:
    """Take the wheels and source distributions of FOLDER into the mirror, also while the platform serves.

    Repositories with the external connection public:pypi give them out, and keep what somebody installed. A file never
    changes: one of the same name with other bytes is refused.
    """
    directory = DataDirectory(data)
    if not directory.configuration.exists():
        raise click.ClickException(f"{data} holds no platform; make one with `bastide init --data {data}`")
    try:
        new, passed = PublicIndex(directory.packages).load(folder, lambda name: codeartifact.of_file(name)[0])
    except Mismatch as mismatch:
        raise click.ClickException(str(mismatch)) from None
    for line in passed:
        click.echo(f"passed over {line}", err=True)
    click.echo(f"{new} new distributions in the mirror")

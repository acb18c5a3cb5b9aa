"""`bastide packages`, `bastide advisories`: what the operator brings to a platform that reaches nothing outside."""

from __future__ import annotations

from pathlib import Path

import click

from bastide.commands import DATA_OPTION
from bastide.engines.advisories import Advisories
from bastide.engines.indexes import Mismatch, PublicIndex
from bastide.engines.indexes.channels import Channels
from bastide.services import codeartifact
from bastide.store.directory import DataDirectory


@click.group()
def packages() -> None:
    """The mirrors of public Python packages and conda channels that repositories may be connected to."""


def _directory(data: Path) -> DataDirectory:
    directory = DataDirectory(data)
    if not directory.configuration.exists():
        raise click.ClickException(f"{data} holds no platform; make one with `bastide init --data {data}`")
    return directory


@packages.command()
@DATA_OPTION
@click.option("--channel", default="", help="FOLDER is a conda channel, which is called so, as conda-forge.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def load(data: Path, channel: str, folder: Path) -> None:
    """Take the wheels and source distributions of FOLDER into the mirror, also while the platform serves.

    Repositories with the external connection public:pypi give them out, and keep what somebody installed. A file never
    changes: one of the same name with other bytes is refused.

    With --channel FOLDER has noarch/repodata.json and the like, with the packages that they list; repositories with the
    external connection public:CHANNEL give those out.
    """
    directory = _directory(data)
    try:
        if channel:
            new, passed = Channels(directory.packages / "channels").load(folder, channel)
        else:
            new, passed = PublicIndex(directory.packages).load(folder, lambda name: codeartifact.of_file(name)[0])
    except (Mismatch, ValueError) as wrong:
        raise click.ClickException(str(wrong)) from None
    for line in passed:
        click.echo(f"passed over {line}", err=True)
    click.echo(f"{new} new {'packages in the channel' if channel else 'distributions in the mirror'}")


@click.group()
def advisories() -> None:
    """Known vulnerabilities, which images are scanned for."""


@advisories.command("load")
@DATA_OPTION
@click.argument("source", type=click.Path(exists=True, path_type=Path))
def load_advisories(data: Path, source: Path) -> None:
    """Take the advisories of SOURCE in, also while the platform serves: files in the OSV format, or archives of them.

    A newer version of an advisory replaces the one that is there; one that was withdrawn goes. Images that are scanned
    continuously are held against them at once.
    """
    count, passed = Advisories(_directory(data).advisories).load(source)
    for line in passed[:20]:
        click.echo(f"passed over {line}", err=True)
    if len(passed) > 20:
        click.echo(f"passed over {len(passed) - 20} more", err=True)
    click.echo(f"{count} advisories")

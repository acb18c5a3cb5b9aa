"""`bastide doctor`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bastide.commands.options import DATA_OPTION
from bastide.engines.artifacts import Place, PlaceError
from bastide.jail.probe import Finding, probe
from bastide.store.directory import DataDirectory


@click.command()
@DATA_OPTION
@click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True)
def doctor(data: Path, shape: str) -> None:
    """Tell what this machine can do: sandboxes, encrypted volumes, networks, GPU; and how to get what it lacks. Of a
    platform in DATA whose objects lie in a store elsewhere, tell whether that serves.

    Ends with 1 if something is missing without which jobs cannot run.
    """
    findings = [*probe(), *_objects(DataDirectory(data))]
    if shape == "json":
        click.echo(json.dumps([{"name": f.name, "ok": f.ok, "detail": f.detail, "remedy": f.remedy} for f in findings]))
    else:
        table = Table(title="What this machine can do")
        for heading in ("", "part", "found", "what to do"):
            table.add_column(heading, overflow="fold")
        for one in findings:
            table.add_row(
                "[green]ok[/]" if one.ok else "[yellow]--[/]", one.name, one.detail, "" if one.ok else one.remedy
            )
        Console().print(table)
    if not all(one.ok or not one.required for one in findings):
        sys.exit(1)


def _objects(directory: DataDirectory) -> list[Finding]:
    try:
        url = directory.load().objects
    except (OSError, ValueError, KeyError):  # no platform, or one of somebody else's
        return []
    if not url:
        return []
    from bastide.engines.artifacts.drivers.bucket import Bucket  # noqa: PLC0415 - slow to load, and few need it

    try:
        place = Place.parse(url)
        Bucket(place).reach()
    except PlaceError as error:
        return [Finding("store of objects", False, str(error), "see docs/s3.md, At rest; without it nothing starts")]
    return [Finding("store of objects", True, str(place))]

"""`bastide doctor`."""

from __future__ import annotations

import json
import sys

import click
from rich.console import Console
from rich.table import Table

from bastide.jail.probe import probe


@click.command()
@click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True)
def doctor(shape: str) -> None:
    """Tell what this machine can do: sandboxes, encrypted volumes, networks, GPU; and how to get what it lacks.

    Ends with 1 if something is missing without which jobs cannot run.
    """
    findings = probe()
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

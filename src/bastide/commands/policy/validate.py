"""`bastide policy validate`: a document checked as the platform checks it when it is attached."""

from __future__ import annotations

import json
from pathlib import Path

import click

from bastide.domain import Refused
from bastide.policy import Document, Form


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--type",
    "form",
    type=click.Choice([one.value for one in Form]),
    default=Form.IDENTITY.value,
    show_default=True,
    help="What the document is used as.",
)
@click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True)
def validate(files: tuple[Path, ...], form: str, shape: str) -> None:
    """Check policy documents before they are attached; needs no platform. Ends with 1 if one is not valid.

    Findings beyond validity come from the running platform: `aws accessanalyzer validate-policy`.
    """
    told = []
    for path in files:
        try:
            document = Document.parse(path.read_bytes(), Form(form))
        except Refused as refused:
            told.append({"file": str(path), "valid": False, "why": refused.message})
        else:
            told.append({"file": str(path), "valid": True, "statements": len(document.statements)})
    if shape == "json":
        click.echo(json.dumps(told, indent=2))
    else:
        for one in told:
            found = f"valid, {one['statements']} statements" if one["valid"] else one["why"]
            click.echo(f"{one['file']}: {found}")
    if not all(one["valid"] for one in told):
        raise SystemExit(1)

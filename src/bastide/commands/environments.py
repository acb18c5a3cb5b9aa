"""`bastide environments`: what images run here, and building them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bastide.engines import images

_ROOT = click.option(
    "--root", type=click.Path(path_type=Path), help="Where environments stand; the installation's if left out."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_MEBI = 1 << 20


@click.group()
def environments() -> None:
    """The environments that images mean, built on this machine."""


def _size(folder: str) -> int:
    """Bytes of the files below a folder."""
    found = 0
    with os.scandir(folder) as entries:
        for one in entries:
            if one.is_dir(follow_symlinks=False):
                found += _size(one.path)
            else:
                found += one.stat(follow_symlinks=False).st_size
    return found


def _told(name: str, root: Path | None) -> dict[str, Any]:
    built = images.is_built(name, root)
    behind = images.images_of(name)
    return {
        "name": name,
        "built": built,
        "digest": images.digest_of(name),
        "bytes": _size(str(images.place_of(name, root))) if built else None,
        "images": [f"{image.repository}:{tag}" for image in behind for tag in image.examples],
        "algorithms": sorted(image.algorithm for image in behind if image.algorithm),
    }


@environments.command("list")
@_ROOT
@_JSON
def list_(root: Path | None, as_json: bool) -> None:
    """Every environment: whether it is built, its size, its images."""
    found = [_told(name, root) for name in images.names()]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("ENVIRONMENT", "BUILT", "MIB", "DIGEST", "IMAGES"):
        table.add_column(column, justify="right" if column == "MIB" else "left", overflow="fold")
    for one in found:
        size = "" if one["bytes"] is None else f"{one['bytes'] / _MEBI:,.0f}"
        repositories = sorted({image.partition(":")[0] for image in one["images"]})
        digest = one["digest"].removeprefix("sha256:")[:12]
        table.add_row(one["name"], "yes" if one["built"] else "no", size, digest, ", ".join(repositories))
    Console().print(table)


@environments.command()
@click.argument("name", type=click.Choice(images.names()), nargs=-1, required=True)
@_ROOT
def build(name: tuple[str, ...], root: Path | None) -> None:
    """Builds environments from their locks; those that stand are left."""
    for one in name:
        try:
            images.build(one, root, click.echo)
        except (OSError, RuntimeError) as error:
            raise click.ClickException(str(error)) from None


@environments.command()
@click.argument("name", type=click.Choice(images.names()))
@_ROOT
@_JSON
def show(name: str, root: Path | None, as_json: bool) -> None:
    """An environment: its digest, the images that mean it, its packages."""
    found = {**_told(name, root), "packages": images.packages(name)}
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{name}  {found['digest']}")
    console.print("built" if found["built"] else f"not built: bastide environments build {name}")
    if found["bytes"] is not None:
        console.print(f"{found['bytes'] / _MEBI:,.0f} MiB in {images.place_of(name, root)}")
    console.print("images: " + ", ".join(found["images"]))
    if found["algorithms"]:
        console.print("built-in algorithms: " + ", ".join(found["algorithms"]))
    console.print("packages: " + ", ".join(f"{one} {version}" for one, version in found["packages"].items()))

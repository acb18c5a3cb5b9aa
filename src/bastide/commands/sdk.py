"""`bastide sdk`: what the SageMaker Python SDK needs beside an endpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import botocore.loaders
import click
import yaml

from bastide.commands.client import Platform
from bastide.commands.options import DATA_OPTION

_MARK: Final = "bastideEndpoint"


def _endpoints(url: str) -> dict[str, Any]:
    """botocore's table of endpoints with STS of every region at `url`.

    The SDKs build their STS client from this table (sagemaker 2.257 `session.py`, sagemaker-core 2.27
    `helper/session_helper.py`: `sts_regional_endpoint`) and look at no environment variable or profile.
    """
    loader = botocore.loaders.Loader([botocore.loaders.Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)
    found: dict[str, Any] = loader.load_data("endpoints")
    host = urlsplit(url).netloc
    for partition in found["partitions"]:
        endpoints = partition["services"].get("sts", {}).get("endpoints", {})
        for name in [*partition["regions"], *endpoints]:
            endpoints[name] = {**endpoints.get(name, {}), "hostname": host}
            endpoints[name].pop("variants", None)
    found[_MARK] = url
    return found


def _ours(table: Path) -> bool:
    try:
        return _MARK in json.loads(table.read_bytes())
    except ValueError:
        return False


@click.command()
@DATA_OPTION
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path.home,
    help="Whose SDK.  [default: the home directory]",
)
@click.option("--undo", is_flag=True, help="Take the endpoints away again.")
def sdk(data: Path, home: Path, undo: bool) -> None:
    """Point the SageMaker Python SDK at the platform, and turn its telemetry off.

    \b
    Both versions of the SDK ask STS at AWS itself, whatever AWS_ENDPOINT_URL says (default_bucket,
    get_execution_role). They take its address from a table of botocore's, so this writes
      HOME/.aws/models/endpoints.json       the table, with STS at this platform: for every AWS client of this user
      HOME/.config/sagemaker/config.yaml    TelemetryOptOut, unless there is such a file
    Once; and again when the platform listens elsewhere.
    """
    table = home / ".aws" / "models" / "endpoints.json"
    if table.exists() and not _ours(table):
        raise click.ClickException(f"{table} is not of this command's making; move it away first.")
    if undo:
        table.unlink(missing_ok=True)
        click.echo(f"{table} is gone")
        return
    url = Platform(data).url
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(json.dumps(_endpoints(url)))
    click.echo(f"{table}: STS at {url}")
    settings = home / ".config" / "sagemaker" / "config.yaml"
    if settings.exists():
        click.echo(
            f"{settings} is left as it is; telemetry needs SageMaker.PythonSDK.Modules.TelemetryOptOut: true there"
        )
        return
    settings.parent.mkdir(parents=True, exist_ok=True)
    modules = {"TelemetryOptOut": True}
    settings.write_text(
        yaml.safe_dump({"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": modules}}}, sort_keys=False)
    )
    click.echo(f"{settings}: no telemetry")

"""`bastide status` and `bastide inventory`: what there is, account by account."""

from __future__ import annotations

import json
import ssl
import urllib.request
from pathlib import Path
from typing import Any

import botocore.exceptions
import click
from rich.console import Console
from rich.table import Table

from bastide.commands.client import Credentials, Platform
from bastide.commands.options import DATA_OPTION

_ROLE = "OrganizationAccountAccessRole"
_SHAPE = click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True)


def _enter(platform: Platform, account: dict[str, Any]) -> Credentials | None:
    administrator = platform.administrator()
    if account["Id"] == platform.configuration.account:
        return administrator
    try:
        return platform.assume(administrator, account["Id"], _ROLE, "bastide-status")
    except botocore.exceptions.ClientError:
        return None


def _count(client: Any, operation: str, member: str, **given: Any) -> list[dict[str, Any]]:
    pages = client.get_paginator(operation).paginate(**given, PaginationConfig={"MaxItems": 1000})
    return [one for page in pages for one in page[member]]


@click.command()
@DATA_OPTION
@_SHAPE
def status(data: Path, shape: str) -> None:
    """Show how enforcement stands, and each account's jobs, models and endpoints."""
    platform = Platform(data)
    context = ssl.create_default_context(cafile=str(platform.directory.authority))
    with urllib.request.urlopen(f"{platform.url}/_bastide/health", context=context, timeout=10) as answer:  # noqa: S310
        health = json.load(answer)
    rows = []
    for account in platform.accounts(platform.administrator()):
        held = _enter(platform, account)
        row: dict[str, Any] = {"account": account["Id"], "name": account["Name"]}
        if held is not None:
            sagemaker = platform.client("sagemaker", held)
            jobs = _count(sagemaker, "list_training_jobs", "TrainingJobSummaries")
            jobs += _count(sagemaker, "list_processing_jobs", "ProcessingJobSummaries")
            running = [
                one for one in jobs if "InProgress" in (one.get("TrainingJobStatus"), one.get("ProcessingJobStatus"))
            ]
            endpoints = _count(sagemaker, "list_endpoints", "Endpoints")
            row |= {
                "jobs": len(jobs),
                "running": len(running),
                "models": len(_count(sagemaker, "list_models", "Models")),
                "endpoints": {one["EndpointName"]: one["EndpointStatus"] for one in endpoints},
            }
        rows.append(row)
    if shape == "json":
        click.echo(json.dumps({"health": health, "accounts": rows}, indent=2))
        return
    console = Console(emoji=False, soft_wrap=True)
    for line in health["enforcement"]:
        console.print(line, highlight=False)
    table = Table(title=platform.url)
    for heading in ("account", "name", "jobs", "running", "models", "endpoints"):
        table.add_column(heading)
    for row in rows:
        endpoints_told = ", ".join(f"{name} ({state})" for name, state in row.get("endpoints", {}).items())
        table.add_row(
            *(str(row.get(key, "no access")) for key in ("account", "name", "jobs", "running", "models")),
            endpoints_told,
        )
    console.print(table)


@click.command()
@DATA_OPTION
@_SHAPE
def inventory(data: Path, shape: str) -> None:
    """Trace every endpoint of every account back to a registered model version.

    An endpoint whose model comes from a bare archive is NON_COMPLIANT; the command then ends with 1.
    """
    platform = Platform(data)
    rows = []
    for account in platform.accounts(platform.administrator()):
        held = _enter(platform, account)
        if held is None:
            continue
        client = platform.client("sagemaker", held)
        for endpoint in _count(client, "list_endpoints", "Endpoints"):
            described = client.describe_endpoint(EndpointName=endpoint["EndpointName"])
            config = client.describe_endpoint_config(EndpointConfigName=described["EndpointConfigName"])
            for variant in config["ProductionVariants"]:
                model = client.describe_model(ModelName=variant["ModelName"])
                containers = model.get("Containers") or [model.get("PrimaryContainer", {})]
                packages = [one.get("ModelPackageName") for one in containers]
                rows.append(
                    {
                        "account": account["Name"],
                        "endpoint": endpoint["EndpointName"],
                        "status": endpoint["EndpointStatus"],
                        "model": variant["ModelName"],
                        "versions": [one for one in packages if one],
                        "compliance": "COMPLIANT" if packages and all(packages) else "NON_COMPLIANT",
                    }
                )
    if shape == "json":
        click.echo(json.dumps(rows, indent=2))
    else:
        table = Table(title="Models that answer, and the registered versions they come from")
        for heading in ("account", "endpoint", "status", "model", "version", "compliance"):
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(
                str(row["account"]), str(row["endpoint"]), str(row["status"]), str(row["model"]),
                "\n".join(row["versions"]) or "-", str(row["compliance"]),
            )  # fmt: skip
        Console(emoji=False).print(table)
    if any(row["compliance"] != "COMPLIANT" for row in rows):
        raise SystemExit(1)

"""`bastide jobs` and `bastide logs`: what trains and processes, and what it says."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import botocore.exceptions
import click
from rich.console import Console
from rich.table import Table

from bastide.commands.client import Platform
from bastide.commands.options import DATA_OPTION

_ACCOUNT = click.option("--account", help="Name or id of the account; the management account if left out.")
_REGION = click.option("--region", help="The region; the platform's default if left out.")
_GROUPS: Final = {"training": "/aws/sagemaker/TrainingJobs", "processing": "/aws/sagemaker/ProcessingJobs"}
_OVER: Final = ("Completed", "Failed", "Stopped")
_PAUSE: Final = 0.5


def _client(data: Path, service: str, account: str | None, region: str | None) -> Any:
    platform = Platform(data)
    return platform.client(service, platform.inside(account or platform.configuration.account), region)


def _seconds(start: datetime | None, end: datetime | None) -> int | None:
    return None if start is None else max(0, round(((end or datetime.now(UTC)) - start).total_seconds()))


def _trained(job: dict[str, Any]) -> dict[str, Any]:
    line = job.get("SecondaryStatusTransitions") or [{}]
    pending = job["SecondaryStatus"] in ("Pending", "Interrupted")
    return {
        "name": job["TrainingJobName"],
        "kind": "training",
        "status": job["TrainingJobStatus"],
        "secondary": job["SecondaryStatus"],
        "created": job["CreationTime"],
        "waited": _waited(job),
        "ran": _seconds(job.get("TrainingStartTime"), job.get("TrainingEndTime")),
        "reason": job.get("FailureReason") or (line[-1].get("StatusMessage", "") if pending else ""),
    }


def _waited(job: dict[str, Any]) -> int:
    """Seconds from the request to the first work, and those of interruptions."""
    waits = {"Starting", "Pending", "Interrupted"}
    every = [one for one in job.get("SecondaryStatusTransitions") or () if one["Status"] in waits]
    return sum(_seconds(one["StartTime"], one.get("EndTime")) or 0 for one in every)


def _processed(job: dict[str, Any]) -> dict[str, Any]:
    start = job.get("ProcessingStartTime")
    return {
        "name": job["ProcessingJobName"],
        "kind": "processing",
        "status": job["ProcessingJobStatus"],
        "secondary": "",
        "created": job["CreationTime"],
        "waited": _seconds(job["CreationTime"], start or job.get("ProcessingEndTime")),
        "ran": _seconds(start, job.get("ProcessingEndTime")),
        "reason": job.get("FailureReason") or job.get("ExitMessage") or "",
    }


def _listed(client: Any, operation: str, member: str, name: str, most: int) -> list[str]:
    given = {"SortBy": "CreationTime", "SortOrder": "Descending", "PaginationConfig": {"MaxItems": most}}
    return [one[name] for page in client.get_paginator(operation).paginate(**given) for one in page[member]]


@click.command()
@DATA_OPTION
@_ACCOUNT
@_REGION
@click.option("--most", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many, the newest first.")
@click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True)
def jobs(data: Path, account: str | None, region: str | None, most: int, shape: str) -> None:
    """Show training and processing jobs: where they are, how long they waited and ran, and why they failed or wait."""
    client = _client(data, "sagemaker", account, region)
    rows = [
        _trained(client.describe_training_job(TrainingJobName=name))
        for name in _listed(client, "list_training_jobs", "TrainingJobSummaries", "TrainingJobName", most)
    ]
    rows += [
        _processed(client.describe_processing_job(ProcessingJobName=name))
        for name in _listed(client, "list_processing_jobs", "ProcessingJobSummaries", "ProcessingJobName", most)
    ]
    rows = sorted(rows, key=lambda row: row["created"], reverse=True)[:most]
    if shape == "json":
        click.echo(json.dumps([{**row, "created": row["created"].isoformat()} for row in rows], indent=2))
        return
    table = Table("name", "kind", "status", "secondary", "waited", "ran", "reason")
    for row in rows:
        times = ("" if row[one] is None else f"{row[one]} s" for one in ("waited", "ran"))
        table.add_row(row["name"], row["kind"], row["status"], row["secondary"], *times, row["reason"])
    Console().print(table)


@click.command()
@DATA_OPTION
@_ACCOUNT
@_REGION
@click.option("-f", "--follow", is_flag=True, help="Go on until the job is over.")
@click.argument("job")
def logs(data: Path, account: str | None, region: str | None, follow: bool, job: str) -> None:
    """Print what the training or processing JOB wrote; with several hosts, each line with its host in front."""
    sagemaker = _client(data, "sagemaker", account, region)
    kind = _kind(sagemaker, job)
    client = _client(data, "logs", account, region)
    places: dict[str, str] = {}
    while True:
        over = not follow or _status(sagemaker, kind, job) in _OVER
        for stream in _streams(client, _GROUPS[kind], job):
            host = stream.rpartition("/")[2].rpartition("-")[0]
            for line in _new(client, _GROUPS[kind], stream, places):
                click.echo(line if len(places) == 1 else f"{host}  {line}")
        if over:
            return
        time.sleep(_PAUSE)


def _status(client: Any, kind: str, job: str) -> str:
    if kind == "training":
        return str(client.describe_training_job(TrainingJobName=job)["TrainingJobStatus"])
    return str(client.describe_processing_job(ProcessingJobName=job)["ProcessingJobStatus"])


def _kind(client: Any, job: str) -> str:
    for kind in _GROUPS:
        try:
            _status(client, kind, job)
        except botocore.exceptions.ClientError as error:
            if error.response["Error"]["Code"] not in ("ValidationException", "ResourceNotFound"):
                raise
        else:
            return kind
    raise click.ClickException(f"there is no job named `{job}`; `bastide jobs` lists them")


def _streams(client: Any, group: str, job: str) -> list[str]:
    try:
        pages = client.get_paginator("describe_log_streams").paginate(logGroupName=group, logStreamNamePrefix=f"{job}/")
        return [one["logStreamName"] for page in pages for one in page["logStreams"]]
    except client.exceptions.ResourceNotFoundException:
        return []


def _new(client: Any, group: str, stream: str, places: dict[str, str]) -> Iterator[str]:
    """What was written since the last look. places: where each stream was read to."""
    places.setdefault(stream, "")
    while True:
        given = {"nextToken": places[stream]} if places[stream] else {}
        page = client.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **given)
        places[stream] = page["nextForwardToken"]
        if not page["events"]:
            return
        for one in page["events"]:
            # What a job wrote is not to steer somebody's terminal.
            yield "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in one["message"])

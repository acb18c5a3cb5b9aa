"""`bastide pipelines`: which there are, and where an execution of one stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from rich import markup
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from bastide.commands.client import Platform
from bastide.commands.options import DATA_OPTION

_REFERENCE: Final = re.compile(r'"Get": ?"Steps\.([A-Za-z0-9_-]+)')
_COLOURS: Final = {
    "Succeeded": "green",
    "Failed": "red",
    "Stopped": "yellow",
    "Stopping": "yellow",
    "Starting": "cyan",
    "Executing": "cyan",
}
_MARKS: Final = {"Succeeded": "✔", "Failed": "✘", "Stopped": "■", "Stopping": "■"}


def escape(text: str) -> str:
    """A text as it is shown: what a job or a definition wrote is not to steer somebody's terminal."""
    return markup.escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))


@click.command()
@DATA_OPTION
@click.option("--account", help="Name or id of the account; the management account if left out.")
@click.option("--region", help="The region; the platform's default if left out.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.argument("name", required=False)
def pipelines(data: Path, account: str | None, region: str | None, as_json: bool, name: str | None) -> None:
    """List the pipelines, or draw where an execution stands: the newest of the pipeline NAME, or the one whose ARN NAME
    is."""
    platform = Platform(data)
    client = platform.client("sagemaker", platform.inside(account or platform.configuration.account), region)
    if name is None:
        _list(client, as_json)
        return
    arn = name if "/execution/" in name else _newest(client, name)
    told = _execution(client, arn)
    if as_json:
        click.echo(json.dumps(told, indent=2, default=_json))
    else:
        Console().print(_drawn(told))


def _json(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _list(client: Any, as_json: bool) -> None:
    rows = []
    for page in client.get_paginator("list_pipelines").paginate(SortBy="Name", SortOrder="Ascending"):
        for one in page["PipelineSummaries"]:
            runs = client.list_pipeline_executions(PipelineName=one["PipelineName"], MaxResults=1)
            last: dict[str, Any] = next(iter(runs["PipelineExecutionSummaries"]), {})
            rows.append(
                {
                    "name": one["PipelineName"],
                    "changed": one["LastModifiedTime"],
                    "started": last.get("StartTime"),
                    "status": last.get("PipelineExecutionStatus", ""),
                    "execution": last.get("PipelineExecutionArn", ""),
                    "reason": last.get("PipelineExecutionFailureReason", ""),
                }
            )
    if as_json:
        click.echo(json.dumps(rows, indent=2, default=_json))
        return
    table = Table("name", "last execution", "status", "started", "reason")
    for row in rows:
        started = "" if row["started"] is None else f"{row['started']:%Y-%m-%d %H:%M:%S}"
        id = row["execution"].rpartition("/")[2]
        table.add_row(row["name"], id, _coloured(row["status"], row["status"]), started, escape(row["reason"]))
    Console().print(table)


def _newest(client: Any, name: str) -> str:
    found = client.list_pipeline_executions(PipelineName=name, MaxResults=1)["PipelineExecutionSummaries"]
    if not found:
        raise click.ClickException(
            f"the pipeline `{name}` has no executions yet; start one with StartPipelineExecution"
        )
    return str(found[0]["PipelineExecutionArn"])


# -- one execution -----------------------------------------------------------------------------------------------------


def _execution(client: Any, arn: str) -> dict[str, Any]:
    """The execution, and every step of its definition: what it waits for, and how far it came."""
    execution = client.describe_pipeline_execution(PipelineExecutionArn=arn)
    definition = json.loads(
        client.describe_pipeline_definition_for_execution(PipelineExecutionArn=arn)["PipelineDefinition"]
    )
    pages = client.get_paginator("list_pipeline_execution_steps").paginate(PipelineExecutionArn=arn)
    begun = {one["StepName"]: one for page in pages for one in page["PipelineExecutionSteps"]}
    return {
        "execution": arn,
        "name": execution.get("PipelineExecutionDisplayName", ""),
        "status": execution["PipelineExecutionStatus"],
        "reason": execution.get("FailureReason", ""),
        "started": execution["CreationTime"],
        "steps": [
            {
                "name": step["Name"],
                "type": step["Type"],
                "after": sorted(after),
                "branch": branch,
                **_state(begun.get(step["Name"])),
            }
            for step, after, branch in _steps(definition["Steps"], None, "")
        ],
    }


def _steps(
    given: Sequence[Mapping[str, Any]], parent: str | None, branch: str
) -> Iterator[tuple[Mapping[str, Any], set[str], str]]:
    for step in given:
        arguments = dict(step.get("Arguments") or {})
        inner = {member: arguments.pop(member, None) or [] for member in ("IfSteps", "ElseSteps")}
        after = {*(step.get("DependsOn") or ()), *_REFERENCE.findall(json.dumps(arguments))}
        yield step, after | ({parent} if parent else set()), branch
        for member, word in (("IfSteps", "if"), ("ElseSteps", "else")):
            yield from _steps(inner[member], step["Name"], word)


def _state(step: Mapping[str, Any] | None) -> dict[str, Any]:
    if step is None:
        return {"status": "", "seconds": None, "cached": False, "attempts": 0, "made": "", "reason": ""}
    ended = step.get("EndTime") or datetime.now(UTC)
    metadata: Mapping[str, Any] = next(iter((step.get("Metadata") or {}).values()), {})
    return {
        "status": step["StepStatus"],
        "seconds": round((ended - step["StartTime"]).total_seconds(), 1),
        "cached": "CacheHitResult" in step,
        "attempts": step.get("AttemptCount", 1),
        "made": str(metadata.get("Arn") or metadata.get("Outcome") or metadata.get("CallbackToken") or ""),
        "reason": step.get("FailureReason", ""),
    }


def _coloured(text: str, status: str) -> str:
    colour = _COLOURS.get(status, "dim")
    return f"[{colour}]{escape(text)}[/{colour}]" if text else ""


def _drawn(told: dict[str, Any]) -> Tree:
    """A tree: each step below the last of those that it waits for; the others are named beside it."""
    id = told["execution"].rpartition("/")[2]
    head = f"[bold]{escape(told['execution'].split('/')[1])}[/bold] {id}  {_coloured(told['status'], told['status'])}"
    tree = Tree(f"{head}  [dim]{told['started']:%Y-%m-%d %H:%M:%S}[/dim] [red]{escape(told['reason'])}[/red]")
    steps = {one["name"]: one for one in told["steps"]}
    places: dict[str, tuple[int, Tree]] = {}
    while len(places) < len(steps):
        for name, step in steps.items():
            if name in places or not places.keys() >= set(step["after"]) & steps.keys():
                continue
            above = sorted(set(step["after"]) & steps.keys(), key=lambda one: places[one][0])
            depth, parent = places[above[-1]] if above else (0, tree)
            places[name] = depth + 1, parent.add(_line(step, above[:-1]))
    return tree


def _line(step: Mapping[str, Any], others: Sequence[str]) -> str:
    status = step["status"]
    parts = [
        _coloured(f"{_MARKS.get(status, '▶' if status else '·')} {step['name']}", status),
        f"[dim]{step['type']}[/dim]",
    ]
    if step["branch"]:
        parts.insert(0, f"[dim]{step['branch']}:[/dim]")
    if status:
        parts.append(_coloured(status, status))
        parts.append("cached" if step["cached"] else f"{step['seconds']:g} s")
    if step["attempts"] > 1:
        parts.append(f"attempt {step['attempts']}")
    if step["made"]:
        parts.append(f"[dim]{escape(step['made'].rpartition(':')[2])}[/dim]")
    if others:
        parts.append(f"[dim]after {', '.join(others)} too[/dim]")
    if step["reason"]:
        parts.append(f"[red]{escape(step['reason'])}[/red]")
    return "  ".join(parts)

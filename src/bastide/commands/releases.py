"""`bastide releases`: the pipelines of CodePipeline, and where in one of them each commit is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bastide.commands.client import Platform
from bastide.commands.options import DATA_OPTION
from bastide.commands.pipelines import escape

_MARKS: Final = {
    "Succeeded": ("✓", "green"), "InProgress": ("▶", "cyan"), "Failed": ("✗", "red"), "Abandoned": ("■", "yellow"),
    "Stopping": ("■", "yellow"), "Stopped": ("■", "yellow"), "Cancelled": ("■", "yellow"), "Skipped": ("↷", "dim"),
    "Superseded": ("↷", "dim"), "": ("·", "dim"),
}  # fmt: skip
_OVER: Final = ("Succeeded", "Failed", "Stopped", "Superseded", "Cancelled")
_PAUSE: Final = 1.0


def _executions(client: Any, name: str, most: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.list_pipeline_executions(pipelineName=name, maxResults=most)[
        "pipelineExecutionSummaries"
    ]
    return found


def _commit(execution: dict[str, Any] | None) -> str:
    """What an execution runs with, in a few characters."""
    revisions = (execution or {}).get("sourceRevisions") or ()
    return " ".join(str(one.get("revisionId", ""))[:12] for one in revisions)


def _look(client: Any, name: str) -> dict[str, Any]:
    """The pipeline as it stands: its stages, who is in each and who waits before it, and the causes of failures."""
    state = client.get_pipeline_state(name=name)
    known = {one["pipelineExecutionId"]: one for one in _executions(client, name, 100)}
    return {
        "name": name,
        "version": state["pipelineVersion"],
        "stages": [_stage(one, known) for one in state["stageStates"]],
        "running": [id for id, one in known.items() if one["status"] not in _OVER],
    }


def _who(held: dict[str, Any], known: dict[str, dict[str, Any]]) -> dict[str, str]:
    id = held["pipelineExecutionId"]
    return {"execution": id, "revision": _commit(known.get(id)), "status": held["status"]}


def _stage(told: dict[str, Any], known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    transition = told.get("inboundTransitionState") or {}
    return {
        "name": told["stageName"],
        "closed": transition.get("disabledReason", "") if not transition.get("enabled", True) else None,
        "waiting": [_who(one, known) for one in told.get("inboundExecutions") or ()],
        "in": _who(told["latestExecution"], known) if told.get("latestExecution") else None,
        "actions": [_action(one) for one in told["actionStates"]],
        "conditions": [
            f"{moment}: {held['latestExecution'].get('summary') or held['latestExecution']['status']}"
            for moment in ("beforeEntry", "onSuccess", "onFailure")
            if (held := told.get(f"{moment}ConditionState")) and held.get("latestExecution")
        ],
    }


def _action(told: dict[str, Any]) -> dict[str, Any]:
    latest = told.get("latestExecution") or {}
    return {
        "name": told["actionName"],
        "status": latest.get("status", ""),
        "summary": latest.get("summary", ""),
        "changed": latest.get("lastStatusChange"),
        "external": latest.get("externalExecutionId", ""),
        "error": (latest.get("errorDetails") or {}).get("message", ""),
        "asks": "token" in latest,
    }


def _drawn(told: dict[str, Any]) -> Iterator[str]:
    """A line each: the stages in their order, who waits before each, who is in it, its actions and their causes."""
    yield f"[bold]{escape(told['name'])}[/bold] [dim]version {told['version']}[/dim]"
    for stage in told["stages"]:
        for one in stage["waiting"]:
            revision = escape(one["revision"] or one["execution"][:8])
            yield f"   [cyan]⋯ {revision}[/cyan] [dim]waits, {one['execution']}[/dim]"
        if stage["closed"] is not None:
            yield f"   [yellow]⊘ closed: {escape(stage['closed'])}[/yellow]"
        held = stage["in"] or {"status": "", "revision": "", "execution": ""}
        mark, style = _MARKS[held["status"]]
        who = f" [dim]{escape(held['revision'])} {held['execution']}[/dim]" if held["execution"] else ""
        yield f"[{style}]{mark} {escape(stage['name'])}[/{style}]{who}"
        for action in stage["actions"]:
            yield from _lines(action)
        for one in stage["conditions"]:
            yield f"   [dim]if[/dim] {escape(one)}"


def _lines(action: dict[str, Any]) -> Iterator[str]:
    mark, style = _MARKS[action["status"]]
    since = ""
    if action["changed"] is not None and action["status"] == "InProgress":
        since = f" [dim]{max(0, int((datetime.now(UTC) - action['changed']).total_seconds()))} s[/dim]"
    asks = " [bold yellow]waits for somebody's approval[/bold yellow]" if action["asks"] else ""
    told = f" [dim]{escape(action['summary'][:100])}[/dim]" if action["summary"] and not action["error"] else ""
    yield f"   [{style}]{mark}[/{style}] {escape(action['name'])}{since}{asks}{told}"
    if action["error"]:
        yield f"     [red]{escape(action['error'][:1000])}[/red]"


@click.command()
@DATA_OPTION
@click.option("--account", help="Name or id of the account; the management account if left out.")
@click.option("--region", help="The region; the platform's default if left out.")
@click.option("--watch", is_flag=True, help="Go on until nothing runs.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.argument("name", required=False)
def releases(data: Path, account: str | None, region: str | None, watch: bool, as_json: bool, name: str | None) -> None:
    """List the release pipelines (CodePipeline), or draw where in the pipeline NAME each commit is, who is asked, and why
    something failed."""
    platform = Platform(data)
    client = platform.client("codepipeline", platform.inside(account or platform.configuration.account), region)
    if name is None:
        _list(client, as_json)
        return
    told = _look(client, name)
    if as_json:
        click.echo(json.dumps(told, indent=2, default=str))
        return
    console = Console(highlight=False)
    if not watch:
        for line in _drawn(told):
            console.print(line)
        return
    with Live(_picture(told), console=console, auto_refresh=False) as live:
        while told["running"]:
            time.sleep(_PAUSE)
            told = _look(client, name)
            live.update(_picture(told), refresh=True)


def _picture(told: dict[str, Any]) -> Group:
    return Group(*(Text.from_markup(line) for line in _drawn(told)))


def _list(client: Any, as_json: bool) -> None:
    rows = []
    for page in client.get_paginator("list_pipelines").paginate():
        for one in page["pipelines"]:
            last: dict[str, Any] = next(iter(_executions(client, one["name"], 1)), {})
            rows.append(
                {
                    "name": one["name"],
                    "version": one["version"],
                    "mode": one["executionMode"],
                    "status": last.get("status", ""),
                    "revision": _commit(last),
                    "started": last.get("startTime"),
                    "trigger": last.get("trigger", {}).get("triggerType", ""),
                    "reason": last.get("statusSummary", ""),
                }
            )
    if as_json:
        click.echo(json.dumps(rows, indent=2, default=str))
        return
    table = Table("name", "version", "last execution", "revision", "started", "by", "reason")
    for row in rows:
        _, style = _MARKS[row["status"]]
        started = "" if row["started"] is None else f"{row['started']:%Y-%m-%d %H:%M:%S}"
        table.add_row(
            escape(row["name"]),
            str(row["version"]),
            f"[{style}]{row['status']}[/{style}]" if row["status"] else "",
            escape(row["revision"]),
            started,
            row["trigger"],
            escape(row["reason"] or ""),
        )
    Console().print(table)

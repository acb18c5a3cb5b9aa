"""`bastide executions`: what state machines run, and where in the machine one of them stands."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bastide.commands.client import Platform
from bastide.commands.options import DATA_OPTION

_MARKS: Final = {
    "succeeded": ("✓", "green"),
    "running": ("▶", "yellow"),
    "failed": ("✗", "red"),
    "given up": ("■", "red"),
    "": ("·", "dim"),
}
_STYLES: Final = {"SUCCEEDED": "green", "RUNNING": "yellow", "FAILED": "red", "TIMED_OUT": "red", "ABORTED": "red"}


def _listed(client: Any, machine: str | None, most: int) -> list[dict[str, Any]]:
    """The newest executions, of one state machine or of all."""
    machines = [
        one
        for page in client.get_paginator("list_state_machines").paginate()
        for one in page["stateMachines"]
        if one["type"] == "STANDARD" and machine in (None, one["name"], one["stateMachineArn"])
    ]
    if machine is not None and not machines:
        raise click.ClickException(f"there is no standard state machine `{machine}`")
    rows: list[dict[str, Any]] = []
    for one in machines:
        held = client.list_executions(stateMachineArn=one["stateMachineArn"], maxResults=most)["executions"]
        rows += [{**execution, "machine": one["name"]} for execution in held]
    return sorted(rows, key=lambda row: row["startDate"], reverse=True)[:most]


def _seconds(row: dict[str, Any]) -> float:
    until: datetime = row.get("stopDate") or datetime.now(UTC)
    start: datetime = row["startDate"]
    return max(0.0, (until - start).total_seconds())


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": row["name"],
        "machine": row["machine"],
        "status": row["status"],
        "started": row["startDate"].isoformat(),
        "seconds": round(_seconds(row), 1),
        "arn": row["executionArn"],
    }


def _found(client: Any, given: str) -> str | None:
    """The ARN of the execution of that name or ARN; None if it is none."""
    if ":execution:" in given:
        return given
    if given.startswith("arn:"):
        return None
    for row in _listed(client, None, 1000):
        if row["name"] == given:
            return str(row["executionArn"])
    return None


def stands(events: list[dict[str, Any]]) -> tuple[dict[str, Counter[str]], dict[str, str]]:
    """How often each state was entered, left, given up or failed; and the error that a state failed with."""
    counts: dict[str, Counter[str]] = {}
    errors: dict[str, str] = {}
    by_id: dict[int, str] = {}
    for event in events:
        kind = event["type"]
        before = by_id.get(event["previousEventId"], "")
        details: dict[str, Any] = next((one for name, one in event.items() if name.endswith("EventDetails")), {})
        name = before
        if kind.endswith("StateEntered"):
            name = event["stateEnteredEventDetails"]["name"]
            counts.setdefault(name, Counter())["entered"] += 1
        elif kind.endswith("StateExited"):
            name = event["stateExitedEventDetails"]["name"]
            counts.setdefault(name, Counter())["exited"] += 1
        elif kind.endswith("StateAborted") and before:
            counts.setdefault(before, Counter())["given up"] += 1
        elif kind.startswith("Map") and details.get("name"):
            name = details["name"]
        elif kind in ("ExecutionFailed", "ExecutionTimedOut", "ExecutionAborted") and before:
            counts.setdefault(before, Counter())["failed"] += 1
            errors[before] = ": ".join(str(details[one]) for one in ("error", "cause") if details.get(one))
        elif kind.endswith("Failed") and before:
            errors[before] = ": ".join(str(details[one]) for one in ("error", "cause") if details.get(one))
        by_id[event["id"]] = name
    return counts, errors


def _status(counts: Counter[str], over: bool) -> str:
    if counts["failed"]:
        return "failed"
    if not counts["entered"]:
        return ""
    if counts["exited"] >= counts["entered"]:
        return "succeeded"
    return "given up" if over else "running"


def drawn(
    machine: dict[str, Any], counts: dict[str, Counter[str]], errors: dict[str, str], over: bool, depth: int = 0
) -> Iterator[str]:
    """A machine's states, a line each, indented below the state that they are in, in the order in which they follow."""
    for name in _ordered(machine):
        state = machine["States"][name]
        held = counts.get(name, Counter())
        mark, style = _MARKS[_status(held, over)]
        times = f" x{held['entered']}" if held["entered"] > 1 else ""
        ways = ", ".join(_ways(state))
        line = f"{'   ' * depth}[{style}]{mark}[/{style}] {escape(_plain(name))} [dim]{state['Type']}{times}[/dim]"
        if ways:
            line += f" [dim]→ {escape(_plain(ways))}[/dim]"
        if name in errors and held["failed"]:
            line += f"\n{'   ' * depth}  [red]{escape(_plain(errors[name])[:200])}[/red]"
        yield line
        inner = [*state.get("Branches", ()), *(state[one] for one in ("ItemProcessor", "Iterator") if one in state)]
        for place, one in enumerate(inner):
            if len(inner) > 1:
                yield f"{'   ' * (depth + 1)}[dim]branch {place + 1}[/dim]"
            yield from drawn(one, counts, errors, over, depth + 1)


def _plain(text: str) -> str:
    """What a definition says is not to steer somebody's terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _ways(state: dict[str, Any]) -> list[str]:
    found = [state.get("Next"), *(one.get("Next") for one in state.get("Choices", ())), state.get("Default")]
    found += [one.get("Next") for one in state.get("Catch", ())]
    return list(dict.fromkeys(one for one in found if one))


def _ordered(machine: dict[str, Any]) -> list[str]:
    """States in the order in which they can be reached, breadth first."""
    states, found = machine["States"], [machine["StartAt"]]
    for name in found:
        found += [one for one in _ways(states.get(name, {})) if one in states and one not in found]
    return [*found, *(one for one in states if one not in found)]


@click.command()
@DATA_OPTION
@click.option("--account", help="Name or id of the account; the management account if left out.")
@click.option("--region", help="The region; the platform's default if left out.")
@click.option("--most", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many, the newest first.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.argument("name", required=False)
def executions(data: Path, account: str | None, region: str | None, most: int, as_json: bool, name: str | None) -> None:
    """Show executions of state machines, all or those of the machine NAME; of one execution (its name or ARN), draw the
    machine and where it stands."""
    platform = Platform(data)
    inside = platform.inside(account or platform.configuration.account)
    client = platform.client("stepfunctions", inside, region)
    arn = _found(client, name) if name is not None else None
    if arn is not None:
        _show(client, arn, as_json)
        return
    rows = [_row(row) for row in _listed(client, name, most)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("name", "state machine", "status", "started", "took")
    for row in rows:
        style = _STYLES[row["status"]]
        status = f"[{style}]{row['status']}[/{style}]"
        table.add_row(escape(row["name"]), escape(row["machine"]), status, row["started"], f"{row['seconds']} s")
    Console().print(table)


def _show(client: Any, arn: str, as_json: bool) -> None:
    told = client.describe_execution(executionArn=arn)
    machine = json.loads(client.describe_state_machine_for_execution(executionArn=arn)["definition"])
    pages = client.get_paginator("get_execution_history").paginate(executionArn=arn)
    counts, errors = stands([event for page in pages for event in page["events"]])
    over = told["status"] != "RUNNING"
    if as_json:
        states = {name: {**held, "status": _status(held, over) or "not reached"} for name, held in counts.items()}
        row = _row({**told, "machine": told["stateMachineArn"].rpartition(":")[2]})
        click.echo(
            json.dumps({**row, "states": states, "error": told.get("error"), "cause": told.get("cause")}, indent=2)
        )
        return
    console = Console(highlight=False)
    style = _STYLES[told["status"]]
    console.print(f"{escape(told['name'])} [{style}]{told['status']}[/{style}], {_seconds(told):.1f} s")
    for line in drawn(machine, counts, errors, over):
        console.print(line)
    if told.get("error") or told.get("cause"):
        console.print(
            f"[red]{escape(_plain(str(told.get('error'))))}[/red]: {escape(_plain(str(told.get('cause')))[:2000])}"
        )

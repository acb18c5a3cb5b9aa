"""`bastide landing`: a company's accounts, guardrails, networks, keys, buckets and roles, from one blueprint.

A client of AWS's APIs like any other: with --endpoint-url or --profile the same templates go to AWS.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import boto3
import botocore.config
import click
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from bastide.commands.client import Credentials, Platform
from bastide.commands.options import DATA_OPTION
from bastide.domain import Refused
from bastide.landing import applying, drifting, planning, proactive, removing
from bastide.landing.blueprint import Blueprint, Faulty, default, parse, read
from bastide.landing.cloud import Cloud, Unreachable
from bastide.landing.delivery import example as examples
from bastide.landing.guardrails import guardrails
from bastide.landing.rendering import rendered

_CONFIG: Final = botocore.config.Config(retries={"max_attempts": 5, "mode": "standard"}, read_timeout=120)
_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default="landing.yaml")
_PROFILE = click.option(
    "--profile", help="An AWS profile that administers the organisation, instead of the platform's."
)
_ENDPOINT = click.option("--endpoint-url", help="Where its calls go; with --profile alone, to AWS.")
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON.")
_YES = click.option("--yes", is_flag=True, help="Do not ask.")
_COLOURS: Final = (("FAILED", "red"), ("ROLLBACK", "red"), ("COMPLETE", "green"), ("unchanged", "dim"))


@click.group()
def landing() -> None:
    """A landing zone from one file: accounts, guardrails, networks, keys, buckets, roles and people's access.

    \b
    bastide landing init                 write landing.yaml to begin with
    bastide landing plan                 what it would change, and who gains and loses access
    bastide landing apply                make it so
    bastide landing drift                what was changed by hand since
    bastide landing destroy              take it away
    """


@contextmanager
def _told() -> Iterator[None]:
    """What a person can do something about, in a sentence."""
    try:
        yield
    except (Faulty, applying.Failed, Unreachable) as error:
        raise click.ClickException(str(error)) from None
    except Refused as refused:
        raise click.ClickException(refused.message) from None


def _cloud(blueprint: Blueprint, data: Path, profile: str | None, endpoint: str | None) -> Cloud:
    if profile is None and endpoint is None:
        platform = Platform(data)
        mine = platform.administrator()

        def ours(service: str, held: Mapping[str, str] | None) -> Any:
            signer = mine
            if held is not None:
                signer = Credentials(held["AccessKeyId"], held["SecretAccessKey"], held["SessionToken"])
            return platform.client(service, signer, blueprint.region)

        return Cloud(ours, blueprint.deploying_role)
    session = boto3.session.Session(profile_name=profile, region_name=blueprint.region)

    def theirs(service: str, held: Mapping[str, str] | None) -> Any:
        more = {}
        if held is not None:
            more = {
                "aws_access_key_id": held["AccessKeyId"], "aws_secret_access_key": held["SecretAccessKey"],
                "aws_session_token": held["SessionToken"],
            }  # fmt: skip
        return session.client(service, endpoint_url=endpoint, config=_CONFIG, **more)

    return Cloud(theirs, blueprint.deploying_role)


class _Progress:
    """Where every stack is, as a table that moves on a terminal and as lines elsewhere."""

    def __init__(self, console: Console | None) -> None:
        self.console = console
        self.rows: dict[tuple[str, str], str] = {}
        self.lock = threading.Lock()
        self.live: Live | None = None

    def __enter__(self) -> _Progress:
        if self.console is not None and self.console.is_terminal:
            self.live = Live(self._table(), console=self.console)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.update(self._table())
            self.live.stop()

    def __call__(self, what: str, account: str, status: str) -> None:
        with self.lock:
            if self.rows.get((account, what)) == status:
                return
            self.rows[account, what] = status
            if self.live is not None:
                self.live.update(self._table())
            elif self.console is not None:
                self.console.print(f"{account:16} {what} {_painted(status)}", highlight=False)

    def _table(self) -> Table:
        table = Table("account", "what", "status", box=None)
        for (account, what), status in self.rows.items():
            table.add_row(account, what, _painted(status))
        return table


def _painted(status: str) -> str:
    for word, colour in _COLOURS:
        if word in status:
            return f"[{colour}]{escape(status)}[/]"
    return escape(status)


@landing.command()
@_FILE
@DATA_OPTION
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def init(file: Path, data: Path, force: bool) -> None:
    """Write a blueprint to begin with into FILE (landing.yaml)."""
    if file.exists() and not force:
        raise click.ClickException(f"{file} is there already; --force writes over it")
    text = default()
    if (data / "bastide.json").exists():
        text = text.replace("regions: [us-east-1]", f"regions: [{Platform(data).region}]")
    file.write_text(text)
    click.echo(f"{file} is written; change it, then `bastide landing plan {file}`")


@landing.command()
@_FILE
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def render(file: Path, folder: Path) -> None:
    """Write the CloudFormation templates of FILE into FOLDER, one a stack, in the order of their deployment."""
    with _told():
        stacks = rendered(read(file))
        folder.mkdir(parents=True, exist_ok=True)
        for number, one in enumerate(stacks):
            path = folder / f"{number:02d}-{one.account}-{one.name}.json"
            path.write_text(json.dumps(one.template, indent=2) + "\n")
            click.echo(str(path))


@landing.command()
@_FILE
@click.argument("team")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def example(file: Path, team: str, folder: Path) -> None:
    """Write into FOLDER what TEAM may commit first: the stacks that its two pipelines launch, and their tags."""
    with _told():
        blueprint = read(file)
        found = next((one for one in blueprint.teams if one.name == team), None)
        if found is None:
            raise click.ClickException(
                f"there is no team {team}; there are {', '.join(o.name for o in blueprint.teams)}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in examples(blueprint, found).items():
            (folder / name).write_text(text)
            click.echo(str(folder / name))


@landing.command()
@_FILE
@DATA_OPTION
@_PROFILE
@_ENDPOINT
@_JSON
def plan(file: Path, data: Path, profile: str | None, endpoint_url: str | None, as_json: bool) -> None:
    """What applying FILE would change: accounts, stacks, and who gains and loses access. Changes nothing.

    Ends with 1 if a proactive rule refuses a template.
    """
    with _told():
        blueprint = read(file)
        found = planning.planned(blueprint, _cloud(blueprint, data, profile, endpoint_url))
    if as_json:
        click.echo(json.dumps(_plain(found), indent=2))
    else:
        _shown(found, Console())
    if found.refused:
        raise SystemExit(1)


def _plain(found: planning.Plan) -> dict[str, Any]:
    return {
        "changes": found.changes,
        "refused": [asdict(one) for one in found.violations],
        "faults": found.faults,
        "accounts": {"created": list(found.made), "enrolled": list(found.enrolled)},
        "stacks": [
            {"name": one.name, "account": one.account, "what": one.what, "resources": dict(one.resources)}
            for one in found.stacks
        ],
        "access": [asdict(one) for one in found.access],
    }


_MARKS: Final = {"add": "+", "remove": "-", "change": "~"}
_SIGNS: Final = {"create": "[green]+[/]", "update": "[yellow]~[/]", "delete": "[red]-[/]"}


def _shown(found: planning.Plan, console: Console) -> None:
    for one in found.violations:
        console.print(
            f"[red]refused[/] by the rule [bold]{one.rule}[/]: {escape(one.stack)} in {one.account}: "
            f"{escape(one.resource)} ({one.type}): {escape(one.why)}"
        )
    for fault in found.faults:
        console.print(f"[red]refused[/]: {escape(fault)}")
    if found.made:
        console.print(f"[green]+[/] accounts {', '.join(found.made)}")
    if found.enrolled:
        console.print(f"[yellow]~[/] enrols {', '.join(found.enrolled)}")
    for stack in found.stacks:
        if stack.what == "unchanged":
            continue
        told = [f"{_MARKS[how]}{name}" for name, how in stack.resources.items()]
        more = f" [dim]{escape(', '.join(told[:8]))}{f' and {len(told) - 8} more' if len(told) > 8 else ''}[/]"
        console.print(f"{_SIGNS[stack.what]} {stack.account} {escape(stack.name)}{more if told else ''}")
    if not found.changes:
        console.print("Everything is as the blueprint says.")
    _access(found, console)


def _access(found: planning.Plan, console: Console) -> None:
    if not found.access:
        console.print(f"Nobody gains or loses access ({found.asked:,} decisions).")
        return
    table = Table("who", "gains", "loses", title=f"access, by {found.asked:,} decisions of the policy engine")
    for who in dict.fromkeys(one.who for one in found.access):
        told = []
        for gains in (True, False):
            actions: dict[str, int] = {}
            for one in found.access:
                if one.who == who and one.gains is gains:
                    actions[one.action] = actions.get(one.action, 0) + 1
            told.append(", ".join(name if count == 1 else f"{name} ({count})" for name, count in actions.items()))
        table.add_row(who, f"[green]{told[0]}[/]", f"[red]{told[1]}[/]")
    console.print(table)


@landing.command()
@_FILE
@DATA_OPTION
@_PROFILE
@_ENDPOINT
@_YES
@_JSON
def apply(file: Path, data: Path, profile: str | None, endpoint_url: str | None, yes: bool, as_json: bool) -> None:
    """Make the landing zone what FILE says.

    May be repeated at any time: what is as it should be is left, and what a run that was interrupted began is taken up.
    """
    console = None if as_json else Console()
    with _told():
        blueprint = read(file)
        cloud = _cloud(blueprint, data, profile, endpoint_url)
        if not yes:
            found = planning.planned(blueprint, cloud)
            _shown(found, Console(stderr=as_json))
            if found.refused:
                raise SystemExit(1)
            click.confirm("Apply this?", abort=True, err=as_json)
        with _Progress(console) as progress:
            report = applying.apply(blueprint, cloud, progress)
    if as_json:
        told = {
            "seconds": round(report.seconds, 2),
            "accounts": report.accounts,
            "enrolled": list(report.enrolled),
            "moved": list(report.moved),
            "stacks": [{"name": key[0], "account": key[1], "what": what} for key, what in report.stacks.items()],
        }
        click.echo(json.dumps(told, indent=2))
        return
    counts = {what: list(report.stacks.values()).count(what) for what in ("created", "updated", "unchanged")}
    shown = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    stand = f"{len(report.accounts)} accounts and {len(report.stacks)} stacks stand"
    click.echo(f"{stand} ({shown}) after {report.seconds:.1f} s")


@landing.command()
@_FILE
@DATA_OPTION
@_PROFILE
@_ENDPOINT
@_JSON
def drift(file: Path, data: Path, profile: str | None, endpoint_url: str | None, as_json: bool) -> None:
    """What was changed by hand: resources of stacks, guardrails, units and accounts. Ends with 1 if something was.

    `bastide landing plan` tells the other difference, between FILE and what was deployed.
    """
    with _told():
        blueprint = read(file)
        found = drifting.drifts(blueprint, _cloud(blueprint, data, profile, endpoint_url))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    elif not found:
        click.echo("Everything is as it was made.")
    else:
        table = Table("where", "what", "how")
        for one in found:
            table.add_row(one.where, escape(one.what), escape(one.how))
        Console().print(table)
    if found:
        raise SystemExit(1)


@landing.command()
@_FILE
@DATA_OPTION
@_PROFILE
@_ENDPOINT
@click.option("--empty-buckets", is_flag=True, help="Delete what lies in its buckets, the record too, for good.")
@click.option("--close-accounts", is_flag=True, help="Close the accounts that it made; else they stay, below the root.")
@_YES
@_JSON
def destroy(
    file: Path,
    data: Path,
    profile: str | None,
    endpoint_url: str | None,
    empty_buckets: bool,
    close_accounts: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Take away everything that the landing zone of FILE made."""
    with _told():
        blueprint = read(file)
        cloud = _cloud(blueprint, data, profile, endpoint_url)
        if not yes:
            click.confirm(f"Remove the landing zone {blueprint.name} and all that it made?", abort=True, err=as_json)
        with _Progress(None if as_json else Console()) as progress:
            done = removing.destroy(blueprint, cloud, progress, empty=empty_buckets, close=close_accounts)
    if as_json:
        click.echo(json.dumps({**asdict(done), "stacks": [list(one) for one in done.stacks]}, indent=2))
        return
    click.echo(f"{len(done.stacks)} stacks are gone after {done.seconds:.1f} s.")
    if done.left:
        click.echo(f"Accounts that stay, below the root: {_named(done.left)}.")
    if done.closed:
        click.echo(f"Accounts that were closed: {_named(done.closed)}.")
    if done.keys:
        click.echo(f"{len(done.keys)} keys are deleted when their waiting period of 7 days is over.")


def _named(accounts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({id_})" for name, id_ in accounts.items())


@landing.command()
@_FILE
def rules(file: Path) -> None:
    """The guardrails and the proactive rules, and which of them FILE turns off."""
    with _told():
        blueprint = read(file) if file.exists() else parse(default())
    table = Table("rule", "kind", "says")
    for one in guardrails(blueprint):
        table.add_row(one.name, {"scp": "service control", "rcp": "resource control"}[one.type], one.title)
    for name, about in proactive.RULES.items():
        if name not in blueprint.off:
            table.add_row(name, "proactive", f"looks at {about}")
    for name in sorted(blueprint.off):
        table.add_row(f"[dim]{name}[/]", "off", "")
    Console().print(table)

"""`bastide policy replay`: recorded traffic under policies that are not attached yet."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import botocore.exceptions
import click
from rich.console import Console
from rich.table import Table

from bastide.commands.client import Platform, from_environment
from bastide.commands.live import Reader, Stack, keys_of, principal_of, readers
from bastide.commands.options import DATA_OPTION
from bastide.domain import Refused
from bastide.policy import Attached, Document, Form, Layers, Principal, Request, decide

_ALL: Final = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
_EVERYTHING: Final = Attached(Document.parse(_ALL, Form.IDENTITY), "everything")
_SOMEBODY: Final = "arn:aws:iam::000000000000:user/somebody"
_EXAMPLES: Final = 3


@dataclass(slots=True)
class Plan:
    """What would change. scps, rcps: attached in addition to each account; replaced: by ARN of an existing policy."""

    scps: list[Attached] = field(default_factory=list)
    rcps: list[Attached] = field(default_factory=list)
    replaced: dict[str, str] = field(default_factory=dict)

    def changed(self, layers: Layers) -> Layers:
        """The layers as they would be."""
        scps = [[self._new(one) for one in level] for level in layers.scps]
        rcps = [[self._new(one) for one in level] for level in layers.rcps]
        if self.scps and scps:
            scps[-1] += self.scps
        if self.rcps and rcps:
            rcps[-1] += self.rcps
        return replace(
            layers,
            scps=scps,
            rcps=rcps,
            identity=[self._new(one) for one in layers.identity],
            boundary=None if layers.boundary is None else self._new(layers.boundary),
        )

    def _new(self, attached: Attached) -> Attached:
        text = self.replaced.get(attached.source)
        if text is None:
            return attached
        return Attached(Document.parse(text, attached.document.form), attached.source)

    @property
    def of_guardrails_only(self) -> bool:
        """Whether nothing changes but SCPs and RCPs."""
        return all(":organizations:" in arn for arn in self.replaced)


@dataclass(slots=True)
class Group:
    """Calls of one principal and action that would flip the same way."""

    principal: str
    action: str
    flip: str
    by: str
    count: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Outcome:
    """What the replay found. settled: calls whose answer stays. unknown: calls nobody can be sure of, by reason."""

    calls: int = 0
    questions: int = 0
    settled: int = 0
    groups: dict[tuple[str, str, str, str], Group] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)
    unknown_examples: dict[str, list[str]] = field(default_factory=dict)
    unbound: set[str] = field(default_factory=set)
    """Accounts that the organisation's policies do not bind: its management account, and all while they are disabled."""


class Replay:
    """Decides recorded calls under a plan."""

    def __init__(self, plan: Plan, reader: Reader) -> None:
        self.plan = plan
        self.outcome = Outcome()
        self._reader = reader

    def call(self, record: dict[str, Any]) -> None:
        """Takes one record."""
        outcome = self.outcome
        outcome.calls += 1
        found = record.get("additionalEventData", {}).get("bastide", {}).get("questions")
        if found is None:
            self._unknown(record, "the record holds no questions")
            return
        if not found:
            # Refused before anything was asked (a bad signature, an unknown name) or answered by itself.
            outcome.settled += 1
            return
        who = principal_of(record)
        answers = []
        for question in found:
            outcome.questions += 1
            if question.get("layer") == "needless":
                continue
            answers.append((question, *self._question(question, who, record)))
        reasons = [answer for _, answer, _ in answers if answer not in ("same", "allow", "deny")]
        denied = next(((question, by) for question, answer, by in answers if answer == "deny"), None)
        if denied is not None:
            self._flip(record, who, denied[0], "allowed -> denied", denied[1])
        elif reasons:
            self._unknown(record, reasons[0])
        elif any(answer == "allow" for _, answer, _ in answers):
            question = next(question for question, answer, _ in answers if answer == "allow")
            self._flip(record, who, question, "denied -> allowed", "")
        else:
            outcome.settled += 1

    def _question(self, question: dict[str, Any], who: Principal, record: dict[str, Any]) -> tuple[str, str]:
        """same, deny (was allowed), allow (was denied), or why it is not known; and what would decide."""
        if not isinstance(question.get("context"), dict):
            return "the record lacks the question's context", ""
        was_allowed = question["verdict"] == "Allowed"
        stack = self._reader.stack(who, question, record)
        if self.plan.scps and who.account and not stack.levels.get("scp"):
            self.outcome.unbound.add(who.account)
        request = Request(
            who, question["action"], question["resource"], question.get("account") or None, keys_of(question)
        )
        try:
            if self.plan.of_guardrails_only:
                told = self._by_guardrails(question, request, stack, was_allowed)
                if told is not None:
                    return told
            return self._by_everything(request, stack, was_allowed)
        except Refused as refused:
            raise click.ClickException(f"the changed policy is not valid: {refused.message}") from None

    def _by_guardrails(
        self, question: dict[str, Any], request: Request, stack: Stack, was_allowed: bool
    ) -> tuple[str, str] | None:
        """What SCPs and RCPs alone can settle: all else stays, and none of them grants anything."""
        hidden = [one for one in stack.hidden if one.layer in ("scp", "rcp")]
        if not was_allowed and question.get("layer") not in ("scp", "rcp"):
            return "same", ""  # what else denied still does
        if hidden:
            return f"a policy you may not read ({hidden[0].source})", ""
        layers = stack.layers()
        old = _guardrails(request, layers)
        new = _guardrails(request, self.plan.changed(layers))
        if was_allowed:
            if not old.allowed:
                return "the guardrails changed since", ""
            return ("same", "") if new.allowed else ("deny", _by(new))
        if old.allowed:
            return "the guardrails changed since", ""
        return ("same", "") if not new.allowed else None

    def _by_everything(self, request: Request, stack: Stack, was_allowed: bool) -> tuple[str, str]:
        if stack.hidden:
            return f"a policy you may not read ({stack.hidden[0].source})", ""
        layers = stack.layers()
        old = decide(request, layers)
        if old.allowed is not was_allowed:
            beside = f", or {' and '.join(stack.unknown)} decided" if stack.unknown else ""
            return f"the policies changed since{beside}", ""
        new = decide(request, self.plan.changed(layers))
        if new.allowed is was_allowed:
            return "same", ""
        return ("deny", _by(new)) if was_allowed else ("allow", "")

    def _flip(self, record: dict[str, Any], who: Principal, question: dict[str, Any], flip: str, by: str) -> None:
        principal = who.principal_arn or who.arn or "anonymous"
        key = (principal, question["action"], flip, by)
        group = self.outcome.groups.setdefault(key, Group(*key))
        group.count += 1
        if len(group.examples) < _EXAMPLES:
            group.examples.append(
                {
                    "requestId": record.get("requestID", ""),
                    "time": record.get("eventTime", ""),
                    "resource": question["resource"],
                }
            )

    def _unknown(self, record: dict[str, Any], reason: str) -> None:
        self.outcome.unknown[reason] += 1
        examples = self.outcome.unknown_examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(str(record.get("requestID", "")))


def _guardrails(request: Request, layers: Layers) -> Any:
    """The decision if everything but SCPs and RCPs allowed."""
    somebody = Principal("User", "000000000000", _SOMEBODY)
    alone = Layers((_EVERYTHING,), None, None, None, layers.scps, layers.rcps)
    return decide(replace(request, principal=somebody, resource_account=None), alone)


def _by(decision: Any) -> str:
    text = f"{decision.layer} {decision.source or ''}".strip()
    if decision.statement is not None:
        text += f" statement {decision.sid or decision.statement}"
    return text


# Reading the record


def _since(text: str) -> datetime:
    found = re.fullmatch(r"([0-9]+)([mhd])", text)
    if found is None:
        raise click.BadParameter("a number with m, h or d is needed, such as 7d", param_hint="--since")
    unit = {"m": "minutes", "h": "hours", "d": "days"}[found.group(2)]
    return datetime.now(UTC) - timedelta(**{unit: int(found.group(1))})


def _recorded(client: Any, start: datetime) -> Iterator[list[dict[str, Any]]]:
    """A page of records at a time, newest first; none is kept."""
    for page in client.get_paginator("lookup_events").paginate(StartTime=start):
        yield [json.loads(event["CloudTrailEvent"]) for event in page["Events"]]


def _delivered(paths: tuple[Path, ...], start: datetime) -> Iterator[list[dict[str, Any]]]:
    """The same from log files of a trail; folders are searched."""
    for path in paths:
        for one in sorted(path.rglob("*.json*")) if path.is_dir() else [path]:
            raw = one.read_bytes()
            try:
                found = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)["Records"]
            except (ValueError, KeyError, TypeError, OSError, EOFError):
                raise click.ClickException(f"{one} is no log file of a trail") from None
            yield [record for record in found if record.get("eventTime", "") >= start.strftime("%Y-%m-%dT%H:%M:%SZ")]


# The command


@click.command()
@DATA_OPTION
@click.option("--scp", "scps", multiple=True, type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="A service control policy, as if attached to each replayed account.")  # fmt: skip
@click.option("--rcp", "rcps", multiple=True, type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="A resource control policy, as if attached to each replayed account.")  # fmt: skip
@click.option("--policy", "replaced", multiple=True, metavar="ARN=FILE",
              help="The new content of an existing SCP, RCP or managed policy.")  # fmt: skip
@click.option("--since", default="7d", show_default=True, help="How far back: 30m, 12h, 7d.")
@click.option("--account", "accounts", multiple=True, help="Only these accounts (ids).  [default: all]")
@click.option("--records", multiple=True, type=click.Path(path_type=Path, exists=True),
              help="Log files of a trail instead of the event history; data events are found only there.")  # fmt: skip
@click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True)
def replay(
    data: Path,
    scps: tuple[Path, ...],
    rcps: tuple[Path, ...],
    replaced: tuple[str, ...],
    since: str,
    accounts: tuple[str, ...],
    records: tuple[Path, ...],
    shape: str,
) -> None:
    """List the recorded calls that changed policies would answer otherwise, without changing anything.

    Everything but the given policies counts as it is now. Calls that cannot be decided for sure (policies that changed
    since, or that you may not read) are counted and named, never left out. Ends with 1 if a call would flip.

    The event history holds management events; calls on objects are replayed from a trail's files (--records).
    """
    plan = _plan(scps, rcps, replaced)
    platform = Platform(data)
    mine = from_environment()
    allowed = readers(platform, mine)
    run = Replay(plan, Reader(platform, allowed))
    start = _since(since)
    unread: list[str] = []
    if records:
        _drain(run, _delivered(records, start), "the files", accounts)
    else:
        for account in accounts or _all_accounts(platform, mine is not None):
            held = mine if account == "" else allowed(account)
            if held is None:
                unread.append(account)
                continue
            try:
                _drain(run, _recorded(platform.client("cloudtrail", held), start), account or "this account", ())
            except botocore.exceptions.ClientError as error:
                unread.append(f"{account or 'this account'} ({error.response['Error']['Code']})")
    told = _told(run.outcome, unread)
    if shape == "json":
        click.echo(json.dumps(told, indent=2))
    else:
        _print(told)
    if run.outcome.groups:
        raise SystemExit(1)


def _plan(scps: tuple[Path, ...], rcps: tuple[Path, ...], replaced: tuple[str, ...]) -> Plan:
    if not (scps or rcps or replaced):
        raise click.UsageError("give what would change: --scp FILE, --rcp FILE or --policy ARN=FILE")
    plan = Plan()
    for paths, form, into in ((scps, Form.SCP, plan.scps), (rcps, Form.RCP, plan.rcps)):
        for path in paths:
            try:
                into.append(Attached(Document.parse(path.read_bytes(), form), str(path)))
            except Refused as refused:
                raise click.ClickException(f"{path}: {refused.message}") from None
    for one in replaced:
        arn, equals, name = one.partition("=")
        if not equals or not arn.startswith("arn:"):
            raise click.BadParameter(f"`{one}` is not ARN=FILE", param_hint="--policy")
        try:
            text = Path(name).read_text(encoding="utf-8")
            Document.parse(text, Form.SCP if ":organizations:" in arn and "/service_control" in arn else Form.RCP
                           if ":organizations:" in arn else Form.IDENTITY)  # fmt: skip
        except OSError as error:
            raise click.ClickException(str(error)) from None
        except Refused as refused:
            raise click.ClickException(f"{name}: {refused.message}") from None
        plan.replaced[arn] = text
    return plan


def _all_accounts(platform: Platform, own: bool) -> list[str]:
    """All accounts for the administrator; with one's own credentials the account that they belong to."""
    if own:
        return [""]
    return [one["Id"] for one in platform.accounts(platform.administrator())]


def _drain(run: Replay, pages: Iterator[list[dict[str, Any]]], what: str, accounts: tuple[str, ...]) -> None:
    for number, page in enumerate(pages, 1):
        for record in page:
            if not accounts or record.get("recipientAccountId") in accounts:
                run.call(record)
        if number % 20 == 0:
            click.echo(f"{what}: {run.outcome.calls} calls replayed so far", err=True)


def _told(outcome: Outcome, unread: list[str]) -> dict[str, Any]:
    groups = sorted(outcome.groups.values(), key=lambda one: (one.flip, -one.count, one.principal, one.action))
    return {
        "calls": outcome.calls,
        "questions": outcome.questions,
        "same": outcome.settled,
        "flips": [
            {
                "principal": one.principal,
                "action": one.action,
                "flip": one.flip,
                "by": one.by,
                "count": one.count,
                "examples": one.examples,
                **({"note": _LATER} if one.flip.endswith("allowed") else {}),
            }
            for one in groups
        ],
        "notKnown": [
            {"reason": reason, "count": count, "examples": outcome.unknown_examples[reason]}
            for reason, count in outcome.unknown.most_common()
        ],
        "accountsNotRead": unread,
        "accountsNotBound": sorted(outcome.unbound),
    }


_LATER: Final = "what the call would have been asked next is not on record, nor are the session's own policies"


def _print(told: dict[str, Any]) -> None:
    console = Console(emoji=False, highlight=False)
    flips = sum(one["count"] for one in told["flips"])
    unknown = sum(one["count"] for one in told["notKnown"])
    console.print(
        f"{told['calls']} calls, {told['questions']} questions: {told['same']} answered as before, [bold]{flips} would "
        f"flip[/], {unknown} not known"
    )
    if told["flips"]:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("flip", "calls", "principal", "action", "by", "example"):
            table.add_column(column)
        for one in told["flips"]:
            example = one["examples"][0]["requestId"]
            table.add_row(one["flip"], str(one["count"]), one["principal"], one["action"], one["by"], example)
        console.print(table)
    for one in told["notKnown"]:
        console.print(
            f"not known: {one['count']} calls: {one['reason']} (such as {', '.join(one['examples'])})", markup=False
        )
    for account in told["accountsNotRead"]:
        console.print(f"not read: the record of {account}", markup=False)
    for account in told["accountsNotBound"]:
        console.print(f"not bound by service control policies: {account}", markup=False)

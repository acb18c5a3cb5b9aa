"""`bastide policy prove`: what holds for every request, or a request for which it does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import botocore.exceptions
import botocore.session
import click
import yaml
from rich.console import Console

from bastide.commands.client import Credentials, Platform, from_environment
from bastide.commands.live import Reader, Stack, readers
from bastide.commands.options import DATA_OPTION
from bastide.domain import Arn, Refused
from bastide.policy import Attached, Document, Form, Layers, Principal
from bastide.policy.prove import (
    Proof,
    Scope,
    Situation,
    Unavailable,
    guardrail_holds,
    guardrail_of,
    no_more_permissive,
    search,
)

_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)
_SECONDS = click.option(
    "--seconds", type=click.FloatRange(0.1, 3600), default=30.0, show_default=True, help="Time for a proof."
)
_SHAPE = click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True)
_EXITS: Final = {"proved": 0, "refuted": 1, "not proved": 2}


@click.group()
def prove() -> None:
    """Prove what holds for every request, or show one for which it does not (needs bastide[prove]).

    Ends with 0 if proved, 1 if refuted (the request is shown, and the policy engine confirms it) and 2 if not proved, with
    the reason: a construct that has no exact encoding, or the time is up.
    """


@prove.command()
@click.argument("new", type=_FILE)
@click.argument("old", type=_FILE)
@click.option(
    "--type", "form", type=click.Choice([one.value for one in Form]), default=Form.IDENTITY.value, show_default=True
)
@_SECONDS
@_SHAPE
def compare(new: Path, old: Path, form: str, seconds: float, shape: str) -> None:
    """Prove that the policy NEW allows nothing that OLD does not."""
    first, second = _read(new, Form(form)), _read(old, Form(form))
    known = _known_actions(first.document, second.document)
    proof = _proof(lambda: no_more_permissive(first.document, second.document, seconds=seconds, known_actions=known))
    _end({"claim": f"{new} is no more permissive than {old}", **_told(proof)}, shape)


@prove.command()
@DATA_OPTION
@click.argument("claim", type=_FILE)
@click.option("--scp", "scps", multiple=True, type=_FILE, help="A service control policy that guards.")
@click.option("--rcp", "rcps", multiple=True, type=_FILE, help="A resource control policy that guards.")
@click.option("--identity", "identities", multiple=True, type=_FILE, help="Whoever asks has only this.")
@click.option("--boundary", type=_FILE, help="A permissions boundary.")
@click.option("--endpoint", type=_FILE, help="The policy of the VPC endpoint that the calls come through.")
@click.option("--account", help="Guarded by the SCPs that bind this account now.")
@_SECONDS
@_SHAPE
def guardrail(
    data: Path,
    claim: Path,
    scps: tuple[Path, ...],
    rcps: tuple[Path, ...],
    identities: tuple[Path, ...],
    boundary: Path | None,
    endpoint: Path | None,
    account: str | None,
    seconds: float,
    shape: str,
) -> None:
    """Prove that a guardrail holds for all requests.

    CLAIM is YAML or JSON: of the requests with these `actions`, `resources` and `when` (a Condition element), none is
    allowed unless it meets `unless` (a Condition element), even to an administrator.
    """
    full = Attached(Document.parse(_ALL, Form.SCP), "FullAWSAccess")
    levels: list[list[Attached]] = [[full, *(_read(one, Form.SCP) for one in scps)]] if scps else []
    if account:
        platform = Platform(data)
        _, held = Reader(platform, readers(platform, from_environment())).organisation(account, "scp")
        count = 1 + max((one.level or 0 for one in held), default=-1)
        stack = Stack(held=held, levels={"scp": count})
        if stack.hidden:
            _end({"claim": str(claim), "outcome": "not proved", "why": "an SCP may not be read"}, shape)
        levels += [list(level) for level in stack.layers().scps]
    guard = Layers(
        identity=[_read(one, Form.IDENTITY) for one in identities],
        boundary=None if boundary is None else _read(boundary, Form.BOUNDARY),
        session=None,
        resource=None,
        scps=levels,
        rcps=[[_read(one, Form.RCP) for one in rcps]] if rcps else (),
        endpoint=None if endpoint is None else _read(endpoint, Form.ENDPOINT),
    )
    if not (levels or rcps or identities or boundary or endpoint):
        raise click.UsageError("give the policies that guard: --scp FILE, --account ID, ...")
    try:
        source = yaml.safe_load(claim.read_text(encoding="utf-8"))
        if not isinstance(source, dict):
            raise click.ClickException(f"{claim}: a claim is a mapping")
        held_claim = guardrail_of(source, guard, name=str(source.get("description") or claim))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{claim}: {error}") from None
    except Refused as refused:
        raise click.ClickException(f"{claim}: {refused.message}") from None
    documents = [one.document for level in levels for one in level]
    known = _known_actions(*documents, more=held_claim.scope.actions or ())
    proof = _proof(lambda: guardrail_holds(held_claim, seconds=seconds, known_actions=known))
    _end({"claim": held_claim.name, **_told(proof)}, shape)


@prove.command()
@DATA_OPTION
@click.argument("action")
@click.argument("resource", default="*")
@click.option("--account", "accounts", multiple=True, help="An account's id.")
@click.option("--ou", "units", multiple=True, help="An organisational unit's id, with all accounts below it.")
@click.option("--principal", "only", multiple=True, help="Only these users and roles (ARNs).")
@_SECONDS
@_SHAPE
def can(
    data: Path,
    action: str,
    resource: str,
    accounts: tuple[str, ...],
    units: tuple[str, ...],
    only: tuple[str, ...],
    seconds: float,
    shape: str,
) -> None:
    """Prove that nobody in the accounts can do ACTION on RESOURCE, under the policies in force now.

    Both may hold wildcards. Every user and every role is asked for, whatever request it may make; session policies, which
    only take away, are left out of account. Refuted lists everybody who can, with a request each.
    """
    platform = Platform(data)
    mine = from_environment()
    allowed = readers(platform, mine)
    reader = Reader(platform, allowed)
    chosen = list(accounts)
    for unit in units:
        chosen += _below(platform, mine or platform.administrator(), unit)
    if not chosen:
        raise click.UsageError("give --account ID or --ou ID")
    answers: list[dict[str, Any]] = []
    for account in dict.fromkeys(chosen):
        for principal in _entities(platform, allowed(account), account, only):
            answers.append(_asked(reader, principal, account, action, resource, seconds))
    if not answers:
        raise click.ClickException("no user and no role was found there")
    outcomes = [one["outcome"] for one in answers]
    outcome = "refuted" if "refuted" in outcomes else "not proved" if "not proved" in outcomes else "proved"
    told = {
        "claim": f"nobody in {', '.join(dict.fromkeys(chosen))} can {action} on {resource}",
        "outcome": outcome,
        "principals": len(answers),
        "answers": [one for one in answers if one["outcome"] != "proved"],
    }
    if outcome == "not proved":
        told["why"] = "; ".join(dict.fromkeys(one["why"] for one in answers if one["outcome"] == "not proved"))
    _end(told, shape)


# Live policies


def _below(platform: Platform, held: Credentials, unit: str) -> Iterator[str]:
    client = platform.client("organizations", held)
    for page in client.get_paginator("list_accounts_for_parent").paginate(ParentId=unit):
        yield from (one["Id"] for one in page["Accounts"])
    for page in client.get_paginator("list_organizational_units_for_parent").paginate(ParentId=unit):
        for one in page["OrganizationalUnits"]:
            yield from _below(platform, held, one["Id"])


def _entities(
    platform: Platform, held: Credentials | None, account: str, only: tuple[str, ...]
) -> Iterator[Principal | None]:
    """Every user and role of an account; None if they may not be listed."""
    if held is None:
        yield None
        return
    client = platform.client("iam", held)
    found: list[str] = []
    try:
        for operation, member in (("list_users", "Users"), ("list_roles", "Roles")):
            for page in client.get_paginator(operation).paginate():
                found += [one["Arn"] for one in page[member]]
    except botocore.exceptions.ClientError:
        yield None
        return
    for text in found:
        if only and text not in only:
            continue
        arn = Arn.parse(text)
        if arn.type == "user":
            yield Principal("User", account, text, text)
        else:
            name = arn.resource.rpartition("/")[2]
            yield Principal("AssumedRole", account, f"arn:aws:sts::{account}:assumed-role/{name}/any-session", text)


def _asked(
    reader: Reader, who: Principal | None, account: str, action: str, resource: str, seconds: float
) -> dict[str, Any]:
    if who is None:
        why = f"the users and roles of {account} may not be listed"
        return {"principal": account, "outcome": "not proved", "why": why}
    named = _named(resource)
    owner = Arn.parse(named).account if named != "*" else ""
    question = {"action": action, "resource": named, "account": owner or account, "context": {}}
    stack = reader.stack(who, question, {})
    if stack.hidden:
        why = f"a policy you may not read ({stack.hidden[0].source})"
        return {"principal": who.principal_arn, "outcome": "not proved", "why": why}
    context: dict[str, Any] = {"aws:principalarn": who.principal_arn, "aws:principalaccount": account}
    if who.kind == "User":
        context["aws:username"] = who.arn.rpartition("/")[2]
    layers = stack.layers()
    situation = Situation(who.principal_arn, who, layers, owner or None)
    documents = [one.attached.document for one in stack.held if one.attached is not None]
    scope = Scope((action,), None if resource == "*" else (resource,), context=context)
    known = _known_actions(*documents, more=(action,))
    proof = _proof(lambda: search([situation], scope, seconds=seconds, known_actions=known))
    if proof.outcome == "proved" and not _looked_at(named, action):
        # Whatever a resource's own policy or a grant may allow is taken as allowed.
        widest = replace(layers, resource=Attached(Document.parse(_PUBLIC, Form.RESOURCE), "any resource's policy"))
        beyond = _proof(lambda: search([replace(situation, layers=widest)], scope, seconds=seconds))
        if beyond.outcome != "proved":
            why = "policies (or grants) of the resources that match are not looked at, and one may grant it"
            return {"principal": who.principal_arn, "outcome": "not proved", "why": why}
    return {"principal": who.principal_arn, **_told(proof)}


_LOOKED_AT: Final = frozenset({"s3", "iam", "sagemaker", "secretsmanager", "ecr"})
"""Services whose resources' policies are read, or whose resources have none."""


def _named(resource: str) -> str:
    """The resource whose policy counts, ``*`` if the pattern does not name one; of objects the bucket is enough."""
    wild = [resource.find(char) for char in "*?" if char in resource]
    if not wild:
        return resource
    bucket, slash, _ = resource.partition("/")
    if resource.startswith("arn:aws:s3:::") and slash and min(wild) > len(bucket):
        return f"{bucket}/any"
    return "*"


def _looked_at(named: str, action: str) -> bool:
    return named != "*" and Arn.parse(named).service in _LOOKED_AT and "*" not in action.partition(":")[0]


# Reading and telling

_PUBLIC: Final = {
    "Version": "2012-10-17",
    "Statement": {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"},
}

_ALL: Final = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}


def _read(path: Path, form: Form) -> Attached:
    try:
        return Attached(Document.parse(path.read_bytes(), form), str(path))
    except Refused as refused:
        raise click.ClickException(f"{path}: {refused.message}") from None


def _proof(run: Any) -> Proof:
    try:
        found: Proof = run()
    except Unavailable as missing:
        raise click.ClickException(str(missing)) from None
    except Refused as refused:
        raise click.ClickException(refused.message) from None
    return found


def _known_actions(*documents: Document, more: tuple[str, ...] = ()) -> list[str]:
    """Names of operations of the services that are spoken of, so that a counterexample has one that exists."""
    texts = [text for document in documents for one in document.statements for text in one.actions]
    prefixes = {text.partition(":")[0].lower() for text in (*texts, *more)} - {"*"}
    session = botocore.session.get_session()
    available = set(session.get_available_services())
    found: list[str] = []
    for prefix in sorted(prefixes & available) or ["s3"]:
        found += [f"{prefix}:{name}" for name in session.get_service_model(prefix).operation_names]
    return found


def _told(proof: Proof) -> dict[str, Any]:
    told: dict[str, Any] = {"outcome": proof.outcome, "seconds": round(proof.seconds, 3)}
    if proof.why:
        told["why"] = proof.why
    if proof.inexact:
        told["leftOpen"] = list(proof.inexact)
    if proof.request is not None and proof.decision is not None:
        request, decision = proof.request, proof.decision
        told["request"] = {
            "principal": request.principal.principal_arn or request.principal.arn or "anonymous",
            "action": request.action,
            "resource": request.resource,
            "context": {key: one if isinstance(one, str) else list(one) for key, one in request.context.items()},
        }
        told["allowedBy"] = {
            name: value
            for name in ("layer", "source", "statement", "sid")
            if (value := getattr(decision, name)) is not None
        }
    return told


def _end(told: dict[str, Any], shape: str) -> None:
    """Prints an answer and ends with its exit status."""
    if shape == "json":
        click.echo(json.dumps(told, indent=2))
    else:
        console = Console(emoji=False, highlight=False, soft_wrap=True)
        colour = {"proved": "green", "refuted": "red"}.get(told["outcome"], "yellow")
        console.print(f"[{colour}]{told['outcome']}[/]: ", end="")
        console.print(told["claim"], markup=False)
        if told.get("why"):
            console.print(f"  {told['why']}", markup=False)
        for one in [told, *told.get("answers", ())]:
            if one is not told and one.get("why"):
                console.print(f"  {one['principal']}: not proved: {one['why']}", markup=False)
            _print_request(console, one)
    raise SystemExit(_EXITS[told["outcome"]])


def _print_request(console: Console, one: dict[str, Any]) -> None:
    request = one.get("request")
    if request is None:
        return
    console.print(f"  {request['principal']} may {request['action']} on {request['resource']}", markup=False)
    for key, value in sorted(request["context"].items()):
        console.print(f"    with {key} = {value}", markup=False)
    by = one["allowedBy"]
    statement = by.get("sid") or by.get("statement", "")
    console.print(f"    allowed by {by.get('layer')} {by.get('source', '')} statement {statement}", markup=False)

"""`bastide why`: a decision explained to whoever may read the record and the policies."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import botocore.exceptions
import click
from rich.console import Console
from rich.table import Table

from bastide.commands.client import Credentials, Platform, from_environment
from bastide.commands.live import Held, Reader, Stack, keys_of, principal_of, readers
from bastide.commands.options import DATA_OPTION
from bastide.policy import Finding, Principal, Request, decide, explain
from bastide.policy.nearest import nearest, written

_SIGNED_OUT: Final = "no management event with this request or event id can be found with these credentials"


# The record


def _when(id: str) -> datetime | None:
    """When a request or an event was, which its id tells (UUID version 7); None for an id that does not."""
    try:
        found = UUID(id)
    except ValueError:
        return None
    if found.version != 7:
        return None
    try:
        return datetime.fromtimestamp((found.int >> 80) / 1000, UTC)
    except (ValueError, OverflowError):
        return None


def _lookups(client: Any, id: str) -> Iterator[dict[str, Any]]:
    """The events among which an id may be: those of its second, whatever the record's size; else the newest."""
    moment = _when(id)
    pages = client.get_paginator("lookup_events")
    if moment is None:
        yield from pages.paginate(PaginationConfig={"MaxItems": 5000})
        return
    start = moment.replace(microsecond=0)
    yield from pages.paginate(
        LookupAttributes=[{"AttributeKey": "EventId", "AttributeValue": id}], PaginationConfig={"MaxItems": 10}
    )
    yield from pages.paginate(StartTime=start, EndTime=start + timedelta(seconds=1))


def find(platform: Platform, credentials: Credentials, request_id: str) -> dict[str, Any] | None:
    """The record of a request or an event among the management events that these credentials may look up."""
    for page in _lookups(platform.client("cloudtrail", credentials), request_id):
        for event in page["Events"]:
            record: dict[str, Any] = json.loads(event["CloudTrailEvent"])
            if request_id in (record["requestID"], record["eventID"]):
                return record
    return None


def _in_files(paths: tuple[Path, ...], request_id: str) -> dict[str, Any] | None:
    """The record in files that a trail has delivered; these hold data events, too."""
    for path in paths:
        raw = path.read_bytes()
        try:
            found = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
            for record in found["Records"]:
                if request_id in (record["requestID"], record["eventID"]):
                    return dict(record)
        except (ValueError, KeyError, TypeError, OSError, EOFError):
            raise click.ClickException(f"{path} is no log file of a trail") from None
    return None


def _everywhere(platform: Platform, held: Credentials, request_id: str) -> dict[str, Any] | None:
    """The record in the member accounts, as their administrator."""
    for account in platform.accounts(held):
        if account["Id"] == platform.configuration.account:
            continue
        try:
            inside = platform.inside(account["Id"])
        except botocore.exceptions.ClientError:
            continue  # an account whose doors are closed to the administrator keeps its record to itself
        record = find(platform, inside, request_id)
        if record is not None:
            return record
    return None


def _of_message(platform: Platform, credentials: Credentials, message: str) -> dict[str, Any]:
    """A record made from an encoded authorization message: one question, and who asked it."""
    told = json.loads(
        platform.client("sts", credentials).decode_authorization_message(EncodedMessage=message)["DecodedMessage"]
    )
    context = told["context"]
    keys: dict[str, Any] = {}
    for one in context["conditions"]["items"]:
        values = [value["value"] for value in one["values"]["items"]]
        keys[one["key"]] = values[0] if len(values) == 1 else values
    arn = str(context["principal"].get("arn", ""))
    parts = arn.split(":", 5)
    identity: dict[str, Any] = {"type": "Unknown", "arn": arn, "accountId": parts[4] if len(parts) > 4 else ""}
    if ":assumed-role/" in arn:
        role = keys.get("aws:principalarn", "")
        identity |= {"type": "AssumedRole", "sessionContext": {"sessionIssuer": {"arn": role}}}
    elif ":user/" in arn:
        identity["type"] = "IAMUser"
    elif arn.endswith(":root"):
        identity["type"] = "Root"
    elif arn.endswith(".amazonaws.com"):
        identity |= {"type": "AWSService", "invokedBy": arn}
    question = {
        "action": context["action"],
        "resource": context["resource"],
        "account": keys.get("aws:resourceaccount", ""),
        "context": keys,
        "verdict": "ExplicitlyDenied" if told["explicitDeny"] else "ImplicitlyDenied",
    }
    matched = told["matchedStatements"]["items"]
    if matched and matched[0].get("statementId"):
        question["sid"] = matched[0]["statementId"]
    return {
        "requestID": "",
        "eventName": str(context["action"]).partition(":")[2],
        "eventTime": keys.get("aws:currenttime", ""),
        "userIdentity": identity,
        "errorCode": "AccessDenied",
        "additionalEventData": {"bastide": {"questions": [question]}},
    }


# One statement, for those who only want that


def statement(
    platform: Platform, credentials: Credentials, question: dict[str, Any], inside: Credentials | None = None
) -> str:
    """The deciding statement as JSON, or why it is not shown. inside: what reads policies of the record's own account,
    where these are others than `credentials`."""
    source = str(question.get("policy", ""))
    number = question.get("statement")
    home = platform.configuration.account
    reader = Reader(platform, lambda account: credentials if inside is None or account == home else inside)
    held = reader.by_arn(source)
    if held is None:
        return "the deciding policy has no ARN that could be looked up"
    if held.attached is None:
        return f"you may not read that policy ({held.why}); ask whoever owns it"
    shown = [written(one) for one in held.attached.document.statements if number is None or one.index == number]
    return json.dumps(shown if len(shown) > 1 else shown[0], indent=2)


# The explanation


def explained(record: dict[str, Any], reader: Reader) -> dict[str, Any]:
    """A record's decisions, layer by layer, against the policies as they are now and as far as the reader may read."""
    who = principal_of(record)
    questions = [_question(one, who, record, reader) for one in _questions(record)]
    told: dict[str, Any] = {
        "requestId": record.get("requestID", ""),
        "eventName": record["eventName"],
        "eventTime": record.get("eventTime", ""),
        "principal": who.arn or "anonymous",
        "allowed": "errorCode" not in record,
        "questions": questions,
    }
    if "errorCode" in record:
        told["error"] = {"code": record["errorCode"], "message": record.get("errorMessage", "")}
    return told


def _questions(record: dict[str, Any]) -> list[dict[str, Any]]:
    return list(record.get("additionalEventData", {}).get("bastide", {}).get("questions", ()))


def _question(question: dict[str, Any], who: Principal, record: dict[str, Any], reader: Reader) -> dict[str, Any]:
    then = {name: question[name] for name in ("verdict", "layer", "policy", "statement", "sid") if name in question}
    told: dict[str, Any] = {
        "action": question["action"],
        "resource": question["resource"],
        "then": then,
        "context": question["context"],
    }
    if question.get("layer") == "needless":
        return told | {"note": "every authenticated caller may"}
    stack = reader.stack(who, question, record)
    request = Request(who, question["action"], question["resource"], question.get("account") or None, keys_of(question))
    layers = stack.layers()
    findings = {(one.layer, one.level, one.source): one for one in explain(request, layers)}
    told["layers"] = [_layer(held, findings.get((held.layer, held.level, held.source))) for held in stack.held]
    told["notTold"] = [f"{one.layer}: a policy you may not read ({one.source}; {one.owner})" for one in stack.hidden]
    told["notTold"] += [f"{one} cannot be read by anybody" for one in stack.unknown]
    if stack.hidden:
        told["now"] = None
    else:
        decision = decide(request, layers)
        told["now"] = {name: value for name, value in decision._asdict().items() if value is not None}
        told["changed"] = decision.verdict != question["verdict"]
    if question["verdict"] != "Allowed":
        told["nearest"] = _nearest(request, stack, question)
    return told


def _layer(held: Held, finding: Finding | None) -> dict[str, Any]:
    told: dict[str, Any] = {"layer": held.layer, "source": held.source, "owner": held.owner}
    if held.level is not None:
        told["level"] = held.level
    if held.attached is None or finding is None:
        return told | {"verdict": None, "note": "a policy you may not read", "why": held.why}
    statements = []
    for one in finding.statements:
        shown = asdict(one) | {"text": written(held.attached.document.statements[one.statement])}
        statements.append(shown)
    return told | {"verdict": finding.verdict, "statements": statements}


def _nearest(request: Request, stack: Stack, question: dict[str, Any]) -> list[dict[str, str]]:
    """Each change with who may make it."""
    owners = {one.source: one.owner for one in stack.held}
    of_layer = {one.layer: one.owner for one in reversed(stack.held)}
    account = request.principal.account or ""
    default = {
        "caller": "whoever asks",
        "identity": f"administrators of the account {account}",
        "boundary": f"administrators of the account {account}",
        "session": "whoever starts the session",
        "scp": "the organisation's administrators",
        "rcp": "the organisation's administrators",
        "resource": f"administrators of the account {question.get('account') or account}",
        "trust": f"administrators of the account {question.get('account') or account}",
    }
    layer = str(question.get("layer", ""))
    if any(one.layer == layer or (not layer and one.attached is None) for one in stack.hidden):
        who = of_layer.get(layer) or default.get(layer, "whoever owns it")
        return [{"who": who, "change": "a policy you may not read refuses this; ask them", "by": layer or "unknown"}]
    changes = nearest(request, stack.layers())
    if changes is None:
        return [{"who": "nobody", "change": "no small change was found that would allow it", "by": ""}]
    told = []
    for one in changes:
        who = owners.get(one.source) or of_layer.get(one.who) or default.get(one.who, "whoever owns it")
        told.append({"who": default["caller"] if one.who == "caller" else who, "change": one.text, "by": one.who})
    if not told:
        told = [{"who": "nobody", "change": "the policies as they are now allow it", "by": ""}]
    elif stack.hidden:
        told.append({"who": "", "change": "policies that you may not read may ask for more", "by": ""})
    return told


# The command


@click.command()
@DATA_OPTION
@click.argument("request_id", required=False)
@click.option("--message", help="An encoded authorization message instead of an id (sts:DecodeAuthorizationMessage).")
@click.option(
    "--records",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Log files of a trail to look in; data events (objects) are found only there.",
)
@click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True)
def why(data: Path, request_id: str | None, message: str | None, records: tuple[Path, ...], shape: str) -> None:
    """Explain why the call REQUEST_ID was refused or allowed (the id stands in every answer's ResponseMetadata).

    Shows what every policy in force says, the statement that decided, the condition values seen and wanted, and the
    nearest change that would have allowed the call, with who may make it.

    Uses the AWS_* credentials of the environment, the administrator's without them. The record must be one that these
    credentials may look up, and a policy is shown only to whoever may read it.
    """
    if (request_id is None) == (message is None):
        raise click.UsageError("give either REQUEST_ID or --message")
    platform = Platform(data)
    mine = from_environment()
    held = mine or platform.administrator()
    record: dict[str, Any] | None
    if message is not None:
        record = _of_message(platform, held, message)
    elif records:
        record = _in_files(records, str(request_id))
    else:
        record = find(platform, held, str(request_id))
        if record is None and mine is None:
            record = _everywhere(platform, held, str(request_id))
    if record is None:
        raise click.ClickException(_SIGNED_OUT if not records else "no record with this id is in these files")
    told = explained(record, Reader(platform, readers(platform, mine)))
    if shape == "json":
        click.echo(json.dumps(told, indent=2))
    else:
        _print(told)


def _print(told: dict[str, Any]) -> None:
    console = Console(highlight=False)
    console.print(f"[bold]{told['eventName']}[/] by {told['principal']} at {told['eventTime']}")
    if told["allowed"]:
        console.print("was allowed:")
    else:
        console.print(f"[red]{told['error']['code']}[/]: ", end="")
        console.print(told["error"]["message"], markup=False)
    for question in told["questions"]:
        then = question["then"]
        console.print(f"\n{question['action']} on {question['resource']}: [bold]{then['verdict']}[/]")
        if then.get("layer"):
            console.print(f"  decided by: {then['layer']} {then.get('policy', '')}", markup=False)
        if "layers" in question:
            _print_layers(console, question)
        if then["verdict"] != "Allowed":
            console.print("  the condition values it saw:")
            for key, value in sorted(question["context"].items()):
                console.print(f"    {key} = {value}", markup=False)


_WORDS: Final = {"Allowed": "allows", "ExplicitlyDenied": "denies", "ImplicitlyDenied": "says nothing"}


def _print_layers(console: Console, question: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("  layer", "says", "policy"):
        table.add_column(column)
    for one in question["layers"]:
        level = f" {one['level']}" if "level" in one else ""
        says = _WORDS.get(one["verdict"]) or f"a policy you may not read ({one['why']})"
        table.add_row(f"  {one['layer']}{level}", says, one["source"])
    console.print(table)
    deciding = question["then"]
    for one in question["layers"]:
        for statement in one.get("statements", ()):
            decided = one["source"] == deciding.get("policy") and statement["statement"] == deciding.get("statement")
            if not decided:
                continue
            console.print("  the statement that decided:")
            console.print(json.dumps(statement["text"], indent=2), markup=False)
            for seen in statement["conditions"]:
                held = "held" if seen["held"] else "did not hold"
                value = "(missing)" if seen["seen"] is None else seen["seen"]
                wanted = ", ".join(seen["wanted"])
                console.print(
                    f"    {seen['operator']} {seen['key']}: wanted {wanted}, seen {value}: {held}", markup=False
                )
    readable = [one["source"] for one in question["layers"] if one["verdict"] is not None]
    hidden = any(one["verdict"] is None for one in question["layers"])
    if hidden and deciding.get("policy") and deciding["policy"] not in readable:
        console.print("  the statement that decided: you may not read that policy", markup=False)
    for one in question.get("notTold", ()):
        console.print(f"  not told: {one}", markup=False)
    now = question.get("now")
    if question.get("changed"):
        told = f"{now['verdict']} by {now['layer']}" if now else "unknown"
        console.print(f"  the policies changed since: now {told}", markup=False)
    if question.get("nearest"):
        console.print("  what would have allowed it:")
        for change in question["nearest"]:
            console.print(f"    - {change['change']}", markup=False)
            if change["who"]:
                console.print(f"      who can: {change['who']}", markup=False)

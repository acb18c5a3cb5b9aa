"""`bastide why`: a decision explained to whoever may read the record and the policies."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import botocore.exceptions
import click
from rich.console import Console
from rich.markup import escape

from bastide.commands.client import Credentials, Platform, from_environment
from bastide.commands.live import Held, Reader, Stack, keys_of, principal_of, readers
from bastide.commands.options import DATA_OPTION
from bastide.policy import Finding, Principal, Request, decide, explain
from bastide.policy.nearest import nearest, written

_SUFFIX: Final = "Encoded authorization failure message:"
_NO_MESSAGE: Final = (
    "these credentials decode no such message: it is incomplete, of another account, or its record is gone"
)
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


def _everybody(platform: Platform, held: Credentials) -> Iterator[Credentials]:
    """The administrator, then each member account's."""
    yield held
    for account in platform.accounts(held):
        if account["Id"] == platform.configuration.account:
            continue
        try:
            yield platform.inside(account["Id"])
        except botocore.exceptions.ClientError:
            continue  # an account whose doors are closed to the administrator keeps its record to itself


def _decoded(platform: Platform, who: Iterable[Credentials], message: str) -> str | None:
    """What the message says to the first of `who` that it is for; None if it is for none of them."""
    for credentials in who:
        try:
            sts = platform.client("sts", credentials)
            return str(sts.decode_authorization_message(EncodedMessage=message)["DecodedMessage"])
        except botocore.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "InvalidAuthorizationMessageException":
                raise
    return None


def _of_message(text: str) -> dict[str, Any]:
    """A record made from a decoded authorization message: one question, and who asked it."""
    told = json.loads(text)
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
        "vpcEndpointId": keys.get("aws:sourcevpce", ""),
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
        if "layer" not in question and not told["changed"]:
            # An encoded message does not tell which policy it was; the policies of now, which decide alike, do.
            now = told["now"]
            told["then"] |= {name: now[name] for name in ("layer", "statement", "sid") if name in now}
            told["then"] |= {"policy": now["source"]} if "source" in now else {}
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
@click.option(
    "--message",
    help="The encoded message at a refusal's end, or the whole refusal, instead of an id (sts:DecodeAuthorizationMessage).",
)
@click.option(
    "--records",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Log files of a trail to look in; data events (objects) are found only there.",
)
@click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--full", is_flag=True, help="In the table: every question, and every condition value.")
def why(
    data: Path, request_id: str | None, message: str | None, records: tuple[Path, ...], shape: str, full: bool
) -> None:
    """Explain why the call REQUEST_ID was refused or allowed.

    The id stands in every answer: ResponseMetadata in boto3, `aws --debug`, requestID in the event history.

    Tells what decided, the nearest change that would have allowed the call and who may make it, then what every policy
    in force says, and the condition values that the policies asked for.

    Uses the AWS_* credentials of the environment, the administrator's without them. The record must be one that these
    credentials may look up, and a policy is shown only to whoever may read it.
    """
    if (request_id is None) == (message is None):
        raise click.UsageError("give either REQUEST_ID or --message")
    platform = Platform(data)
    mine = from_environment()
    held = mine or platform.administrator()
    record: dict[str, Any] | None
    everybody: Iterable[Credentials]
    if message is not None:
        everybody = [held] if mine is not None else _everybody(platform, held)
        token = message.rpartition(_SUFFIX)[2].strip()
        decoded = _decoded(platform, everybody, token) if token else None
        if decoded is None:
            raise click.ClickException(_NO_MESSAGE)
        record = _of_message(decoded)
    elif records:
        record = _in_files(records, str(request_id))
    else:
        everybody = [held] if mine is not None else _everybody(platform, held)
        found = (find(platform, one, str(request_id)) for one in everybody)
        record = next((one for one in found if one is not None), None)
    if record is None:
        raise click.ClickException(_SIGNED_OUT if not records else "no record with this id is in these files")
    told = explained(record, Reader(platform, readers(platform, mine)))
    if shape == "json":
        click.echo(json.dumps(told, indent=2))
    else:
        _print(told, full)


_WORDS: Final = {"Allowed": "allows", "ExplicitlyDenied": "denies", "ImplicitlyDenied": "says nothing"}
_LAYERS: Final = {
    "identity": "identity-based policy",
    "boundary": "permissions boundary",
    "session": "session policy",
    "resource": "resource-based policy",
    "trust": "role trust policy",
    "scp": "service control policy",
    "rcp": "resource control policy",
    "endpoint": "VPC endpoint policy",
}


def _print(told: dict[str, Any], full: bool) -> None:
    """What decided, what would have allowed it, then the layers: whoever reads three lines has the answer."""
    told = _printable(told)
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    console.print(f"[bold]{told['eventName']}[/] by {escape(told['principal'])} at {told['eventTime']}")
    if not told["allowed"] and told["error"]["message"]:
        message = told["error"]["message"].partition(_SUFFIX)[0]
        console.print(f"[red]{told['error']['code']}[/]: ", end="")
        console.print(message, markup=False)
    refused = [one for one in told["questions"] if one["then"]["verdict"] != "Allowed"]
    if not refused and not told["allowed"]:
        console.print("[bold]Every policy allowed it[/]: what refused is said above.")
    for question in told["questions"]:
        console.print()
        console.print(_headline(question), style="bold", markup=False)
        if full or question in refused or not refused:
            _print_question(console, question, full)


def _printable(told: Any) -> Any:
    """The same, with what would steer a terminal written out: names in requests are their senders' words."""
    if isinstance(told, str):
        return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in told)
    if isinstance(told, dict):
        return {key: _printable(value) for key, value in told.items()}
    return [_printable(one) for one in told] if isinstance(told, list | tuple) else told


def _headline(question: dict[str, Any]) -> str:
    then = question["then"]
    verdict, layer = then["verdict"], _LAYERS.get(then.get("layer", ""), then.get("layer", ""))
    what = f"{question['action']} on {question['resource']}"
    if verdict == "ExplicitlyDenied":
        return f"{what}: denied" + (f" by a {layer}" if layer else "")
    if verdict == "ImplicitlyDenied":
        return f"{what}: refused, no {layer or 'policy'} allows it"
    return f"{what}: allowed"


def _print_question(console: Console, question: dict[str, Any], full: bool) -> None:
    for statement in _deciding(question):
        _print_statement(console, statement)
    if question["then"]["verdict"] == "ExplicitlyDenied" and not _deciding(question) and question["then"].get("policy"):
        told = "you may not read that policy" if _unread(question) else "it does not say so any more"
        console.print(f"  by {question['then']['policy']}; {told}", markup=False)
    if question.get("nearest"):
        console.print("  [bold]what would have allowed it[/]")
        for change in question["nearest"]:
            console.print(f"    - {change['change']}", markup=False)
            if change["who"]:
                console.print(f"      who can: {change['who']}", markup=False)
    now = question.get("now")
    if question.get("changed"):
        told = f"{now['verdict']} by {now['layer']}" if now else "unknown"
        console.print(f"  [bold]the policies changed since[/]: now {told}")
    if "layers" in question:
        _print_layers(console, question)
    if question.get("note"):
        console.print(f"  {question['note']}", markup=False)
    _print_values(console, question, full)


def _deciding(question: dict[str, Any]) -> list[dict[str, Any]]:
    """The statement that decided, if it may be read and is still there."""
    then = question["then"]
    return [
        statement | {"policy": one["source"]}
        for one in question.get("layers", ())
        for statement in one.get("statements", ())
        if one["source"] == then.get("policy") and statement["statement"] == then.get("statement")
    ]


def _unread(question: dict[str, Any]) -> bool:
    readable = [one["source"] for one in question.get("layers", ()) if one["verdict"] is not None]
    hidden = any(one["verdict"] is None for one in question.get("layers", ()))
    return hidden and question["then"]["policy"] not in readable


def _print_statement(console: Console, statement: dict[str, Any]) -> None:
    text = statement["text"]
    label = text.get("Sid") or f"number {statement['statement']}"
    console.print(f"  by the statement {label} of {statement['policy']}", markup=False)
    for line in json.dumps(text, indent=2).splitlines():
        console.print(f"    {line}", markup=False)
    for seen in statement["conditions"]:
        held = "holds" if seen["held"] else "does not hold"
        value = "(missing)" if seen["seen"] is None else seen["seen"]
        wanted = ", ".join(seen["wanted"])
        console.print(f"    {seen['operator']} {seen['key']}: wants {wanted}, saw {value}: {held}", markup=False)


def _print_layers(console: Console, question: dict[str, Any]) -> None:
    console.print("  [bold]every policy in force[/], by itself")
    rows = []
    for one in question["layers"]:
        level = f" {one['level']}" if "level" in one else ""
        says = _WORDS.get(one["verdict"]) or f"not yours to read ({one['why']})"
        rows.append((f"{one['layer']}{level}", says, one["source"]))
    if not rows:
        console.print("    none")
    wide = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    for layer, says, source in rows:
        console.print(f"    {layer:{wide[0]}}  {says:{wide[1]}}  {source}", markup=False)
    for hint in question.get("notTold", ()):
        console.print(f"    not told: {hint}", markup=False)


def _print_values(console: Console, question: dict[str, Any], full: bool) -> None:
    """The condition values: those that a policy in force asks for, unless all are wanted."""
    context = question["context"]
    asked = {
        condition["key"].lower()
        for one in question.get("layers", ())
        for statement in one.get("statements", ())
        for condition in statement["conditions"]
    }
    shown = {key: value for key, value in sorted(context.items()) if full or key.lower() in asked}
    if shown:
        console.print("  [bold]condition values it saw[/]" + ("" if full else ", of the keys that policies ask for"))
        for key, value in shown.items():
            console.print(f"    {key} = {value if isinstance(value, str) else ', '.join(value)}", markup=False)
    if not full and len(shown) < len(context):
        console.print(f"  {len(context) - len(shown)} more condition values: --full", style="dim")

"""`bastide deploy`: a stack from a template, with a plan before and the one cause after.

A client of CloudFormation like any other: the plan is a change set, the progress its events.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import botocore.exceptions
import click
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.tree import Tree

from bastide.commands.client import Credentials, Platform, from_environment
from bastide.commands.live import Held, Reader, readers
from bastide.commands.options import DATA_OPTION

_PAUSE: Final = 0.3
_INLINE: Final = 51_200
_SIGNS: Final = {"Add": "[green]+[/]", "Modify": "[yellow]~[/]", "Remove": "[red]-[/]"}
_HANDLERS: Final = {"Add": ("create",), "Modify": ("update",), "Remove": ("delete",)}


def _pairs(given: Iterable[str], what: str) -> dict[str, str]:
    found = {}
    for one in given:
        key, is_pair, value = one.partition("=")
        if not is_pair or not key:
            raise click.UsageError(f"{what} `{one}` is not NAME=VALUE")
        found[key] = value
    return found


def _from_file(path: Path | None) -> tuple[dict[str, str], dict[str, str]]:
    """Parameters and tags of a file: CodePipeline's template configuration, the AWS CLI's list, or a
    plain mapping."""
    if path is None:
        return {}, {}
    try:
        held = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise click.UsageError(f"{path} is not JSON: {error}") from None
    if isinstance(held, list):
        return {one["ParameterKey"]: str(one.get("ParameterValue", "")) for one in held}, {}
    if "Parameters" in held and isinstance(held["Parameters"], dict):
        if held.get("StackPolicy"):
            raise click.UsageError(f"{path} has a StackPolicy; set it with `aws cloudformation set-stack-policy`")
        return dict(held["Parameters"]), dict(held.get("Tags") or {})
    return {key: str(value) for key, value in held.items()}, {}


class Deployment:
    """One stack, looked at and changed with somebody's credentials."""

    def __init__(self, platform: Platform, credentials: Credentials, region: str | None, name: str) -> None:
        self.platform = platform
        self.credentials = credentials
        self.region = region
        self.name = name
        self.client = platform.client("cloudformation", credentials, region)
        self._types: dict[str, dict[str, Any]] = {}

    def current(self) -> dict[str, Any] | None:
        """The stack, None if there is none."""
        try:
            found: dict[str, Any] = self.client.describe_stacks(StackName=self.name)["Stacks"][0]
        except botocore.exceptions.ClientError as error:
            if "does not exist" in error.response["Error"]["Message"]:
                return None
            raise
        return found

    def body(self, template: Path, bucket: str | None) -> dict[str, str]:
        """The template as a request brings it; one that is too long for that goes by way of a bucket."""
        text = template.read_text()
        if len(text.encode()) <= _INLINE:
            return {"TemplateBody": text}
        if bucket is None:
            raise click.UsageError(f"{template} has more than {_INLINE} bytes; give a --bucket that it may lie in")
        key = f"{self.name}-{secrets.token_hex(8)}.template"
        self.platform.client("s3", self.credentials, self.region).put_object(Bucket=bucket, Key=key, Body=text.encode())
        return {"TemplateURL": f"https://{bucket}.s3.amazonaws.com/{key}"}

    # -- the plan ------------------------------------------------------------------------------------------------------

    def plan(self, asked: dict[str, Any], role: str | None) -> dict[str, Any]:
        """What would change, and what whoever deploys lacks for it, as far as policies can be read."""
        held = self.current()
        fresh = held is None or held["StackStatus"] == "REVIEW_IN_PROGRESS"
        name = f"bastide-{secrets.token_hex(6)}"
        more = {"RoleARN": role} if role else {}
        made = self.client.create_change_set(
            StackName=self.name, ChangeSetName=name, ChangeSetType="CREATE" if fresh else "UPDATE", **asked, **more
        )
        told = self.client.describe_change_set(ChangeSetName=made["Id"])
        reason = str(told.get("StatusReason") or "")
        if told["Status"] == "FAILED" and "didn't contain changes" not in reason:
            raise click.ClickException(reason)
        changes = [one["ResourceChange"] for one in told.get("Changes", ())]
        while told.get("NextToken"):
            told = self.client.describe_change_set(ChangeSetName=made["Id"], NextToken=told["NextToken"])
            changes += [one["ResourceChange"] for one in told.get("Changes", ())]
        principal = role or (held or {}).get("RoleARN") or self._self()
        return {
            "stack": self.name,
            "id": made["StackId"],
            "changeSet": made["Id"],
            "new": fresh,
            "empty": told["Status"] == "FAILED",
            "capabilities": asked.get("Capabilities", []),
            "changes": changes,
            "as": principal,
            "lacks": self.lacking(principal, changes),
        }

    def _self(self) -> str:
        """Whoever asks; of a session its role."""
        arn: str = self.platform.client("sts", self.credentials).get_caller_identity()["Arn"]
        parts = arn.split(":")
        if parts[2] != "sts":
            return arn
        role = parts[5].split("/")[1]
        return f"arn:aws:iam::{parts[4]}:role/{role}"

    def _needs(self, change: dict[str, Any]) -> set[str]:
        """The actions that a change asks for."""
        name = change["ResourceType"]
        if name.startswith("Custom::"):
            return {"lambda:InvokeFunction"}
        if name not in self._types:
            told = self.client.describe_type(Type="RESOURCE", TypeName=name)
            self._types[name] = json.loads(told["Schema"]).get("handlers", {})
        wanted = list(_HANDLERS[change["Action"]])
        if change.get("Replacement") in ("True", "Conditional"):
            wanted = ["create", "delete"]
        return {action for one in wanted for action in self._types[name].get(one, {}).get("permissions", ())}

    def lacking(self, principal: str, changes: list[dict[str, Any]]) -> list[dict[str, str]]:
        """Actions that nothing allows the principal on any resource, or that are denied on every one. What depends on a
        resource's name or on conditions is left to the deployment itself."""
        if principal.endswith(":root"):
            return []
        reader = Reader(self.platform, readers(self.platform, self.credentials))
        layers = [reader.identity(principal)]
        if any(one.attached is None for one in layers[0]):
            layers = [Reader(self.platform, readers(self.platform, None)).identity(principal)]
        count, scps = reader.organisation(principal.split(":")[4], "scp")
        layers += [[one for one in scps if one.level == level] for level in range(count)]
        found = []
        for change in changes:
            for action in sorted(self._needs(change)):
                why = _denied(layers, action)
                if why:
                    found.append({"resource": change["LogicalResourceId"], "action": action, "why": why})
        return found

    # -- doing ---------------------------------------------------------------------------------------------------------

    def events(self, id: str, since: set[str]) -> list[dict[str, Any]]:
        """What happened that is not in `since`, oldest first."""
        pages = self.client.get_paginator("describe_stack_events").paginate(StackName=id)
        found = [one for page in pages for one in page["StackEvents"] if one["EventId"] not in since]
        since |= {one["EventId"] for one in found}
        return list(reversed(found))

    def watch(self, id: str, since: set[str], console: Console | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Follows the stack until it settles; the stack and all that happened."""
        happened: list[dict[str, Any]] = []
        with Live(_progress(self.name, happened), console=console, transient=False) if console else _Still() as live:
            while True:
                stack = self.client.describe_stacks(StackName=id)["Stacks"][0]
                happened += self.events(id, since)
                live.update(_progress(self.name, happened))
                if not stack["StackStatus"].endswith("_IN_PROGRESS"):
                    return stack, happened
                time.sleep(_PAUSE)


class _Still:
    """Shows nothing."""

    def __enter__(self) -> _Still:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, _: object) -> None:
        """Nothing."""


def _denied(layers: list[list[Held]], action: str) -> str:
    """Why an action cannot be; empty if it may. Policies that may not be read are believed to allow."""
    lower = action.lower()
    for number, held in enumerate(layers):
        for kind in ("identity", "boundary") if number == 0 else ("scp",):
            mine = [one for one in held if one.layer == kind]
            if any(one.attached is None for one in mine) or (kind == "boundary" and not mine):
                continue
            statements = [
                (one, statement) for one in mine if one.attached for statement in one.attached.document.statements
            ]
            for one, statement in statements:
                if (
                    statement.deny
                    and statement.action(lower)
                    and statement.resource is None
                    and not statement.conditions
                ):
                    return f"denied by {one.source}"
            if not any(not statement.deny and statement.action(lower) for _, statement in statements):
                return {"identity": "no identity policy allows it", "boundary": "the boundary does not allow it"}.get(
                    kind, "no service control policy allows it"
                )
    return ""


_COLOURS: Final = (("FAILED", "red"), ("ROLLBACK", "yellow"), ("DELETE", "blue"), ("COMPLETE", "green"))


def _painted(status: str) -> str:
    for word, colour in _COLOURS:
        if word in status:
            return f"[{colour}]{status}[/]"
    return f"[cyan]{status}[/]"


def _progress(name: str, happened: list[dict[str, Any]]) -> Tree:
    last: dict[str, dict[str, Any]] = {}
    top = "..."
    for one in happened:
        if one["ResourceType"] == "AWS::CloudFormation::Stack" and one["LogicalResourceId"] == name:
            top = one["ResourceStatus"]
        else:
            last[one["LogicalResourceId"]] = one
    tree = Tree(f"{escape(name)} {_painted(top)}")
    for logical, one in last.items():
        why = f" {escape(one['ResourceStatusReason'])}" if "FAILED" in one["ResourceStatus"] else ""
        tree.add(f"{escape(logical)} [dim]{one['ResourceType']}[/] {_painted(one['ResourceStatus'])}{why}")
    return tree


def cause(happened: list[dict[str, Any]]) -> dict[str, str] | None:
    """The first failure that is no consequence of another one."""
    for one in happened:
        reason = one.get("ResourceStatusReason", "")
        if one["ResourceStatus"].endswith("_FAILED") and "cancelled" not in reason:
            return {"resource": one["LogicalResourceId"], "type": one["ResourceType"], "reason": reason}
    return None


def _shown(plan: dict[str, Any], console: Console) -> None:
    console.print(
        f"[bold]{escape(plan['stack'])}[/] ({'a new stack' if plan['new'] else 'an update'}), as {plan['as']}"
    )
    for one in plan["changes"]:
        more = " [red](replaced)[/]" if one.get("Replacement") == "True" else ""
        more = " [yellow](may be replaced)[/]" if one.get("Replacement") == "Conditional" else more
        names = sorted({d["Target"].get("Name") or d["Target"]["Attribute"] for d in one.get("Details", ())})
        told = f" {', '.join(names)}" if names else ""
        console.print(
            f"  {_SIGNS[one['Action']]} {escape(one['LogicalResourceId'])} [dim]{one['ResourceType']}[/]{told}{more}"
        )
    if plan["capabilities"]:
        console.print(f"  acknowledges {', '.join(plan['capabilities'])}")
    for one in plan["lacks"]:
        console.print(f"  [red]lacks[/] {one['action']} for {escape(one['resource'])}: {escape(one['why'])}")


@click.command()
@click.argument("template", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=False)
@DATA_OPTION
@click.option("--stack", "name", help="The stack's name; that of the file if left out.")
@click.option("-p", "--parameter", "given", multiple=True, metavar="NAME=VALUE", help="A parameter; may be repeated.")
@click.option(
    "--parameters", "file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Parameters as JSON."
)
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="A tag of the stack and of all in it.")
@click.option("--role", help="ARN of the service role that makes the calls; without one they are yours.")
@click.option("--bucket", help="A bucket for a template that is too long for a request.")
@click.option("--account", help="Name or id of the account, for the administrator; else your AWS_* credentials count.")
@click.option("--region", help="The region; the platform's default if left out.")
@click.option("--delete", is_flag=True, help="Remove the stack and what is in it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="JSON; without --yes only the plan.")
def deploy(
    template: Path | None,
    data: Path,
    name: str | None,
    given: tuple[str, ...],
    file: Path | None,
    tags: tuple[str, ...],
    role: str | None,
    bucket: str | None,
    account: str | None,
    region: str | None,
    delete: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Make, change or remove a stack from a CloudFormation template.

    First comes a plan: what is made, changed, replaced and removed, and which permissions whoever deploys lacks for it.
    Then, if you agree, it happens; if it fails, everything is undone and the one cause is told.
    """
    if template is None and not (delete and name):
        raise click.UsageError("which TEMPLATE? (with --delete a --stack is enough)")
    platform = Platform(data)
    mine = from_environment() if account is None else None
    credentials = mine or platform.inside(account or platform.configuration.account)
    stack = name or (template.stem.replace("_", "-").replace(".", "-") if template is not None else "")
    deployment = Deployment(platform, credentials, region, stack)
    console = Console()
    if delete:
        _delete(deployment, console, yes=yes, as_json=as_json)
        return
    assert template is not None
    plan = deployment.plan(_asked(deployment, template, bucket, given, file, tags), role)
    if not as_json:
        _shown(plan, console)
    if plan["empty"]:
        deployment.client.delete_change_set(ChangeSetName=plan["changeSet"])
        click.echo(json.dumps(plan) if as_json else "Nothing is to be changed.")
        return
    if plan["lacks"] or not (yes or (not as_json and click.confirm("Go ahead?"))):
        _withdraw(deployment, plan)
        if as_json:
            click.echo(json.dumps(plan))
        if plan["lacks"]:
            raise click.ClickException("nothing was begun: permissions are lacking, as told above")
        return
    before = {one["EventId"] for one in deployment.events(plan["id"], set())}
    deployment.client.execute_change_set(ChangeSetName=plan["changeSet"])
    _ended(deployment, plan["id"], before, console, plan, as_json=as_json)


def _asked(
    deployment: Deployment,
    template: Path,
    bucket: str | None,
    given: tuple[str, ...],
    file: Path | None,
    tags: tuple[str, ...],
) -> dict[str, Any]:
    parameters, own_tags = _from_file(file)
    parameters |= _pairs(given, "the parameter")
    own_tags |= _pairs(tags, "the tag")
    body = deployment.body(template, bucket)
    needed = deployment.client.get_template_summary(**body)
    declared = {one["ParameterKey"] for one in needed.get("Parameters", ())}
    told: list[dict[str, Any]] = [{"ParameterKey": key, "ParameterValue": one} for key, one in parameters.items()]
    held = deployment.current()
    if held is not None and held["StackStatus"] != "REVIEW_IN_PROGRESS":
        earlier = {one["ParameterKey"] for one in held.get("Parameters", ())}
        kept = sorted((earlier & declared) - set(parameters))
        told += [{"ParameterKey": key, "UsePreviousValue": True} for key in kept]
    asked: dict[str, Any] = {**body, "Parameters": told, "Capabilities": list(needed.get("Capabilities", ()))}
    if own_tags:
        asked["Tags"] = [{"Key": key, "Value": value} for key, value in own_tags.items()]
    return asked


def _withdraw(deployment: Deployment, plan: dict[str, Any]) -> None:
    deployment.client.delete_change_set(ChangeSetName=plan["changeSet"])
    if plan["new"]:
        deployment.client.delete_stack(StackName=plan["stack"])


def _delete(deployment: Deployment, console: Console, *, yes: bool, as_json: bool) -> None:
    held = deployment.current()
    if held is None:
        raise click.ClickException(f"there is no stack {deployment.name}")
    resources = deployment.client.describe_stack_resources(StackName=held["StackId"])["StackResources"]
    if not as_json:
        for one in resources:
            console.print(f"  {_SIGNS['Remove']} {escape(one['LogicalResourceId'])} [dim]{one['ResourceType']}[/]")
    if not yes and (as_json or not click.confirm(f"Remove {deployment.name}?")):
        if as_json:
            told: dict[str, Any] = {
                "stack": deployment.name,
                "removes": [one["LogicalResourceId"] for one in resources],
            }
            click.echo(json.dumps(told))
        return
    before = {one["EventId"] for one in deployment.events(held["StackId"], set())}
    deployment.client.delete_stack(StackName=held["StackId"])
    _ended(deployment, held["StackId"], before, console, None, as_json=as_json)


def _ended(
    deployment: Deployment, id: str, before: set[str], console: Console, plan: dict[str, Any] | None, *, as_json: bool
) -> None:
    stack, happened = deployment.watch(id, before, None if as_json else console)
    good = stack["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE")
    why = None if good else cause(happened)
    there = () if stack["StackStatus"] == "DELETE_COMPLETE" else stack.get("Outputs", ())
    outputs = {one["OutputKey"]: one["OutputValue"] for one in there}
    if as_json:
        told: dict[str, Any] = {"plan": plan, "status": stack["StackStatus"], "outputs": outputs, "cause": why}
        click.echo(json.dumps(told))
    else:
        if not console.is_terminal:
            console.print()  # there a live picture ends without its line's end
        for key, value in outputs.items():
            console.print(f"  {escape(key)} = {escape(value)}")
    if not good:
        if why is not None and not as_json:
            raise click.ClickException(
                f"{stack['StackStatus']}, because of {why['resource']} ({why['type']}): {why['reason']}"
            )
        raise click.ClickException(stack["StackStatus"])

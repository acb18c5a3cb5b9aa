"""`bastide why`: a refusal explained to whoever may read the record and the policy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import botocore.exceptions
import click
from rich.console import Console

from bastide.commands.client import Credentials, Platform
from bastide.commands.options import DATA_OPTION


def _mine() -> Credentials | None:
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    return Credentials(key, secret, os.environ.get("AWS_SESSION_TOKEN")) if key and secret else None


def find(platform: Platform, credentials: Credentials, request_id: str) -> dict[str, Any] | None:
    """The record of a request among the management events that these credentials may look up."""
    pages = (
        platform.client("cloudtrail", credentials)
        .get_paginator("lookup_events")
        .paginate(PaginationConfig={"MaxItems": 5000})
    )
    for page in pages:
        for event in page["Events"]:
            record: dict[str, Any] = json.loads(event["CloudTrailEvent"])
            if request_id in (record["requestID"], record["eventID"]):
                return record
    return None


def statement(
    platform: Platform, credentials: Credentials, question: dict[str, Any], inside: Credentials | None = None
) -> str:
    """The deciding statement as JSON, or why it is not shown. inside: what reads policies of the record's own account,
    where these are others than `credentials`."""
    source = question.get("policy", "")
    number = question.get("statement")
    try:
        if ":organizations:" in source:
            policy = platform.client("organizations", credentials).describe_policy(PolicyId=source.rpartition("/")[2])
            document = json.loads(policy["Policy"]["Content"])
        elif ":iam:" in source and ":policy/" in source:
            iam = platform.client("iam", inside or credentials)
            version = iam.get_policy(PolicyArn=source)["Policy"]["DefaultVersionId"]
            found = iam.get_policy_version(PolicyArn=source, VersionId=version)["PolicyVersion"]["Document"]
            document = found if isinstance(found, dict) else json.loads(unquote(found))
        else:
            return "the deciding policy has no ARN that could be looked up"
    except botocore.exceptions.ClientError as error:
        return f"you may not read that policy ({error.response['Error']['Code']}); ask whoever owns it"
    statements = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    shown = statements if number is None else [statements[number]]
    return json.dumps(shown if len(shown) > 1 else shown[0], indent=2)


@click.command()
@DATA_OPTION
@click.argument("request_id")
def why(data: Path, request_id: str) -> None:
    """Explain why the call REQUEST_ID was refused (the id stands in every error's ResponseMetadata).

    Uses the AWS_* credentials of the environment, the administrator's without them. The record must be one that these
    credentials may look up, and the deciding statement is shown only to whoever may read that policy.
    """
    platform = Platform(data)
    mine = _mine()
    held = mine or platform.administrator()
    record = find(platform, held, request_id)
    inside = None
    if record is None and mine is None:
        for account in platform.accounts(held):
            if account["Id"] == platform.configuration.account:
                continue
            try:
                inside = platform.assume(held, account["Id"], "OrganizationAccountAccessRole", "bastide-why")
            except botocore.exceptions.ClientError:
                continue  # an account whose doors are closed to the administrator keeps its record to itself
            record = find(platform, inside, request_id)
            if record is not None:
                break
    if record is None:
        raise click.ClickException(
            "no management event with this request or event id can be found with these credentials"
        )
    console = Console(highlight=False)
    who = record["userIdentity"].get("arn") or record["userIdentity"].get("invokedBy") or "nobody"
    console.print(f"[bold]{record['eventName']}[/] by {who} at {record['eventTime']}")
    if "errorCode" not in record:
        console.print("was allowed:")
    else:
        console.print(f"[red]{record['errorCode']}[/]: {record.get('errorMessage', '')}")
    for question in record["additionalEventData"]["bastide"]["questions"]:
        console.print(f"\n{question['action']} on {question['resource']}: [bold]{question['verdict']}[/]")
        if question.get("layer"):
            console.print(f"  decided by: {question['layer']} {question.get('policy', '')}")
        if question["verdict"] == "ExplicitlyDenied":
            console.print("  the statement:")
            console.print(statement(platform, held, question, inside), markup=False)
        if question["verdict"] != "Allowed":
            console.print("  the condition values it saw:")
            for key, value in sorted(question["context"].items()):
                console.print(f"    {key} = {value}", markup=False)

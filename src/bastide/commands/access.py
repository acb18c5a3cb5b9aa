"""`bastide credentials`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import botocore.exceptions
import click

from bastide.commands.client import Platform
from bastide.commands.options import DATA_OPTION

_ACCOUNT_ROLE = "OrganizationAccountAccessRole"


@click.command()
@DATA_OPTION
@click.option("--account", help="Name or id of an account; the management account's administrator if left out.")
@click.option("--role", help=f"Name of the role to take on there.  [default: {_ACCOUNT_ROLE}]")
@click.option("--session-name", "session", default="bastide-cli", show_default=True, help="Name of the role session.")
@click.option(
    "--format",
    "shape",
    type=click.Choice(["env", "json", "process"]),
    default="env",
    show_default=True,
    help="env: lines for `eval`; json: for programs; process: AWS's credential_process form.",
)
def credentials(data: Path, account: str | None, role: str | None, session: str, shape: str) -> None:
    """Print credentials that AWS clients understand.

    \b
    eval "$(bastide credentials)"                                        the administrator
    eval "$(bastide credentials --account production)"                   an account's administrator
    eval "$(bastide credentials --account data-science --role DataScientist)"
    """
    platform = Platform(data)
    held = platform.administrator()
    if account is not None or role is not None:
        try:
            held = platform.assume(held, account or platform.configuration.account, role or _ACCOUNT_ROLE, session)
        except botocore.exceptions.ClientError as error:
            raise click.ClickException(error.response["Error"]["Message"]) from None
    bundle = str(platform.directory.authority.absolute())
    if shape == "process":
        told = {"Version": 1, "AccessKeyId": held.access_key, "SecretAccessKey": held.secret}
        if held.token:
            told |= {"SessionToken": held.token, "Expiration": held.expires or ""}
        click.echo(json.dumps(told))
        return
    url = platform.url if platform.directory.endpoint.exists() else "https://localhost:4566"
    if shape == "json":
        click.echo(
            json.dumps(
                {
                    "AccessKeyId": held.access_key,
                    "SecretAccessKey": held.secret,
                    "SessionToken": held.token,
                    "Expiration": held.expires,
                    "Region": platform.region,
                    "EndpointUrl": url,
                    "CaBundle": bundle,
                }
            )
        )
        return
    lines = {
        "AWS_ACCESS_KEY_ID": held.access_key,
        "AWS_SECRET_ACCESS_KEY": held.secret,
        "AWS_SESSION_TOKEN": held.token,
        "AWS_REGION": platform.region,
        "AWS_DEFAULT_REGION": platform.region,
        "AWS_ENDPOINT_URL": url,
        "AWS_CA_BUNDLE": bundle,
    }
    for name, value in lines.items():
        click.echo(f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}")

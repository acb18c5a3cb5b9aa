"""The group of all commands."""

from __future__ import annotations

import urllib.error
from typing import Any

import botocore.exceptions
import click

from bastide.commands.access import credentials
from bastide.commands.demo import demo
from bastide.commands.doctor import doctor
from bastide.commands.environments import environments
from bastide.commands.identity import identity
from bastide.commands.jobs import jobs, logs
from bastide.commands.login import login
from bastide.commands.network import network
from bastide.commands.policy import policy
from bastide.commands.reproduce import reproduce
from bastide.commands.sdk import sdk
from bastide.commands.status import inventory, status
from bastide.commands.why import why


class _Commands(click.Group):
    """Says what the platform refused, or that it cannot be reached, in a sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; raises ClickException for what a client of the platform can meet."""
        try:
            return super().invoke(ctx)
        except botocore.exceptions.ClientError as error:
            raise click.ClickException(error.response["Error"]["Message"]) from None
        except (
            botocore.exceptions.ConnectionError,
            botocore.exceptions.HTTPClientError,
            urllib.error.URLError,
        ) as error:
            raise click.ClickException(f"the platform cannot be reached: {error}") from None
        except botocore.exceptions.BotoCoreError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="bastide")
def cli() -> None:
    """Bastide: the governed SageMaker that you can run, prove and audit offline.

    \b
    A first session:
      bastide init                          make a platform (once)
      bastide up                            run it (in another terminal)
      eval "$(bastide credentials)"         become its administrator
      aws sts get-caller-identity           any AWS client works now

    \b
    Then:
      bastide demo                          a bank's mortgage model, from data to a governed endpoint
      bastide status                        accounts, jobs and endpoints
      bastide jobs                          what trains and processes, and why it waits or failed
      bastide logs -f JOB                   what a job writes, until it is over
      bastide environments list             what images mean here, and what is built
      bastide why REQUEST-ID                why a call was refused, and what would have allowed it
      bastide policy test FILE              cases in YAML, decided before a policy is attached
      bastide policy replay --scp FILE      what a guardrail would have stopped last week
      bastide policy prove ...              what holds for every request there can be
      bastide reproduce MODEL-PACKAGE-ARN   a registered version, trained again and compared
      bastide login                         sign in as yourself, at the identity provider
      bastide sdk                           point the SageMaker Python SDK at the platform
      bastide backup FILE                   everything, in one sealed file
      bastide doctor                        what this machine can do
    """


COMMANDS = (
    credentials, demo, doctor, environments, identity, inventory, jobs, login, logs, network, policy, reproduce, sdk,
    status, why,
)  # fmt: skip
for command in COMMANDS:
    cli.add_command(command)

"""The group of all commands."""

from __future__ import annotations

import importlib
import urllib.error
from typing import Any

import botocore.exceptions
import click


class Commands(click.Group):
    """Loads a command when somebody asks for it: a short one does not wait for what only others need. Says what the
    platform refused, or that it cannot be reached, in a sentence."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._modules: dict[str, str] = {}

    def later(self, module: str, *names: str) -> None:
        """Commands of a module, by their names, to be imported when one is asked for."""
        self._modules |= dict.fromkeys(names, module)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted({*super().list_commands(ctx), *self._modules})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name, None if there is none."""
        if cmd_name not in self._modules:
            return super().get_command(ctx, cmd_name)
        found: click.Command = getattr(importlib.import_module(self._modules[cmd_name]), cmd_name.replace("-", "_"))
        return found

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


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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
      bastide demo                          a bank's mortgage model, from a commit to production
      bastide status                        accounts, jobs and endpoints
      bastide jobs                          what trains and processes, and why it waits or failed
      bastide logs -f JOB                   what a job writes, until it is over
      bastide executions [NAME|ARN]         what state machines run, and where one of them stands
      bastide pipelines NAME                where the newest execution of a pipeline stands
      bastide releases [NAME]               release pipelines: where each commit is, and why one failed
      bastide environments list             what images mean here, and what is built
      bastide why REQUEST-ID                why a call was refused, and what would have allowed it
      bastide policy test FILE              cases in YAML, decided before a policy is attached
      bastide policy replay --scp FILE      what a guardrail would have stopped last week
      bastide policy prove ...              what holds for every request there can be
      bastide reproduce MODEL-PACKAGE-ARN   a registered version, trained again and compared
      bastide deploy TEMPLATE               a stack from a template: its plan, its progress, its cause
      bastide landing plan                  accounts, guardrails, networks and roles, from one file
      bastide login                         sign in as yourself, at the identity provider
      bastide sdk                           point the SageMaker Python SDK at the platform
      bastide packages load FOLDER          public packages for platforms that reach nothing outside
      bastide advisories load FOLDER        known vulnerabilities that images are scanned for
      bastide backup FILE                   everything, in one sealed file
      bastide doctor                        what this machine can do
    """


for _module, *_names in (
    ("access", "credentials"),
    ("demo", "demo"),
    ("deploy", "deploy"),
    ("doctor", "doctor"),
    ("environments", "environments"),
    ("executions", "executions"),
    ("identity", "identity"),
    ("jobs", "jobs", "logs"),
    ("landing", "landing"),
    ("login", "login"),
    ("network", "network"),
    ("pipelines", "pipelines"),
    ("policy", "policy"),
    ("releases", "releases"),
    ("reproduce", "reproduce"),
    ("sdk", "sdk"),
    ("status", "inventory", "status"),
    ("why", "why"),
):
    cli.later(f"bastide.commands.{_module}", *_names)

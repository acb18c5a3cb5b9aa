"""The group of all commands."""

from __future__ import annotations

import click

from bastide.commands.access import credentials
from bastide.commands.demo import demo
from bastide.commands.doctor import doctor
from bastide.commands.status import inventory, status
from bastide.commands.why import why


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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
      bastide why REQUEST-ID                why a call was refused, and by which statement
      bastide doctor                        what this machine can do
    """


for command in (credentials, demo, doctor, status, inventory, why):
    cli.add_command(command)

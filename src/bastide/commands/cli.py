"""The group of all commands."""

from __future__ import annotations

import os
from pathlib import Path

import click

_DEFAULT = Path(os.environ.get("XDG_DATA_HOME", str(Path.home() / ".local" / "share"))) / "bastide"

DATA_OPTION = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="BASTIDE_DATA",
    default=_DEFAULT,
    show_default=True,
    help="The platform's data directory (also BASTIDE_DATA).",
)


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


from bastide.commands import access, demo, doctor, status, why  # noqa: E402

for command in (access.credentials, demo.demo, doctor.doctor, status.status, status.inventory, why.why):
    cli.add_command(command)

"""`bastide policy`: policies tested, replayed, proved and checked before they are attached."""

from __future__ import annotations

import click

from bastide.commands.policy.prove import prove
from bastide.commands.policy.replay import replay
from bastide.commands.policy.test import test
from bastide.commands.policy.validate import validate


@click.group()
def policy() -> None:
    """Test, replay, prove and check policies before they are attached (docs/policy-tools.md)."""


for command in (test, replay, prove, validate):
    policy.add_command(command)

__all__ = ["policy"]

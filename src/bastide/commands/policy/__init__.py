"""`bastide policy`: policies tested, replayed, proved and checked before they are attached."""

from __future__ import annotations

import click

from bastide.commands.policy.test import test


@click.group()
def policy() -> None:
    """Test, replay, prove and check policies before they are attached (docs/policy-tools.md)."""


policy.add_command(test)

__all__ = ["policy"]

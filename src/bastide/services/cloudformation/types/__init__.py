"""The types of resources that there are, a row each."""

from __future__ import annotations

from typing import Final

from bastide.kernel import Calls
from bastide.services.cloudformation.resource import Type
from bastide.services.cloudformation.types import (
    borders,
    builds,
    catalog,
    deployments,
    directconnect,
    functions,
    gateway,
    identity,
    integration,
    machines,
    monitoring,
    names,
    network,
    notebooks,
    own,
    packages,
    platform,
    releases,
    repositories,
    rules,
    runbooks,
    stack_sets,
    storage,
    transit,
    watching,
)

TYPES: Final[dict[str, Type]] = {
    one.name: one
    for module in (
        borders,
        builds,
        catalog,
        deployments,
        directconnect,
        functions,
        gateway,
        identity,
        integration,
        machines,
        monitoring,
        names,
        network,
        notebooks,
        own,
        packages,
        platform,
        repositories,
        releases,
        rules,
        runbooks,
        stack_sets,
        storage,
        transit,
        watching,
    )
    for one in module.TYPES
}
"""All rows, by name."""


def is_custom(name: str) -> bool:
    """Whether a function or a topic makes resources of the type."""
    return name.startswith("Custom::") or name == own.CUSTOM.name


def type_of(name: str) -> Type:
    """A type's row; raises KeyError."""
    return own.CUSTOM if is_custom(name) else TYPES[name]


def known(calls: Calls, name: str) -> bool:
    """Whether resources of the type can be made: it has a row, and every operation that it needs is there."""
    if is_custom(name):
        return True
    held = TYPES.get(name)
    return held is not None and all(one in calls.registry.operations for one in held.calls)

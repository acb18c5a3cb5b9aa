"""What a change of a resource asks for: nothing, an update, or another resource in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bastide.engines.templates import schema
from bastide.services.cloudformation.resource import Thing
from bastide.services.cloudformation.types import is_custom, type_of


class Denied(Exception):  # noqa: N818 - an outcome
    """A resource cannot become what it is to be, for a reason that is told."""


def change_of(now: Thing, wanted: Thing) -> str:
    """What a change asks for: none, update or replace."""
    if now.type != wanted.type:
        return "replace"
    if now.properties == wanted.properties:
        return "none"
    kind = type_of(wanted.type)
    if kind.update is None or replacing(now, wanted):
        return "replace"
    return "update"


def changed(now: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The properties that differ."""
    return sorted(name for name in {*now, *wanted} if now.get(name) != wanted.get(name))


def replacing(now: Thing, wanted: Thing) -> list[str]:
    """The properties that differ and that no update changes."""
    names = changed(now.properties, wanted.properties)
    kind = type_of(wanted.type)
    if kind.update is None:
        return names
    if is_custom(wanted.type):
        return ["ServiceToken"] if "ServiceToken" in names else []
    if not schema.has_schema(wanted.type):
        return []
    found = [
        name for name in names if name in kind.replaces or name in schema.names(wanted.type, "createOnlyProperties")
    ]
    for pointer in schema.schema(wanted.type).get("createOnlyProperties", ()):
        parts = pointer.split("/")[2:]
        if len(parts) > 1 and "*" not in parts and _deep(now.properties, parts) != _deep(wanted.properties, parts):
            found.append(parts[0])
    return sorted(set(found))


def _deep(value: Any, parts: list[str]) -> Any:
    for part in parts:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def check_name(now: Thing, wanted: Thing) -> None:
    """Raises Denied where two resources would have one name."""
    kind = type_of(wanted.type)
    if now.type == wanted.type and kind.named:
        name = wanted.properties.get(kind.named)
        if name and name == now.properties.get(kind.named):
            raise Denied(
                "CloudFormation cannot update a stack when a custom-named resource requires replacing. Rename "
                f"{name} and update the stack again."
            )

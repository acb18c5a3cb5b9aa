"""Which resources a tree refers to, through functions and inside texts of Fn::Sub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from bastide.engines.templates.functions import Scope

_VARIABLE: Final = re.compile(r"\$\{([^!${}][^${}]*)\}")


def references(value: Any, scope: Scope | None = None) -> Iterator[tuple[str, str]]:
    """Names and attributes (empty for a Ref) that a tree refers to, parameters among them. With a scope only those of the
    branches that its conditions choose."""
    here = [value]
    while here:
        one = here.pop()
        if isinstance(one, list):
            here += one
        elif isinstance(one, dict):
            if len(one) == 1:
                name, given = next(iter(one.items()))
                if name == "Ref" and isinstance(given, str):
                    yield given, ""
                    continue
                if name == "Fn::GetAtt":
                    parts = given.split(".", 1) if isinstance(given, str) else given
                    if isinstance(parts, list) and len(parts) == 2 and isinstance(parts[0], str):
                        yield parts[0], parts[1] if isinstance(parts[1], str) else "?"
                        here.append(parts[1])
                    continue
                if name == "Fn::Sub":
                    yield from _in_sub(given)
                    if isinstance(given, list) and len(given) == 2 and isinstance(given[1], dict):
                        here += given[1].values()
                    continue
                if name == "Fn::If" and isinstance(given, list) and len(given) == 3 and scope is not None:
                    here.append(given[1] if isinstance(given[0], str) and scope.condition(given[0]) else given[2])
                    continue
            here += one.values()


def conditions(value: Any) -> Iterator[str]:
    """The names of conditions that each Fn::If of a tree asks."""
    here = [value]
    while here:
        one = here.pop()
        if isinstance(one, list):
            here += one
        elif isinstance(one, dict):
            given = one.get("Fn::If")
            if len(one) == 1 and isinstance(given, list) and len(given) == 3 and isinstance(given[0], str):
                yield given[0]
            here += one.values()


def _in_sub(given: Any) -> Iterator[tuple[str, str]]:
    own: Any = ()
    if isinstance(given, list) and len(given) == 2 and isinstance(given[1], dict):
        own, given = given[1], given[0]
    if isinstance(given, str):
        for match in _VARIABLE.finditer(given):
            name = match[1].strip()
            if name not in own:
                resource, _, attribute = name.partition(".")
                yield resource, attribute


def imports(value: Any) -> Iterator[Any]:
    """What stands in each Fn::ImportValue of a tree."""
    here = [value]
    while here:
        one = here.pop()
        if isinstance(one, list):
            here += one
        elif isinstance(one, dict):
            if len(one) == 1 and "Fn::ImportValue" in one:
                yield one["Fn::ImportValue"]
            here += one.values()

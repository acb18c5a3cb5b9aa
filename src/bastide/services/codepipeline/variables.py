"""Variables: ``#{namespace.name}`` in the configuration of actions and rules.

A value is put in as it is and never read for variables again. In a configuration that is JSON it stays inside the string
that it stands in, whatever quotes and braces it has: who words a commit message must not word an input.
Source: CodePipeline User Guide, "Variables reference".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

REFERENCE: Final = re.compile(r"#\{([A-Za-z0-9@_-]+)\.([A-Za-z0-9@_.-]+)\}")
RESERVED: Final = ("codepipeline", "variables")
LONGEST: Final = 122_880
"""Bytes that the output variables of an action have together."""


class Unresolved(Exception):  # noqa: N818
    """A variable that is not there; the message says which."""


def references(value: str) -> Iterator[tuple[str, str]]:
    """Namespace and name of each variable that a text refers to."""
    for found in REFERENCE.finditer(value):
        yield found[1], found[2]


def resolved(value: str, scope: Mapping[str, Mapping[str, str]]) -> str:
    """A text with its variables filled in; raises Unresolved."""
    quoted = _is_document(value)

    def one(found: re.Match[str]) -> str:
        namespace, name = found[1], found[2]
        held = scope.get(namespace)
        if held is None:
            raise Unresolved(
                f"The variable {found[0]} cannot be resolved: no action has the namespace {namespace} yet."
            )
        if name not in held:
            known = ", ".join(sorted(held)[:20]) or "none"
            raise Unresolved(
                f"The variable {found[0]} cannot be resolved: the namespace {namespace} has no variable {name} "
                f"(it has: {known})."
            )
        return json.dumps(held[name])[1:-1] if quoted else held[name]

    return REFERENCE.sub(one, value)


def _is_document(value: str) -> bool:
    """Whether a text is JSON as it stands, so that each variable in it is inside a string."""
    if value.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True


def outputs(given: Mapping[str, Any]) -> dict[str, str]:
    """Output variables as they are kept: texts, as many as there is room for."""
    found: dict[str, str] = {}
    room = LONGEST
    for name, value in given.items():
        if value is None:
            continue
        text = value if isinstance(value, str) else json.dumps(value)
        room -= len(name) + len(text.encode())
        if room < 0:
            break
        found[str(name)] = text
    return found

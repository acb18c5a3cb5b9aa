"""``Fn::ForEach`` of AWS::LanguageExtensions: written out before anything else looks at a template.

Source: CloudFormation Template Reference Guide, "Fn::ForEach".
"""

from __future__ import annotations

import re
from typing import Any, Final

from bastide.engines.templates.functions import Scope, resolve, text
from bastide.engines.templates.reading import MOST_NODES, refused

PREFIX: Final = "Fn::ForEach::"
_MOST_DEEP: Final = 5
_DIFFICULT: Final = re.compile(r"[^A-Za-z0-9]")


class _Counted:
    """How many values a template has by now."""

    def __init__(self) -> None:
        self.left = MOST_NODES

    def one(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise refused(f"Template format error: its loops make more than {MOST_NODES} values.")


def unrolled(value: Any, scope: Scope) -> Any:
    """A tree with every loop written out; raises Refused."""
    return _unrolled(value, scope, {}, 0, _Counted())


def _unrolled(value: Any, scope: Scope, held: dict[str, str], deep: int, counted: _Counted) -> Any:
    counted.one()
    if isinstance(value, list):
        return [_unrolled(one, scope, held, deep, counted) for one in value]
    if isinstance(value, str):
        return _named(value, held)
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and isinstance(value.get("Ref"), str) and value["Ref"] in held:
        return held[value["Ref"]]
    found: dict[str, Any] = {}
    for key, below in value.items():
        if not key.startswith(PREFIX):
            found[_named(key, held)] = _unrolled(below, scope, held, deep, counted)
            continue
        for name, one in _loop(key, below, scope, held, deep, counted):
            if name in found:
                raise refused(f"Template error: {key[:128]} makes {name[:128]} twice.")
            found[name] = one
    return found


def _loop(
    key: str, given: Any, scope: Scope, held: dict[str, str], deep: int, counted: _Counted
) -> list[tuple[str, Any]]:
    if (
        not isinstance(given, list)
        or len(given) != 3
        or not isinstance(given[0], str)
        or not isinstance(given[2], dict)
    ):
        raise refused(f"Template error: {key[:128]} needs an identifier, a collection and a mapping of what it makes.")
    if deep >= _MOST_DEEP:
        raise refused(f"Template error: loops may lie in each other {_MOST_DEEP} deep.")
    variable, collection, body = given
    if variable in held or variable in scope.parameters:
        raise refused(f"Template error: the identifier {variable[:64]} of {key[:128]} means something else already.")
    chosen = resolve(_unrolled(collection, scope, held, deep, counted), scope)
    if not isinstance(chosen, list):
        raise refused(f"Template error: the collection of {key[:128]} is not a list.")
    made: list[tuple[str, Any]] = []
    for one in chosen:
        inner = {**held, variable: text(one)}
        made += list(_unrolled(body, scope, inner, deep + 1, counted).items())
    return made


def _named(value: str, held: dict[str, str]) -> str:
    """A text with the loops' identifiers put in; ``&{x}`` leaves out what no logical id may have."""
    for name, one in held.items():
        value = value.replace("${" + name + "}", one).replace("&{" + name + "}", _DIFFICULT.sub("", one))
    return value

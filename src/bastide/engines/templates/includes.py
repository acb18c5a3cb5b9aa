"""``AWS::Include``: pieces of templates that lie elsewhere.

Source: CloudFormation Template Reference Guide, "AWS::Include transform".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from bastide.engines.templates.functions import Scope, resolve
from bastide.engines.templates.reading import refused
from bastide.engines.templates.template import INCLUDE

_FUNCTION: Final = "Fn::Transform"
MOST: Final = 20


def _asked(given: Any, scope: Scope) -> str:
    """The location that an include names; raises Refused for none."""
    location = resolve((given.get("Parameters") or {}).get("Location"), scope)
    if not isinstance(location, str) or not location:
        raise refused("Template error: AWS::Include needs a Location.")
    return location


def _at(value: dict[str, Any], *, top: bool) -> Iterator[Any]:
    given = value.get(_FUNCTION)
    for one in given if isinstance(given, list) else [given]:
        if isinstance(one, dict) and one.get("Name") == INCLUDE:
            yield one
    if top:
        given = value.get("Transform")
        for one in given if isinstance(given, list) else [given]:
            if isinstance(one, dict) and one.get("Name") == INCLUDE:
                yield one


def locations(raw: Any, scope: Scope) -> list[str]:
    """Where the pieces lie that a tree includes; raises Refused for too many."""
    found: list[str] = []
    here = [(raw, True)]
    while here:
        one, top = here.pop()
        if isinstance(one, list):
            here += [(below, False) for below in one]
        elif isinstance(one, dict):
            found += [_asked(given, scope) for given in _at(one, top=top)]
            here += [(below, False) for below in one.values()]
    if len(found) > MOST:
        raise refused(f"Template error: it includes more than {MOST} pieces.")
    return list(dict.fromkeys(found))


def asked(raw: Any) -> bool:
    """Whether a tree includes anything."""
    here = [raw]
    while here:
        one = here.pop()
        if isinstance(one, list):
            here += one
        elif isinstance(one, dict):
            if _FUNCTION in one:
                return True
            here += one.values()
    return any(True for one in _at(raw, top=True)) if isinstance(raw, dict) else False


def included(raw: Any, scope: Scope, pieces: Mapping[str, Any], *, top: bool = True) -> Any:
    """The tree with its pieces put in; a piece includes nothing itself. Raises Refused."""
    if isinstance(raw, list):
        return [included(one, scope, pieces, top=False) for one in raw]
    if not isinstance(raw, dict):
        return raw
    asked = [_asked(given, scope) for given in _at(raw, top=top)]
    found = {
        key: included(one, scope, pieces, top=False)
        for key, one in raw.items()
        if not (key == _FUNCTION and asked) and not (top and key == "Transform")
    }
    if top and "Transform" in raw:
        given = raw["Transform"]
        listed = given if isinstance(given, list) else [given]
        left = [one for one in listed if not (isinstance(one, dict) and one.get("Name") == INCLUDE)]
        if left:
            found["Transform"] = left
    rest = raw.get(_FUNCTION)
    if asked and isinstance(rest, list):
        rest = [one for one in rest if not (isinstance(one, dict) and one.get("Name") == INCLUDE)]
        found |= {_FUNCTION: rest} if rest else {}
    for location in asked:
        piece = pieces[location]
        if not isinstance(piece, dict):
            raise refused(f"Template error: what {location[:256]} holds is not a mapping.")
        for key, one in piece.items():
            held = found.get(key)
            found[key] = {**held, **one} if isinstance(held, dict) and isinstance(one, dict) else one
    return found

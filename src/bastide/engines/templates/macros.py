"""Macros: functions that change a template, or the part of it in which they stand, before it is read.

Source: CloudFormation User Guide, "Perform custom processing on CloudFormation templates with template macros"; Template
Reference Guide, "Fn::Transform".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

from bastide.engines.templates.functions import Scope, resolve
from bastide.engines.templates.reading import refused
from bastide.engines.templates.template import INCLUDE, TRANSFORMS

FUNCTION: Final = "Fn::Transform"
MOST: Final = 50
Call = Callable[[str, dict[str, Any], Any], Awaitable[Any]]
"""Runs a macro of a name, with its parameters, on a fragment; what it made of it."""


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def name_of(given: Any) -> str:
    """The name of a transform, which is a text or a mapping with a Name; raises Refused."""
    name = given.get("Name") if isinstance(given, dict) else given
    if not isinstance(name, str):
        raise refused("Key Name of transform definition must be a string.")
    return name


def _asked(raw: Any) -> Iterator[Any]:
    here = [raw]
    while here:
        one = here.pop()
        if isinstance(one, list):
            here += one
        elif isinstance(one, dict):
            yield from _listed(one[FUNCTION]) if FUNCTION in one else ()
            here += one.values()


def used(raw: Mapping[str, Any]) -> list[str]:
    """The names of the macros that a template uses, AWS's own transforms not among them; raises Refused for too many."""
    given = [*_asked(raw), *(_listed(raw["Transform"]) if raw.get("Transform") else ())]
    found = [name for one in given if (name := name_of(one)) not in TRANSFORMS]
    if len(found) > MOST:
        raise refused(f"Template error: it uses more than {MOST} macros.")
    return list(dict.fromkeys(found))


def _parameters(given: Any, scope: Scope) -> dict[str, Any]:
    told = given.get("Parameters") if isinstance(given, dict) else None
    found = resolve(told or {}, scope)
    if not isinstance(found, dict):
        raise refused("Template format error: Parameters of a transform must be a mapping.")
    return found


async def inside(value: Any, scope: Scope, call: Call) -> Any:
    """A tree after the macros that stand in it, the innermost first; each gets its siblings."""
    if isinstance(value, list):
        return [await inside(one, scope, call) for one in value]
    if not isinstance(value, dict):
        return value
    found: Any = {key: await inside(one, scope, call) for key, one in value.items() if key != FUNCTION}
    for one in _listed(value[FUNCTION]) if FUNCTION in value else ():
        name = name_of(one)
        if name != INCLUDE:
            found = await call(name, _parameters(one, scope), found)
    return found


async def over(raw: dict[str, Any], scope: Scope, call: Call) -> dict[str, Any]:
    """A template after the macros of its Transform section, in their order; AWS's own are left in it. Raises Refused."""
    given = _listed(raw["Transform"]) if raw.get("Transform") else []
    left = [one for one in given if name_of(one) in TRANSFORMS]
    found: Any = {key: one for key, one in raw.items() if key != "Transform"}
    for one in given:
        if name_of(one) not in TRANSFORMS:
            found = await call(name_of(one), _parameters(one, scope), found)
            if not isinstance(found, dict):
                raise refused("Template format error: unsupported structure.")
    return {**found, **({"Transform": left} if left else {})}

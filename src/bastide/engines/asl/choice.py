"""Rules of Choice states in JSONPath: comparisons, And, Or, Not.

Source: Amazon States Language, "Choice State", "Data-Test Expression".
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

from bastide.engines.asl import paths
from bastide.engines.asl.scope import Scope
from bastide.engines.asl.values import instant, number

_SIGNS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "Equals": operator.eq,
    "LessThan": operator.lt,
    "GreaterThan": operator.gt,
    "LessThanEquals": operator.le,
    "GreaterThanEquals": operator.ge,
}
_TYPES: Final[dict[str, Callable[[Any], Any]]] = {
    "String": lambda value: value if isinstance(value, str) else None,
    "Numeric": lambda value: value if number(value) else None,
    "Timestamp": instant,
}
_KINDS: Final[dict[str, Callable[[Any], bool]]] = {
    "IsNull": lambda value: value is None,
    "IsNumeric": number,
    "IsString": lambda value: isinstance(value, str),
    "IsBoolean": lambda value: isinstance(value, bool),
    "IsTimestamp": lambda value: instant(value) is not None,
}
COMPARISONS: Final = frozenset(
    [f"{kind}{sign}{path}" for kind in _TYPES for sign in _SIGNS for path in ("", "Path")]
    + ["BooleanEquals", "BooleanEqualsPath", "StringMatches", "IsPresent", *_KINDS]
)
"""Names of all comparisons."""


def holds(rule: dict[str, Any], value: Any, scope: Scope) -> bool:
    """Whether a rule holds for a state's data; raises Problem where a path of it leads nowhere."""
    if "And" in rule:
        return all(holds(one, value, scope) for one in rule["And"])
    if "Or" in rule:
        return any(holds(one, value, scope) for one in rule["Or"])
    if "Not" in rule:
        return not holds(rule["Not"], value, scope)
    name = next(one for one in rule if one in COMPARISONS)
    wanted, variable = rule[name], rule["Variable"]
    try:
        found = scope.find(variable, value)
    except (KeyError, paths.TooMuch):
        if name == "IsPresent":
            return wanted is False
        raise _invalid(scope, variable) from None
    if name == "IsPresent":
        return bool(wanted)
    if name in _KINDS:
        return bool(_KINDS[name](found) == wanted)
    if name == "StringMatches":
        return isinstance(found, str) and fits(found, wanted)
    if name.endswith("Path"):
        name = name[:-4]
        try:
            wanted = scope.find(wanted, value)
        except (KeyError, paths.TooMuch):
            raise _invalid(scope, str(wanted)) from None
    if name == "BooleanEquals":
        return isinstance(found, bool) and isinstance(wanted, bool) and found == wanted
    for prefix, read in _TYPES.items():
        if name.startswith(prefix):
            left, right = read(found), read(wanted)
            return left is not None and right is not None and bool(_SIGNS[name.removeprefix(prefix)](left, right))
    return False


def _invalid(scope: Scope, path: str) -> Exception:
    return scope.runtime(f"Invalid path '{path}': The choice state's condition path references an invalid value.")


def fits(text: str, pattern: str) -> bool:
    """Whether a text is what a pattern with ``*`` describes; ``\\*`` is a star, ``\\\\`` a backslash."""
    pieces: list[str] = [""]
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\" and pattern[at + 1 : at + 2] in ("*", "\\"):
            pieces[-1] += pattern[at + 1]
            at += 1
        elif char == "*":
            pieces.append("")
        else:
            pieces[-1] += char
        at += 1
    if len(pieces) == 1:
        return text == pieces[0]
    first, *middle, last = pieces
    if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
        return False
    here, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, here, end)
        if found < 0:
            return False
        here = found + len(piece)
    return True

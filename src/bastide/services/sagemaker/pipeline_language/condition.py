"""Conditions: what decides between IfSteps and ElseSteps."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from bastide.services.sagemaker.pipeline_language.expression import Malformed, Scope, Unresolved, resolve

_ORDERS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}
TYPES: Final = ("Equals", *_ORDERS, "In", "Not", "Or")


def check(given: Any, what: str) -> None:
    """Raises Malformed for what is no list of conditions."""
    if not isinstance(given, list) or not given:
        raise Malformed(f"The step {what} needs Conditions, a list of at least one.")
    for one in given:
        _check(one, what)


def _check(given: Any, what: str) -> None:
    type = given.get("Type") if isinstance(given, dict) else None
    if type not in TYPES:
        raise Malformed(f"A condition of the step {what} has no Type out of {', '.join(TYPES)}.")
    if type == "Or":
        check(given.get("Conditions"), what)
    elif type == "Not":
        _check(_inner(given), what)
    elif type == "In":
        if "QueryValue" not in given or not isinstance(given.get("Values"), list):
            raise Malformed(f"A condition In of the step {what} needs QueryValue and Values, a list.")
    elif "LeftValue" not in given or "RightValue" not in given:
        raise Malformed(f"A condition {type} of the step {what} needs LeftValue and RightValue.")


def _inner(given: Mapping[str, Any]) -> Any:
    """What is negated: the schema says Expression, the SDK writes Condition."""
    return given.get("Condition", given.get("Expression"))


def operands(given: Any) -> Iterator[Any]:
    """All values that conditions look at, unresolved."""
    for one in given:
        if one["Type"] == "Or":
            yield from operands(one["Conditions"])
        elif one["Type"] == "Not":
            yield from operands([_inner(one)])
        elif one["Type"] == "In":
            yield from (one["QueryValue"], *one["Values"])
        else:
            yield from (one["LeftValue"], one["RightValue"])


def holds(given: Any, scope: Scope) -> bool:
    """Whether all conditions of a list hold; raises Unresolved, also for values that cannot be compared."""
    return all(_holds(one, scope) for one in given)


def _holds(given: Mapping[str, Any], scope: Scope) -> bool:
    type = given["Type"]
    if type == "Or":
        return any(_holds(one, scope) for one in given["Conditions"])
    if type == "Not":
        return not _holds(_inner(given), scope)
    if type == "In":
        value = resolve(given["QueryValue"], scope)
        return any(_equal(value, resolve(one, scope)) for one in given["Values"])
    left, right = resolve(given["LeftValue"], scope), resolve(given["RightValue"], scope)
    if type == "Equals":
        return _equal(left, right)
    if not (_number(left) and _number(right)) and not (isinstance(left, str) and isinstance(right, str)):
        raise Unresolved(f"{type} compares numbers with numbers and texts with texts, not {_shown(left, right)}.")
    return _ORDERS[type](left, right)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(left: Any, right: Any) -> bool:
    for alike in (_number, lambda one: isinstance(one, str), lambda one: isinstance(one, bool)):
        if alike(left) and alike(right):
            return bool(left == right)
    if left is None or right is None:
        return left is right
    raise Unresolved(f"Only values of one type can be compared, not {_shown(left, right)}.")


def _shown(left: Any, right: Any) -> str:
    return f"{str(left)[:100]!r} ({type(left).__name__}) with {str(right)[:100]!r} ({type(right).__name__})"

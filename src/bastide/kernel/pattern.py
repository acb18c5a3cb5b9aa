"""Patterns of events, of EventBridge's rules and of filter policies of SNS, which have the same language.

Source: EventBridge User Guide, "Event patterns", "Comparison operators"; SNS Developer Guide, "Filter policy constraints".
"""

from __future__ import annotations

import ipaddress
import operator
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from bastide.domain import Refused

_LONGEST: Final = 4096
_MOST_WILDCARDS: Final = 30
_MOST_BRANCHES: Final = 1000
"""Ways in which the ``$or`` of a pattern can be combined: more is what exploding patterns are."""
_DEEPEST: Final = 100
_NUMBERS: Final = 5.0e9
_MISSING: Final = object()
_NUMERIC: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq,
}  # fmt: skip
_FILTERS: Final = (
    "prefix", "suffix", "equals-ignore-case", "wildcard", "anything-but", "numeric", "cidr", "exists",
)  # fmt: skip


def _wrong(text: str) -> Refused:
    return Refused("InvalidEventPatternException", f"Event pattern is not valid. Reason: {text}")


class Pattern:
    """A checked pattern. Raises Refused InvalidEventPatternException for what is none."""

    def __init__(self, text: str, *, most_bytes: int = _LONGEST) -> None:
        if len(text.encode("utf-8", "surrogatepass")) > most_bytes:
            raise _wrong(f"it has more than {most_bytes} bytes")
        try:
            self._held = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise _wrong(f"it is no JSON: {error}") from None
        if not isinstance(self._held, dict) or not self._held:
            raise _wrong("it must be an object with fields")
        if _check(self._held) > _MOST_BRANCHES:
            raise _wrong(f"its $or can be combined in more than {_MOST_BRANCHES} ways")

    @property
    def fields(self) -> Mapping[str, Any]:
        """Its fields as they were written."""
        held: dict[str, Any] = self._held
        return held

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Whether an event matches."""
        return _object(self._held, event)


def _check(held: Mapping[str, Any], depth: int = 0) -> int:
    """In how many ways its ``$or`` can be combined; raises Refused."""
    branches = 1
    if depth > _DEEPEST:
        raise _wrong("it is nested too deeply")
    for name, value in held.items():
        if name == "$or":
            if not isinstance(value, list) or len(value) < 2 or not all(isinstance(one, dict) and one for one in value):
                raise _wrong("$or takes an array of at least two objects")
            branches *= sum(_check(one, depth + 1) for one in value)
        elif isinstance(value, dict):
            if not value:
                raise _wrong(f"{name}: empty objects are not allowed")
            branches *= _check(value, depth + 1)
        elif isinstance(value, list):
            if not value:
                raise _wrong(f"{name}: empty arrays are not allowed")
            for one in value:
                _check_one(name, one)
        else:
            raise _wrong(f'"{name}" must be an object or an array')
    return branches


def _texts(name: str, kind: str, value: Any) -> None:
    many = value if isinstance(value, list) else [value]
    if not many or not all(isinstance(one, str) for one in many):
        raise _wrong(f"{name}: {kind} takes text")


def _wild(name: str, text: str) -> None:
    plain = text.replace("\\\\", "").replace("\\*", "")
    if "\\" in plain:
        raise _wrong(f"{name}: a backslash of a wildcard stands before * or another backslash")
    if "**" in plain or plain.count("*") > _MOST_WILDCARDS:
        raise _wrong(f"{name}: too many or consecutive wildcards")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _NUMBERS


def _check_one(name: str, one: Any) -> None:
    if not isinstance(one, dict):
        if isinstance(one, list):
            raise _wrong(f"{name}: arrays do not hold arrays")
        return
    if len(one) != 1:
        raise _wrong(f"{name}: a filter has one key")
    [(kind, value)] = one.items()
    if kind not in _FILTERS:
        raise _wrong(f"{name}: unrecognized match type {kind}")
    if kind in ("prefix", "suffix"):
        if isinstance(value, dict):
            if set(value) != {"equals-ignore-case"} or not isinstance(value["equals-ignore-case"], str):
                raise _wrong(f"{name}: {kind} takes text")
        elif not isinstance(value, str):
            raise _wrong(f"{name}: {kind} takes text")
    elif kind in ("equals-ignore-case", "wildcard", "cidr"):
        if not isinstance(value, str):
            raise _wrong(f"{name}: {kind} takes text")
        if kind == "wildcard":
            _wild(name, value)
        if kind == "cidr":
            try:
                ipaddress.ip_network(value, strict=False)
            except ValueError:
                raise _wrong(f"{name}: {value} is no CIDR") from None
    elif kind == "exists":
        if not isinstance(value, bool):
            raise _wrong(f"{name}: exists takes true or false")
    elif kind == "numeric":
        pairs = value if isinstance(value, list) else []
        if len(pairs) not in (2, 4) or not all(
            isinstance(pairs[n], str) and pairs[n] in _NUMERIC and _is_number(pairs[n + 1])
            for n in range(0, len(pairs), 2)
        ):
            raise _wrong(f"{name}: numeric takes one or two comparisons with numbers from -5e9 to 5e9")
        if (
            len(pairs) == 4
            and not (pairs[0] in (">", ">=") and pairs[2] in ("<", "<=") and pairs[1] <= pairs[3])
            and not (pairs[0] in ("<", "<=") and pairs[2] in (">", ">=") and pairs[3] <= pairs[1])
        ):
            raise _wrong(f"{name}: two comparisons of numeric are a range from a smaller to a greater number")
    elif isinstance(value, dict):
        if len(value) != 1 or next(iter(value)) not in ("prefix", "suffix", "equals-ignore-case", "wildcard"):
            raise _wrong(f"{name}: anything-but takes values, prefix, suffix, equals-ignore-case or wildcard")
        _texts(name, "anything-but", next(iter(value.values())))
        if "wildcard" in value:
            inner = value["wildcard"]
            for each in inner if isinstance(inner, list) else [inner]:
                _wild(name, each)
    else:
        many = value if isinstance(value, list) else [value]
        texts = all(isinstance(each, str) for each in many)
        if not many or not (
            texts or all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in many)
        ):
            raise _wrong(f"{name}: anything-but takes texts or numbers")


def _object(held: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    for name, wanted in held.items():
        if name == "$or":
            if not any(_object(one, event) for one in wanted):
                return False
            continue
        value = _at(event, name)
        if isinstance(wanted, dict):
            if isinstance(value, list):
                if not any(isinstance(one, dict) and _object(wanted, one) for one in value):
                    return False
            elif not _object(wanted, value if isinstance(value, dict) else {}):
                return False
        elif not any(_field(one, value) for one in wanted):
            return False
    return True


def _at(event: Mapping[str, Any], name: str) -> Any:
    """What stands under a name. A dot in a name, here or there, is a step into an object."""
    if name in event:
        return event[name]
    head, dot, rest = name.partition(".")
    while dot:
        inner = event.get(head)
        if isinstance(inner, dict) and (found := _at(inner, rest)) is not _MISSING:
            return found
        step, dot, rest = rest.partition(".")
        head = f"{head}.{step}"
    below = {key[len(name) + 1 :]: value for key, value in event.items() if key.startswith(f"{name}.")}
    return below or _MISSING


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def _field(one: Any, value: Any) -> bool:
    if isinstance(one, dict) and "exists" in one:
        # Only leaves exist: an object is none.
        return bool(one["exists"]) == (value is not _MISSING and not isinstance(value, dict))
    if value is _MISSING or isinstance(value, dict):
        return False
    if value == [] or value is _MISSING:
        return False
    return any(_leaf(one, leaf) for leaf in _leaves(value))


def _same(one: Any, value: Any) -> bool:
    if isinstance(one, bool) or isinstance(value, bool) or one is None or value is None:
        return one is value
    if isinstance(one, (int, float)) and isinstance(value, (int, float)):
        return one == value
    return type(one) is type(value) and bool(one == value)


@lru_cache(4096)
def _pieces(pattern: str) -> tuple[str, ...]:
    """The texts between the stars of a wildcard."""
    return tuple(
        piece.replace("\1", "*").replace("\0", "\\")
        for piece in pattern.replace("\\\\", "\0").replace("\\*", "\1").split("*")
    )


def _wildcard(pattern: str, text: str) -> bool:
    """Each piece is looked for behind the one before: no text takes longer than its length times the pieces."""
    first, *more = _pieces(pattern)
    if not more:
        return text == first
    last = more.pop()
    if not text.startswith(first) or len(text) < len(first) + len(last) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in more:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return at <= end


def _text(kind: str, wanted: str, value: str) -> bool:
    if kind == "prefix":
        return value.startswith(wanted)
    if kind == "suffix":
        return value.endswith(wanted)
    if kind == "equals-ignore-case":
        return value.lower() == wanted.lower()
    return _wildcard(wanted, value)


def _leaf(one: Any, value: Any) -> bool:
    if not isinstance(one, dict):
        return _same(one, value)
    [(kind, wanted)] = one.items()
    if kind == "numeric":
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return all(_NUMERIC[wanted[n]](value, wanted[n + 1]) for n in range(0, len(wanted), 2))
    if kind == "anything-but":
        if isinstance(wanted, dict):
            [(inner, many)] = wanted.items()
            texts = many if isinstance(many, list) else [many]
            return isinstance(value, str) and not any(_text(inner, text, value) for text in texts)
        return not any(_same(each, value) for each in (wanted if isinstance(wanted, list) else [wanted]))
    if not isinstance(value, str):
        return False
    if kind == "cidr":
        try:
            return ipaddress.ip_address(value) in ipaddress.ip_network(wanted, strict=False)
        except ValueError:
            return False
    if isinstance(wanted, dict):
        return _text(kind, wanted["equals-ignore-case"].lower(), value.lower())
    return _text(kind, wanted, value)

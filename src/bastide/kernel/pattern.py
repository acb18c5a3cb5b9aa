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


def _wrong(text: str, name: str = "") -> Refused:
    where = f" (in {name[:100]})" if name else ""
    return Refused("InvalidEventPatternException", f"Event pattern is not valid. Reason: {text}{where}")


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
                raise _wrong("Empty objects are not allowed", name)
            branches *= _check(value, depth + 1)
        elif isinstance(value, list):
            if not value:
                raise _wrong("Empty arrays are not allowed", name)
            for one in value:
                _check_one(name, one)
        else:
            raise _wrong(f'"{name}" must be an object or an array')
    return branches


def _texts(name: str, kind: str, value: Any) -> None:
    """Raises Refused unless what `anything-but` excludes is text."""
    many = value if isinstance(value, list) else [value]
    if not many:
        raise _wrong("Empty arrays are not allowed", name)
    if not all(isinstance(one, str) for one in many):
        if kind == "equals-ignore-case":
            raise _wrong(
                "Inside anything-but/equals-ignore-case list, number|start|null|boolean is not supported.", name
            )
        raise _wrong(f"{'wildcard' if kind == 'wildcard' else 'prefix/suffix'} match pattern must be a string", name)
    if kind in ("prefix", "suffix") and not all(many):
        raise _wrong("Null prefix/suffix not allowed", name)


def _wild(name: str, text: str) -> None:
    plain = text.replace("\\\\", "").replace("\\*", "")
    if "\\" in plain:
        raise _wrong("Invalid escape character: a backslash stands before * or another backslash", name)
    if "**" in plain:
        raise _wrong(f"Consecutive wildcard characters at pos {text.find('**') + 1}", name)
    if plain.count("*") > _MOST_WILDCARDS:
        raise _wrong(
            "Rule is too complex - try using fewer wildcard characters or fewer repeating character sequences after a "
            "wildcard character",
            name,
        )


def _range(name: str, value: Any) -> None:
    """Raises Refused for what is no ``numeric``."""
    if not isinstance(value, list):
        raise _wrong("Value of numeric must be an array.", name)
    for n in range(0, len(value), 2):
        if not isinstance(value[n], str) or value[n] not in _NUMERIC:
            raise _wrong(f"Unrecognized numeric range operator: {str(value[n])[:20]}", name)
        if n + 1 == len(value) or not isinstance(value[n + 1], (int, float)) or isinstance(value[n + 1], bool):
            raise _wrong(f"Value of {value[n]} must be numeric", name)
        if not _is_number(value[n + 1]):
            raise _wrong(f"Value of {value[n]} must be from -5e9 to 5e9", name)
    if len(value) not in (2, 4):
        raise _wrong("numeric takes one or two comparisons", name)
    if len(value) == 4:
        if {value[0][0], value[2][0]} != {"<", ">"}:
            raise _wrong(f"Bad numeric range operator: {value[2]}", name)
        low, high = (value[1], value[3]) if value[0][0] == ">" else (value[3], value[1])
        if low > high:
            raise _wrong("Bottom must be less than top", name)


def _network(name: str, value: str) -> None:
    """Raises Refused for what is no CIDR."""
    address, slash, bits = value.partition("/")
    if not slash or "/" in bits:
        raise _wrong("Malformed CIDR, one '/' required", name)
    if not (bits.isascii() and bits.isdigit()):
        raise _wrong("Malformed CIDR, mask bits must be an integer", name)
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise _wrong(f"Nonstandard IP address: {address[:100]}", name) from None
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise _wrong("Malformed CIDR, mask bits are too many", name) from None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _NUMBERS


def _check_one(name: str, one: Any) -> None:
    if not isinstance(one, dict):
        if isinstance(one, list):
            raise _wrong("Arrays do not hold arrays", name)
        return
    if len(one) != 1:
        raise _wrong("Only one key allowed in match expression", name)
    [(kind, value)] = one.items()
    if kind not in _FILTERS:
        raise _wrong(f"Unrecognized match type {kind[:100]}", name)
    if kind in ("prefix", "suffix"):
        if isinstance(value, dict):
            if set(value) != {"equals-ignore-case"} or not isinstance(value["equals-ignore-case"], str):
                raise _wrong(f"{kind} match pattern must be a string", name)
        elif not isinstance(value, str):
            raise _wrong(f"{kind} match pattern must be a string", name)
    elif kind in ("equals-ignore-case", "wildcard", "cidr"):
        if not isinstance(value, str):
            raise _wrong(f"{'prefix' if kind == 'cidr' else kind} match pattern must be a string", name)
        if kind == "wildcard":
            _wild(name, value)
        if kind == "cidr":
            _network(name, value)
    elif kind == "exists":
        if not isinstance(value, bool):
            raise _wrong("exists match pattern must be either true or false.", name)
    elif kind == "numeric":
        _range(name, value)
    elif isinstance(value, dict):
        if len(value) != 1 or next(iter(value)) not in ("prefix", "suffix", "equals-ignore-case", "wildcard"):
            raise _wrong(f"Unsupported anything-but pattern: {str(next(iter(value), ''))[:100]}", name)
        [(inner, held)] = value.items()
        if isinstance(held, dict):
            raise _wrong("Value of anything-but must be an array or single string/number value.", name)
        _texts(name, inner, held)
        if "wildcard" in value:
            for each in held if isinstance(held, list) else [held]:
                _wild(name, each)
    else:
        many = value if isinstance(value, list) else [value]
        texts = all(isinstance(each, str) for each in many)
        if not many or not (
            texts or all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in many)
        ):
            if isinstance(value, list):
                raise _wrong("Inside anything but list, start|null|boolean is not supported.", name)
            raise _wrong("Value of anything-but must be an array or single string/number value.", name)


def _object(held: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    for name, wanted in held.items():
        if name == "$or":
            if not any(_object(one, event) for one in wanted):
                return False
            continue
        value = _at(event, name)
        if isinstance(wanted, dict):
            if isinstance(value, list):
                if not any(isinstance(one, dict) and _object(wanted, one) for one in _leaves(value)):
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
        return bool(one["exists"]) == (value is not _MISSING and value != [] and not isinstance(value, dict))
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
            return not (isinstance(value, str) and any(_text(inner, text, value) for text in texts))
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

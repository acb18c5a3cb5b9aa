"""Inputs checked against the model: required, length, range, pattern, enum, at any depth.

The texts are those of AWS's own framework, for instance

    1 validation error detected: Value 'x' at 'trainingJobName' failed to satisfy constraint: Member must have length
    less than or equal to 63

Several are counted and joined with "; ". Lists and maps of scalars say what each member must satisfy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bastide.domain import Refused
from bastide.protocol.patterns import matcher

_LONGEST_SHOWN = 1024
_MOST_ERRORS = 20

_CODES = {
    "logs": "InvalidParameterException",
    "ecr": "InvalidParameterException",
    "codebuild": "InvalidInputException",
    "organizations": "InvalidInputException",
    "sns": "InvalidParameter",
    "cloudwatch": "ValidationError",
}
"""Services whose code for a breach of the model is not their protocol's usual one."""

_S3_CODES = {"BucketLocationConstraint": "InvalidLocationConstraint", "StorageClass": "InvalidStorageClass"}


@dataclass(slots=True)
class Breach:
    """One breach: where, by which shape, of which constraint ("required", "enum", ...), and its text."""

    path: str
    member: str
    shape: str
    kind: str
    text: str
    shown: str
    place: str = ""


Check = Callable[[Any, str, list[Breach]], None]


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        size = len(value)
        return f"java.nio.HeapByteBuffer[pos=0 lim={size} cap={size}]"
    if isinstance(value, list):
        return f"[{', '.join(_shown(one) for one in value[:100])}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}={_shown(one)}' for key, one in list(value.items())[:100])}}}"
    return str(value)


def _value(value: Any, sensitive: bool) -> str:
    if value is None:
        return "Value null"
    if sensitive:
        return "Value"
    shown = _shown(value)
    return f"Value '{shown if len(shown) <= _LONGEST_SHOWN else shown[:_LONGEST_SHOWN] + '...'}'"


def _lower(name: str) -> str:
    return name[:1].lower() + name[1:]


@dataclass(slots=True)
class _Constraint:
    kind: str
    text: str
    holds: Callable[[Any], bool]


def _at_most(limit: float, sized: bool) -> Callable[[Any], bool]:
    return (lambda value: len(value) <= limit) if sized else (lambda value: value <= limit)


def _at_least(limit: float, sized: bool) -> Callable[[Any], bool]:
    return (lambda value: len(value) >= limit) if sized else (lambda value: value >= limit)


def _constraints(shape: Any) -> list[_Constraint]:
    """The constraints of a scalar, or of the size of a list or map, in the order AWS tells them."""
    found: list[_Constraint] = []
    metadata, kind = shape.metadata, shape.type_name
    low, high = metadata.get("min"), metadata.get("max")
    sized = kind in ("string", "blob", "list", "map", "character")
    word = "length" if sized else "value"
    if kind in ("boolean", "timestamp", "structure"):
        return found
    if high is not None:
        text = f"Member must have {word} less than or equal to {high}"
        found.append(_Constraint("length" if sized else "range", text, _at_most(high, sized)))
    if low is not None and not (sized and low == 0):
        text = f"Member must have {word} greater than or equal to {low}"
        found.append(_Constraint("length" if sized else "range", text, _at_least(low, sized)))
    if kind != "string":
        return found
    if shape.enum:
        values = frozenset(shape.enum)
        text = f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"
        found.append(_Constraint("enum", text, values.__contains__))
    pattern = metadata.get("pattern")
    if pattern is not None:
        found.append(
            _Constraint("pattern", f"Member must satisfy regular expression pattern: {pattern}", _lazy(pattern, high))
        )
    return found


def _lazy(pattern: str, high: int | None) -> Callable[[str], bool]:
    held: list[Any] = []

    def holds(text: str) -> bool:
        if not held:
            held.append(matcher(pattern))
        matches = held[0]
        if matches is None or (high is not None and len(text) > high):
            return True
        return bool(matches(text))

    return holds


class Rules:
    """Makes and keeps the checks of one service."""

    def __init__(self, service: str, query: bool) -> None:
        self._service = service
        self._style = service if service in ("s3", "ec2") else ""
        self._code = _CODES.get(service, "ValidationError" if query else "ValidationException")
        self._structures: dict[str, Check] = {}

    def of(self, shape: Any) -> Callable[[Any], None]:
        """A function that raises Refused for an input that the model forbids."""
        check = self._check(shape)
        if check is None:
            return lambda _: None

        def validate(params: Any) -> None:
            breaches: list[Breach] = []
            try:
                check(params, "", breaches)
            except RecursionError:
                raise Refused(self._code, "The input is nested too deeply.") from None
            if breaches:
                raise self._refused(breaches)

        return validate

    def _refused(self, breaches: list[Breach]) -> Refused:
        first = breaches[0]
        if self._style == "s3":
            return _s3(first)
        if self._style == "ec2":
            name = first.path[:1].upper() + first.path[1:]
            if first.kind == "required":
                return Refused("MissingParameter", f"The request must contain the parameter {name}")
            return Refused("InvalidParameterValue", f"{first.shown} for parameter {name} is invalid. {first.text}")
        text = "; ".join(
            f"{one.shown} at '{one.path}' failed to satisfy constraint: {one.text}" for one in breaches[:_MOST_ERRORS]
        )
        count = len(breaches)
        return Refused(self._code, f"{count} validation error{'s' if count > 1 else ''} detected: {text}")

    def _check(self, shape: Any) -> Check | None:
        kind = shape.type_name
        if kind == "structure":
            # A document is whatever JSON it is: there is nothing to hold it against.
            return None if shape.is_document_type else self._structure(shape)
        if kind == "list":
            return self._list(shape)
        if kind == "map":
            return self._map(shape)
        return self._scalar(shape)

    def _scalar(self, shape: Any) -> Check | None:
        constraints = _constraints(shape)
        if not constraints:
            return None
        sensitive = bool(shape.metadata.get("sensitive"))
        name = shape.name
        place = shape.serialization.get("location", "")
        if len(constraints) == 1:
            only = constraints[0]
            holds = only.holds

            def one(value: Any, path: str, breaches: list[Breach]) -> None:
                if not holds(value):
                    breaches.append(Breach(path, "", name, only.kind, only.text, _value(value, sensitive), place))

            return one

        def check(value: Any, path: str, breaches: list[Breach]) -> None:
            for constraint in constraints:
                if not constraint.holds(value):
                    breaches.append(
                        Breach(path, "", name, constraint.kind, constraint.text, _value(value, sensitive), place)
                    )

        return check

    def _structure(self, shape: Any) -> Check:
        found = self._structures.get(shape.name)
        if found is not None:
            return found
        table: dict[str, tuple[str, Check]] = {}
        places: dict[str, str] = {}
        required = tuple(shape.required_members)
        built = False

        def build() -> None:
            nonlocal built
            for name in required:
                places[name] = shape.members[name].serialization.get("location", "")
            for name, below in shape.members.items():
                check = self._check(below)
                if check is not None:
                    table[name] = (_lower(name), check)
            built = True

        def check(value: Any, path: str, breaches: list[Breach]) -> None:
            if not built:
                build()
            prefix = f"{path}." if path else ""
            for name in required:
                if value.get(name) is None:
                    breaches.append(
                        Breach(
                            prefix + _lower(name), name, shape.name, "required", "Member must not be null", "Value null",
                            places[name],
                        )
                    )  # fmt: skip
            for name, one in value.items():
                entry = table.get(name)
                if entry is not None and one is not None:
                    entry[1](one, prefix + entry[0], breaches)

        self._structures[shape.name] = check
        return check

    def _sizes(self, shape: Any) -> Callable[[Any, str, list[Breach]], None]:
        constraints = _constraints(shape)

        def sizes(value: Any, path: str, breaches: list[Breach]) -> None:
            for constraint in constraints:
                if not constraint.holds(value):
                    breaches.append(
                        Breach(
                            path, "", shape.name, constraint.kind, constraint.text, _value(value, _holds_secrets(shape))
                        )
                    )

        return sizes

    def _list(self, shape: Any) -> Check:
        sizes = self._sizes(shape)
        held: list[Any] = []
        member = shape.member
        nested = member.type_name in ("structure", "list", "map")

        def check(value: Any, path: str, breaches: list[Breach]) -> None:
            if not held:
                held.extend((self._check(member), None) if nested else (None, _constraints(member)))
            sizes(value, path, breaches)
            below, constraints = held
            if nested:
                for at, one in enumerate(value, 1):
                    if one is None:
                        breaches.append(_null(f"{path}.{at}.member", member.name))
                    elif below is not None:
                        below(one, f"{path}.{at}.member", breaches)
                return
            for at, one in enumerate(value, 1):
                if one is None:
                    breaches.append(_null(f"{path}.{at}.member", member.name))
                    continue
                if constraints and not all(constraint.holds(one) for constraint in constraints):
                    text = f"Member must satisfy constraint: [{', '.join(one.text for one in constraints)}]"
                    breaches.append(Breach(path, "", member.name, "member", text, _value(value, _holds_secrets(shape))))
                    break

        return check

    def _map(self, shape: Any) -> Check:
        sizes = self._sizes(shape)
        held: list[Any] = []
        nested = shape.value.type_name in ("structure", "list", "map")

        def told(which: str, constraints: list[_Constraint], value: Any, path: str, breaches: list[Breach]) -> None:
            text = f"Map {which} must satisfy constraint: [{', '.join(one.text for one in constraints)}]"
            breaches.append(Breach(path, "", shape.name, "member", text, _value(value, _holds_secrets(shape))))

        def check(value: Any, path: str, breaches: list[Breach]) -> None:
            if not held:
                held.append(_constraints(shape.key))
                held.extend((self._check(shape.value), []) if nested else (None, _constraints(shape.value)))
            sizes(value, path, breaches)
            keys, below, constraints = held
            if keys and not all(constraint.holds(key) for key in value for constraint in keys):
                told("keys", keys, value, path, breaches)
            for key, one in value.items():
                if one is None:
                    breaches.append(_null(f"{path}.{key}.member", shape.value.name))
                elif below is not None:
                    below(one, f"{path}.{key}.member", breaches)
                elif constraints and not all(constraint.holds(one) for constraint in constraints):
                    told("value", constraints, value, path, breaches)
                    break

        return check


def _null(path: str, name: str) -> Breach:
    return Breach(path, "", name, "required", "Member must not be null", "Value null")


def _holds_secrets(shape: Any, seen: set[str] | None = None) -> bool:
    """Whether a value of `shape` may hold a sensitive one, so that it must not be told."""
    if shape.metadata.get("sensitive"):
        return True
    seen = set() if seen is None else seen
    if shape.name in seen:
        return False
    seen.add(shape.name)
    kind = shape.type_name
    if kind == "list":
        return _holds_secrets(shape.member, seen)
    if kind == "map":
        return _holds_secrets(shape.key, seen) or _holds_secrets(shape.value, seen)
    if kind == "structure":
        return any(_holds_secrets(one, seen) for one in shape.members.values())
    return False


def _s3(first: Breach) -> Refused:
    if first.kind == "required":
        if first.place in ("header", "querystring"):
            return Refused("InvalidArgument", f"Missing required {first.place} parameter: {first.member}")
        if first.place == "" and "." not in first.path:
            return Refused("MissingRequestBodyError", "Request Body is empty")
        return Refused("MalformedXML", _MALFORMED_XML)
    if first.shape in _S3_CODES:
        code = _S3_CODES[first.shape]
        text = {
            "InvalidLocationConstraint": "The specified location-constraint is not valid",
            "InvalidStorageClass": "The storage class you specified is not valid",
        }[code]
        return Refused(code, text)
    if first.place in ("header", "querystring", "headers"):
        return Refused("InvalidArgument", f"Invalid argument at {first.path}: {first.text}")
    return Refused("MalformedXML", _MALFORMED_XML)


_MALFORMED_XML = "The XML you provided was not well-formed or did not validate against our published schema"

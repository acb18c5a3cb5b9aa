"""JSON Schema, draft 4, as models have it: whether a value fits, in a bounded number of steps, whoever wrote the schema.

Source: JSON Schema draft 4, "Validation"; API Gateway Developer Guide, "Data models for REST APIs"; OpenAPI Specification
3.0 (``nullable``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from bastide.protocol.patterns import strangers

_MOST_STEPS: Final = 100_000
_DEEPEST: Final = 64
_MODEL: Final = re.compile(r"https://apigateway\.amazonaws\.com/restapis/[^/]+/models/([A-Za-z0-9]+)")
_ANYTHING: Final = r"[\s\S]*"
_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda one: isinstance(one, dict),
    "array": lambda one: isinstance(one, list),
    "string": lambda one: isinstance(one, str),
    "number": lambda one: isinstance(one, int | float) and not isinstance(one, bool),
    "integer": lambda one: (
        (isinstance(one, int) and not isinstance(one, bool)) or (isinstance(one, float) and one.is_integer())
    ),
    "boolean": lambda one: isinstance(one, bool),
    "null": lambda one: one is None,
}
Schema = Mapping[str, Any]
Models = Mapping[str, Schema]


class Wrong(Exception):  # noqa: N818
    """A schema that says nothing that could be checked."""


class _TooMuch(Exception):  # noqa: N818
    """It takes more steps than anybody waits for."""


def _branches(text: str) -> Iterator[str]:
    """The alternatives of a pattern, as it is written."""
    begin = depth = 0
    escaped = within = False
    for at, sign in enumerate(text):
        if escaped:
            escaped = False
        elif sign == "\\":
            escaped = True
        elif within:
            within = sign != "]"
        elif sign == "[":
            within = True
        elif sign in "()":
            depth += 1 if sign == "(" else -1
        elif sign == "|" and not depth:
            yield text[begin:at]
            begin = at + 1
    yield text[begin:]


def _anywhere(branch: str) -> str:
    """An alternative that may match anywhere in a text, as one that matches all of it."""
    bare = branch.removesuffix("$")
    ends = bare != branch and (len(bare) - len(bare.rstrip("\\"))) % 2 == 0
    begins = branch.startswith("^")
    held = (bare if ends else branch).removeprefix("^")
    return f"{'' if begins else _ANYTHING}(?:{held}){'' if ends else _ANYTHING}"


@lru_cache(maxsize=512)
def _pattern(text: str) -> Callable[[str], bool] | None:
    """A pattern that may match anywhere in a text."""
    return strangers("|".join(map(_anywhere, _branches(text)))) if strangers(text) is not None else None


def _below(schema: Schema) -> Iterator[Any]:
    for name in ("items", "additionalItems", "additionalProperties", "not"):
        held = schema.get(name)
        yield from held if isinstance(held, list) else [held] if isinstance(held, dict) else []
    for name in ("allOf", "anyOf", "oneOf"):
        yield from schema.get(name) or ()
    for name in ("properties", "patternProperties", "definitions"):
        yield from (schema.get(name) or {}).values()


def check(schema: Any) -> None:
    """Raises Wrong for what is no schema."""
    here, count = [schema], 0
    while here:
        one = here.pop()
        count += 1
        if not isinstance(one, dict) or count > _MOST_STEPS:
            raise Wrong("a schema is a mapping")
        kinds = one.get("type")
        kinds = kinds if isinstance(kinds, list) else [kinds] if kinds is not None else []
        if any(not isinstance(kind, str) or kind not in _TYPES for kind in kinds):
            raise Wrong(f"the type {str(kinds)[:64]} is not known")
        for name in ("properties", "patternProperties", "definitions"):
            if not isinstance(one.get(name, {}), dict):
                raise Wrong(f"{name} is a mapping")
        for name in ("allOf", "anyOf", "oneOf", "enum", "required"):
            held = one.get(name)
            if held is not None and not isinstance(held, list):
                raise Wrong(f"{name} is a list")
        texts = [one["pattern"]] if "pattern" in one else []
        for text in [*texts, *(one.get("patternProperties") or {})]:
            if not isinstance(text, str) or len(text) > 1000 or _pattern(text) is None:
                raise Wrong(f"the pattern {str(text)[:64]} cannot be checked")
        reference = one.get("$ref")
        if reference is not None and not (_MODEL.fullmatch(str(reference)) or str(reference).startswith("#/")):
            raise Wrong(f"$ref {str(reference)[:200]} is no model's")
        here += list(_below(one))


def fits(value: Any, schema: Schema, models: Models) -> bool:
    """Whether a value is what a schema says; one that takes too long to tell is not."""
    try:
        return _Check(schema, models).fits(value, schema, 0)
    except (_TooMuch, RecursionError, TypeError, AttributeError, ValueError):
        return False


class _Check:
    """One value. root: what local references are looked up in."""

    def __init__(self, root: Schema, models: Models) -> None:
        self.root = root
        self.models = models
        self.steps = 0

    def fits(self, value: Any, schema: Any, depth: int) -> bool:
        """Whether a value is what a schema says."""
        self.steps += 1
        if self.steps > _MOST_STEPS or depth > _DEEPEST:
            raise _TooMuch
        if not isinstance(schema, dict):
            return bool(schema)
        if "$ref" in schema:
            return self._referred(value, str(schema["$ref"]), depth)
        if value is None and schema.get("nullable") is True:
            return True
        kinds = schema.get("type")
        if kinds is not None and not any(_TYPES[one](value) for one in (kinds if isinstance(kinds, list) else [kinds])):
            return False
        if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
            return False
        return self._several(value, schema, depth) and self._own(value, schema, depth)

    def _referred(self, value: Any, reference: str, depth: int) -> bool:
        found = _MODEL.fullmatch(reference)
        if found is not None:
            if found[1] not in self.models:
                return False
            root, self.root = self.root, self.models[found[1]]
            try:
                return self.fits(value, self.root, depth + 1)
            finally:
                self.root = root
        here: Any = self.root
        for part in reference[2:].split("/") if reference.startswith("#/") else ["?"]:
            here = here.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(here, dict) else None
        return here is not None and self.fits(value, here, depth + 1)

    def _several(self, value: Any, schema: Schema, depth: int) -> bool:
        def each(name: str) -> Iterator[bool]:
            return (self.fits(value, one, depth + 1) for one in schema[name])

        return (
            ("allOf" not in schema or all(each("allOf")))
            and ("anyOf" not in schema or any(each("anyOf")))
            and ("oneOf" not in schema or sum(each("oneOf")) == 1)
            and ("not" not in schema or not self.fits(value, schema["not"], depth + 1))
        )

    def _own(self, value: Any, schema: Schema, depth: int) -> bool:
        if isinstance(value, dict):
            return self._object(value, schema, depth)
        if isinstance(value, list):
            return self._array(value, schema, depth)
        if isinstance(value, str):
            pattern = _pattern(schema["pattern"]) if "pattern" in schema else None
            return _between(len(value), schema, "minLength", "maxLength") and (pattern is None or pattern(value))
        if isinstance(value, bool) or value is None:
            return True
        return _number(value, schema)

    def _object(self, value: dict[str, Any], schema: Schema, depth: int) -> bool:
        if not _between(len(value), schema, "minProperties", "maxProperties"):
            return False
        if any(name not in value for name in schema.get("required") or ()):
            return False
        for name, needed in (schema.get("dependencies") or {}).items():
            if name in value:
                told = {"required": needed} if isinstance(needed, list) else needed
                if not self.fits(value, told, depth + 1):
                    return False
        own, patterns = schema.get("properties") or {}, schema.get("patternProperties") or {}
        rest = schema.get("additionalProperties", True)
        for name, one in value.items():
            held = [own[name]] if name in own else []
            for text, below in patterns.items():
                matches = _pattern(text)
                if matches is not None and matches(name):
                    held.append(below)
            if not held and rest is not True:
                held = [rest]
            if not all(self.fits(one, below, depth + 1) for below in held):
                return False
        return True

    def _array(self, value: list[Any], schema: Schema, depth: int) -> bool:
        if not _between(len(value), schema, "minItems", "maxItems"):
            return False
        if schema.get("uniqueItems") and len({_written(one) for one in value}) < len(value):
            return False
        items = schema.get("items")
        if isinstance(items, list):
            rest = schema.get("additionalItems", True)
            return all(
                self.fits(one, items[number] if number < len(items) else rest, depth + 1)
                for number, one in enumerate(value)
            )
        return items is None or all(self.fits(one, items, depth + 1) for one in value)


def _between(count: float, schema: Schema, least: str, most: str) -> bool:
    return bool(schema.get(least, count) <= count <= schema.get(most, count))


def _number(value: float, schema: Schema) -> bool:
    for name, strict, sign in (("minimum", "exclusiveMinimum", 1), ("maximum", "exclusiveMaximum", -1)):
        bound, exclusive = schema.get(name), schema.get(strict)
        if isinstance(exclusive, bool):
            if bound is not None and exclusive and value == bound:
                return False
        elif exclusive is not None and sign * (value - exclusive) <= 0:
            return False
        if bound is not None and sign * (value - bound) < 0:
            return False
    step = schema.get("multipleOf")
    return not step or abs(value / step - round(value / step)) < 1e-9


def _written(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON has it: 1 is 1.0, and neither is true."""
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (one, other))
    return bool(one == other) if numbers else _written(one) == _written(other)

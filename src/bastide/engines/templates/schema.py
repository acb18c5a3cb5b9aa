"""Properties of resources, checked against the schemas that AWS publishes of its resource types.

`schemas.json` holds, a type a line, what is checked: `scripts/schemas.py` takes it out of cfn-lint's copy of the
CloudFormation registry. Scalars are converted as CloudFormation does it: "true" where a boolean is wanted, 5 where a
text is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson

from bastide.engines.templates.functions import NO_VALUE, Scope, Unknown, is_scalar, resolve, text
from bastide.protocol.patterns import matcher

_FILE: Final = Path(__file__).with_name("schemas.json")
_MOST_TOLD: Final = 5
_LONGEST_MATCHED: Final = 4096


class Later:
    """A value that is known only when another resource is there."""

    def __repr__(self) -> str:
        return "{{changeSet:KNOWN_AFTER_APPLY}}"


LATER: Final = Later()


def preview(value: Any, scope: Scope) -> Any:
    """A tree as far as it is known; LATER stands for the rest."""
    try:
        return resolve(value, scope)
    except Unknown:
        pass
    if isinstance(value, list):
        return [one for one in (preview(each, scope) for each in value) if one is not NO_VALUE]
    if isinstance(value, dict):
        name = next(iter(value)) if len(value) == 1 else ""
        if name == "Fn::If":
            chosen = value[name]
            return preview(chosen[1] if scope.condition(chosen[0]) else chosen[2], scope)
        if name == "Ref" or name.startswith("Fn::"):
            return LATER
        found = {key: preview(below, scope) for key, below in value.items()}
        return {key: one for key, one in found.items() if one is not NO_VALUE}
    return LATER


@cache
def _lines() -> dict[str, bytes]:
    found = {}
    for line in _FILE.read_bytes().splitlines():
        name, _, rest = line.partition(b"\t")
        found[name.decode()] = rest
    return found


@cache
def schema(type: str) -> Mapping[str, Any]:
    """What is published of a type; raises KeyError."""
    found: dict[str, Any] = orjson.loads(_lines()[type])
    return found


def has_schema(type: str) -> bool:
    """Whether something is published of the type."""
    return type in _lines()


def names(type: str, member: str) -> frozenset[str]:
    """Names of properties in one of a schema's lists of pointers, the outermost only: ``createOnlyProperties``."""
    pointers = schema(type).get(member, ())
    return frozenset(one.split("/")[2] for one in pointers if one.count("/") == 2)


def attributes(type: str) -> frozenset[str]:
    """What Fn::GetAtt may ask of a type, dots for inner members."""
    found = {one.removeprefix("/properties/").replace("/", ".") for one in schema(type).get("readOnlyProperties", ())}
    found |= {one.removeprefix("/properties/").replace("/", ".") for one in schema(type).get("primaryIdentifier", ())}
    return frozenset(found)


def tag_property(type: str) -> str:
    """The property that has the tags; empty if there is none."""
    return str(schema(type).get("tagProperty", "")).removeprefix("/properties/")


def checked(type: str, properties: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Properties with their scalars converted, and what is wrong with them, in words."""
    held = schema(type)
    read_only = names(type, "readOnlyProperties")
    faults = [f"#: Encountered unsupported property {name}" for name in sorted(read_only & set(properties))]
    found, more = _checked(properties, held, held.get("definitions", {}), "#", 0)
    return found, (faults + more)[:_MOST_TOLD]


_DEEPEST: Final = 60


def _checked(
    value: Any, shape: Mapping[str, Any], named: Mapping[str, Any], at: str, deep: int
) -> tuple[Any, list[str]]:
    if value is LATER:
        return value, []
    if deep > _DEEPEST:
        return value, [f"{at}: nested too deeply"]
    while "$ref" in shape:
        shape = named.get(shape["$ref"].rpartition("/")[2], {})
    value, fits = _converted(value, shape)
    if not fits:
        return value, [f"{at}: expected type: {_wanted(shape)}, found: {_kind(value)}"]
    faults: list[str] = []
    if isinstance(value, Mapping):
        value, faults = _structure(value, shape, named, at, deep)
    elif isinstance(value, list):
        inner = shape.get("items", {})
        parts = [_checked(one, inner, named, f"{at}/{number}", deep + 1) for number, one in enumerate(value)]
        value, faults = [one for one, _ in parts], [fault for _, told in parts for fault in told]
        if len(value) < shape.get("minItems", 0):
            faults.append(f"{at}: expected minimum item count: {shape['minItems']}, found: {len(value)}")
        if len(value) > shape.get("maxItems", len(value)):
            faults.append(f"{at}: expected maximum item count: {shape['maxItems']}, found: {len(value)}")
    else:
        faults = list(_scalar(value, shape, at))
    for choice in ("anyOf", "oneOf"):
        tried = [_checked(value, one, named, at, deep + 1) for one in shape.get(choice, ())]
        if tried and not any(not told for _, told in tried):
            faults += tried[0][1]
        elif tried and not faults:
            value = next(found for found, told in tried if not told)
    for one in shape.get("allOf", ()):
        value, told = _checked(value, one, named, at, deep + 1)
        faults += told
    return value, faults


def _structure(
    value: Mapping[str, Any], shape: Mapping[str, Any], named: Mapping[str, Any], at: str, deep: int
) -> tuple[Any, list[str]]:
    members = shape.get("properties", {})
    found: dict[str, Any] = {}
    faults: list[str] = []
    for name, one in value.items():
        if name in members:
            found[name], told = _checked(one, members[name], named, f"{at}/{name}", deep + 1)
            faults += told
            continue
        matching = [below for pattern, below in shape.get("patternProperties", {}).items() if _matches(pattern, name)]
        if matching:
            found[name], told = _checked(one, matching[0], named, f"{at}/{name}", deep + 1)
            faults += told
        elif shape.get("additionalProperties") is False:
            faults.append(f"{at}: extraneous key [{name[:128]}] is not permitted")
        else:
            found[name] = one
    faults += [f"{at}: required key [{name}] not found" for name in shape.get("required", ()) if name not in value]
    for name, needed in shape.get("dependentRequired", {}).items():
        if name in value:
            faults += [f"{at}: property [{other}] is required with [{name}]" for other in needed if other not in value]
    return found, faults


def _matches(pattern: str, value: str) -> bool:
    matches = _found(pattern)
    return matches is None or matches(value)


@cache
def _found(pattern: str) -> Any:
    """A schema's pattern is one of JSON Schema's, found anywhere; ours match the whole."""
    inner = pattern.removeprefix("^")
    whole = inner.removesuffix("$") if not inner.endswith("\\$") else inner
    before = "" if pattern.startswith("^") else "[\\s\\S]*"
    behind = "" if inner != whole else "[\\s\\S]*"
    if "|" in whole and (before or behind or inner != whole):
        whole = f"(?:{whole})"
        if pattern.startswith("^") and "|" in inner and not inner.startswith("("):
            return None  # ^a|b$: each branch has its own anchors
    return matcher(f"{before}{whole}{behind}")


def _converted(value: Any, shape: Mapping[str, Any]) -> tuple[Any, bool]:
    wanted = shape.get("type")
    if wanted is None:
        return value, True
    kinds = wanted if isinstance(wanted, list) else [wanted]
    kind = _kind(value)
    if kind in kinds or (kind == "integer" and "number" in kinds):
        return value, True
    if is_scalar(value):
        written = text(value)
        if "boolean" in kinds and written.lower() in ("true", "false"):
            return written.lower() == "true", True
        if "integer" in kinds and written.lstrip("-").isdecimal() and len(written) < 19:
            return int(written), True
        if "number" in kinds:
            try:
                return float(written), True
            except ValueError:
                pass
        if "string" in kinds:
            return written, True
    if "array" in kinds and is_scalar(value) and len(kinds) == 1 and shape.get("items", {}).get("type") == "string":
        return [text(value)], True
    if kind == "object" and "string" in kinds and shape.get("format") == "json":
        return orjson.dumps(value).decode(), True
    return value, False


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return "array"
    return "null" if value is None else "object"


def _wanted(shape: Mapping[str, Any]) -> str:
    wanted = shape["type"]
    return " or ".join(wanted) if isinstance(wanted, list) else str(wanted)


def _scalar(value: Any, shape: Mapping[str, Any], at: str) -> Iterator[str]:
    if "enum" in shape and value not in shape["enum"] and text(value) not in map(text, shape["enum"]):
        yield f"{at}: {_shown(value)} is not a valid enum value; valid are [{', '.join(map(text, shape['enum'][:30]))}]"
    if "const" in shape and value != shape["const"]:
        yield f"{at}: must be {shape['const']}"
    if isinstance(value, str) and "{{resolve:" not in value:
        if len(value) < shape.get("minLength", 0):
            yield f"{at}: expected minLength: {shape['minLength']}, actual: {len(value)}"
        if len(value) > shape.get("maxLength", len(value)):
            yield f"{at}: expected maxLength: {shape['maxLength']}, actual: {len(value)}"
        if "pattern" in shape and len(value) <= _LONGEST_MATCHED and not _matches(shape["pattern"], value):
            yield f"{at}: failed validation constraint for keyword [pattern] {shape['pattern'][:200]}"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if value < shape.get("minimum", value):
            yield f"{at}: {_shown(value)} is not greater or equal to {shape['minimum']}"
        if value > shape.get("maximum", value):
            yield f"{at}: {_shown(value)} is not less or equal to {shape['maximum']}"


def _shown(value: Any) -> str:
    return text(value)[:64]

"""Properties as they stand in templates, put into the shapes that an API's operations take.

Names match whatever their case, for templates write ``LogGroupName`` where Logs' API writes ``logGroupName``. Scalars are
converted, lists of tags become the map or the ``TagKey`` that an API wants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson

from bastide.domain import MICROS, Refused
from bastide.engines.templates import text
from bastide.protocol import codec


def shaped(service: str, operation: str, input: Mapping[str, Any]) -> dict[str, Any]:
    """The input of an operation; raises Refused for what the model does not know or allow."""
    held = codec(service).operations[operation]
    if held.input_shape is None:
        return {}
    given: dict[str, Any] = _shaped(held.input_shape, input, "")
    held.validate(given)
    return given


@cache
def _members(shape: Any) -> Mapping[str, str]:
    return {name.lower(): name for name in shape.members}


def _shaped(shape: Any, value: Any, at: str) -> Any:
    kind = shape.type_name
    if kind == "structure":
        if getattr(shape, "is_document_type", False):
            return value
        return _structure(shape, value, at)
    if kind == "list":
        if isinstance(value, Mapping) and _is_pair(shape.member):
            value = [{"Key": key, "Value": one} for key, one in value.items()]
        parts = value if isinstance(value, list | tuple) else [value]
        return [_shaped(shape.member, one, f"{at}[{number}]") for number, one in enumerate(parts)]
    if kind == "map":
        if isinstance(value, list) and all(isinstance(one, Mapping) and set(one) == {"Key", "Value"} for one in value):
            value = {one["Key"]: one["Value"] for one in value}
        if not isinstance(value, Mapping):
            raise _misfit(at, "a mapping")
        return {text(key): _shaped(shape.value, one, f"{at}.{key}") for key, one in value.items()}
    return _scalar(kind, value, at)


def _is_pair(shape: Any) -> bool:
    return shape.type_name == "structure" and {"key", "value"} <= set(_members(shape))


def _structure(shape: Any, value: Any, at: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _misfit(at, "a structure")
    members = _members(shape)
    if "tagkey" in members and set(value) == {"Key", "Value"}:
        value = {"TagKey": value["Key"], "TagValue": value["Value"]}
    found = {}
    for name, one in value.items():
        member = name if name in shape.members else members.get(name.lower())
        if member is None:
            raise Refused("ValidationError", f"Encountered unsupported property {at}{'.' if at else ''}{name[:128]}")
        if one is not None:
            found[member] = _shaped(shape.members[member], one, f"{at}{'.' if at else ''}{member}")
    return found


def _misfit(at: str, wanted: str) -> Refused:
    return Refused("ValidationError", f"Value of property {at} must be {wanted}.")


def _scalar(kind: str, value: Any, at: str) -> Any:
    if kind == "blob":
        return value if isinstance(value, bytes) else text(value).encode()
    if kind == "timestamp":
        return _time(value, at)
    if isinstance(value, Mapping | list):
        if kind == "string":
            return orjson.dumps(value).decode()  # a document, as a text
        raise _misfit(at, f"a {kind}")
    written = text(value)
    try:
        if kind == "boolean":
            return {"true": True, "false": False}[written.lower()]
        if kind in ("integer", "long"):
            number = float(written)
            if not number.is_integer():
                raise ValueError
            return int(number)
        if kind in ("float", "double", "bigdecimal"):
            return float(written)
    except (KeyError, ValueError, OverflowError):
        raise _misfit(at, f"a {kind}") from None
    return written


def _time(value: Any, at: str) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value * MICROS) if abs(value) < 1e11 else int(value)
    try:
        found = datetime.fromisoformat(re.sub(r"Z$", "+00:00", text(value)))
    except ValueError:
        raise _misfit(at, "a time") from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * MICROS)

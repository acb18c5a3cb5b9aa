"""Inputs that somebody writes down as JSON by the names of members, whatever protocol the operation speaks: what targets of
schedules are called with. Source: EventBridge Scheduler User Guide, "Using universal targets".
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from functools import cache
from typing import Any

from bastide.domain import MICROS, Refused
from bastide.protocol.codec import codec


def _wrong(where: str, what: str) -> Refused:
    return Refused("ValidationException", f"{where or 'The input'} {what}.")


def named(service: str, operation: str, value: Any) -> dict[str, Any]:
    """The input of an operation (botocore's names), checked against its model; raises ValidationException."""
    held = codec(service).operations[operation]
    given = _of(held.input_shape, value, "", 0) if held.input_shape is not None else {}
    held.validate(given)
    found: dict[str, Any] = given
    return found


def _of(shape: Any, value: Any, where: str, depth: int) -> Any:
    kind = shape.type_name
    if depth > 64:
        raise _wrong(where, "is nested too deeply")
    if kind == "structure":
        if getattr(shape, "is_document_type", False):
            return value
        if not isinstance(value, dict):
            raise _wrong(where, "must be an object")
        lower = {name[:1].lower() + name[1:]: name for name in shape.members}
        found = {}
        for key, one in value.items():
            name = key if key in shape.members else lower.get(key[:1].lower() + key[1:])
            if name is None:
                raise _wrong(where, f"has no member {key[:100]}")
            if one is not None:
                found[name] = _of(shape.members[name], one, f"{where}.{name}" if where else name, depth + 1)
        return found
    if kind == "list":
        if not isinstance(value, list):
            raise _wrong(where, "must be an array")
        return [_of(shape.member, one, where, depth + 1) for one in value]
    if kind == "map":
        if not isinstance(value, dict):
            raise _wrong(where, "must be an object")
        return {key: _of(shape.value, one, where, depth + 1) for key, one in value.items()}
    return _plain(shape, value, where)


def _plain(shape: Any, value: Any, where: str) -> Any:
    kind = shape.type_name
    if kind == "boolean":
        fits = isinstance(value, bool)
    elif kind in ("integer", "long"):
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif kind in ("float", "double"):
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    elif kind == "timestamp":
        return _moment(value, where)
    elif kind == "blob":
        return _bytes(value, where)
    else:
        fits = isinstance(value, str)
    if not fits:
        raise _wrong(where, f"must be of the type {kind}")
    return value


def _moment(value: Any, where: str) -> int:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e11:
        return int(value * MICROS)
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        raise _wrong(where, "must be a moment: seconds, or ISO 8601") from None
    return int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * MICROS)


def _bytes(value: Any, where: str) -> bytes:
    if not isinstance(value, str):
        raise _wrong(where, "must be text")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return value.encode("utf-8", "surrogatepass")


@cache
def _service_names(services: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for service in services:
        id = str(codec(service).model.metadata.get("serviceId") or service)
        found["".join(char for char in id.lower() if char.isalnum())] = service
    return found


def service_of(name: str, services: tuple[str, ...]) -> str | None:
    """botocore's name of a service that an ARN like ``arn:aws:scheduler:::aws-sdk:sfn:startExecution`` names."""
    return _service_names(services).get(name.lower())

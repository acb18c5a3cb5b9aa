"""Which messages a subscription wants. Source: Amazon SNS Developer Guide, "Amazon SNS subscription filter policies"."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.kernel.pattern import Pattern

_MOST_BYTES: Final = 262_144
_MOST_KEYS: Final = 5
_MOST_COMBINATIONS: Final = 150
BODY: Final = "MessageBody"


def _wrong(text: str) -> Refused:
    return Refused("InvalidParameter", f"Invalid parameter: FilterPolicy: {text}")


def _measure(held: Mapping[str, Any], depth: int) -> tuple[int, int]:
    """Number of keys, and of combinations: the values of a key count once for each level that they stand below."""
    keys, combinations = 0, 1
    for name, value in held.items():
        if name == "$or":
            for one in value:
                inner_keys, inner = _measure(one, depth)
                keys += inner_keys
                combinations *= inner
        elif isinstance(value, dict):
            inner_keys, inner = _measure(value, depth + 1)
            keys += inner_keys
            combinations *= inner
        else:
            keys += 1
            combinations *= len(value) * depth
    return keys, combinations


def checked(text: str, scope: str) -> None:
    """Raises InvalidParameter for what is no filter policy of that scope."""
    try:
        held = Pattern(text, most_bytes=_MOST_BYTES).fields
    except Refused as refused:
        why = refused.message.removeprefix("Event pattern is not valid. Reason: ")
        raise _wrong(why.replace("it is no JSON:", "failed to parse JSON.")) from None
    if scope != BODY and any(isinstance(value, dict) for value in held.values()):
        raise Refused(
            "InvalidParameter",
            "Invalid parameter: Filter policy scope MessageAttributes does not support nested filter policy",
        )
    keys, combinations = _measure(held, 1)
    if keys > _MOST_KEYS:
        raise _wrong(f"Filter policy can not have more than {_MOST_KEYS} keys")
    if combinations > _MOST_COMBINATIONS:
        raise _wrong(f"Filter policy is too complex: more than {_MOST_COMBINATIONS} combinations")


@lru_cache(4096)
def _pattern(text: str) -> Pattern:
    return Pattern(text, most_bytes=_MOST_BYTES)


def wants(text: str, scope: str, message: str, attributes: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a message is wanted under a checked filter policy."""
    if scope == BODY:
        try:
            event = orjson.loads(message)
        except orjson.JSONDecodeError:
            return False
        return isinstance(event, dict) and _pattern(text).matches(event)
    return _pattern(text).matches({name: _value(one) for name, one in attributes.items()})


def _value(one: Mapping[str, Any]) -> Any:
    kind, text = str(one["DataType"]), one.get("StringValue")
    if kind.startswith("Number"):
        number = float(str(text))
        return int(number) if number.is_integer() else number
    if kind.startswith("String.Array"):
        try:
            return orjson.loads(str(text))
        except orjson.JSONDecodeError:
            return text
    return text if text is not None else {}

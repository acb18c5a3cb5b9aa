"""Scalars written as text: in XML elements, form fields, headers, query strings and labels."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from bastide.protocol import times
from bastide.protocol.head import Malformed
from bastide.protocol.values import BITS, from_base64, to_base64

TextReader = Callable[[str], Any]
TextWriter = Callable[[Any], str]

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_FLOAT = re.compile(r"[+-]?([0-9]{1,400}(\.[0-9]{0,400})?|\.[0-9]{1,400})([eE][+-]?[0-9]{1,4})?")
_NAMED = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def _integer(limit: int, wanted: str) -> TextReader:
    def read(text: str) -> int:
        if _INTEGER.fullmatch(text) is None:
            raise Malformed(f"STRING_VALUE cannot be converted to {wanted}")
        value = int(text)
        if -limit <= value < limit:
            return value
        raise Malformed(f"NUMBER_VALUE is out of the range of {wanted}")

    return read


def _float(text: str) -> float:
    if text in _NAMED:
        return _NAMED[text]
    if _FLOAT.fullmatch(text) is None:
        raise Malformed("STRING_VALUE cannot be converted to Double")
    value = float(text)
    if value - value != 0:
        raise Malformed("NUMBER_VALUE is out of the range of Double")
    return value


def _boolean(text: str) -> bool:
    if text == "true":
        return True
    if text == "false":
        return False
    lowered = text.lower()
    if lowered not in ("true", "false"):
        raise Malformed("STRING_VALUE cannot be converted to Boolean")
    return lowered == "true"


def _string(text: str) -> str:
    return text


def reader(shape: Any, time_form: str) -> TextReader:
    """Reads a scalar shape; `time_form` where the model names none. Raises Malformed."""
    kind = shape.type_name
    if kind in ("string", "character"):
        return _string
    if kind == "boolean":
        return _boolean
    if kind in BITS:
        return _integer(BITS[kind], kind.capitalize())
    if kind in ("float", "double"):
        return _float
    if kind == "blob":
        return from_base64
    if kind == "timestamp":
        return times.TEXT_READERS[times.form(shape, time_form)]
    raise NotImplementedError(f"shape type {kind} as text")


def _write_boolean(value: Any) -> str:
    return "true" if value else "false"


def _write_float(value: Any) -> str:
    if math.isnan(value):
        return "NaN"
    if value in (_NAMED["Infinity"], _NAMED["-Infinity"]):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value)


def writer(shape: Any, time_form: str) -> TextWriter | None:
    """Writes a scalar shape as text; None where the value is text already."""
    kind = shape.type_name
    if kind in ("string", "character"):
        return None
    if kind == "boolean":
        return _write_boolean
    if kind in BITS:
        return str
    if kind in ("float", "double"):
        return _write_float
    if kind == "blob":
        return to_base64
    if kind == "timestamp":
        return times.TEXT_WRITERS[times.form(shape, time_form)]
    raise NotImplementedError(f"shape type {kind} as text")

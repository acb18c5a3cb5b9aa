"""Shapes to and from trees of plain values: what JSON and CBOR share.

Readers turn a decoded tree into what handlers see and check its types on the way; writers go back. Both are closures
made once per shape; a structure's table is made when it is first met, so that recursive shapes end.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable
from typing import Any

import cbor2

from bastide.protocol import times
from bastide.protocol.cbor import Epoch
from bastide.protocol.head import Malformed

Reader = Callable[[Any], Any]
Writer = Callable[[Any], Any]

_INFINITY = float("inf")
_FLOATS = {"NaN": float("nan"), "Infinity": _INFINITY, "-Infinity": -_INFINITY}
BITS = {"integer": 1 << 31, "long": 1 << 63}
_EXACT: dict[str, type] = {"string": str, "character": str, "boolean": bool}
_FOUND = {
    str: "STRING_VALUE",
    bool: "BOOLEAN_VALUE",
    int: "NUMBER_VALUE",
    float: "NUMBER_VALUE",
    bytes: "BINARY_VALUE",
    Epoch: "TIMESTAMP_VALUE",
    type(None): "NULL_VALUE",
}


def _misfit(value: Any, wanted: str) -> Malformed:
    kind = type(value)
    if value is True:
        return Malformed(f"TRUE_VALUE cannot be converted to {wanted}")
    if value is False:
        return Malformed(f"FALSE_VALUE cannot be converted to {wanted}")
    if kind is dict:
        return Malformed("Start of structure or map found where not expected.")
    if kind is list:
        return Malformed("Start of list found where not expected")
    return Malformed(f"{_FOUND.get(kind, 'VALUE')} cannot be converted to {wanted}")


def read_string(value: Any) -> str:
    """Text as it is."""
    if type(value) is str:
        return value
    raise _misfit(value, "String")


def read_boolean(value: Any) -> bool:
    """A JSON or CBOR boolean, nothing that resembles one."""
    if type(value) is bool:
        return value
    raise _misfit(value, "Boolean")


def integer_reader(limit: int, wanted: str) -> Reader:
    """Reads whole numbers in [-limit, limit)."""

    def read(value: Any) -> int:
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int:
            raise _misfit(value, wanted)
        if -limit <= value < limit:
            return value
        raise Malformed(f"NUMBER_VALUE is out of the range of {wanted}")

    return read


def _read_json_float(value: Any) -> float:
    kind = type(value)
    if kind is float or kind is int:
        return value  # type: ignore[no-any-return]
    if kind is str and value in _FLOATS:
        return _FLOATS[value]
    raise _misfit(value, "Double")


def _read_cbor_float(value: Any) -> float:
    kind = type(value)
    if kind is float or kind is int:
        return value  # type: ignore[no-any-return]
    raise _misfit(value, "Double")


def from_base64(text: str) -> bytes:
    """The bytes of standard base64 (RFC 4648 section 4), padding and all."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("Invalid base64 in a blob") from None


def _read_json_blob(value: Any) -> bytes:
    if type(value) is not str:
        raise _misfit(value, "Blob")
    return from_base64(value)


def _read_cbor_blob(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    raise _misfit(value, "Blob")


def _read_json_seconds(value: Any) -> int:
    kind = type(value)
    if kind is int or kind is float:
        return times.from_seconds(value)
    raise _misfit(value, "Timestamp")


def _read_cbor_time(value: Any) -> int:
    if type(value) is Epoch:
        return times.from_seconds(value.seconds)
    raise _misfit(value, "Timestamp")


def _text_time(read: Callable[[str], int]) -> Reader:
    def text_time(value: Any) -> int:
        if type(value) is not str:
            raise _misfit(value, "Timestamp")
        return read(value)

    return text_time


class ValueReaders:
    """Makes and keeps the readers of one service. `binary`: blobs, times and floats as CBOR has them, else as JSON."""

    def __init__(self, *, binary: bool) -> None:
        self._binary = binary
        self._structures: dict[str, Reader] = {}
        self._integers = {kind: integer_reader(limit, kind.capitalize()) for kind, limit in BITS.items()}

    def of(self, shape: Any) -> Reader:
        """A reader of `shape`; it raises Malformed for values of another type."""
        kind = shape.type_name
        if kind == "structure":
            return self._structure(shape)
        if kind == "list":
            return self._list(shape)
        if kind == "map":
            return self._map(shape)
        if kind in ("string", "character"):
            return read_string
        if kind == "boolean":
            return read_boolean
        if kind in BITS:
            return self._integers[kind]
        if kind in ("float", "double"):
            return _read_cbor_float if self._binary else _read_json_float
        if kind == "blob":
            return _read_cbor_blob if self._binary else _read_json_blob
        if kind == "timestamp":
            if self._binary:
                return _read_cbor_time
            form = times.form(shape, "unixtimestamp")
            return _read_json_seconds if form == "unixtimestamp" else _text_time(times.TEXT_READERS[form])
        raise NotImplementedError(f"shape type {kind}")

    def _structure(self, shape: Any) -> Reader:
        found = self._structures.get(shape.name)
        if found is not None:
            return found
        if shape.is_document_type:
            return _as_it_is
        table: dict[str, tuple[str, type | None, Reader]] = {}
        built = False
        union = shape.is_tagged_union

        def build() -> None:
            nonlocal built
            for name, below in shape.members.items():
                wire = name if self._binary else below.serialization.get("name", name)
                table[wire] = (name, _EXACT.get(below.type_name), self.of(below))
            built = True

        def read(value: Any) -> dict[str, Any]:
            if type(value) is not dict:
                raise Malformed("Start of structure expected")
            if not built:
                build()
            out: dict[str, Any] = {}
            for wire, one in value.items():
                if one is None:
                    continue
                entry = table.get(wire)
                if entry is not None:
                    name, exact, below = entry
                    out[name] = one if type(one) is exact else below(one)
            if union and len(out) > 1:
                raise Malformed("A union must have exactly one member set")
            return out

        self._structures[shape.name] = read
        return read

    def _list(self, shape: Any) -> Reader:
        held: Reader | None = None

        def read(value: Any) -> list[Any]:
            nonlocal held
            if type(value) is not list:
                raise Malformed("Expected list or null")
            if held is None:
                held = self.of(shape.member)
            below = held
            return [None if one is None else below(one) for one in value]

        return read

    def _map(self, shape: Any) -> Reader:
        held: Reader | None = None

        def read(value: Any) -> dict[str, Any]:
            nonlocal held
            if type(value) is not dict:
                raise Malformed("Expected map or null")
            if held is None:
                held = self.of(shape.value)
            below = held
            return {key: None if one is None else below(one) for key, one in value.items()}

        return read


def _as_it_is(value: Any) -> Any:
    return value


def _write_json_float(value: float) -> Any:
    if math.isnan(value):
        return "NaN"
    if value == _INFINITY:
        return "Infinity"
    if value == -_INFINITY:
        return "-Infinity"
    return value


def to_base64(value: bytes | str) -> str:
    """Standard base64 text."""
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def _write_cbor_time(at: int) -> Any:
    return cbor2.CBORTag(1, times.to_seconds(at))


def _write_cbor_blob(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


class ValueWriters:
    """Makes and keeps the writers of one service; a writer of None means that a value goes as it is."""

    def __init__(self, *, binary: bool) -> None:
        self._binary = binary
        self._structures: dict[str, Writer] = {}

    def of(self, shape: Any) -> Writer | None:
        """A writer of `shape`; it raises ValueError for members that the model does not know."""
        kind = shape.type_name
        if kind == "structure":
            return self.structure(shape)
        if kind == "list":
            return self._list(shape)
        if kind == "map":
            return self._map(shape)
        if kind == "blob":
            return _write_cbor_blob if self._binary else to_base64
        if kind == "timestamp":
            if self._binary:
                return _write_cbor_time
            form = times.form(shape, "unixtimestamp")
            return times.to_seconds if form == "unixtimestamp" else times.TEXT_WRITERS[form]
        if kind in ("float", "double") and not self._binary:
            return _write_json_float
        return None

    def structure(self, shape: Any) -> Writer:
        """A writer of a structure shape."""
        found = self._structures.get(shape.name)
        if found is not None:
            return found
        if shape.is_document_type:
            return _as_it_is
        table: dict[str, tuple[str, Writer | None]] = {}
        built = False

        def build() -> None:
            nonlocal built
            for name, below in shape.members.items():
                wire = name if self._binary else below.serialization.get("name", name)
                table[name] = (wire, self.of(below))
            built = True

        def write(value: Any) -> dict[str, Any]:
            if not built:
                build()
            out: dict[str, Any] = {}
            for name, one in value.items():
                if one is None:
                    continue
                entry = table.get(name)
                if entry is None:
                    raise ValueError(f"{shape.name} has no member {name}")
                wire, below = entry
                out[wire] = one if below is None else below(one)
            return out

        self._structures[shape.name] = write
        return write

    def _list(self, shape: Any) -> Writer:
        held: list[Writer | None] = []

        def write(value: Any) -> list[Any]:
            if not held:
                held.append(self.of(shape.member))
            below = held[0]
            if below is None:
                return list(value)
            return [None if one is None else below(one) for one in value]

        return write

    def _map(self, shape: Any) -> Writer:
        held: list[Writer | None] = []

        def write(value: Any) -> dict[str, Any]:
            if not held:
                held.append(self.of(shape.value))
            below = held[0]
            if below is None:
                return dict(value)
            return {key: None if one is None else below(one) for key, one in value.items()}

        return write

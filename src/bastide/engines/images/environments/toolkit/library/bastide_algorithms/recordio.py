"""``application/x-recordio-protobuf``: records of tensors, framed.

The frame is MXNet's RecordIO: the number 0xced7230a, a word whose three highest bits say whether the record is whole (0),
its beginning (1), middle (2) or end (3), and whose others are its length, then the bytes, padded to four. The record is
the message ``aialgs.data.Record`` of the SageMaker SDK, in Protocol Buffers' wire format: maps ``features`` (1) and
``label`` (2) from a name to a value that is a tensor of float32 (2), float64 (3) or int32 (7), each with values (1), keys
(2, of a sparse tensor) and shape (3).

Sources: SageMaker developer guide, "Common data formats for training"; protobuf.dev, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bastide_algorithms import Unfit

MAGIC = 0xCED7230A
_KINDS = {2: np.dtype("<f4"), 3: np.dtype("<f8"), 7: np.dtype("<i4")}
_MOST_COLUMNS = 100_000_000


@dataclass(frozen=True)
class Tensor:
    """values: the numbers. keys: their places where it is sparse, else None. shape: as told, may be empty."""

    values: np.ndarray[Any, Any]
    keys: np.ndarray[Any, Any] | None = None
    shape: tuple[int, ...] = ()

    def width(self) -> int:
        """How many columns it spans."""
        if self.shape:
            return self.shape[-1]
        return len(self.values) if self.keys is None else int(self.keys.max(initial=-1)) + 1


@dataclass(frozen=True)
class Record:
    """One example."""

    features: Mapping[str, Tensor]
    label: Mapping[str, Tensor]


def frames(data: bytes) -> Iterator[bytes]:
    """The records' bytes. Raises Unfit for what is no RecordIO."""
    at, parts = 0, bytearray()
    begun = False
    while at < len(data):
        if len(data) - at < 8:
            raise Unfit("RecordIO: the data ends within a record's head")
        magic, word = struct.unpack_from("<II", data, at)
        if magic != MAGIC:
            raise Unfit("RecordIO: a record does not begin with its magic number")
        kind, length = word >> 29, word & 0x1FFFFFFF
        at += 8
        if len(data) - at < length:
            raise Unfit("RecordIO: the data ends within a record")
        piece = data[at : at + length]
        at += (length + 3) // 4 * 4
        if (kind in (0, 1) and begun) or (kind in (2, 3) and not begun) or kind > 3:
            raise Unfit("RecordIO: the parts of a record are out of order")
        if kind == 0:
            yield piece
            continue
        if begun:
            parts += struct.pack("<I", MAGIC)  # the writer split the record where this number occurred in it
        parts += piece
        begun = kind != 3
        if not begun:
            yield bytes(parts)
            parts.clear()
    if begun:
        raise Unfit("RecordIO: the last record has no end")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    found = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return found & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
    raise Unfit("protobuf: a number does not end")


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and content of each field."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise Unfit("protobuf: there is no field 0")
        content: Any
        if wire == 0:
            content, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            content = data[at : at + size]
            at += size
        elif wire == 2:
            size, at = _varint(data, at)
            content = data[at : at + size]
            at += size
        else:
            raise Unfit(f"protobuf: wire type {wire} is not used here")
        if at > len(data):
            raise Unfit("protobuf: a field ends after its message")
        yield number, wire, content


def _numbers(wire: int, content: Any) -> list[int]:
    if wire == 0:
        return [content]
    if wire != 2:
        raise Unfit("protobuf: a list of whole numbers is expected")
    found, at = [], 0
    while at < len(content):
        one, at = _varint(content, at)
        found.append(one)
    return found


def _tensor(data: bytes, kind: np.dtype[Any]) -> Tensor:
    values, keys, shape = [], [], []
    for number, wire, content in _fields(data):
        if number == 1 and kind.kind == "i":
            values.append(np.array(_numbers(wire, content), np.uint64).astype(np.int64).astype(np.int32))
        elif number == 1:
            if wire not in (2, 5 if kind.itemsize == 4 else 1) or len(content) % kind.itemsize:
                raise Unfit("protobuf: the values of a tensor are not whole")
            values.append(np.frombuffer(content, kind))
        elif number == 2:
            keys += _numbers(wire, content)
        elif number == 3:
            shape += _numbers(wire, content)
    found = np.concatenate(values) if values else np.empty(0, kind)
    if keys and len(keys) != len(found):
        raise Unfit("a sparse tensor has as many keys as values")
    if any(one > _MOST_COLUMNS for one in (*keys, *shape)):
        raise Unfit(f"a tensor has more than {_MOST_COLUMNS} columns")
    if keys and shape and max(keys) >= shape[-1]:
        raise Unfit("a sparse tensor has keys beyond its shape")
    sparse = bool(keys) or (bool(shape) and not len(found) and shape[-1] > 0)
    if not sparse and shape and int(np.prod(shape, dtype=object)) != len(found):
        raise Unfit("a tensor has not as many values as its shape says")
    return Tensor(found, np.array(keys, np.int64) if sparse else None, tuple(shape))


def _entry(data: bytes) -> tuple[str, Tensor | None]:
    name, tensor = "", None
    for number, wire, content in _fields(data):
        if number == 1 and wire == 2:
            name = content.decode("utf-8", "replace")
        elif number == 2 and wire == 2:
            for kind, inner, body in _fields(content):
                if kind in _KINDS and inner == 2:
                    tensor = _tensor(body, _KINDS[kind])
    return name, tensor


def read(data: bytes) -> Iterator[Record]:
    """The records. Raises Unfit."""
    for frame in frames(data):
        maps: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
        for number, wire, content in _fields(frame):
            if number in (1, 2) and wire == 2:
                name, tensor = _entry(content)
                if tensor is not None:
                    maps[number - 1][name] = tensor
        yield Record(*maps)


def _encoded(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, content: bytes) -> bytes:
    return _encoded(number << 3 | 2) + _encoded(len(content)) + content


def write(features: Mapping[str, Any], label: Mapping[str, Any]) -> bytes:
    """One framed record of float32 tensors. A value is a list of numbers, or a Tensor."""
    body = b""
    for number, entries in ((1, features), (2, label)):
        for name, given in entries.items():
            tensor = given if isinstance(given, Tensor) else Tensor(np.atleast_1d(np.asarray(given)))
            packed = _field(1, tensor.values.astype("<f4").tobytes())
            if tensor.keys is not None:
                packed += _field(2, b"".join(_encoded(int(one)) for one in tensor.keys))
            if tensor.shape:
                packed += _field(3, b"".join(_encoded(one) for one in tensor.shape))
            body += _field(number, _field(1, name.encode()) + _field(2, _field(2, packed)))
    return struct.pack("<II", MAGIC, len(body)) + body + b"\0" * (-len(body) % 4)

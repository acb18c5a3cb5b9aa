"""How tensors lie in files: the layout that AWS's library smdebug 1.0 reads and writes.

``events/STEP/STEP_WORKER.tfevents`` holds records of TensorFlow's TFRecord, each an `Event` with one named tensor;
``index/NNN/STEP_WORKER.json`` says where in it each tensor lies, and ``collections/000000000/WORKER_collections.json``
which tensors belong together. STEP has twelve digits. Little is needed of Protocol Buffers, so it stands here.

Source: smdebug 1.0.34 (its trials read what is written here); TensorFlow's event.proto, summary.proto and tensor.proto.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

MODES = {"TRAIN": 1, "EVAL": 2, "PREDICT": 3, "GLOBAL": 4}
_TYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "int64": 9, "bool": 10}
_TYPES |= {"uint16": 17, "float16": 19, "uint32": 22, "uint64": 23}
_NAMES = {number: name for name, number in _TYPES.items()}
_INSTEAD_OF_THE_RECORD = b"0x12345678"
"""What smdebug's checksum of a record is about, and its reader expects."""


class Broken(ValueError):  # noqa: N818
    """These bytes are not of the layout."""


def _table() -> list[int]:
    found = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return found


_TABLE = _table()


def _checksum(data: bytes) -> bytes:
    """TFRecord's: CRC-32C, rotated and shifted."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    value ^= 0xFFFFFFFF
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


_FOOTER = _checksum(_INSTEAD_OF_THE_RECORD)


def _number(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def _field(number: int, value: int | float | bytes) -> bytes:
    if isinstance(value, float):
        return _number(number << 3 | 1) + struct.pack("<d", value)
    if isinstance(value, int):
        return _number(number << 3) + _number(value)
    return _number(number << 3 | 2) + _number(len(value)) + value


def record(name: str, value: Any, step: int, mode: str, mode_step: int) -> bytes:
    """A tensor's record."""
    array = np.asarray(value)
    if array.dtype.name not in _TYPES:
        array = array.astype(np.float64)
    array = np.ascontiguousarray(array).reshape(array.shape)
    sizes = b"".join(_field(2, _field(1, size) + _field(2, f"{name}_{size}".encode())) for size in array.shape)
    content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    tensor = _field(1, _TYPES[array.dtype.name]) + _field(2, sizes) + _field(4, content)
    told = {"mode_step": str(mode_step), "mode": str(MODES[mode])}
    metadata = b"".join(_field(1, _field(1, key.encode()) + _field(2, text.encode())) for key, text in told.items())
    summary = _field(1, _field(1, name.encode()) + _field(9, metadata) + _field(8, tensor))
    event = _field(1, time.time()) + _field(2, step) + _field(5, summary)
    length = struct.pack("<Q", len(event))
    return length + _checksum(length) + event + _FOOTER


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a message; raises Broken."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(data) or shift > 63:
                raise Broken("a number does not end")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < len(data):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
            continue
        size = number() if kind == 2 else {1: 8, 5: 4}.get(kind, -1)
        if size < 0 or at + size > len(data):
            raise Broken("a field does not end")
        yield key >> 3, data[at : at + size]
        at += size


def _parts(data: Any, number: int) -> list[Any]:
    if not isinstance(data, bytes):
        raise Broken("a message is a number")
    return [value for found, value in _fields(data) if found == number]


def tensor(data: bytes) -> Any:
    """The array of a record; raises Broken. Its checksums are not looked at: what is read has been read whole."""
    if len(data) < 16:
        raise Broken("a record is too short")
    length = struct.unpack("<Q", data[:8])[0]
    if length != len(data) - 16:
        raise Broken("a record has another length")
    found = [one for summary in _parts(data[12:-4], 5) for value in _parts(summary, 1) for one in _parts(value, 8)]
    if len(found) != 1:
        raise Broken("a record has no tensor")
    name = _NAMES.get((_parts(found[0], 1) or [0])[0], "")
    content = b"".join(_parts(found[0], 4))
    shape = [(_parts(one, 1) or [0])[0] for sizes in _parts(found[0], 2) for one in _parts(sizes, 2)]
    if not name:
        raise Broken("a tensor is not of numbers")
    try:
        return np.frombuffer(content, np.dtype(name).newbyteorder("<")).reshape(shape)
    except (ValueError, TypeError, OverflowError):
        raise Broken("a tensor's content is not of its shape") from None

"""CBOR (RFC 8949) as far as Smithy's rpc-v2-cbor uses it, read strictly.

A general decoder also follows tags that build dates, regular expressions and shared references out of a stranger's
bytes. This one knows one tag, 1, and answers `Malformed` for every other.
"""

from __future__ import annotations

import struct
from typing import Any

from bastide.protocol.head import Malformed

_DEEPEST = 128
_BREAK = object()
_HALF = struct.Struct(">e")
_SINGLE = struct.Struct(">f")
_DOUBLE = struct.Struct(">d")


class Epoch:
    """A number under tag 1: seconds since 1970."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: int | float) -> None:
        self.seconds = seconds


def loads(data: bytes) -> Any:
    """The one item that `data` holds: None, bool, int, float, str, bytes, list, dict with text keys, Epoch.

    Raises Malformed for anything truncated, trailing, too deep, or outside the protocol.
    """
    value, at = _item(data, 0, 0)
    if at != len(data) or value is _BREAK:
        raise Malformed("Unexpected bytes after the end of the CBOR item")
    return value


def _number(data: bytes, at: int, low: int) -> tuple[int, int]:
    if low < 24:
        return low, at
    if low > 27:
        raise Malformed("Invalid CBOR length")
    size = 1 << (low - 24)
    end = at + size
    if end > len(data):
        raise Malformed("Unexpected end of CBOR data")
    return int.from_bytes(data[at:end], "big"), end


def _string(data: bytes, at: int, low: int, major: int) -> tuple[bytes, int]:
    if low == 31:
        pieces: list[bytes] = []
        while True:
            if at >= len(data):
                raise Malformed("Unexpected end of CBOR data")
            first = data[at]
            at += 1
            if first == 0xFF:
                return b"".join(pieces), at
            if first >> 5 != major or first & 31 == 31:
                raise Malformed("Invalid piece of an indefinite CBOR string")
            piece, at = _string(data, at, first & 31, major)
            pieces.append(piece)
    length, at = _number(data, at, low)
    end = at + length
    if end > len(data):
        raise Malformed("Unexpected end of CBOR data")
    return data[at:end], end


def _item(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if at >= len(data):
        raise Malformed("Unexpected end of CBOR data")
    first = data[at]
    at += 1
    major, low = first >> 5, first & 31
    if major == 3:
        raw, at = _string(data, at, low, 3)
        try:
            return raw.decode(), at
        except UnicodeDecodeError:
            raise Malformed("CBOR text is not UTF-8") from None
    if major == 0:
        return _number(data, at, low)
    if major == 5:
        return _map(data, at, low, depth + 1)
    if major == 4:
        return _list(data, at, low, depth + 1)
    if major == 7:
        return _simple(data, at, low)
    if major == 1:
        value, at = _number(data, at, low)
        return -1 - value, at
    if major == 2:
        return _string(data, at, low, 2)
    tag, at = _number(data, at, low)
    if tag != 1 or depth > _DEEPEST:
        raise Malformed("CBOR tag that the protocol does not have")
    value, at = _item(data, at, depth + 1)
    if type(value) is not int and type(value) is not float:
        raise Malformed("A CBOR timestamp must be a number")
    return Epoch(value), at


def _simple(data: bytes, at: int, low: int) -> tuple[Any, int]:
    if low == 20:
        return False, at
    if low == 21:
        return True, at
    if low in (22, 23):
        return None, at
    if low == 31:
        return _BREAK, at
    kind = {25: _HALF, 26: _SINGLE, 27: _DOUBLE}.get(low)
    if kind is None:
        raise Malformed("CBOR simple value that the protocol does not have")
    if at + kind.size > len(data):
        raise Malformed("Unexpected end of CBOR data")
    return kind.unpack_from(data, at)[0], at + kind.size


def _list(data: bytes, at: int, low: int, depth: int) -> tuple[list[Any], int]:
    if depth > _DEEPEST:
        raise Malformed("CBOR is nested too deeply")
    found: list[Any] = []
    if low == 31:
        while True:
            value, at = _item(data, at, depth)
            if value is _BREAK:
                return found, at
            found.append(value)
    length, at = _number(data, at, low)
    if length > len(data) - at:
        raise Malformed("Unexpected end of CBOR data")
    for _ in range(length):
        value, at = _item(data, at, depth)
        if value is _BREAK:
            raise Malformed("Unexpected CBOR break")
        found.append(value)
    return found, at


def _map(data: bytes, at: int, low: int, depth: int) -> tuple[dict[str, Any], int]:
    if depth > _DEEPEST:
        raise Malformed("CBOR is nested too deeply")
    found: dict[str, Any] = {}
    left = -1
    if low != 31:
        left, at = _number(data, at, low)
        if left * 2 > len(data) - at:
            raise Malformed("Unexpected end of CBOR data")
    while left:
        key, at = _item(data, at, depth)
        if key is _BREAK and left < 0:
            return found, at
        if type(key) is not str:
            raise Malformed("A CBOR map key must be text")
        value, at = _item(data, at, depth)
        if value is _BREAK:
            raise Malformed("Unexpected CBOR break")
        found[key] = value
        left -= 1
    return found, at

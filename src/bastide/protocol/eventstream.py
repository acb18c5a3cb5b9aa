"""Messages of ``application/vnd.amazon.eventstream``, as answers stream them.

Source: Smithy, "Amazon Event Stream Specification": prelude (total length, length of the headers, CRC-32 of both), headers,
payload, CRC-32 of all.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

_STRING = 7


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message."""
    told = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", _STRING, len(value)) + value
        for name, value in ((name, text.encode()[:65535]) for name, text in headers.items())
    )
    prelude = struct.pack(">II", 16 + len(told) + len(payload), len(told))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + told + payload
    return whole + struct.pack(">I", zlib.crc32(whole))


def event(kind: str, payload: bytes) -> bytes:
    """An event whose payload is bytes."""
    headers = {":message-type": "event", ":event-type": kind, ":content-type": "application/octet-stream"}
    return message(headers, payload)


def exception(kind: str, payload: bytes) -> bytes:
    """A modelled exception, with its members as JSON."""
    headers = {":message-type": "exception", ":exception-type": kind, ":content-type": "application/json"}
    return message(headers, payload)

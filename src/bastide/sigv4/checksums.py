"""Checksums of S3 bodies: ``Content-MD5`` and ``x-amz-checksum-*``, in headers or trailers.

Source: Amazon S3 User Guide, "Checking object integrity".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from awscrt import checksums as crt

from bastide.domain import Refused


class _Sum(Protocol):
    def update(self, data: bytes) -> None: ...

    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class _Crc32c:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = crt.crc32c(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class _Crc64Nvme:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = crt.crc64nvme(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(8, "big")


def _new(algorithm: str) -> _Sum:
    if algorithm == "crc32":
        return _Crc32()
    if algorithm == "crc32c":
        return _Crc32c()
    if algorithm == "crc64nvme":
        return _Crc64Nvme()
    return hashlib.new(algorithm, usedforsecurity=False)


def digest(algorithm: str, data: bytes) -> bytes:
    """The checksum of `data`: crc32, crc32c, crc64nvme, sha1 or sha256."""
    one = _new(algorithm)
    one.update(data)
    return one.digest()


_POLYNOMIALS = {"crc32": (0xEDB88320, 32), "crc32c": (0x82F63B78, 32), "crc64nvme": (0x9A6C9329AC4BC9B5, 64)}


class Sum:
    """The checksum of a stream that passes."""

    def __init__(self, algorithm: str) -> None:
        self._sum = _new(algorithm)

    async def passing(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The stream, as it is."""
        async for chunk in chunks:
            self._sum.update(chunk)
            yield chunk

    @property
    def value(self) -> str:
        """Base64, once the stream is over."""
        return base64.b64encode(self._sum.digest()).decode()


def _times(one: int, other: int, polynomial: int, bits: int) -> int:
    """The product of two polynomials over GF(2) modulo a CRC's, bits reflected."""
    product = 0
    top = 1 << (bits - 1)
    while one:
        if one & top:
            product ^= other
        one = (one << 1) & ((1 << bits) - 1)
        other = (other >> 1) ^ (polynomial if other & 1 else 0)
    return product


def combined(algorithm: str, parts: Sequence[tuple[bytes, int]]) -> bytes:
    """The CRC (crc32, crc32c or crc64nvme) of all parts together, each given by its CRC and its length: each step moves the
    CRC so far along by the next part's length."""
    polynomial, bits = _POLYNOMIALS[algorithm]
    total = 0
    for crc, size in parts:
        length = size
        shift = 1 << (bits - 1)
        square = 1 << (bits - 9)  # x^8: one byte
        while length:
            if length & 1:
                shift = _times(shift, square, polynomial, bits)
            square = _times(square, square, polynomial, bits)
            length >>= 1
        total = _times(total, shift, polynomial, bits) ^ int.from_bytes(crc, "big")
    return total.to_bytes(bits // 8, "big")


_SIZES = {"crc32": 4, "crc32c": 4, "crc64nvme": 8, "sha1": 20, "sha256": 32}
_PREFIX = "x-amz-checksum-"
_NO_SUM = frozenset({_PREFIX + "mode", _PREFIX + "type", _PREFIX + "algorithm"})


class Checksums:
    """Checksums that a request asks to be verified, computed while its body passes."""

    def __init__(self, named: Mapping[str, str]) -> None:
        """named: headers by lower-case name. Raises Refused for a checksum that cannot be one."""
        self._sums: dict[str, _Sum] = {}
        self._wanted: dict[str, bytes] = {}
        self._values: dict[str, str] = {}
        for algorithm in _SIZES:
            given = named.get(_PREFIX + algorithm)
            if given is not None:
                self._want(algorithm, given)
        twice = False
        for name in named:
            if name.startswith(_PREFIX) and name not in _NO_SUM and name.removeprefix(_PREFIX) not in _SIZES:
                # What cannot be verified must not be taken for verified.
                raise Refused("InvalidRequest", f"The checksum of {name} is not one that Bastide computes.", 400)
        for trailer in named.get("x-amz-trailer", "").lower().split(","):
            algorithm = trailer.strip().removeprefix(_PREFIX)
            if algorithm in _SIZES and trailer.strip().startswith(_PREFIX):
                twice = twice or algorithm in self._wanted
                self._sums.setdefault(algorithm, _new(algorithm))
        if len(self._sums) > 1 or twice:
            raise Refused(
                "InvalidRequest",
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
                400,
            )
        if not self._sums and named.get("x-amz-sdk-checksum-algorithm"):
            raise Refused(
                "InvalidRequest",
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers "
                "were found.",
                400,
            )
        md5 = named.get("content-md5")
        if md5 is not None:
            self._wanted["md5"] = _decoded(md5, 16, "The Content-MD5 you specified was invalid.")
            self._sums["md5"] = _new("md5")

    def _want(self, algorithm: str, given: str) -> None:
        size = _SIZES[algorithm]
        self._wanted[algorithm] = _decoded(given, size, f"Value for x-amz-checksum-{algorithm} header is invalid.")
        self._sums.setdefault(algorithm, _new(algorithm))

    def update(self, data: bytes) -> None:
        """The next piece of the body."""
        for one in self._sums.values():
            one.update(data)

    def finish(self, trailers: Mapping[str, str]) -> None:
        """Compares, with what the trailers say; raises Refused BadDigest."""
        for name, given in trailers.items():
            algorithm = name.removeprefix(_PREFIX)
            if name.startswith(_PREFIX) and algorithm in _SIZES:
                self._wanted[algorithm] = _decoded(
                    given, _SIZES[algorithm], f"Value for {name} trailing header is invalid."
                )
        for algorithm, one in self._sums.items():
            digest = one.digest()
            wanted = self._wanted.get(algorithm)
            if wanted is not None and not hmac.compare_digest(digest, wanted):
                if algorithm == "md5":
                    raise Refused("BadDigest", "The Content-MD5 you specified did not match what we received.", 400)
                raise Refused(
                    "BadDigest", f"The {algorithm.upper()} you specified did not match the calculated checksum.", 400
                )
            if algorithm != "md5":
                self._values[algorithm] = base64.b64encode(digest).decode()

    def values(self) -> dict[str, str]:
        """Verified checksums by algorithm, base64; without Content-MD5."""
        return dict(self._values)


def _decoded(given: str, size: int, message: str) -> bytes:
    try:
        found = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != size:
        raise Refused("InvalidDigest" if size == 16 else "InvalidRequest", message, 400)
    return found

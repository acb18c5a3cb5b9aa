"""How bytes are sealed, whoever keeps them: in authenticated chunks, under a key of their own.

What is kept is a sequence of chunks of 256 KiB, each AES-256-GCM with its number as nonce and, as additional data, the id,
the chunk's number and whether it is the last: a flipped bit, a chunk in another place, something cut short or exchanged is
an error and never data. A range needs only the chunks that hold it. The key is derived from the data key and the random
id, so that even a data key given twice never meets the same nonce twice.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import secrets
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CHUNK = 256 * 1024
TAG = 16
SEALED = CHUNK + TAG
"""A chunk as it lies; the last one is shorter."""
SMALL = 64 * 1024
"""What is encrypted, or read and decrypted, at once on the event loop's thread."""


class Damaged(Exception):  # noqa: N818
    """What lies there is not what was written."""


class Unavailable(OSError):  # noqa: N818
    """Whoever keeps the bytes does not answer, or will not: nothing is said of the bytes."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EIO, why)


@dataclass(frozen=True, slots=True)
class Written:
    """What is kept. size: bytes of plaintext. digest: hex, of the plaintext, as it was asked for; empty where none
    was."""

    id: str
    size: int
    digest: str


def check_id(id: str) -> str:
    """The id; raises ValueError for what is none, which names nothing."""
    if not legal_id(id):
        raise ValueError("not an artifact's id")
    return id


def legal_id(id: str) -> bool:
    """32 lower case hexadecimal digits."""
    return len(id) == 32 and all(char in "0123456789abcdef" for char in id)


class Cipher:
    """Seals and opens the chunks of one id. Safe to use from several threads."""

    def __init__(self, data_key: bytes, id: str) -> None:
        if len(data_key) != 32:
            raise ValueError("a data key has 32 bytes")
        self.id = id
        self._id = bytes.fromhex(check_id(id))
        self._cipher = AESGCM(hmac.digest(data_key, b"bastide/artifact/" + self._id, "sha256"))

    def seal(self, number: int, plain: bytes | memoryview, last: bool) -> bytes:
        """A chunk as it is kept."""
        return self._cipher.encrypt(struct.pack(">IQ", 0, number), plain, self._aad(number, last))

    def seal_into(self, number: int, plain: bytes | memoryview, last: bool, room: memoryview) -> None:
        """The same in place; room: as long as the plaintext and its tag."""
        self._cipher.encrypt_into(struct.pack(">IQ", 0, number), plain, self._aad(number, last), room)

    def open(self, number: int, sealed: bytes | memoryview, last: bool) -> bytes:
        """What a chunk holds; raises Damaged."""
        try:
            return self._cipher.decrypt(struct.pack(">IQ", 0, number), sealed, self._aad(number, last))
        except InvalidTag:
            raise Damaged(f"artifact {self.id} is damaged in chunk {number}") from None

    def _aad(self, number: int, last: bool) -> bytes:
        return struct.pack(">16sQ?", self._id, number, last)


class Extent:
    """The chunks that hold bytes `start` to `end` of what takes `stored` bytes sealed."""

    def __init__(self, stored: int, start: int, end: int | None) -> None:
        self._count = max(1, -(-stored // SEALED))
        size = max(0, stored - self._count * TAG)
        self._start = min(start, size)
        self._end = max(self._start, size if end is None else min(end, size))
        first = min(self._start // CHUNK, self._count - 1)
        # Whoever asks for nothing still learns whether the chunk that would hold it is sound.
        self.numbers = range(first, max(first, (self._end - 1) // CHUNK) + 1)

    def several(self, count: int) -> Iterator[range]:
        """The numbers, a few at a time."""
        for at in range(0, len(self.numbers), count):
            yield self.numbers[at : at + count]

    def wanted(self, cipher: Cipher, number: int, sealed: bytes | memoryview) -> bytes:
        """The wanted bytes of a chunk; raises Damaged."""
        plain = cipher.open(number, sealed, number == self._count - 1)
        base = number * CHUNK
        if self._start > base or self._end < base + len(plain):
            plain = plain[max(0, self._start - base) : max(0, self._end - base)]
        return plain


def check_range(start: int, end: int | None) -> None:
    """Raises ValueError."""
    if start < 0 or (end is not None and end < 0):
        raise ValueError("a range counts from the beginning")


def check_small(data: bytes) -> None:
    """Raises ValueError."""
    if len(data) > SMALL:
        raise ValueError(f"more than {SMALL} bytes are a stream")


def digest_of(name: str, data: bytes) -> str:
    """Hex; empty for the empty name."""
    return hashlib.new(name, data, usedforsecurity=False).hexdigest() if name else ""


def seal(data: bytes, data_key: bytes, *, digest: str = "md5") -> tuple[Written, bytes]:
    """At most `SMALL` bytes as they would be kept, for keeping them elsewhere: in the store, with the row that names
    them."""
    check_small(data)
    # In the order of time, so that what is kept together is found together.
    id = f"{time.time_ns() // 1000:016x}{secrets.token_hex(8)}"
    return Written(id, len(data), digest_of(digest, data)), Cipher(data_key, id).seal(0, data, True)


def unseal(id: str, sealed: bytes, data_key: bytes, start: int = 0, end: int | None = None) -> bytes:
    """Bytes `start` to `end` of what `seal` made; raises Damaged."""
    return Cipher(data_key, id).open(0, sealed, True)[start:end]

"""Records on their way elsewhere, on the disk meanwhile, sealed.

A record that was taken survives the end of the process (`kill -9`); of the machine only as far as the system had
written it.
A spool is a folder of segments: one is being written, the others wait to be sent. Whoever sends a segment removes it
afterwards, so what a crash interrupts is sent again, under the segment's same name.
"""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_LENGTH: Final = struct.Struct(">I")
_NONCE: Final = 12


@dataclass(frozen=True, slots=True)
class Segment:
    """Records that wait. id: a UUID, the segment's own."""

    id: str
    path: Path
    size: int


class Spool:
    """One line of records; `head` comes first in every segment and says where they go."""

    def __init__(self, folder: Path, cipher: AESGCM, head: bytes, most_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._cipher = cipher
        self._head = head
        self._most = most_bytes
        self._waiting = sum(path.stat().st_size for path in folder.glob("*.segment"))
        self._handle = -1
        self._path = Path()
        self._nonce, self._count = b"", 0
        self.written = 0
        """Bytes in the segment that is being written."""
        self.dropped = 0
        """Records that found no room."""

    def put(self, record: bytes) -> bool:
        """Takes a record; False, and it is counted as dropped, if the spool is full or the disk is."""
        if self._waiting + self.written + len(record) > self._most:
            self.dropped += 1
            return False
        try:
            if self._handle < 0:
                self._path = self._folder / f"{uuid.uuid4()}.segment"
                self._nonce, self._count = os.urandom(_NONCE - 4), 0
                self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                self._write(self._head)
            self._write(record)
        except OSError:
            self.dropped += 1
            return False
        return True

    def _write(self, record: bytes) -> None:
        # Eight random bytes a segment and a count: no two records of any segments are sealed under the same.
        nonce = self._nonce + self._count.to_bytes(4, "big")
        self._count += 1
        sealed = nonce + self._cipher.encrypt(nonce, record, None)
        framed = _LENGTH.pack(len(sealed)) + sealed
        os.write(self._handle, framed)
        self.written += len(framed)

    def cut(self) -> None:
        """Ends the segment that is being written; it waits to be sent from now on."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
            self._waiting += self.written
            self.written = 0

    def done(self, segment: Segment) -> None:
        """Removes a segment that was sent."""
        segment.path.unlink(missing_ok=True)
        self._waiting = max(0, self._waiting - segment.size)

    def waiting(self) -> list[Segment]:
        """Segments that wait to be sent, the oldest first."""
        found = []
        for path in self._folder.glob("*.segment"):
            if self._handle >= 0 and path == self._path:
                continue
            told = path.stat()
            found.append((told.st_mtime_ns, Segment(path.stem, path, told.st_size)))
        return [segment for _, segment in sorted(found, key=lambda one: one[0])]

    def records(self, segment: Segment) -> list[bytes]:
        """Head and records of a segment, as far as they were written whole."""
        return list(_records(segment.path, self._cipher))

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent, without those of the segment that is being written."""
        return self._waiting


def _records(path: Path, cipher: AESGCM) -> Iterator[bytes]:
    with path.open("rb") as file:
        while len(prefix := file.read(_LENGTH.size)) == _LENGTH.size:
            sealed = file.read(_LENGTH.unpack(prefix)[0])
            try:
                yield cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
            except (InvalidTag, ValueError):
                return  # torn, or nobody of ours wrote it


class Spools:
    """All spools of a platform, below one folder, sealed under one key of 32 bytes."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder = folder
        self._cipher = AESGCM(key)

    def open(self, name: str, head: bytes, most_bytes: int) -> Spool:
        """The spool of that name (letters, digits, hyphens), made if missing."""
        return Spool(self._folder / name, self._cipher, head, most_bytes)

    def left(self) -> list[tuple[str, bytes]]:
        """Names of spools in which an earlier process left segments, and the head of the first one each."""
        found = []
        for folder in sorted(self._folder.glob("*")):
            for path in sorted(folder.glob("*.segment")):
                head = next(_records(path, self._cipher), None)
                if head is not None:
                    found.append((folder.name, head))
                    break
                path.unlink()  # it holds nothing
        return found

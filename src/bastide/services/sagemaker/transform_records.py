"""Records of an object, and the payloads that a model is given of them.

Source: API reference, TransformInput (SplitType) and CreateTransformJob (BatchStrategy, MaxPayloadInMB); the formats of
MXNet's RecordIO and of TFRecord.
"""

from __future__ import annotations

import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final

from bastide.services.sagemaker.transform_fault import Fault

MIB: Final = 1 << 20
_RECORDIO: Final = 0xCED7230A
_PIECE: Final = 1 << 20


class Splitter(ABC):
    """Takes an object piece by piece and gives payloads of at most `most` bytes. single: each of one record."""

    def __init__(self, most: int, *, single: bool) -> None:
        self.most = most
        self.single = single
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What is complete now; raises Fault."""
        self._held += data
        yield from self._complete(last=False)

    def end(self) -> Iterator[bytes]:
        """What is left; raises Fault."""
        yield from self._complete(last=True)

    @abstractmethod
    def _complete(self, *, last: bool) -> Iterator[bytes]: ...

    def _take(self, size: int) -> bytes:
        taken = bytes(memoryview(self._held)[:size])
        del self._held[:size]
        return taken

    def _too_large(self) -> Fault:
        return Fault("ClientError", f"Too much data for max payload size: a payload may have {self.most / MIB:.4g} MB")


class Whole(Splitter):
    """SplitType None: an object is one payload."""

    def _complete(self, *, last: bool) -> Iterator[bytes]:
        if len(self._held) > self.most:
            raise self._too_large()
        if last:
            yield self._take(len(self._held))


class Lines(Splitter):
    """SplitType Line. A payload of one record is a line without its end; lines with nothing in them are no records."""

    def _complete(self, *, last: bool) -> Iterator[bytes]:
        held, most = self._held, self.most
        if self.single:
            start = 0
            try:
                while (end := held.find(b"\n", start)) >= 0 or (last and start < len(held)):
                    line = bytes(held[start:end] if end >= 0 else held[start:]).removesuffix(b"\r")
                    start = end + 1 if end >= 0 else len(held)
                    if len(line) > most:
                        raise self._too_large()
                    if line:
                        yield line
            finally:
                del held[:start]
            if len(held) > most:
                raise self._too_large()
            return
        while len(held) > most:
            end = held.rfind(b"\n", 0, most) + 1
            if not end:
                if len(held) == most + 1 and held.endswith(b"\n"):
                    end = most + 1  # the line itself fits
                else:
                    raise self._too_large()
            if (payload := self._take(end)).strip():
                yield payload
        if last and (payload := self._take(len(held))).strip():
            yield payload


class _Framed(Splitter):
    """Records with a head that says how long they are."""

    what = ""

    @abstractmethod
    def _record(self, at: int) -> tuple[int, bytes] | None:
        """Where the record at a place ends, and its data; None if it is not there whole. Raises Fault."""

    def _complete(self, *, last: bool) -> Iterator[bytes]:
        start = at = 0
        try:
            while (found := self._record(at)) is not None:
                end, data = found
                if self.single:
                    if len(data) > self.most:
                        raise self._too_large()
                    start = at = end
                    yield data
                    continue
                if end - at > self.most:
                    raise self._too_large()
                if end - start > self.most:
                    payload = bytes(self._held[start:at])
                    start = at
                    yield payload
                at = end
            if last and at < len(self._held):
                raise Fault("ClientError", f"The object ends in the middle of a {self.what} record")
            if last and at > start:
                payload = bytes(self._held[start:at])
                start = at
                yield payload
        finally:
            del self._held[:start]

    def _checked(self, length: int) -> int:
        if length > self.most:
            raise self._too_large()
        return length


class TFRecords(_Framed):
    """SplitType TFRecord: length (8 bytes, little endian), its checksum (4), data, its checksum (4)."""

    what = "TFRecord"

    def _record(self, at: int) -> tuple[int, bytes] | None:
        held = self._held
        if len(held) < at + 12:
            return None
        (length,) = struct.unpack_from("<Q", held, at)
        self._checked(length)
        end = at + 16 + length
        return None if len(held) < end else (end, bytes(held[at + 12 : end - 4]) if self.single else b"")


class RecordIO(_Framed):
    """SplitType RecordIO: magic (4), flag and length (3 and 29 bits), data, padding to 4 bytes; a record may be in parts,
    where its data had the magic in it."""

    what = "RecordIO"

    def _record(self, at: int) -> tuple[int, bytes] | None:
        held, parts, size, within = self._held, [], 0, False
        while True:
            if len(held) < at + 8:
                return None
            magic, head = struct.unpack_from("<II", held, at)
            flag, length = head >> 29, head & ((1 << 29) - 1)
            if magic != _RECORDIO or flag > 3 or (flag in (0, 1)) == within:
                raise Fault("ClientError", "The object is not made of RecordIO records")
            size = self._checked(size + length)
            end = at + 8 + length + (-length % 4)
            if len(held) < end:
                return None
            parts.append(bytes(held[at + 8 : at + 8 + length]) if self.single else b"")
            at, within = end, flag in (1, 2)
            if not within:
                return at, struct.pack("<I", _RECORDIO).join(parts)


SPLITTERS: Final[dict[str, type[Whole | Lines | TFRecords | RecordIO]]] = {
    "None": Whole,
    "Line": Lines,
    "TFRecord": TFRecords,
    "RecordIO": RecordIO,
}


class Unpacked:
    """Gzip, one member or several, piece by piece: however small a bomb is, it does not fill the memory."""

    def __init__(self) -> None:
        self._open = zlib.decompressobj(31)
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What comes out; raises Fault."""
        try:
            while data:
                self._begun = True
                if piece := self._open.decompress(data, _PIECE):
                    yield piece
                data = self._open.unconsumed_tail
                if self._open.eof:
                    data = self._open.unused_data.lstrip(b"\0")
                    self._open = zlib.decompressobj(31)
                    self._begun = False
        except zlib.error:
            raise Fault("ClientError", "The object is not gzip, as CompressionType says") from None

    def end(self) -> Iterator[bytes]:
        """What was held back; raises Fault if something is missing."""
        if not self._begun:
            return
        try:
            yield self._open.flush()
        except zlib.error:
            raise Fault("ClientError", "The object is not gzip, as CompressionType says") from None
        if not self._open.eof:
            raise Fault("ClientError", "The gzip data of the object ends too early")

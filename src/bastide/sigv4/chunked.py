"""Bodies in ``aws-chunked`` encoding, verified chunk by chunk, with trailers.

Source: Amazon S3 API Reference, "Signature Calculations for the Authorization Header: Transferring Payload in Multiple
Chunks (Chunked Upload)" and "... with Trailing Headers".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

from bastide.domain import Refused
from bastide.sigv4.signature import STREAMING_FORMS, Presented, signing_key

_HEAD = re.compile(rb"([0-9a-fA-F]{1,16})((?:;[^\r\n]*)?)", re.ASCII)
_SIGNATURE = re.compile(rb";chunk-signature=([0-9a-f]{64})", re.ASCII)
_LENGTH = re.compile(r"[0-9]{1,15}", re.ASCII)
_EMPTY = hashlib.sha256(b"").hexdigest()
_MOST_HEAD = 1024
_MOST_TRAILERS = 16 * 1024
_LEAST_CHUNK = 8192
_MOST_SIGNED_CHUNK = 16 * 1024 * 1024
"""A signed chunk is held until it is verified; an unsigned one passes as it comes, however long."""
_MOST_UNSIGNED_CHUNK = 5 * 1024 * 1024 * 1024


def _broken() -> Refused:
    return Refused("IncompleteBody", "The request body terminated unexpectedly", 400)


def _wrong_length() -> Refused:
    return Refused(
        "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header", 400
    )


def _mismatch() -> Refused:
    return Refused(
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
        403,
    )


def _malformed_trailer() -> Refused:
    return Refused(
        "MalformedTrailerError",
        "The request contained trailing data that was not well-formed or did not conform to our published schema.",
        400,
    )


class Chunked:
    """Decodes one body. The form (signed or not, with trailers or not) is what ``x-amz-content-sha256`` says.

    presented: None for an unsigned request. secret: of the access key that signed it. named: headers by lower-case name;
    ``x-amz-decoded-content-length`` is enforced if it is there. Raises Refused InvalidArgument for an unknown form.
    """

    def __init__(self, presented: Presented | None, secret: str, named: Mapping[str, str]) -> None:
        form = named.get("x-amz-content-sha256", "")
        self._signed = form.startswith("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        self._trailing = form.endswith("-TRAILER")
        if form not in STREAMING_FORMS:
            raise Refused(
                "InvalidArgument", f"x-amz-content-sha256 `{form[:64]}` is no streaming form that is known.", 400
            )
        if self._signed and presented is None:
            raise Refused("AccessDenied", "Signed chunks need a signed request.", 403)
        length = named.get("x-amz-decoded-content-length")
        if length is not None and not _LENGTH.fullmatch(length):
            raise Refused("InvalidArgument", "x-amz-decoded-content-length must be a number of bytes.", 400)
        self._missing = None if length is None else int(length)
        self._presented = presented
        self._key = signing_key(presented, secret) if presented is not None and self._signed else b""
        self._previous = presented.signature if presented is not None else ""
        self._announced = [name.strip().lower() for name in named.get("x-amz-trailer", "").split(",") if name.strip()]
        self._buffer = bytearray()
        self._want: int | None = None  # bytes of the current chunk that are still to come; None: a header is
        self._short = False
        self._signature = ""
        self._ended = False
        self._trailers: dict[str, str] = {}

    def _sign(self, kind: str, *hashes: str) -> str:
        assert self._presented is not None
        text = "\n".join((kind, self._presented.stamp, self._presented.scope, self._previous, *hashes))
        return hmac.digest(self._key, text.encode(), "sha256").hex()

    def feed(self, data: bytes) -> list[bytes]:
        """Takes the next bytes of the body in; returns the decoded pieces that are verified. Raises Refused."""
        self._buffer += data
        found: list[bytes] = []
        while not self._ended:
            if self._want is None:
                end = self._buffer.find(b"\r\n", 0, _MOST_HEAD)
                if end < 0:
                    if len(self._buffer) > _MOST_HEAD:
                        raise _broken()
                    break
                self._head(bytes(self._buffer[:end]))
                del self._buffer[: end + 2]
                if not self._want:
                    self._chunk(b"")
                    self._ended = True
                    break
            piece = self._piece(self._want or 0)
            if piece:
                found.append(piece)
            if self._want:
                break
            if self._buffer[:2] != b"\r\n":
                if len(self._buffer) >= 2:
                    raise _broken()
                break
            del self._buffer[:2]
            self._want = None
        if self._ended and len(self._buffer) > _MOST_TRAILERS:
            raise _malformed_trailer()
        return found

    def _piece(self, want: int) -> bytes:
        """What there is of the current chunk; if it is signed, all of it or nothing."""
        size = min(want, len(self._buffer))
        if not size or (self._signed and size < want):
            return b""
        with memoryview(self._buffer) as view:
            piece = bytes(view[:size])
        del self._buffer[:size]
        self._chunk(piece)
        self._want = want - size
        return piece

    def _head(self, line: bytes) -> None:
        head = _HEAD.fullmatch(line)
        if head is None:
            raise _broken()
        self._want = size = int(head[1], 16)
        if size > (_MOST_SIGNED_CHUNK if self._signed else _MOST_UNSIGNED_CHUNK):
            raise Refused("InvalidChunkSizeError", "A chunk is larger than this platform takes", 403)
        if size and self._short:
            raise Refused(
                "InvalidChunkSizeError", "Only the last chunk is allowed to have a size less than 8192 bytes", 403
            )
        self._short = size < _LEAST_CHUNK
        if self._missing is not None:
            self._missing -= size
            if self._missing < 0:
                raise _wrong_length()
        if self._signed:
            signature = _SIGNATURE.fullmatch(head[2])
            if signature is None:
                raise _broken()
            self._signature = signature[1].decode()

    def _chunk(self, piece: bytes) -> None:
        if not self._signed:
            return
        wanted = self._sign("AWS4-HMAC-SHA256-PAYLOAD", _EMPTY, hashlib.sha256(piece).hexdigest())
        if not hmac.compare_digest(wanted, self._signature):
            raise _mismatch()
        self._previous = wanted

    def finish(self) -> dict[str, str]:
        """The trailers by lower-case name, verified; raises Refused if the body ended early or was not as announced."""
        if not self._ended or self._buffer[-2:] != b"\r\n":
            raise _broken()
        if self._missing:
            raise _wrong_length()
        signature = b""
        told = b""
        for line in bytes(self._buffer).split(b"\r\n"):
            # Amazon's own example ends a trailer with a line feed before the line's end.
            key, colon, value = (part.strip() for part in line.partition(b":"))
            if not (key or colon):
                continue
            name = key.decode("latin-1").lower()
            if not colon or not self._trailing or b"\n" in value:
                raise _malformed_trailer()
            if name == "x-amz-trailer-signature" and not signature:
                signature = value
                continue
            # Nothing stands behind the signature: it covers what came before.
            if signature or name not in self._announced or name in self._trailers:
                raise _malformed_trailer()
            self._trailers[name] = value.decode("latin-1")
            told += key.lower() + b":" + value + b"\n"
        if set(self._announced) != set(self._trailers):
            raise _malformed_trailer()
        if self._signed and self._trailing:
            wanted = self._sign("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(told).hexdigest())
            if not hmac.compare_digest(wanted.encode(), signature):
                raise _mismatch()
        return dict(self._trailers)

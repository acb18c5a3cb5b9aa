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
from bastide.sigv4.signature import Presented, signing_key

_HEAD = re.compile(rb"([0-9a-fA-F]{1,8})((?:;[^\r\n]*)?)", re.ASCII)
_SIGNATURE = re.compile(rb";chunk-signature=([0-9a-f]{64})", re.ASCII)
_EMPTY = hashlib.sha256(b"").hexdigest()
_MOST_HEAD = 1024
_MOST_TRAILERS = 16 * 1024
_MOST_CHUNK = 16 * 1024 * 1024


def _broken(message: str) -> Refused:
    return Refused("IncompleteBody", message, 400)


class Chunked:
    """Decodes one body. The form (signed or not, with trailers or not) is what ``x-amz-content-sha256`` says."""

    def __init__(self, presented: Presented | None, secret: str, named: Mapping[str, str]) -> None:
        form = named.get("x-amz-content-sha256", "")
        self._signed = form.startswith("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        self._trailing = form.endswith("-TRAILER")
        if form not in (
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        ):
            raise Refused(
                "InvalidArgument", f"x-amz-content-sha256 `{form[:64]}` is no streaming form that is known.", 400
            )
        if self._signed and presented is None:
            raise Refused("AccessDenied", "Signed chunks need a signed request.", 403)
        self._presented = presented
        self._key = signing_key(presented, secret) if presented is not None and self._signed else b""
        self._previous = presented.signature if presented is not None else ""
        self._announced = [name.strip().lower() for name in named.get("x-amz-trailer", "").split(",") if name.strip()]
        self._buffer = bytearray()
        self._want: int | None = None
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
                        raise _broken("A chunk's header is longer than any honest one.")
                    break
                self._head(bytes(self._buffer[:end]))
                del self._buffer[: end + 2]
                if not self._want:
                    self._chunk(b"")
                    self._ended = True
                    break
            want = self._want
            assert want is not None
            if len(self._buffer) < want + 2:
                break
            if self._buffer[want : want + 2] != b"\r\n":
                raise _broken("A chunk does not end where its header says.")
            piece = bytes(self._buffer[:want])
            del self._buffer[: want + 2]
            self._chunk(piece)
            self._want = None
            found.append(piece)
        if self._ended and len(self._buffer) > _MOST_TRAILERS:
            raise _broken("The trailers are longer than any honest ones.")
        return found

    def _head(self, line: bytes) -> None:
        head = _HEAD.fullmatch(line)
        if head is None:
            raise _broken("A chunk's header is malformed.")
        self._want = int(head[1], 16)
        if self._want > _MOST_CHUNK:
            raise Refused(
                "InvalidChunkSizeError", "Only the last chunk is allowed to have a size less than 8192 bytes", 403
            )
        if self._signed:
            signature = _SIGNATURE.fullmatch(head[2])
            if signature is None:
                raise _broken("A chunk's header carries no signature.")
            self._signature = signature[1].decode()

    def _chunk(self, piece: bytes) -> None:
        if not self._signed:
            return
        wanted = self._sign("AWS4-HMAC-SHA256-PAYLOAD", _EMPTY, hashlib.sha256(piece).hexdigest())
        if not hmac.compare_digest(wanted, self._signature):
            raise Refused("SignatureDoesNotMatch", "The signature of a chunk does not match.", 403)
        self._previous = wanted

    def finish(self) -> dict[str, str]:
        """The trailers, verified; raises Refused if the body ended early."""
        if not self._ended:
            raise _broken("The body ended before its last chunk.")
        lines = [line for line in bytes(self._buffer).split(b"\r\n") if line]
        if lines and not self._trailing:
            raise _broken("There are trailers that x-amz-content-sha256 does not announce.")
        signature = ""
        told = b""
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon:
                raise _broken("A trailer is malformed.")
            key = name.decode("latin-1").strip().lower()
            text = value.decode("latin-1").strip()
            if key == "x-amz-trailer-signature":
                signature = text
                continue
            if key not in self._announced or key in self._trailers:
                raise Refused(
                    "MalformedTrailerError", f"The trailer `{key[:64]}` was not announced in x-amz-trailer.", 400
                )
            self._trailers[key] = text
            told += f"{key}:{text}\n".encode("latin-1")
        if set(self._announced) != set(self._trailers):
            raise Refused("MalformedTrailerError", "A trailer that x-amz-trailer announces is missing.", 400)
        if self._signed and self._trailing:
            wanted = self._sign("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(told).hexdigest())
            if not hmac.compare_digest(wanted, signature):
                raise Refused("SignatureDoesNotMatch", "The signature of the trailers does not match.", 403)
        return self._trailers

"""A streamed upload: framing, signatures, length and checksums are verified while it is read."""

from __future__ import annotations

import hashlib
import hmac
import zlib
from collections.abc import AsyncIterator, Mapping

from bastide.domain import Refused
from bastide.frontdoor.receive import MOST_BODY_BYTES, Received, too_large
from bastide.sigv4 import Checksums, Chunked, Presented

MOST_UPLOAD_BYTES = 5 * 1024 * 1024 * 1024
"""Of one PutObject or UploadPart, as S3 has it."""


def unpacked(received: Received, body: bytes) -> bytes:
    """A body that is read whole, without its gzip; bounded, raises Refused. Clients compress what models say may be
    (Smithy, "requestCompression"); what is signed are the bytes as they are sent."""
    coding = received.named.get("content-encoding", "").lower()
    if coding != "gzip" or body[:2] != b"\x1f\x8b":
        return body
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        found = unpacker.decompress(body, MOST_BODY_BYTES + 1)
    except zlib.error:
        raise Refused("SerializationException", "The body is not what its Content-Encoding gzip says.") from None
    if len(found) > MOST_BODY_BYTES:
        raise too_large(MOST_BODY_BYTES)
    if not unpacker.eof or unpacker.unused_data:
        raise Refused("SerializationException", "The body is not what its Content-Encoding gzip says.")
    return found


class Upload:
    """The kernel's `Body` over a connection. `length` is the decoded size, if the client told."""

    def __init__(
        self,
        received: Received,
        presented: Presented | None,
        secret: str,
        claimed: str | None,
        whole: bytes | None = None,
    ) -> None:
        self._received = received
        self._claimed = claimed or ""
        self._whole = whole
        named = received.named
        self._chunked: Chunked | None = None
        self.length: int | None = received.length
        if self._claimed.startswith("STREAMING-"):
            self._chunked = Chunked(presented, secret, named)
            decoded = named.get("x-amz-decoded-content-length", "")
            self.length = int(decoded) if decoded.isascii() and decoded.isdigit() else None
        elif "content-length" not in named and received.method == "PUT":
            self.length = None
        self._checks = Checksums(named)
        self._sha = hashlib.sha256() if len(self._claimed) == 64 else None
        self._size = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        """The decoded, verified bytes."""
        chunked = self._chunked
        self._bounded()
        while data := await self._received.more():
            for piece in chunked.feed(data) if chunked is not None else (data,):
                self._seen(piece)
                yield piece
        self._end()

    def all(self) -> bytes:
        """The decoded bytes of a body that was read whole."""
        assert self._whole is not None and self._chunked is not None
        self._bounded()
        pieces = self._chunked.feed(self._whole)
        for piece in pieces:
            self._seen(piece)
        self._end()
        return b"".join(pieces)

    def _bounded(self) -> None:
        # Told only to whoever may upload: the questions come first.
        if self.length is None:
            raise Refused("MissingContentLength", "You must provide the Content-Length HTTP header.", 411)
        if self.length > MOST_UPLOAD_BYTES:
            raise Refused("EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size.", 400)

    def _seen(self, piece: bytes) -> None:
        self._size += len(piece)
        if self.length is not None and self._size > self.length:
            raise Refused("IncompleteBody", "The body is longer than its Content-Length says.", 400)
        self._checks.update(piece)
        if self._sha is not None:
            self._sha.update(piece)

    def _end(self) -> None:
        trailers = self._chunked.finish() if self._chunked is not None else {}
        if self.length is not None and self._size != self.length:
            raise Refused(
                "IncompleteBody",
                "You did not provide the number of bytes specified by the Content-Length HTTP header.",
                400,
            )
        if self._sha is not None and not hmac.compare_digest(self._sha.hexdigest(), self._claimed):
            raise Refused(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
                400,
            )
        self._checks.finish(trailers)

    def checksums(self) -> Mapping[str, str]:
        """Verified checksums by algorithm, base64."""
        return self._checks.values()

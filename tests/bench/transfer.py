"""Objects of any size, sent and read in pieces by a client that holds one piece: for what a *server's* memory does."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from email.message import Message

from . import signing
from .servers import Endpoint

PIECE = os.urandom(1024 * 1024)
PART = 64 * len(PIECE)


def _ask(endpoint: Endpoint, method: str, target: str, size: int = 0) -> Message:
    """Sends `size` bytes to a signed URL, reads and forgets the answer; its headers. RuntimeError unless it was 200."""

    def pieces() -> Iterator[bytes]:
        for _ in range(size // len(PIECE)):
            yield PIECE

    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=120)
    try:
        connection.request(method, target, body=pieces() if size else None, headers={"Content-Length": str(size)})
        answer = connection.getresponse()
        room = bytearray(len(PIECE))
        seen = 0
        while count := answer.readinto(room):
            seen += count
        if answer.status != 200:
            raise RuntimeError(f"{method} answered {answer.status}: {bytes(room[:300])!r}")
        if method == "GET" and seen != int(answer.headers.get("Content-Length") or seen):
            raise RuntimeError(f"{seen} bytes were read")
        return answer.headers
    finally:
        connection.close()


def put(endpoint: Endpoint, bucket: str, size: int) -> None:
    """One PutObject."""
    [target] = signing.presigned("put_object", endpoint, [{"Bucket": bucket, "Key": "streamed"}])
    _ask(endpoint, "PUT", target, size)


def get(endpoint: Endpoint, bucket: str, size: int) -> None:
    """One GetObject of what `put` wrote."""
    [target] = signing.presigned("get_object", endpoint, [{"Bucket": bucket, "Key": "streamed"}])
    _ask(endpoint, "GET", target)


def copy(endpoint: Endpoint, bucket: str, size: int) -> None:
    """One CopyObject of what `put` wrote."""
    source = {"Bucket": bucket, "Key": "streamed"}
    signing.client("s3", endpoint).copy_object(Bucket=bucket, Key="copied", CopySource=source)


def multipart(endpoint: Endpoint, bucket: str, size: int) -> None:
    """CreateMultipartUpload, UploadPart in parts of 64 MiB, CompleteMultipartUpload."""
    s3 = signing.client("s3", endpoint)
    given = {"Bucket": bucket, "Key": "in-parts"}
    given["UploadId"] = s3.create_multipart_upload(**given)["UploadId"]
    numbers = range(1, max(1, size // PART) + 1)
    targets = signing.presigned("upload_part", endpoint, [{**given, "PartNumber": number} for number in numbers])
    parts = [
        {"PartNumber": number, "ETag": _ask(endpoint, "PUT", target, min(size, PART))["ETag"]}
        for number, target in zip(numbers, targets, strict=True)
    ]
    s3.complete_multipart_upload(**given, MultipartUpload={"Parts": parts})

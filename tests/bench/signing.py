"""Requests made and signed by botocore, caught just before they would be sent, as bytes of HTTP/1.1."""

from __future__ import annotations

import itertools
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config

from .servers import Endpoint

DROPPED = {"expect", "connection", "content-length", "transfer-encoding", "host"}
"""Headers that are left out or written anew; SigV4 covers none of them but ``host``, which is written as signed."""


class _Caught(Exception):
    def __init__(self, request: AWSPreparedRequest) -> None:
        super().__init__("caught")
        self.request = request


def client(service: str, endpoint: Endpoint) -> Any:
    """A boto3 client of ``service`` at ``endpoint``: path-style S3, one attempt, long patience."""
    return boto3.client(
        service,
        region_name=endpoint.region,
        endpoint_url=endpoint.url,
        aws_access_key_id=endpoint.access_key,
        aws_secret_access_key=endpoint.secret_key,
        verify=endpoint.ca or None,
        config=Config(
            retries={"total_max_attempts": 1},
            signature_version="s3v4" if service == "s3" else None,
            s3={"addressing_style": "path"},
            connect_timeout=10,
            read_timeout=120,
            parameter_validation=True,
        ),
    )


def prepare(service: str, operation: str, endpoint: Endpoint, inputs: list[dict[str, Any]]) -> list[bytes]:
    """One signed request for each of ``inputs``, ready to be written on a socket.

    Each carries a signed header with its number, so that no two signatures are alike even where the arguments are, and
    a server that remembers signatures gains nothing. They are good for 15 minutes: sign anew for each measurement.

    :param operation: the client's method, as ``get_role``.
    """
    caller = client(service, endpoint)

    def catch(request: AWSPreparedRequest, **_: Any) -> None:
        raise _Caught(request)

    numbers = itertools.count()

    def vary(request: Any, **_: Any) -> None:
        request.headers["X-Bench-Variety"] = str(next(numbers))

    caller.meta.events.register("before-sign", vary)
    caller.meta.events.register("before-send", catch)
    prepared = []
    for arguments in inputs:
        try:
            getattr(caller, operation)(**arguments)
        except _Caught as caught:
            prepared.append(_raw(caught.request))
    assert len(prepared) == len(inputs)
    return prepared


def presign(operation: str, endpoint: Endpoint, inputs: list[dict[str, Any]], body: bytes = b"") -> list[bytes]:
    """Requests whose URL was signed beforehand (``operation`` of S3), as a light client sends them: nothing is hashed,
    no header but ``Host`` and ``Content-Length``.

    :param body: what each of them carries.
    """
    return [
        f"{'PUT' if body else 'GET'} {target} HTTP/1.1\r\nHost: {urlsplit(endpoint.url).netloc}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
        for target in presigned(operation, endpoint, inputs)
    ]


def presigned(operation: str, endpoint: Endpoint, inputs: list[dict[str, Any]]) -> list[str]:
    """Path and query of URLs that were signed for an ``operation`` of S3, good for an hour."""
    caller = client("s3", endpoint)
    urls = [urlsplit(caller.generate_presigned_url(operation, Params=given)) for given in inputs]
    return [f"{url.path}?{url.query}" for url in urls]


def _raw(request: AWSPreparedRequest) -> bytes:
    """The request as bytes, its body read in (aws-chunked bodies are wrapped files)."""
    url = urlsplit(request.url)
    body: Any = request.body or b""
    if hasattr(body, "read"):
        body = body.read()
    if isinstance(body, str):
        body = body.encode()
    lines = [
        f"{request.method} {url.path or '/'}{'?' + url.query if url.query else ''} HTTP/1.1",
        f"Host: {url.netloc}",
    ]
    for name, value in request.headers.items():
        if name.lower() not in DROPPED:
            lines.append(f"{name}: {value.decode() if isinstance(value, bytes) else value}")
    if body or request.method in {"POST", "PUT"}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + bytes(body)

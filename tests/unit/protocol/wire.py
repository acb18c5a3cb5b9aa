"""A real botocore client against our codecs, without a socket: its requests are parsed, our answers are read by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.config import Config

from bastide.domain import Refused
from bastide.protocol import Answer, Codec, Head, OperationCodec, codec

Handler = Callable[[OperationCodec, dict[str, Any]], dict[str, Any]]
BUCKET_HOST = "amazonaws.com"


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, *_: Any, **__: Any) -> Any:
        yield self._body

    def read(self, amount: int | None = None, **_: Any) -> bytes:
        taken = self._body if amount is None else self._body[:amount]
        self._body = self._body[len(taken) :]
        return taken


class Wire:
    """`client` is botocore's own; every call ends in `handle`, whose output or Refused goes back to it."""

    def __init__(self, service: str, handle: Handler, region: str = "eu-west-1") -> None:
        self.codec: Codec = codec(service)
        self.handle = handle
        self.protocol = ""
        self.answer: Answer | None = None
        session = botocore.session.Session()
        self.client = session.create_client(
            service,
            region_name=region,
            aws_access_key_id="AKIDEXAMPLE",
            aws_secret_access_key="secret",
            config=Config(
                retries={"max_attempts": 0},
                s3={"addressing_style": "path"},
                inject_host_prefix=False,
                signature_version="v4",
            ),
        )
        self.client.meta.events.register("before-send", self._serve)

    def _serve(self, request: Any, **_: Any) -> AWSResponse:
        url = urlsplit(request.url)
        headers = {
            name.lower(): value.decode() if isinstance(value, bytes) else str(value)
            for name, value in request.headers.items()
        }
        body = request.body or b""
        if hasattr(body, "read"):
            body = body.read()
        if isinstance(body, str):
            body = body.encode()
        query = parse_qsl(url.query, keep_blank_values=True)
        head = Head(request.method, url.path.encode() or b"/", query, headers, url.netloc)
        name, self.protocol = self.codec.route(head, bytes(body) if self.codec.needs_body(head) else None)
        held = self.codec.operations[name]
        try:
            given = held.parse(self.protocol, head, bytes(body))
            held.validate(given)
            self.answer = held.answer(self.protocol, self.handle(held, given), "request-id")
        except Refused as refused:
            self.answer = held.error(self.protocol, refused, "request-id", "host-id")
        raw = _Raw(self.answer.body)
        return AWSResponse(request.url, self.answer.status, dict(self.answer.headers), raw)

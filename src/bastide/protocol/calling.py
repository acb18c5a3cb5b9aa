"""Calls of APIs that API Gateway serves, on the wire: any method and path, answered as what stands behind it answers.

botocore has no model of it, so one of our own names its operation, Invoke. A call comes to ``ID.execute-api.REGION.HOST``
with the stage first in its path, or to ``/restapis/ID/STAGE/_user_request_/PATH``. Source: API Gateway Developer Guide,
"Invoke REST APIs"; Service Authorization Reference, "Amazon API Gateway" (``execute-api``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from bastide.domain import Refused
from bastide.protocol.codec import SPECIAL, Codec
from bastide.protocol.head import Answer, Head
from bastide.protocol.operation import OperationCodec

_HOST: Final = re.compile(r"([a-z0-9]{1,32})\.execute-api\.[a-z0-9-]+\..+")
_PATH: Final = re.compile(rb"/restapis/([a-z0-9-]{1,64})/([A-Za-z0-9_$-]{1,128})/_user_request_(/.*)?")
_OWN: Final = re.compile(rb"/([A-Za-z0-9_$-]{1,128})(/.*)?")
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS: Final = frozenset(
    {"connection", "content-length", "transfer-encoding", "keep-alive", "upgrade", "te", "trailer"}
)


def is_call(host: str, raw_path: bytes) -> bool:
    """Whether a request is a call of an API, by where it goes."""
    return _HOST.fullmatch(host) is not None or _PATH.fullmatch(raw_path) is not None


def _place(head: Head) -> tuple[str, str, str]:
    """API, stage and path, decoded, of a call; raises Refused for what is none."""
    host = _HOST.fullmatch(head.host)
    found = _PATH.fullmatch(head.raw_path)
    if found is not None:
        api, stage, rest = found[1].decode(), found[2], found[3]
    else:
        own = _OWN.fullmatch(head.raw_path)
        if host is None or own is None:
            raise Refused("ForbiddenException", "Forbidden", 403, kept={"protocol": "rest-json"})
        api, stage, rest = host[1], own[1], own[2]
    try:
        path = unquote_to_bytes(rest or b"/").decode()
    except UnicodeDecodeError:
        raise Refused("BadRequestException", "The path is not UTF-8.", 400, kept={"protocol": "rest-json"}) from None
    return api, stage.decode(), path


class _Operation(OperationCodec):
    """A refusal may bring the answer that the API itself has for it (`kept`)."""

    def error(self, protocol: str, refused: Refused, request_id: str, host_id: str = "") -> Answer:
        told = refused.kept.get("answer")
        if told is None:
            return super().error(protocol, refused, request_id, host_id)
        headers = [(name.lower(), value) for name, value in told["Headers"] if name.lower() not in _OURS]
        headers += [("x-amzn-requestid", request_id), ("x-amzn-errortype", refused.code)]
        return Answer(told["StatusCode"], headers, told["Body"].replace(b"$context.requestId", request_id.encode()))

    def parse(self, protocol: str, head: Head, body: bytes) -> dict[str, Any]:
        api, stage, path = _place(head)
        return {
            "ApiId": api, "Stage": stage, "Path": path, "Method": head.method, "Host": head.host, "Body": body,
            "Query": [list(pair) for pair in head.query], "Headers": [list(pair) for pair in head.headers.items()],
        }  # fmt: skip

    def _answer(self, protocol: str) -> Callable[[dict[str, Any], str], Answer]:
        def answer(output: dict[str, Any], request_id: str) -> Answer:
            headers = [
                (name.lower(), value)
                for name, value in output["Headers"]
                if _NAME.fullmatch(name) and name.lower() not in _OURS
            ]
            headers.append(("x-amzn-requestid", request_id))
            return Answer(output["StatusCode"], headers, output["Body"])

        return answer


class CallCodec(Codec):
    """The service ``execute-api``."""

    compiled = _Operation
    anonymous = True

    def route(self, head: Head, body: bytes | None) -> tuple[str, str]:
        _place(head)
        return "Invoke", self.protocol


SPECIAL["execute-api"] = CallCodec

"""A refusal as the protocols say it, so that ``response["Error"]["Code"]`` of a client is what AWS has there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cbor2
import orjson

from bastide.domain import Refused
from bastide.protocol.head import Answer
from bastide.protocol.xml import escape

XML = "text/xml"
S3_XML = "application/xml"


def json_type(version: str) -> str:
    """The media type of the json protocol."""
    return f"application/x-amz-json-{version}"


def rpc_headers(content_type: str, request_id: str) -> list[tuple[str, str]]:
    """The headers of an answer of the json and query protocols."""
    return [("content-type", content_type), ("x-amzn-requestid", request_id)]


def fault(status: int) -> str:
    """Who is to blame, as query errors say it."""
    return "Sender" if status < 500 else "Receiver"


def json_error(
    protocol: str, code: str, message: Mapping[str, Any], status: int, request_id: str, version: str
) -> Answer:
    """An error of json or rest-json; `message` holds its members, the message among them."""
    if protocol == "json":
        body = orjson.dumps({"__type": code, **message})
        return Answer(status, rpc_headers(json_type(version), request_id), body)
    headers = rpc_headers("application/json", request_id)
    headers.append(("x-amzn-errortype", code))
    return Answer(status, headers, orjson.dumps(message))


def cbor_error(code: str, message: Mapping[str, Any], status: int, request_id: str) -> Answer:
    """An error of smithy-rpc-v2-cbor."""
    headers = rpc_headers("application/cbor", request_id)
    headers.append(("smithy-protocol", "rpc-v2-cbor"))
    return Answer(status, headers, cbor2.dumps({"__type": code, **message}))


def query_error(
    code: str, message: str, inner: str, status: int, request_id: str, namespace: str = "", blame: str | None = None
) -> Answer:
    """An error of the query protocol, and of rest-xml apart from S3; `inner`: further members as XML."""
    body = (
        f"<ErrorResponse{namespace}><Error><Type>{blame or fault(status)}</Type><Code>{escape(code)}</Code>"
        f"<Message>{escape(message)}</Message>{inner}</Error><RequestId>{escape(request_id)}</RequestId></ErrorResponse>"
    )
    return Answer(status, rpc_headers(XML, request_id), body.encode())


def ec2_error(code: str, message: str, inner: str, status: int, request_id: str) -> Answer:
    """An error of the ec2 protocol."""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Response><Errors><Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message>{inner}</Error>"
        f"</Errors><RequestID>{escape(request_id)}</RequestID></Response>"
    )
    return Answer(status, rpc_headers("text/xml;charset=UTF-8", request_id), body.encode())


def s3_error(code: str, message: str, inner: str, status: int, request_id: str, host_id: str) -> Answer:
    """An error of S3."""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message>{inner}"
        f"<RequestId>{escape(request_id)}</RequestId><HostId>{escape(host_id)}</HostId></Error>"
    )
    headers = [("content-type", S3_XML), ("x-amz-request-id", request_id), ("x-amz-id-2", host_id)]
    return Answer(status, headers, body.encode())


def plain_members(members: Mapping[str, Any]) -> str:
    """Members that no model describes, as XML elements of their text."""
    return "".join(
        f"<{name}>{escape(str(value))}</{name}>"
        for name, value in members.items()
        if value is not None and name.isascii() and name.isidentifier()
    )


def error_for(protocol: str, refused: Refused, request_id: str, host_id: str = "", *, version: str = "1.1") -> Answer:
    """A refusal before any operation is known."""
    if protocol == "query":
        return query_error(refused.code, refused.message, "", refused.status, request_id)
    if protocol == "ec2":
        return ec2_error(refused.code, refused.message, "", refused.status, request_id)
    if protocol == "rest-xml":
        inner = plain_members(refused.members)
        return s3_error(refused.code, refused.message, inner, refused.status, request_id, host_id)
    if protocol == "smithy-rpc-v2-cbor":
        return cbor_error(refused.code, {"message": refused.message}, refused.status, request_id)
    members = {"message": refused.message}
    return json_error(protocol, refused.code, members, refused.status, request_id, version)

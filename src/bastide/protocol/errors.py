"""A refusal on the wire, as an operation's model has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bastide.domain import Refused
from bastide.protocol import refusals, rest
from bastide.protocol import xml as xml_
from bastide.protocol.head import Answer

if TYPE_CHECKING:
    from bastide.protocol.operation import OperationCodec

CBOR = "smithy-rpc-v2-cbor"
_STRUCTURED = ("json", CBOR)
_SQS_CODES = {
    "QueueDoesNotExist": "AWS.SimpleQueueService.NonExistentQueue",
    "QueueNameExists": "QueueAlreadyExists",
    "AccessDeniedException": "AccessDenied",
    "KmsAccessDenied": "KMS.AccessDeniedException",
    "KmsDisabled": "KMS.DisabledException",
    "KmsInvalidKeyUsage": "KMS.InvalidKeyUsageException",
    "KmsInvalidState": "KMS.InvalidStateException",
    "KmsNotFound": "KMS.NotFoundException",
    **{
        name: f"AWS.SimpleQueueService.{name}"
        for name in (
            "BatchEntryIdsNotDistinct",
            "BatchRequestTooLong",
            "EmptyBatchRequest",
            "InvalidBatchEntryId",
            "MessageNotInflight",
            "PurgeQueueInProgress",
            "QueueDeletedRecently",
            "TooManyEntriesInBatchRequest",
            "UnsupportedOperation",
        )
    },
}
"""Codes that clients of SQS knew when it spoke query, from its API reference; its model does not have them."""


_SHAPES = {
    "InvalidParameterValue": "InvalidParameterValueException",
    "MissingParameter": "MissingRequiredParameterException",
}
"""What the body calls codes of query that a model has no shape for; the header has the codes."""


def answer(operation: OperationCodec, protocol: str, refused: Refused, request_id: str, host_id: str = "") -> Answer:
    """The response for a refusal: a modelled error by its shape's name or code with the model's status, else as is."""
    shape = _error_shape(operation, refused.code)
    status = refused.status
    trait: Mapping[str, Any] = {}
    if shape is not None:
        trait = shape.metadata.get("error") or {}
        modelled = trait.get("httpStatusCode")
        if modelled is not None:
            status = int(modelled)
        elif xml_.declared(shape).get("fault") and status < 500:
            status = 500
        if (
            operation.service.query_compatible
            and trait.get("code", shape.name) != shape.name
            and protocol in _STRUCTURED
        ):
            # The modelled status of a custom code is the former query service's.
            status = 400 if status < 500 else 500
    xml_code = str(trait.get("code") or (shape.name if shape is not None else refused.code))
    if operation.service.service == "sqs":
        xml_code = _SQS_CODES.get(xml_code, xml_code)
    headers: list[tuple[str, str]] = []
    members: dict[str, Any] = dict(refused.members)
    if shape is not None and protocol.startswith("rest-"):
        members = rest.HeadWriters(shape).write(members, headers.append)
    if protocol in ("json", "rest-json", CBOR):
        answer = _structured_error(operation, protocol, refused, shape, members, status, request_id)
        if operation.service.query_compatible and protocol in _STRUCTURED:
            blame = "Receiver" if status >= 500 else "Sender"
            answer.headers.append(("x-amzn-query-error", f"{xml_code};{blame}"))
    else:
        inner = _xml_members(operation, shape, members)
        if protocol == "ec2":
            answer = refusals.ec2_error(xml_code, refused.message, inner, status, request_id)
        elif protocol == "rest-xml" and operation.service.service == "s3":
            host = host_id or request_id
            answer = refusals.s3_error(xml_code, refused.message, inner, status, request_id, host)
            if operation.method == "HEAD":
                answer.body = b""
        else:
            blame = "Receiver" if status >= 500 else "Sender"
            inner += "<Detail/>" if operation.service.service == "sqs" else ""
            answer = refusals.query_error(
                xml_code, refused.message, inner, status, request_id, operation.service.xmlns, blame
            )
    answer.headers.extend(headers)
    return answer


def _error_shape(operation: OperationCodec, code: str) -> Any:
    for shape in operation.model.error_shapes:
        trait = shape.metadata.get("error") or {}
        if code in (shape.name, trait.get("code")):
            return shape
    return operation.service.error_shape(code)


def _structured_error(
    operation: OperationCodec,
    protocol: str,
    refused: Refused,
    shape: Any,
    members: dict[str, Any],
    status: int,
    request_id: str,
) -> Answer:
    content: dict[str, Any]
    if shape is None:
        content = {"message": refused.message, **members}
        code = _SHAPES.get(refused.code, refused.code) if operation.service.query_compatible else refused.code
    else:
        named = next((name for name in shape.members if name.lower() == "message"), None)
        if named is not None and refused.message:
            members.setdefault(named, refused.message)
        content = operation.service.writers(protocol == CBOR).structure(shape)(members)
        if named is None and refused.message:
            content.setdefault("message", refused.message)
        if operation.service.service == "lambda" and "Type" in shape.members:
            content.setdefault("Type", "Service" if status >= 500 else "User")
        code = shape.name
    if protocol == CBOR:
        return refusals.cbor_error(code, content, status, request_id)
    return refusals.json_error(protocol, code, content, status, request_id, operation.service.json_version)


def _xml_members(operation: OperationCodec, shape: Any, members: dict[str, Any]) -> str:
    members = {name: value for name, value in members.items() if name.lower() != "message"}
    if shape is None or any(name not in shape.members for name in members):
        return refusals.plain_members(members)
    pieces: list[str] = []
    operation.service.xml_writers.content(shape)(members, pieces.append)
    return "".join(pieces)

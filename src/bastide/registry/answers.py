"""How the registry answers. Source: OCI Distribution Specification 1.1, "Error Codes"."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bastide.domain import Refused

_CODES: Final = {
    "AccessDeniedException": (403, "DENIED"),
    "AccessDenied": (403, "DENIED"),
    "UnrecognizedClientException": (401, "UNAUTHORIZED"),
    "ExpiredTokenException": (403, "DENIED"),
    "RepositoryNotFoundException": (404, "NAME_UNKNOWN"),
    "ImageNotFoundException": (404, "MANIFEST_UNKNOWN"),
    "LayersNotFoundException": (404, "BLOB_UNKNOWN"),
    "ReferencedImagesNotFoundException": (404, "MANIFEST_BLOB_UNKNOWN"),
    "ScanNotFoundException": (404, "MANIFEST_UNKNOWN"),
    "UploadNotFoundException": (404, "BLOB_UPLOAD_UNKNOWN"),
    "InvalidLayerPartException": (416, "BLOB_UPLOAD_INVALID"),
    "InvalidLayerException": (400, "DIGEST_INVALID"),
    "EmptyUploadException": (400, "BLOB_UPLOAD_INVALID"),
    "LayerPartTooSmallException": (400, "SIZE_INVALID"),
    "ImageDigestDoesNotMatchException": (400, "DIGEST_INVALID"),
    "ImageTagAlreadyExistsException": (400, "TAG_INVALID"),
    "InvalidParameterException": (400, "MANIFEST_INVALID"),
    "LimitExceededException": (429, "TOOMANYREQUESTS"),
    "KmsException": (403, "DENIED"),
    "Unsupported": (405, "UNSUPPORTED"),
    "NotFound": (404, "NAME_UNKNOWN"),
}

INDEX: Final = "application/vnd.oci.image.index.v1+json"
_CHALLENGE: Final = 'Basic realm="ecr",service="ecr.amazonaws.com"'


@dataclass(slots=True)
class Answer:
    """status, head: names in lower case. stream: the body instead of `body`, if its length is in the head."""

    status: int
    head: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None


def _error(status: int, code: str, message: str) -> Answer:
    told = {"errors": [{"code": code, "message": message}]}
    return Answer(status, {"content-type": "application/json"}, orjson.dumps(told))


def refused(given: Refused) -> Answer:
    """A refusal in the registry's words."""
    status, code = _CODES.get(given.code, (given.status, "UNKNOWN"))
    answer = _error(status, code, given.message)
    if status == 401:
        answer.head["www-authenticate"] = _CHALLENGE
    return answer


def challenge() -> Answer:
    """What a client that has not logged in is told."""
    answer = _error(401, "UNAUTHORIZED", "Log in with a token of GetAuthorizationToken.")
    answer.head["www-authenticate"] = _CHALLENGE
    return answer


def trouble() -> Answer:
    """What nobody foresaw."""
    return _error(500, "UNKNOWN", "An internal error occurred.")


def digest_of(raw: bytes) -> str:
    """The digest of some bytes."""
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def subject_of(raw: bytes) -> str:
    """The digest of what a manifest that was taken is about, empty if it is about nothing."""
    told = orjson.loads(raw)
    subject = told.get("subject") if isinstance(told, dict) else None
    return str(subject["digest"]) if subject else ""


async def send(send: Any, answer: Answer, method: str, request_id: str, *, close: bool) -> None:
    """Sends an answer."""
    head = {"docker-distribution-api-version": "registry/2.0", **answer.head}
    if request_id:
        head["x-amzn-requestid"] = request_id
    if close:
        head["connection"] = "close"
    if answer.status != 204:
        head.setdefault("content-length", str(len(answer.body)))
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if method == "HEAD" or answer.stream is None:
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else answer.body})
        return
    async for piece in answer.stream:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})

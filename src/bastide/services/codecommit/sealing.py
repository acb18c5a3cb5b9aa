"""Packs at rest: each repository has a data key, which its KMS key wraps; every call that reads or writes content has it
unwrapped for its caller.

Source: AWS CodeCommit User Guide, "AWS Key Management Service and encryption for AWS CodeCommit repositories" (the key is
used for whoever asks; encryption context ``aws:codecommit:id``).
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.artifacts import Artifacts
from bastide.kernel import Authorised
from bastide.services.codecommit.noun import PRINCIPAL
from bastide.store import Row, View

_MANAGED: Final = "alias/aws/codecommit"
_CODES: Final = {
    "DisabledException": "EncryptionKeyDisabledException",
    "NotFoundException": "EncryptionKeyNotFoundException",
    "KMSInvalidStateException": "EncryptionKeyUnavailableException",
    "InvalidCiphertextException": "EncryptionIntegrityChecksFailedException",
    "IncorrectKeyException": "EncryptionIntegrityChecksFailedException",
    "AccessDeniedException": "EncryptionKeyAccessDeniedException",
}


def _context(id: str) -> dict[str, str]:
    return {"aws:codecommit:id": id}


def _kms(a: Authorised, view: View, operation: str, given: dict[str, Any]) -> dict[str, Any]:
    via = f"codecommit.{a.region}.amazonaws.com"
    try:
        return a.forward(view, "kms", operation, given, PRINCIPAL, kms__ViaService=via)
    except Refused as refused:
        code = _CODES.get(refused.code, "EncryptionKeyUnavailableException")
        if operation != "Decrypt" and code == "EncryptionKeyUnavailableException":
            code = "EncryptionKeyInvalidUsageException"
        raise Refused(
            code, f"The encryption key of the repository cannot be used: {refused.message} ({refused.code})",
            refused.status, kept=refused.kept,
        ) from None  # fmt: skip


def founded(a: Authorised, view: View, id: str, key: str) -> dict[str, Any]:
    """What a new repository's row keeps of its key. key: a KMS key of the caller's; the AWS managed one without."""
    given = {"KeyId": key or _MANAGED, "KeySpec": "AES_256", "EncryptionContext": _context(id)}
    made = _kms(a, view, "GenerateDataKeyWithoutPlaintext", given)
    return {"kms": made["KeyId"], "wrapped": base64.b64encode(made["CiphertextBlob"]).decode()}


def opened(a: Authorised, view: View, row: Row) -> bytes:
    """The data key of a repository; raises Refused as KMS does for the caller."""
    blob = base64.b64decode(row.doc["wrapped"])
    given = {"CiphertextBlob": blob, "EncryptionContext": _context(row.doc["id"])}
    plain: bytes = _kms(a, view, "Decrypt", given)["Plaintext"]
    return plain


def moved(a: Authorised, view: View, row: Row, key: str) -> dict[str, Any]:
    """The same data key under another KMS key. The packs stay as they lie, so that they are readable at every moment."""
    plain = opened(a, view, row)
    made = _kms(a, view, "Encrypt", {"KeyId": key, "Plaintext": plain, "EncryptionContext": _context(row.doc["id"])})
    return {"kms": made["KeyId"], "wrapped": base64.b64encode(made["CiphertextBlob"]).decode()}


async def content(artifacts: Artifacts, key: bytes, file: str) -> AsyncIterator[bytes]:
    """The bytes of a pack."""
    async for piece in artifacts.open(file, key):
        yield piece

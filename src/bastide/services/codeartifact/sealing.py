"""Packages at rest: every content under a key of its own, which the domain's KMS key or the platform's wraps.

Of a domain with a KMS key CodeArtifact holds a grant that whoever made the domain gave it; so who installs needs no
permission on the key, and nobody does when the key is disabled or the grant is gone. Source: AWS CodeArtifact User Guide,
"Data encryption"; without a key of one's own AWS uses its managed key, which here is the platform's and has no ARN.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.engines.artifacts import SMALL, Artifacts
from bastide.engines.keys import RootKey, new_material
from bastide.kernel import Authorised, Calls, service_caller
from bastide.services.codeartifact.noun import DOMAIN, PRINCIPAL, invalid
from bastide.store import Row, Transaction

_CONTEXT: Final = "aws:codeartifact:arn"


def _failed(refused: Refused) -> Refused:
    return Refused(
        "AccessDeniedException",
        f"The KMS key of the domain cannot be used: {refused.message} ({refused.code})",
        403,
        kept=refused.kept,
    )


def founded(a: Authorised, tx: Transaction, arn: str) -> str:
    """The ARN of a new domain's key, empty without one of its own; raises Refused where the key cannot be had."""
    key = a.input.get("encryptionKey")
    if not key:
        return ""
    try:
        found = a.forward(tx, "kms", "DescribeKey", {"KeyId": key}, PRINCIPAL)["KeyMetadata"]
        if found.get("KeySpec", "SYMMETRIC_DEFAULT") != "SYMMETRIC_DEFAULT":
            raise invalid("encryptionKey is a symmetric KMS key.")
        granted = {
            "KeyId": found["Arn"],
            "GranteePrincipal": PRINCIPAL,
            "RetiringPrincipal": PRINCIPAL,
            "Operations": ["GenerateDataKey", "Decrypt", "RetireGrant"],
            "Constraints": {"EncryptionContextSubset": {_CONTEXT: arn}},
        }
        a.forward(tx, "kms", "CreateGrant", granted, PRINCIPAL)
    except Refused as refused:
        if refused.code in ("AccessDeniedException", "ValidationException"):
            raise
        raise invalid(f"encryptionKey cannot be used: {refused.message} ({refused.code})") from None
    return str(found["Arn"])


def _purpose(domain: Row) -> bytes:
    return f"codeartifact/{domain.account}/{domain.region}/{domain.name}".encode()


async def _kms(calls: Calls, domain: Row, operation: str, given: Mapping[str, Any]) -> dict[str, Any]:
    arn, key = DOMAIN.arn(domain.account, domain.region, domain.name), domain.doc["key"]
    caller = service_caller(PRINCIPAL, domain.account, arn)
    asked = {"KeyId": key, "EncryptionContext": {_CONTEXT: arn}, **given}
    try:
        return await calls.act(caller, "kms", operation, asked, region=Arn.parse(key).region, source=PRINCIPAL)
    except Refused as refused:
        raise _failed(refused) from None


async def new_key(calls: Calls, domain: Row) -> tuple[bytes, str]:
    """A key of 32 bytes for one content, and what is kept of it; raises AccessDeniedException."""
    if not domain.doc["key"]:
        plain = new_material()
        return plain, base64.b64encode(calls.engine(RootKey).wrap(plain, _purpose(domain))).decode()
    made = await _kms(calls, domain, "GenerateDataKey", {"KeySpec": "AES_256"})
    return made["Plaintext"], base64.b64encode(made["CiphertextBlob"]).decode()


async def open_key(calls: Calls, domain: Row, kept: str) -> bytes:
    """The key again; raises AccessDeniedException."""
    blob = base64.b64decode(kept)
    if not domain.doc["key"]:
        return calls.engine(RootKey).unwrap(blob, _purpose(domain))
    plain: bytes = (await _kms(calls, domain, "Decrypt", {"CiphertextBlob": blob}))["Plaintext"]
    return plain


async def content(calls: Calls, domain: Row, held: Mapping[str, Any]) -> AsyncIterator[bytes]:
    """The bytes of a content's doc. The key is opened first: what is refused is so before a byte is read."""
    key = await open_key(calls, domain, held["key"])
    return calls.engine(Artifacts).open(held["file"], key)


async def whole(calls: Calls, domain: Row, held: Mapping[str, Any]) -> bytes:
    """All bytes of a content that is small."""
    return b"".join([piece async for piece in await content(calls, domain, held)])


async def drop(calls: Calls, files: list[str]) -> None:
    """Forgets files that no content names any more. What cannot be removed now is so at the next start."""
    for one in files:
        with contextlib.suppress(OSError):
            await calls.engine(Artifacts).delete(one)


__all__ = ["SMALL", "content", "drop", "founded", "new_key", "open_key", "whole"]

"""Layers at rest: encrypted, each under a key of its own, which the repository's KMS key or the platform's wraps.

Of a repository with a KMS key, ECR holds a grant that whoever made the repository gave it; so who pulls needs no permission
on the key, and nobody pulls when the key is disabled or the grant is gone. Source: Amazon ECR User Guide, "Encryption at
rest".
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.engines.artifacts import Artifacts
from bastide.engines.keys import RootKey, new_material
from bastide.kernel import Authorised, Bytes, Calls, service_caller
from bastide.store import Row, Transaction

PRINCIPAL: Final = "ecr.amazonaws.com"
_CONTEXT: Final = "aws:ecr:arn"
_SMALL: Final = 32 * 1024


def _failed(refused: Refused) -> Refused:
    return Refused(
        "KmsException",
        f"The KMS key of the repository cannot be used: {refused.message} ({refused.code})",
        members={"kmsError": refused.code},
        kept=refused.kept,
    )


def founded(a: Authorised, tx: Transaction, arn: str) -> dict[str, Any]:
    """How a new repository is encrypted, as its row keeps it; raises Refused where the key cannot be had."""
    given = a.input.get("encryptionConfiguration") or {"encryptionType": "AES256"}
    kind, key = given["encryptionType"], given.get("kmsKey")
    if kind == "AES256":
        if key:
            raise Refused("InvalidParameterException", "Invalid parameter: kmsKey belongs to the encryptionType KMS.")
        return {"encryptionType": "AES256"}
    if kind != "KMS" or not key:
        raise Refused(
            "InvalidParameterException",
            "Invalid parameter: encryptionConfiguration is AES256, or KMS with a kmsKey of your own; an AWS managed key "
            "and KMS_DSSE are not supported by Bastide yet.",
        )
    try:
        found = a.forward(tx, "kms", "DescribeKey", {"KeyId": key}, PRINCIPAL)["KeyMetadata"]
        granted = {
            "KeyId": found["Arn"],
            "GranteePrincipal": PRINCIPAL,
            "RetiringPrincipal": PRINCIPAL,
            "Operations": ["GenerateDataKey", "Decrypt", "RetireGrant"],
            "Constraints": {"EncryptionContextSubset": {_CONTEXT: arn}},
        }
        a.forward(tx, "kms", "CreateGrant", granted, PRINCIPAL)
    except Refused as refused:
        if refused.code == "AccessDeniedException":
            raise
        raise _failed(refused) from None
    return {"encryptionType": "KMS", "kmsKey": found["Arn"]}


def purpose(repository: Row) -> bytes:
    """What the platform's key wraps the repository's keys for."""
    return f"ecr/{repository.account}/{repository.region}/{repository.name}".encode()


def context_of(repository: Row) -> dict[str, str]:
    """The encryption context of the repository's keys."""
    return {_CONTEXT: f"arn:aws:ecr:{repository.region}:{repository.account}:repository/{repository.name}"}


async def _kms(calls: Calls, repository: Row, operation: str, given: Mapping[str, Any]) -> dict[str, Any]:
    arn = f"arn:aws:ecr:{repository.region}:{repository.account}:repository/{repository.name}"
    caller = service_caller(PRINCIPAL, repository.account, arn)
    key = repository.doc["encryptionConfiguration"]["kmsKey"]
    asked = {"KeyId": key, "EncryptionContext": context_of(repository), **given}
    try:
        return await calls.act(caller, "kms", operation, asked, region=Arn.parse(key).region, source=PRINCIPAL)
    except Refused as refused:
        raise _failed(refused) from None


async def new_key(calls: Calls, repository: Row) -> tuple[bytes, str]:
    """A key of 32 bytes for one layer, and what is kept of it; raises KmsException."""
    if repository.doc["encryptionConfiguration"]["encryptionType"] == "AES256":
        plain = new_material()
        return plain, base64.b64encode(calls.engine(RootKey).wrap(plain, purpose(repository))).decode()
    made = await _kms(calls, repository, "GenerateDataKey", {"KeySpec": "AES_256"})
    return made["Plaintext"], base64.b64encode(made["CiphertextBlob"]).decode()


async def open_key(calls: Calls, repository: Row, kept: str) -> bytes:
    """The key again; raises KmsException."""
    blob = base64.b64decode(kept)
    if repository.doc["encryptionConfiguration"]["encryptionType"] == "AES256":
        return calls.engine(RootKey).unwrap(blob, purpose(repository))
    plain: bytes = (await _kms(calls, repository, "Decrypt", {"CiphertextBlob": blob}))["Plaintext"]
    return plain


async def store(calls: Calls, data: bytes, key: bytes) -> str:
    """Writes a part; its id."""
    artifacts = calls.engine(Artifacts)
    if len(data) <= _SMALL:
        return (await artifacts.write_small(data, key)).id
    return (await artifacts.write(Bytes(data).chunks(), key)).id


async def content(calls: Calls, parts: list[str], key: bytes) -> AsyncIterator[bytes]:
    """The bytes of a layer, part after part."""
    for id in parts:
        async for piece in calls.engine(Artifacts).open(id, key):
            yield piece


async def drop(a: Authorised, id: str) -> None:
    """Forgets a part."""
    await a.engine(Artifacts).delete(id)

"""Contents of secrets: each version under a data key of its own, which KMS gives the caller.

The encryption context is AWS's (``SecretARN``, ``SecretVersionId``). Source: User Guide, "Secret encryption and
decryption".
"""

from __future__ import annotations

import base64
import uuid
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.engines import keys as engine
from bastide.kernel import Asked, Authorised
from bastide.store import Row, Transaction, View

_PRINCIPAL: Final = "secretsmanager.amazonaws.com"
_MANAGED: Final = "alias/aws/secretsmanager"
_DEFAULT: Final = "DefaultEncryptionKey"
_LARGEST: Final = 65536
_MOST_STAGES: Final = 20
_MOST_VERSIONS: Final = 100

Content = tuple[str, bytes]
"""Which member it came in (``SecretString`` or ``SecretBinary``), and the bytes."""


def key_arn(asked: Asked, given: Any) -> str | None:
    """The ARN of a key that is named by ARN or by its id; None for an alias, whose key only KMS knows."""
    if not given or "alias/" in str(given):
        return None
    text = str(given)
    return text if text.startswith("arn:") else f"arn:aws:kms:{asked.call.region}:{asked.call.account}:key/{text}"


def content(a: Authorised) -> Content | None:
    """What the call puts into a secret; raises InvalidParameterException."""
    text, binary = a.input.get("SecretString"), a.input.get("SecretBinary")
    if text is not None and binary is not None:
        raise Refused(
            "InvalidParameterException", "You can't specify both a binary secret value and a string secret value."
        )
    if text is None and binary is None:
        return None
    found = ("SecretString", str(text).encode()) if text is not None else ("SecretBinary", bytes(binary or b""))
    if not 1 <= len(found[1]) <= _LARGEST:
        raise Refused("InvalidParameterException", f"A secret value has 1 to {_LARGEST} bytes.")
    return found


def version_id(a: Authorised) -> str:
    """The id of a new version: the request's token."""
    return str(a.input.get("ClientRequestToken") or uuid.uuid4())


def _kms(a: Authorised, view: View, operation: str, given: dict[str, Any], failure: str) -> dict[str, Any]:
    via = f"secretsmanager.{a.region}.amazonaws.com"
    try:
        return a.forward(view, "kms", operation, given, _PRINCIPAL, kms__ViaService=via)
    except Refused as refused:
        if refused.code == "AccessDeniedException":
            raise Refused(
                "AccessDeniedException", f"Access to KMS is not allowed: {refused.message}", kept=refused.kept
            ) from None
        raise Refused(
            failure,
            f"Secrets Manager can't use the secret's KMS key: {refused.message} ({refused.code})",
            kept=refused.kept,
        ) from None


def _own(a: Authorised, where: str, keyed: bool) -> None:
    """Raises Refused (InvalidRequestException) for another account's secret under a key that only its account uses."""
    if not keyed and Arn.parse(where).account != a.account:
        raise Refused(
            "InvalidRequestException",
            "You can't access a secret from a different AWS account if you encrypt the secret with the default KMS service "
            "key.",
        )


def sealed(a: Authorised, tx: Transaction, where: str, key: str, id: str, content: Content) -> dict[str, Any]:
    """What a row keeps of a version."""
    member, raw = content
    context = {"SecretARN": where, "SecretVersionId": id}
    _own(a, where, bool(key))
    given = {"KeyId": key or _MANAGED, "KeySpec": "AES_256", "EncryptionContext": context}
    made = _kms(a, tx, "GenerateDataKey", given, "EncryptionFailure")
    return {
        "member": member,
        "created": a.now,
        "key": made["KeyId"] if key else _DEFAULT,
        "wrapped": base64.b64encode(made["CiphertextBlob"]).decode(),
        "sealed": base64.b64encode(engine.encrypt(made["Plaintext"], where, 1, raw, context)).decode(),
    }


def opened(a: Authorised, view: View, where: str, id: str, version: dict[str, Any]) -> Content:
    """The content of a version; raises Refused as KMS does for the caller."""
    context = {"SecretARN": where, "SecretVersionId": id}
    _own(a, where, version["key"] != _DEFAULT)
    given = {"CiphertextBlob": base64.b64decode(version["wrapped"]), "EncryptionContext": context}
    made = _kms(a, view, "Decrypt", given, "DecryptionFailure")
    return version["member"], engine.decrypt(made["Plaintext"], base64.b64decode(version["sealed"]), context)


def add(a: Authorised, tx: Transaction, row: Row, content: Content, stages: list[str]) -> str:
    """Adds a version to a row that the caller then saves, and moves the stages to it; returns its id.

    The same token with the same content changes nothing; with another it is ResourceExistsException.
    """
    id = version_id(a)
    versions: dict[str, dict[str, Any]] = row.doc["versions"]
    held = versions.get(id)
    if held is not None:
        if opened(a, tx, row.doc["arn"], id, held) != content:
            raise Refused(
                "ResourceExistsException",
                f"You can't use ClientRequestToken {id} because that value is already in use for a version of secret "
                f"{row.doc['arn']}.",
            )
        return id
    if "AWSCURRENT" in stages:  # what was pending and became current is over with it
        for one in versions.values():
            if "AWSCURRENT" in one["stages"] and "AWSPENDING" in one["stages"]:
                one["stages"].remove("AWSPENDING")
    if not any(one["stages"] for one in versions.values()) and "AWSCURRENT" not in stages:
        stages = [*stages, "AWSCURRENT"]
    versions[id] = {"stages": [], **sealed(a, tx, row.doc["arn"], row.doc["KmsKeyId"], id, content)}
    for stage in stages:
        move(versions, stage, id)
    forget(versions)
    return id


def move(versions: dict[str, dict[str, Any]], stage: str, to: str | None) -> None:
    """Moves a stage to a version, or takes it away; what loses AWSCURRENT becomes AWSPREVIOUS."""
    before = next((id for id, one in versions.items() if stage in one["stages"]), None)
    if before is not None:
        versions[before]["stages"].remove(stage)
    if to is None:
        return
    versions[to]["stages"].append(stage)
    if len(versions[to]["stages"]) > _MOST_STAGES:
        raise Refused("LimitExceededException", f"A version may have {_MOST_STAGES} stages at most.")
    if stage == "AWSCURRENT" and before is not None and before != to:
        move(versions, "AWSPREVIOUS", before)
        if "AWSPREVIOUS" in versions[to]["stages"]:
            versions[to]["stages"].remove("AWSPREVIOUS")


def forget(versions: dict[str, dict[str, Any]]) -> None:
    """Versions without a stage go, oldest first, once there are more than a hundred."""
    loose = sorted((one["created"], id) for id, one in versions.items() if not one["stages"])
    for _, id in loose[: max(0, len(versions) - _MOST_VERSIONS)]:
        del versions[id]

"""The key of a job's or an endpoint's volume."""

from __future__ import annotations

import os

from bastide.domain import Refused
from bastide.engines.workflow import Failed
from bastide.services.sagemaker.session import RoleSession


async def volume_key(session: RoleSession, kms_key: str | None) -> bytes:
    """The key of a volume: 32 bytes that only this process knows, from KMS where the request names a key. Raises Failed
    where the role may not use it."""
    if not kms_key:
        return os.urandom(32)
    try:
        via = {"kms:viaservice": f"sagemaker.{session.region}.amazonaws.com"}
        made = await session.act("kms", "GenerateDataKey", {"KeyId": kms_key, "KeySpec": "AES_256"}, context=via)
    except Refused as refused:
        raise Failed(
            "ClientError", f"The volume's key cannot be used: {refused.code}: {refused.message} ({kms_key})"
        ) from None
    key: bytes = made["Plaintext"]
    return key

"""What executions carry lies encrypted: under a key of the platform, or under a data key of the customer's KMS key.

The data key is bound to the state machine by its encryption context (``aws:states:stateMachineArn``, of activities
``aws:states:activityArn``). Who asks KMS: whoever calls an operation, for what the answer shows; the machine's role, for
what an execution does. Source: Step Functions developer guide, "Data at rest encryption in Step Functions".
"""

from __future__ import annotations

import base64
import os
import zlib
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bastide.domain import Refused
from bastide.engines.keys import RootKey
from bastide.kernel import Authorised, Caller, Calls
from bastide.services.states.noun import PRINCIPAL
from bastide.store import View

_NONCE: Final = 12
CUSTOMER: Final = "CUSTOMER_MANAGED_KMS_KEY"
OWNED: Final = "AWS_OWNED_KEY"


class Cipher:
    """Seals JSON for one owner of data. wrapped: the customer's data key as KMS gave it, base64; else empty."""

    __slots__ = ("_key", "_who", "wrapped")

    def __init__(self, key: bytes, who: str, wrapped: str = "") -> None:
        self._key = AESGCM(key)
        self._who = who.encode()
        self.wrapped = wrapped

    def seal(self, value: Any) -> bytes:
        """A value as it is kept."""
        return self._sealed(orjson.dumps(value))

    def _sealed(self, raw: bytes) -> bytes:
        packed = b"\x01" + zlib.compress(raw, 1) if len(raw) > 2000 else b"\x00" + raw
        nonce = os.urandom(_NONCE)
        return nonce + self._key.encrypt(nonce, packed, self._who)

    def open(self, kept: bytes) -> Any:
        """What was sealed; raises ValueError for anything else."""
        try:
            packed = self._key.decrypt(kept[:_NONCE], kept[_NONCE:], self._who)
        except InvalidTag:
            raise ValueError("what is kept of an execution was changed") from None
        return orjson.loads(zlib.decompress(packed[1:]) if packed[0] else packed[1:])

    def text(self, value: Any) -> str:
        """As `seal`, for a row's document."""
        return base64.b64encode(self.seal(value)).decode()

    def packed(self, raw: bytes) -> str:
        """As `text`, of JSON."""
        return base64.b64encode(self._sealed(raw)).decode()

    def read(self, text: str) -> Any:
        """What `text` gave."""
        return self.open(base64.b64decode(text))


def check(given: dict[str, Any] | None) -> dict[str, Any]:
    """An encryptionConfiguration as it is kept; raises InvalidEncryptionConfiguration."""
    if not given or given.get("type") == OWNED:
        if given and (given.get("kmsKeyId") or given.get("kmsDataKeyReusePeriodSeconds")):
            raise Refused(
                "InvalidEncryptionConfiguration",
                "Invalid Encryption Configuration: 'kmsKeyId and kmsDataKeyReusePeriodSeconds belong to "
                "CUSTOMER_MANAGED_KMS_KEY'",
            )
        return {"type": OWNED}
    if given.get("type") != CUSTOMER or not given.get("kmsKeyId"):
        raise Refused("InvalidEncryptionConfiguration", "Invalid Encryption Configuration: 'kmsKeyId is required'")
    seconds = int(given.get("kmsDataKeyReusePeriodSeconds") or 300)
    if not 60 <= seconds <= 900:
        raise Refused(
            "InvalidEncryptionConfiguration",
            "Invalid Encryption Configuration: 'kmsDataKeyReusePeriodSeconds is from 60 to 900'",
        )
    return {"type": CUSTOMER, "kmsKeyId": given["kmsKeyId"], "kmsDataKeyReusePeriodSeconds": seconds}


def plain(calls: Calls, who: str) -> Cipher:
    """The platform's cipher for something (its ARN)."""
    return Cipher(calls.engine(RootKey).derive("states"), who)


def _context(who: str) -> dict[str, str]:
    return {"aws:states:activityArn" if ":activity:" in who else "aws:states:stateMachineArn": who}


def refusal(refused: Refused) -> Refused:
    """What Step Functions makes of a refusal of KMS."""
    if refused.code in (
        "DisabledException",
        "KMSInvalidStateException",
        "NotFoundException",
        "InvalidKeyUsageException",
    ):
        state = {"DisabledException": "DISABLED", "KMSInvalidStateException": "PENDING_DELETION"}.get(refused.code)
        return Refused(
            "KmsInvalidStateException",
            f"The KMS key is not in a state in which it can be used: {refused.message}",
            members={"kmsKeyState": state} if state else {},
            kept=refused.kept,
        )
    if refused.code == "ThrottlingException":
        return Refused("KmsThrottlingException", refused.message)
    return Refused(
        "KmsAccessDeniedException", f"Access to the KMS key is not allowed: {refused.message}", kept=refused.kept
    )


def new(a: Authorised, view: View, who: str, configuration: dict[str, Any]) -> Cipher:
    """A cipher for new data, with a data key that the caller gets; raises Refused."""
    if configuration.get("type") != CUSTOMER:
        return plain(a.calls, who)
    given = {"KeyId": configuration["kmsKeyId"], "KeySpec": "AES_256", "EncryptionContext": _context(who)}
    try:
        made = a.forward(
            view, "kms", "GenerateDataKey", given, PRINCIPAL, kms__ViaService=f"states.{a.region}.amazonaws.com"
        )
    except Refused as refused:
        raise refusal(refused) from None
    return Cipher(made["Plaintext"], who, base64.b64encode(made["CiphertextBlob"]).decode())


def opened(a: Authorised, view: View, who: str, wrapped: str) -> Cipher:
    """The cipher of data that are there, for the caller; raises Refused."""
    if not wrapped:
        return plain(a.calls, who)
    given = {"CiphertextBlob": base64.b64decode(wrapped), "EncryptionContext": _context(who)}
    try:
        made = a.forward(view, "kms", "Decrypt", given, PRINCIPAL, kms__ViaService=f"states.{a.region}.amazonaws.com")
    except Refused as refused:
        raise refusal(refused) from None
    return Cipher(made["Plaintext"], who, wrapped)


async def by_role(calls: Calls, caller: Caller, region: str, who: str, *, key: str = "", wrapped: str = "") -> Cipher:
    """A cipher that a machine's role gets from KMS: a new one of a key, or one that was wrapped; raises Refused."""
    operation = "Decrypt" if wrapped else "GenerateDataKey"
    given: dict[str, Any] = {"KeyId": key, "KeySpec": "AES_256"}
    if wrapped:
        given = {"CiphertextBlob": base64.b64decode(wrapped)}
    given["EncryptionContext"] = _context(who)
    try:
        made = await calls.act(
            caller,
            "kms",
            operation,
            given,
            region=region,
            source=PRINCIPAL,
            context={"kms:viaservice": f"states.{region}.amazonaws.com"},
        )
    except Refused as refused:
        raise refusal(refused) from None
    return Cipher(made["Plaintext"], who, wrapped or base64.b64encode(made["CiphertextBlob"]).decode())

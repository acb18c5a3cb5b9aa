"""Lines lie encrypted: under a key of the platform, or under one that the customer's KMS key wraps.

A group keeps its wrapped keys in order and a sealed line says which one it needs, so what was written before a key was
associated stays as it is. Source: CloudWatch Logs User Guide, "Encrypt log data in CloudWatch Logs using AWS KMS".
"""

from __future__ import annotations

import base64
import os
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bastide.domain import Refused
from bastide.engines.keys import RootKey
from bastide.kernel import Authorised, Output, service_caller
from bastide.store import Row, View

_NONCE: Final = 12
_HEAD: Final = 2


def group_arn(row: Row) -> str:
    """The ARN that is the encryption context."""
    return f"arn:aws:logs:{row.region}:{row.account}:log-group:{row.name}"


def _kms(a: Authorised, view: View, row: Row, operation: str, given: dict[str, Any]) -> Output:
    principal, arn = f"logs.{row.region}.amazonaws.com", group_arn(row)
    given = {**given, "EncryptionContext": {"aws:logs:arn": arn}}
    caller = service_caller(principal, row.account, arn)
    return a.calls.forward(a, view, "kms", operation, given, principal, {}, caller=caller)


def associate(a: Authorised, view: View, row: Row, key: str) -> None:
    """Gives a group a key that a KMS key (its ARN) wraps, for lines from now on; raises Refused if Logs may not use it."""
    if not key.startswith("arn:"):
        raise Refused("InvalidParameterException", "The specified KMS Key Id must be a key ARN.")
    try:
        made = _kms(a, view, row, "GenerateDataKeyWithoutPlaintext", {"KeyId": key, "KeySpec": "AES_256"})
    except Refused as refused:
        raise Refused(
            "InvalidParameterException",
            f"The specified KMS Key Id could not be found, or its key policy does not let logs.{row.region}.amazonaws.com "
            f"use it with {group_arn(row)}.",
            kept=refused.kept,
        ) from None
    keys = row.doc.setdefault("keys", [])
    keys.append(base64.b64encode(made["CiphertextBlob"]).decode())
    row.doc |= {"kmsKeyId": key, "current": len(keys)}


class Lines:
    """Seals and opens the lines of one stream of a group. Raises Refused where the customer's key cannot be used."""

    def __init__(self, a: Authorised, view: View, group: Row, stream: Row) -> None:
        self._a = a
        self._view = view
        self._group = group
        self._bound = str(stream.doc["lines"])
        self._ciphers: dict[int, AESGCM] = {}

    def _cipher(self, number: int) -> AESGCM:
        found = self._ciphers.get(number)
        if found is None:
            if number == 0:
                key = self._a.engine(RootKey).derive(f"logs/{self._bound}")
            else:
                wrapped = base64.b64decode(self._group.doc["keys"][number - 1])
                try:
                    key = _kms(self._a, self._view, self._group, "Decrypt", {"CiphertextBlob": wrapped})["Plaintext"]
                except Refused as refused:
                    raise Refused(
                        "AccessDeniedException",
                        f"The log group's KMS key cannot be used: {refused.message}",
                        kept=refused.kept,
                    ) from None
            found = self._ciphers[number] = AESGCM(key)
        return found

    def seal(self, text: str) -> bytes:
        """A line as it is kept."""
        number = int(self._group.doc.get("current", 0))
        nonce = os.urandom(_NONCE)
        sealed = self._cipher(number).encrypt(nonce, text.encode("utf-8", "surrogatepass"), self._bound.encode())
        return number.to_bytes(_HEAD, "big") + nonce + sealed

    def open(self, kept: str | bytes) -> str:
        """The line's text. Lines that an older version kept are text."""
        if isinstance(kept, str):
            return kept
        cipher = self._cipher(int.from_bytes(kept[:_HEAD], "big"))
        nonce, sealed = kept[_HEAD : _HEAD + _NONCE], kept[_HEAD + _NONCE :]
        return cipher.decrypt(nonce, sealed, self._bound.encode()).decode("utf-8", "surrogatepass")

"""What is in a message: checked, digested as SDKs verify it, sealed for the disk.

A message lies under a key that is derived for its queue, or under a data key that the queue's KMS key wraps and that
whoever sends may get; it keeps its seal wherever it goes, as on AWS. Source: Amazon SQS Developer Guide, "Amazon SQS
message metadata" ("Calculating the MD5 message digest for message attributes"), "Encryption at rest in Amazon SQS".
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bastide.domain import MICROS, Instant, Refused
from bastide.engines.keys import RootKey
from bastide.kernel import Authorised
from bastide.services.sqs.attributes import REUSE, parameter
from bastide.store import Row, View

_PRINCIPAL: Final = "sqs.amazonaws.com"
_ILLEGAL: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAME: Final = re.compile(r"[\w.-]{1,256}")
_TYPE: Final = re.compile(r"(String|Number|Binary)(\..{1,249})?", re.DOTALL)
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")
_MOST_ATTRIBUTES: Final = 10
_NONCE: Final = 12
_MOST_KEYS: Final = 1000
Attributes = Mapping[str, Mapping[str, Any]]


def attributes(given: Attributes | None) -> int:
    """Checks message attributes; how many bytes they count. Raises InvalidParameterValue."""
    size = 0
    if given and len(given) > _MOST_ATTRIBUTES:
        raise Refused(
            "InvalidParameterValue", f"Number of message attributes [{len(given)}] exceeds the allowed maximum [10]."
        )
    for name, one in (given or {}).items():
        kind = str(one.get("DataType") or "")
        legal = _NAME.fullmatch(name) and not name.lower().startswith(("aws.", "amazon.")) and ".." not in name
        if not legal or name[0] == "." or name[-1] == ".":
            raise parameter("MessageAttributeName", name, "It has letters, digits, hyphens, underscores and periods.")
        if not _TYPE.fullmatch(kind):
            raise Refused("InvalidParameterValue", f"The type of message (user) attribute '{name}' is invalid. It begins "
                          "with String, Number or Binary.")  # fmt: skip
        if one.get("StringListValues") or one.get("BinaryListValues"):
            raise Refused("UnsupportedOperation", f"Message attribute list values are not supported: '{name}'.")
        text, raw = one.get("StringValue"), one.get("BinaryValue")
        if (text is None) == kind.startswith(("String", "Number")) or (raw is None) != (text is not None):
            raise Refused(
                "InvalidParameterValue",
                f"The message (user) attribute '{name}' must contain a non-empty value of the type that it names.",
            )
        value = raw if raw is not None else str(text).encode("utf-8", "surrogatepass")
        if not value:
            raise Refused(
                "InvalidParameterValue",
                f"Message (user) attribute '{name}' must contain a non-empty value of type '{kind}'.",
            )
        if text is not None and _ILLEGAL.search(text):
            raise _contents(f"The message (user) attribute '{name}'", "InvalidParameterValue")
        if kind.startswith("Number") and not _NUMBER.fullmatch(str(text)):
            raise Refused("InvalidParameterValue", f"The value of message (user) attribute '{name}' is no number.")
        size += len(name.encode()) + len(kind.encode()) + len(value)
    return size


def _contents(what: str, code: str = "InvalidMessageContents") -> Refused:
    return Refused(
        code,
        f"{what} has characters that are not allowed: #x9, #xA, #xD, #x20 to #xD7FF, #xE000 to #xFFFD and #x10000 to "
        "#x10FFFF are.",
    )


def body(text: str) -> int:
    """Checks a message's body; how many bytes it has."""
    if not text:
        raise Refused("MissingParameter", "The request must contain the parameter MessageBody.")
    if _ILLEGAL.search(text):
        raise _contents("The message body")
    return len(text.encode())


def md5(text: str) -> str:
    """The digest of a body."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def md5_of(given: Attributes) -> str:
    """The digest of attributes, as SDKs compute it."""
    digest = hashlib.md5(usedforsecurity=False)

    def put(raw: bytes) -> None:
        digest.update(struct.pack("!I", len(raw)) + raw)

    for name in sorted(given):
        one = given[name]
        put(name.encode())
        put(str(one["DataType"]).encode())
        if one.get("BinaryValue") is not None:
            digest.update(b"\x02")
            put(bytes(one["BinaryValue"]))
        else:
            digest.update(b"\x01")
            put(str(one["StringValue"]).encode())
    return digest.hexdigest()


def wanted(given: Attributes, names: Iterable[str]) -> dict[str, Any]:
    """The attributes that ReceiveMessage asks for: by name, by ``prefix.*``, ``All`` or ``.*``."""
    found = {}
    prefixes = tuple(name[:-2] for name in names if name.endswith(".*") and name != ".*")
    every = bool({"All", ".*", "*"} & set(names))
    for name, one in given.items():
        if every or name in names or name.startswith(prefixes):
            found[name] = {key: value for key, value in one.items() if value is not None}
    return found


# -- seals -------------------------------------------------------------------------------------------------------------


class Seals:
    """Data keys that were got from KMS a short while ago, each for the principal that got it."""

    def __init__(self) -> None:
        self._sealing: dict[tuple[str, str, str], tuple[str, bytes, Instant]] = {}
        self._opening: dict[tuple[str, str], tuple[bytes, Instant]] = {}

    def seal(self, a: Authorised, view: View, queue: Row, content: Any) -> dict[str, Any]:
        """What is kept of a content (JSON); raises Refused as KMS does for who sends."""
        raw = orjson.dumps(content)
        key = queue.doc["attributes"].get("KmsMasterKeyId")
        if not key:
            material = a.engine(RootKey).derive(f"sqs/{queue.doc['id']}")
            return {"of": queue.doc["id"], "x": _encrypt(material, raw, queue.doc["id"])}
        context = f"arn:aws:sqs:{queue.region}:{queue.account}:{queue.name}"
        seconds = int(queue.doc["attributes"].get("KmsDataKeyReusePeriodSeconds") or REUSE)
        place = (str(queue.doc["id"]), str(key), a.caller.principal_arn)
        held = self._sealing.get(place)
        if held is None or held[2] <= a.calls.clock():
            given = {"KeyId": _named(key, queue), "KeySpec": "AES_256", "EncryptionContext": {"aws:sqs:arn": context}}
            made = _kms(a, view, "GenerateDataKey", given)
            wrapped = base64.b64encode(made["CiphertextBlob"]).decode()
            if len(self._sealing) >= _MOST_KEYS:
                self._sealing.clear()
            held = self._sealing[place] = (wrapped, made["Plaintext"], a.calls.clock() + seconds * MICROS)
        return {"in": context, "key": held[0], "x": _encrypt(held[1], raw, context)}

    def open(self, a: Authorised, view: View, queue: Row, seal: Mapping[str, Any]) -> Any:
        """The content of a seal; raises Refused as KMS does for who receives."""
        if "of" in seal:
            return orjson.loads(_decrypt(a.engine(RootKey).derive(f"sqs/{seal['of']}"), seal["x"], seal["of"]))
        place = (str(seal["key"]), a.caller.principal_arn)
        held = self._opening.get(place)
        if held is None or held[1] <= a.calls.clock():
            given = {
                "CiphertextBlob": base64.b64decode(seal["key"]),
                "EncryptionContext": {"aws:sqs:arn": seal["in"]},
            }
            plain = _kms(a, view, "Decrypt", given)["Plaintext"]
            seconds = int(queue.doc["attributes"].get("KmsDataKeyReusePeriodSeconds") or REUSE)
            if len(self._opening) >= _MOST_KEYS:
                self._opening.clear()
            held = self._opening[place] = (plain, a.calls.clock() + seconds * MICROS)
        return orjson.loads(_decrypt(held[0], seal["x"], seal["in"]))


def _named(key: str, queue: Row) -> str:
    """A key's id or alias means one of the queue's own account, whoever sends."""
    if key.startswith("arn:"):
        return key
    kind = "" if key.startswith("alias/") else "key/"
    return f"arn:aws:kms:{queue.region}:{queue.account}:{kind}{key}"


_CODES: Final = {
    "NotFoundException": "KmsNotFound",
    "DisabledException": "KmsDisabled",
    "KMSInvalidStateException": "KmsInvalidState",
    "InvalidKeyUsageException": "KmsInvalidKeyUsage",
    "AccessDeniedException": "KmsAccessDenied",
}


def _kms(a: Authorised, view: View, operation: str, given: dict[str, Any]) -> dict[str, Any]:
    via = f"sqs.{a.region}.amazonaws.com"
    try:
        return a.forward(view, "kms", operation, given, _PRINCIPAL, kms__ViaService=via)
    except Refused as refused:
        raise Refused(_CODES.get(refused.code, "KmsInvalidState"), refused.message, kept=refused.kept) from None


def _encrypt(key: bytes, raw: bytes, bound: str) -> str:
    nonce = os.urandom(_NONCE)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, raw, bound.encode())).decode()


def _decrypt(key: bytes, kept: str, bound: str) -> bytes:
    raw = base64.b64decode(kept)
    return AESGCM(key).decrypt(raw[:_NONCE], raw[_NONCE:], bound.encode())


def packed(given: Attributes) -> dict[str, Any]:
    """Attributes as JSON."""
    return {
        name: [one["DataType"], one.get("StringValue"), base64.b64encode(one["BinaryValue"]).decode()]
        if one.get("BinaryValue") is not None
        else [one["DataType"], one["StringValue"]]
        for name, one in given.items()
    }


def unpacked(held: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """Attributes from JSON."""
    return {
        name: {"DataType": one[0], "BinaryValue": base64.b64decode(one[2])}
        if len(one) > 2
        else {"DataType": one[0], "StringValue": one[1]}
        for name, one in held.items()
    }

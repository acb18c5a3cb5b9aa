"""What keys do: encrypt, decrypt, give out data keys. Nothing is changed by it, everything is recorded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from bastide.domain import Refused
from bastide.engines.keys import decrypt as open_envelope
from bastide.engines.keys import encrypt as make_envelope
from bastide.engines.keys import key_of
from bastide.kernel import About, Ask, Asked, Authorised, Output
from bastide.kernel.kind import Given
from bastide.services.kms.asking import about, encryption_context, of_key, request_alias
from bastide.services.kms.grant import check_tokens
from bastide.services.kms.noun import KEY, find, locate, material, named, usable
from bastide.store import Row, View

_SIZES = {"AES_256": 32, "AES_128": 16}


def _ask(action: str, names: About, member: str = "EncryptionContext", named_by: str = "KeyId", **more: Given) -> Ask:
    given = of_key(names) | {
        "kms:EncryptionAlgorithm": lambda _: "SYMMETRIC_DEFAULT",
        "kms:RequestAlias": request_alias(named_by),
    }
    return Ask(action, names, given | more, more=encryption_context(lambda asked: asked.input.get(member)))


def _blob(asked: Asked) -> Iterable[str]:
    """The key that a ciphertext names; the one the caller names must be the same. Of what is no ciphertext only those
    learn that who may decrypt under any key: a refusal comes before everything that could be told."""
    try:
        return (key_of(bytes(asked.input.get("CiphertextBlob") or b""))[0],)
    except Refused:
        return ("*",)


def _arn(row: Row) -> str:
    return KEY.arn(row.account, row.region, row.name)


def _plain_only(a: Authorised, view: View) -> None:
    if (a.input.get("EncryptionAlgorithm") or "SYMMETRIC_DEFAULT") != "SYMMETRIC_DEFAULT":
        raise Refused(
            "InvalidKeyUsageException", "The key is symmetric; EncryptionAlgorithm must be SYMMETRIC_DEFAULT."
        )
    if a.input.get("Recipient"):
        raise Refused("UnsupportedOperationException", "Recipient is not supported by Bastide yet.")
    check_tokens(a, view)
    if a.input.get("DryRun"):
        raise Refused("DryRunOperationException", "The request would have succeeded, but the DryRun option is set.")


@KEY.reads("Encrypt", asks=[_ask("kms:Encrypt", about())])
def encrypt(a: Authorised, view: View) -> Output:
    """Up to 4,096 bytes under a key."""
    row = usable(a, named(a, view))
    _plain_only(a, view)
    arn = _arn(row)
    blob = make_envelope(
        material(a, view, row), arn, 1, bytes(a.input["Plaintext"]), a.input.get("EncryptionContext") or {}
    )
    return {"CiphertextBlob": blob, "KeyId": arn, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}


def _opened(a: Authorised, view: View, context: Mapping[str, str], claimed: str | None) -> tuple[bytes, str]:
    blob = bytes(a.input.get("CiphertextBlob") or b"")
    arn, _ = key_of(blob)
    account, region, key_id = locate(view, arn, a.account, a.region)
    if claimed and locate(view, claimed, a.account, a.region) != (account, region, key_id):
        raise Refused(
            "IncorrectKeyException",
            "The key ID in the request does not identify a CMK that can perform this operation.",
        )
    row = usable(a, find(view, account, region, key_id))
    return open_envelope(material(a, view, row), blob, context), arn


@KEY.reads("Decrypt", asks=[_ask("kms:Decrypt", _blob)])
def decrypt(a: Authorised, view: View) -> Output:
    """The plaintext of a ciphertext, if key and encryption context are those it was made with."""
    _plain_only(a, view)
    plain, arn = _opened(a, view, a.input.get("EncryptionContext") or {}, a.input.get("KeyId"))
    return {"Plaintext": plain, "KeyId": arn, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}


def _same_key(asked: Asked) -> str:
    return "true" if list(_blob(asked)) == list(about("DestinationKeyId")(asked)) else "false"


_SAME: dict[str, Given] = {"kms:ReEncryptOnSameKey": _same_key}


@KEY.reads(
    "ReEncrypt",
    asks=[
        _ask("kms:ReEncryptFrom", _blob, "SourceEncryptionContext", "SourceKeyId", **_SAME),
        _ask("kms:ReEncryptTo", about("DestinationKeyId"), "DestinationEncryptionContext", "DestinationKeyId", **_SAME),
    ],
)
def re_encrypt(a: Authorised, view: View) -> Output:
    """A ciphertext under another key or context, its plaintext never given out."""
    _plain_only(a, view)
    plain, source = _opened(a, view, a.input.get("SourceEncryptionContext") or {}, a.input.get("SourceKeyId"))
    row = usable(a, named(a, view, "DestinationKeyId"))
    arn = _arn(row)
    context = a.input.get("DestinationEncryptionContext") or {}
    return {
        "CiphertextBlob": make_envelope(material(a, view, row), arn, 1, plain, context),
        "SourceKeyId": source,
        "KeyId": arn,
        "SourceEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        "DestinationEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
    }


def _data_key(a: Authorised, view: View) -> tuple[bytes, bytes, str]:
    row = usable(a, named(a, view))
    _plain_only(a, view)
    spec, count = a.input.get("KeySpec"), a.input.get("NumberOfBytes")
    if (spec is None) == (count is None):
        raise Refused("ValidationException", "Please specify either number of bytes or key spec.")
    plain = os.urandom(_SIZES[spec] if spec is not None else int(count or 0))
    arn = _arn(row)
    return plain, make_envelope(material(a, view, row), arn, 1, plain, a.input.get("EncryptionContext") or {}), arn


@KEY.reads("GenerateDataKey", asks=[_ask("kms:GenerateDataKey", about())])
def generate(a: Authorised, view: View) -> Output:
    """A new data key, in the clear and encrypted."""
    plain, blob, arn = _data_key(a, view)
    return {"Plaintext": plain, "CiphertextBlob": blob, "KeyId": arn}


@KEY.reads("GenerateDataKeyWithoutPlaintext", asks=[_ask("kms:GenerateDataKeyWithoutPlaintext", about())])
def generate_without(a: Authorised, view: View) -> Output:
    """A new data key, encrypted only."""
    _, blob, arn = _data_key(a, view)
    return {"CiphertextBlob": blob, "KeyId": arn}

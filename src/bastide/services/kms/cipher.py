"""What keys do: encrypt, decrypt, give out data keys and pairs. Nothing is changed by it, everything is recorded."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from typing import Any

from bastide.domain import Refused
from bastide.engines.keys import decrypt as open_envelope
from bastide.engines.keys import encrypt as make_envelope
from bastide.engines.keys import key_of, specs
from bastide.engines.keys.specs import SPECS, SYMMETRIC
from bastide.kernel import About, Ask, Asked, Authorised, Output, anything
from bastide.kernel.kind import Given
from bastide.services.kms.asking import about, encryption_context, of_key, request_alias
from bastide.services.kms.grant import check_tokens
from bastide.services.kms.noun import (
    KEY,
    current,
    find,
    locate,
    material,
    material_id,
    named,
    spec_of,
    usable,
    usage_of,
)
from bastide.store import Row, View

_SIZES = {"AES_256": 32, "AES_128": 16}
_MAKING = asyncio.Semaphore(1)
"""Key pairs that are made at a time: RSA's primes cost up to a second of a processor each."""


def _algorithm(member: str) -> Given:
    return lambda asked: str(asked.input.get(member) or SYMMETRIC)


def _ask(
    action: str,
    names: About,
    member: str = "EncryptionContext",
    named_by: str = "KeyId",
    algorithm: str = "EncryptionAlgorithm",
    **more: Given,
) -> Ask:
    given = of_key(names) | {
        "kms:EncryptionAlgorithm": _algorithm(algorithm),
        "kms:RequestAlias": request_alias(named_by),
    }
    more = {key.replace("__", ":"): one for key, one in more.items()}
    return Ask(action, names, given | more, more=encryption_context(lambda asked: asked.input.get(member)))


def _blob(named_by: str, algorithm: str) -> About:
    """The key that a ciphertext names; the one the caller names must be the same. RSA's ciphertexts name none: the caller
    does. Of what is no ciphertext only those learn that who may decrypt under any key: a refusal comes before everything
    that could be told."""

    def names(asked: Asked) -> Iterable[str]:
        if (asked.input.get(algorithm) or SYMMETRIC) != SYMMETRIC:
            return tuple(about(named_by)(asked)) or ("*",)
        try:
            return (key_of(bytes(asked.input.get("CiphertextBlob") or b""))[0],)
        except Refused:
            return ("*",)

    return names


_DECRYPTED = _blob("KeyId", "EncryptionAlgorithm")
_SOURCE = _blob("SourceKeyId", "SourceEncryptionAlgorithm")


def arn_of(row: Row) -> str:
    """The key's ARN."""
    return KEY.arn(row.account, row.region, row.name)


def for_usage(a: Authorised, row: Row, usage: str, algorithm: str) -> None:
    """Raises InvalidKeyUsageException unless the key is for that and takes part in the algorithm."""
    if usage_of(row) != usage:
        raise Refused(
            "InvalidKeyUsageException",
            f"{arn_of(row)} key usage is {usage_of(row)} which is not valid for {a.operation.name}.",
        )
    if algorithm not in SPECS[spec_of(row)].usages[usage]:
        raise Refused(
            "InvalidKeyUsageException", f"Algorithm {algorithm} is incompatible with key spec {spec_of(row)}."
        )


def check(a: Authorised, view: View) -> None:
    """Raises Refused for what a call may bring and is not served: a Recipient, a token that is none; and when DryRun was
    all that was wanted."""
    if a.input.get("Recipient"):
        raise Refused("UnsupportedOperationException", "Recipient is not supported: there are no enclaves.")
    check_tokens(a, view)
    if a.input.get("DryRun"):
        raise Refused("DryRunOperationException", "The request would have succeeded, but the DryRun option is set.")


def _no_context(context: Mapping[str, str]) -> None:
    if context:
        raise Refused("ValidationException", "EncryptionContext is not supported with asymmetric KMS keys.")


def _sealed(a: Authorised, view: View, row: Row, algorithm: str, plaintext: bytes, context: Mapping[str, str]) -> bytes:
    for_usage(a, row, "ENCRYPT_DECRYPT", algorithm)
    held = material(a, view, row)
    if algorithm == SYMMETRIC:
        return make_envelope(held, arn_of(row), current(row), plaintext, context)
    _no_context(context)
    most = specs.longest(held, algorithm)
    if len(plaintext) > most:
        raise Refused(
            "ValidationException",
            f"Algorithm {algorithm} and key spec {spec_of(row)} cannot encrypt data larger than {most} bytes.",
        )
    return specs.encrypt_rsa(held, algorithm, plaintext)


@KEY.reads("Encrypt", asks=[_ask("kms:Encrypt", about())])
def encrypt(a: Authorised, view: View) -> Output:
    """Up to 4,096 bytes under a symmetric key; under an RSA key, as many as OAEP lets in."""
    row = usable(a, named(a, view))
    algorithm = str(a.input.get("EncryptionAlgorithm") or SYMMETRIC)
    for_usage(a, row, "ENCRYPT_DECRYPT", algorithm)
    check(a, view)
    blob = _sealed(a, view, row, algorithm, bytes(a.input["Plaintext"]), a.input.get("EncryptionContext") or {})
    return {"CiphertextBlob": blob, "KeyId": arn_of(row), "EncryptionAlgorithm": algorithm}


def _opened(
    a: Authorised, view: View, algorithm: str, context: Mapping[str, str], member: str
) -> tuple[bytes, Row, str | None]:
    """The plaintext of the call's ciphertext, its key, and the id of the material it was under."""
    blob = bytes(a.input.get("CiphertextBlob") or b"")
    claimed = a.input.get(member)
    if algorithm != SYMMETRIC:
        if not claimed:
            raise Refused("ValidationException", f"{member} is required to decrypt under an asymmetric KMS key.")
        row = usable(a, named(a, view, member))
        for_usage(a, row, "ENCRYPT_DECRYPT", algorithm)
        check(a, view)
        _no_context(context)
        try:
            return specs.decrypt_rsa(material(a, view, row), algorithm, blob), row, None
        except ValueError:
            raise Refused("InvalidCiphertextException", "The ciphertext is invalid.") from None
    if claimed:
        find(view, *locate(view, str(claimed), a.account, a.region))
    arn, version = key_of(blob)
    account, region, key_id = locate(view, arn, a.account, a.region)
    if claimed and locate(view, str(claimed), a.account, a.region) != (account, region, key_id):
        raise Refused(
            "IncorrectKeyException",
            "The key ID in the request does not identify a CMK that can perform this operation.",
        )
    row = usable(a, find(view, account, region, key_id))
    for_usage(a, row, "ENCRYPT_DECRYPT", algorithm)
    check(a, view)
    plain = open_envelope(material(a, view, row, version), blob, context)
    return plain, row, row.doc["Materials"][version - 1]["id"] if "Materials" in row.doc else None


def _with(output: Output, **ids: str | None) -> Output:
    """The output, with the ids of material where there are any."""
    return output | {name: id for name, id in ids.items() if id}


@KEY.reads("Decrypt", asks=[_ask("kms:Decrypt", _DECRYPTED)])
def decrypt(a: Authorised, view: View) -> Output:
    """The plaintext of a ciphertext, if key and encryption context are those it was made with."""
    algorithm = str(a.input.get("EncryptionAlgorithm") or SYMMETRIC)
    plain, row, id = _opened(a, view, algorithm, a.input.get("EncryptionContext") or {}, "KeyId")
    return _with({"Plaintext": plain, "KeyId": arn_of(row), "EncryptionAlgorithm": algorithm}, KeyMaterialId=id)


def _same_key(asked: Asked) -> str:
    return "true" if list(_SOURCE(asked)) == list(about("DestinationKeyId")(asked)) else "false"


@KEY.reads(
    "ReEncrypt",
    asks=[
        _ask(
            "kms:ReEncryptFrom", _SOURCE, "SourceEncryptionContext", "SourceKeyId", "SourceEncryptionAlgorithm",
            kms__ReEncryptOnSameKey=_same_key,
        ),
        _ask(
            "kms:ReEncryptTo", about("DestinationKeyId"), "DestinationEncryptionContext", "DestinationKeyId",
            "DestinationEncryptionAlgorithm", kms__ReEncryptOnSameKey=_same_key,
        ),
    ],
)  # fmt: skip
def re_encrypt(a: Authorised, view: View) -> Output:
    """A ciphertext under another key, the same key's newest material or another context; its plaintext is never given
    out."""
    before = str(a.input.get("SourceEncryptionAlgorithm") or SYMMETRIC)
    after = str(a.input.get("DestinationEncryptionAlgorithm") or SYMMETRIC)
    row = usable(a, named(a, view, "DestinationKeyId"))
    plain, source, old = _opened(a, view, before, a.input.get("SourceEncryptionContext") or {}, "SourceKeyId")
    blob = _sealed(a, view, row, after, plain, a.input.get("DestinationEncryptionContext") or {})
    told = {
        "CiphertextBlob": blob,
        "SourceKeyId": arn_of(source),
        "KeyId": arn_of(row),
        "SourceEncryptionAlgorithm": before,
        "DestinationEncryptionAlgorithm": after,
    }
    new = material_id(row) if after == SYMMETRIC else None
    return _with(told, SourceKeyMaterialId=old, DestinationKeyMaterialId=new)


# -- data keys ---------------------------------------------------------------------------------------------------------


def _for_data_keys(a: Authorised, view: View) -> Row:
    row = usable(a, named(a, view))
    for_usage(a, row, "ENCRYPT_DECRYPT", SYMMETRIC)
    check(a, view)
    return row


def _data_key(a: Authorised, view: View) -> tuple[bytes, Output]:
    spec, count = a.input.get("KeySpec"), a.input.get("NumberOfBytes")
    row = _for_data_keys(a, view)
    if (spec is None) == (count is None):
        raise Refused("ValidationException", "Please specify either number of bytes or key spec.")
    plain = os.urandom(_SIZES[spec] if spec is not None else int(count or 0))
    blob = _sealed(a, view, row, SYMMETRIC, plain, a.input.get("EncryptionContext") or {})
    return plain, _with({"CiphertextBlob": blob, "KeyId": arn_of(row)}, KeyMaterialId=material_id(row))


@KEY.reads("GenerateDataKey", asks=[_ask("kms:GenerateDataKey", about())])
def generate(a: Authorised, view: View) -> Output:
    """A new data key, in the clear and encrypted."""
    plain, output = _data_key(a, view)
    return {"Plaintext": plain, **output}


@KEY.reads("GenerateDataKeyWithoutPlaintext", asks=[_ask("kms:GenerateDataKeyWithoutPlaintext", about())])
def generate_without(a: Authorised, view: View) -> Output:
    """A new data key, encrypted only."""
    return _data_key(a, view)[1]


async def made(spec: str) -> bytes:
    """New material of a key spec, made on a thread of its own where that takes long."""
    if not spec.startswith("RSA_"):
        return specs.new_key(spec)
    async with _MAKING:
        return await asyncio.to_thread(specs.new_key, spec)


def _pair_spec(a: Authorised) -> str:
    spec = str(a.input["KeyPairSpec"])
    if spec not in SPECS or not SPECS[spec].pair:
        raise Refused("UnsupportedOperationException", f"Key pairs of {spec} are not made by Bastide.")
    return spec


async def _new_pair(a: Authorised) -> Any:
    with a.calls.store.reading() as view:
        _for_data_keys(a, view)  # a pair that nobody may have is not worth the processor's time
    return await made(_pair_spec(a))


def _pair(a: Authorised, view: View) -> tuple[bytes, Output]:
    row = _for_data_keys(a, view)
    spec = _pair_spec(a)
    private = bytes(a.staged) if a.staged is not None else specs.new_key(spec)
    told = {
        "PrivateKeyCiphertextBlob": _sealed(
            a, view, row, SYMMETRIC, private, a.input.get("EncryptionContext") or {}
        ),
        "PublicKey": specs.public_key(private),
        "KeyId": arn_of(row),
        "KeyPairSpec": spec,
    }  # fmt: skip
    return private, _with(told, KeyMaterialId=material_id(row))


def _pair_ask(action: str) -> Ask:
    return _ask(action, about(), kms__DataKeyPairSpec=lambda asked: str(asked.input["KeyPairSpec"]))


@KEY.reads("GenerateDataKeyPair", asks=[_pair_ask("kms:GenerateDataKeyPair")], before=_new_pair)
def generate_pair(a: Authorised, view: View) -> Output:
    """A new key pair: the public key, the private one in the clear (PKCS #8) and encrypted."""
    private, output = _pair(a, view)
    return {"PrivateKeyPlaintext": private, **output}


@KEY.reads(
    "GenerateDataKeyPairWithoutPlaintext",
    asks=[_pair_ask("kms:GenerateDataKeyPairWithoutPlaintext")],
    before=_new_pair,
)
def generate_pair_without(a: Authorised, view: View) -> Output:
    """A new key pair, its private key encrypted only."""
    return _pair(a, view)[1]


@KEY.reads("GenerateRandom", asks=[Ask("kms:GenerateRandom", anything)])
def random(a: Authorised, view: View) -> Output:
    """Up to 1,024 random bytes."""
    if a.input.get("CustomKeyStoreId"):
        raise Refused("CustomKeyStoreNotFoundException", "There are no custom key stores.")
    if a.input.get("Recipient"):
        raise Refused("UnsupportedOperationException", "Recipient is not supported: there are no enclaves.")
    if not a.input.get("NumberOfBytes"):
        raise Refused("ValidationException", "NumberOfBytes is required.")
    return {"Plaintext": os.urandom(int(a.input["NumberOfBytes"]))}

"""Imported material: keys whose material their owner brings, and can take away again.

Source: AWS KMS Developer Guide, "Importing key material"; API Reference, GetParametersForImport, ImportKeyMaterial,
DeleteImportedKeyMaterial.
"""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any, Final

from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap_with_padding

from bastide.domain import MICROS, Instant, Refused
from bastide.engines.keys import RootKey, Safe, specs
from bastide.engines.keys.specs import OAEP
from bastide.kernel import Asked, Authorised, Output
from bastide.services.kms.asking import ask
from bastide.services.kms.cipher import made
from bastide.services.kms.key import changeable, own
from bastide.services.kms.noun import KEY, drop_material, due, id_of_material, keep_material, origin_of, state
from bastide.store import Row, Transaction, View

_LIFE: Final = 24 * 3600 * MICROS
"""An import token is good for a day."""
_LONGEST: Final = 365 * _LIFE
_EXPIRES: Final = "KEY_MATERIAL_EXPIRES"
_PURPOSE: Final = "kms/import"
_WRAPPED: Final = ("RSA_AES_KEY_WRAP_SHA_1", "RSA_AES_KEY_WRAP_SHA_256")


def _external(a: Authorised, view: View) -> Row:
    row = own(a, view)
    if origin_of(row) != "EXTERNAL":
        arn = KEY.arn(row.account, row.region, row.name)
        raise Refused(
            "UnsupportedOperationException", f"{arn} origin is AWS_KMS which is not valid for this operation."
        )
    return changeable(a, row, "PendingDeletion")


def _given(a: Authorised) -> tuple[str, str]:
    """WrappingKeySpec and WrappingAlgorithm that the call wants."""
    spec, algorithm = str(a.input["WrappingKeySpec"]), str(a.input["WrappingAlgorithm"])
    if not spec.startswith("RSA_") or algorithm not in (*OAEP, *_WRAPPED):
        raise Refused("UnsupportedOperationException", f"{algorithm} with a wrapping key of {spec} is not supported.")
    return spec, algorithm


async def _wrapping_key(a: Authorised) -> Any:
    return await made(_given(a)[0])


def _algorithm(asked: Asked) -> str | None:
    return str(asked.input["WrappingAlgorithm"]) if asked.input.get("WrappingAlgorithm") else None


def _wrapping_spec(asked: Asked) -> str | None:
    return str(asked.input["WrappingKeySpec"]) if asked.input.get("WrappingKeySpec") else None


@KEY.reads(
    "GetParametersForImport",
    asks=[
        ask("GetParametersForImport", kms__WrappingAlgorithm=_algorithm, kms__WrappingKeySpec=_wrapping_spec),
    ],
    before=_wrapping_key,
)
def parameters(a: Authorised, view: View) -> Output:
    """A public key to wrap material with, and the token that says which one it was: it holds the private key, sealed."""
    row = _external(a, view)
    spec, algorithm = _given(a)
    private = bytes(a.staged) if a.staged is not None else specs.new_key(spec)
    arn = KEY.arn(row.account, row.region, row.name)
    until = a.now + _LIFE
    told = {"key": arn, "algorithm": algorithm, "until": until, "private": base64.b64encode(private).decode()}
    return {
        "KeyId": arn,
        "ImportToken": a.engine(RootKey).seal(json.dumps(told).encode(), _PURPOSE).encode(),
        "PublicKey": specs.public_key(private),
        "ParametersValidTo": until,
    }


def _unwrapped(a: Authorised, arn: str) -> bytes:
    """The material that the call brings."""
    try:
        token = bytes(a.input["ImportToken"]).decode("ascii")
        told = json.loads(a.engine(RootKey).open(token, _PURPOSE))
    except ValueError:
        raise Refused("InvalidImportTokenException", "The import token is not valid.") from None
    if told["key"] != arn:
        raise Refused("InvalidImportTokenException", "The import token is for another key.")
    if told["until"] <= a.now:
        raise Refused("ExpiredImportTokenException", "The import token has expired.")
    private, algorithm = base64.b64decode(told["private"]), str(told["algorithm"])
    blob = bytes(a.input["EncryptedKeyMaterial"])
    try:
        if algorithm not in _WRAPPED:
            return specs.decrypt_rsa(private, algorithm, blob)
        size = specs.modulus_size(private)
        oaep = algorithm.replace("RSA_AES_KEY_WRAP", "RSAES_OAEP")
        return aes_key_unwrap_with_padding(specs.decrypt_rsa(private, oaep, blob[:size]), blob[size:])
    except (ValueError, InvalidUnwrap):
        raise Refused("InvalidCiphertextException", "The key material cannot be unwrapped.") from None


def _end(a: Authorised) -> Instant | None:
    """When the material ends; None if it does not."""
    model, until = a.input.get("ExpirationModel") or _EXPIRES, a.input.get("ValidTo")
    if model == _EXPIRES:
        if until is None:
            raise Refused(
                "ValidationException", "A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES."
            )
        if not a.now < until <= a.now + _LONGEST:
            raise Refused("ValidationException", "ValidTo must be in the future, by 365 days at most.")
        return int(until)
    if until is not None:
        raise Refused("ValidationException", "ValidTo is only for ExpirationModel KEY_MATERIAL_EXPIRES.")
    return None


def _valid_to(asked: Asked) -> str | None:
    until = asked.input.get("ValidTo")
    return str(int(until) // MICROS) if until is not None else None


def _model(asked: Asked) -> str:
    return str(asked.input.get("ExpirationModel") or _EXPIRES)


@KEY.operation(
    "ImportKeyMaterial",
    asks=[ask("ImportKeyMaterial", kms__ExpirationModel=_model, kms__ValidTo=_valid_to)],
)
def bring(a: Authorised, tx: Transaction) -> Output:
    """Material for a key; the second time only the very same. It is under a new shard each time."""
    row = _external(a, tx)
    arn = KEY.arn(row.account, row.region, row.name)
    if (a.input.get("ImportType") or "EXISTING_KEY_MATERIAL") == "NEW_KEY_MATERIAL" and row.doc["Materials"]:
        raise Refused("UnsupportedOperationException", "A second material for a key is not supported by Bastide.")
    until = _end(a)
    new = _unwrapped(a, arn)
    if not specs.fits(str(row.doc["Spec"]), new):
        raise Refused("IncorrectKeyMaterialException", f"The material is no key of {row.doc['Spec']}.")
    root = a.engine(RootKey)
    held = row.doc["Materials"]
    if held and not hmac.compare_digest(held[0]["id"], id_of_material(root, arn, new)):
        raise Refused("IncorrectKeyMaterialException", "The material is not the one that was imported before.")
    wanted = a.input.get("KeyMaterialId")
    if wanted and (not held or held[0]["id"] != wanted):
        raise Refused("IncorrectKeyMaterialException", "The key has no material of that id.")
    # The same material may be there still: only its end is another one then.
    there = bool(held) and "wrapped" in held[0]
    told = held[0] if there else keep_material(a.engine(Safe), root, tx, arn, new)
    row.doc["Materials"] = [told]
    row.doc["ExpirationModel"] = _EXPIRES if until is not None else "KEY_MATERIAL_DOES_NOT_EXPIRE"
    if until is not None:
        row.doc["ValidTo"] = until
    else:
        row.doc.pop("ValidTo", None)
    if row.status == "PendingImport":
        row.status = "Enabled"
    KEY.change(tx, row, "ImportKeyMaterial", a.request.id)
    if until is not None:
        due(tx, until, "expire", row)
    return {"KeyId": arn, "KeyMaterialId": told["id"]}


async def _destroy(a: Authorised, output: Output) -> Output:
    for shard in output.pop("shards"):
        a.engine(Safe).destroy(shard)
    specs.forget()
    return output


@KEY.operation("DeleteImportedKeyMaterial", asks=[ask("DeleteImportedKeyMaterial")], after=_destroy)
def take_away(a: Authorised, tx: Transaction) -> Output:
    """Destroys imported material at once; the key waits for the same material again."""
    row = _external(a, tx)
    arn = KEY.arn(row.account, row.region, row.name)
    held = row.doc["Materials"]
    wanted = a.input.get("KeyMaterialId")
    if wanted and (not held or held[0]["id"] != wanted):
        raise Refused("NotFoundException", f"Key material {wanted} does not exist.")
    told: Output = {"KeyId": arn, "shards": []}
    if held:
        told["KeyMaterialId"] = held[0]["id"]
    if held and "wrapped" in held[0]:
        told["shards"] = drop_material(tx, held[0])
        row.status = "PendingImport"
        row.doc.pop("ValidTo", None)
        row.doc.pop("ExpirationModel", None)
        KEY.change(tx, row, "DeleteImportedKeyMaterial", a.request.id)
    elif state(row, a.now) != "PendingImport":
        raise Refused("KMSInvalidStateException", f"{arn} has no material.")
    return told

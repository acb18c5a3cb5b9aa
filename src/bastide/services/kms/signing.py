"""What key pairs and HMAC keys do: sign and verify, make and check codes, and show the public key.

Source: AWS KMS API Reference, Sign, Verify, GenerateMac, VerifyMac, GetPublicKey.
"""

from __future__ import annotations

import hmac

from bastide.domain import Refused
from bastide.engines.keys import specs
from bastide.engines.keys.specs import SPECS
from bastide.kernel import Ask, Asked, Authorised, Output
from bastide.services.kms.asking import about, ask, of_key, request_alias
from bastide.services.kms.cipher import arn_of, check, for_usage
from bastide.services.kms.noun import KEY, material, named, spec_of, usable, usage_of
from bastide.store import Row, View


def _message_type(asked: Asked) -> str:
    return str(asked.input.get("MessageType") or "RAW")


def _signing(action: str) -> Ask:
    return ask(
        action,
        kms__SigningAlgorithm=lambda asked: str(asked.input["SigningAlgorithm"]),
        kms__MessageType=_message_type,
        kms__RequestAlias=request_alias("KeyId"),
    )


def _mac(action: str) -> Ask:
    return ask(
        action,
        kms__MacAlgorithm=lambda asked: str(asked.input["MacAlgorithm"]),
        kms__RequestAlias=request_alias("KeyId"),
    )


def _prepared(a: Authorised, view: View) -> tuple[Row, bytes, str, bool]:
    """The key, its material, the algorithm, and whether the message is a digest."""
    row = usable(a, named(a, view))
    algorithm = str(a.input["SigningAlgorithm"])
    for_usage(a, row, "SIGN_VERIFY", algorithm)
    kind = a.input.get("MessageType") or "RAW"
    if kind not in ("RAW", "DIGEST"):
        raise Refused("ValidationException", f"MessageType {kind} is not valid for {algorithm}.")
    if kind == "DIGEST" and len(bytes(a.input["Message"])) != specs.digest_size(algorithm):
        raise Refused("ValidationException", f"Digest is invalid length for algorithm {algorithm}.")
    check(a, view)
    return row, material(a, view, row), algorithm, kind == "DIGEST"


@KEY.reads("Sign", asks=[_signing("Sign")])
def sign(a: Authorised, view: View) -> Output:
    """A signature of a message of up to 4,096 bytes, or of a digest."""
    row, held, algorithm, digest = _prepared(a, view)
    signature = specs.sign(held, algorithm, bytes(a.input["Message"]), digest=digest)
    return {"KeyId": arn_of(row), "Signature": signature, "SigningAlgorithm": algorithm}


@KEY.reads("Verify", asks=[_signing("Verify")])
def verify(a: Authorised, view: View) -> Output:
    """That a signature is good; raises KMSInvalidSignatureException if not."""
    row, held, algorithm, digest = _prepared(a, view)
    if not specs.verify(held, algorithm, bytes(a.input["Message"]), bytes(a.input["Signature"]), digest=digest):
        raise Refused("KMSInvalidSignatureException", "")
    return {"KeyId": arn_of(row), "SignatureValid": True, "SigningAlgorithm": algorithm}


def _code(a: Authorised, view: View) -> tuple[Row, bytes, str]:
    row = usable(a, named(a, view))
    algorithm = str(a.input["MacAlgorithm"])
    for_usage(a, row, "GENERATE_VERIFY_MAC", algorithm)
    check(a, view)
    return row, specs.mac(material(a, view, row), algorithm, bytes(a.input["Message"])), algorithm


@KEY.reads("GenerateMac", asks=[_mac("GenerateMac")])
def generate_mac(a: Authorised, view: View) -> Output:
    """The HMAC of a message of up to 4,096 bytes."""
    row, code, algorithm = _code(a, view)
    return {"KeyId": arn_of(row), "Mac": code, "MacAlgorithm": algorithm}


@KEY.reads("VerifyMac", asks=[_mac("VerifyMac")])
def verify_mac(a: Authorised, view: View) -> Output:
    """That an HMAC is good; raises KMSInvalidMacException if not."""
    row, code, algorithm = _code(a, view)
    if not hmac.compare_digest(code, bytes(a.input["Mac"])):
        raise Refused("KMSInvalidMacException", "")
    return {"KeyId": arn_of(row), "MacValid": True, "MacAlgorithm": algorithm}


@KEY.reads(
    "GetPublicKey",
    asks=[Ask("kms:GetPublicKey", about(), of_key(about()) | {"kms:RequestAlias": request_alias("KeyId")})],
)
def get_public_key(a: Authorised, view: View) -> Output:
    """The public key of a pair, for use outside."""
    row = usable(a, named(a, view))
    spec = SPECS[spec_of(row)]
    if not spec.pair:
        raise Refused(
            "UnsupportedOperationException", f"{arn_of(row)} key spec is {spec.name} which has no public key."
        )
    check(a, view)
    usage = usage_of(row)
    algorithms = "SigningAlgorithms" if usage == "SIGN_VERIFY" else "EncryptionAlgorithms"
    return {
        "KeyId": arn_of(row),
        "PublicKey": specs.public_key(material(a, view, row)),
        "CustomerMasterKeySpec": spec.name,
        "KeySpec": spec.name,
        "KeyUsage": usage,
        algorithms: list(spec.usages[usage]),
    }

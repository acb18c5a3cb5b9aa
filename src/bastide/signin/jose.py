"""JSON Web Tokens, as far as identity providers need them: RS256 and ES256.

Source: RFC 7515 (JWS), RFC 7517 (JWK), RFC 7518 (algorithms), RFC 8725 (what to refuse).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

_LEAST_BITS: Final = 2048
_LONGEST: Final = 64 * 1024


class Unverified(Exception):  # noqa: N818
    """A token that proves nothing; the text says why, without the token."""


def _raw(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Unverified("it is not base64url") from None


def text(raw: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _number(value: int) -> str:
    return text(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def public(key: rsa.RSAPrivateKey, id: str) -> dict[str, str]:
    """The JWK of an RSA key's public half."""
    numbers = key.public_key().public_numbers()
    known = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": id}
    return {**known, "n": _number(numbers.n), "e": _number(numbers.e)}


def sign(key: rsa.RSAPrivateKey, id: str, claims: dict[str, Any], kind: str = "JWT") -> str:
    """A token, RS256."""
    head = text(orjson.dumps({"alg": "RS256", "typ": kind, "kid": id}))
    told = f"{head}.{text(orjson.dumps(claims))}"
    return f"{told}.{text(key.sign(told.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def key_id(token: str) -> str:
    """The key that a token names; empty if it names none. Raises Unverified for what is no token."""
    return str(_head(token).get("kid") or "")


def _head(token: str) -> dict[str, Any]:
    if len(token) > _LONGEST or token.count(".") != 2:
        raise Unverified("it is no signed token")
    return _object(_raw(token.partition(".")[0]))


def _object(raw: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise Unverified("it is not JSON") from None
    if not isinstance(found, dict):
        raise Unverified("it is not a JSON object")
    return found


def verified(token: str, keys: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The claims of a token that one of the keys (JWKs) signed; raises Unverified.

    The algorithm must be the key's: a key never serves for another (RFC 8725, 3.1).
    """
    head = _head(token)
    if "crit" in head:
        raise Unverified("it demands an extension")
    told, _, signature = token.rpartition(".")
    named = head.get("kid")
    for jwk in keys:
        if named is not None and jwk.get("kid") != named:
            continue
        if jwk.get("use", "sig") != "sig" or jwk.get("alg", head.get("alg")) != head.get("alg"):
            continue
        if _holds(jwk, head.get("alg"), told.encode(), _raw(signature)):
            return _object(_raw(told.partition(".")[2]))
    raise Unverified("no key of the provider signed it")


def _holds(jwk: dict[str, Any], algorithm: Any, told: bytes, signature: bytes) -> bool:
    try:
        if jwk.get("kty") == "RSA" and algorithm == "RS256":
            n, e = (int.from_bytes(_raw(str(jwk[name])), "big") for name in ("n", "e"))
            if n.bit_length() < _LEAST_BITS:
                return False
            rsa.RSAPublicNumbers(e, n).public_key().verify(signature, told, padding.PKCS1v15(), hashes.SHA256())
            return True
        if jwk.get("kty") == "EC" and jwk.get("crv") == "P-256" and algorithm == "ES256" and len(signature) == 64:
            x, y = (int.from_bytes(_raw(str(jwk[name])), "big") for name in ("x", "y"))
            r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
            curve = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
            curve.verify(encode_dss_signature(r, s), told, ec.ECDSA(hashes.SHA256()))
            return True
    except (InvalidSignature, KeyError, ValueError):
        return False
    return False

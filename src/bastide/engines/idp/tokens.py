"""ID tokens of OpenID Connect.

Source: RFC 7519, RFC 8725 ("JSON Web Token Best Current Practices"), OpenID Connect Core 1.0, 2 and 3.1.3.7; IAM User
Guide, "Create an OpenID Connect (OIDC) identity provider in IAM". Only signatures with a public key count: an algorithm is
never taken from the token alone, it must be one of these and fit the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from bastide.domain import MICROS, Instant, iso
from bastide.engines.idp.rejected import Rejected

_ALGORITHMS: Final[dict[str, tuple[str, str]]] = {
    "RS256": ("RSA", ""), "RS384": ("RSA", ""), "RS512": ("RSA", ""),
    "ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"), "ES512": ("EC", "P-521"),
}  # fmt: skip
"""The algorithms that AWS takes, with the type and curve of their keys."""
_PUBLIC: Final = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y")}
_RSA_BITS: Final = 2048
_SKEW: Final = 60 * MICROS
_LATEST: Final = 2**53
"""Numbers beyond are no times."""


@dataclass(frozen=True, slots=True)
class Claims:
    """Verified claims. audience: whom the token was issued to (``azp`` if it is there, else ``aud``). audiences: ``aud``
    as it stands."""

    issuer: str
    subject: str
    audience: str
    audiences: tuple[str, ...]
    claims: Mapping[str, Any]


def issuer_of(token: str) -> tuple[str, str]:
    """The issuer that a token names and the id of its key ("" if it names none), neither verified; raises Rejected."""
    header, claims = _opened(token)
    kid = header.get("kid", "")
    issuer = claims.get("iss")
    if not isinstance(issuer, str) or not isinstance(kid, str) or len(issuer) > 300 or len(kid) > 1024:
        raise _malformed()
    return issuer, kid


def verify_token(
    token: str, keys: Sequence[Mapping[str, Any]], *, issuer: str, clients: Sequence[str], now: Instant
) -> Claims:
    """The claims of a token, if one of `keys` (JWK) signed it and it is in force for one of `clients`; raises Rejected."""
    header, _ = _opened(token)
    algorithm = header["alg"]
    key = _key(keys, header.get("kid", ""), algorithm)
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            options={"verify_signature": True, "verify_exp": False, "verify_nbf": False, "verify_iat": False,
                     "verify_aud": False, "verify_iss": False, "verify_sub": False, "verify_jti": False},
        )  # fmt: skip
    except Exception:
        # Whatever is wrong with it: it is not signed by that key.
        raise Rejected("invalid", "The ID Token provided is not signed by the identity provider's key.") from None
    if claims.get("iss") != issuer:
        raise Rejected("invalid", "The issuer of the token is not the provider's.")
    _in_force(claims, now)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise Rejected("invalid", "Missing a required claim: sub")
    listed = claims.get("aud")
    audiences = tuple(listed) if isinstance(listed, list) else (listed,)
    if not audiences or not all(isinstance(one, str) and one for one in audiences):
        raise Rejected("invalid", "Missing a required claim: aud")
    party = claims.get("azp")
    if party is None and len(audiences) > 1:
        raise Rejected("invalid", "A token for several audiences must say to whom it was issued (azp).")
    audience = audiences[0] if party is None else party
    if not isinstance(audience, str) or audience not in clients:
        raise Rejected("invalid", "Incorrect token audience")
    return Claims(issuer, subject, audience, audiences, claims)


def _opened(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        found = jwt.api_jws.decode_complete(token, options={"verify_signature": False})
        header, claims = found["header"], jwt.decode(token, options={"verify_signature": False})
    except Exception:
        raise _malformed() from None
    if not isinstance(claims, dict) or header.get("alg") not in _ALGORITHMS or "crit" in header:
        raise _malformed()
    return header, claims


def _malformed() -> Rejected:
    return Rejected(
        "invalid", "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"
    )


def _key(keys: Sequence[Mapping[str, Any]], kid: str, algorithm: str) -> Any:
    kty, curve = _ALGORITHMS[algorithm]
    fitting = [
        key
        for key in keys
        if key.get("kty") == kty
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and (not curve or key.get("crv") == curve)
        and (not kid or key.get("kid") == kid)
    ]
    if len(fitting) != 1:
        raise Rejected("invalid", "Couldn't retrieve verification key from your identity provider.")
    # Only its public members: a provider that publishes more does not make us hold a private key.
    public = {name: fitting[0].get(name) for name in _PUBLIC[kty]}
    try:
        key = jwt.get_algorithm_by_name(algorithm).from_jwk(public)
    except Exception:
        raise Rejected("invalid", "The verification key of your identity provider cannot be read.") from None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _RSA_BITS:
        raise Rejected("invalid", f"The verification key of your identity provider is shorter than {_RSA_BITS} bits.")
    return key


def _in_force(claims: Mapping[str, Any], now: Instant) -> None:
    expires, issued, begins = (_time(claims, name) for name in ("exp", "iat", "nbf"))
    if expires is None or issued is None:
        raise Rejected("invalid", f"Missing a required claim: {'exp' if expires is None else 'iat'}")
    if now >= expires:
        raise Rejected(
            "expired",
            f"Token expired: current date/time {iso(now)} must be before the expiration date/time "
            f"{int(claims['exp'])} (seconds since 1970)",
        )
    if issued > now + _SKEW or (begins is not None and begins > now + _SKEW):
        raise Rejected("invalid", "The token is not yet in force.")


def _time(claims: Mapping[str, Any], name: str) -> Instant | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _LATEST:
        raise Rejected("invalid", f"The claim {name} is not a time.")
    return int(value * MICROS)

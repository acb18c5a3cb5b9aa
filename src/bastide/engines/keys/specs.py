"""Key specs: what material each has, and which algorithms it takes part in.

Material is 32 bytes for a symmetric key, as many bytes as the digest for an HMAC key, and PKCS #8 (DER) for a key pair.
Source: AWS KMS Developer Guide, "Key spec reference"; RFC 8017 for RSA, FIPS 186-5 for ECDSA (signatures are DER, ANSI
X9.62), RFC 2104 for HMAC.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

SYMMETRIC: Final = "SYMMETRIC_DEFAULT"

_CURVES: Final[dict[str, tuple[type[ec.EllipticCurve], str]]] = {
    "ECC_NIST_P256": (ec.SECP256R1, "ECDSA_SHA_256"),
    "ECC_NIST_P384": (ec.SECP384R1, "ECDSA_SHA_384"),
    "ECC_NIST_P521": (ec.SECP521R1, "ECDSA_SHA_512"),
    "ECC_SECG_P256K1": (ec.SECP256K1, "ECDSA_SHA_256"),
}
_RSA: Final = {"RSA_2048": 2048, "RSA_3072": 3072, "RSA_4096": 4096}
_MACS: Final = {"HMAC_224": 28, "HMAC_256": 32, "HMAC_384": 48, "HMAC_512": 64}
_HASHES: Final[dict[str, type[hashes.HashAlgorithm]]] = {
    "1": hashes.SHA1,
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}
OAEP: Final = ("RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256")
_RSA_SIGNING: Final = tuple(
    f"RSASSA_{scheme}_SHA_{size}" for scheme in ("PKCS1_V1_5", "PSS") for size in (256, 384, 512)
)


@dataclass(frozen=True, slots=True)
class Spec:
    """A key spec. usages: what a key of it may be for; each has its algorithms, as KMS names them."""

    name: str
    usages: dict[str, tuple[str, ...]]

    @property
    def pair(self) -> bool:
        """Whether there is a public key."""
        return self.name in _RSA or self.name in _CURVES


SPECS: Final[dict[str, Spec]] = {
    one.name: one
    for one in (
        Spec(SYMMETRIC, {"ENCRYPT_DECRYPT": (SYMMETRIC,)}),
        *(Spec(name, {"ENCRYPT_DECRYPT": OAEP, "SIGN_VERIFY": _RSA_SIGNING}) for name in _RSA),
        *(Spec(name, {"SIGN_VERIFY": (algorithm,)}) for name, (_, algorithm) in _CURVES.items()),
        *(Spec(name, {"GENERATE_VERIFY_MAC": (name.replace("_", "_SHA_"),)}) for name in _MACS),
    )
}
"""The key specs that can be made."""


class _Private(Protocol):
    def private_bytes(self, encoding: Encoding, format: PrivateFormat, encryption: NoEncryption) -> bytes: ...


def new_key(spec: str) -> bytes:
    """New material of a key spec; a key pair's takes up to a second and lets other threads run. Raises KeyError."""
    if spec == SYMMETRIC:
        return os.urandom(32)
    if spec in _MACS:
        return os.urandom(_MACS[spec])
    if spec in _RSA:
        return _pkcs8(rsa.generate_private_key(65537, _RSA[spec]))
    return _pkcs8(ec.generate_private_key(_CURVES[spec][0]()))


def _pkcs8(key: _Private) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def fits(spec: str, material: bytes) -> bool:
    """Whether somebody's material is such a key: the right length, curve and size, and sound."""
    if spec == SYMMETRIC:
        return len(material) == 32
    if spec in _MACS:
        return _MACS[spec] <= len(material) <= 128
    try:
        key = load_der_private_key(material, None)
    except Exception:  # whatever hostile bytes make the library raise
        return False
    if spec in _RSA:
        return isinstance(key, rsa.RSAPrivateKey) and key.key_size == _RSA[spec]
    return isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES[spec][0])


@lru_cache(16)
def _pair(material: bytes) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    # The material was checked when it was made or came in; checking RSA's primes anew costs more than to sign.
    key = load_der_private_key(material, None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return key


def public_key(material: bytes) -> bytes:
    """The public key of a pair, as SubjectPublicKeyInfo (DER)."""
    return _pair(material).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _hash(algorithm: str) -> hashes.HashAlgorithm:
    return _HASHES[algorithm.rpartition("_")[2]]()


def digest_size(algorithm: str) -> int:
    """Bytes of the digest that a signing algorithm signs."""
    return _hash(algorithm).digest_size


def _padding(algorithm: str) -> padding.AsymmetricPadding:
    if "_PSS_" in algorithm:
        return padding.PSS(padding.MGF1(_hash(algorithm)), padding.PSS.DIGEST_LENGTH)
    return padding.PKCS1v15()


def sign(material: bytes, algorithm: str, message: bytes, *, digest: bool = False) -> bytes:
    """A signature of a message, or of its digest."""
    key = _pair(material)
    what = Prehashed(_hash(algorithm)) if digest else _hash(algorithm)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(what))
    return key.sign(message, _padding(algorithm), what)


def verify(material: bytes, algorithm: str, message: bytes, signature: bytes, *, digest: bool = False) -> bool:
    """Whether a signature is one of this message, or of this digest."""
    key = _pair(material).public_key()
    what = Prehashed(_hash(algorithm)) if digest else _hash(algorithm)
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(what))
        else:
            key.verify(signature, message, _padding(algorithm), what)
    except InvalidSignature:
        return False
    return True


def mac(material: bytes, algorithm: str, message: bytes) -> bytes:
    """The HMAC of a message."""
    return hmac.digest(material, message, f"sha{algorithm.rpartition('_')[2]}")


def _oaep(algorithm: str) -> padding.OAEP:
    return padding.OAEP(padding.MGF1(_hash(algorithm)), _hash(algorithm), None)


def longest(material: bytes, algorithm: str) -> int:
    """Bytes that fit into one RSA ciphertext."""
    return _pair(material).key_size // 8 - 2 * _hash(algorithm).digest_size - 2


def encrypt_rsa(material: bytes, algorithm: str, plaintext: bytes) -> bytes:
    """An RSAES-OAEP ciphertext; raises ValueError for more than fits."""
    key = _pair(material)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.public_key().encrypt(plaintext, _oaep(algorithm))


def decrypt_rsa(material: bytes, algorithm: str, ciphertext: bytes) -> bytes:
    """The plaintext; raises ValueError for what was not encrypted for this key."""
    key = _pair(material)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.decrypt(ciphertext, _oaep(algorithm))


def forget() -> None:
    """Lets go of the key pairs that are kept at hand."""
    _pair.cache_clear()


def modulus_size(material: bytes) -> int:
    """Bytes of an RSA pair's ciphertexts."""
    return _pair(material).key_size // 8

"""Ciphertexts as KMS gives them out: who encrypted is written in front, the encryption context is authenticated.

Source: AWS KMS Developer Guide, "Encryption context"; KMS API Reference, Encrypt and Decrypt.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bastide.domain import Refused

_MAGIC = b"BKM2"
_HEAD = struct.Struct(">4sHI")
_SALT = 16
_TAG = 16
_ONCE = bytes(12)
"""The nonce of a key that encrypts one thing only."""


def new_material() -> bytes:
    """256 bits."""
    return os.urandom(32)


def _invalid() -> Refused:
    return Refused("InvalidCiphertextException", "The ciphertext is invalid.", 400)


def _aad(head: bytes, context: Mapping[str, str]) -> bytes:
    """Lengths stand before texts, so that no two contexts read alike."""
    parts = [head]
    for key in sorted(context):
        for text in (key, context[key]):
            raw = text.encode("utf-8", "surrogatepass")
            parts += (struct.pack(">I", len(raw)), raw)
    return b"".join(parts)


def _cipher(material: bytes, salt: bytes) -> AESGCM:
    # A key for each message, derived with 128 random bits as KMS does: one key may encrypt without counting how often.
    return AESGCM(hmac.digest(material, b"bastide/envelope/" + salt, "sha256"))


def encrypt(material: bytes, key_id: str, version: int, plaintext: bytes, context: Mapping[str, str]) -> bytes:
    """A ciphertext of `plaintext` under version `version` of the key `key_id` (its ARN)."""
    name = key_id.encode()
    head = _HEAD.pack(_MAGIC, len(name), version) + name
    salt = os.urandom(_SALT)
    return head + salt + _cipher(material, salt).encrypt(_ONCE, plaintext, _aad(head, context))


def key_of(blob: bytes) -> tuple[str, int]:
    """Key id and version that a ciphertext names; raises InvalidCiphertextException."""
    try:
        magic, length, version = _HEAD.unpack_from(blob)
        name = blob[_HEAD.size : _HEAD.size + length].decode()
    except (struct.error, UnicodeDecodeError):
        raise _invalid() from None
    if magic != _MAGIC or not name or len(blob) < _HEAD.size + length + _SALT + _TAG:
        raise _invalid()
    return name, version


def decrypt(material: bytes, blob: bytes, context: Mapping[str, str]) -> bytes:
    """The plaintext; raises InvalidCiphertextException for another key, another context or a changed bit."""
    name, _ = key_of(blob)
    at = _HEAD.size + len(name.encode())
    try:
        salt, sealed = blob[at : at + _SALT], blob[at + _SALT :]
        return _cipher(material, salt).decrypt(_ONCE, sealed, _aad(blob[:at], context))
    except InvalidTag:
        raise _invalid() from None

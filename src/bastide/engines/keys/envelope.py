"""Ciphertexts as KMS gives them out: who encrypted is written in front, the encryption context is authenticated.

Source: AWS KMS Developer Guide, "Encryption context"; KMS API Reference, Encrypt and Decrypt.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bastide.domain import Refused

_MAGIC = b"BKM1"
_HEAD = struct.Struct(">4sHI")
_NONCE = 12


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
            raw = text.encode()
            parts += (struct.pack(">I", len(raw)), raw)
    return b"".join(parts)


def encrypt(material: bytes, key_id: str, version: int, plaintext: bytes, context: Mapping[str, str]) -> bytes:
    """A ciphertext of `plaintext` under version `version` of the key `key_id` (its ARN)."""
    name = key_id.encode()
    head = _HEAD.pack(_MAGIC, len(name), version) + name
    nonce = os.urandom(_NONCE)
    return head + nonce + AESGCM(material).encrypt(nonce, plaintext, _aad(head, context))


def key_of(blob: bytes) -> tuple[str, int]:
    """Key id and version that a ciphertext names; raises InvalidCiphertextException."""
    try:
        magic, length, version = _HEAD.unpack_from(blob)
        name = blob[_HEAD.size : _HEAD.size + length].decode()
    except (struct.error, UnicodeDecodeError):
        raise _invalid() from None
    if magic != _MAGIC or not name or len(blob) < _HEAD.size + length + _NONCE + 16:
        raise _invalid()
    return name, version


def decrypt(material: bytes, blob: bytes, context: Mapping[str, str]) -> bytes:
    """The plaintext; raises InvalidCiphertextException for another key, another context or a changed bit."""
    name, _ = key_of(blob)
    at = _HEAD.size + len(name.encode())
    try:
        return AESGCM(material).decrypt(blob[at : at + _NONCE], blob[at + _NONCE :], _aad(blob[:at], context))
    except InvalidTag:
        raise _invalid() from None

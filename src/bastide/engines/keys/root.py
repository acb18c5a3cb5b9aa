"""The root key: in a file that its owner alone can read, in memory while the platform runs, nowhere else."""

from __future__ import annotations

import base64
import hmac
import os
import secrets
import stat
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_BYTES = 32
_NONCE = 12
_SALT = 16
_ONCE = bytes(_NONCE)
"""The nonce of a key that encrypts one thing only."""


def create_root(path: Path) -> RootKey:
    """Makes a root key and its file (mode 0600, on the disk when this returns); raises FileExistsError."""
    material = os.urandom(_BYTES)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(material)
            file.flush()
            os.fsync(file.fileno())
        # Content first, name last: a half root key must never be taken for one, nor another one be replaced.
        path.hardlink_to(draft)
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return RootKey(material)


class RootKey:
    """Wraps keys and seals tokens. Prints as nothing."""

    __slots__ = ("_sealing", "_wrapping", "derive")

    def __init__(self, material: bytes) -> None:
        if len(material) != _BYTES:
            raise ValueError("a root key has 32 bytes")

        def derive(purpose: str) -> bytes:
            kdf = HKDF(algorithm=hashes.SHA256(), length=_BYTES, salt=None, info=b"bastide/" + purpose.encode())
            return kdf.derive(material)

        # A key for each purpose, so that what was sealed for one can never be opened as another.
        self.derive = lru_cache(1024)(derive)
        """A key of 32 bytes for a purpose; the same purpose gives the same key."""
        self._sealing = lru_cache(64)(lambda purpose: derive("seal/" + purpose))
        self._wrapping = AESGCM(derive("wrap"))

    def __repr__(self) -> str:
        return "RootKey(...)"

    @classmethod
    def load(cls, path: Path) -> RootKey:
        """Reads a root key's file; raises PermissionError if others could read it, ValueError if it is none."""
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise PermissionError(f"{path} is not a file")
            if stat.S_IMODE(mode) & 0o077:
                raise PermissionError(f"{path} can be read by others; make it `chmod 600`")
            return cls(file.read(_BYTES + 1))

    def wrap(self, material: bytes, aad: bytes) -> bytes:
        """Encrypts key material; `aad` (whose key it is) must be given again to unwrap."""
        nonce = os.urandom(_NONCE)
        return nonce + self._wrapping.encrypt(nonce, material, aad)

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        """Key material again; raises ValueError for anything that this root key did not wrap for `aad`."""
        try:
            return self._wrapping.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], aad)
        except InvalidTag:
            raise ValueError("the key was not wrapped by this root key, or was changed") from None

    def seal(self, data: bytes, purpose: str) -> str:
        """A token (base64url) that only `open` with the same purpose reads."""
        salt = os.urandom(_SALT)
        return _text(salt + AESGCM(self._token_key(salt, purpose)).encrypt(_ONCE, data, None))

    def open(self, token: str, purpose: str) -> bytes:
        """What was sealed; raises ValueError for anything else, also for the same bytes written another way."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)
            if _text(raw) != token:
                raise ValueError
            salt = raw[:_SALT]
            return AESGCM(self._token_key(salt, purpose)).decrypt(_ONCE, raw[_SALT:], None)
        except (InvalidTag, ValueError):
            raise ValueError("the token is not one of ours") from None

    def _token_key(self, salt: bytes, purpose: str) -> bytes:
        # A key for each token: so many are made that random nonces under one key would meet in the end.
        return hmac.digest(self._sealing(purpose), salt, "sha256")


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")

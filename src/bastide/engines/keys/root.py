"""The root key: in a file that its owner alone can read, in memory while the platform runs, nowhere else."""

from __future__ import annotations

import base64
import os
import stat
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_BYTES = 32
_NONCE = 12


def create_root(path: Path) -> RootKey:
    """Makes a root key and its file (mode 0600, on the disk when this returns); raises FileExistsError."""
    material = os.urandom(_BYTES)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(material)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    return RootKey(material)


class RootKey:
    """Wraps keys and seals tokens. Prints as nothing."""

    __slots__ = ("_cipher", "_wrapping", "derive")

    def __init__(self, material: bytes) -> None:
        if len(material) != _BYTES:
            raise ValueError("a root key has 32 bytes")

        def derive(purpose: str) -> bytes:
            kdf = HKDF(algorithm=hashes.SHA256(), length=_BYTES, salt=None, info=b"bastide/" + purpose.encode())
            return kdf.derive(material)

        # A key for each purpose, so that what was sealed for one can never be opened as another.
        self.derive = lru_cache(1024)(derive)
        """A key of 32 bytes for a purpose; the same purpose gives the same key."""
        self._cipher = lru_cache(64)(lambda purpose: AESGCM(derive("seal/" + purpose)))
        self._wrapping = AESGCM(derive("wrap"))

    def __repr__(self) -> str:
        return "RootKey(...)"

    @classmethod
    def load(cls, path: Path) -> RootKey:
        """Reads a root key's file; raises PermissionError if anybody but its owner could read it."""
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(handle, "rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
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
        nonce = os.urandom(_NONCE)
        return base64.urlsafe_b64encode(nonce + self._cipher(purpose).encrypt(nonce, data, None)).decode().rstrip("=")

    def open(self, token: str, purpose: str) -> bytes:
        """What was sealed; raises ValueError for anything else."""
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            return self._cipher(purpose).decrypt(raw[:_NONCE], raw[_NONCE:], None)
        except (InvalidTag, ValueError, UnicodeEncodeError):
            raise ValueError("the token is not one of ours") from None

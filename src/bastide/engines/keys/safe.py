"""The safe: half of what opens each customer's key material, in a file of its own, so that it can be destroyed.

Material is wrapped under a key that follows from the root key and from a *shard*: 32 random bytes in ``safe/ID``, sealed
under the root key. Databases leave copies of what they once held (free pages, write-ahead logs, history, backups); a file
of 0600 that is in no backup does not. With the shard gone, every copy of the wrapped material is noise, for whoever holds
the root key, too. See docs/decisions/0009.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bastide.engines.keys.root import RootKey

_BYTES: Final = 32
_NONCE: Final = 12
_ID: Final = re.compile(r"[0-9a-f]{32}")


class Gone(Exception):  # noqa: N818
    """The shard is not in the safe: what was wrapped under it is lost for good."""


class Safe:
    """The shards of one platform. One process at a time writes."""

    def __init__(self, folder: Path, root: RootKey) -> None:
        """Opens or makes the folder (mode 0700)."""
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder
        self._root = root
        self._ground = root.derive("safe/wrap")

    def __repr__(self) -> str:
        return "Safe(...)"

    def make(self) -> str:
        """The id of a new shard, on the disk when this returns."""
        id = secrets.token_hex(16)
        self._write(id, os.urandom(_BYTES))
        return id

    def _write(self, id: str, shard: bytes) -> None:
        # Content first, name last: a start must never meet a shard that is half there.
        draft = self._folder / f".{id}"
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(self._root.seal(shard, f"safe/{id}").encode())
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self._folder / id)
        self._sync()

    def _sync(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _shard(self, id: str) -> bytes:
        if not _ID.fullmatch(id):
            raise Gone(id)
        try:
            return self._root.open((self._folder / id).read_text(), f"safe/{id}")
        except (FileNotFoundError, ValueError):
            raise Gone(id) from None

    def _cipher(self, id: str) -> AESGCM:
        return AESGCM(hmac.digest(self._ground, self._shard(id), "sha256"))

    def wrap(self, id: str, material: bytes, aad: bytes) -> bytes:
        """Encrypts key material under root key and shard; raises Gone."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher(id).encrypt(nonce, material, aad)

    def unwrap(self, id: str, wrapped: bytes, aad: bytes) -> bytes:
        """Key material again; raises Gone, and ValueError for what was not wrapped here for `aad`."""
        try:
            return self._cipher(id).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], aad)
        except InvalidTag:
            raise ValueError("the key was not wrapped under this shard, or was changed") from None

    def destroy(self, id: str) -> None:
        """Overwrites and removes a shard; it is off the disk when this returns. One that is not there is destroyed."""
        if _ID.fullmatch(id):
            self._destroy(self._folder / id)
            self._sync()

    @staticmethod
    def _destroy(path: Path) -> None:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        with os.fdopen(handle, "wb") as file:
            # On a disk that writes elsewhere this overwrites nothing; what is left there is sealed under the root key.
            file.write(os.urandom(os.fstat(file.fileno()).st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink(missing_ok=True)

    def holds(self, id: str) -> bool:
        """Whether a shard is there, and what was written."""
        try:
            self._shard(id)
        except Gone:
            return False
        return True

    def ids(self) -> Iterator[str]:
        """The shards that are there."""
        return (path.name for path in self._folder.iterdir() if _ID.fullmatch(path.name))

    def sweep(self, named: Callable[[str], bool]) -> None:
        """Destroys shards that nothing names: of keys that are gone, or whose making was interrupted."""
        for path in list(self._folder.iterdir()):
            if not _ID.fullmatch(path.name) or not named(path.name):
                self._destroy(path)
        self._sync()

    def sealed(self) -> bytes:
        """The whole safe as one small text, sealed under the root key: what a restore needs beside a backup."""
        held = {}
        for id in self.ids():
            try:
                held[id] = self._shard(id).hex()
            except Gone:
                continue  # destroyed meanwhile
        return self._root.seal(json.dumps(held).encode(), "safe/export").encode()

    def fill(self, sealed: bytes) -> None:
        """Brings the shards of `sealed` back; raises ValueError for what this root key did not seal."""
        held = json.loads(self._root.open(sealed.decode("ascii", "replace"), "safe/export"))
        for id, shard in held.items():
            if not _ID.fullmatch(id):
                raise ValueError("the safe holds what is no shard")
            self._write(id, bytes.fromhex(shard))

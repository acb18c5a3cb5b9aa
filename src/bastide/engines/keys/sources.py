"""Where the root key comes from, and what it opens: the keyring.

The root key wraps one key, the platform's, in ``root.json``; all else is wrapped, sealed and derived by that one
(`RootKey`). So the root key may live where it cannot be read (a token, another KMS), and changing it rewrites one small
file. A platform of before the keyring has its platform's key in ``root.key`` itself.

A source is named by a text: ``file``, ``environment:NAME``, ``descriptor:NUMBER``,
``pkcs11:token=LABEL;object=LABEL?module-path=FILE`` (as RFC 7512 writes it) or
``kms:KEY-ARN?endpoint-url=URL&ca-bundle=FILE``. No secret is part of it. See docs/decisions/0010.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, unquote

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bastide.engines.keys.root import RootKey, create_root

_BYTES: Final = 32
_NONCE: Final = 12
_AAD: Final = b"bastide/root-key"
_CONTEXT: Final = {"bastide": "root-key"}
_PIN: Final = "BASTIDE_PKCS11_PIN"


class SourceError(Exception):
    """The root key cannot be had, or does not open this platform. Never tells a secret."""


class Source(Protocol):
    """Something that has a root key and lets it work."""

    def wrap(self, key: bytes) -> bytes:
        """Encrypts the platform's key; raises SourceError."""
        ...

    def unwrap(self, wrapped: bytes) -> bytes:
        """The platform's key again; raises SourceError."""
        ...


@dataclass(frozen=True, repr=False)
class _Held:
    """A root key that this process has in its memory."""

    key: bytes

    def _cipher(self) -> AESGCM:
        return AESGCM(hmac.digest(self.key, _AAD, "sha256"))

    def wrap(self, key: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher().encrypt(nonce, key, _AAD)

    def unwrap(self, wrapped: bytes) -> bytes:
        try:
            return self._cipher().decrypt(wrapped[:_NONCE], wrapped[_NONCE:], _AAD)
        except InvalidTag:
            raise SourceError("this root key does not open this platform") from None


def _secret(text: bytes, whence: str) -> bytes:
    """32 bytes from what an environment or a pipe holds: as they are, in hex or in base64."""
    raw = text.strip()
    if len(text) == _BYTES:
        return text
    if re.fullmatch(rb"[0-9a-fA-F]{64}", raw):
        return bytes.fromhex(raw.decode())
    try:
        found = base64.b64decode(raw, validate=True)
    except binascii.Error:
        found = b""
    if len(found) != _BYTES:
        raise SourceError(f"{whence} holds no root key: 32 bytes, in hex or base64")
    return found


def _environment(name: str) -> Source:
    # Taken out, so that no program that the platform starts inherits it.
    text = os.environ.pop(name, None)
    if text is None:
        raise SourceError(f"the root key is to come from the environment variable {name}, which is not set")
    return _Held(_secret(text.encode(), f"the environment variable {name}"))


def _descriptor(number: str) -> Source:
    try:
        with os.fdopen(int(number), "rb") as file:
            return _Held(_secret(file.read(4096), f"the file descriptor {number}"))
    except (OSError, ValueError):
        raise SourceError(f"the root key is to come from the file descriptor {number}, which cannot be read") from None


@dataclass(frozen=True, repr=False)
class _Token:
    """An AES key that never leaves a PKCS #11 token (CKM_AES_GCM). The PIN comes from the environment."""

    module: str
    token: str
    object: str
    make: bool

    def _work(self, key: bytes | None, wrapped: bytes | None) -> bytes:
        try:
            import pkcs11  # noqa: PLC0415 - only who keeps the root key on a token needs the library
        except ImportError:
            raise SourceError("a root key on a token needs the package python-pkcs11") from None
        pin = os.environ.get(_PIN)
        if pin is None:
            raise SourceError(f"the token's PIN is to come from the environment variable {_PIN}, which is not set")
        try:
            token = pkcs11.lib(self.module).get_token(token_label=self.token)
            with token.open(user_pin=pin, rw=self.make) as session:
                held = self._key(pkcs11, session)
                nonce = os.urandom(_NONCE) if wrapped is None else wrapped[:_NONCE]
                given = {
                    "mechanism": pkcs11.Mechanism.AES_GCM,
                    "mechanism_param": pkcs11.GCMParams(nonce, _AAD, 128),
                }
                if wrapped is None:
                    return nonce + bytes(held.encrypt(key, **given))
                return bytes(held.decrypt(wrapped[_NONCE:], **given))
        except (pkcs11.PKCS11Error, RuntimeError) as error:
            raise SourceError(f"the token {self.token} does not open this platform ({type(error).__name__})") from None

    def _key(self, pkcs11: Any, session: Any) -> Any:
        try:
            return session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, label=self.object)
        except pkcs11.NoSuchKey:
            if not self.make:
                raise
            template = {pkcs11.Attribute.EXTRACTABLE: False, pkcs11.Attribute.SENSITIVE: True}
            return session.generate_key(pkcs11.KeyType.AES, 256, label=self.object, store=True, template=template)

    def wrap(self, key: bytes) -> bytes:
        return self._work(key, None)

    def unwrap(self, wrapped: bytes) -> bytes:
        return self._work(None, wrapped)


def _pkcs11(path: str, make: bool) -> Source:
    attributes, _, query = path.partition("?")
    named = dict(one.split("=", 1) for one in attributes.split(";") if "=" in one)
    module = parse_qs(query).get("module-path", [""])[0]
    if not module or not named.get("token") or not named.get("object"):
        raise SourceError("a token is named as pkcs11:token=LABEL;object=LABEL?module-path=FILE")
    return _Token(module, unquote(named["token"]), unquote(named["object"]), make)


@dataclass(frozen=True, repr=False)
class _Kms:
    """A key of another KMS; credentials come the ways that AWS's SDKs find them."""

    key: str
    endpoint: str | None
    authority: str | None

    def _call(self, operation: str, given: Mapping[str, Any], member: str) -> bytes:
        import boto3  # noqa: PLC0415 - slow to load, and few need it
        import botocore.exceptions  # noqa: PLC0415

        try:
            region = self.key.split(":")[3]
            client = boto3.client(
                "kms", region_name=region, endpoint_url=self.endpoint, verify=self.authority or True
            )  # fmt: skip
            answer = getattr(client, operation)(KeyId=self.key, EncryptionContext=_CONTEXT, **given)
            return bytes(answer[member])
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            raise SourceError(f"the KMS key {self.key} does not open this platform: {error}") from None

    def wrap(self, key: bytes) -> bytes:
        return self._call("encrypt", {"Plaintext": key}, "CiphertextBlob")

    def unwrap(self, wrapped: bytes) -> bytes:
        return self._call("decrypt", {"CiphertextBlob": wrapped}, "Plaintext")


def _kms(path: str) -> Source:
    key, _, query = path.partition("?")
    given = parse_qs(query)
    if not re.fullmatch(r"arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[\w/-]+", key):
        raise SourceError("a key of another KMS is named as kms:KEY-ARN?endpoint-url=URL&ca-bundle=FILE")
    return _Kms(key, given.get("endpoint-url", [None])[0], given.get("ca-bundle", [None])[0])


def source(name: str, file: Path, *, make: bool = False) -> Source:
    """The source that a text names. file: where a root key in a file lies. make: a token may make the key.

    Raises SourceError; PermissionError and ValueError for a root key's file that others can read or that is none."""
    kind, _, rest = name.partition(":")
    if name == "file":
        return _Held(_read(file))
    if kind == "environment" and rest:
        return _environment(rest)
    if kind == "descriptor" and rest.isdigit():
        return _descriptor(rest)
    if kind == "pkcs11":
        return _pkcs11(rest, make)
    if kind == "kms":
        return _kms(rest)
    raise SourceError(f"`{name}` names no source of a root key: file, environment:, descriptor:, pkcs11: or kms:")


def _read(path: Path) -> bytes:
    RootKey.load(path)  # refuses a file that others can read, and one that is no root key
    return path.read_bytes()


# -- the keyring -----------------------------------------------------------------------------------------------------------


def _files(folder: Path) -> tuple[Path, Path, Path]:
    """The keyring, the root key's file, and the file of one that is about to take its place."""
    return folder / "root.json", folder / "root.key", folder / "root.key.new"


def create_keyring(folder: Path, name: str = "file") -> RootKey:
    """Makes a platform's key, and wraps it by the root key of a source; with ``file``, makes that, too.

    Raises SourceError, FileExistsError."""
    ring, file, _ = _files(folder)
    if name == "file":
        create_root(file)
    platform = os.urandom(_BYTES)
    _save(ring, name, source(name, file, make=True).wrap(platform))
    return RootKey(platform)


def _save(ring: Path, name: str, wrapped: bytes) -> None:
    content = json.dumps({"source": name, "wrapped": base64.b64encode(wrapped).decode()}, indent=2)
    handle, draft = tempfile.mkstemp(prefix=".root.json.", dir=ring.parent)
    with os.fdopen(handle, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(draft).replace(ring)
    _sync(ring.parent)


def _sync(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _told(content: bytes) -> tuple[str, bytes]:
    try:
        told = json.loads(content)
        return str(told["source"]), base64.b64decode(told["wrapped"], validate=True)
    except (ValueError, KeyError, TypeError):
        raise SourceError("the keyring cannot be read") from None


def _platform_key(folder: Path) -> bytes:
    ring, file, new = _files(folder)
    if not ring.exists():
        return _read(file)
    name, wrapped = _told(ring.read_bytes())
    if name != "file" or not new.exists():
        return source(name, file).unwrap(wrapped)
    # A change of the root key was interrupted: the keyring says which of the two files counts.
    try:
        key = source(name, new).unwrap(wrapped)
    except (SourceError, PermissionError, ValueError):
        return source(name, file).unwrap(wrapped)
    new.replace(file)
    _sync(folder)
    return key


def open_root(folder: Path) -> RootKey:
    """The platform's key, as its root key opens it. Raises SourceError, FileNotFoundError, PermissionError, ValueError."""
    return RootKey(_platform_key(folder))


def open_ring(content: bytes, file: Path | None) -> RootKey:
    """The platform's key from a copy of a keyring; empty content: of a platform that has none. file: the root key's file,
    for a platform whose root key is in one. Raises as `open_root` does."""
    name, wrapped = _told(content) if content else ("file", b"")
    if name == "file" and file is None:
        raise SourceError("the root key of this platform is in a file, which must be named")
    where = file or Path("root.key")
    return RootKey(source(name, where).unwrap(wrapped)) if content else RootKey.load(where)


def ring_of(folder: Path) -> bytes:
    """The keyring as it lies on the disk; empty if the platform has none. The root key alone opens it."""
    ring = _files(folder)[0]
    return ring.read_bytes() if ring.exists() else b""


def rotate_root(folder: Path, name: str) -> None:
    """Has another root key wrap the platform's key; ``file`` makes a new one in the old one's place. Whenever this is
    interrupted, either the old or the new root key opens the platform. Raises as `open_root` does.

    The old root key's file is overwritten and removed; copies of the old keyring are for the owner to destroy.
    """
    key = _platform_key(folder)
    ring, file, new = _files(folder)
    if name == "file":
        new.unlink(missing_ok=True)
        create_root(new)
        _save(ring, name, source(name, new).wrap(key))
        _overwrite(file)
        new.replace(file)
    else:
        wrapped = source(name, file, make=True).wrap(key)
        _save(ring, name, wrapped)
        _overwrite(file)
        file.unlink(missing_ok=True)
        new.unlink(missing_ok=True)
    _sync(folder)


def _overwrite(path: Path) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    with os.fdopen(handle, "wb") as file:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            file.write(secrets.token_bytes(os.fstat(handle).st_size))
            file.flush()
            os.fsync(handle)

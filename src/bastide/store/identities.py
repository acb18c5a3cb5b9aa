"""What the data directory says about people: which identity provider they sign in at, and who they are at the
development identity provider.

Both are files of mode 0600 that the platform reads anew when they change. The client secret stands sealed in its file,
passwords as scrypt digests.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from bastide.store.directory import write_private

_COST: Final = {"n": 2**14, "r": 8, "p": 1}
"""16 MiB and some 30 ms a guess (RFC 7914)."""
CLAIMS: Final = {
    "UserName": "preferred_username",
    "Name.GivenName": "given_name",
    "Name.FamilyName": "family_name",
    "DisplayName": "name",
}
"""Which claim an attribute of the identity store is taken from, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Provider:
    """An OIDC provider, and this platform as its client.

    sealed_secret: the client secret, sealed; empty for a public client. claims: attribute path of the identity store to the
    provider's claim. groups: the claim that lists groups, empty if none does. provision: whether people are made in the
    identity store when they first sign in. trust_email: whether addresses count though the provider does not call them
    verified. authority: a PEM file to trust instead of the system's. recheck: seconds after which the provider is asked
    again whether it still vouches for who is signed in.
    """

    issuer: str
    client_id: str
    sealed_secret: str = ""
    scopes: tuple[str, ...] = ("openid", "profile", "email", "offline_access")
    claims: dict[str, str] = field(default_factory=lambda: dict(CLAIMS))
    groups: str = "groups"
    provision: bool = True
    trust_email: bool = False
    authority: str = ""
    recheck: int = 300

    def save(self, path: Path) -> None:
        """Writes the file."""
        write_private(path, json.dumps(asdict(self), indent=2).encode())

    @classmethod
    def load(cls, path: Path) -> Provider | None:
        """What the file says; None if there is none. Raises ValueError for a file that says something else."""
        try:
            told = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        try:
            return cls(**{**told, "scopes": tuple(told["scopes"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is not an identity provider's file: {error}") from None


@dataclass(slots=True)
class Invented:
    """Somebody at the development identity provider. subject: who they are, whatever their name becomes."""

    subject: str
    password: str
    email: str
    given_name: str
    family_name: str
    groups: list[str]
    disabled: bool = False
    claims: dict[str, str] = field(default_factory=dict)


def load_people(path: Path) -> dict[str, Invented]:
    """The development identity provider's people by name."""
    try:
        return {name: Invented(**told) for name, told in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        return {}


def save_people(path: Path, people: dict[str, Invented]) -> None:
    """Writes the file."""
    write_private(path, json.dumps({name: asdict(one) for name, one in people.items()}, indent=2).encode())


def new_subject() -> str:
    """Who somebody is, as the provider knows them."""
    return secrets.token_hex(12)


def hashed(password: str) -> str:
    """What is kept of a password."""
    salt = os.urandom(16)
    return f"scrypt${_text(salt)}${_text(_scrypt(password, salt))}"


def matches(password: str, kept: str) -> bool:
    """Whether a password is the one; takes as long for a wrong one, and for one that nobody has (`kept` empty)."""
    _, _, rest = (kept or _NOBODY).partition("$")
    salt, _, digest = rest.partition("$")
    same = hmac.compare_digest(_scrypt(password, base64.b64decode(salt)), base64.b64decode(digest))
    return same and bool(kept)


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, dklen=32, **_COST)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


_NOBODY: Final = f"scrypt${_text(bytes(16))}${_text(bytes(32))}"

"""Sealed calls: a name, JSON and bytes to an agent; JSON and bytes back.

Both ends know the cluster's secret. Each agent and each platform make a fresh X25519 key; the session's two keys come from
the agreement and the secret, so whoever has neither can read or forge nothing, and what was recorded cannot be read later
with the secret alone. AES-256-GCM; a call's number is its nonce, and its answer's; no number is accepted twice.
"""

from __future__ import annotations

import hmac
import itertools
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_WINDOW: Final = 4096
_HEAD: Final = struct.Struct(">I")
_NUMBER: Final = struct.Struct(">Q")

Carry = Callable[[bytes], Awaitable[bytes]]
"""Takes bytes to the agent and brings its answer; raises ConnectionError when the agent is not there any more."""
Handler = Callable[[str, Mapping[str, Any], bytes], Awaitable[tuple[Mapping[str, Any], bytes]]]


def derived(secret: bytes, purpose: str) -> bytes:
    """32 bytes from the cluster's secret, other ones for each purpose."""
    return hmac.digest(secret, f"bastide cluster: {purpose}".encode(), "sha256")


class _Session:
    def __init__(self, own: X25519PrivateKey, other: bytes, secret: bytes, platform: bytes, agent: bytes) -> None:
        shared = own.exchange(X25519PublicKey.from_public_bytes(other))
        kdf = HKDF(hashes.SHA256(), 64, derived(secret, "channel"), platform + agent)
        keys = kdf.derive(shared)
        self.there, self.back = AESGCM(keys[:32]), AESGCM(keys[32:])


def _packed(told: Mapping[str, Any], data: bytes) -> bytes:
    head = orjson.dumps(told)
    return _HEAD.pack(len(head)) + head + data


def _unpacked(content: bytes) -> tuple[dict[str, Any], bytes]:
    length = _HEAD.unpack_from(content)[0]
    end = _HEAD.size + length
    told = orjson.loads(content[_HEAD.size : end])
    return told, content[end:]


def _nonce(number: int) -> bytes:
    return b"\0\0\0\0" + _NUMBER.pack(number)


class Asking:
    """The platform's end. An agent's refusal is raised as it was there: OSError with its number, ValueError, or
    RuntimeError for everything else; what cannot be believed, and an agent that is gone, as ConnectionError."""

    def __init__(self, carry: Carry, secret: bytes) -> None:
        self._carry = carry
        self._secret = secret
        self._session: _Session | None = None
        self._numbers = itertools.count(1)

    async def open(self) -> None:
        """Agrees on keys; raises ConnectionError, also where the agent has another secret."""
        own = X25519PrivateKey.generate()
        public = own.public_key().public_bytes_raw()
        other = await self._carry(b"\0" * _NUMBER.size + public)
        if len(other) != 32:
            raise ConnectionError("the agent does not speak as agents do")
        self._session = _Session(own, other, self._secret, public, other)
        await self.call("hello", {})

    async def call(self, name: str, told: Mapping[str, Any], data: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Asks; see above."""
        if self._session is None:
            raise ConnectionError("the channel is not open")
        number = next(self._numbers)
        head = _NUMBER.pack(number)
        sealed = self._session.there.encrypt(_nonce(number), _packed({"call": name, **told}, data), head)
        answer = await self._carry(head + sealed)
        try:
            found, content = _unpacked(self._session.back.decrypt(_nonce(number), answer, head))
        except (InvalidTag, ValueError, struct.error):
            raise ConnectionError(
                "the agent answered with another key: it has another secret, or was replaced"
            ) from None
        if (error := found.get("error")) is not None:
            if error["kind"] == "OSError":
                raised = OSError(error["number"], error["text"])
                # A connection that broke over there is no agent that is lost.
                raise RuntimeError(error["text"]) if isinstance(raised, ConnectionError) else raised
            raise (ValueError if error["kind"] == "ValueError" else RuntimeError)(error["text"])
        return found, content


class Answering:
    """The agent's end: for one platform, whose key is the first that comes."""

    def __init__(self, handler: Handler, secret: bytes) -> None:
        self._handler = handler
        self._secret = secret
        self._session: _Session | None = None
        self._seen: set[int] = set()
        self._highest = 0

    async def __call__(self, content: bytes) -> bytes:
        """Answers one call; with nothing, one that cannot be believed."""
        head = content[: _NUMBER.size]
        if len(head) < _NUMBER.size:
            return b""
        number = _NUMBER.unpack(head)[0]
        rest = content[_NUMBER.size :]
        if number == 0:
            if self._session is not None or len(rest) != 32:  # an agent serves one platform
                return b""
            own = X25519PrivateKey.generate()
            public = own.public_key().public_bytes_raw()
            self._session = _Session(own, rest, self._secret, rest, public)
            return public
        session = self._session
        if session is None or number in self._seen or number + _WINDOW <= self._highest:
            return b""
        try:
            told, data = _unpacked(session.there.decrypt(_nonce(number), rest, head))
        except (InvalidTag, ValueError, struct.error):
            return b""
        self._seen.add(number)
        self._highest = max(self._highest, number)
        if len(self._seen) > 2 * _WINDOW:
            self._seen = {one for one in self._seen if one + _WINDOW > self._highest}
        try:
            found, answer = await self._handler(str(told.pop("call")), told, data)
        except OSError as error:
            found, answer = {"error": {"kind": "OSError", "number": error.errno or 5, "text": str(error)}}, b""
        except ValueError as error:
            found, answer = {"error": {"kind": "ValueError", "text": str(error)}}, b""
        except Exception as error:
            found, answer = {"error": {"kind": type(error).__name__, "text": str(error) or type(error).__name__}}, b""
        return session.back.encrypt(_nonce(number), _packed(found, answer), head)

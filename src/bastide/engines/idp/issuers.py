"""Keys of OpenID Connect issuers, fetched from the issuer itself.

Source: OpenID Connect Discovery 1.0, 4; RFC 7517; IAM User Guide, "Obtain the thumbprint for an OpenID Connect identity
provider". An issuer is believed if its certificate leads to a public authority or to the platform's own; failing these, if
its chain holds the certificate whose SHA-1 thumbprint the provider was told. Only the issuer's own host is asked, no
redirect is followed, and addresses that no issuer has are not connected to.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import socket
import ssl
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import httptools
import orjson
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from bastide.engines.idp.rejected import Rejected

Key = Mapping[str, Any]

_MOST_BYTES: Final = 256 * 1024
_MOST_KEYS: Final = 100
_FRESH: Final = 600.0
"""Seconds that keys are used before they are fetched again."""
_PAUSE: Final = 10.0
"""Seconds between two fetches that an unknown key id or a failure asks for."""
_MOST_ISSUERS: Final = 1000
_AT_ONCE: Final = 64


@dataclass(slots=True)
class _Known:
    """fetched, asked: monotonic seconds of the last success, and of the last fetch that went out of turn."""

    keys: tuple[Key, ...] = ()
    fetched: float = 0.0
    asked: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Issuers:
    """Fetches and remembers the keys of issuers. authority: the platform's own certificate authority (PEM). seconds: of
    one exchange, from the look-up of the name to the last byte."""

    def __init__(self, authority: Path, *, seconds: float = 5.0) -> None:
        self.loopback = False
        """Whether issuers on this machine count: only while nobody from outside reaches the platform (development)."""
        self._authority = authority
        self._seconds = seconds
        self._known: OrderedDict[tuple[str, tuple[str, ...]], _Known] = OrderedDict()
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._context: ssl.SSLContext | None = None

    async def keys(self, issuer: str, thumbprints: Sequence[str], kid: str) -> Sequence[Key]:
        """The issuer's public keys (JWK). A `kid` that is not among those at hand has them fetched again, at most once in
        ten seconds. Raises Rejected ("unreachable")."""
        name = (issuer, tuple(thumbprints))
        known = self._known.setdefault(name, _Known())
        self._known.move_to_end(name)
        if len(self._known) > _MOST_ISSUERS:
            self._known.popitem(last=False)
        async with known.lock:
            now = time.monotonic()
            fresh = bool(known.fetched) and now - known.fetched < _FRESH
            if fresh and (not kid or any(key.get("kid") == kid for key in known.keys)):
                return known.keys
            if known.asked and now - known.asked < _PAUSE:
                if fresh:
                    return known.keys
                raise _unreachable("It could not be reached a moment ago.")
            known.asked = now
            async with self._at_once:
                known.keys = await self._fetch(issuer, thumbprints)
            if not fresh:
                known.asked = 0.0
            known.fetched = time.monotonic()
            return known.keys

    async def _fetch(self, issuer: str, thumbprints: Sequence[str]) -> tuple[Key, ...]:
        try:
            where = urlsplit(issuer)
            told = await self._document(
                where, where.path.rstrip("/") + "/.well-known/openid-configuration", thumbprints
            )
            if told.get("issuer") != issuer:
                raise _unreachable("Its discovery document names another issuer.")
            there = urlsplit(str(told.get("jwks_uri") or ""))
            if (there.scheme, there.netloc.lower()) != (where.scheme, where.netloc.lower()):
                raise _unreachable("Its keys are not kept at the issuer's own host.")
            path = there.path + (f"?{there.query}" if there.query else "")
            keys = (await self._document(where, path, thumbprints)).get("keys")
        except (OSError, TimeoutError, ValueError, httptools.HttpParserError, EOFError) as error:
            # What exactly is wrong between us and an address is nobody's business who brought a token.
            raise _unreachable("It cannot be reached, or not be believed.") from error
        if not isinstance(keys, list) or len(keys) > _MOST_KEYS:
            raise _unreachable("Its key set cannot be read.")
        return tuple(key for key in keys if isinstance(key, dict))

    async def _document(self, where: SplitResult, path: str, thumbprints: Sequence[str]) -> dict[str, Any]:
        async with asyncio.timeout(self._seconds):
            reader, writer = await self._connect(where, thumbprints)
            try:
                body = await _get(reader, writer, where.netloc, path)
            finally:
                writer.close()
        found = orjson.loads(body)
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
        return found

    async def _connect(
        self, where: SplitResult, thumbprints: Sequence[str]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host = where.hostname or ""
        port = where.port or (443 if where.scheme == "https" else 80)
        failed: OSError = OSError("no address")
        for address in await self._addresses(host, port, where.scheme):
            try:
                if where.scheme == "http":
                    return await asyncio.open_connection(address, port)
                return await self._believed(address, port, host, thumbprints)
            except ssl.SSLCertVerificationError:
                raise
            except OSError as error:
                failed = error
        raise failed

    async def _believed(
        self, address: str, port: int, host: str, thumbprints: Sequence[str]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection whose certificate is the issuer's; raises ValueError, OSError."""
        if self._context is None:
            self._context = await asyncio.to_thread(_trusting, self._authority)
        try:
            return await asyncio.open_connection(address, port, ssl=self._context, server_hostname=host)
        except ssl.SSLCertVerificationError:
            if not thumbprints:
                raise
        unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unverified.check_hostname = False
        unverified.verify_mode = ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(address, port, ssl=unverified, server_hostname=host)
        try:
            # Before a single byte is sent or believed.
            _verify_chain(writer.get_extra_info("ssl_object"), host, thumbprints)
        except BaseException:
            writer.close()
            raise
        return reader, writer

    async def _addresses(self, host: str, port: int, scheme: str) -> list[str]:
        """The addresses of a host that may be an issuer; raises ValueError if it has one that may not. What is checked is
        what is connected to, so that the name cannot mean something else a moment later."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found]
        for one in addresses:
            plain = getattr(one, "ipv4_mapped", None) or one
            if plain.is_loopback and not self.loopback:
                raise ValueError("an issuer on this machine is for development")
            if scheme != "https" and not plain.is_loopback:
                raise ValueError("an issuer elsewhere speaks TLS")
            if plain.is_link_local or plain.is_multicast or plain.is_unspecified:
                raise ValueError("no issuer has such an address")
        return [str(one) for one in addresses]


def _unreachable(message: str) -> Rejected:
    return Rejected("unreachable", f"The identity provider did not answer as it should. {message}")


def _trusting(authority: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(authority)
    return context


async def _get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, path: str) -> bytes:
    """The body of a 200 answer, at most `_MOST_BYTES`; raises ValueError for any other answer."""
    if not path.startswith("/") or not all(33 <= ord(char) < 127 for char in path + host):
        raise ValueError("not a path")
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nUser-Agent: bastide\r\n"
        "Connection: close\r\n\r\n".encode()
    )
    await writer.drain()
    taken = 0
    while not answer.complete:
        data = await reader.read(16 * 1024)
        taken += len(data)
        if not data:
            break
        if taken > _MOST_BYTES:
            raise ValueError("too long an answer")
        parser.feed_data(data)
    if parser.get_status_code() != 200:
        raise ValueError("not a 200 answer")
    return bytes(answer.body)


class _Answer:
    def __init__(self) -> None:
        self.body = bytearray()
        self.complete = False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


def _verify_chain(tls: Any, host: str, thumbprints: Sequence[str]) -> None:
    """Whether the served chain leads from a certificate for `host` to one with a known thumbprint; raises ValueError."""
    shown = tls._sslobj.get_unverified_chain() or ()  # public as of Python 3.13
    chain = [x509.load_pem_x509_certificate(one.public_bytes().encode()) for one in shown]
    wanted = {one.lower() for one in thumbprints}
    anchors = [one for one in chain if hashlib.sha1(_der(one), usedforsecurity=False).hexdigest() in wanted]
    if not chain or not anchors:
        raise ValueError("its certificates are not those of the provider")
    now = datetime.now(UTC)
    leaf = chain[0]
    try:
        name: x509.DNSName | x509.IPAddress = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        name = x509.DNSName(host)
    if leaf in anchors:
        # The certificate itself is known: nobody has to vouch for it, but it must be for this host, and in force.
        _verify_leaf(leaf, name, now)
        return
    verifier = PolicyBuilder().store(Store(anchors)).time(now).build_server_verifier(name)
    try:
        verifier.verify(leaf, chain[1:])
    except VerificationError:
        raise ValueError("its certificates do not lead to the provider's") from None


def _verify_leaf(leaf: x509.Certificate, name: x509.DNSName | x509.IPAddress, now: datetime) -> None:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    held: list[Any] = names.get_values_for_type(type(name))
    if name.value not in held or not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        raise ValueError("its certificate is for another host, or not in force")


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)

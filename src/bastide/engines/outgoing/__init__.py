"""Requests that the platform makes of addresses which its users name (webhooks, API destinations), or its operator (a
package index).

Nobody reaches by it what they could not reach themselves. Only public addresses are connected to, and networks that the
operator named when the platform was started; never one of the platform's own listeners. The address that was looked at is
the one that is connected to, no redirect is followed, and sizes and times are bounded.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import httptools

_MOST_BYTES: Final = 256 * 1024
_MOST_URL: Final = 2048
_FORBIDDEN: Final = frozenset({"host", "content-length", "transfer-encoding", "connection"})
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Unreachable(Exception):  # noqa: N818
    """There was no answer, or the address is one that is not connected to; the message may be shown to whoever named it."""


@dataclass(slots=True)
class Reply:
    """An answer: status, headers (lower case) and the first of its body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Outgoing:
    """allowed: networks beside the public ones. authority: the platform's own certificate authority (PEM), believed beside
    those that the machine believes."""

    def __init__(self, authority: Path, allowed: Sequence[str] = ()) -> None:
        self._allowed = [ipaddress.ip_network(one) for one in allowed]
        self._authority = authority
        self._context: ssl.SSLContext | None = None
        self.ports: set[int] = set()
        """Ports of the platform's own listeners."""

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, seconds: float = 15.0
    ) -> Reply:
        """One request. seconds: from the look-up of the name to the last byte. Raises Unreachable."""
        where = checked(url)
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await self._connect(where)
                try:
                    return await _exchange(reader, writer, method, where, headers, body)
                finally:
                    writer.close()
        except TimeoutError:
            raise Unreachable(f"There was no answer within {seconds:g} seconds.") from None
        except ssl.SSLError:
            raise Unreachable("The certificate is not one that is believed.") from None
        except (OSError, ValueError, EOFError, httptools.HttpParserError):
            raise Unreachable("The address could not be reached, or did not speak HTTP.") from None

    async def stream(
        self, url: str, headers: Mapping[str, str], *, most: int, seconds: float = 15.0
    ) -> AsyncGenerator[bytes, None]:
        """The body of what lies at a URL, piece after piece. most: bytes of it. seconds: until its head is there, and from
        each piece to the next. Raises Unreachable, also for an answer that is not 200 or is cut short."""
        where = checked(url)
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await self._connect(where)
            try:
                answer, size = _Answer(), 0
                parser = httptools.HttpResponseParser(answer)
                writer.write(_head("GET", where, headers, 0))
                await writer.drain()
                while not answer.complete:
                    async with asyncio.timeout(seconds):
                        data = await reader.read(64 * 1024)
                    if not data and "content-length" not in answer.headers and answer.begun and not answer.chunked:
                        return  # its end is the connection's
                    if not data:
                        raise EOFError
                    parser.feed_data(data)
                    if answer.begun and (status := parser.get_status_code()) != 200:
                        raise Unreachable(f"The answer is {status}.")
                    piece = bytes(answer.body)
                    answer.body.clear()
                    size += len(piece)
                    if size > most:
                        raise Unreachable(f"There are more than {most} bytes.")
                    if piece:
                        yield piece
            finally:
                writer.close()
        except TimeoutError:
            raise Unreachable(f"There was no answer within {seconds:g} seconds.") from None
        except ssl.SSLError:
            raise Unreachable("The certificate is not one that is believed.") from None
        except (OSError, ValueError, EOFError, httptools.HttpParserError):
            raise Unreachable("The address could not be reached, or did not speak HTTP.") from None

    async def _connect(self, where: SplitResult) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host = where.hostname or ""
        port = where.port or (443 if where.scheme == "https" else 80)
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found]
        for one in addresses:
            self.check(one, port)
        context = None
        if where.scheme == "https":
            if self._context is None:
                self._context = await asyncio.to_thread(_trusting, self._authority)
            context = self._context
        failed: OSError = OSError("no address")
        for one in addresses:
            try:
                return await asyncio.open_connection(
                    str(one), port, ssl=context, server_hostname=host if context is not None else None
                )
            except ssl.SSLError:
                raise
            except OSError as error:
                failed = error
        raise failed

    def check(self, address: Address, port: int) -> None:
        """Raises Unreachable for an address that is not connected to."""
        plain: Address = getattr(address, "ipv4_mapped", None) or address
        mine = _ours(plain)
        if mine and port in self.ports:
            raise Unreachable("The address is the platform's own.")
        if any(plain.version == one.version and plain in one for one in self._allowed):
            return
        public = plain.is_global and not plain.is_multicast and not plain.is_reserved
        if mine or not public or _embedded(plain):
            raise Unreachable(
                "The address is not a public one. The operator of the platform can allow its network: "
                "`bastide up --deliver-to NETWORK`."
            )


_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


def _embedded(address: Address) -> bool:
    """Whether an IPv6 address is one that leads to some IPv4 address by way of a translator or tunnel."""
    if isinstance(address, ipaddress.IPv4Address):
        return False
    return address in _NAT64 or address.sixtofour is not None or address.teredo is not None


def _ours(address: Address) -> bool:
    """Whether the machine itself has the address: only then something can be bound to it."""
    if address.is_unspecified or address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


def checked(url: str) -> SplitResult:
    """The parts of a URL that may be asked; raises Unreachable."""
    try:
        where = urlsplit(url)
        legal = where.scheme in ("http", "https") and where.hostname and where.port != 0 and not where.username
    except ValueError:
        legal = False
    if not legal or len(url) > _MOST_URL or not all(33 <= ord(char) < 127 for char in url):
        raise Unreachable("It is no URL with http:// or https:// and a host, in ASCII and without credentials.")
    return where


def _trusting(authority: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(authority)
    return context


def _head(method: str, where: SplitResult, headers: Mapping[str, str], length: int) -> bytes:
    path = (where.path or "/") + (f"?{where.query}" if where.query else "")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {where.netloc}", "Connection: close", f"Content-Length: {length}"]
    for name, value in headers.items():
        if name.lower() in _FORBIDDEN or not name.isascii() or any(ord(char) < 32 for char in name + value):
            raise ValueError("not a header")
        lines.append(f"{name}: {value}")
    return "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n"


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    where: SplitResult,
    headers: Mapping[str, str],
    body: bytes,
) -> Reply:
    writer.write(_head(method, where, headers, len(body)) + body)
    await writer.drain()
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    taken = 0
    while not answer.complete and taken < _MOST_BYTES:
        data = await reader.read(16 * 1024)
        if not data:
            break
        taken += len(data)
        parser.feed_data(data)
    if not answer.begun:
        raise EOFError
    return Reply(int(parser.get_status_code()), answer.headers, bytes(answer.body))


class _Answer:
    def __init__(self) -> None:
        self.body = bytearray()
        self.headers: dict[str, str] = {}
        self.begun = self.complete = False

    @property
    def chunked(self) -> bool:
        """Whether its end is told, and not the connection's."""
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.begun = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


__all__: Sequence[Any] = ["Outgoing", "Reply", "Unreachable", "checked"]

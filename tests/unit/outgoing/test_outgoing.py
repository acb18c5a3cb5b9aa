"""Addresses that users name: which are connected to, and that nothing that answers can do harm."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from pathlib import Path

import pytest

from bastide.engines.outgoing import Outgoing, Unreachable, checked

NOWHERE = Path("/nonexistent.pem")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "ff02::1",
        "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "240.0.0.1",
    ],
)  # fmt: skip
def test_what_is_not_public_is_not_connected_to(address: str) -> None:
    with pytest.raises(Unreachable):
        Outgoing(NOWHERE).check(ipaddress.ip_address(address), 443)


def test_networks_that_were_named_and_public_ones_are() -> None:
    outgoing = Outgoing(NOWHERE, ["10.1.0.0/16", "127.0.0.0/8"])
    for address in ("93.184.216.34", "2606:2800:220:1::1", "10.1.200.7", "127.0.0.1", "::ffff:10.1.2.3"):
        outgoing.check(ipaddress.ip_address(address), 443)
    outgoing.ports.add(4566)
    with pytest.raises(Unreachable, match="own"):
        outgoing.check(ipaddress.ip_address("127.0.0.1"), 4566)
    with pytest.raises(Unreachable):
        outgoing.check(ipaddress.ip_address("10.2.0.1"), 443)
    with pytest.raises(ValueError, match="does not appear"):
        Outgoing(NOWHERE, ["everything"])


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://a/",
        "http://",
        "http://u:p@a/",
        "http://a b/",
        "http://a:99999/",
        "http://a/\r\nX: y",
        "http://é/",
        "x" * 9000,
    ],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(Unreachable):
        checked(url)


def _answering(answer: bytes) -> int:
    """A server that answers once with these bytes and goes; its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listening, listening.accept()[0] as one:
            one.recv(65536)
            try:
                one.sendall(answer)
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    return int(listening.getsockname()[1])


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 999999 X\r\n\r\n", b"\x00" * 4096,
     b"HTTP/1.1 200 OK\r\nA: " + b"x" * 300_000],
)  # fmt: skip
def test_who_does_not_speak_http_is_unreachable(answer: bytes) -> None:
    port = _answering(answer)
    with pytest.raises(Unreachable):
        asyncio.run(Outgoing(NOWHERE, ["127.0.0.0/8"]).send("POST", f"http://127.0.0.1:{port}/", {}, b"x", seconds=5))


def test_an_answer_is_bounded_and_a_redirect_is_only_an_answer() -> None:
    outgoing = Outgoing(NOWHERE, ["127.0.0.0/8"])
    endless = _answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 4_000_000)
    reply = asyncio.run(outgoing.send("POST", f"http://127.0.0.1:{endless}/", {}, b"x"))
    assert reply.status == 200 and len(reply.body) < 300_000
    moved = _answering(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")
    assert asyncio.run(outgoing.send("GET", f"http://localhost:{moved}/", {}, b"")).status == 302
    with pytest.raises(Unreachable):
        asyncio.run(outgoing.send("GET", f"http://127.0.0.1:{moved}/", {"x": "a\r\nb: c"}, b""))


def test_silence_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unreachable, match="no answer"):
        port = silent.getsockname()[1]
        asyncio.run(Outgoing(NOWHERE, ["127.0.0.0/8"]).send("GET", f"http://127.0.0.1:{port}/", {}, b"", seconds=0.2))

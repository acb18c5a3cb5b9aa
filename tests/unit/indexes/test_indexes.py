"""A public index over the network: what it offers is taken with its hash, or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bastide.engines.indexes import PublicFile, PublicIndex, parsed
from bastide.engines.outgoing import Outgoing, Unreachable

NOWHERE = Path("/nonexistent.pem")
CONTENT = b"a wheel" * 50_000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def pages() -> Iterator[tuple[str, dict[str, tuple[str, bytes]]]]:
    """A server's address, and what it answers by path: content type and body."""
    told: dict[str, tuple[str, bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            kind, body = told.get(self.path, ("", b""))
            self.send_response(200 if kind else 404)
            if kind == "cut":
                self.send_header("content-length", str(len(body) + 1))
            elif kind == "chunked":
                self.send_header("transfer-encoding", "chunked")
                body = b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in (body[:9], body[9:])) + b"0\r\n\r\n"
            else:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", told
    server.shutdown()
    server.server_close()


def index(url: str, folder: Path, *allowed: str) -> PublicIndex:
    return PublicIndex(folder / "mirror", f"{url}/simple", Outgoing(NOWHERE, allowed or ["127.0.0.0/8"]).stream)


async def whole(held: PublicIndex, file: PublicFile) -> bytes:
    return b"".join([piece async for piece in held.content(file)])


@pytest.mark.parametrize("kind", ["json", "html"])
def test_pages_and_files_come_over_the_network(
    pages: tuple[str, dict[str, tuple[str, bytes]]], tmp_path: Path, kind: str
) -> None:
    url, told = pages
    name = "tool-1.0-py3-none-any.whl"
    if kind == "json":
        offered = {
            "filename": name,
            "url": f"../../files/{name}",
            "hashes": {"sha256": SHA},
            "requires-python": ">=3.9",
        }
        bare = {**offered, "filename": "tool-2.0-py3-none-any.whl", "hashes": {"md5": "0"}}
        page = json.dumps({"meta": {"api-version": "1.0"}, "name": "tool", "files": [offered, bare]}).encode()
    else:
        page = (
            f'<a href="../../files/{name}#sha256={SHA}" data-requires-python="&gt;=3.9">x</a><a href="/y.whl">'.encode()
        )
    told["/simple/tool/"] = (kind, page)
    told[f"/files/{name}"] = ("chunked", CONTENT)
    held = index(url, tmp_path)
    [found] = asyncio.run(held.files("tool"))
    assert (found.name, found.sha256, found.requires_python) == (name, SHA, ">=3.9")
    assert asyncio.run(whole(held, found)) == CONTENT


def test_what_is_cut_too_long_or_elsewhere_is_nothing(
    pages: tuple[str, dict[str, tuple[str, bytes]]], tmp_path: Path
) -> None:
    url, told = pages
    told["/cut"] = ("cut", CONTENT)
    told["/long"] = ("plain", CONTENT)
    outgoing = Outgoing(NOWHERE, ["127.0.0.0/8"])

    async def read(path: str, most: int = 1 << 20) -> int:
        return sum([len(piece) async for piece in outgoing.stream(url + path, {}, most=most)])

    assert asyncio.run(read("/long")) == len(CONTENT)
    for path, most in (("/cut", 1 << 20), ("/long", 1000), ("/absent", 1 << 20)):
        with pytest.raises(Unreachable):
            asyncio.run(read(path, most))
    with pytest.raises(Unreachable, match="public"):
        asyncio.run(index(url, tmp_path, "10.0.0.0/8").files("tool"))


def test_hostile_pages_offer_nothing() -> None:
    for page in (
        b"",
        b"{}",
        b'{"files": [1]}',
        b'{"files": {"a": 1}}',
        b"\xff\xfe",
        b"<a href='javascript:x#sha256=" + b"0" * 64,
    ):
        assert parsed(page, "https://index.example.com/simple/tool/", "tool") == []
    names = ("../x.whl", "a/b.whl", "", "x" * 300)
    files = [{"filename": name, "url": "https://a/b", "hashes": {"sha256": SHA}} for name in names]
    files += [
        {"filename": "x.whl", "url": url, "hashes": {"sha256": SHA}} for url in ("file:///etc/passwd", "ftp://a/b")
    ]
    files += [{"filename": "x.whl", "url": "https://a/b", "hashes": {"sha256": SHA.upper()}}]
    assert parsed(json.dumps({"files": files}).encode(), "https://index.example.com/simple/tool/", "tool") == []

"""The client of model servers, against servers that misbehave."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bastide.engines.serving.client import Client, Lost


def test_a_request_is_sent_once(tmp_path: Path) -> None:
    """A server may have done what it was asked before it fell: nothing is asked twice."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            seen.append(head.split(b" ")[1])
            if seen[-1] == b"/invocations":
                writer.close()
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def run() -> None:
        server = await asyncio.start_unix_server(serve, tmp_path / "socket")
        client = Client(tmp_path / "socket", 1000)
        for path in ("/ping", "/ping"):
            await client.request("GET", path, (), b"", seconds=10)
        with pytest.raises(Lost) as lost:
            await client.request("POST", "/invocations", (), b"", seconds=10)
        assert not lost.value.unsent and seen == [b"/ping", b"/ping", b"/invocations"]
        client.close()
        server.close()

    asyncio.run(run())

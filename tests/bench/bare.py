"""What the machine gives at best: an ASGI application that writes and syncs, or reads, the bytes it is asked for, and
nothing else. No signature, no policy, no encryption, no checksum, no record. Run as ``python bare.py PORT FOLDER``.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import uvicorn

PIECE = 1024 * 1024


class Bare:
    """``PUT`` keeps a body in a file of its own below `folder`, on the disk before the answer; ``GET`` reads it back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        path = self.folder / hashlib.sha256(scope["path"].encode()).hexdigest()
        if scope["method"] == "PUT":
            await self._put(path, receive, send)
        elif path.exists():
            await self._get(path, send)
        else:
            await self._answer(send, 200, b"")

    async def _put(self, path: Path, receive: Any, send: Any) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            more = True
            while more:
                message = await receive()
                os.write(handle, message.get("body", b""))
                more = message.get("more_body", False)
            await asyncio.get_running_loop().run_in_executor(None, os.fsync, handle)
        finally:
            os.close(handle)
        await self._answer(send, 200, b"")

    async def _get(self, path: Path, send: Any) -> None:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            headers = [(b"content-length", str(size).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while True:
                piece = file.read(PIECE)
                size -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": size > 0})
                if size <= 0:
                    return

    async def _answer(self, send: Any, status: int, body: bytes) -> None:
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    uvicorn.run(
        Bare(folder), host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="error",
        access_log=False,
    )  # fmt: skip

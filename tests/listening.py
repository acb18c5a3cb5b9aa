"""An HTTP endpoint of a subscriber, in this process."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Heard:
    """What was posted to it: headers (lower case) and body. answer: says the status of the next answer; body: what that
    brings."""

    def __init__(self) -> None:
        self.url = ""
        self.posts: list[tuple[dict[str, str], bytes]] = []
        self.paths: list[str] = []
        self.body = b""
        self.answer: Callable[[], int] = lambda: 200

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The SNS messages of a kind."""
        return [json.loads(body) for head, body in list(self.posts) if head.get("x-amz-sns-message-type") == kind]


@contextmanager
def listening(tls: Path | None = None) -> Iterator[Heard]:
    """One, while it lasts. tls: where a server's certificate and key lie, for one that speaks TLS."""
    heard = Heard()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status = heard.answer()
            heard.posts.append(({name.lower(): value for name, value in self.headers.items()}, body))
            heard.paths.append(self.path)
            self.send_response(status)
            self.send_header("content-length", str(len(heard.body)))
            self.end_headers()
            self.wfile.write(heard.body)

        do_PUT = do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "server.pem", tls / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "https" if tls is not None else "http"
    heard.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/told"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

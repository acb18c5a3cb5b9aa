"""A notebook instance as a browser sees it: over TLS, under its own host's name, with cookies, and a kernel's WebSocket."""

from __future__ import annotations

import json
import socket
import ssl
import uuid
from typing import Any
from urllib.parse import urlsplit

import urllib3
import websocket

from tests.platform import Running


class Browser:
    """Comes from an address of the machine's loopback, which is what the platform sees."""

    def __init__(self, platform: Running, url: str, address: str = "127.0.0.1") -> None:
        self.url, self._parts, self._address = url, urlsplit(url), address
        self._authority = platform.authority
        name = self._parts.hostname
        assert name is not None and self._parts.port is not None
        self._name, self._port = name, self._parts.port
        self._pool = urllib3.HTTPSConnectionPool(
            "127.0.0.1", self._port, ca_certs=platform.authority, server_hostname=name, assert_hostname=name,
            source_address=(address, 0), timeout=60, retries=False,
        )  # fmt: skip
        self.cookies: dict[str, str] = {}

    @property
    def origin(self) -> str:
        return f"https://{self._parts.netloc}"

    def ask(self, method: str, path: str, **more: Any) -> tuple[int, str]:
        """Status and body."""
        headers = {"Host": self._parts.netloc, "Cookie": self._held(), **more.pop("headers", {})}
        if method != "GET":
            headers = {"Origin": self.origin, "X-XSRFToken": self.cookies.get("_xsrf", ""), **headers}
        got = self._pool.request(method, path, headers=headers, redirect=False, **more)
        for one in got.headers.getlist("set-cookie"):
            name, _, value = one.partition(";")[0].partition("=")
            self.cookies[name] = value
        return got.status, got.data.decode(errors="replace")

    def _held(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def open(self) -> int:
        """Goes where the address leads; the status."""
        status, _ = self.ask("GET", f"/?{self._parts.query}")
        return status

    def kernel(self) -> Kernel:
        """A new kernel, connected."""
        assert self.ask("GET", "/lab")[0] == 200
        status, told = self.ask("POST", "/api/kernels", json={"name": "python3"})
        assert status == 201, told
        return Kernel(self.socket(f"/api/kernels/{json.loads(told)['id']}/channels"))

    def socket(self, path: str, origin: str = "") -> websocket.WebSocket:
        """A WebSocket; raises what websocket-client raises."""
        plain = socket.create_connection(("127.0.0.1", self._port), 60, (self._address, 0))
        link = ssl.create_default_context(cafile=self._authority).wrap_socket(plain, server_hostname=self._name)
        try:
            return websocket.create_connection(
                f"wss://{self._parts.netloc}{path}", socket=link, cookie=self._held(), origin=origin or self.origin,
                timeout=60,
            )  # fmt: skip
        except BaseException:
            link.close()
            raise

    def close(self) -> None:
        self._pool.close()


class Kernel:
    """Runs cells. Source: Jupyter's messaging specification."""

    def __init__(self, link: websocket.WebSocket) -> None:
        self._link = link

    def run(self, code: str) -> str:
        """What a cell printed; a traceback's last line is printed as well."""
        id = uuid.uuid4().hex
        header = {
            "msg_id": id,
            "msg_type": "execute_request",
            "session": "s",
            "username": "",
            "version": "5.3",
            "date": "",
        }
        content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
        told = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
        self._link.send(json.dumps(told))
        said = ""
        replied = idle = False
        while not (replied and idle):
            got = json.loads(self._link.recv())
            if got["parent_header"].get("msg_id") != id:
                continue
            kind, content = got["header"]["msg_type"], got["content"]
            if kind == "stream":
                said += content["text"]
            elif kind == "error":
                said += f"{content['ename']}: {content['evalue']}\n"
            replied = replied or kind == "execute_reply"
            idle = idle or (kind == "status" and content["execution_state"] == "idle")
        return said.replace("\r\n", "\n")

    def close(self) -> None:
        self._link.close()

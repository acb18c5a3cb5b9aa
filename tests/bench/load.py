"""The load generator: a program of its own that plays ready-made HTTP/1.1 requests against one server.

It signs nothing and understands nothing of AWS, so that what it costs is small beside what it measures: it writes
prepared bytes, reads the status line and the length of each answer, and notes when the last byte came. The answer to
every request must be ``200``; the first other one ends the run with what the server said.

Run as ``python load.py SPEC``, where SPEC is a pickle of :class:`Spec`. It connects, warms up, prints ``ready``, waits
for one line on standard input, plays, and prints one line of JSON (:class:`Result`).
"""

from __future__ import annotations

import asyncio
import json
import pickle
import resource
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import uvloop

SHOWN_OF_AN_ERROR = 600
"""Bytes of a refused request's answer that are shown."""


@dataclass(frozen=True)
class Spec:
    """What to play.

    :param host: address of the server, unused with ``unix``.
    :param port: its port, unused with ``unix``.
    :param unix: path of a unix socket, in place of host and port.
    :param ca: PEM file of the authority to trust; with it the connection is TLS.
    :param requests: complete requests, played in turn, from the first again after the last.
    :param clients: connections, each with at most one request under way.
    :param seconds: how long to begin new requests; 0 to play by ``count``.
    :param count: requests to play in all, used when ``seconds`` is 0.
    :param warm: requests to play before the measurement.
    :param body_length: the length that every answer's body must have, as sent (a chunked answer does not match);
        ``None`` for any.
    """

    requests: list[bytes]
    host: str = "127.0.0.1"
    port: int = 0
    unix: str = ""
    ca: str = ""
    clients: int = 1
    seconds: float = 0.0
    count: int = 0
    warm: int = 0
    body_length: int | None = None


@dataclass(frozen=True)
class Result:
    """What was seen: calls answered, wall seconds, median and 99th percentile in milliseconds, client CPU seconds.

    :ivar spread: answers of the client that got fewest, over those of the one that got most; 1 is fair.
    """

    calls: int
    wall: float
    p50: float
    p99: float
    client_cpu: float
    reconnects: int
    spread: float


class Refusal(Exception):
    """The server answered something else than 200, or broke off."""


class Player:
    """One phase (warm-up or measurement): hands out requests, collects latencies, knows when it is over."""

    def __init__(self, spec: Spec, seconds: float, count: int, done: asyncio.Future[None]) -> None:
        self.spec = spec
        self.done = done
        self.begin = time.perf_counter()
        self.end = self.begin + seconds if seconds else float("inf")
        self.left = count if not seconds else sys.maxsize
        self.next = 0
        self.busy = 0
        self.reconnects = 0
        self.latencies: list[float] = []
        self.answered: dict[Client, int] = {}
        self.last = self.begin

    def take(self, now: float) -> bytes | None:
        """The next request to send, or ``None`` when no more may begin."""
        if now >= self.end or self.left <= 0:
            return None
        self.left -= 1
        request = self.spec.requests[self.next]
        self.next = (self.next + 1) % len(self.spec.requests)
        return request

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def retire(self) -> None:
        self.busy -= 1
        if self.busy == 0 and not self.done.done():
            self.done.set_result(None)


class Wire(asyncio.Protocol):
    """One connection of a :class:`Client`; what an older one still says goes unheard."""

    def __init__(self, client: Client) -> None:
        self.client = client
        client.wire = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.client.connected(cast(asyncio.Transport, transport))  # uvloop's are of a class of their own

    def data_received(self, data: bytes) -> None:
        if self.client.wire is self:
            self.client.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.client.wire is self:
            self.client.lost(exc)


class Client:
    """One connection with one request under way; opens a new one where the server closes after an answer."""

    def __init__(self, connect: Callable[[Client], Any]) -> None:
        self.connect = connect
        self.transport: asyncio.Transport | None = None
        self.wire: Wire | None = None
        self.player: Player | None = None
        self.request: bytes | None = None
        self.sent = 0.0
        self.retried = False
        self.fresh = True
        self._clear()

    def _clear(self) -> None:
        self.head = b""
        self.tail = b""
        self.left = -1  # bytes of the body still to come; -1 before the head is complete, -2 chunked, -3 until the end
        self.length = 0
        self.closing = False
        self.status = 0

    def play(self, player: Player) -> None:
        self.player = player
        player.busy += 1
        self._begin()

    def _begin(self) -> None:
        assert self.player is not None
        now = time.perf_counter()
        self.request = self.player.take(now)
        if self.request is None:
            player, self.player = self.player, None
            player.retire()
            return
        self.sent = now
        self._send()

    def _send(self) -> None:
        assert self.request is not None
        self._clear()
        if self.transport is None or self.transport.is_closing():
            assert self.player is not None
            self.player.reconnects += 1
            self.connect(self)
            return
        self.transport.write(self.request)

    def connected(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.fresh = True
        if self.request is not None:
            transport.write(self.request)

    def received(self, data: bytes) -> None:
        if self.left == -1:
            data = self._read_head(data)
            if self.left == -1:
                return
        if self.status != 200:
            self.tail = (self.tail + data)[:SHOWN_OF_AN_ERROR]
        self.length += len(data)
        if self.left >= 0:
            self.left -= len(data)
            if self.left <= 0:
                self._answered()
        elif self.left == -2:
            self.tail = (self.tail + data)[-5:] if self.status == 200 else self.tail
            if data.endswith(b"0\r\n\r\n") or self.tail == b"0\r\n\r\n":
                self._answered()

    def _read_head(self, data: bytes) -> bytes:
        """Takes the head off ``data`` once it is complete and returns the beginning of the body."""
        self.head += data
        end = self.head.find(b"\r\n\r\n")
        if end < 0:
            return b""
        head = self.head[: end + 2].lower()
        rest = self.head[end + 4 :]
        self.status = int(head[9:12])
        if self.status < 200:  # an interim answer: the real one follows
            self.head = b""
            return self._read_head(rest) if rest else b""
        self.closing = b"\r\nconnection: close\r\n" in head or head.startswith(b"http/1.0")
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            self.left = int(head[at + 17 : head.index(b"\r\n", at + 17)])
        else:
            self.left = -2 if b"\r\ntransfer-encoding: chunked" in head else -3
        return rest

    def _answered(self) -> None:
        player = self.player
        if player is None:
            return
        now = time.perf_counter()
        wanted = player.spec.body_length
        if self.status != 200 or (wanted is not None and self.length != wanted):
            said = self.tail.decode("utf-8", "replace")
            asked = (self.request or b"").split(b"\r\n", 1)[0].decode("ascii", "replace")
            player.fail(Refusal(f"{asked}: {self.status}, {self.length} bytes: {said}"))
            return
        player.latencies.append(now - self.sent)
        player.answered[self] = player.answered.get(self, 0) + 1
        player.last = now
        self.retried = False
        self.fresh = False
        self.request = None
        if self.closing and self.transport is not None:
            transport, self.transport, self.wire = self.transport, None, None
            transport.close()
        self._begin()

    def lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.wire = None
        if self.player is None or self.request is None:
            return
        if self.left == -3:
            self.closing = True
            self._answered()
        elif self.left == -1 and not self.head and not self.fresh and not self.retried:
            self.retried = True  # the server closed an idle connection just when we wrote on it
            self._send()
        else:
            self.player.fail(Refusal(f"the server broke off: {exc}"))


async def play(spec: Spec) -> Result:
    """Connects ``spec.clients`` times, warms up, waits for the word, measures."""
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context(cafile=spec.ca) if spec.ca else None
    tasks: set[asyncio.Task[None]] = set()

    async def dial(client: Client) -> None:
        try:
            if spec.unix:
                await loop.create_unix_connection(lambda: Wire(client), spec.unix)
            else:
                await loop.create_connection(lambda: Wire(client), spec.host, spec.port, ssl=context)
        except OSError as error:
            if client.player is None:
                raise
            client.player.fail(error)

    def connect(client: Client) -> None:
        task = loop.create_task(dial(client))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    clients = [Client(connect) for _ in range(spec.clients)]

    async def phase(seconds: float, count: int) -> Player:
        player = Player(spec, seconds, count, loop.create_future())
        for client in clients:
            client.play(player)
        await player.done
        return player

    for client in clients:
        await dial(client)
    if spec.warm:
        await phase(0, spec.warm)
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    before = resource.getrusage(resource.RUSAGE_SELF)
    player = await phase(spec.seconds, spec.count)
    after = resource.getrusage(resource.RUSAGE_SELF)
    times = sorted(player.latencies)
    return Result(
        calls=len(times),
        wall=player.last - player.begin,
        p50=times[len(times) // 2] * 1e3,
        p99=times[min(len(times) - 1, int(len(times) * 0.99))] * 1e3,
        client_cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        reconnects=player.reconnects,
        spread=min(player.answered.get(client, 0) for client in clients) / max(player.answered.values(), default=1),
    )


def main() -> int:
    """Plays the spec named on the command line; 1 and the reason on standard error where an answer was not 200."""
    spec = Spec(**pickle.loads(Path(sys.argv[1]).read_bytes()))
    try:
        result = uvloop.run(play(spec))
    except (Refusal, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

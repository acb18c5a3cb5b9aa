"""The platform's event loop: uvloop's, which starts programs as Python does.

uvloop forks, and an address space of hundreds of MiB is copied for a program that gives it up at once, while all who wait
for an answer wait for that, too: 8 ms of processor time where ``vfork`` takes 0.3. It also hands on its own environment
where none was to be handed on (``env={}``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any

import uvloop


class _Pipe(asyncio.Protocol):
    """One end of what the program reads or writes."""

    def __init__(self, started: _Started, fd: int) -> None:
        self._started = started
        self._fd = fd

    def data_received(self, data: bytes) -> None:
        self._started.tell("pipe_data_received", self._fd, data)

    def pause_writing(self) -> None:
        self._started.tell("pause_writing")

    def resume_writing(self) -> None:
        self._started.tell("resume_writing")

    def connection_lost(self, exc: Exception | None) -> None:
        self._started.lost(self._fd, exc)


class _Input:
    """Where the program reads from. What comes after its end is lost, as in asyncio; uvloop's raises RuntimeError."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


class _Started(asyncio.SubprocessTransport):
    """A program that was started."""

    def __init__(self, loop: Loop, protocol: Any, process: subprocess.Popen[bytes]) -> None:
        super().__init__()
        self.protocol = protocol
        self._loop = loop
        self._process = process
        self._pipes: dict[int, Any] = {}
        self._open: set[int] = set()
        self._code: int | None = None
        self._waiting: list[asyncio.Future[int]] = []
        self._closed = self._over = False
        self._early: list[tuple[Any, ...]] | None = []

    async def connect(self, ends: dict[int, socket.socket]) -> None:
        """Takes over our ends of what it reads and writes, and tells the protocol."""
        for fd, end in ends.items():
            # The transport closes the descriptor, and the file must not do it once more.
            file = os.fdopen(end.detach(), "wb" if fd == 0 else "rb", 0, closefd=False)
            connect = self._loop.connect_write_pipe if fd == 0 else self._loop.connect_read_pipe
            self._open.add(fd)
            pipe, _ = await connect(partial(_Pipe, self, fd), file)
            self._pipes[fd] = _Input(pipe) if fd == 0 else pipe
        self.protocol.connection_made(self)
        early, self._early = self._early or [], None
        for what, *about in early:
            self.tell(what, *about)
        known = os.pidfd_open(self._process.pid)
        self._loop.add_reader(known, self._ended, known)

    def tell(self, what: str, *about: Any) -> None:
        """Tells the protocol, once it knows of the program."""
        if self._early is None:
            getattr(self.protocol, what)(*about)
        else:
            self._early.append((what, *about))

    def _ended(self, known: int) -> None:
        self._loop.remove_reader(known)
        os.close(known)
        self._code = self._process.wait()
        self.protocol.process_exited()
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(self._code)
        self._waiting.clear()
        self._finish()

    def lost(self, fd: int, exc: Exception | None) -> None:
        """An end was closed, by the program or by us."""
        self._open.discard(fd)
        self.tell("pipe_connection_lost", fd, exc)
        self._finish()

    def _finish(self) -> None:
        if self._code is not None and not self._open and not self._over:
            self._over = True
            self._loop.call_soon(self.protocol.connection_lost, None)

    async def _wait(self) -> int:  # as asyncio's Process asks
        if self._code is None:
            waiter: asyncio.Future[int] = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter
            assert self._code is not None
        return self._code

    def get_pid(self) -> int:
        return self._process.pid

    def get_returncode(self) -> int | None:
        return self._code

    def get_pipe_transport(self, fd: int) -> Any:
        return self._pipes.get(fd)

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError if it has ended."""
        if self._code is not None:
            raise ProcessLookupError
        self._process.send_signal(number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Closes what stands open between us, and ends it."""
        self._closed = True
        for pipe in self._pipes.values():
            pipe.close()
        if self._code is None:
            self._process.kill()


class Loop(uvloop.Loop):
    """uvloop's, with programs started by ``vfork``."""

    async def subprocess_exec(
        self,
        protocol_factory: Callable[[], Any],
        *args: Any,
        stdin: Any = subprocess.PIPE,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        **more: Any,
    ) -> Any:
        """As `asyncio.loop.subprocess_exec`."""
        given, ours, theirs = [stdin, stdout, stderr], {}, []
        for fd, one in enumerate(given):
            if one == subprocess.PIPE:
                ours[fd], other = socket.socketpair()
                theirs.append(other)
                given[fd] = other.fileno()
        try:
            process = subprocess.Popen(args, stdin=given[0], stdout=given[1], stderr=given[2], bufsize=0, **more)
        except BaseException:
            for end in ours.values():
                end.close()
            raise
        finally:
            for end in theirs:
                end.close()
        protocol = protocol_factory()
        started = _Started(self, protocol, process)
        try:
            await started.connect(ours)
        except BaseException:
            started.close()
            for end in ours.values():
                with contextlib.suppress(OSError):
                    end.close()
            process.wait()
            raise
        return started, protocol

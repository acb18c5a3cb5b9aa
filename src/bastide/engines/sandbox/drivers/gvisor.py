"""Sandboxes of this machine: bubblewrap's, and for code that nobody trusts gVisor's, which has a kernel of its own.

Both begin in the launcher of ``bastide.jail`` and end by the same chain; here is what differs. The status channel is a
socket that the first process inside keeps, because nothing but standard input reaches it. Signals that are sent from
outside reach gVisor rather than the job, so SIGTERM is asked for by a word on it, and so is standing still. What comes from
that end is the job's, and hostile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bastide.engines.sandbox import Limits, SandboxError, Spec
from bastide.engines.sandbox.drivers.bubblewrap import Bubblewrap, BubblewrapRunning
from bastide.jail import cgroups

_LAST_WORD_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 1.0


class Gvisor(Bubblewrap):
    """The driver of both. run_dir: as bubblewrap's."""

    def _made(self, spec: Spec) -> BubblewrapRunning:
        if not spec.untrusted:
            return super()._made(spec)
        if spec.privileged:
            raise SandboxError("a builder of images needs the machine's kernel")
        if spec.person:
            raise SandboxError("who administers their system needs the machine's kernel")
        if spec.devices:
            raise SandboxError("code that is not trusted gets no GPU: gVisor passes none through")
        return GvisorRunning(self, spec.name, self.take_users(2), self._folder / spec.name)


class GvisorRunning(BubblewrapRunning):
    """See the port's Running. users: the job's, and the one who inside is nobody."""

    def __init__(self, driver: Gvisor, name: str, users: Sequence[int], folder: Path) -> None:
        super().__init__(driver, name, users, folder)
        self._control: socket.socket | None = None
        self._status: asyncio.StreamReader | None = None
        self._listening: asyncio.BaseTransport | None = None

    def _processes(self, limits: Limits) -> int:
        # A process and its address space are two for the machine; gVisor's own threads are the more the more processors
        # there are. The job's own number is kept to by the kernel that it has.
        return 2 * limits.processes + 512

    def _told(self, spec: Spec, group: cgroups.Group) -> dict[str, Any]:
        if "memory" not in group.limited:
            raise SandboxError("this machine cannot limit gVisor's memory: see bastide doctor, cgroups")
        told = super()._told(spec, group)
        inside = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": spec.limits.open_files, "RLIMIT_NPROC": spec.limits.processes}
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        limits = {**told["limits"], "RLIMIT_NOFILE": most}
        return {**told, "limits": limits, "gvisor": {"nobody": self._users[1], "limits": inside}}

    def _channel(self) -> tuple[int, int]:
        ours, theirs = socket.socketpair()
        self._control = ours
        return os.dup(ours.fileno()), theirs.detach()

    def _tell(self, word: bytes) -> None:
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.send(word + b"\n", socket.MSG_DONTWAIT)

    async def _terminate(self) -> None:
        self._tell(b"stop")

    async def stop(self, grace: float) -> None:
        """See the port. One that was woken was once seen to stand still on: it is woken again until it ends."""
        waking = asyncio.create_task(self._wake())
        try:
            await super().stop(grace)
        finally:
            waking.cancel()

    async def _wake(self) -> None:
        while True:
            await asyncio.sleep(_AGAIN_SECONDS)
            self._tell(b"thaw")

    def freeze(self) -> None:
        """See the port. Its kernel stops them, for itself it does not bear it."""
        self._tell(b"freeze")

    def thaw(self) -> None:
        """See the port."""
        self._tell(b"thaw")

    def _answered(self, status: asyncio.StreamReader, transport: asyncio.BaseTransport) -> None:
        self._status, self._listening = status, transport

    async def abandon(self) -> None:
        """See bubblewrap's."""
        await super().abandon()
        self._hang_up()

    def _hang_up(self) -> None:
        for end in (self._control, self._listening):
            if end is not None:
                end.close()

    async def _code(self, code: int, oom: bool) -> int:
        told = b""
        if self._status is not None:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_LAST_WORD_SECONDS):
                    told = await self._status.read(64)
        self._hang_up()
        if b"ended" in told:
            return code
        # It was not the command that ended, but a part of gVisor, which ends the rest in its own ways.
        return 128 + signal.SIGKILL if oom else min(code, -signal.SIGKILL)

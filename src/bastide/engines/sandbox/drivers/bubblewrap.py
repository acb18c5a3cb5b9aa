"""Sandboxes by bubblewrap, each started by the launcher of ``bastide.jail``.

The chain that ends a job with the platform: the platform is the launcher's parent and the launcher becomes bubblewrap,
which asks the kernel to be killed when its parent ends; its child is the first process of the job's process namespace,
asks the same, and with the first process the kernel ends the namespace. So start from a thread that lives as long as
the platform: to the kernel, the parent is the thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import json
import logging
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import uvloop

from bastide.engines.sandbox import Ended, Limits, RootImage, SandboxError, Spec, Usage
from bastide.jail import cgroups
from bastide.jail.probe import LAUNCHER

_LOG: Final = logging.getLogger(__name__)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,127}")
_RESOLVING: Final = re.compile(r"(nameserver [0-9.]{7,15}\n){0,4}(search [A-Za-z0-9._ -]{1,1024}\n)?")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_PERSON: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_LONGEST_LINE: Final = 256 * 1024  # an event of CloudWatch Logs; its API reference, PutLogEvents
_SETUP_SECONDS: Final = 30.0
_ROUNDS: Final = 8

# Users of jobs: above what systemd gives out (its UIDS-GIDS.md ends at 1,879,048,191) and below the sign bit. Each
# platform on a machine has a stretch of its own, found from its run folder.
_FIRST_USER: Final = 1_900_000_000
_STRETCHES: Final = 60_000
_USERS: Final = 4096
# Users of builders of images, many each: between those that systemd gives out and those of jobs.
_FIRST_RANGE: Final = 1_880_000_000
_RANGE: Final = 65_536
_RANGES: Final = 5
_RANGE_STRETCHES: Final = 60


class Bubblewrap:
    """The driver. run_dir: a folder of this platform alone, on the machine's own disk, made if missing (0700)."""

    def __init__(self, run_dir: Path) -> None:
        self._folder = run_dir / "sandboxes"
        self._mark = hashlib.sha256(os.fsencode(run_dir.resolve())).hexdigest()[:10]
        self._first_user = _FIRST_USER + int(self._mark, 16) % _STRETCHES * _USERS
        self._first_range = _FIRST_RANGE + int(self._mark, 16) % _RANGE_STRETCHES * _RANGES * _RANGE
        self._users: set[int] = set()
        self._running: dict[str, BubblewrapRunning] = {}

    async def start(self, spec: Spec) -> BubblewrapRunning:
        """See the port."""
        _check(spec)
        if spec.name in self._running:
            raise ValueError(f"a sandbox {spec.name!r} is running")
        if os.geteuid() != 0:
            raise SandboxError("the platform runs without the privileges that starting a job takes: see bastide doctor")
        running = self._made(spec)
        self._running[spec.name] = running
        try:
            await running.begin(spec, f"{self._mark}-{spec.name}")
        except BaseException:
            await asyncio.shield(running.abandon())
            raise
        return running

    async def recover(self) -> list[str]:
        """See the port."""
        return await asyncio.to_thread(self._recover)

    def _recover(self) -> list[str]:
        cleared = []
        for state in sorted(self._folder.glob("*/state.json")):
            try:
                folders = json.loads(state.read_bytes())
            except (OSError, ValueError):
                folders = {}
            group = cgroups.Group(folders, frozenset())
            if not group.kill() or not _removed(group):
                raise SandboxError(f"processes of the sandbox {state.parent.name} do not end")
            cleared.append(state.parent.name)
        shutil.rmtree(self._folder, ignore_errors=True)
        return cleared

    def _made(self, spec: Spec) -> BubblewrapRunning:
        if spec.untrusted:
            raise SandboxError("bubblewrap gives no job a kernel of its own")
        users = [self._take_range()] if spec.privileged else self.take_users(2 if spec.person else 1)
        return BubblewrapRunning(self, spec.name, users, self._folder / spec.name)

    def take_users(self, number: int) -> list[int]:
        """Users of the machine that nobody else has, until `forget`."""
        taken: list[int] = []
        try:
            for _ in range(number):
                taken.append(self._take_user())
        except SandboxError:
            self._users.difference_update(taken)
            raise
        return taken

    def _take_range(self) -> int:
        for number in range(_RANGES):
            first = self._first_range + number * _RANGE
            if first not in self._users:
                self._users.add(first)
                return first
        raise SandboxError(f"{_RANGES} builds of images are running, which is as many as there are users for")

    def _take_user(self) -> int:
        for user in range(self._first_user, self._first_user + _USERS):
            if user not in self._users:
                self._users.add(user)
                return user
        raise SandboxError(f"{_USERS} sandboxes are running, which is as many as there are users for")

    def forget(self, name: str, users: Sequence[int]) -> None:
        """Called by what ran when it is gone."""
        self._users.difference_update(users)
        self._running.pop(name, None)


class BubblewrapRunning:
    """See the port's Running."""

    def __init__(self, driver: Bubblewrap, name: str, users: Sequence[int], folder: Path) -> None:
        self._driver = driver
        self._name = name
        self._users = users
        self._folder = folder
        self._began = time.monotonic()
        self._group: cgroups.Group | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._output: asyncio.StreamReader | None = None
        self._transport: asyncio.BaseTransport | None = None
        self._exited = asyncio.Event()
        self._settled: asyncio.Task[Ended] | None = None

    @property
    def name(self) -> str:
        """The name it was started with."""
        return self._name

    @property
    def user(self) -> int:
        """The host's user that the job runs as."""
        return self._users[0]

    async def begin(self, spec: Spec, group_name: str) -> None:
        """Start it; the driver calls this once."""
        loop = asyncio.get_running_loop()
        self._folder.mkdir(parents=True, mode=0o700)
        (self._folder / "scratch").mkdir()
        memory, cpus = spec.limits.memory_bytes, spec.limits.cpus
        group = cgroups.create(group_name, memory_bytes=memory, processes=self._processes(spec.limits), cpus=cpus)
        self._group = group
        (self._folder / "state.json").write_text(json.dumps(group.folders))
        told = json.dumps(self._told(spec, group)).encode()
        status_read, status_write = self._channel()
        output_read, output_write = os.pipe()
        stdin = os.memfd_create("bastide")
        try:
            os.write(stdin, told)
            os.lseek(stdin, 0, os.SEEK_SET)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", LAUNCHER, str(status_write)],
                stdin=stdin,
                stdout=output_write,
                stderr=output_write,
                pass_fds=(status_write,),
                env={},
                cwd="/",
            )
        except BaseException:
            os.close(output_read)
            os.close(status_read)
            raise
        finally:
            for handle in (stdin, status_write, output_write):
                os.close(handle)
        held = os.pidfd_open(self._process.pid)
        loop.add_reader(held, self._has_exited, held)
        self._settled = loop.create_task(self._settle(), name=f"sandbox {self._name}")
        self._output = asyncio.StreamReader(limit=_LONGEST_LINE)
        self._transport = await _reading(output_read, self._output)
        status = asyncio.StreamReader()
        transport = await _reading(status_read, status)
        try:
            async with asyncio.timeout(_SETUP_SECONDS):
                answer = await status.readline()
        except ValueError:
            answer = b"it says more than is asked of it"
        except TimeoutError:
            raise SandboxError(f"the sandbox {self._name} could not be set up in {_SETUP_SECONDS:.0f} s") from None
        finally:
            self._answered(status, transport)
        if answer != b"running\n":
            self._process.kill()
            said = (await self._output.read(2000)).decode(errors="replace")
            with contextlib.suppress(ValueError, TypeError, KeyError):
                said = json.loads(answer)["error"]
            raise SandboxError(f"the sandbox {self._name} could not be set up: {' '.join(said.split())}")

    def _processes(self, limits: Limits) -> int:
        """How many the machine's kernel may count: bubblewrap is one outside, and the first one inside."""
        return limits.processes + 2

    def _told(self, spec: Spec, group: cgroups.Group) -> dict[str, Any]:
        """What the launcher is told."""
        told = _told(spec, self.user, group, self._folder / "scratch")
        if spec.person:
            told["person"] = [spec.person, self._users[1]]
        return {**told, "limits": _rlimits(spec.limits, group, self._processes(spec.limits))}

    def _channel(self) -> tuple[int, int]:
        """Our end and the launcher's of where it says how the start went."""
        return os.pipe()

    def _answered(self, status: asyncio.StreamReader, transport: asyncio.BaseTransport) -> None:
        """There it has said how the start went."""
        transport.close()

    async def _terminate(self) -> None:
        """SIGTERM to every process inside."""
        assert self._process is not None and self._group is not None
        if self._group.folders:
            # Not to bubblewrap outside, whose end is everybody's; its part inside, the namespace's first process,
            # is out of SIGTERM's reach by the kernel's rule.
            await asyncio.to_thread(self._group.signal, signal.SIGTERM, frozenset({self._process.pid}))

    async def abandon(self) -> None:
        """Clear away after a start that failed or was given up."""
        if self._process is not None:
            self._process.kill()
        if self._settled is not None:
            await self._settled
        else:
            await asyncio.to_thread(self._clear)
            self._driver.forget(self._name, self._users)
        if self._transport is not None:
            self._transport.close()

    async def lines(self) -> AsyncIterator[bytes]:
        """See the port."""
        assert self._output is not None
        held = b""
        while piece := await self._output.read(65536):
            first, *rest = piece.split(b"\n")
            held += first
            for line in rest:
                for part in _pieces(held):
                    yield part
                held = line
            while len(held) > _LONGEST_LINE:
                yield held[:_LONGEST_LINE]
                held = held[_LONGEST_LINE:]
        if held:
            yield held

    def usage(self) -> Usage:
        """See the port."""
        group = self._group
        return Usage(None, None) if group is None else Usage(group.use().cpu_seconds, group.memory_bytes())

    async def wait(self) -> Ended:
        """See the port."""
        assert self._settled is not None
        return await asyncio.shield(self._settled)

    def freeze(self) -> None:
        """See the port. By signal and not by the kernel's freezer: what that of version 1 holds cannot be killed, and would
        outlive the platform."""
        group, stopped = self._group, frozenset[int]()
        for _ in range(_ROUNDS):
            found = frozenset() if group is None else frozenset(group.processes())
            if group is None or found <= stopped:
                return
            group.signal(signal.SIGSTOP, stopped)
            stopped |= found  # one that was begun meanwhile is seen in the next round

    def thaw(self) -> None:
        """See the port."""
        if self._group is not None:
            self._group.signal(signal.SIGCONT)

    async def stop(self, grace: float) -> None:
        """See the port."""
        assert self._settled is not None and self._process is not None
        if not self._exited.is_set():
            await self._terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._exited.wait()
            if not self._exited.is_set():
                self._process.kill()
        await asyncio.shield(self._settled)

    def _has_exited(self, held: int) -> None:
        asyncio.get_running_loop().remove_reader(held)
        os.close(held)
        self._exited.set()

    async def _settle(self) -> Ended:
        await self._exited.wait()
        assert self._process is not None
        code = self._process.wait()
        seconds = time.monotonic() - self._began
        use = await asyncio.to_thread(self._clear)
        self._driver.forget(self._name, self._users)
        oom = use.oom_kills > 0
        code = await self._code(code, oom)
        if code < 0:
            return Ended(None, -code, oom, seconds, use.cpu_seconds, use.peak_bytes)
        ended_by = code - 128 if 128 < code <= 128 + 64 else None
        return Ended(code, ended_by, oom, seconds, use.cpu_seconds, use.peak_bytes)

    async def _code(self, code: int, oom: bool) -> int:
        """The program's, of the launcher's; below 0 the signal that ended the sandbox."""
        return code

    def _clear(self) -> cgroups.Use:
        """Nobody and nothing is left afterwards."""
        group = self._group
        use = cgroups.Use(None, None, 0)
        if group is not None:
            gone = group.kill()
            use = group.use()
            if not gone or not _removed(group):
                _LOG.error("the control group of the sandbox %s could not be removed", self._name)
                return use  # its state file stays, so that recover() finds it
        shutil.rmtree(self._folder, ignore_errors=True)
        return use


def _check(spec: Spec) -> None:
    if not _NAME.fullmatch(spec.name):
        raise ValueError("a sandbox's name has 1 to 128 letters, digits and hyphens")
    if not spec.command:
        raise ValueError("there is no command")
    if spec.person and (spec.privileged or isinstance(spec.image, RootImage) or not _PERSON.fullmatch(spec.person)):
        raise ValueError("a person is somebody of the machine's own system")
    limits = spec.limits
    if min(limits.memory_bytes, limits.processes, limits.open_files) < 1 or not 0 < limits.cpus < math.inf:
        raise ValueError("limits are positive")
    for name, value in spec.env.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise ValueError(f"not a legal environment variable: {name[:64]!r}")
    for word in spec.command:
        if "\0" in word:
            raise ValueError("a zero byte in the command")
    for address in spec.addresses.values():
        ipaddress.IPv4Address(address)
    if not _RESOLVING.fullmatch(spec.resolver):
        raise ValueError(f"not a legal resolv.conf: {spec.resolver[:64]!r}")
    for host in (spec.hostname, *spec.hosts, *spec.addresses):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}", host):
            raise ValueError(f"not a legal host name: {host!r}")


def _told(spec: Spec, user: int, group: cgroups.Group, scratch: Path) -> dict[str, Any]:
    limits = spec.limits
    whole = str(max(1, math.ceil(limits.cpus)))
    # Libraries count the machine's processors, not the job's share; without this they start too many threads.
    home = "/tmp"  # noqa: S108 - the job's own, in memory
    environment = {"PATH": spec.image.path, "HOME": home, "LANG": "C.UTF-8", "HOSTNAME": spec.hostname}
    environment |= {"OMP_NUM_THREADS": whole, "LOKY_MAX_CPU_COUNT": whole}
    environment |= dict(spec.image.variables) | dict(spec.env)
    writable = [(spec.workdir, "/opt/ml"), *spec.writable]
    image = spec.image if isinstance(spec.image, RootImage) else None
    return {
        "parent": os.getpid(),
        "user": user,
        "group": group.folders,
        "own": [str(source) for source, _ in writable if source.is_dir()],
        "scratch": str(scratch),
        "readonly": [[str(s), t] for s, t in (*spec.image.readonly, *spec.readonly)],
        "writable": [[str(s), t] for s, t in writable],
        "devices": [str(one) for one in spec.devices],
        "hostname": spec.hostname,
        "hosts": list(spec.hosts),
        "addresses": dict(spec.addresses),
        "network": spec.network,
        "resolver": spec.resolver,
        "environment": environment,
        "root": str(image.root) if image is not None else "",
        "files": dict(image.files) if image is not None else {},
        "inside": [image.user, image.group] if image is not None else [1000, 1000],
        "folder": image.folder if image is not None else "/opt/ml",
        "command": list(spec.command),
        "privileged": _RANGE if spec.privileged else 0,
        "person": [],
        "limits": {},
        "gvisor": {},
        "scratch_bytes": limits.memory_bytes,
    }


def _rlimits(limits: Limits, group: cgroups.Group, processes: int) -> dict[str, int]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = limits.open_files if most == resource.RLIM_INFINITY else min(limits.open_files, most)
    # The job's user is its own, so the limit by user is a limit by job, beside the one of the control group.
    # No core goes to a file below a page, and with exactly 1 none to a program of the host's either, which the kernel
    # would start as root outside, at 0, too (core(5); fs/coredump.c). The filter keeps the job from changing it. Where the
    # platform itself was started with 0 there is no way up.
    _, core = resource.getrlimit(resource.RLIMIT_CORE)
    found = {"RLIMIT_CORE": 1 if core else 0, "RLIMIT_NOFILE": files, "RLIMIT_NPROC": processes}
    if "memory" not in group.limited:
        found["RLIMIT_AS"] = limits.memory_bytes
    return found


def _pieces(line: bytes) -> list[bytes]:
    if len(line) <= _LONGEST_LINE:
        return [line]
    return [line[at : at + _LONGEST_LINE] for at in range(0, len(line), _LONGEST_LINE)]


async def _reading(handle: int, reader: asyncio.StreamReader) -> asyncio.BaseTransport:
    loop = asyncio.get_running_loop()
    # uvloop's transport closes the descriptor and then the file. The second close would hit whatever another thread has
    # opened in between under the same number.
    pipe = os.fdopen(handle, "rb", 0, closefd=not isinstance(loop, uvloop.Loop))
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return transport


def _removed(group: cgroups.Group) -> bool:
    """A group can be removed a moment after its last process ended."""
    until = time.monotonic() + 2.0
    while not group.remove():
        if time.monotonic() > until:
            return False
        time.sleep(0.002)
    return True

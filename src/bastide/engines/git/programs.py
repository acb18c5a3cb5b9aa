"""The ``git`` program, in a sandbox of its own each time: what a pack holds is hostile until git has read it, and so is git
while it does.

A process sees the system's programs and one repository, read-only but for one folder; it has no network, no capability, the
system calls of a job, no variable and no configuration but what stands here, and bounded memory, time and files.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bastide.jail import seccomp

_TEMPORARY: Final = "/tmp"  # noqa: S108 - the sandbox's own
_MEMORY: Final = 6 << 30
_CPU_SECONDS: Final = 600
_FILE: Final = 4 << 30
_ENDS_SECONDS: Final = 3600
MOST_OUTPUT: Final = 256 << 20
"""Of what is held in memory."""
_PIECE: Final = 64 * 1024
_HELD: Final = 4096

_CONFIGURATION: Final = (
    "core.hooksPath=/dev/null", "core.packedGitLimit=512m", "core.packedGitWindowSize=64m", "core.bigFileThreshold=64m",
    "core.deltaBaseCacheLimit=96m", "core.fsyncMethod=fsync", "core.fsync=none", "core.quotePath=false",
    "core.protectHFS=true", "core.protectNTFS=true", "pack.threads=1", "pack.windowMemory=256m",
    "core.logAllRefUpdates=false", "pack.writeReverseIndex=false",
    "fastimport.unpackLimit=0", "gc.auto=0", "protocol.allow=never", "safe.directory=*", "transfer.fsckObjects=true",
    "uploadpack.allowFilter=true", "merge.renames=false", "diff.renames=false",
)  # fmt: skip


class GitError(Exception):
    """A git program did not do what it was asked; the message is git's own, bounded. It may quote what was sent."""


class Damaged(GitError):  # noqa: N818
    """What came in is no sound pack: an object is malformed, or names what is not there."""


class TooMuch(GitError):  # noqa: N818
    """There is more than is held in memory: a small push can make a tree that has no end."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program runs. repository: the folder that it sees as ``/git``. own: the folder below it that it may write,
    which is its ``GIT_DIR``; the repository itself without one, unwritable. objects: it makes objects, in `own`."""

    repository: Path
    own: str = ""
    objects: bool = False


def _filter() -> int:
    """A descriptor of the filter of system calls that jobs have."""
    made = os.memfd_create("git", 0)
    os.write(made, seccomp.assemble(os.uname().machine))
    os.lseek(made, 0, os.SEEK_SET)
    return made


def _command(place: Place, arguments: Sequence[str], variables: Mapping[str, str], filtered: int) -> list[str]:
    given = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "TZ": "UTC", "TMPDIR": _TEMPORARY}
    given |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_LITERAL_PATHSPECS": "1"}
    given |= {"GIT_TERMINAL_PROMPT": "0", "GIT_NO_REPLACE_OBJECTS": "1", "GIT_DIR": "/git"}
    sandbox = [
        "bwrap", "--unshare-all", "--unshare-user", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL",
        "--die-with-parent", "--new-session", "--seccomp", str(filtered), "--clearenv", "--ro-bind", "/usr", "/usr",
        "--symlink", "usr/bin", "/bin",
        "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev",
        "--size", str(64 << 20), "--tmpfs", _TEMPORARY, "--ro-bind", str(place.repository), "/git", "--chdir",
        _TEMPORARY,
    ]  # fmt: skip
    if place.own:
        sandbox += ["--bind", str(place.repository / place.own), f"/git/{place.own}"]
        given["GIT_DIR"] = f"/git/{place.own}"
        given["GIT_OBJECT_DIRECTORY"] = f"/git/{place.own}/objects" if place.objects else "/git/objects"
        if place.objects:
            given["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = "/git/objects"
    for name, value in {**given, **variables}.items():
        sandbox += ["--setenv", name, value]
    limits = [
        "prlimit",
        f"--as={_MEMORY}",
        f"--cpu={_CPU_SECONDS}",
        f"--fsize={_FILE}",
        "--core=0",
        "--nofile=512",
        "--",
    ]
    configured = [part for one in _CONFIGURATION for part in ("-c", one)]
    return [*limits, *sandbox, "--", "git", *configured, *arguments]


class Program:
    """A git program that runs: its input is written, its output read."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._errors = bytearray()
        self._reading = asyncio.get_running_loop().create_task(self._read_errors())

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        while piece := await self._process.stderr.read(_PIECE):
            self._errors += piece[: max(0, _HELD - len(self._errors))]

    async def write(self, pieces: AsyncIterator[bytes] | Iterable[bytes]) -> None:
        """Writes all input and ends it; a program that reads no more is no fault here."""
        stdin = self._process.stdin
        assert stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if isinstance(pieces, AsyncIterator):
                    async for piece in pieces:
                        stdin.write(piece)
                        await stdin.drain()
                else:
                    for piece in pieces:
                        stdin.write(piece)
                        await stdin.drain()
        finally:
            # Also when the source fails: who waits for more learns that there is none.
            stdin.close()

    async def send(self, data: bytes) -> None:
        """Writes a little, and leaves the input open."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise GitError("git ended before its time") from None

    async def line(self) -> bytes:
        """The next line of the output."""
        assert self._process.stdout is not None
        try:
            return await self._process.stdout.readuntil(b"\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise GitError("git ended before its time") from None

    async def exactly(self, size: int) -> bytes:
        """So many bytes of the output."""
        assert self._process.stdout is not None
        try:
            return await self._process.stdout.readexactly(size)
        except asyncio.IncompleteReadError:
            raise GitError("git ended before its time") from None

    async def read(self) -> AsyncIterator[bytes]:
        """The output, piece by piece."""
        assert self._process.stdout is not None
        while piece := await self._process.stdout.read(_PIECE):
            yield piece

    async def ended(self) -> int:
        """The exit status."""
        code = await self._process.wait()
        await self._reading
        return code

    @property
    def said(self) -> str:
        """What it wrote beside its output, bounded."""
        return bytes(self._errors).decode("utf-8", "replace").strip()

    async def stop(self) -> None:
        """Ends it, if it runs."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        # What it still has to say is read away: until then it counts as running, and nobody else reads it.
        assert self._process.stdout is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ENDS_SECONDS):
                while await self._process.stdout.read(_PIECE):
                    pass
                await asyncio.wait({self._reading})
        self._reading.cancel()
        await self._process.wait()


@contextlib.asynccontextmanager
async def program(place: Place, *arguments: str, **variables: str) -> AsyncIterator[Program]:
    """A git program while it is needed; it is ended at the latest with the block."""
    filtered = _filter()
    try:
        process = await asyncio.create_subprocess_exec(
            *_command(place, arguments, variables, filtered),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin"},
            cwd="/",
            start_new_session=True,
            pass_fds=(filtered,),
        )
    finally:
        os.close(filtered)
    running = Program(process)
    try:
        async with asyncio.timeout(_ENDS_SECONDS):
            yield running
    except TimeoutError:
        raise GitError("git took too long") from None
    finally:
        await asyncio.shield(running.stop())


async def answered(
    place: Place, *arguments: str, input: bytes = b"", most: int = MOST_OUTPUT, **variables: str
) -> tuple[int, bytes, str]:
    """Runs a program to its end and returns its status, its output, and what it said beside; raises TooMuch for more
    output than `most` bytes."""
    async with program(place, *arguments, **variables) as running:
        writing = asyncio.get_running_loop().create_task(running.write([input] if input else []))
        found = bytearray()
        try:
            async for piece in running.read():
                found += piece
                if len(found) > most:
                    raise TooMuch(f"git {arguments[0]} found more than {most} bytes")
            await writing
        finally:
            writing.cancel()
        return await running.ended(), bytes(found), running.said


async def run(
    place: Place,
    *arguments: str,
    input: bytes = b"",
    fine: Sequence[int] = (0,),
    most: int = MOST_OUTPUT,
    **variables: str,
) -> bytes:
    """The output of a program; raises GitError for a status that is not `fine`, TooMuch for more than `most` bytes."""
    code, found, said = await answered(place, *arguments, input=input, most=most, **variables)
    if code not in fine:
        raise GitError(f"git {arguments[0]} ended with {code}: {said[:1000]}")
    return found

"""Running somebody's program without trusting it, and keeping its files encrypted while it runs.

The port: what a service may ask of a sandbox and of a volume. Which driver does it is settled in ``main/compose.py``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable


class SandboxError(Exception):
    """The sandbox, not the program in it, failed: nothing of the program ran. The message is for the operator."""


@dataclass(frozen=True)
class Limits:
    """What a job may use. memory_bytes: all its processes together, /tmp and /dev/shm included. cpus: 1.5 is one and
    a half processors. processes: threads count. open_files: a process."""

    memory_bytes: int
    cpus: float
    processes: int = 4096
    open_files: int = 65536


class Image(Protocol):
    """What a sandbox needs of an image; ``engines.images.Environment`` is one.

    name, digest: which one it is. readonly: (source on this machine, path inside). path: the PATH inside. variables: what
    the image sets.
    """

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...

    @property
    def readonly(self) -> Sequence[tuple[Path, str]]: ...
    @property
    def path(self) -> str: ...
    @property
    def variables(self) -> Mapping[str, str]: ...


@runtime_checkable
class RootImage(Image, Protocol):
    """An image that is a whole system: what is seen is its root, and nothing of the machine's.

    root: the folder of it, which stays as it is: a job writes into a layer over it, in memory, which goes with the job.
    user, group: who the program believes to be; it has no privileges. folder: where it starts. files: contents, by path
    below the root, of small files that stand in place of its own.
    """

    @property
    def root(self) -> Path: ...
    @property
    def user(self) -> int: ...
    @property
    def group(self) -> int: ...
    @property
    def folder(self) -> str: ...
    @property
    def files(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Spec:
    """What to run. name: unique among what runs, ``[A-Za-z0-9-]``, at most 128 long. image: what is seen as the system.

    command: a program found on the image's PATH, with its arguments; visible to the machine's users, so no secrets.
    env: environment variables; visible to the job alone. workdir: bound read-write as ``/opt/ml``. readonly, writable:
    (source, path inside), files, folders or unix sockets; the workdir and the writable folders become the job's user's,
    with all that lies in them. hosts: names for 127.0.0.1 beside ``localhost``. addresses: further names. network: a path
    for setns(2) of the network namespace to be in, which the job cannot change; without one it gets its own, where there
    is only itself. resolver: the text of its resolv.conf. interface: the network's, by which the peers in `addresses`
    reach it. group: the names of all sandboxes of the job. gpus: how many
    it may use; devices: those of this machine. untrusted: the program gets a kernel of its own, and does not run where that
    cannot be had. privileged: the program is root of a user namespace of its own with 65,536 users, none of which is
    anybody outside, and may mount and change roots there, as builders of images do. Nothing else of the machine is seen.
    person: the name of somebody beside the program, which is root of a user namespace of two, and may change what the
    machine's own system has in /etc, /root and /mnt (gone with the sandbox), whose files belong to whom, and become that
    person (uid 1000, at home in /home/NAME); it may not mount. What is writable keeps its owners from one start to the
    next and has to be a file system of its own (`Volumes.system`); the workdir is root's.
    """

    name: str
    image: Image
    command: Sequence[str]
    workdir: Path
    limits: Limits
    env: Mapping[str, str] = field(default_factory=dict)
    readonly: Sequence[tuple[Path, str]] = ()
    writable: Sequence[tuple[Path, str]] = ()
    hostname: str = "algo-1"
    hosts: Sequence[str] = ("algo-1",)
    addresses: Mapping[str, str] = field(default_factory=dict)
    network: str = ""
    resolver: str = ""
    interface: str = "lo"
    group: Sequence[str] = ()
    gpus: int = 0
    devices: Sequence[Path] = ()
    untrusted: bool = False
    privileged: bool = False
    person: str = ""


@dataclass(frozen=True)
class Ended:
    """How it ended. exit_code: as a container runtime says it, 128 + signal when a signal ended it; None when the
    sandbox itself was killed, as ``stop`` does after the grace. signal: which one, if any. oom: the kernel ended one of
    its processes for want of memory. seconds: from ``start`` to the end. cpu_seconds, peak_bytes: None where the kernel
    does not tell."""

    exit_code: int | None
    signal: int | None
    oom: bool
    seconds: float
    cpu_seconds: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Usage:
    """What runs uses. cpu_seconds: since its start; memory_bytes: now. None where the kernel does not tell."""

    cpu_seconds: float | None
    memory_bytes: int | None


class Running(Protocol):
    """A program in its sandbox."""

    @property
    def name(self) -> str: ...

    def lines(self) -> AsyncIterator[bytes]:
        """Standard output and standard error in the order written, a line at a time without its newline; a longer
        line than 256 KiB comes in pieces. Can be read once. Who does not read holds the program up when it has written
        more than some hundred KiB, so read while waiting."""
        ...

    def usage(self) -> Usage:
        """What it uses; after its end nothing is known any more."""
        ...

    async def wait(self) -> Ended:
        """Until the program and everything it started is gone. May be asked by several and more than once."""
        ...

    def freeze(self) -> None:
        """Stops all its processes where they are; they keep what they have. Does nothing where the kernel tells no
        processes."""
        ...

    def thaw(self) -> None:
        """They go on."""
        ...

    async def stop(self, grace: float) -> None:
        """SIGTERM to every process inside; after ``grace`` seconds the whole tree is killed. Returns when it is gone.
        Asking again with a shorter grace shortens it."""
        ...


class Sandboxes(Protocol):
    """Where programs run."""

    async def start(self, spec: Spec) -> Running:
        """Returns when the program is about to begin with every limit in force. Raises SandboxError when any could not
        be set, and ValueError when the spec is not legal; then nothing ran."""
        ...

    async def recover(self) -> list[str]:
        """To be called before the first start: ends and clears away whatever an earlier process of this platform left.
        Returns the names of what was cleared."""
        ...


class Volumes(Protocol):
    """Encrypted folders."""

    async def create(self, name: str, key: bytes, size_limit_bytes: int | None = None, node: str = "") -> Path:
        """A new empty folder whose content reaches the disk encrypted under ``key`` (32 bytes) only. Keeping within
        the limit is the disk's: a write beyond it fails with ENOSPC.

        node: the volume is for a sandbox of the same name, which runs on that node; empty for this machine.
        What is in it goes there when the sandbox starts, and what the sandbox left is in it when it has ended. Raises
        SandboxError when it cannot be had."""
        ...

    async def keep(self, name: str, key: bytes, place: Path) -> Path:
        """A folder whose ciphertext stays in `place` (a folder of the platform's, made if missing) when the volume is
        closed, and is there again under the same key. Raises SandboxError when it cannot be had."""
        ...

    async def system(self, name: str, size_bytes: int) -> Path:
        """A file system of its own in a volume of this machine, whose permissions the kernel itself keeps: for a sandbox
        whose users are many (`Spec.privileged`, `Spec.person`). It goes with the volume; with one that is kept it stays,
        and grows when more is asked for. Raises SandboxError when it cannot be had."""
        ...

    def lost(self, name: str) -> str:
        """Why the volume cannot be used any more, a sentence: what keeps its key has ended, or its node is gone. Empty
        while it can."""
        ...

    async def close(self, name: str) -> None:
        """Unmount and remove. Closing what is not there is fine. The content cannot be had again, unless it is kept."""
        ...

    async def close_all(self) -> None:
        """To be called at the platform's end, when nothing uses one any more: closes what is still open."""
        ...

    async def recover(self) -> list[str]:
        """To be called before the first create: unmounts and removes what an earlier process left; their names."""
        ...


__all__ = ["Ended", "Image", "Limits", "RootImage", "Running", "SandboxError", "Sandboxes", "Spec", "Usage", "Volumes"]

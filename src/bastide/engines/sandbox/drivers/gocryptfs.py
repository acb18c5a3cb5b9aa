"""Encrypted volumes by gocryptfs: a folder in view, its ciphertext beside it, the key in one process's memory.

The key reaches gocryptfs by a pipe and is nowhere else: not in an argument, not in a variable, not wrapped on the disk
(gocryptfs's own configuration file would hold it under a password; with ``-masterkey`` there is none). So when the
process is gone the content is gone, whatever remains of the ciphertext. A volume with a size limit has its ciphertext
on a file system of that size in a file, because gocryptfs itself knows no limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bastide.engines.sandbox import SandboxError
from bastide.jail import credentials
from bastide.jail.namespaces import MNT_DETACH, MNT_FORCE, unmount

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,127}")
_VECTOR: Final = "gocryptfs.diriv"
_MOUNT_SECONDS: Final = 15.0
_SYSTEM: Final = "system"
_READY: Final = b"Filesystem mounted and ready."
# A file system of less than this cannot be made; ext4's own structures take some of it.
_SMALLEST: Final = 8 << 20


@dataclass
class _Volume:
    process: subprocess.Popen[bytes]
    kept: bool = False


class Gocryptfs:
    """The driver. root: a folder of this platform alone, made if missing (0700). path: where programs are found."""

    def __init__(self, root: Path, path: str = "/usr/bin:/bin:/usr/sbin:/sbin") -> None:
        self._path = path
        self._root = root
        self._volumes: dict[str, _Volume] = {}
        self._making: set[str] = set()

    async def create(self, name: str, key: bytes, size_limit_bytes: int | None = None, node: str = "") -> Path:
        """See the port."""
        if node:
            raise ValueError("this driver's volumes are on this machine")

        def cipher(folder: Path) -> None:
            if size_limit_bytes is not None:
                _limited(folder, size_limit_bytes)
            _prepare(folder / "cipher")

        return await self._open(name, key, cipher)

    async def keep(self, name: str, key: bytes, place: Path) -> Path:
        """See the port. What a crash leaves half made has no vector and is made again: nothing was in it."""

        def cipher(folder: Path) -> None:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (place / _VECTOR).exists():
                _prepare(place)
            (folder / "cipher").symlink_to(place.resolve())

        clear = await self._open(name, key, cipher)
        self._volumes[name].kept = True
        return clear

    async def _open(self, name: str, key: bytes, cipher: Callable[[Path], None]) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError("a volume's name has 1 to 128 letters, digits and hyphens")
        if len(key) != 32:
            raise ValueError("a volume's key has 32 bytes")
        if name in self._volumes or name in self._making or (self._root / name).exists():
            raise ValueError(f"there is a volume {name!r}")
        self._making.add(name)
        folder = self._root / name
        making = asyncio.ensure_future(self._make(name, key, folder, cipher))
        try:
            await asyncio.shield(making)
        except BaseException as error:
            await asyncio.shield(self._give_up(name, making))
            if isinstance(error, OSError | subprocess.SubprocessError):
                raise SandboxError(f"the volume {name} could not be made: {error}") from error
            raise
        finally:
            self._making.discard(name)
        return folder / "clear"

    async def _make(self, name: str, key: bytes, folder: Path, cipher: Callable[[Path], None]) -> None:
        (folder / "clear").mkdir(parents=True, mode=0o700)
        self._root.chmod(0o700)
        folder.chmod(0o700)
        await asyncio.to_thread(cipher, folder)
        process = self._begin(folder, key)
        self._volumes[name] = _Volume(process)
        await asyncio.to_thread(_await_mount, folder / "log", process)

    async def _give_up(self, name: str, making: asyncio.Future[None]) -> None:
        """Removes what was made, once nothing more is: who is cancelled has a thread that goes on making."""
        await asyncio.wait({making})
        await asyncio.to_thread(self._close, name)

    async def system(self, name: str, size_bytes: int) -> Path:
        """See the port. It lies in a file of the volume, which it is encrypted with. gocryptfs itself acts as whoever asks
        it, and of a user namespace's root that is no root."""
        folder = self._root / name / "clear"

        def make() -> Path:
            place = folder / _SYSTEM
            place.mkdir(mode=0o700, exist_ok=True)
            if name in self._volumes and self._volumes[name].kept:
                _kept(folder / f"{_SYSTEM}.image", place, size_bytes)
            else:
                _mounted(folder / f"{_SYSTEM}.image", place, size_bytes, "loop,nosuid,nodev")
            return place

        try:
            return await asyncio.to_thread(make)
        except (OSError, subprocess.SubprocessError) as error:
            raise SandboxError(f"a file system in the volume {name} could not be made: {error}") from error

    def lost(self, name: str) -> str:
        """See the port."""
        return "" if self.stands(name) else "The encrypted volume of the job was lost."

    def stands(self, name: str) -> bool:
        """Whether what keeps the volume's key is there."""
        volume = self._volumes.get(name)
        return volume is not None and volume.process.poll() is None

    async def close(self, name: str) -> None:
        """See the port."""
        if not _NAME.fullmatch(name):
            raise ValueError("a volume's name has 1 to 128 letters, digits and hyphens")
        await asyncio.to_thread(self._close, name)

    async def close_all(self) -> None:
        """See the port."""
        for name in list(self._volumes):
            await self.close(name)

    async def recover(self) -> list[str]:
        """See the port."""
        return await asyncio.to_thread(self._recover)

    def _recover(self) -> list[str]:
        if not self._root.is_dir():
            return []
        found = sorted(p.name for p in self._root.iterdir() if p.is_dir() and p.name not in self._volumes)
        for name in found:
            self._close(name)
        return found

    def _begin(self, folder: Path, key: bytes) -> subprocess.Popen[bytes]:
        """Started in the caller's thread, whose end is the volume's: the kernel kills `unshare` then, and with it the first
        process of a process namespace, and with that gocryptfs. It is not to be gocryptfs itself that asks for that signal:
        the kernel forgets it when a process acts as another user, as gocryptfs does for the job (prctl(2)). And it is
        to be the thread alone that acts as another: see `credentials`."""
        command = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-I", "-S", credentials.PROGRAM]
        command += ["unshare", "--pid", "--kill-child", "--"]
        # The shell stays, so that it is the namespace's first process.
        command += ["sh", "-c", 'gocryptfs "$@"; exit $?', "sh", "-fg", "-nosyslog", "-masterkey=stdin", "-allow_other"]
        command += ["-noprealloc", "--", str(folder / "cipher"), str(folder / "clear")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={"PATH": self._path},
                cwd="/",
            )
        assert process.stdin is not None
        try:
            process.stdin.write(key.hex().encode() + b"\n")
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already; waiting for the mount tells why
        return process

    def _close(self, name: str) -> None:
        folder = self._root / name
        volume = self._volumes.pop(name, None)
        if volume is not None and volume.kept:
            _written(folder / "clear" / _SYSTEM)
        _unmount(folder / "clear" / _SYSTEM)
        _unmount(folder / "clear")
        if volume is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                volume.process.wait(2.0)
            if volume.process.poll() is None:
                volume.process.send_signal(signal.SIGKILL)
                volume.process.wait()
        _unmount(folder / "store")
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            raise SandboxError(f"the volume {name} could not be removed")


def _prepare(cipher: Path) -> None:
    """An empty cipher folder as gocryptfs makes it, without the file that would hold a wrapped key."""
    cipher.mkdir(mode=0o700, exist_ok=True)
    draft = cipher / f".{_VECTOR}"
    with draft.open("wb") as file:
        file.write(os.urandom(16))
        file.flush()
        os.fsync(file.fileno())
    draft.chmod(0o400)
    draft.rename(cipher / _VECTOR)


def _limited(folder: Path, size: int) -> None:
    """A file system of this size for the ciphertext, sparse, so that it takes the disk only as it fills."""
    store = folder / "store"
    store.mkdir(mode=0o700)
    _mounted(folder / "image", store, size, "loop,nosuid,nodev,noexec")
    (store / "cipher").mkdir(mode=0o700)
    (folder / "cipher").symlink_to("store/cipher")


def _mounted(image: Path, place: Path, size: int, options: str) -> None:
    """Makes an empty file system in a new file, and mounts it."""
    _made(image, size, "-O", "^has_journal")
    _run("mount", "-o", options, str(image), str(place))


def _kept(image: Path, place: Path, size: int) -> None:
    """Mounts the file system in a file; makes it where there is none, and has it grow to its size. It has a journal, since
    what keeps the volume's key may be killed, and what is written in it is there a second later."""
    if not image.exists():
        draft = image.with_suffix(".new")
        draft.unlink(missing_ok=True)
        _made(draft, size, "-J", "size=4")
        draft.rename(image)
    _run("e2fsck", "-p", "-f", str(image), right=(0, 1))
    if image.stat().st_size < size:
        os.truncate(image, size)
        _run("resize2fs", str(image))
    _run("mount", "-o", "loop,nosuid,nodev,nodelalloc,commit=1", str(image), str(place))


def _made(image: Path, size: int, *how: str) -> None:
    with image.open("xb") as file:
        file.truncate(max(size, _SMALLEST))
    lazily = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    _run("mkfs.ext4", "-q", "-F", "-m", "0", *how, "-E", lazily, str(image))


def _run(*command: str, right: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    if done.returncode not in right:
        said = " ".join((done.stderr or done.stdout).decode(errors="replace").split())
        raise SandboxError(f"a file system of limited size could not be made: {command[0]}: {said}")


def _written(place: Path) -> None:
    """Has everything in a file system reach the disk, as far as it can: who still looks at it may keep it from being
    unmounted now, and what it lies in is to be taken away."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if place.is_mount():
            subprocess.run(["sync", "-f", str(place)], check=False, capture_output=True, timeout=60)


def _await_mount(log: Path, process: subprocess.Popen[bytes]) -> None:
    """Until gocryptfs says that it is ready, and nothing less.

    The mount is there some moments before. In these gocryptfs opens a file in it itself, and who creates one at the
    same time holds the folder's lock while waiting for gocryptfs, which waits for the lock: neither ever ends.
    """
    until = time.monotonic() + _MOUNT_SECONDS
    while _READY not in (said := log.read_bytes()):
        if process.poll() is not None or time.monotonic() > until:
            told = " ".join(said.decode(errors="replace").split())
            raise SandboxError(f"gocryptfs did not mount the volume: {told or process.returncode}")
        time.sleep(0.002)
    log.unlink()


def _unmount(path: Path) -> None:
    """Detach whatever is mounted there, however often; a dead mount and open files are no hindrance."""
    with contextlib.suppress(OSError):
        while True:
            # Forced first: it answers, with an error, whoever still waits for a file system that does not answer.
            with contextlib.suppress(OSError):
                unmount(str(path), MNT_FORCE)
            unmount(str(path), MNT_DETACH)

"""What the drivers ask of the kernel: namespaces, sockets inside them, and programs that set them up."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from bastide.engines.network import NetworkError

T = TypeVar("T")

PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
SECONDS: Final = 20.0
_CONNECT_SECONDS: Final = 5.0
HTTPS: Final = 443
_CLONE_NEWNET: Final = 0x40000000
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1
_IFF_RUNNING: Final = 0x40

_libc: Final = ctypes.CDLL(None, use_errno=True)


def enter(namespace: int) -> None:
    """setns(2): this thread sees that network from now on; raises OSError."""
    if _libc.setns(namespace, _CLONE_NEWNET) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def apart(work: Callable[[], T]) -> T:
    """`work()` in a thread of its own, which ends after it: what the thread entered is left with it."""
    found: list[T] = []
    failed: list[BaseException] = []

    def body() -> None:
        try:
            found.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=body, name="bastide-network")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def new_namespace(*, forwards: bool) -> int:
    """A descriptor of a new network namespace that knows no IPv6; raises OSError."""

    def make() -> int:
        if _libc.unshare(_CLONE_NEWNET) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"unshare: {os.strerror(number)}")
        made = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for where in ("all", "default"):
                with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6 has nothing to switch off
                    Path(f"/proc/sys/net/ipv6/conf/{where}/disable_ipv6").write_text("1")
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1" if forwards else "0")
            if forwards:  # who may send from which address, rules say; the way back need not be the way there
                for where in ("all", "default"):
                    Path(f"/proc/sys/net/ipv4/conf/{where}/rp_filter").write_text("0")
        except BaseException:
            os.close(made)
            raise
        return made

    return apart(make)


def lo_up(namespace: int) -> None:
    """Sets the loopback of a namespace up; raises OSError."""

    def work() -> None:
        enter(namespace)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            fcntl.ioctl(asked, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP | _IFF_RUNNING))

    apart(work)


def listening(namespace: int, address: str, port: int = HTTPS) -> socket.socket:
    """A bound socket of TCP there; raises OSError."""

    def make() -> socket.socket:
        enter(namespace)
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((address, port))
        except BaseException:
            bound.close()
            raise
        return bound

    return apart(make)


def connected(namespace: int, address: str, port: int) -> socket.socket:
    """A connection of TCP there; raises OSError."""

    def make() -> socket.socket:
        enter(namespace)
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            made.settimeout(_CONNECT_SECONDS)
            made.connect((address, port))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setblocking(False)
        except BaseException:
            made.close()
            raise
        return made

    return apart(make)


def datagrams(namespace: int, address: str) -> socket.socket:
    """A bound socket of UDP there, for DNS; raises OSError."""

    def make() -> socket.socket:
        enter(namespace)
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            bound.setblocking(False)
            bound.bind((address, 53))
        except BaseException:
            bound.close()
            raise
        return bound

    return apart(make)


def running(namespace: int, link: str) -> bool:
    """Whether a link carries packets. One that was just set up loses them for some time, up to a second."""

    def look() -> bool:
        enter(namespace)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            told = fcntl.ioctl(asked, _SIOCGIFFLAGS, struct.pack("16sh22x", link.encode(), 0))
        return bool(struct.unpack("16sh22x", told)[1] & _IFF_RUNNING)

    return apart(look)


def shown(namespace: int) -> str:
    """The path of a descriptor of this process, for other processes."""
    return f"/proc/{os.getpid()}/fd/{namespace}"


async def run(namespace: int, program: str, *arguments: str, given: str) -> str:
    """Runs a program in a namespace with `given` as its input; what it said. Raises NetworkError with that."""
    found = shutil.which(program, path=PATH)
    nsenter = shutil.which("nsenter", path=PATH)
    if found is None or nsenter is None:
        raise NetworkError(f"{program if found is None else 'nsenter'} is not installed")
    process = await asyncio.create_subprocess_exec(
        nsenter, f"--net={shown(namespace)}", "--", found, *arguments,
        # A program that is given nothing may end before its input could be closed.
        stdin=asyncio.subprocess.PIPE if given else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(SECONDS):
            said, _ = await process.communicate(given.encode() if given else None)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if isinstance(error, TimeoutError):
            raise NetworkError(f"{program} did not end within {SECONDS:.0f} s") from None
        raise
    if process.returncode != 0:
        raise NetworkError(f"{program}: {said.decode(errors='replace').strip()[:2000]}")
    return said.decode(errors="replace")


async def ip(namespace: int, *lines: str) -> None:
    """Runs lines of ip(8) there; raises NetworkError."""
    if lines:
        await run(namespace, "ip", "-batch", "-", given="\n".join(lines) + "\n")

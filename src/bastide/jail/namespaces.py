"""The system calls a launcher needs that Python 3.11 has no words for: mounts, capabilities, process controls."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWNET: Final = 0x40000000
CLONE_NEWUSER: Final = 0x10000000

# linux/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_FORCE: Final = 1
MNT_DETACH: Final = 2

# linux/prctl.h
_PR_SET_PDEATHSIG, _PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 23, 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}

_libc: Final = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(path: str, kind: int) -> None:
    """setns(2) into the namespace of a kind that a path names."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.setns(handle, ctypes.c_int(kind)), "setns")
    finally:
        os.close(handle)


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    words = [None if w is None else os.fsencode(w) for w in (source, target, kind)]
    told = None if data is None else data.encode()
    _checked(_libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), told), f"mount {source} on {target}")


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2)."""
    _checked(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), f"unmount {target}")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    number = _PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(38, f"pivot_root: architecture {os.uname().machine} is not known")
    result = _libc.syscall(ctypes.c_long(number), os.fsencode(new), os.fsencode(old))
    _checked(result, "pivot_root")


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; PR_SET_PDEATHSIG in prctl(2).

    The setting is lost when the user id changes, so this comes after that. Raises ProcessLookupError when the parent
    has ended before the kernel was told.
    """
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl PR_SET_PDEATHSIG")
    if os.getppid() != parent:
        raise ProcessLookupError("the parent has ended")


def drop_to(user: int, group: int) -> None:
    """Become a user without any privilege and without a way back, and look whether it came true.

    Raises OSError when a step fails and PermissionError when privilege is left.
    """
    if user <= 0 or group <= 0:
        raise PermissionError("a job does not run as root")
    number = 0
    while _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
        _checked(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), "prctl PR_CAPBSET_DROP")
        number += 1
    _checked(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "prctl PR_CAP_AMBIENT_CLEAR_ALL")
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    _clear_capabilities()
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl PR_SET_NO_NEW_PRIVS")
    left = [
        line
        for line in open("/proc/self/status", encoding="utf-8")  # noqa: SIM115, PTH123 - closed by the exec to come
        if line.startswith(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")) and int(line.split()[1], 16)
    ]
    if left or os.getresuid() != (user, user, user) or os.getresgid() != (group, group, group) or os.getgroups():
        raise PermissionError(f"privilege is left: {' '.join(''.join(left).split())}")


def rule_a_namespace(users: Mapping[int, int], count: int = 1) -> None:
    """Become the root of a user namespace of our own, where there are only these users, and groups of the same numbers:
    those inside, and those of the machine, `count` from each on. Outside of it no privilege is left, and there is no way
    back.

    Raises OSError when a step fails and PermissionError when more of the machine is in it.
    """
    if min(users.values()) <= 0:
        raise PermissionError("a job does not run as root")
    here = os.getpid()
    ready, told = os.pipe()
    child = os.fork()  # the maps are written from outside, by who has the privilege for it
    if child == 0:
        try:
            os.close(told)
            if os.read(ready, 1):
                for name in ("uid_map", "gid_map"):
                    with open(f"/proc/{here}/{name}", "w", encoding="utf-8") as file:  # noqa: PTH123
                        file.write("".join(f"{inside} {outside} {count}\n" for inside, outside in users.items()))
        finally:
            os._exit(0)
    os.close(ready)
    unshare(CLONE_NEWUSER)
    os.write(told, b"x")
    os.close(told)
    os.waitpid(child, 0)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/self/{name}", encoding="utf-8") as file:  # noqa: PTH123
            found = [tuple(map(int, line.split())) for line in file]
        if sorted(found) != sorted((inside, outside, count) for inside, outside in users.items()):
            raise PermissionError(f"the users of the namespace are others than they should be: {name}")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl PR_SET_NO_NEW_PRIVS")


def _clear_capabilities() -> None:
    """capset(2) with empty sets; setresuid leaves the inheritable set as it was."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    empty = (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(header, empty), "capset")

"""The system calls that a job may not make: a table with a reason a row, assembled into a filter per architecture.

The filter is the kernel's classic BPF over ``struct seccomp_data`` (seccomp(2)). What the table does not name is
allowed up to the newest system call that was known when the table was written; everything above answers ENOSYS, so a
call that a newer kernel invents is closed until somebody has looked at it. A call from another architecture (32 bit
programs, x32) ends the process. Numbers are from the kernel's syscall tables (arch/x86/entry/syscalls/syscall_64.tbl,
scripts/syscall.tbl).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple


class Row(NamedTuple):
    """A forbidden call. x86_64, aarch64: its numbers, None where the architecture lacks it. answer: the errno that the
    caller sees. argument: forbid only when this argument (its index) meets the test: (index, mask, values), where
    ``argument & mask`` is one of the values, compared over the low 32 bits as the kernel reads them; with the value
    NONZERO any bit under the mask."""

    name: str
    x86_64: int | None
    aarch64: int | None
    answer: int
    reason: str
    argument: tuple[int, int, tuple[int, ...]] | None = None


NONZERO: Final = -1
_ALL: Final = 0xFFFFFFFF
# CLONE_NEWTIME is only for unshare and clone3; in clone its bit belongs to the exit signal.
_NEW_NAMESPACES: Final = 0x02000000 | 0x00020000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

_P: Final = errno.EPERM
_N: Final = errno.ENOSYS

ROWS: Final[tuple[Row, ...]] = (
    Row("bpf", 321, 280, _P, "programs in the kernel"),
    Row("perf_event_open", 298, 241, _P, "measures other processes and the kernel; a long line of kernel faults"),
    Row("userfaultfd", 323, 282, _P, "holds kernel code at a page fault, the usual tool to win its races"),
    Row("io_uring_setup", 425, 425, _N, "a second way to make system calls that no filter sees"),
    Row("io_uring_enter", 426, 426, _N, "as io_uring_setup"),
    Row("io_uring_register", 427, 427, _N, "as io_uring_setup"),
    Row("ptrace", 101, 117, _P, "reads and steers other processes"),
    Row("process_vm_readv", 310, 270, _P, "reads the memory of other processes"),
    Row("process_vm_writev", 311, 271, _P, "writes the memory of other processes"),
    Row("process_madvise", 440, 440, _P, "acts on the memory of other processes"),
    Row("kcmp", 312, 272, _P, "compares kernel objects of other processes"),
    Row("pidfd_getfd", 438, 438, _P, "takes open files out of other processes"),
    Row("add_key", 248, 217, _P, "kernel keyrings are not divided by namespace"),
    Row("request_key", 249, 218, _P, "as add_key; starts a program of the host"),
    Row("keyctl", 250, 219, _P, "as add_key"),
    Row("clone", 56, 220, _P, "new namespaces open rarely walked parts of the kernel", (0, _NEW_NAMESPACES, (NONZERO,))),
    Row("clone3", 435, 435, _N, "its flags lie in memory where no filter can look; libc falls back to clone"),
    Row("unshare", 272, 97, _P, "new namespaces", (0, _NEW_NAMESPACES | 0x80, (NONZERO,))),
    Row("setns", 308, 268, _P, "entering namespaces"),
    Row("mount", 165, 40, _P, "the view of files is settled before the job starts"),
    Row("umount2", 166, 39, _P, "as mount"),
    Row("pivot_root", 155, 41, _P, "as mount"),
    Row("chroot", 161, 51, _P, "as mount"),
    Row("fsopen", 430, 430, _P, "as mount"),
    Row("fsconfig", 431, 431, _P, "as mount"),
    Row("fsmount", 432, 432, _P, "as mount"),
    Row("fspick", 433, 433, _P, "as mount"),
    Row("move_mount", 429, 429, _P, "as mount"),
    Row("open_tree", 428, 428, _P, "as mount"),
    Row("mount_setattr", 442, 442, _P, "as mount"),
    Row("open_by_handle_at", 304, 265, _P, "opens files by inode, past every path"),
    Row("name_to_handle_at", 303, 264, _P, "the other half of open_by_handle_at"),
    Row("fanotify_init", 300, 262, _P, "watches files of others"),
    Row("kexec_load", 246, 104, _P, "another kernel"),
    Row("kexec_file_load", 320, 294, _P, "another kernel"),
    Row("init_module", 175, 105, _P, "kernel modules"),
    Row("finit_module", 313, 273, _P, "kernel modules"),
    Row("delete_module", 176, 106, _P, "kernel modules"),
    Row("create_module", 174, None, _N, "kernel modules, removed from Linux"),
    Row("get_kernel_syms", 177, None, _N, "kernel modules, removed from Linux"),
    Row("query_module", 178, None, _N, "kernel modules, removed from Linux"),
    Row("reboot", 169, 142, _P, "the machine is not the job's"),
    Row("swapon", 167, 224, _P, "the machine is not the job's"),
    Row("swapoff", 168, 225, _P, "the machine is not the job's"),
    Row("acct", 163, 89, _P, "the machine is not the job's"),
    Row("quotactl", 179, 60, _P, "the machine is not the job's"),
    Row("quotactl_fd", 443, 443, _P, "the machine is not the job's"),
    Row("syslog", 103, 116, _P, "kernel messages tell addresses and neighbours"),
    Row("sethostname", 170, 161, _P, "SDKs ask for the name algo-1"),
    Row("setdomainname", 171, 162, _P, "as sethostname"),
    Row("settimeofday", 164, 170, _P, "the clock is not divided by namespace"),
    Row("clock_settime", 227, 112, _P, "as settimeofday"),
    Row("clock_adjtime", 305, 266, _P, "as settimeofday"),
    Row("adjtimex", 159, 171, _P, "as settimeofday"),
    Row("iopl", 172, None, _P, "ports of the hardware"),
    Row("ioperm", 173, None, _P, "ports of the hardware"),
    Row("modify_ldt", 154, None, _P, "segments of 16 bit programs; old kernel faults"),
    Row("nfsservctl", 180, 42, _N, "removed from Linux"),
    Row("lookup_dcookie", 212, 18, _P, "paths of files of others"),
    Row("vhangup", 153, 58, _P, "terminals of others"),
    Row("uselib", 134, None, _N, "old program formats"),
    Row("ustat", 136, None, _N, "devices of the host, obsolete"),
    Row("sysfs", 139, None, _N, "file systems of the kernel, obsolete"),
    Row("_sysctl", 156, None, _N, "removed from Linux"),
    Row("vserver", 236, None, _N, "never in Linux"),
    Row("afs_syscall", 183, None, _N, "never in Linux"),
    Row("tuxcall", 184, None, _N, "never in Linux"),
    Row("security", 185, None, _N, "never in Linux"),
    Row("move_pages", 279, 239, _P, "memory of other processes"),
    Row("migrate_pages", 256, 238, _P, "memory of other processes"),
    # Only the values that change nothing; READ_IMPLIES_EXEC and address layout are what exploits ask for.
    Row("personality", 135, 92, _P, "weakens the memory layout", (0, 0x00FFFFFF & ~0x8, (NONZERO,))),
    # The value 1 keeps the kernel from starting the host's program for cores, 0 does not: see the sandbox's limits.
    Row("prlimit64 RLIMIT_CORE", 302, 261, _P, "a crash would start a program of the host", (1, _ALL, (4,))),
    Row("setrlimit RLIMIT_CORE", 160, 164, _P, "as prlimit64", (0, _ALL, (4,))),
    Row("ioctl TIOCSTI", 16, 29, _P, "types into a terminal (CVE-2017-5226)", (1, _ALL, (0x5412,))),
    Row("ioctl TIOCLINUX", 16, 29, _P, "pastes into a console (CVE-2023-28100)", (1, _ALL, (0x541C,))),
    # AF_UNIX, AF_INET, AF_INET6 and AF_NETLINK are what libraries need (interface enumeration in distributed training
    # is netlink); the others are rarely walked kernel code: packet, VSOCK (reaches the hypervisor), ALG, CAN, TIPC, ...
    Row("socket", 41, 198, errno.EAFNOSUPPORT, "families beyond unix, inet, inet6, netlink: fewer doors",
        (0, _ALL, tuple(f for f in range(46) if f not in {1, 2, 10, 16}))),
)  # fmt: skip

_NEW_USERS: Final = 0x10000000
# What a builder of images does in a user namespace of its own: mount, change roots, make mount and name spaces. A further
# user namespace would give it nothing but more of the kernel to walk through.
_OF_BUILDERS: Final = frozenset({"clone", "unshare", "mount", "umount2", "pivot_root", "chroot", "sethostname"})
BUILDER_ROWS: Final[tuple[Row, ...]] = (
    *(row for row in ROWS if row.name not in _OF_BUILDERS),
    Row("clone", 56, 220, _P, "a further user namespace", (0, _NEW_USERS, (NONZERO,))),
    Row("unshare", 272, 97, _P, "a further user namespace", (0, _NEW_USERS, (NONZERO,))),
)
"""The table of those that build images (`Spec.privileged`)."""

# The newest call that was looked at: mseal (Linux 6.10), the same number on both.
NEWEST: Final = 462

_AUDIT: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h, AUDIT_ARCH_*
_X32_BIT: Final = 0x40000000

# linux/bpf_common.h, linux/seccomp.h
_LOAD, _AND, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_SET, _RETURN = 0x20, 0x54, 0x15, 0x25, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16


def _one(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, true, false, value & _ALL)


def _row(number: int, row: Row) -> Iterator[bytes]:
    """Instructions for one row, entered and left with the call's number in the accumulator."""
    refuse = _one(_RETURN, _ERRNO | row.answer)
    if row.argument is None:
        yield _one(_JUMP_EQUAL, number, 0, 1)
        yield refuse
        return
    index, mask, values = row.argument
    body = [_one(_LOAD, _ARGUMENTS + 8 * index)]  # both architectures are little endian: the low half comes first
    if NONZERO in values:
        body.append(_one(_JUMP_SET, mask, 0, 1))
        body.append(refuse)
    else:
        body.append(_one(_AND, mask))
        for value in values:
            body += [_one(_JUMP_EQUAL, value, 0, 1), refuse]
    body.append(_one(_LOAD, _NUMBER))
    yield _one(_JUMP_EQUAL, number, 0, len(body))
    yield from body


def assemble(machine: str, rows: Sequence[Row] = ROWS, *, newest: int | None = NEWEST) -> bytes:
    """The filter for a machine (``x86_64`` or ``aarch64``), an array of ``struct sock_filter`` as bubblewrap reads it.

    newest: what has a higher number is closed; None closes nothing.

    Raises ValueError for another machine: a job does not run unfiltered.
    """
    if machine not in _AUDIT:
        raise ValueError(f"no system call filter for the architecture {machine}; there are: {', '.join(_AUDIT)}")
    program = [
        _one(_LOAD, _ARCHITECTURE),
        _one(_JUMP_EQUAL, _AUDIT[machine], 1, 0),
        _one(_RETURN, _KILL),
        _one(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        program += [_one(_JUMP_SET, _X32_BIT, 0, 1), _one(_RETURN, _KILL)]
    if newest is not None:
        program += [_one(_JUMP_GREATER, newest, 0, 1), _one(_RETURN, _ERRNO | errno.ENOSYS)]
    for row in rows:
        number = row.x86_64 if machine == "x86_64" else row.aarch64
        if number is not None:
            program += _row(number, row)
    program.append(_one(_RETURN, _ALLOW))
    return b"".join(program)

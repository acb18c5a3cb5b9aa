"""Who builds images is root of a user namespace of its own, and nobody outside of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from bastide.engines.sandbox import SandboxError
from bastide.engines.sandbox.drivers.bubblewrap import Bubblewrap
from bastide.engines.sandbox.drivers.gocryptfs import Gocryptfs

PROBE = """
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def tried(what, result):
    print(what, "done" if result >= 0 else errno.errorcode[ctypes.get_errno()])
print("user", os.getuid(), "users", open("/proc/self/uid_map").read().split()[2])
print("outside", open("/proc/self/uid_map").read().split()[1])
tried("mounts", libc.mount(b"none", b"/tmp", b"tmpfs", 0, b""))
for path in (b"/usr", b"/opt/environment"):
    tried(f"writable {path.decode()}", libc.mount(b"none", path, None, 4096 | 32, None))
    tried(f"uncovers {path.decode()}", libc.umount2(path, 0))
tried("changes root", libc.chroot(b"/tmp") if os.path.isdir("/tmp") else -1)
tried("user namespace", libc.unshare(0x10000000))
tried("user namespace by clone", libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0))
tried("enters", libc.setns(0, 0))
tried("traces", libc.ptrace(0, 0, 0, 0))
tried("modules", libc.syscall(313, -1, b"", 0))
tried("keys", libc.syscall(250, 0, 0, 0, 0, 0))
tried("programs", libc.syscall(321, 0, 0, 0))
"""
HOST = """
import os
def tried(what, do):
    try:
        do(); print(what, "done")
    except OSError as error:
        print(what, type(error).__name__)
tried("kernel", lambda: open("/proc/sys/kernel/core_pattern", "w").write("x"))
tried("trigger", lambda: open("/proc/sysrq-trigger", "w").write("x"))
tried("memory", lambda: open("/dev/mem", "rb"))
tried("device", lambda: os.mknod("/opt/ml/disk", 0o600 | 0o060000, os.makedev(254, 0)))
tried("system", lambda: open("/usr/bin/evil", "w"))
tried("gives away", lambda: os.chown("/opt/ml", 1000, 1000))
tried("takes", lambda: os.chown("/opt/ml", 70000, 70000))
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("NoNewPrivs")])
print(sorted(os.listdir("/")))
"""


def test_it_is_root_of_its_own_and_nobody_outside(cell: Any) -> None:
    told = cell.python(PROBE, privileged=True)
    assert "user 0 users 65536" in told.lines
    [outside] = [int(line.split()[1]) for line in told.lines if line.startswith("outside")]
    assert 1_880_000_000 <= outside < 1_900_000_000
    assert {"mounts done", "changes root done"} <= set(told.lines)
    # What was read-only stays so; below what it may take off in its own view there is nothing.
    for path in ("/usr", "/opt/environment"):
        assert f"writable {path} EPERM" in told.lines, told.text
    assert "uncovers /usr EINVAL" in told.lines, told.text
    for what in ("user namespace", "user namespace by clone", "enters", "traces", "modules", "keys", "programs"):
        assert f"{what} EPERM" in told.lines, told.text


def test_the_machine_is_not_its_own(cell: Any) -> None:
    told = cell.python(HOST, privileged=True)
    for what in ("kernel", "trigger", "memory", "device", "system", "takes"):
        assert any(line.startswith(f"{what} ") and not line.endswith("done") for line in told.lines), (what, told.text)
    assert "gives away done" in told.lines and "['1']" in told.lines
    assert not {"work", "home", "data"} & set(eval(told.lines[-1]))


def test_what_it_leaves_belongs_to_its_users(cell: Any) -> None:
    folder = cell.workdir()
    cell.python("import os; open('x', 'w'); os.chown('x', 33, 33)", privileged=True, workdir=folder)
    here = folder.stat().st_uid
    assert (folder / "x").stat().st_uid == here + 33 and here % 65_536 == 1_880_000_000 % 65_536


def test_there_are_users_for_so_many(tmp_path: Path) -> None:
    driver = Bubblewrap(tmp_path)
    taken = [driver._take_range() for _ in range(5)]
    assert len(set(taken)) == 5 and max(taken) + 65_536 <= 1_900_000_000
    with pytest.raises(SandboxError, match="as many as there are users for"):
        driver._take_range()
    driver.forget("x", taken[:1])
    assert driver._take_range() == taken[0]


def test_no_builder_runs_on_a_kernel_of_its_own(cell: Any) -> None:
    with pytest.raises(SandboxError, match="the machine's kernel"):
        cell.run(["true"], privileged=True, untrusted=True)


def test_a_file_system_of_its_own_goes_with_its_volume(tmp_path: Path) -> None:
    volumes = Gocryptfs(tmp_path / "volumes")

    async def all_of_it() -> None:
        folder = await volumes.create("v", os.urandom(32), 64 << 20)
        system = await volumes.system("v", 32 << 20)
        assert os.statvfs(system).f_blocks * os.statvfs(system).f_frsize <= 32 << 20
        (system / "x").write_text("in the clear nowhere: chestnut")
        os.chown(system / "x", 1_880_000_033, 1_880_000_033)
        assert (system / "x").stat().st_uid == 1_880_000_033 and system.parent == folder
        with pytest.raises(SandboxError):
            await volumes.system("v", 32 << 20)
        os.sync()
        assert b"chestnut" not in (tmp_path / "volumes" / "v" / "image").read_bytes()
        await volumes.close("v")

    asyncio.run(all_of_it())
    assert str(tmp_path) not in Path("/proc/mounts").read_text()

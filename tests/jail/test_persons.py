"""Who administers a sandbox is root to one person beside it, and nobody outside; their files stay whose they were."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import bastide.engines.images
from bastide.engines.sandbox.drivers.gocryptfs import Gocryptfs

INSIDE = Path(bastide.engines.images.__file__).parent / "environments" / "notebook" / "inside"
PROBE = """
import ctypes, errno, os, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def tried(what, do):
    try:
        print(what, "done" if (do() or 0) >= 0 else errno.errorcode[ctypes.get_errno()])
    except OSError as error:
        print(what, errno.errorcode[error.errno])
print("users", sorted(line.split()[0::2] for line in open("/proc/self/uid_map")))
tried("mounts", lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, b""))
tried("changes root", lambda: libc.chroot(b"/tmp"))
tried("makes a device", lambda: os.mknod("/opt/ml/disk", 0o600 | 0o060000, os.makedev(254, 0)))
tried("takes another's name", lambda: os.setresuid(7, 7, 7))
tried("gives away", lambda: os.chown("/opt/ml", 7, 7))
tried("writes /usr", lambda: open("/usr/evil", "w").close())
tried("writes /etc", lambda: open("/etc/profile.d.sh", "w").close())
tried("writes the kernel's", lambda: open("/proc/sys/kernel/core_pattern", "w").close())
sys.path.insert(0, "/opt/notebook")
os.environ["PATH"] = "/usr/bin:/bin"
import start
start.TOOLS.mkdir()
python, sudo = sys.executable, "/opt/notebook/sudo.py"
def asks(*words):
    done = subprocess.run([python, "-I", "-S", sudo, *words], capture_output=True, text=True, cwd="/tmp", **start.USER)
    return done.stdout.strip() or done.stderr.strip(), done.returncode
def becomes(*words):
    done = subprocess.run([python, "-I", "-S", sudo, *words], capture_output=True, text=True)
    return done.stdout.strip(), done.returncode
print(becomes("-u", "ec2-user", "sh", "-c", "id -u; echo $HOME; exit 7"))
print(asks("id", "-u"))
start.Sudo().start()
print(asks("id", "-u"), asks("A=1", "sh", "-c", "echo $A $HOME; exit 5"), asks("-u", "nobody-here", "id"))
"""


def test_it_is_root_to_one_person_and_nobody_outside(cell: Any) -> None:
    folder = cell.workdir()
    told = cell.python(PROBE, person="ec2-user", workdir=folder, readonly=[(INSIDE, "/opt/notebook")])
    assert told.lines[:9] == [
        "users [['0', '1'], ['1000', '1']]", "mounts EPERM", "changes root EPERM", "makes a device EPERM",
        "takes another's name EINVAL", "gives away EINVAL", "writes /usr EROFS", "writes /etc done",
        "writes the kernel's EACCES",
    ], told.text  # fmt: skip
    assert told.lines[9] == "('1000\\n/home/ec2-user', 7)", told.text
    assert told.lines[10].startswith("('sudo: ec2-user is not in the sudoers file"), told.text
    assert told.lines[11] == "('0', 0) ('1 /root', 5) ('sudo: unknown user nobody-here', 1)", told.text


def test_files_stay_whose_they_were(cell: Any, tmp_path: Path) -> None:
    """In a volume that is kept, whoever of the machine root and the person are from start to start; and it grows."""
    volumes = Gocryptfs(tmp_path / "volumes")
    look = "import os; print([os.stat(f'/opt/ml/{one}').st_uid for one in ('a', 'b', 'link')], os.statvfs('/').f_bsize > 0)"
    make = (
        "import os\nfor one in 'ab':\n    open(f'/opt/ml/{one}', 'w').close()\nos.chown('/opt/ml/b', 1000, 1000)\n"
        "os.symlink('/etc/passwd', '/opt/ml/link')\nos.lchown('/opt/ml/link', 1000, 1000)\n"
        "os.link('/opt/ml/a', '/opt/ml/c')"
    )
    sizes, users = [], []

    async def day(size: int, program: str) -> list[str]:
        await volumes.keep("kept", bytes(32), tmp_path / "cipher")
        try:
            system = await volumes.system("kept", size << 20)
            (system / "ml").mkdir(exist_ok=True)
            told = await asyncio.to_thread(cell.python, program, person="ec2-user", workdir=system / "ml")
            users.append((system / "ml").stat().st_uid)
            sizes.append((tmp_path / "volumes" / "kept" / "clear" / "system.image").stat().st_size)
            lines: list[str] = told.lines
            return lines
        finally:
            await volumes.close("kept")

    assert asyncio.run(day(32, make)) == []
    cell.driver.take_users(1)  # so that the users of the next are others
    assert asyncio.run(day(48, look)) == ["[0, 1000, 0] True"]
    assert sizes == [32 << 20, 48 << 20] and users[0] != users[1]
    assert Path("/etc/passwd").stat().st_uid == 0


def test_it_is_not_for_code_that_is_not_trusted(cell: Any) -> None:
    with pytest.raises(Exception, match="needs the machine's kernel"):
        cell.python("", person="ec2-user", untrusted=True)

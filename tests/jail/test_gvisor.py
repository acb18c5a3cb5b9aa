"""Programs on a kernel of their own: that it is one, what differs of the other sandbox, and that there is no way round it."""

from __future__ import annotations

import os

import pytest

from tests.jail.conftest import Cell
from tests.jail.test_escapes import attempts


@pytest.fixture
def apart(cell: Cell) -> Cell:
    cell.kind = "gvisor"
    return cell


def test_the_kernel_is_its_own(apart: Cell) -> None:
    told = apart.python(
        attempts("""
        import ctypes, socket, time
        print(open("/proc/version").read().split()[2], os.uname().release)
        message = ctypes.create_string_buffer(4096)
        print(message.raw[: call(103 if os.uname().machine == "x86_64" else 116, 3, message, 4096)].count(b"gVisor"))
        print(os.getuid(), os.getgid(), os.getgroups(), os.getcwd(), socket.gethostname(), os.stat("/opt/ml").st_uid)
        print({line.split()[1].strip("0") for line in open("/proc/self/status") if line[:6] in ("CapInh", "CapPrm", "CapEff")})
        print(sorted(os.environ))
        print(sorted(os.listdir("/")), sorted(os.listdir("/run")), sorted(os.listdir("/proc/self/fd")))
        for fd in (1, 2):
            print("again", file=open(f"/proc/self/fd/{fd}", "w"), flush=True)
        time.sleep(0.05)
        """),
        env={"TOKEN": "t"},
    )
    assert told.lines[0] == "4.4.0 4.4.0" != os.uname().release
    assert int(told.lines[1]) >= 1
    assert told.lines[2] == "1000 1000 [1000] /opt/ml algo-1 1000"
    assert told.lines[3] == "{''}"
    inside = "['HOME', 'HOSTNAME', 'LANG', 'LOKY_MAX_CPU_COUNT', 'OMP_NUM_THREADS', 'PATH', 'PWD', 'PYTHONUNBUFFERED', 'TOKEN']"
    assert told.lines[4] == inside
    assert "['.bastide'] ['0', '1', '2', '3']" in told.lines[5] and "bundle" not in told.lines[5]
    assert told.lines[6:] == ["again", "again"]
    assert told.ended.exit_code == 0

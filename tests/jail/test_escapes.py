"""Attempts to get out of a sandbox, each a real one, from inside, with the outcome looked at from both sides."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bastide.engines.sandbox import Limits
from bastide.jail import cgroups, seccomp
from tests.jail.conftest import BOTH

Check = Callable[[Any], None]

# What the attempts share: try something, print ``name: refused ...`` or ``name: WORKED ...``.
TRY = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, do):
    try:
        told = do()
    except BaseException as error:
        print(f"{name}: refused {type(error).__name__} {getattr(error, 'errno', '')}", flush=True)
    else:
        print(f"{name}: WORKED {str(told)[:200]!r}", flush=True)
def call(number, *given):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(g) if isinstance(g, int) else g for g in given])
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
"""


def attempts(body: str) -> str:
    lines = body.strip("\n").splitlines()
    margin = len(lines[0]) - len(lines[0].lstrip())
    return TRY + "\n".join(line[margin:] for line in lines)


def alive(marker: str) -> list[int]:
    """Processes of the machine with the marker among their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if marker.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def gone(marker: str, seconds: float = 60.0) -> bool:
    until = time.monotonic() + seconds
    while alive(marker):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def test_an_attempt_that_works_is_seen(cell: Any, refused: Check) -> None:
    """The harness itself: what is allowed shows as such, so that a refusal means something."""
    told = cell.python(
        attempts("""
        attempt("own file", lambda: open("/opt/ml/x", "w").write("x"))
        attempt("own user", lambda: call(102 if os.uname().machine == "x86_64" else 174))
        attempt("loopback", lambda: __import__("socket").create_server(("127.0.0.1", 0)).getsockname()[0])
    """)
    )
    assert [line.split(": ")[1].split()[0] for line in told.lines] == ["WORKED"] * 3
    with pytest.raises(AssertionError):
        refused(told)


# --- files -----------------------------------------------------------------------------------------------------------


@BOTH
def test_host_files_cannot_be_read(cell: Any, tmp_path: Path, refused: Check) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the bank's")
    secret.chmod(0o644)
    repository = Path(__file__).parents[2]
    paths = [str(secret), "/etc/shadow", "/etc/hostid", "/etc/machine-id", "/root/.bashrc", "/root/.aws/credentials"]
    paths += [str(repository / "pyproject.toml"), "/var/log", "/var/lib", "/home", "/boot", "/srv", "/sys/kernel/mm"]
    paths += [str(cell.folder / "run"), "/proc/1/root/etc/shadow", "/old", "/jail", "/binds"]
    told = cell.python(
        attempts(f"""
        for path in {paths!r}:
            attempt(path, lambda: os.listdir(path) if os.path.isdir(path) else open(path).read())
        """)
    )
    refused(told)
    assert len(told.lines) == len(paths)


def test_only_known_folders_are_there(cell: Any) -> None:
    told = cell.run(["ls", "-A", "/"])
    base = Path(sys.base_prefix).resolve().parts[1]
    known = {"bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "mnt", "opt", "proc", "run", "sbin", "tmp"}
    assert set(told.lines) <= known | {"usr", "var", base}
    assert cell.run(["sh", "-c", "ls -A /mnt /run /var/tmp | grep -v :"]).text.strip() == ""


def test_another_job_is_out_of_sight(cell: Any, refused: Check) -> None:
    async def both() -> list[str]:
        theirs = cell.workdir()
        (theirs / "model").write_text("theirs")
        other = await cell.driver.start(cell.spec(["sleep", "60"], workdir=theirs))
        mine = cell.spec(
            ["python3", "-c", attempts(f"""
            attempt("folder", lambda: os.listdir({str(theirs)!r}))
            attempt("file", lambda: open({str(theirs / "model")!r}).read())
            for pid in range(3, 40000):
                if os.path.exists(f"/proc/{{pid}}") and pid != os.getpid():
                    print("process: WORKED", pid, open(f"/proc/{{pid}}/cmdline").read())
            """)],
        )  # fmt: skip
        running = await cell.driver.start(mine)
        assert running.user != other.user
        lines = [line.decode() async for line in running.lines()]
        await running.wait()
        await other.stop(0)
        assert (theirs / "model").read_text() == "theirs"
        async for _ in other.lines():
            pass
        return lines

    lines = asyncio.run(both())
    assert [line.split()[1] for line in lines] == ["refused", "refused"], lines


@BOTH
def test_nothing_outside_opt_ml_can_be_written(cell: Any, refused: Check) -> None:
    base = str(Path(sys.base_prefix).resolve())
    places = ["/", "/usr", "/usr/local/lib", "/etc", "/opt", "/opt/environment", "/opt/environment/bin", "/opt/bastide"]
    places += ["/var", "/var/tmp", "/mnt", "/proc", "/root", base, f"{base}/lib"]
    told = cell.python(
        attempts(f"""
        for place in {places!r}:
            attempt(place, lambda: open(os.path.join(place, "planted"), "w"))
        attempt("replace python", lambda: os.rename("/opt/environment/bin/python3", "/opt/environment/bin/x"))
        attempt("hosts", lambda: open("/etc/hosts", "a"))
        attempt("chmod", lambda: os.chmod("/opt/bastide/bin/train", 0o777))
        """)
    )
    refused(told)
    assert not list(Path(base).glob("**/planted"))


def test_a_link_does_not_lead_out(cell: Any, tmp_path: Path, refused: Check) -> None:
    target = tmp_path / "host-file"
    target.write_text("host")
    work = cell.workdir()
    (work / "absolute").symlink_to(target)
    (work / "relative").symlink_to("../../../../etc/shadow")
    (work / "folder").symlink_to("/root")
    told = cell.python(
        attempts("""
        for name in ("absolute", "relative"):
            attempt(name, lambda: open(f"/opt/ml/{name}").read())
        os.symlink("/etc/shadow", "/opt/ml/made")
        attempt("made", lambda: open("/opt/ml/made").read())
        attempt("folder", lambda: open("/opt/ml/folder/.bashrc").read())
        attempt("hard link", lambda: os.link("/usr/bin/passwd", "/opt/ml/passwd"))
        """),
        workdir=work,
    )
    refused(told)
    assert target.stat().st_uid == 0  # giving the workdir to the job's user followed no link
    assert Path("/root").stat().st_uid == 0
    assert (work / "absolute").lstat().st_uid >= 1_900_000_000


def test_device_nodes_cannot_be_made_or_used(cell: Any, refused: Check) -> None:
    work = cell.workdir()
    os.mknod(work / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    (work / "zero").chmod(0o666)
    told = cell.python(
        attempts("""
        import stat
        attempt("mknod", lambda: os.mknod("/opt/ml/mem", 0o666 | stat.S_IFCHR, os.makedev(1, 1)))
        attempt("mknod in dev", lambda: os.mknod("/dev/disk", 0o666 | stat.S_IFBLK, os.makedev(254, 0)))
        attempt("planted", lambda: open("/opt/ml/zero", "rb").read(1))
        for name in ("mem", "kmem", "port", "kmsg", "vda", "sda", "fuse", "loop0", "loop-control", "net/tun", "kvm"):
            attempt(name, lambda: open(f"/dev/{name}", "rb"))
        """),
        workdir=work,
    )
    refused(told)
    known = {"core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty"}
    assert set(cell.run(["ls", "-A", "/dev"]).lines) <= known | {"urandom", "zero", "console"}


# --- network ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def listening(family: int, address: Any) -> Iterator[tuple[Any, list[Any]]]:
    """A listener of the host, and who came."""
    came: list[Any] = []
    with socket.socket(family) as listener:
        listener.bind(address)
        listener.listen()
        listener.settimeout(0.05)
        over = threading.Event()

        def accept() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    who, _ = listener.accept()
                    came.append(who.getpeername())
                    who.close()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname(), came
        finally:
            over.set()
            thread.join()


def test_the_loopback_of_the_host_is_not_the_jobs(cell: Any, refused: Check) -> None:
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as (address, came):
        told = cell.python(
            attempts(f"""
            import socket
            for host in ("127.0.0.1", "localhost", "algo-1", "0.0.0.0"):
                attempt(host, lambda: socket.create_connection((host, {address[1]}), 2))
            """)
        )
        refused(told)
        assert came == []


def test_no_address_can_be_reached(cell: Any, refused: Check) -> None:
    with listening(socket.AF_INET, ("0.0.0.0", 0)) as (address, came):
        own = {i[4][0] for i in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} | {"10.0.0.1"}
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            own.add(probe.getsockname()[0])
        hosts = [*sorted(h for h in own if not h.startswith("127.")), "169.254.169.254", "192.0.2.1", "1.1.1.1"]
        told = cell.python(
            attempts(f"""
            import socket
            for host in {hosts!r}:
                attempt(host, lambda: socket.create_connection((host, {address[1]}), 2))
                attempt(host + " udp", lambda: socket.socket(2, socket.SOCK_DGRAM).sendto(b"x", (host, 53)))
            attempt("v6", lambda: socket.create_connection(("2001:db8::1", 443), 2))
            attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
            """)
        )
        refused(told)
        assert came == []


def test_only_its_own_loopback_exists(cell: Any) -> None:
    assert cell.python("import socket; print(socket.if_nameindex())").lines == ["[(1, 'lo')]"]


def test_no_name_is_resolved_but_its_own(cell: Any) -> None:
    told = cell.python(
        attempts("""
        import socket
        for name in ("example.com", "metadata.google.internal", "s3.amazonaws.com"):
            attempt(name, lambda: socket.getaddrinfo(name, 443))
        print("algo-1", socket.gethostbyname("algo-1"), socket.gethostname())
        """)
    )
    assert [line.split(": ")[1].split()[0] for line in told.lines[:3]] == ["refused"] * 3
    assert told.lines[3] == "algo-1 127.0.0.1 algo-1"


def test_abstract_sockets_of_the_host_are_not_there(cell: Any, refused: Check) -> None:
    with listening(socket.AF_UNIX, "\0bastide-abstract-test") as (_, came):
        told = cell.python(
            attempts("""
            import socket
            attempt("connect", lambda: socket.socket(socket.AF_UNIX).connect("\\0bastide-abstract-test"))
            attempt("listed", lambda: open("/proc/net/unix").read().index("bastide-abstract"))
            """)
        )
        refused(told)
        assert came == []


def test_rare_socket_families_are_closed(cell: Any, refused: Check) -> None:
    told = cell.python(
        attempts("""
        import socket
        for family in (17, 40, 38, 29, 30, 31, 44, 9, 4, 3, 15, 5, 26):  # packet, vsock, alg, can, tipc, bluetooth, ...
            attempt(f"family {family}", lambda: socket.socket(family, socket.SOCK_DGRAM))
            attempt(f"family {family} seqpacket", lambda: socket.socket(family, socket.SOCK_SEQPACKET))
        """)
    )
    refused(told)


# --- processes, secrets ----------------------------------------------------------------------------------------------


def test_processes_of_the_host_are_not_there(cell: Any) -> None:
    told = cell.python("import os; print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()), os.getpid())")
    assert told.lines == ["[1, 2] 2"]


def test_no_secret_of_the_platform_is_in_any_environment(cell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "platforms-own-secret")
    monkeypatch.setenv("BASTIDE_MASTER", "platforms-own-secret")
    told = cell.python("""
        import glob, os
        seen = repr(dict(os.environ))
        for path in glob.glob("/proc/*/environ") + glob.glob("/proc/*/cmdline") + glob.glob("/proc/*/task/*/environ"):
            try:
                seen += path + open(path, "rb").read().decode(errors="replace")
            except OSError as error:
                seen += repr(error)
        wanted = ("platforms" + "-own", "BASTIDE" + "_MASTER", "AWS" + "_SECRET")  # this code is an argument itself
        print([word for word in wanted if word in seen])
        print(repr(open("/proc/1/environ", "rb").read()))
        print(sorted(os.environ))
    """)
    assert told.lines[:2] == ["[]", "b''"]
    inside = "['HOME', 'HOSTNAME', 'LANG', 'LOKY_MAX_CPU_COUNT', 'OMP_NUM_THREADS', 'PATH', 'PWD', 'PYTHONUNBUFFERED']"
    assert told.lines[2] == inside


def test_the_jobs_variables_are_not_in_arguments(cell: Any) -> None:
    async def story() -> None:
        spec = cell.spec(["sh", "-c", "echo ready $TOKEN; exec sleep 60"], env={"TOKEN": "jobs-own-token"})
        running = await cell.driver.start(spec)
        lines = running.lines()
        assert await anext(lines) == b"ready jobs-own-token"
        assert alive("jobs-own-token") == []
        await running.stop(0)
        assert [line async for line in lines] == []

    asyncio.run(story())


def test_nothing_is_inherited_but_the_standard_descriptors(cell: Any) -> None:
    with Path("/etc/shadow").open(), socket.socket() as kept:
        os.set_inheritable(kept.fileno(), True)
        told = cell.run(["sh", "-c", "ls -l /proc/self/fd | grep -v total | awk '{print $9, $11}'"])
    opened = dict(line.split(" ", 1) for line in told.lines)
    assert opened.pop("3").startswith("/proc/")  # ls's own
    assert opened.keys() == {"0", "1", "2"}
    assert opened["0"] == "/dev/null"


def test_processes_of_the_host_cannot_be_signalled(cell: Any) -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        told = cell.python(
            attempts(f"""
            for number in ({bystander.pid}, {os.getpid()}, -{os.getpgid(0)}):
                attempt(str(number), lambda: os.kill(number, 9))
            attempt("first process", lambda: os.kill(1, 9) or os.kill(1, 0) or "still there")
            """)
        )
        assert [line.split(": ")[1].split()[0] for line in told.lines[:3]] == ["refused"] * 3, told.text
        assert cell.python("import os; os.kill(-1, 9)").ended.exit_code is not None
        assert bystander.poll() is None
        bystander.kill()


def test_a_daemon_does_not_outlive_its_job(cell: Any) -> None:
    marker = f"daemon-{os.getpid()}"
    told = cell.python(f"""
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execvp("sh", ["sh", "-c", "trap '' TERM HUP; sleep 100 # {marker}"])
            os._exit(0)
        time.sleep(0.2)
        print("leaving")
    """)
    assert told.lines == ["leaving"]
    assert told.ended.seconds < 90  # the daemon sleeps for longer
    assert gone(marker)


# --- limits ----------------------------------------------------------------------------------------------------------


def test_a_fork_bomb_meets_its_limit(cell: Any) -> None:
    marker = f"bomb-{os.getpid()}"
    limits = Limits(memory_bytes=512 << 20, cpus=1.0, processes=20)
    told = cell.python(
        f"""
        # {marker}
        import os, time
        made = 0
        try:
            while True:
                if os.fork() == 0:
                    time.sleep(100)
                made += 1
        except OSError as error:
            print(made, error.errno)
        """,
        limits=limits,
    )
    made, number = map(int, told.text.split())
    assert number == 11
    assert 10 <= made < 20
    assert gone(marker)
    assert subprocess.run(["true"], check=True).returncode == 0


@BOTH
def test_a_real_fork_bomb_is_ended_by_stopping(cell: Any) -> None:
    marker = f"bomb-{os.getpid()}"

    async def story() -> None:
        limits = Limits(memory_bytes=256 << 20, cpus=0.5, processes=40)
        code = f"f() {{ f & f; }}; trap '' TERM; f 2>/dev/null # {marker}"
        running = await cell.driver.start(cell.spec(["bash", "-c", code], limits=limits))
        reading = asyncio.create_task(_drain(running))
        await asyncio.sleep(0.5)
        async with asyncio.timeout(60):
            await running.stop(0.2)
            await reading

    asyncio.run(story())
    assert gone(marker)


async def _drain(running: Any) -> list[bytes]:
    return [line async for line in running.lines()]


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("heap", "held = []\nwhile True: held.append(bytearray(8 << 20))"),
        ("tmp", "f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(8 << 20))"),
        ("shm", "f = open('/dev/shm/x', 'wb')\nwhile True: f.write(bytes(8 << 20))"),
    ],
)
def test_memory_beyond_the_limit_ends_the_job(cell: Any, where: str, code: str) -> None:
    told = cell.python(code, limits=Limits(memory_bytes=96 << 20, cpus=1.0, processes=16))
    assert told.ended.exit_code not in {0, None}
    if where == "heap":
        assert told.ended.oom
        assert told.ended.signal == signal.SIGKILL
    else:  # the file system's own size may be met before the group's limit
        assert told.ended.oom or "No space left" in told.text
    assert told.ended.peak_bytes is not None
    assert told.ended.peak_bytes <= 97 << 20


def test_processors_beyond_the_limit_are_not_had(cell: Any) -> None:
    told = cell.python(
        """
        import time
        until = time.monotonic() + 1.0
        while time.monotonic() < until: pass
        """,
        limits=Limits(memory_bytes=96 << 20, cpus=0.25, processes=16),
    )
    assert told.ended.exit_code == 0
    assert told.ended.cpu_seconds is not None
    assert told.ended.cpu_seconds < 0.7


def test_resource_limits_cannot_be_raised(cell: Any, refused: Check) -> None:
    told = cell.python(
        attempts("""
        import resource
        for name in ("RLIMIT_NOFILE", "RLIMIT_NPROC"):
            soft, hard = resource.getrlimit(getattr(resource, name))
            attempt(name, lambda: resource.setrlimit(getattr(resource, name), (hard + 1, hard + 1)))
        for most in (0, 1 << 20, resource.RLIM_INFINITY):  # at 0 the kernel would start the host's program for cores
            attempt("core", lambda: resource.setrlimit(resource.RLIMIT_CORE, (most, 1 << 20)))
        attempt("core, plainly", lambda: call(160 if os.uname().machine == "x86_64" else 164, 4, bytes(16)))
        assert next(one for one in open("/proc/self/limits") if one.startswith("Max core")).split()[4] == "1"
        attempt("nice", lambda: os.nice(-5))
        attempt("files", lambda: [os.dup(0) for _ in range(2000)])
        attempt("oom", lambda: open("/proc/self/oom_score_adj", "w").write("-1000") or sys.stdout.flush())
        """)
    )
    assert all("refused" in line for line in told.lines[:8]), told.text
    refused(told)


def test_control_groups_are_not_there(cell: Any, refused: Check) -> None:
    told = cell.python(
        attempts("""
        attempt("sys", lambda: os.listdir("/sys/fs/cgroup"))
        attempt("own", lambda: [][0] if "bastide" not in open("/proc/self/cgroup").read() else "seen")
        """)
    )
    refused(told)


# --- kernel ----------------------------------------------------------------------------------------------------------


def test_it_holds_no_privilege_and_can_gain_none(cell: Any, refused: Check) -> None:
    told = cell.python("""
        for line in open("/proc/self/status"):
            if line.startswith(("Cap", "NoNewPrivs", "Seccomp:")):
                print(line.split()[0], int(line.split()[1], 16))
    """)
    assert dict(line.split() for line in told.lines) == {
        **{f"Cap{kind}:": "0" for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")},
        "NoNewPrivs:": "1",
        "Seccomp:": "2",
    }
    work = cell.workdir()
    program = work / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    program.chmod(0o4755)
    told = cell.python(
        attempts("""
        attempt("setuid", lambda: os.setuid(0))
        attempt("setgid", lambda: os.setgid(0))
        attempt("setgroups", lambda: os.setgroups([0]))
        attempt("chown", lambda: os.chown("/opt/ml/id", 0, 0))
        import subprocess
        attempt("su", lambda: subprocess.run(["su", "-c", "id"], check=True, stdin=subprocess.DEVNULL, stderr=-3))
        print("uid:", "refused" if subprocess.check_output(["/opt/ml/id", "-u"]) == b"1000\\n" else "WORKED")
        """),
        workdir=work,
    )
    refused(told)


def test_no_new_namespaces(cell: Any, refused: Check) -> None:
    told = cell.python(
        attempts("""
        import subprocess
        for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x8000000, 0x4000000, 0x2000000, 0x80):
            attempt(f"unshare {flag:#x}", lambda: call(272 if os.uname().machine == "x86_64" else 97, flag))
        number = 56 if os.uname().machine == "x86_64" else 220
        attempt("clone", lambda: call(number, 0x10000000 | 17, 0, 0, 0, 0))
        attempt("clone3", lambda: call(435, ctypes.create_string_buffer(88), 88))
        attempt("setns", lambda: call(308 if number == 56 else 268, os.open("/proc/1/ns/user", 0), 0))
        for program in (["unshare", "-U", "true"], ["unshare", "-Ur", "true"], ["bwrap", "--ro-bind", "/", "/", "true"]):
            attempt(program[0], lambda: subprocess.run(program, check=True, stderr=subprocess.DEVNULL))
        attempt("sysctl", lambda: open("/proc/sys/user/max_user_namespaces", "w").write("9"))
        """)
    )
    refused(told)


def test_no_reading_of_other_processes(cell: Any, refused: Check) -> None:
    told = cell.python(
        attempts("""
        import subprocess, time
        x86 = os.uname().machine == "x86_64"
        other = subprocess.Popen(["sleep", "30"])
        attempt("ptrace attach", lambda: call(101 if x86 else 117, 16, other.pid, 0, 0))
        attempt("ptrace traceme", lambda: call(101 if x86 else 117, 0, 0, 0, 0))
        attempt("process_vm_readv", lambda: call(310 if x86 else 270, other.pid, 0, 0, 0, 0, 0))
        attempt("process_vm_writev", lambda: call(311 if x86 else 271, other.pid, 0, 0, 0, 0, 0))
        attempt("first memory", lambda: open("/proc/1/mem", "rb").read(1))
        attempt("pidfd_getfd", lambda: call(438, os.pidfd_open(other.pid), 0, 0))
        other.kill()
        """)
    )
    refused(told)


def test_no_mounting(cell: Any, refused: Check) -> None:
    told = cell.python(
        attempts("""
        x86 = os.uname().machine == "x86_64"
        libc.mount.restype = ctypes.c_int
        def checked(result):
            if result < 0:
                raise OSError(ctypes.get_errno(), "")
            return result
        attempt("tmpfs", lambda: checked(libc.mount(b"x", b"/mnt", b"tmpfs", 0, None)))
        attempt("remount", lambda: checked(libc.mount(None, b"/usr", None, 32 | 4096, None)))
        attempt("umount", lambda: checked(libc.umount2(b"/opt/ml", 2)))
        attempt("chroot", lambda: os.chroot("/opt/ml"))
        attempt("pivot_root", lambda: call(155 if x86 else 41, 0, 0))
        for name, number in (("fsopen", 430), ("open_tree", 428), ("move_mount", 429), ("mount_setattr", 442)):
            attempt(name, lambda: call(number, 0, 0, 0, 0, 0))
        attempt("by handle", lambda: call(304 if x86 else 265, 0, 0, 0))
        """)
    )
    refused(told)


def test_the_kernels_settings_and_messages_are_closed(cell: Any, refused: Check) -> None:
    told = cell.python(
        attempts("""
        x86 = os.uname().machine == "x86_64"
        attempt("core_pattern", lambda: open("/proc/sys/kernel/core_pattern", "w").write("|/opt/ml/x"))
        attempt("sysrq", lambda: open("/proc/sysrq-trigger", "w").write("b"))
        attempt("drop caches", lambda: open("/proc/sys/vm/drop_caches", "w").write("3"))
        attempt("kcore", lambda: open("/proc/kcore", "rb").read(1))
        attempt("/dev/kmsg", lambda: open("/dev/kmsg"))
        attempt("/proc/kmsg", lambda: open("/proc/kmsg").read(1))
        attempt("syslog", lambda: call(103 if x86 else 116, 3, ctypes.create_string_buffer(100), 100))
        attempt("hostname", lambda: __import__("socket").sethostname("x"))
        attempt("clock", lambda: __import__("time").clock_settime(0, 0))
        attempt("debugfs", lambda: os.listdir("/sys/kernel/debug"))
        attempt("bpf", lambda: call(321 if x86 else 280, 0, 0, 0))
        attempt("keyctl", lambda: call(250 if x86 else 219, 0, -3, 0))
        attempt("add_key", lambda: call(248 if x86 else 217, b"user", b"a", b"b", 1, -3))
        attempt("io_uring", lambda: call(425, 1, ctypes.create_string_buffer(200)))
        attempt("userfaultfd", lambda: call(323 if x86 else 282, 0))
        attempt("perf", lambda: call(298 if x86 else 241, ctypes.create_string_buffer(128), 0, -1, -1, 0))
        attempt("personality", lambda: call(135 if x86 else 92, 0x0400000))
        attempt("tiocsti", lambda: call(16 if x86 else 29, 0, 0x5412, b"x"))
        attempt("tiocsti, high bits", lambda: call(16 if x86 else 29, 0, 0x1_0000_5412, b"x"))
        """)
    )
    refused(told)


def test_every_row_of_the_table_holds(cell: Any) -> None:
    """Each forbidden call answers with its errno before the kernel looks at anything else."""
    machine = os.uname().machine
    wanted = []
    for row in seccomp.ROWS:
        number = row.x86_64 if machine == "x86_64" else row.aarch64
        if number is None:
            continue
        given = [0] * 6
        if row.argument is not None:
            index, mask, values = row.argument
            given[index] = mask & -mask if seccomp.NONZERO in values else values[-1]
        wanted.append((row.name, number, given, row.answer))
    told = cell.python(
        attempts(f"""
        for name, number, given, answer in {wanted!r}:
            try:
                call(number, *given)
                print(name, "WORKED")
            except OSError as error:
                if error.errno != answer:
                    print(name, error.errno, answer)
        for number in range({seccomp.NEWEST + 1}, {seccomp.NEWEST + 40}):
            try:
                call(number, 0, 0, 0, 0, 0, 0)
                print(number, "WORKED")
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    print(number, error.errno)
        print("walked", {len(wanted)})
        """)
    )
    assert told.lines == [f"walked {len(wanted)}"], told.text
    assert len(wanted) > 50


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_filter_is_within_the_kernels_bounds(machine: str) -> None:
    program = seccomp.assemble(machine)
    assert len(program) % 8 == 0
    assert len(program) // 8 <= 4096
    rows = [r for r in seccomp.ROWS if (r.x86_64 if machine == "x86_64" else r.aarch64) is not None]
    assert all(row.reason for row in rows)


def test_an_unknown_machine_has_no_filter_and_so_no_jobs() -> None:
    with pytest.raises(ValueError, match="no system call filter"):
        seccomp.assemble("riscv64")


def test_calls_of_another_architecture_end_the_process(cell: Any) -> None:
    if os.uname().machine != "x86_64":
        return
    told = cell.python(attempts("call(0x40000000 | 39)\nprint('went on')"))
    assert told.lines == []
    assert told.ended.signal == signal.SIGSYS


# --- the platform's death --------------------------------------------------------------------------------------------

PLATFORM = """
import asyncio, sys
from pathlib import Path
from bastide.engines.images import build
from bastide.engines.sandbox import Limits, Spec
from bastide.engines.sandbox.drivers.bubblewrap import Bubblewrap
from bastide.engines.sandbox.drivers.gocryptfs import Gocryptfs

async def main(folder: Path, marker: str) -> None:
    volumes = Gocryptfs(folder / "volumes")
    work = await volumes.create("v1", b"k" * 32, 64 << 20)
    code = f"trap '' TERM HUP; (setsid sleep 300; : {marker}) & echo up; sleep 300; : {marker}"
    limits = Limits(memory_bytes=256 << 20, cpus=1.0, processes=30)
    spec = Spec("job", build("scikit-learn"), ["sh", "-c", code], work, limits)
    running = await Bubblewrap(folder / "run").start(spec)
    async for line in running.lines():
        print(line.decode(), flush=True)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def test_the_death_of_the_platform_is_the_death_of_its_jobs(cell: Any, tmp_path: Path) -> None:
    marker = f"orphan-{os.getpid()}"
    with subprocess.Popen(
        [sys.executable, "-c", PLATFORM, str(tmp_path), marker], stdout=subprocess.PIPE, text=True
    ) as platform:
        assert platform.stdout is not None
        assert platform.stdout.readline() == "up\n"
        assert len(alive(marker)) > 3
        state = tmp_path / "run" / "sandboxes" / "job" / "state.json"
        folders = [Path(p) for p in __import__("json").loads(state.read_text()).values()]
        assert folders and all(p.is_dir() for p in folders)
        platform.kill()
    assert gone(marker)
    assert gone(str(tmp_path / "volumes"))  # gocryptfs, and with it the key

    clear = tmp_path / "volumes" / "v1" / "clear"
    with pytest.raises(OSError):
        list(clear.iterdir())

    from bastide.engines.sandbox.drivers.bubblewrap import Bubblewrap
    from bastide.engines.sandbox.drivers.gocryptfs import Gocryptfs

    assert asyncio.run(Bubblewrap(tmp_path / "run").recover()) == ["job"]
    assert asyncio.run(Gocryptfs(tmp_path / "volumes").recover()) == ["v1"]
    assert not any(p.exists() for p in folders)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert list((tmp_path / "volumes").iterdir()) == []
    assert asyncio.run(Bubblewrap(tmp_path / "run").recover()) == []


def test_recovering_ends_what_is_still_in_a_group(tmp_path: Path) -> None:
    """Should a process ever outlive the chain, the control group still knows it."""
    group = cgroups.create(f"left-{os.getpid()}", memory_bytes=64 << 20, processes=5, cpus=1.0)
    folder = tmp_path / "sandboxes" / "left"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(__import__("json").dumps(group.folders))
    with subprocess.Popen(["sleep", "300"]) as straggler:
        group.join(straggler.pid)
        from bastide.engines.sandbox.drivers.bubblewrap import Bubblewrap

        reaper = threading.Thread(target=straggler.wait)
        reaper.start()
        assert asyncio.run(Bubblewrap(tmp_path).recover()) == ["left"]
        reaper.join()
        assert straggler.returncode == -signal.SIGKILL
    assert not any(Path(p).exists() for p in group.folders.values())

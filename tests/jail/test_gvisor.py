"""Programs on a kernel of their own: that it is one, in what it differs, and that there is no way round it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bastide.engines.images import Container
from bastide.engines.sandbox import Limits, SandboxError
from bastide.engines.sandbox.drivers import bubblewrap
from bastide.engines.sandbox.drivers.gocryptfs import Gocryptfs
from bastide.engines.sandbox.drivers.gvisor import Gvisor
from bastide.jail import gvisor, namespaces
from bastide.jail.probe import probe
from tests.jail.conftest import Cell
from tests.jail.test_escapes import PLATFORM, alive, attempts, gone, listening


@pytest.fixture
def apart(cell: Cell) -> Cell:
    cell.kind = "gvisor"
    return cell


def test_the_kernel_is_its_own(apart: Cell) -> None:
    told = apart.python(
        attempts("""
        import socket
        print(open("/proc/version").read().split()[2], os.uname().release)
        message = ctypes.create_string_buffer(4096)
        length = call(103 if os.uname().machine == "x86_64" else 116, 3, message, 4096)
        print("gVisor" in message.raw[:length].decode())
        print(os.getuid(), os.getgid(), os.getcwd(), socket.gethostname(), os.stat("/opt/ml").st_uid)
        print({line.split()[1].strip("0") for line in open("/proc/self/status") if line[:4] == "Cap" and "Bnd" not in line})
        print(sorted(os.environ))
        print(os.listdir("/run"), sorted(os.listdir("/proc/self/fd")))
        for name in ("/bundle", "/state", "/jail", "/tools", "/binds"):
            assert not os.path.exists(name), name
        for fd in (1, 2):
            print("again", file=open(f"/proc/self/fd/{fd}", "w"), flush=True)
        """),
        env={"TOKEN": "t"},
    )
    assert told.lines[:2] == ["4.4.0 4.4.0", "True"] and os.uname().release != "4.4.0"
    assert told.lines[2:4] == ["1000 1000 /opt/ml algo-1 1000", "set()"]
    inside = ["HOME", "HOSTNAME", "LANG", "LOKY_MAX_CPU_COUNT", "OMP_NUM_THREADS", "PATH", "PWD", "PYTHONUNBUFFERED"]
    assert told.lines[4] == str([*inside, "TOKEN"])
    assert told.lines[5:] == ["['.bastide'] ['0', '1', '2', '3']", "again", "again"]
    assert told.ended.exit_code == 0
    assert (
        apart.python("print(open('/proc/version').read())", untrusted=False).lines[0]
        == Path("/proc/version").read_text().strip()
    )


def test_endings_are_told_apart(apart: Cell) -> None:
    limits = Limits(memory_bytes=96 << 20, cpus=1.0, processes=20)
    wanted: list[tuple[Any, int, int | None, bool]] = [
        (["sh", "-c", "(trap '' TERM; sleep 300) & exit 3"], 3, None, False),
        (["sh", "-c", "kill -TERM $$"], 143, signal.SIGTERM, False),
        (["there-is-no-such-program"], 127, None, False),
        (["python3", "-c", "held = []\nwhile True: held.append(bytearray(8 << 20))"], 137, signal.SIGKILL, True),
        (["python3", "-c", "import os, time\nwhile True:\n  if not os.fork(): time.sleep(300)"], 1, None, False),
    ]

    async def one(command: list[str]) -> tuple[str, Any]:
        running = await apart.driver.start(apart.spec(command, limits=limits))
        lines = [line.decode() async for line in running.lines()]
        return "\n".join(lines), await running.wait()

    async def story() -> list[tuple[str, Any]]:
        return await asyncio.gather(*(one(command) for command, *_ in wanted))

    told = asyncio.run(story())
    assert [(one.exit_code, one.signal, one.oom) for _, one in told] == [tuple(rest) for _, *rest in wanted]
    assert "not found" in told[2][0] and "BlockingIOError" in told[4][0]
    assert all(one.peak_bytes is not None and 0 < one.peak_bytes <= 97 << 20 for _, one in told)
    assert list((apart.folder / "run/sandboxes").iterdir()) == []


def test_it_stands_still_while_it_is_frozen(apart: Cell) -> None:
    async def story() -> tuple[bool, bool]:
        work = apart.workdir()
        code = (
            "import time\nfor i in range(10**9): open('/opt/ml/n', 'w').write(str(i)); i or print(1); time.sleep(.01)"
        )
        running = await apart.driver.start(apart.spec(["python3", "-c", code], workdir=work))
        lines = running.lines()
        assert await anext(lines) == b"1"
        running.freeze()
        await asyncio.sleep(0.1)
        before = (work / "n").read_text()
        await asyncio.sleep(0.3)
        held = (work / "n").read_text() == before
        running.thaw()
        until = time.monotonic() + 60
        while (work / "n").read_text() in (before, "") and time.monotonic() < until:
            await asyncio.sleep(0.01)
        moved = (work / "n").read_text() != before
        running.freeze()
        await running.stop(30)  # who is frozen is woken to end
        assert (await running.wait()).signal == signal.SIGTERM
        return held, moved

    assert asyncio.run(story()) == (True, True)


def test_nothing_of_the_machine_is_reached(apart: Cell, tmp_path: Path, refused: Any) -> None:
    work = apart.workdir()
    (work / "link").symlink_to("/root")
    (work / "file").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("the bank's")
    with (
        listening(socket.AF_INET, ("0.0.0.0", 0)) as (address, came),
        listening(socket.AF_UNIX, "\0bastide-abstract-test") as (_, met),
    ):
        told = apart.python(
            attempts(f"""
            import socket
            for host in ("127.0.0.1", "algo-1", "10.0.0.1", "169.254.169.254", "192.0.2.1"):
                attempt(host, lambda: socket.create_connection((host, {address[1]}), 2))
            attempt("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\\0bastide-abstract-test"))
            for family in (40, 38, 29, 30, 31, 44, 9, 4, 3, 15, 5, 26):
                attempt(f"family {{family}}", lambda: socket.socket(family, socket.SOCK_DGRAM))
            attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
            attempt("packet", lambda: socket.socket(17, socket.SOCK_RAW))
            attempt("link", lambda: open("/opt/ml/link/.bashrc"))
            attempt("file", lambda: open("/opt/ml/file").read())
            attempt("root of the first", lambda: os.listdir("/proc/1/root/bundle"))
            attempt("setuid", lambda: os.setuid(0))
            attempt("chown", lambda: os.chown("/opt/ml", 0, 0))
            attempt("mount", lambda: call(165 if os.uname().machine == "x86_64" else 40, b"x", b"/mnt", b"tmpfs", 0, 0))
            attempt("clock", lambda: __import__("time").clock_settime(0, 0))
            attempt("hosts", lambda: open("/etc/hosts", "a"))
            """),
            workdir=work,
        )
        refused(told)
        assert came == [] and met == [] and len(told.lines) == 28


def test_what_the_platform_gave_it_is_hidden_on_the_machine_and_goes_with_it(apart: Cell) -> None:
    async def story() -> None:
        spec = apart.spec(["sh", "-c", "echo up; exec sleep 60"], env={"TOKEN": "jobs-own-token"})
        running = await apart.driver.start(spec)
        lines = running.lines()
        assert await anext(lines) == b"up"
        assert alive("jobs-own-token") == []
        [run] = [
            Path(f"/proc/{one}")
            for one in running._group.processes()
            if Path(f"/proc/{one}/cmdline").read_bytes().startswith(b"/usr/bin/runsc")
        ]
        bundle = run / "root/bundle/config.json"
        assert "jobs-own-token" in bundle.read_text()
        assert (bundle.stat().st_mode & 0o777, bundle.stat().st_uid) == (0o600, running.user)
        assert ((run / "root/bundle").stat().st_mode & 0o777) == 0o700
        assert str(apart.folder) not in Path("/proc/self/mountinfo").read_text()
        # Nobody of them is a user of the machine, or holds a privilege over it.
        for process in running._group.processes():
            status = dict(
                line.split(":\t", 1)
                for line in Path(f"/proc/{process}/status").read_text().splitlines()
                if ":\t" in line
            )
            assert {int(one) for one in status["Uid"].split()} <= {running.user, running.user + 1}
            assert status["NoNewPrivs"] == "1"
            owner = Path(f"/proc/{process}/ns/user").stat().st_ino
            assert owner != Path("/proc/self/ns/user").stat().st_ino
        await running.stop(0)
        assert [line async for line in lines] == [] and not bundle.exists()

    asyncio.run(story())


def test_sockets_that_are_bound_in_are_reached_and_fifos_are_not(apart: Cell, tmp_path: Path) -> None:
    """A server inside that answers on a socket, and one of the machine's that is asked."""
    work, bound = apart.workdir(), tmp_path / "sockets"
    bound.mkdir()
    os.mkfifo(work / "stream")

    async def story() -> None:
        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"from outside")
            writer.close()

        outside = await asyncio.start_unix_server(greet, str(bound / "outside"))
        (bound / "outside").chmod(0o666)
        code = """if True:
        import socket
        one = socket.socket(socket.AF_UNIX); one.connect("/run/s/outside"); print(one.recv(100).decode())
        try:
            open("/opt/ml/stream")
        except OSError:
            print("refused")
        two = socket.socket(socket.AF_UNIX); two.bind("/run/s/inside"); two.listen(); print("listening", flush=True)
        come, _ = two.accept(); come.sendall(come.recv(100).upper())
        """
        running = await apart.driver.start(
            apart.spec(["python3", "-c", code], workdir=work, writable=[(bound, "/run/s")])
        )
        lines = running.lines()
        assert [await anext(lines) for _ in range(3)] == [b"from outside", b"refused", b"listening"]
        reader, writer = await asyncio.open_unix_connection(str(bound / "inside"))
        writer.write(b"hello")
        assert await reader.read() == b"HELLO"
        writer.close()
        assert (await running.wait()).exit_code == 0
        outside.close()

    asyncio.run(story())


def test_an_image_is_its_root_under_a_layer_in_memory(apart: Cell, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for folder in ("bin", "etc", "home"):
        (root / folder).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(Path("/usr/bin/busybox").read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for name in ("sh", "id", "cat", "ls", "mkdir"):
        (root / "bin" / name).symlink_to("busybox")
    for place in (root, root / "etc", root / "home"):
        place.chmod(0o777)
    image = Container(
        "own",
        "sha256:0",
        (),
        path="/bin",
        root=root,
        user=4711,
        group=4712,
        folder="/home/made",
        files={"etc/x": "laid over"},
    )
    script = 'pwd; id -u; id -g; cat /etc/x; echo mine >/new; cat /new; echo more >>/etc/x; exec "$0" -c "exit 9"'
    spec = dataclasses.replace(apart.spec(["sh", "-c", script]), image=image)

    async def story() -> tuple[list[bytes], Any]:
        running = await apart.driver.start(spec)
        return [line async for line in running.lines()], await running.wait()

    lines, ended = asyncio.run(story())
    assert lines == [b"/home/made", b"4711", b"4712", b"laid overmine"]
    assert ended.exit_code == 9
    assert sorted(one.name for one in root.iterdir()) == ["bin", "etc", "home"] and not list((root / "home").iterdir())


def test_a_part_of_it_that_is_killed_is_no_end_of_the_program(apart: Cell) -> None:
    async def story() -> Any:
        marker = f"part-{os.getpid()}"
        running = await apart.driver.start(apart.spec(["sh", "-c", f"trap '' TERM; echo up; sleep 300; : {marker}"]))
        lines = running.lines()
        await anext(lines)
        [hit] = [
            one
            for one in running._group.processes()
            if Path(f"/proc/{one}/cmdline").read_bytes().startswith(b"runsc-sandbox")
        ]
        os.kill(hit, signal.SIGKILL)
        assert [line async for line in lines] == []
        ended = await asyncio.wait_for(running.wait(), 60)
        assert gone(marker) and list((apart.folder / "run/sandboxes").iterdir()) == []
        return ended

    ended = asyncio.run(story())
    assert (ended.exit_code, ended.signal, ended.oom) == (None, signal.SIGKILL, False)


def test_the_death_of_the_platform_is_the_death_of_its_jobs(apart: Cell, tmp_path: Path) -> None:
    code = PLATFORM.replace("bubblewrap import Bubblewrap", "gvisor import Gvisor").replace("Bubblewrap(", "Gvisor(")
    code = code.replace("work, limits)", "work, limits, untrusted=True)")
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), "m"], stdout=subprocess.PIPE, text=True
    ) as platform:
        try:
            assert platform.stdout is not None
            assert platform.stdout.readline() == "up\n"
            state = tmp_path / "run" / "sandboxes" / "job" / "state.json"
            folders = [Path(one) for one in json.loads(state.read_text()).values()]
            held = {int(one) for folder in folders for one in (folder / "cgroup.procs").read_text().split()}
            assert len(held) > 4
        finally:
            platform.kill()
    assert gone(str(tmp_path / "volumes"))
    assert asyncio.run(Gvisor(tmp_path / "run").recover()) == ["job"]
    assert not any(folder.exists() for folder in folders)
    asyncio.run(Gocryptfs(tmp_path / "volumes").recover())
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def _launcher(folder: Path, change: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "__main__.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(namespaces.__file__).parents[2])!r})\n"
        f"from bastide.jail import gvisor, launcher\n{change}\nlauncher.main()\n"
    )
    return str(folder)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("gvisor.RUNSC = '/usr/bin/no-runsc-here'", "no-runsc-here is not there: apt-get install runsc"),
        ("gvisor.RUNSC = '/bin/false'", "could not be set up"),
        ("gvisor._UNSHARE = '/usr/bin/nothing'", "No such file"),
    ],
)
def test_without_it_nothing_runs(
    apart: Cell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str, why: str
) -> None:
    monkeypatch.setattr(bubblewrap, "LAUNCHER", _launcher(tmp_path / "launcher", change))
    work = apart.workdir()
    with pytest.raises(SandboxError, match=why):
        apart.run(["touch", "/opt/ml/ran"], workdir=work)
    assert not list(work.iterdir()) and list((apart.folder / "run/sandboxes").iterdir()) == []


def test_what_it_cannot_do_is_refused(apart: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SandboxError, match="no GPU"):
        apart.run(["true"], devices=[Path("/dev/null")])
    with pytest.raises(SandboxError, match="kernel of its own"):
        asyncio.run(bubblewrap.Bubblewrap(apart.folder / "other").start(apart.spec(["true"])))
    monkeypatch.setattr(gvisor, "RUNSC", "/usr/bin/no-runsc-here")
    [found] = [one for one in probe() if one.name == "gvisor"]
    assert not found.ok and not found.required and "no-runsc-here" in found.detail and "runsc" in found.remedy

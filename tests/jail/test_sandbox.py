"""What works in a sandbox, and the port's promises: lines, endings, stopping, refusing."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from bastide.engines.sandbox import Limits, SandboxError
from bastide.engines.sandbox.drivers import bubblewrap
from bastide.engines.sandbox.drivers.bubblewrap import Bubblewrap
from bastide.jail import namespaces
from bastide.jail.probe import probe
from tests.jail.conftest import BOTH
from tests.platform import below


def test_forks_threads_and_processes(cell: Any) -> None:
    work = cell.workdir()
    (work / "main.py").write_text(
        "import multiprocessing as mp, os, threading\n"
        "from multiprocessing import shared_memory\n"
        "def square(x): return x * x\n"
        "if __name__ == '__main__':\n"
        "    for way in ('fork', 'spawn', 'forkserver'):\n"
        "        with mp.get_context(way).Pool(2) as pool: print(way, pool.map(square, range(4)))\n"
        "    out = []\n"
        "    ts = [threading.Thread(target=out.append, args=(i,)) for i in range(8)]\n"
        "    [t.start() for t in ts]; [t.join() for t in ts]; print('threads', len(out))\n"
        "    block = shared_memory.SharedMemory(create=True, size=1 << 20); block.buf[0] = 7\n"
        "    print('shared', block.buf[0], os.path.exists('/dev/shm/' + block.name)); block.close(); block.unlink()\n"
        "    pid = os.fork()\n"
        "    if pid == 0: os._exit(3)\n"
        "    print('fork', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    told = cell.run(["python3", "/opt/ml/main.py"], workdir=work)
    squares = "[0, 1, 4, 9]"
    assert told.lines == [
        f"fork {squares}",
        f"spawn {squares}",
        f"forkserver {squares}",
        "threads 8",
        "shared 7 True",
        "fork 3",
    ]


def test_scikit_learn_and_joblib(cell: Any) -> None:
    work = cell.workdir()
    (work / "main.py").write_text(
        "import sys, joblib, numpy as np\n"
        "from sklearn.linear_model import LogisticRegression\n"
        "from sklearn.ensemble import RandomForestClassifier\n"
        "x = np.random.default_rng(1).normal(size=(400, 5)); y = (x[:, 0] + x[:, 1] > 0).astype(int)\n"
        "print(LogisticRegression().fit(x, y).score(x, y) > 0.9)\n"
        "print(RandomForestClassifier(10, n_jobs=2, random_state=1).fit(x, y).score(x, y) > 0.9)\n"
        "print(joblib.Parallel(n_jobs=2)(joblib.delayed(pow)(i, 2) for i in range(4)))\n"
        "joblib.dump([1], '/opt/ml/model.joblib'); print(joblib.cpu_count(), sys.executable)\n"
    )
    told = cell.run(
        ["python3", "/opt/ml/main.py"],
        workdir=work,
        limits=Limits(memory_bytes=1 << 30, cpus=2.0, processes=128),
    )
    assert told.lines == ["True", "True", "[0, 1, 4, 9]", "2 /opt/environment/bin/python3"], told.text
    assert (work / "model.joblib").stat().st_uid >= 1_900_000_000


def test_it_can_write_where_it_should(cell: Any) -> None:
    work = cell.workdir()
    (work / "input").mkdir()
    (work / "input" / "data").write_text("given")
    (work / "input" / "data").chmod(0o600)
    told = cell.run(
        [
            "sh",
            "-c",
            "cat input/data && mkdir -p model && echo made > model/x && echo t > /tmp/t && echo s > /dev/shm/s",
        ],
        workdir=work,
    )
    assert told.lines == ["given"]
    assert (work / "model" / "x").read_text() == "made\n"


@BOTH
def test_binds_are_where_they_were_asked_for(cell: Any, tmp_path: Path) -> None:
    given, taken = tmp_path / "given", tmp_path / "taken"
    for folder in (given, taken):
        folder.mkdir()
    (given / "x").write_text("read me\n")
    tmp_path.chmod(0o700)  # sources may lie where only root can go
    told = cell.run(
        ["sh", "-c", "cat /opt/ml/input/data/train/x; echo y > /run/bastide/y; echo no > /opt/ml/input/data/train/z"],
        readonly=[(given, "/opt/ml/input/data/train")],
        writable=[(taken, "/run/bastide")],
    )
    assert told.lines[0] == "read me"
    assert "Read-only file system" in told.lines[1] or "Permission denied" in told.lines[1]
    assert (taken / "y").read_text() == "y\n"
    assert not (given / "z").exists()
    assert given.stat().st_uid == 0


def test_output_and_errors_keep_their_order(cell: Any) -> None:
    told = cell.run(["sh", "-c", "for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf last"])
    assert told.lines == ["out 1", "err 1", "out 2", "err 2", "out 3", "err 3", "last"]


@BOTH
def test_a_long_line_comes_in_pieces(cell: Any) -> None:
    told = cell.python("print('a' * 600_000); print('b')")
    assert [len(line) for line in told.lines] == [262_144, 262_144, 600_000 - 2 * 262_144, 1]


async def _stands(place: Path) -> int:
    """A file's number, once it has not changed for half a second."""
    seen = ""
    async with asyncio.timeout(60):
        while True:
            now = place.read_text() if place.exists() else ""
            if now and now == seen:
                return int(now)
            seen = now
            await asyncio.sleep(0.5)


def test_a_reader_that_waits_holds_the_job_up(cell: Any) -> None:
    async def story() -> tuple[int, int]:
        work = cell.workdir()
        code = "import pathlib\nfor i in range(400):\n print('x' * 9999)\n pathlib.Path('/opt/ml/n').write_text(str(i))"
        running = await cell.driver.start(cell.spec(["python3", "-c", code], workdir=work))
        held_at = await _stands(work / "n")
        count = 0
        async for _ in running.lines():
            count += 1
        await running.wait()
        return held_at, count

    held_at, count = asyncio.run(story())
    assert held_at < 200
    assert count == 400


@pytest.mark.parametrize(
    ("command", "code", "number"),
    [
        (["true"], 0, None),
        (["sh", "-c", "exit 3"], 3, None),
        (["sh", "-c", "kill -TERM $$"], 143, 15),
        (["sh", "-c", "kill -KILL $$"], 137, 9),
        (["there-is-no-such-program"], 127, None),
        (["/opt/ml"], 126, None),
    ],
)
def test_endings(cell: Any, command: list[str], code: int, number: int | None) -> None:
    ended = cell.run(command).ended
    assert (ended.exit_code, ended.signal, ended.oom) == (code, number, False)
    assert ended.cpu_seconds is not None
    assert 0 < ended.cpu_seconds < ended.seconds + 0.1
    assert ended.peak_bytes


@BOTH
def test_stopping_reaches_every_process_and_waits_for_them(cell: Any) -> None:
    async def story() -> tuple[list[bytes], Any, float]:
        code = (
            "sh -c \"trap 'echo child saved; exit 0' TERM; echo up; while :; do sleep 0.05; done\" & "
            "trap 'wait; echo parent saved; exit 0' TERM; echo up; while :; do sleep 0.05; done"
        )
        running = await cell.driver.start(cell.spec(["sh", "-c", code]))
        lines = running.lines()
        seen = [await anext(lines), await anext(lines)]
        began = time.monotonic()
        stopping = asyncio.create_task(running.stop(300))
        seen += [line async for line in lines]
        await stopping
        return seen, await running.wait(), time.monotonic() - began

    seen, ended, seconds = asyncio.run(story())
    assert seen[:2] == [b"up", b"up"]
    assert set(seen[2:]) >= {b"child saved", b"parent saved"}
    assert ended.exit_code == 0
    assert seconds < 250, "it does not wait for the whole grace"


@BOTH
def test_who_ignores_stopping_is_killed_after_the_grace(cell: Any) -> None:
    async def story() -> tuple[Any, float]:
        running = await cell.driver.start(cell.spec(["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"]))
        lines = running.lines()
        await anext(lines)
        began = time.monotonic()
        await running.stop(0.3)
        seconds = time.monotonic() - began
        assert [line async for line in lines] == []
        await running.stop(0.3)  # again does no harm
        return await running.wait(), seconds

    ended, seconds = asyncio.run(story())
    assert (ended.exit_code, ended.signal) == (None, signal.SIGKILL)
    assert 0.25 < seconds < 60


def test_nothing_is_left_afterwards(cell: Any) -> None:
    cell.run(["true"])
    assert list((cell.folder / "run" / "sandboxes").iterdir()) == []
    mark = cell.driver._mark
    assert not [one for one in below(Path("/sys/fs/cgroup")) if mark in one.name]
    assert str(cell.folder) not in Path("/proc/self/mountinfo").read_text()


def test_it_fails_closed_when_a_source_is_missing(cell: Any, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    with pytest.raises(SandboxError, match="No such file"):
        cell.run(["touch", "/opt/ml/ran"], readonly=[(tmp_path / "missing", "/data")])
    assert not marker.exists()
    assert list((cell.folder / "run" / "sandboxes").iterdir()) == []
    assert cell.run(["echo", "still"]).lines == ["still"]


def test_it_fails_closed_without_bubblewrap(cell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher whose bubblewrap does not work: the message says so, and nothing ran."""
    folder = tmp_path / "launcher"
    folder.mkdir()
    (folder / "__main__.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(namespaces.__file__).parents[2])!r})\n"
        "from bastide.jail import launcher\nlauncher._BWRAP = '/usr/bin/no-bwrap-here'\nlauncher.main()\n"
    )
    monkeypatch.setattr(bubblewrap, "LAUNCHER", str(folder))
    with pytest.raises(SandboxError, match=r"could not be set up.*No such file"):
        cell.run(["true"])
    (folder / "__main__.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(namespaces.__file__).parents[2])!r})\n"
        "from bastide.jail import launcher\nlauncher._BWRAP = '/bin/false'\nlauncher.main()\n"
    )
    with pytest.raises(SandboxError, match="could not be set up"):
        cell.run(["true"])


def test_a_source_that_is_a_link_is_refused(cell: Any, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(SandboxError):
        cell.run(["true"], readonly=[(tmp_path / "link", "/data")])


@pytest.mark.parametrize("target", ["relative", "/", "/a/../b", "/a//b", "/a/."])
def test_a_crooked_path_inside_is_refused(cell: Any, tmp_path: Path, target: str) -> None:
    with pytest.raises(SandboxError, match="absolute and plain"):
        cell.run(["true"], readonly=[(tmp_path, target)])


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../x"},
        {"name": ""},
        {"command": []},
        {"env": {"A=B": "c"}},
        {"env": {"A": "b\0c"}},
        {"command": ["a\0b"]},
        {"hostname": "a b"},
        {"limits": Limits(0, 1.0)},
        {"limits": Limits(1 << 20, 0.0)},
    ],
)
def test_what_is_not_legal_is_refused_before_anything_starts(cell: Any, change: dict[str, Any]) -> None:
    async def story() -> None:
        with pytest.raises(ValueError):
            await cell.driver.start(dataclasses.replace(cell.spec(["true"]), **change))

    asyncio.run(story())
    assert not (cell.folder / "run").exists()


def test_a_name_is_taken_once(cell: Any) -> None:
    async def story() -> None:
        spec = cell.spec(["sleep", "30"])
        running = await cell.driver.start(spec)
        with pytest.raises(ValueError, match="is running"):
            await cell.driver.start(spec)
        await running.stop(0)
        async for _ in running.lines():
            pass
        again = await cell.driver.start(spec)
        await again.stop(0)
        async for _ in again.lines():
            pass

    asyncio.run(story())


def test_many_at_once(cell: Any) -> None:
    async def one(number: int) -> tuple[list[bytes], int]:
        running = await cell.driver.start(cell.spec(["echo", str(number)]))
        lines = [line async for line in running.lines()]
        assert (await running.wait()).exit_code == 0
        return lines, running.user

    async def story() -> list[tuple[list[bytes], int]]:
        return await asyncio.gather(*(one(n) for n in range(8)))

    results = asyncio.run(story())
    assert [lines for lines, _ in results] == [[str(n).encode()] for n in range(8)]
    assert len({user for _, user in results}) == 8


@BOTH
def test_giving_up_a_start_leaves_nothing(cell: Any) -> None:
    async def story() -> None:
        given_up = 0
        for wait in (0.0, 0.005, 0.02):
            start = asyncio.create_task(cell.driver.start(cell.spec(["sleep", "300"])))
            await asyncio.sleep(wait)
            start.cancel()
            [told] = await asyncio.gather(start, return_exceptions=True)
            if isinstance(told, asyncio.CancelledError):
                given_up += 1
            else:  # a machine that stood still in between has started it
                await told.stop(0)
        assert given_up, "the first is given up as soon as it began"

    asyncio.run(story())
    assert list((cell.folder / "run" / "sandboxes").iterdir()) == []


def test_two_platforms_do_not_share_users(tmp_path: Path) -> None:
    first, second = Bubblewrap(tmp_path / "a"), Bubblewrap(tmp_path / "b")
    assert first._first_user != second._first_user


def test_dropping_to_root_is_refused() -> None:
    with pytest.raises(PermissionError):
        namespaces.drop_to(0, 0)


def test_the_probe_finds_this_machine_fit() -> None:
    found = {f.name: f for f in probe()}
    names = {
        "privileges",
        "seccomp",
        "bwrap",
        "gocryptfs",
        "fusermount3",
        "fuse",
        "cgroups",
        "sandbox",
        "networks",
        "tunnels",
        "containers",
        "gvisor",
        "gpu",
    }
    assert found.keys() == names
    assert [f for f in found.values() if f.required and not f.ok] == []
    assert all(f.remedy and f.detail for f in found.values())


def test_the_probe_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {f.name: f for f in probe()}
    assert not found["bwrap"].ok
    assert found["bwrap"].remedy == "apt-get install bubblewrap"
    assert not found["gocryptfs"].ok
    assert not found["sandbox"].ok
    assert os.environ["PATH"] == str(tmp_path)

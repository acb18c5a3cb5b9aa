"""Local files: nobody else's file is touched, a full disk leaves nothing, what is written together fails alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bastide.engines.artifacts import CHUNK
from bastide.engines.artifacts.drivers.files import LocalFiles

KEY = b"k" * 32


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_small_ones_at_once(tmp_path: Path) -> None:
    artifacts = LocalFiles(tmp_path / "o")

    async def story() -> None:
        told = await asyncio.gather(*[artifacts.write_small(b"%d" % number, KEY) for number in range(200)])
        assert len({one.id for one in told}) == 200
        assert [await artifacts.read(one.id, KEY) for one in told] == [b"%d" % number for number in range(200)]
        # One whose folder has gone fails alone, and the others beside it do not.
        missing, other = [name for name in ("ab", "ac", "ad") if name != artifacts._folder][:2]
        (tmp_path / "o" / missing).rmdir()
        ids = iter([missing + "0" * 30, other + "0" * 30])
        artifacts._new_id = lambda: next(ids)
        gone, fine = await asyncio.gather(
            artifacts.write_small(b"a", KEY), artifacts.write_small(b"b", KEY), return_exceptions=True
        )
        assert isinstance(gone, FileNotFoundError)
        assert not isinstance(fine, BaseException)
        assert await artifacts.read(fine.id, KEY) == b"b"

    asyncio.run(story())
    artifacts.close()


@settings(max_examples=30, deadline=None)
@given(wait=st.floats(0, 0.02), small=st.booleans())
def test_a_cancelled_writer_leaves_nothing_and_touches_nobody_elses_file(
    tmp_path_factory: pytest.TempPathFactory, wait: float, small: bool
) -> None:
    folder = tmp_path_factory.mktemp("cancelled")
    artifacts = LocalFiles(folder / "o")

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 2 * CHUNK
            await asyncio.sleep(0)

    async def story() -> None:
        if small:
            tasks: list[asyncio.Task[object]] = [
                asyncio.ensure_future(artifacts.write_small(b"x" * 500, KEY)) for _ in range(5)
            ]
        else:
            tasks = [asyncio.ensure_future(artifacts.write(endless(), KEY))]
        await asyncio.sleep(wait)
        done = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        # The numbers of descriptors that were let go of are taken at once: nothing of ours may still write to them.
        await asyncio.gather(*tasks, return_exceptions=True)
        others = [(folder / str(number)).open("wb") for number in range(8)]
        await asyncio.sleep(0.005)
        for other in others:
            other.close()
        assert [(folder / str(number)).stat().st_size for number in range(8)] == [0] * 8
        assert len(files(folder / "o")) == len(done)

    asyncio.run(story())
    artifacts.close()


def test_a_disk_that_takes_no_more_leaves_nothing(tmp_path: Path) -> None:
    program = f"""
import asyncio, resource, signal
from pathlib import Path
from bastide.engines.artifacts.drivers.files import LocalFiles
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
async def much():
    for _ in range(100):
        yield b"x" * 300_000
try:
    asyncio.run(LocalFiles(Path({str(tmp_path / "o")!r})).write(much(), b"k" * 32))
except OSError as error:
    print(error.strerror)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "File too large\n"
    assert files(tmp_path / "o") == []


def test_what_a_killed_process_was_told_is_there(tmp_path: Path) -> None:
    program = f"""
import asyncio
from pathlib import Path
from bastide.engines.artifacts.drivers.files import LocalFiles
artifacts = LocalFiles(Path({str(tmp_path / "o")!r}))
async def one(number):
    while True:
        written = await artifacts.write_small(b"%d" % number * 1000, b"k" * 32)
        print(written.id, number, flush=True)
async def all():
    await asyncio.gather(*map(one, range(4)))
asyncio.run(all())
"""
    running = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    told = [running.stdout.readline() for _ in range(100)]
    running.kill()
    told += running.stdout.read().splitlines(keepends=True)
    running.wait()
    running.stdout.close()
    named = dict(line.split() for line in told if line.endswith("\n"))
    artifacts = LocalFiles(tmp_path / "o")

    async def story() -> None:
        await artifacts.sweep(named.__contains__)
        for id, number in named.items():
            assert await artifacts.read(id, KEY) == number.encode() * 1000

    asyncio.run(story())
    assert len(files(tmp_path / "o")) == len(named)

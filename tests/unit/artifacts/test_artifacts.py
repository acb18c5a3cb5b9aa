"""What was written is read, whatever the range; what was changed is an error; what was not finished is nothing."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bastide.engines.artifacts import Artifacts, Damaged
from bastide.engines.artifacts.files import CHUNK, SMALL

KEY = b"k" * 32


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return Artifacts(tmp_path_factory.mktemp("objects"))


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def content(size: int) -> bytes:
    return bytes(number * 7 % 251 for number in range(997)) * (size // 997) + b"z" * (size % 997)


sizes = st.one_of(
    st.integers(0, 300), st.sampled_from([CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * CHUNK + 17, 9 * CHUNK])
)


@settings(max_examples=40)
@given(
    size=sizes,
    piece=st.sampled_from([1000, 65536, CHUNK * 3]),
    start=st.integers(0, 9 * CHUNK),
    length=st.integers(0, 3 * CHUNK),
)
def test_ranges(artifacts: Artifacts, size: int, piece: int, start: int, length: int) -> None:
    data = content(size)

    async def story() -> None:
        written = await artifacts.write(pieces(data, piece), KEY)
        assert written.size == size
        assert await artifacts.read(written.id, KEY) == data
        if start < size:
            assert await artifacts.read(written.id, KEY, start, start + length) == data[start : start + length]
        await artifacts.delete(written.id)

    asyncio.run(story())


@settings(max_examples=30)
@given(size=st.sampled_from([1, 500, CHUNK + 3, 3 * CHUNK]), place=st.floats(0, 0.999), small=st.booleans())
def test_a_flipped_bit_is_an_error(artifacts: Artifacts, size: int, place: float, small: bool) -> None:
    async def story() -> None:
        data = content(size)
        small_one = small and size <= 500
        written = await (artifacts.write_small(data, KEY) if small_one else artifacts.write(pieces(data, 50_000), KEY))
        path = artifacts._path(written.id)
        raw = bytearray(path.read_bytes())
        assert data[:20] not in bytes(raw) or size < 20
        raw[int(place * len(raw))] ^= 4
        path.write_bytes(raw)
        with pytest.raises(Damaged):
            await artifacts.read(written.id, KEY)
        await artifacts.delete(written.id)

    asyncio.run(story())


def test_cut_exchanged_and_moved_files_are_errors(artifacts: Artifacts) -> None:
    async def story() -> None:
        first = await artifacts.write(pieces(content(3 * CHUNK), CHUNK), KEY)
        second = await artifacts.write(pieces(content(3 * CHUNK), CHUNK), KEY)
        one, two = artifacts._path(first.id), artifacts._path(second.id)
        whole = one.read_bytes()
        sealed = CHUNK + 16
        for changed in (
            whole[:-sealed],
            whole[:-1],
            whole[sealed:],
            whole[sealed : 2 * sealed] + whole[:sealed] + whole[2 * sealed :],
            two.read_bytes(),
            b"",
        ):
            one.write_bytes(changed)
            with pytest.raises(Damaged):
                await artifacts.read(first.id, KEY)
        one.write_bytes(whole)
        with pytest.raises(Damaged):
            await artifacts.read(first.id, b"x" * 32)

    asyncio.run(story())


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "o")

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (6 * CHUNK)
        raise ConnectionError("the client is gone")

    async def story() -> None:
        with pytest.raises(ConnectionError):
            await artifacts.write(broken(), KEY)

    asyncio.run(story())
    assert [path for path in (tmp_path / "o").rglob("*") if path.is_file()] == []


def test_a_killed_writer_leaves_nothing_that_a_sweep_does_not_remove(tmp_path: Path) -> None:
    program = f"""
import asyncio
import hashlib
from pathlib import Path
from bastide.engines.artifacts import Artifacts
async def slow():
    while True:
        yield b"x" * 300_000
        print("going", flush=True)
        await asyncio.sleep(0.01)
asyncio.run(Artifacts(Path({str(tmp_path / "o")!r})).write(slow(), b"k" * 32))
"""
    running = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert running.stdout is not None
    for _ in range(6):
        running.stdout.readline()
    running.send_signal(signal.SIGKILL)
    running.wait()
    running.stdout.close()
    time.sleep(0.05)
    left = [path for path in (tmp_path / "o").rglob("*") if path.is_file()]
    assert [path.parent.name for path in left] == ["drafts"]
    artifacts = Artifacts(tmp_path / "o")
    assert artifacts.sweep(lambda _: False) == 1
    assert [path for path in (tmp_path / "o").rglob("*") if path.is_file()] == []


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1])
def test_the_edges_of_a_range(artifacts: Artifacts, size: int) -> None:
    async def story() -> None:
        data = content(size)
        id = (await artifacts.write(pieces(data, 10_000), KEY)).id
        for start, end in ((size, None), (size + 5, None), (0, 0), (0, size + 100), (1, 0), (max(0, size - 1), size)):
            wanted = data[start:end]
            assert await artifacts.read(id, KEY, start, end) == wanted
            assert b"".join([piece async for piece in artifacts.open(id, KEY, start, end)]) == wanted
        with pytest.raises(ValueError):
            await artifacts.read(id, KEY, -1)

    asyncio.run(story())


def test_a_data_key_given_twice_meets_no_nonce_twice(artifacts: Artifacts) -> None:
    async def story() -> None:
        one, two = [await artifacts.write_small(b"the same words", KEY) for _ in range(2)]
        assert artifacts._path(one.id).read_bytes() != artifacts._path(two.id).read_bytes()
        with pytest.raises(ValueError):
            await artifacts.write_small(b"", b"short")
        with pytest.raises(ValueError):
            await artifacts.write_small(b"x" * (SMALL + 1), KEY)
        for id in ("../../etc/passwd", "", "A" * 32, one.id + "0"):
            with pytest.raises(ValueError):
                await artifacts.read(id, KEY)

    asyncio.run(story())


def test_small_ones_at_once(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "o")

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
    artifacts = Artifacts(folder / "o")

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
from bastide.engines.artifacts import Artifacts
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
async def much():
    for _ in range(100):
        yield b"x" * 300_000
try:
    asyncio.run(Artifacts(Path({str(tmp_path / "o")!r})).write(much(), b"k" * 32))
except OSError as error:
    print(error.strerror)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "File too large\n"
    assert files(tmp_path / "o") == []


def test_what_a_killed_process_was_told_is_there(tmp_path: Path) -> None:
    program = f"""
import asyncio
import hashlib
from pathlib import Path
from bastide.engines.artifacts import Artifacts
artifacts = Artifacts(Path({str(tmp_path / "o")!r}))
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
    artifacts = Artifacts(tmp_path / "o")
    artifacts.sweep(named.__contains__)

    async def story() -> None:
        for id, number in named.items():
            assert await artifacts.read(id, KEY) == number.encode() * 1000

    asyncio.run(story())
    assert len(files(tmp_path / "o")) == len(named)


@pytest.mark.parametrize("digest", ["md5", "sha256", ""])
@pytest.mark.parametrize("size", [0, 300, CHUNK, 5 * CHUNK + 17])
def test_the_digest_is_the_one_that_was_asked_for(artifacts: Artifacts, size: int, digest: str) -> None:
    data = content(size)
    wanted = hashlib.new(digest, data, usedforsecurity=False).hexdigest() if digest else ""

    async def story() -> None:
        # Pieces larger than a batch, too: what is encrypted in place of the last batch must not lose any of it.
        for piece in (10_000, 3 * CHUNK + 1):
            written = await artifacts.write(pieces(data, piece), KEY, digest=digest)
            assert (written.size, written.digest) == (size, wanted)
            assert await artifacts.read(written.id, KEY) == data
        if size <= SMALL:
            assert (await artifacts.write_small(data, KEY, digest=digest)).digest == wanted

    asyncio.run(story())

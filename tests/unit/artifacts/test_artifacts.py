"""What was written is read, whatever the range; what was changed is an error; what was not finished is nothing."""

from __future__ import annotations

import asyncio
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
from bastide.engines.artifacts.files import CHUNK

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

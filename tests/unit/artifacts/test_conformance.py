"""Whatever keeps bytes: what was written is read, whatever the range; what was changed is an error; what was not finished
is nothing."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bastide.engines.artifacts import CHUNK, SMALL, Artifacts, Damaged, deletions_held
from tests.unit.artifacts.conftest import Kept

KEY = b"k" * 32
PART = 8 * 1024 * 1024
"""What an S3-compatible store is sent at once, of plaintext."""


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def content(size: int) -> bytes:
    return bytes(number * 7 % 251 for number in range(997)) * (size // 997) + b"z" * (size % 997)


@settings(max_examples=20)
@given(
    size=st.one_of(st.integers(0, 300), st.sampled_from([CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 17, 9 * CHUNK])),
    piece=st.sampled_from([1000, 65536, CHUNK * 3]),
    start=st.integers(0, 9 * CHUNK),
    length=st.integers(0, 3 * CHUNK),
)
def test_ranges(artifacts: Artifacts, size: int, piece: int, start: int, length: int) -> None:
    data = content(size)

    async def story() -> None:
        written = await artifacts.write(pieces(data, piece), KEY)
        assert (written.size, written.digest) == (size, hashlib.md5(data).hexdigest())
        assert await artifacts.read(written.id, KEY) == data
        assert await artifacts.read(written.id, KEY, start, start + length) == data[start : start + length]
        await artifacts.delete(written.id)
        with pytest.raises(FileNotFoundError):
            await artifacts.read(written.id, KEY)

    asyncio.run(story())


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
        for wrong in ("../../etc/passwd", "", "A" * 32, id + "0"):
            with pytest.raises(ValueError):
                await artifacts.read(wrong, KEY)
            with pytest.raises(ValueError):
                await artifacts.delete(wrong)
        with pytest.raises(ValueError):
            await artifacts.write_small(b"", b"short")
        with pytest.raises(ValueError):
            await artifacts.write_small(b"x" * (SMALL + 1), KEY)

    asyncio.run(story())


@pytest.mark.parametrize("size", [PART - 1, PART, PART + 1, 2 * PART + 3 * CHUNK + 5])
def test_sizes_about_those_of_parts(artifacts: Artifacts, kept: Kept, size: int) -> None:
    async def story() -> None:
        data = os.urandom(size)
        written = await artifacts.write(pieces(data), KEY)
        assert await artifacts.read(written.id, KEY) == data
        for start in (0, PART - 10, size - 10):
            assert await artifacts.read(written.id, KEY, start, start + 20) == data[start : start + 20]
        assert len(kept.raw(written.id)) == size + 16 * -(-size // CHUNK)

    asyncio.run(story())
    assert kept.unfinished() == 0


def test_whoever_owns_the_disk_or_the_store_learns_nothing(artifacts: Artifacts, kept: Kept) -> None:
    async def story() -> list[str]:
        word = b"the same words " * 30
        small = [await artifacts.write_small(word, KEY) for _ in range(2)]
        large = await artifacts.write(pieces(word * 2000), KEY)
        return [one.id for one in (*small, large)]

    ids = asyncio.run(story())
    raw = [kept.raw(id) for id in ids]
    assert raw[0] != raw[1], "a data key given twice meets no nonce twice"
    assert all(b"same words" not in one and KEY not in one for one in raw)
    assert all(len(name) == 32 and set(name) <= set("0123456789abcdef") for name in kept.names())


@settings(max_examples=15)
@given(size=st.sampled_from([1, 500, CHUNK + 3, 3 * CHUNK]), place=st.floats(0, 0.999), small=st.booleans())
def test_a_flipped_bit_is_an_error(artifacts: Artifacts, kept: Kept, size: int, place: float, small: bool) -> None:
    async def story() -> None:
        data = content(size)
        small_one = small and size <= 500
        written = await (artifacts.write_small(data, KEY) if small_one else artifacts.write(pieces(data, 50_000), KEY))
        raw = bytearray(kept.raw(written.id))
        raw[int(place * len(raw))] ^= 4
        kept.put(written.id, bytes(raw))
        with pytest.raises(Damaged):
            await artifacts.read(written.id, KEY)
        await artifacts.delete(written.id)

    asyncio.run(story())


def test_cut_exchanged_and_moved_chunks_are_errors(artifacts: Artifacts, kept: Kept) -> None:
    async def story() -> None:
        first = await artifacts.write(pieces(content(3 * CHUNK)), KEY)
        second = await artifacts.write(pieces(content(3 * CHUNK)), KEY)
        whole, sealed = kept.raw(first.id), CHUNK + 16
        for changed in (
            whole[:-sealed],
            whole[:-1],
            whole[sealed:],
            whole[sealed : 2 * sealed] + whole[:sealed] + whole[2 * sealed :],
            whole + b"x",
            kept.raw(second.id),
            b"",
        ):
            kept.put(first.id, changed)
            with pytest.raises(Damaged):
                await artifacts.read(first.id, KEY)
        kept.put(first.id, whole)
        with pytest.raises(Damaged):
            await artifacts.read(first.id, b"x" * 32)

    asyncio.run(story())


@pytest.mark.parametrize("size", [6 * CHUNK, 3 * PART])
def test_a_writer_that_fails_leaves_nothing(kept: Kept, size: int) -> None:
    artifacts = kept.make()
    before = kept.names()

    async def broken() -> AsyncIterator[bytes]:
        async for piece in pieces(b"x" * size):
            yield piece
        raise ConnectionError("the client is gone")

    async def story() -> None:
        with pytest.raises(ConnectionError):
            await artifacts.write(broken(), KEY)

    asyncio.run(story())
    artifacts.close()
    assert (kept.names(), kept.unfinished()) == (before, 0)


@pytest.mark.parametrize("kept", ["files", "seaweedfs"], indirect=True)
@settings(max_examples=4)
@given(wait=st.floats(0, 0.5))
def test_a_cancelled_writer_leaves_nothing(kept: Kept, wait: float) -> None:
    artifacts = kept.make()
    before = kept.names()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 4 * CHUNK
            await asyncio.sleep(0)

    async def story() -> None:
        task = asyncio.ensure_future(artifacts.write(endless(), KEY))
        await asyncio.sleep(wait)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())
    artifacts.close()
    assert (kept.names(), kept.unfinished()) == (before, 0)


def test_many_at_once(artifacts: Artifacts) -> None:
    async def story() -> None:
        told = await asyncio.gather(
            *[artifacts.write_small(b"%d" % number, KEY) for number in range(60)],
            *[artifacts.write(pieces(b"%d" % number * 300_000), KEY) for number in range(4)],
        )
        assert len({one.id for one in told}) == 64
        found = await asyncio.gather(*[artifacts.read(one.id, KEY) for one in told])
        assert found == [b"%d" % number for number in range(60)] + [b"%d" % number * 300_000 for number in range(4)]

    asyncio.run(story())


def test_what_is_deleted_while_it_is_read_is_read_to_its_end(kept: Kept) -> None:
    artifacts = kept.make()
    data = os.urandom(20 * CHUNK)

    async def story() -> str:
        id = (await artifacts.write(pieces(data), KEY)).id
        stream = artifacts.open(id, KEY)
        found = await anext(stream)
        await artifacts.delete(id)
        found += b"".join([piece async for piece in stream])
        assert found == data
        return id

    id = asyncio.run(story())
    artifacts.close()
    assert id not in kept.names()


def test_what_is_deleted_during_a_backup_goes_afterwards(kept: Kept) -> None:
    artifacts = kept.make()

    async def story() -> None:
        one, other = [(await artifacts.write_small(b"x", KEY)).id for _ in range(2)]
        with deletions_held(kept.root):
            await artifacts.delete(one)
            assert await artifacts.sweep(lambda _: False) == 0
            assert await artifacts.read(one, KEY) == b"x"
        await artifacts.delete(other)
        assert not {one, other} & kept.names()

    asyncio.run(story())
    artifacts.close()


def test_a_killed_writer_leaves_nothing_that_a_sweep_does_not_remove(kept: Kept) -> None:
    """Killed with objects acknowledged, and one half way; the next start finds the former and removes the latter."""
    program = f"""
import asyncio
{kept.making}
async def slow():
    for number in range(10_000):
        yield b"x" * 1_000_000
        print("going", number, flush=True)
async def all():
    for number in range(3):
        written = await artifacts.write_small(b"%d" % number, b"k" * 32)
        print("named", written.id, flush=True)
    await artifacts.write(slow(), b"k" * 32)
asyncio.run(all())
"""
    running = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    named = []
    for line in running.stdout:
        if line.startswith("named"):
            named.append(line.split()[1])
        if line == "going 30\n":
            break
    running.send_signal(signal.SIGKILL)
    running.wait()
    running.stdout.close()
    assert kept.unfinished() == 1
    artifacts = kept.make()
    others = kept.names() - set(named)

    async def story() -> None:
        assert await artifacts.sweep(named[:2].__contains__) == 2 + len(others)
        assert [await artifacts.read(id, KEY) for id in named[:2]] == [b"0", b"1"]
        with pytest.raises(FileNotFoundError):
            await artifacts.read(named[2], KEY)
        assert (kept.names(), kept.unfinished()) == (set(named[:2]), 0)
        # What nobody wrote is nobody's to remove.
        assert await artifacts.sweep(named[:2].__contains__) == 0

    asyncio.run(story())
    artifacts.close()


@pytest.mark.parametrize("kept", ["files", "seaweedfs"], indirect=True)
def test_what_is_large_takes_no_more_memory(kept: Kept) -> None:
    """A stream of 100 MiB goes in and out in a process whose memory grows by a small part of it."""
    program = f"""
import asyncio, resource
{kept.making}
async def stream(count):
    for _ in range(count):
        yield b"x" * 1_048_576
async def once(count):
    written = await artifacts.write(stream(count), b"k" * 32)
    size = 0
    async for piece in artifacts.open(written.id, b"k" * 32):
        size += len(piece)
    assert size == written.size == count * 1_048_576
    await artifacts.delete(written.id)
async def all():
    await once(24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await once(100)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
asyncio.run(all())
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert int(told.stdout) < 30, f"{told.stdout} MiB more"
    assert kept.unfinished() == 0


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

"""Laws of inputs: shares, orders, records, and paths that lead nowhere else."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.services.sagemaker import pipes
from bastide.services.sagemaker.archive import opened
from bastide.services.sagemaker.channels import Content, Item, Source


async def pieces(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def whole(stream: AsyncIterator[bytes]) -> bytes:
    async def read() -> bytes:
        return b"".join([piece async for piece in stream])

    return asyncio.run(read())


def content_of(count: int, *, sharded: bool, seed: int | None) -> Content:
    source = Source("c", "b", "k", "t", sharded=sharded, seed=seed)
    return Content(source, [Item("b", f"k{number}", "", 1) for number in range(count)])


@given(st.integers(0, 50), st.integers(1, 8), st.one_of(st.none(), st.integers(0, 9)), st.integers(0, 5))
def test_shards_of_an_epoch_are_all_of_it_and_no_object_twice(
    count: int, hosts: int, seed: int | None, epoch: int
) -> None:
    content = content_of(count, sharded=True, seed=seed)
    shares = [content.share(host, hosts, epoch) for host in range(hosts)]
    keys = sorted(one.key for share in shares for one in share)
    assert keys == sorted(one.key for one in content.items)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(0, 50), st.integers(0, 9), st.integers(0, 5))
def test_whole_copies_have_the_same_order_on_every_host(count: int, seed: int, epoch: int) -> None:
    content = content_of(count, sharded=False, seed=seed)
    assert content.share(0, 3, epoch) == content.share(2, 3, epoch)


@given(st.binary(max_size=200), st.integers(1, 64))
def test_a_record_holds_what_was_put_in_also_in_parts(content: bytes, size: int) -> None:
    longest = pipes._LONGEST_PART
    pipes._LONGEST_PART = 32  # type: ignore[misc]
    try:
        packed = whole(pipes.recordio(pieces(content, size), len(content)))
    finally:
        pipes._LONGEST_PART = longest  # type: ignore[misc]
    found, flags = b"", []
    while packed:
        assert packed[:4] == (0xCED7230A).to_bytes(4, "little")
        head = int.from_bytes(packed[4:8], "little")
        length = head & (1 << 29) - 1
        flags.append(head >> 29)
        found += packed[8 : 8 + length]
        packed = packed[8 + length + -length % 4 :]
    assert found == content
    assert flags == ([0] if len(flags) == 1 else [1, *[2] * (len(flags) - 2), 3])


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=4), st.integers(1, 50))
def test_gzip_members_are_unpacked_wherever_pieces_are_cut(members: list[bytes], size: int) -> None:
    packed = b"".join(gzip.compress(one) for one in members)
    assert whole(pipes.unpacked(pieces(packed, size))) == b"".join(members)


def test_half_a_gzip_stream_is_an_error() -> None:
    packed = gzip.compress(os.urandom(500))
    with pytest.raises(EOFError):
        whole(pipes.unpacked(pieces(packed[:-20], 50)))


def test_no_link_on_the_way_is_followed(tmp_path: Path) -> None:
    (tmp_path / "job" / "plain").mkdir(parents=True)
    (tmp_path / "secret").write_text("the platform's")
    (tmp_path / "job" / "plain" / "file").write_text("the job's")
    (tmp_path / "job" / "folder").symlink_to(tmp_path)
    (tmp_path / "job" / "plain" / "link").symlink_to(tmp_path / "secret")
    base = os.open(tmp_path / "job", os.O_RDONLY)
    try:
        handle = opened(base, "plain/file", os.O_RDONLY)
        assert os.read(handle, 100) == b"the job's"
        os.close(handle)
        for path in ("folder/secret", "plain/link", "folder"):
            with pytest.raises(OSError):
                opened(base, path, os.O_RDONLY)
    finally:
        os.close(base)

"""A store that fails, is slow, loses answers, lies, or is somebody else's; and networks that break."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from bastide.engines.artifacts import CHUNK, Artifacts, Damaged, Place, PlaceError, Unavailable
from bastide.engines.artifacts.drivers.bucket import Bucket
from bastide.engines.artifacts.drivers.s3 import S3Objects
from tests.object_stores import Fault, ObjectStore, Proxy

KEY = b"k" * 32
PART = 8 * 1024 * 1024
SEALED = CHUNK + 16


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 100_000):
        yield data[at : at + 100_000]


@pytest.fixture(scope="module")
def proxy(foreign: ObjectStore) -> Iterator[Proxy]:
    with Proxy.before(foreign.endpoint) as made:
        yield made


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex[:12]


@pytest.fixture
def artifacts(foreign: ObjectStore, proxy: Proxy, prefix: str, tmp_path: Path) -> Iterator[Artifacts]:
    proxy.faults.clear()
    proxy.seen.clear()
    made = S3Objects(Bucket(Place.parse(foreign.url(prefix, proxy.url))), tmp_path / "objects")
    yield made
    proxy.faults.clear()
    made.close()


def names(store: ObjectStore, prefix: str) -> set[str]:
    told = store.client().list_objects_v2(Bucket=store.bucket, Prefix=f"{prefix}/")
    return {one["Key"].removeprefix(f"{prefix}/") for one in told.get("Contents", ())}


def unfinished(store: ObjectStore, prefix: str) -> list[Any]:
    told: list[Any] = store.client().list_multipart_uploads(Bucket=store.bucket, Prefix=f"{prefix}/").get("Uploads", [])
    return told


@pytest.mark.parametrize("what", ["slow down", "down", "cut request", "lose answer", "cut answer"])
@pytest.mark.parametrize("size", [5 * CHUNK, 2 * PART + 5])
def test_what_passes_is_tried_again(
    artifacts: Artifacts, proxy: Proxy, foreign: ObjectStore, prefix: str, what: str, size: int
) -> None:
    """One of each kind of call fails once: all is written, once, and read."""
    data = os.urandom(size)
    for method, query in (("PUT", ""), ("POST", "uploads"), ("POST", "uploadId"), ("GET", "")):
        proxy.faults.append(Fault(what, method, query, bytes=1000))

    async def story() -> None:
        written = await artifacts.write(pieces(data), KEY)
        assert await artifacts.read(written.id, KEY) == data
        assert names(foreign, prefix) == {written.id}

    asyncio.run(story())
    assert any(one.times == 0 for one in proxy.faults)
    # What began with an answer that was lost is nobody's, and swept; nothing else is left.
    assert len(unfinished(foreign, prefix)) <= (what in ("lose answer", "cut answer"))
    assert asyncio.run(artifacts.sweep(lambda _: True)) <= 1
    assert unfinished(foreign, prefix) == []


@pytest.mark.parametrize("what", ["slow down", "down"])
@pytest.mark.parametrize("size", [10, 2 * PART + 5])
def test_what_does_not_pass_is_an_error_and_leaves_nothing(
    artifacts: Artifacts, proxy: Proxy, foreign: ObjectStore, prefix: str, what: str, size: int
) -> None:
    async def story() -> None:
        kept = await artifacts.write_small(b"before", KEY)
        proxy.faults.append(Fault(what, "PUT", times=1000))
        with pytest.raises(Unavailable):
            await (artifacts.write(pieces(b"x" * size), KEY) if size > 10 else artifacts.write_small(b"x" * size, KEY))
        proxy.faults.clear()
        assert await artifacts.read(kept.id, KEY) == b"before"
        # The next call that gets through takes along what may have been left.
        await artifacts.delete(kept.id)

    asyncio.run(story())
    assert (names(foreign, prefix), unfinished(foreign, prefix)) == (set(), [])


def test_a_read_is_taken_up_where_it_broke_off(artifacts: Artifacts, proxy: Proxy) -> None:
    data = os.urandom(30 * CHUNK)
    cuts = [Fault("cut answer", "GET", bytes=cut) for cut in (100, 3 * SEALED + 7, 11 * SEALED, 40_000)]

    async def story() -> None:
        written = await artifacts.write(pieces(data), KEY)
        proxy.seen.clear()
        proxy.faults += cuts
        assert (
            b"".join([piece async for piece in artifacts.open(written.id, KEY, 10, 29 * CHUNK)])
            == data[10 : 29 * CHUNK]
        )
        assert [one.times for one in cuts] == [0, 0, 0, 0]

    asyncio.run(story())


def test_a_read_that_breaks_off_for_good_is_an_error_and_never_less(artifacts: Artifacts, proxy: Proxy) -> None:
    async def story() -> None:
        data = os.urandom(6 * CHUNK)
        written = await artifacts.write(pieces(data), KEY)
        proxy.faults.append(Fault("cut answer", "GET", times=1, bytes=2 * SEALED + 2000))
        proxy.faults.append(Fault("slow down", "GET", times=1000))
        found = []
        with pytest.raises(Unavailable):
            async for piece in artifacts.open(written.id, KEY):
                found.append(piece)
        assert data.startswith(b"".join(found))
        proxy.faults.clear()
        assert await artifacts.read(written.id, KEY) == data

    asyncio.run(story())


def test_a_range_asks_for_its_chunks_alone(
    artifacts: Artifacts, foreign: ObjectStore, proxy: Proxy, prefix: str
) -> None:
    """What lies outside the chunks of a range is not even looked at: it may be damaged."""

    async def story() -> None:
        data = os.urandom(12 * CHUNK)
        id = (await artifacts.write(pieces(data), KEY)).id
        where = {"Bucket": foreign.bucket, "Key": f"{prefix}/{id}"}
        raw = bytearray(foreign.client().get_object(**where)["Body"].read())
        for number in (4, 8):
            raw[number * SEALED + 100] ^= 1
        foreign.client().put_object(**where, Body=bytes(raw))
        assert await artifacts.read(id, KEY, 5 * CHUNK, 8 * CHUNK) == data[5 * CHUNK : 8 * CHUNK]
        for start, end in ((5 * CHUNK - 1, 6 * CHUNK), (7 * CHUNK, 8 * CHUNK + 1), (0, None)):
            with pytest.raises(Damaged):
                await artifacts.read(id, KEY, start, end)

    asyncio.run(story())
    assert sum(one.startswith("GET") for one in proxy.seen) == 4


def test_what_is_cut_short_while_it_is_read_is_an_error(
    artifacts: Artifacts, foreign: ObjectStore, proxy: Proxy, prefix: str
) -> None:
    async def story() -> None:
        id = (await artifacts.write(pieces(os.urandom(20 * CHUNK)), KEY)).id
        where = {"Bucket": foreign.bucket, "Key": f"{prefix}/{id}"}
        raw = foreign.client().get_object(**where)["Body"].read()
        for left in (9 * SEALED, 3 * SEALED):
            foreign.client().put_object(**where, Body=raw)
            proxy.faults.append(Fault("cut answer", "GET", bytes=5 * SEALED))
            stream = artifacts.open(id, KEY)
            await anext(stream)
            foreign.client().put_object(**where, Body=raw[:left])
            with pytest.raises(Damaged):
                async for _ in stream:
                    pass

    asyncio.run(story())


def test_what_cannot_be_deleted_now_is_deleted_later(
    artifacts: Artifacts, foreign: ObjectStore, proxy: Proxy, prefix: str
) -> None:
    async def story() -> None:
        first, second = [(await artifacts.write_small(b"x", KEY)).id for _ in range(2)]
        proxy.faults.append(Fault("down", times=1000))
        await artifacts.delete(first)
        proxy.faults.clear()
        assert names(foreign, prefix) == {first, second}
        await artifacts.delete(second)
        assert names(foreign, prefix) == set()

    asyncio.run(story())


# -- whose a place is --------------------------------------------------------------------------------------------------


def test_a_place_is_one_platforms(foreign: ObjectStore) -> None:
    url = foreign.url()
    bucket = Bucket(Place.parse(url))
    bucket.claim("one")
    bucket.check("one")
    with pytest.raises(PlaceError, match="another platform"):
        bucket.check("two")
    with pytest.raises(PlaceError, match="not empty"):
        bucket.claim("two")
    bucket.check("one")
    with pytest.raises(PlaceError, match=r"holds no platform"):
        Bucket(Place.parse(foreign.url())).check("one")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://b/x", "is named as s3://"),
        ("s3://key:secret@bucket/x", "credentials never stand in it"),
        ("s3://B/x", "not a bucket's name"),
        ("s3://bucket/../x y", "a prefix has"),
        ("s3://bucket/x?endpoint-url=http://elsewhere.example", "over https only"),
        ("s3://bucket/x?endpoint-url=ftp://localhost", "is https"),
        ("s3://bucket/x?secret=abc", "`secret` is unknown"),
        ("s3://bucket/x?credentials=relative", "the whole path"),
    ],
)
def test_what_names_no_place(url: str, said: str) -> None:
    with pytest.raises(PlaceError, match=said):
        Place.parse(url)


def test_a_place_that_cannot_be_used_says_why(foreign: ObjectStore, tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(PlaceError, match="ca-bundle"):
        Bucket(Place.parse(foreign.url(endpoint="http://127.0.0.1:1"))).check("x")
    wrong = tmp_path / "wrong"
    wrong.write_text("[default]\naws_access_key_id = AKIDSTORE\naws_secret_access_key = another\n")
    wrong.chmod(0o600)
    url = f"s3://{foreign.bucket}/x?endpoint-url={foreign.endpoint}&credentials={wrong}"
    with pytest.raises(PlaceError, match="SignatureDoesNotMatch") as error:
        Bucket(Place.parse(url)).check("x")
    assert "another" not in str(error.value).replace("another platform", "")
    wrong.chmod(0o644)
    with pytest.raises(PlaceError, match="chmod 600"):
        Bucket(Place.parse(url))
    wrong.chmod(0o600)
    wrong.write_text("nothing")
    with pytest.raises(PlaceError, match="holds no credentials"):
        Bucket(Place.parse(url))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(PlaceError, match="AWS_ACCESS_KEY_ID"):
        Bucket(Place.parse(f"s3://{foreign.bucket}/x?endpoint-url={foreign.endpoint}"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", foreign.keys.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", foreign.keys.secret)
    # Where a shell's AWS commands go is not where the platform's objects go.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(PlaceError, match="holds no platform"):
        Bucket(Place.parse(f"s3://{foreign.bucket}/x?endpoint-url={foreign.endpoint}")).check("x")

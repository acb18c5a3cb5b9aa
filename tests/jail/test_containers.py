"""Images as they are kept on the machine: verified before use, encrypted, once, and not for ever."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bastide.engines.images import Blob, Container, Containers, Unfit
from bastide.engines.sandbox.drivers.gocryptfs import Gocryptfs
from tests.stories.ecr import oci


class Store:
    """A layout's blobs, and how often each was opened."""

    def __init__(self, folder: Path, *layers: oci.Layer, **config: Any) -> None:
        digest = oci.layout(folder, layers or (oci.system,), config)
        self.folder = folder
        self.opened: list[str] = []
        self.digest = digest
        manifest = json.loads((folder / "blobs/sha256" / digest[7:]).read_bytes())
        self.config, *self.layers = [self.blob(one) for one in (manifest["config"], *manifest["layers"])]

    def blob(self, told: dict[str, Any], content: bytes | None = None) -> Blob:
        async def pieces(data: bytes) -> AsyncIterator[bytes]:
            yield data[:1000]
            yield data[1000:]

        async def open() -> tuple[int, AsyncIterator[bytes]]:
            self.opened.append(told["digest"])
            data = content if content is not None else (self.folder / "blobs/sha256" / told["digest"][7:]).read_bytes()
            return len(data), pieces(data)

        return Blob(told["digest"], told.get("mediaType", ""), open)


class Nowhere:
    async def open(self, url: str) -> tuple[int, AsyncIterator[bytes]]:
        raise AssertionError(url)


def test_an_image_is_unpacked_once_encrypted_and_goes_when_nobody_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = b"a word that the disk must not have " * 100

    def content(tar: Any) -> None:
        oci.entry(tar, "secret", secret)

    store = Store(tmp_path / "one", oci.system, content, Env=["A=b=c", "PATH=/x"], Cmd=["run"], WorkingDir="/w")
    other = Store(tmp_path / "two", oci.system, content, Entrypoint=["in"])

    async def story() -> None:
        volumes = Gocryptfs(tmp_path / "volumes")
        containers = Containers(volumes, Nowhere())
        both = await asyncio.gather(
            *(containers.get("app", store.digest, store.config, store.layers) for _ in range(2))
        )
        found: Container = both[0]
        assert found.root == both[1].root and len(store.opened) == 3
        assert (found.root / "secret").read_bytes() == secret and (found.root / "w").is_dir()
        assert (found.path, dict(found.variables)) == ("/x", {"HOME": "/tmp", "A": "b=c"})
        assert (found.arguments, found.train, found.folder) == (("run",), ("train",), "/w")
        files = [path for path in (tmp_path / "volumes").glob("*/store/**/*") if path.is_file()]
        assert files and not [path for path in files if secret[:32] in path.read_bytes()]
        monkeypatch.setattr("bastide.engines.images.container._MOST_IMAGES", 1)
        second = await containers.get("app", other.digest, other.config, other.layers)
        assert second.serve == ("in", "serve")
        assert (found.root / "secret").exists(), "it is in use"
        root = found.root
        del found, both
        await containers.get("app", other.digest, other.config, other.layers)
        assert not root.exists() and len(list((tmp_path / "volumes").iterdir())) == 1
        again = await containers.get("app", store.digest, store.config, store.layers)
        assert len(store.opened) == 6 and (again.root / "secret").exists()
        for volume in (tmp_path / "volumes").iterdir():
            await volumes.close(volume.name)

    asyncio.run(story())


def _refused(tmp_path: Path, store: Store, config: Blob, layers: list[Blob]) -> str:
    async def story() -> str:
        containers = Containers(Gocryptfs(tmp_path / "volumes"), Nowhere())
        with pytest.raises(Unfit) as unfit:
            await containers.get("app", store.digest, config, layers)
        return str(unfit.value)

    told = asyncio.run(story())
    assert not list((tmp_path / "volumes").iterdir()), "nothing is left of it"
    return told


def test_what_is_not_what_its_digest_says_is_not_used(tmp_path: Path) -> None:
    store = Store(tmp_path / "one")
    good = (store.folder / "blobs/sha256" / store.layers[0].digest[7:]).read_bytes()
    told = {"digest": store.layers[0].digest}
    for bad in (good[:-1] + bytes([good[-1] ^ 1]), good + b"x", good[:-1], b""):
        assert "not what the digest" in _refused(tmp_path, store, store.config, [store.blob(told, bad)])
    config = {"digest": store.config.digest}
    assert "not what the digest" in _refused(tmp_path, store, store.blob(config, b"{}"), store.layers)
    other, _ = oci.packed(oci.scripts(evil="true"))
    described = {"digest": f"sha256:{hashlib.sha256(other).hexdigest()}"}
    assert "not the one that its configuration names" in _refused(
        tmp_path, store, store.config, [store.blob(described, other)]
    )


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"architecture": "s390x"}, "s390x"),
        ({"os": "windows"}, "windows"),
        ({"rootfs": None}, "form"),
        ({"config": {"User": "nobody-there"}}, "/etc/passwd"),
        ({"config": {"User": "app:none"}}, "/etc/group"),
        ({"config": {"WorkingDir": "../x"}}, "WorkingDir"),
        ({"config": {"Entrypoint": "a text"}}, "Entrypoint"),
        ({"config": {"Cmd": ["a\0b"]}}, "Cmd"),
        ({"config": []}, ""),
    ],
)
def test_a_configuration_that_cannot_be_honoured_is_refused(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    store = Store(tmp_path / "one")
    told = json.loads((store.folder / "blobs/sha256" / store.config.digest[7:]).read_bytes())
    raw = json.dumps({**told, **changed}).encode()
    config = store.blob({"digest": f"sha256:{hashlib.sha256(raw).hexdigest()}"}, raw)
    if changed == {"config": []}:
        raw = b"[" * 100_000
        config = store.blob({"digest": f"sha256:{hashlib.sha256(raw).hexdigest()}"}, raw)
    assert why in _refused(tmp_path, store, config, store.layers)

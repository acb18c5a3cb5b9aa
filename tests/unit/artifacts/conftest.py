"""The ways to keep bytes, each as the platform uses it and as whoever owns the disk or the store sees it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bastide.engines.artifacts import Artifacts, Place
from bastide.engines.artifacts.drivers.bucket import Bucket
from bastide.engines.artifacts.drivers.files import LocalFiles
from bastide.engines.artifacts.drivers.s3 import S3Objects
from tests.object_stores import ObjectStore, SeaweedFs, in_bastide
from tests.platform import Running


class Files:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "objects"
        self.making = (
            "from bastide.engines.artifacts.drivers.files import LocalFiles\n"
            f"from pathlib import Path\nartifacts = LocalFiles(Path({str(self.root)!r}))\n"
        )

    def make(self) -> Artifacts:
        return LocalFiles(self.root)

    def _path(self, id: str) -> Path:
        return self.root / id[:2] / id

    def raw(self, id: str) -> bytes:
        return self._path(id).read_bytes()

    def put(self, id: str, sealed: bytes) -> None:
        self._path(id).write_bytes(sealed)

    def names(self) -> set[str]:
        return {path.name for path in self.root.glob("[0-9a-f][0-9a-f]/*")}

    def unfinished(self) -> int:
        return len(list((self.root / "drafts").iterdir()))


class Remote:
    """A place in a store."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self.root = folder / "objects"
        self.store = store
        self.url = store.url()
        self.place = Place.parse(self.url)
        self.client: Any = store.client()
        self.making = (
            "from bastide.engines.artifacts import Place\nfrom bastide.engines.artifacts.drivers.bucket import Bucket\n"
            "from bastide.engines.artifacts.drivers.s3 import S3Objects\nfrom pathlib import Path\n"
            f"artifacts = S3Objects(Bucket(Place.parse({self.url!r})), Path({str(self.root)!r}))\n"
        )

    def make(self) -> Artifacts:
        return S3Objects(Bucket(self.place), self.root)

    def _where(self, id: str) -> dict[str, str]:
        return {"Bucket": self.place.bucket, "Key": self.place.prefix + id}

    def raw(self, id: str) -> bytes:
        found: bytes = self.client.get_object(**self._where(id))["Body"].read()
        return found

    def put(self, id: str, sealed: bytes) -> None:
        self.client.put_object(**self._where(id), Body=sealed)

    def names(self) -> set[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.place.bucket, Prefix=self.place.prefix
        )
        return {one["Key"].removeprefix(self.place.prefix) for page in pages for one in page.get("Contents", ())}

    def unfinished(self) -> int:
        told = self.client.list_multipart_uploads(Bucket=self.place.bucket, Prefix=self.place.prefix)
        return len(told.get("Uploads", ()))


Kept = Files | Remote


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A bucket of a store that others wrote."""
    weed = SeaweedFs(tmp_path_factory.mktemp("weed"))
    weed.start()
    try:
        yield weed.bucket()
    finally:
        weed.kill()


@pytest.fixture(scope="module", params=["files", "seaweedfs", "bastide"])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """One of them, empty."""
    folder = tmp_path_factory.mktemp("kept")
    if request.param == "files":
        return Files(folder)
    if request.param == "seaweedfs":
        return Remote(request.getfixturevalue("foreign"), folder)
    platform: Running = request.getfixturevalue("platform")
    return Remote(in_bastide(platform.account(), folder), folder)


@pytest.fixture(scope="module")
def artifacts(kept: Kept) -> Iterator[Artifacts]:
    made = kept.make()
    yield made
    made.close()

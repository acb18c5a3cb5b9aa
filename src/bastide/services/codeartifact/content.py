"""Contents: what assets are made of, kept once in a domain, sealed, and forgotten when no asset has them any more."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.artifacts import SMALL, Artifacts
from bastide.kernel import Calls
from bastide.services.codeartifact import pypi, sealing
from bastide.services.codeartifact.noun import CONTENT, conflict
from bastide.store import Row, Transaction, View

MOST_BYTES: Final = 5 << 30
"""Of an asset (CodeArtifact User Guide, "Quotas")."""
_HASHES: Final = ("md5", "sha1", "sha256", "sha512")


@dataclass(slots=True)
class Stored:
    """Bytes that lie sealed and that no row names yet. hashes: hex, by the API's names."""

    file: str
    key: str
    size: int
    hashes: dict[str, str]

    @property
    def sha256(self) -> str:
        """What contents are named by."""
        return self.hashes["SHA-256"]


@dataclass(slots=True)
class Staged:
    """An asset that is to be. metadata: of a wheel, its METADATA as a content of its own. unused: files that the
    transaction found to be there already."""

    asset: Stored
    facts: pypi.Facts | None = None
    metadata: Stored | None = None
    unused: list[str] = field(default_factory=list)

    def files(self) -> list[str]:
        """All that was written."""
        return [one.file for one in (self.asset, self.metadata) if one is not None]


async def keep(calls: Calls, domain: Row, chunks: AsyncIterator[bytes], most: int = MOST_BYTES) -> tuple[Stored, bytes]:
    """Writes bytes sealed under a key of their own; raises Refused when they are too many. Returns the key, too."""
    key, kept = await sealing.new_key(calls, domain)
    seen = {name: hashlib.new(name, usedforsecurity=False) for name in _HASHES}
    size = 0

    async def through() -> AsyncIterator[bytes]:
        nonlocal size
        async for piece in chunks:
            size += len(piece)
            if size > most:
                raise Refused("ServiceQuotaExceededException", f"An asset has {most} bytes at most.", 402)
            for one in seen.values():
                one.update(piece)
            yield piece

    written = await calls.engine(Artifacts).write(through(), key, digest="")
    names = {"md5": "MD5", "sha1": "SHA-1", "sha256": "SHA-256", "sha512": "SHA-512"}
    return Stored(written.id, kept, size, {names[name]: one.hexdigest() for name, one in seen.items()}), key


async def keep_small(calls: Calls, domain: Row, data: bytes) -> Stored:
    """The same of a few bytes that are at hand."""

    async def one() -> AsyncIterator[bytes]:
        yield data

    return (await keep(calls, domain, one()))[0]


class Reader(io.RawIOBase):
    """A sealed file as one that can be read anywhere, from a thread beside the loop: what zipfile wants."""

    def __init__(self, calls: Calls, file: str, key: bytes, size: int) -> None:
        self._artifacts = calls.engine(Artifacts)
        self._loop = asyncio.get_running_loop()
        self._file, self._key, self._size, self._at = file, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0 if whence == 0 else self._at if whence == 1 else self._size))
        return self._at

    def readinto(self, into: Any) -> int:
        end = min(self._size, self._at + min(len(into), SMALL))
        if end <= self._at:
            return 0
        work = self._artifacts.read(self._file, self._key, self._at, end)
        data = asyncio.run_coroutine_threadsafe(work, self._loop).result()
        into[: len(data)] = data
        self._at += len(data)
        return len(data)


async def stage(
    calls: Calls, domain: Row, chunks: AsyncIterator[bytes], name: str, project: str = "", *, sha256: str = ""
) -> Staged:
    """Writes an asset, and looks into it if it is a Python project's distribution.

    sha256: what it has to have. project: the project's name, empty for other formats. Whatever is refused leaves nothing.
    """
    asset, key = await keep(calls, domain, chunks)
    staged = Staged(asset)
    try:
        if sha256 and sha256.lower() != asset.sha256:
            raise Refused(
                "ValidationException", f"{name[:200]} has the SHA-256 {asset.sha256}, and {sha256[:64]} was told."
            )
        if project and name.endswith(".whl"):
            reader = io.BufferedReader(Reader(calls, asset.file, key, asset.size), SMALL)
            raw = await asyncio.to_thread(pypi.metadata_of_wheel, reader, name)
            staged.facts = pypi.facts_of(raw, name)
            staged.metadata = await keep_small(calls, domain, raw)
    except BaseException:
        await sealing.drop(calls, staged.files())
        raise
    return staged


# -- rows ----------------------------------------------------------------------------------------------------------------


def _row(view: View, domain: Row, sha256: str) -> Row | None:
    return CONTENT.get(view, domain.account, domain.region, f"{domain.name}/{sha256}")


def named(tx: Transaction, domain: Row, stored: Stored) -> str | None:
    """A content gets one more that names it; the file that is not needed, because the domain has the bytes already."""
    row = _row(tx, domain, stored.sha256)
    if row is None:
        doc = {"file": stored.file, "key": stored.key, "size": stored.size, "hashes": stored.hashes, "names": 1}
        tx.insert(Row(CONTENT.key, domain.account, domain.region, f"{domain.name}/{stored.sha256}", doc), keep=False)
        return None
    row.doc["names"] += 1
    CONTENT.change(tx, row, "Named")
    return stored.file


def again(tx: Transaction, domain: Row, version: Row, asset: str = "") -> None:
    """Everything that a version's assets (or one of them) are made of has one more that names it."""
    for sha256 in _contents(version, asset):
        row = _row(tx, domain, sha256)
        if row is None:
            raise conflict("asset", version.name, "An asset was deleted meanwhile. Please try again.")
        row.doc["names"] += 1
        CONTENT.change(tx, row, "Named")


def released(tx: Transaction, domain: Row, version: Row) -> list[str]:
    """A version lets go of what its assets are made of; files that nobody names any more."""
    gone = []
    for sha256 in _contents(version):
        row = _row(tx, domain, sha256)
        if row is None:
            continue
        row.doc["names"] -= 1
        if row.doc["names"] > 0:
            CONTENT.change(tx, row, "Released")
        else:
            gone.append(row.doc["file"])
            CONTENT.remove(tx, row, "Released")
    return gone


def _contents(version: Row, asset: str = "") -> list[str]:
    assets = [version.doc["assets"][asset]] if asset else version.doc["assets"].values()
    return [one[part] for one in assets for part in ("sha256", "metadata") if one.get(part)]


def held(view: View, domain: Row, sha256: str) -> dict[str, Any]:
    """A content's doc; raises Refused when it is gone."""
    row = _row(view, domain, sha256)
    if row is None:
        raise Refused("ResourceNotFoundException", "The asset does not exist any more.", 404)
    return row.doc

"""Artifacts: objects in the pipeline's bucket, under its key, and what is read out of them.

What an action made is pinned by its SHA-256; an object that somebody changed meanwhile is not used. Archives are hostile:
they are read in memory, a member at a time, and no further than each may be long, whatever they say of themselves.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import secrets
import string
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import zips

MOST_BYTES: Final = 256 << 20
"""Of an artifact that is read here."""
MOST_UNPACKED: Final = 1 << 30
MOST_MEMBERS: Final = 20_000
_ALPHABET: Final = string.ascii_letters + string.digits


class Broken(Exception):  # noqa: N818
    """An artifact cannot be used; the message says why."""


def new_key(pipeline: str, artifact: str) -> str:
    """A key of CodePipeline's own form: ``PIPELINE/ARTIFACT/RANDOM``, names shortened."""
    return f"{pipeline[:20]}/{artifact[:10]}/{''.join(secrets.choice(_ALPHABET) for _ in range(7))}"


def sealed(store: Mapping[str, Any]) -> dict[str, str]:
    """How objects of an artifact store are encrypted: under its key, or the account's own one for S3."""
    key = (store.get("encryptionKey") or {}).get("id")
    return {"ServerSideEncryption": "aws:kms", **({"SSEKMSKeyId": key} if key else {})}


class Piped:
    """An object on its way from one place to another: bytes pass, and their digest stays."""

    def __init__(self, body: AsyncIterator[bytes], length: int | None) -> None:
        self.length = length
        self._body = body
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        """The SHA-256, once all have passed."""
        return self._digest.hexdigest()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, as they come."""
        try:
            async for piece in self._body:
                self._digest.update(piece)
                yield piece
        finally:
            await closed(self._body)

    def checksums(self) -> Mapping[str, str]:
        """None were given."""
        return {}


async def closed(body: Any) -> None:
    """Lets go of a body that is not read to its end."""
    if hasattr(body, "aclose"):
        with contextlib.suppress(Exception):
            await body.aclose()


async def whole(body: Any, most: int = MOST_BYTES) -> tuple[bytes, str]:
    """All bytes of a body and their SHA-256; raises Broken for more than `most`."""
    found, digest = bytearray(), hashlib.sha256()
    try:
        async for piece in body:
            found += piece
            digest.update(piece)
            if len(found) > most:
                raise Broken(f"it has more than {most} bytes, which is more than is read here")
    finally:
        await closed(body)
    return bytes(found), digest.hexdigest()


async def digest_of(body: Any) -> str:
    """The SHA-256 of a body, however long."""
    digest = hashlib.sha256()
    try:
        async for piece in body:
            digest.update(piece)
    finally:
        await closed(body)
    return digest.hexdigest()


def zipped(files: Mapping[str, bytes]) -> bytes:
    """An archive of files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def added(data: bytes, name: str, content: bytes) -> bytes:
    """An archive with one file more."""
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


def member(data: bytes, name: str, most: int) -> bytes:
    """A file of an archive; raises Broken."""
    with _opened(data) as archive:
        try:
            info = archive.getinfo(name.lstrip("/").removeprefix("./"))
        except KeyError:
            raise Broken(f"it has no file {name[:200]}") from None
        return _read(archive, info, most)


def members(data: bytes, most: int = MOST_BYTES, room: int = MOST_UNPACKED) -> Iterator[tuple[str, bytes]]:
    """All files of an archive in the order of their names; raises Broken for names that lead elsewhere, for what is no
    file, and as soon as one has more than `most` bytes or all more than `room`."""
    with _opened(data) as archive:
        infos = sorted((one for one in archive.infolist() if not one.is_dir()), key=lambda one: one.filename)
        if len(infos) > MOST_MEMBERS:
            raise Broken(f"it has more than {MOST_MEMBERS} files")
        for info in infos:
            name = info.filename
            if (
                name.startswith("/")
                or "\\" in name
                or "\0" in name
                or any(one in ("", ".", "..") for one in name.split("/"))
            ):
                raise Broken(f"its file {name[:200]!r} leads elsewhere")
            mode = info.external_attr >> 16
            if mode & 0o170000 not in (0, 0o100000):
                raise Broken(f"{name[:200]!r} is no plain file")
            one = _read(archive, info, min(room, most))
            room -= len(one)
            yield name, one


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[zipfile.ZipFile]:
    try:
        with zips.opened(io.BytesIO(data), MOST_MEMBERS) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise Broken(f"it is no ZIP archive that can be read ({error})") from None


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    if info.flag_bits & 1:
        raise Broken(f"its file {info.filename[:200]!r} has a password")
    with archive.open(info) as source:
        found = source.read(most + 1)
    if len(found) > most:
        raise Broken(f"its file {info.filename[:200]!r} has more than {most} bytes")
    return found


def located(text: str) -> tuple[str, str]:
    """Artifact and file of ``ARTIFACT::FILE``; raises Refused."""
    artifact, mark, name = text.partition("::")
    if not mark or not artifact or not name:
        raise Refused("ConfigurationError", f"`{text[:200]}` names no file of an artifact: ARTIFACT::FILE.")
    return artifact, name

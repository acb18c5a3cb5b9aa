"""The data of a model on its way to its server: archives, prefixes, and models that come one by one."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.serving import NoModel
from bastide.engines.workflow import Failed
from bastide.services.sagemaker import archive, objects
from bastide.services.sagemaker.session import RoleSession

MOST_UNPACKED: Final = 64 << 30
_MOST_NAME: Final = 1024


async def place(session: RoleSession, container: dict[str, Any], volume: Path, folder: Path) -> str:
    """Puts the data of a container's model into `folder`; raises Failed, in words for its owner. volume: for what is in
    between. Returns the ETag of the one object that it was, empty if it was not one."""
    source = (container.get("ModelDataSource") or {}).get("S3DataSource")
    if source and source["CompressionType"] == "None":
        return await _copy(session, source, folder)
    if source or container.get("ModelDataUrl"):
        url = source["S3Uri"] if source else container["ModelDataUrl"]
        etag = source.get("ETag") if source else container.get("ModelDataETag")
        return await unpack(session, url, volume / f"{folder.parent.name}.tar.gz", folder, etag=etag)
    return ""


async def _copy(session: RoleSession, source: dict[str, Any], folder: Path) -> str:
    uri = source["S3Uri"]
    bucket, prefix = objects.split(uri)
    try:
        if source["S3DataType"] == "S3Object":
            etag = source.get("ETag")
            target = objects.below(folder, prefix.rsplit("/", 1)[-1])
            got = await objects.fetch(session, bucket, prefix, target, etag=f'"{etag}"' if etag else None)
            return got["ETag"].strip('"')
        entries = [one for one in await objects.listing(session, bucket, prefix) if not one.key.endswith("/")]
        if not entries:
            raise Failed("ClientError", f"There is nothing at {uri} that could be a model.")
        if sum(one.size for one in entries) > MOST_UNPACKED:
            raise Failed("ClientError", f"The model data at {uri} has more than {MOST_UNPACKED} bytes.")
        for one in entries:
            target = objects.below(folder, objects.relative_name(one.key, prefix))
            await objects.fetch(session, bucket, one.key, target, etag=one.etag)
    except Refused as refused:
        raise no_data(uri, refused) from None
    return ""


async def unpack(session: RoleSession, url: str, packed: Path, folder: Path, *, etag: str | None = None) -> str:
    """Fetches and unpacks a model's archive, and returns its ETag; raises Failed. packed: where it lies meanwhile. etag: it
    must be that, still."""
    bucket, key = objects.split(url)
    try:
        got = await objects.fetch(session, bucket, key, packed, etag=f'"{etag}"' if etag else None)
    except Refused as refused:
        if refused.code == "PreconditionFailed":
            raise Failed(
                "ClientError", f"The model data at {url} is not what was registered: its content has changed."
            ) from None
        raise no_data(url, refused) from None
    try:
        await asyncio.to_thread(archive.unpack, packed, folder, most_bytes=MOST_UNPACKED)
    except archive.Unfit as unfit:
        raise Failed("ClientError", f"The model data at {url} cannot be unpacked: {unfit}.") from None
    except OSError as error:
        raise Failed("ClientError", f"The model data at {url} cannot be unpacked: {error.strerror}.") from None
    finally:
        packed.unlink(missing_ok=True)
    return got["ETag"].strip('"')


def url(container: dict[str, Any]) -> str:
    """Where the data of a container's model is; empty if it has none."""
    source = (container.get("ModelDataSource") or {}).get("S3DataSource")
    return str(source["S3Uri"] if source else container.get("ModelDataUrl") or "")


def no_data(url: str, refused: Refused) -> Failed:
    """What the endpoint's owner is told of data that cannot be had."""
    return Failed(
        "ClientError",
        f"Failed to download model data from {url}. Please ensure that the object exists and that the model's role may "
        f"read and decrypt it ({refused.code}: {refused.message}).",
    )


class Several:
    """The models of a multi-model container, from archives below a prefix; see `serving.Models`.

    They land in a folder that the server may only read: what the platform writes to is not the server's to bend.
    """

    def __init__(self, session: RoleSession, prefix: str, volume: Path, folder: Path, inside: str) -> None:
        """folder: on this machine, `inside`: where the server sees it."""
        self._session = session
        self._prefix = prefix
        self._volume = volume
        self._folder = folder
        self._inside = inside

    async def fetch(self, name: str) -> tuple[str, str]:
        """Fetches and unpacks the archive of that name below the prefix."""
        parts = name.lstrip("/").split("/")
        if not parts[-1] or any(part in (".", "..", "") for part in parts) or len(name) > _MOST_NAME or "\0" in name:
            raise NoModel(f"TargetModel `{name[:200]}` is not the name of an archive below {self._prefix}.")
        id_ = hashlib.sha256(name.encode()).hexdigest()[:32]
        place = self._folder / id_
        url = self._prefix.rstrip("/") + "/" + "/".join(parts)
        bucket, key = objects.split(url)
        try:
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
            await asyncio.to_thread((place / "model").mkdir, parents=True)
            await unpack(self._session, url, self._volume / f"{id_}.tar.gz", place / "model")
            await asyncio.to_thread(_readable, place)
        except Failed as failed:
            await self.forget(id_)
            raise NoModel(
                f"Failed to download model data(bucket: {bucket}, key: {key}). Please ensure that there is an object "
                "located at the URL and that the role passed to CreateModel has permissions to download the model "
                f"({failed.message})."
            ) from None
        return id_, f"{self._inside}/{id_}/model"

    async def forget(self, id: str) -> None:
        """Removes a model's files."""
        await asyncio.to_thread(shutil.rmtree, self._folder / id, ignore_errors=True)


def _readable(place: Path) -> None:
    """The server's user may read what is not its own."""
    place.chmod(0o755)
    for root, folders, names in os.walk(place):
        for name in (*folders, *names):
            path = Path(root) / name
            path.chmod(0o755 if path.is_dir() else path.stat().st_mode & 0o111 | 0o444)

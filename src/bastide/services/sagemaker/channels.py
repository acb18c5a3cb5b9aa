"""Inputs of a job: what belongs to each, which host gets what, and in which order.

Source: SageMaker API reference, Channel, S3DataSource, ShuffleConfig, ProcessingS3Input; developer guide,
"augmented-manifest" and "model-access-training-data".
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines.workflow import Failed
from bastide.services.sagemaker import objects
from bastide.services.sagemaker.session import RoleSession

PREFIX, MANIFEST, AUGMENTED = "S3Prefix", "ManifestFile", "AugmentedManifestFile"
FILE, FAST, PIPE = "File", "FastFile", "Pipe"
_LONGEST_MANIFEST: Final = 64 << 20
_MOST_ITEMS: Final = 100_000
_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Source:
    """Something that a job reads.

    name: the channel's or input's. bucket, key: what it names. target: where, below ``/opt/ml``. prefix: everything under
    the key, otherwise the one object. mode: File, FastFile or Pipe. data: S3Prefix, ManifestFile or AugmentedManifestFile.
    sharded: each host gets its part. seed: the order changes with it, in every epoch anew. packed: objects are gzip.
    recordio: each object (or attribute) becomes a record. attributes: of each line of an augmented manifest. groups: the
    instance groups that get it; all if empty.
    """

    name: str
    bucket: str
    key: str
    target: str
    prefix: bool = True
    mode: str = FILE
    data: str = PREFIX
    sharded: bool = False
    seed: int | None = None
    packed: bool = False
    recordio: bool = False
    attributes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Its address."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class Item:
    """An object of an input. path: where it lands below the input's folder. line: of an augmented manifest, which then is
    the item and no object."""

    bucket: str
    key: str
    etag: str
    size: int
    path: str = ""
    line: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """An object that was fetched. path: below the input's folder; place: where it lies now."""

    path: str
    place: Path
    etag: str
    version: str


@dataclass(slots=True)
class Content:
    """What an input has. told: what is pinned of it."""

    source: Source
    items: list[Item]
    told: list[list[Any]] = field(default_factory=list)

    @classmethod
    def of(cls, source: Source, entries: Sequence[objects.Entry]) -> Content:
        """What was listed under a prefix."""
        items = [
            Item(source.bucket, one.key, one.etag, one.size, objects.relative_name(one.key, source.key))
            for one in entries
            if one.size or not one.key.endswith("/")  # what consoles make to show a folder
        ]
        return cls(source, items, [[one.key, one.etag, one.size] for one in entries])

    def share(self, host: int, hosts: int, epoch: int = 0) -> list[Item]:
        """What the host (from 0) of so many gets in an epoch, in its order."""
        items = self.items
        if self.source.seed is not None:
            items = list(items)
            random.Random(f"{self.source.seed}/{epoch}").shuffle(items)  # noqa: S311 - an order, no secret
        return items[host::hosts] if self.source.sharded else items


async def together(works: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """All of them at once; the first that fails ends the others, and is raised when they are gone."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def failed(source: Source, why: Refused | str, key: str = "") -> Failed:
    """What a job says whose input could not be had."""
    text = f"{why.code}: {why.message}" if isinstance(why, Refused) else why
    where = f"s3://{source.bucket}/{key}" if key else source.where
    return Failed("ClientError", f"Data download failed: {text} ({where})")


async def content(session: RoleSession, source: Source) -> Content:
    """What an input has now; raises Failed if it cannot be had."""
    if source.data != PREFIX:
        return await _listed(session, source)
    try:
        entries = await objects.listing(session, source.bucket, source.key)
    except Refused as refused:
        raise failed(source, refused) from None
    if not source.prefix:
        entries = [one for one in entries if one.key == source.key]
    if not entries:
        raise Failed("ClientError", f"Data download failed: no objects found at {source.where}")
    return Content.of(source, entries)


async def _listed(session: RoleSession, source: Source) -> Content:
    try:
        text, etag = await objects.read(session, source.bucket, source.key, most=_LONGEST_MANIFEST)
    except Refused as refused:
        raise failed(source, refused) from None
    told: list[list[Any]] = [[source.key, etag, len(text)]]
    if source.data == AUGMENTED:
        lines = _lines(source, text)
        return Content(source, [Item(source.bucket, source.key, etag, 0, line=one) for one in lines], told)
    named = _named(source, text)
    found: list[Item] = []
    async for item in _looked_up(session, source, named):
        found.append(item)
        told.append([f"{item.bucket}/{item.key}", item.etag, item.size])
    return Content(source, found, told)


def _lines(source: Source, text: bytes) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            one = orjson.loads(line)
        except ValueError:
            one = None
        if not isinstance(one, dict):
            raise failed(source, f"line {number} of the augmented manifest is no JSON object")
        lacking = [name for name in source.attributes if name not in one]
        if lacking:
            raise failed(source, f"line {number} of the augmented manifest lacks the attribute {lacking[0]}")
        found.append(one)
        if len(found) > _MOST_ITEMS:
            raise failed(source, f"the augmented manifest has more than {_MOST_ITEMS} lines")
    if not found:
        raise failed(source, "the augmented manifest has no lines")
    return found


def _named(source: Source, text: bytes) -> list[tuple[str, str, str]]:
    """Bucket, key and path of what a manifest names: ``[{"prefix": "s3://bucket/a/"}, "b.csv", ...]``."""
    try:
        given = orjson.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, list) or not given or not isinstance(given[0], dict) or set(given[0]) != {"prefix"}:
        raise failed(source, 'a manifest is a JSON list that begins with {"prefix": "s3://..."}')
    try:
        bucket, base = objects.split(str(given[0]["prefix"]))
    except Refused as refused:
        raise failed(source, refused) from None
    if len(given) < 2 or not all(isinstance(one, str) and one for one in given[1:]):
        raise failed(source, "behind its prefix a manifest has the names of objects, one or more")
    if len(given) > _MOST_ITEMS:
        raise failed(source, f"the manifest names more than {_MOST_ITEMS} objects")
    return [(bucket, base + one, one.lstrip("/")) for one in given[1:]]


async def _looked_up(session: RoleSession, source: Source, named: Sequence[tuple[str, str, str]]) -> Any:
    async def look(bucket: str, key: str, path: str) -> Item:
        try:
            head = await session.act("s3", "HeadObject", {"Bucket": bucket, "Key": key})
        except Refused as refused:
            raise Failed(
                "ClientError", f"Data download failed: {refused.code}: {refused.message} (s3://{bucket}/{key})"
            ) from None
        return Item(bucket, key, str(head["ETag"]), int(head["ContentLength"]), path)

    for start in range(0, len(named), _AT_ONCE):
        for item in await asyncio.gather(*(look(*one) for one in named[start : start + _AT_ONCE])):
            yield item


async def stage(session: RoleSession, source: Source, items: Sequence[Item], folder: Path) -> list[Received]:
    """Writes an input's objects below a folder; raises Failed."""
    turns = asyncio.Semaphore(_AT_ONCE)
    received: list[Received] = []

    async def one(item: Item) -> None:
        target = objects.below(folder, item.path)
        async with turns:
            try:
                got = await objects.fetch(session, item.bucket, item.key, target, etag=item.etag)
                received.append(Received(item.path, target, got["ETag"], got["VersionId"]))
            except FileExistsError:
                raise Failed("ClientError", f"Data download failed: two objects want to be {target.name}.") from None
            except (NotADirectoryError, IsADirectoryError):
                raise Failed(
                    "ClientError", f"Data download failed: {item.path} would be a file and a folder at once."
                ) from None
            except Refused as refused:
                raise Failed(
                    "ClientError",
                    f"Data download failed: {refused.code}: {refused.message} (s3://{item.bucket}/{item.key})",
                ) from None

    await together(one(item) for item in items)
    return received


class Lazy:
    """A FastFile input: read with the job's role when the job reads. faults: why something could not be read."""

    def __init__(self, session: RoleSession, items: Sequence[Item], faults: list[Failed]) -> None:
        self._session = session
        self._items = {one.path: one for one in items}
        self._faults = faults

    @property
    def files(self) -> dict[str, int]:
        """Names and sizes."""
        return {path: one.size for path, one in self._items.items()}

    async def read(self, path: str, first: int, last: int) -> bytes:
        """See ``engines.lazy.Read``."""
        item = self._items[path]
        try:
            return await objects.part(self._session, item.bucket, item.key, first, last, item.etag)
        except Refused as refused:
            self._faults.append(
                Failed(
                    "ClientError",
                    f"Data download failed: {refused.code}: {refused.message} (s3://{item.bucket}/{item.key})",
                )
            )
            raise (
                PermissionError(13, "denied") if refused.code == "AccessDenied" else OSError(5, refused.code)
            ) from None

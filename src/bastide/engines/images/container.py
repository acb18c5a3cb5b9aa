"""Containers of one's own: images in OCI's or Docker's form, unpacked once, with a layer of each job's own over them.

An unpacked image lies in an encrypted volume whose key is in memory alone, under its digest; every blob is hashed before
anything of it is used. Images that nobody uses go when the room is needed, the longest unused first.

Source: OCI Image Format Specification 1.1, "Image Configuration".
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import platform
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from bastide.engines.images.environment import Environment
from bastide.engines.images.layers import Root, Unfit

__all__ = ["Blob", "Container", "Containers", "Unfit"]

_log = logging.getLogger("bastide.images")

MOST_BYTES: Final = 24 << 30
"""Of one image, unpacked."""
_MOST_IMAGES: Final = 24
_MOST_KEPT: Final = 64 << 30
"""Of all images together; those in use may be more."""
_LARGEST_CONFIG: Final = 8 << 20
_LARGEST_FILE: Final = 1 << 20
_MOST_LAYERS: Final = 256
_MOST_WORDS: Final = 4096
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
USER: Final = 1000
"""Whom an image runs as that names no user, or root: as who is root without its privileges, programs fail that give root up
themselves (tar, nginx)."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer or a configuration. open: its size and its bytes."""

    digest: str
    media: str
    open: Callable[[], Awaitable[tuple[int, AsyncIterator[bytes]]]]


@dataclass(frozen=True)
class Container(Environment):
    """An image as a sandbox takes it. root: the unpacked root. user, group: who it runs as, inside. folder: where it
    starts. files: what is laid over the root's own. entrypoint, arguments: what it starts by itself."""

    root: Path = Path()
    user: int = USER
    group: int = USER
    folder: str = "/"
    files: dict[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()


class _Volumes(Protocol):
    async def create(self, name: str, key: bytes, size_limit_bytes: int | None = None) -> Path: ...
    async def close(self, name: str) -> None: ...


class Downloads(Protocol):
    """What a registry's addresses of layers lead to."""

    async def open(self, url: str) -> tuple[int, AsyncIterator[bytes]]:
        """Size and bytes; raises Refused."""
        ...


@dataclass
class _Held:
    volume: str
    container: Callable[[], Container]
    size: int
    used: Callable[[], Container | None] = lambda: None
    turn: int = 0


class Containers:
    """The unpacked images of a platform. downloads: where their layers come from."""

    def __init__(self, volumes: _Volumes, downloads: Downloads) -> None:
        self.downloads = downloads
        self._volumes = volumes
        self._held: dict[str, _Held] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._turn = 0

    async def get(self, name: str, digest: str, config: Blob, layers: Sequence[Blob]) -> Container:
        """The image of that manifest digest, unpacked if it is not yet. It stays as long as what is returned is kept.

        Raises Unfit for an image that cannot be used, and Refused as the blobs' `open` does.
        """
        async with self._locks.setdefault(digest, asyncio.Lock()):
            held = self._held.get(digest)
            if held is None:
                held = await self._unpack(name, digest, config, layers)
                self._held[digest] = held
            container = held.used() or held.container()
            held.used = weakref.ref(container)
            self._turn += 1
            held.turn = self._turn
        await self._evict()
        return container

    async def _evict(self) -> None:
        idle = sorted((one.turn, digest) for digest, one in self._held.items() if one.used() is None)
        for _, digest in idle:
            if len(self._held) <= _MOST_IMAGES and sum(one.size for one in self._held.values()) <= _MOST_KEPT:
                return
            held = self._held.pop(digest)
            self._locks.pop(digest, None)
            await self._volumes.close(held.volume)

    async def _unpack(self, name: str, digest: str, config: Blob, layers: Sequence[Blob]) -> _Held:
        volume = f"image-{digest.removeprefix('sha256:')[:32]}"
        if len(layers) > _MOST_LAYERS:
            raise Unfit(f"it has more than {_MOST_LAYERS} layers")
        await self._volumes.close(volume)
        try:
            place = await self._volumes.create(volume, os.urandom(32), MOST_BYTES)
            told = _config(await _whole(config))
            root = place / "root"
            root.mkdir(mode=0o755)
            inside = Root(root, most_bytes=MOST_BYTES)
            try:
                for number, layer in enumerate(layers):
                    packed = place / "layer"
                    await _fetch(layer, packed)
                    unpacked = await asyncio.to_thread(inside.put, packed, layer.media)
                    await asyncio.to_thread(packed.unlink)
                    if told.layers[number : number + 1] != [unpacked]:
                        raise Unfit(f"layer {number + 1} is not the one that its configuration names")
                make = await asyncio.to_thread(_finished, name, digest, root, inside, told)
            finally:
                inside.close()
        except BaseException:
            await asyncio.shield(self._volumes.close(volume))
            raise
        return _Held(volume, make, inside.size)


@dataclass(frozen=True)
class _Told:
    """An image's configuration, read."""

    layers: list[str]
    environment: dict[str, str]
    entrypoint: tuple[str, ...]
    arguments: tuple[str, ...]
    folder: str
    user: str


def _words(given: Any, what: str) -> tuple[str, ...]:
    found = given or []
    if not isinstance(found, list) or not all(isinstance(one, str) and "\0" not in one for one in found):
        raise Unfit(f"its configuration's {what} is no list of words")
    if len(found) > _MOST_WORDS:
        raise Unfit(f"its configuration's {what} is too long")
    return tuple(found)


def _config(raw: bytes) -> _Told:
    try:
        told = orjson.loads(raw)
        config = told.get("config") or {}
        kind, system = told.get("architecture"), told.get("os")
        layers = [str(one) for one in told["rootfs"]["diff_ids"]]
        pairs = [one.partition("=") for one in _words(config.get("Env"), "Env")]
        folder, user = str(config.get("WorkingDir") or "/"), str(config.get("User") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Unfit("its configuration does not have the form of an image's") from None
    here = _MACHINES.get(platform.machine(), platform.machine())
    if system != "linux" or kind != here:
        raise Unfit(f"it is made for {str(system)[:32]}/{str(kind)[:32]}, and this machine is linux/{here}")
    if not folder.startswith("/") or "\0" in folder or ".." in folder.split("/"):
        raise Unfit("its configuration's WorkingDir is no absolute path")
    return _Told(
        layers,
        {name: value for name, _, value in pairs},
        _words(config.get("Entrypoint"), "Entrypoint"),
        _words(config.get("Cmd"), "Cmd"),
        os.path.normpath(folder),
        user,
    )


def _finished(name: str, digest: str, root: Path, inside: Root, told: _Told) -> Callable[[], Container]:
    passwd, group = inside.text("etc/passwd", _LARGEST_FILE), inside.text("etc/group", _LARGEST_FILE)
    user, main, home = _user(told.user, passwd, group)
    files = {}
    if not any(line.split(":")[2:3] == [str(user)] for line in passwd.splitlines()):
        more = f"job:x:{user}:{main}:job:/tmp:/bin/sh\n"
        files["etc/passwd"] = passwd + ("" if not passwd or passwd.endswith("\n") else "\n") + more
    with inside.folder(told.folder.strip("/"), make=True):
        pass
    environment = {"HOME": home, **told.environment}
    path = environment.pop("PATH", _PATH)

    def make() -> Container:
        return Container(
            name,
            digest,
            (),
            path=path,
            python="python3",
            variables=environment,
            train=(*told.entrypoint, "train"),
            serve=(*told.entrypoint, "serve"),
            process=(*told.entrypoint, *told.arguments),
            root=root,
            user=user,
            group=main,
            folder=told.folder,
            files=files,
            entrypoint=told.entrypoint,
            arguments=told.arguments,
        )

    return make


def _user(given: str, passwd: str, group: str) -> tuple[int, int, str]:
    """User and group, as numbers, and home. Docker's words: ``user``, ``uid``, ``user:group``, ``uid:gid``."""
    name, _, wanted = given.partition(":")
    users = [line.split(":") for line in passwd.splitlines() if line.count(":") >= 6]
    groups = [line.split(":") for line in group.splitlines() if line.count(":") >= 3]
    found = next((one for one in users if name and name in (one[0], one[2])), None)
    number = _number(name) if name.isdigit() else _number(found[2]) if found is not None else None
    if name and number is None:
        raise Unfit(f"its user {name[:64]!r} is not in its /etc/passwd")
    if not number:
        return USER, USER, "/tmp"  # noqa: S108 - the job's own, in memory
    main = _number(found[3]) if found is not None else number
    if wanted:
        listed = next((one for one in groups if wanted in (one[0], one[2])), None)
        main = _number(wanted) if wanted.isdigit() else _number(listed[2]) if listed is not None else None
        if main is None:
            raise Unfit(f"its group {wanted[:64]!r} is not in its /etc/group")
    return number, main or number, found[5] if found is not None and found[5].startswith("/") else "/tmp"  # noqa: S108


def _number(text: str) -> int | None:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) >= 1 << 31:
        return None
    return int(text)


async def _whole(blob: Blob) -> bytes:
    size, content = await blob.open()
    if size > _LARGEST_CONFIG:
        raise Unfit("its configuration is too large")
    data = b"".join([piece async for piece in content])
    _same(blob, hashlib.sha256(data))
    return data


async def _fetch(blob: Blob, target: Path) -> None:
    size, content = await blob.open()
    if size > MOST_BYTES:
        raise Unfit("a layer is too large")
    seen = hashlib.sha256()
    with target.open("xb") as file:
        async for piece in content:
            seen.update(piece)
            await asyncio.to_thread(file.write, piece)
    _same(blob, seen)


def _same(blob: Blob, seen: Any) -> None:
    if f"sha256:{seen.hexdigest()}" != blob.digest:
        raise Unfit(f"what the registry gave is not what the digest {blob.digest} says")

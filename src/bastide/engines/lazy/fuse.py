"""Lazy folders by FUSE, spoken by this process's event loop.

The kernel's protocol is spoken here and not through libfuse: its bindings want a thread a mount or know one mount a
process, and a file system that is only read has a dozen requests. Source: linux/fuse.h, protocol 7.31; libfuse's
documentation of the requests. The mount ends with the descriptor: when the process is gone, readers get ENOTCONN, and the
next start removes the mount point.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import stat
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bastide.engines.lazy import LazyError, Read
from bastide.jail.namespaces import (
    MNT_DETACH,
    MNT_FORCE,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    mount,
    unmount,
)

_log = logging.getLogger("bastide.lazy")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")

_BLOCK: Final = 4 << 20
"""Bytes that are fetched at once."""
_KEPT: Final = 16
"""Blocks that a folder keeps in memory; the kernel's page cache keeps pages beside them."""
_AT_ONCE: Final = 8
"""Blocks of a folder that are being fetched at a time, however many threads of the job read: they lie in our memory."""
_FOREVER: Final = 1 << 30  # seconds: names and sizes never change
_BUFFER: Final = 1 << 17

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _STATFS, _RELEASE = 1, 2, 3, 14, 15, 17, 18
_FLUSH, _INIT, _OPENDIR, _READDIR, _RELEASEDIR, _ACCESS = 25, 26, 27, 28, 29, 34
_INTERRUPT, _DESTROY, _BATCH_FORGET = 36, 38, 42
_CHANGES: Final = frozenset((4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45))
"""SETATTR, SYMLINK, MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK, WRITE, SETXATTR, REMOVEXATTR, CREATE, FALLOCATE, RENAME2."""
_ASYNC_READ, _PARALLEL_DIROPS, _MAX_PAGES = 1 << 0, 1 << 18, 1 << 22
_KEEP_CACHE: Final = 1 << 1

_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")


@dataclass
class _Node:
    """A file, or a folder with what it has."""

    number: int
    path: str
    size: int = 0
    inside: dict[str, _Node] | None = None


@dataclass
class _Folder:
    handle: int
    place: Path
    nodes: list[_Node]
    read: Read
    blocks: OrderedDict[tuple[int, int], asyncio.Task[bytes]] = field(default_factory=OrderedDict)
    answering: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    def forget_old(self) -> None:
        """Keeps the blocks that were used last, and those that are being fetched."""
        for old in list(self.blocks):
            if len(self.blocks) <= _KEPT:
                break
            if self.blocks[old].done():
                del self.blocks[old]


class Fuse:
    """The driver. root: a folder of this platform alone, made if missing (0700)."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[str, _Folder] = {}

    async def mount(self, name: str, files: Mapping[str, int], read: Read) -> Path:
        """See the port."""
        if not _NAME.fullmatch(name):
            raise ValueError("a lazy folder's name has letters, digits, dots, hyphens and underscores")
        if name in self._folders:
            raise ValueError(f"there is a lazy folder {name!r}")
        nodes = _tree(files)
        place = self._root / name
        try:
            place.mkdir(mode=0o700, parents=True)
            self._root.chmod(0o700)
            handle = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise LazyError(f"{name}: {error}") from error
        try:
            told = f"fd={handle},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
            mount("bastide", str(place), "fuse", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, told)
        except OSError as error:
            os.close(handle)
            place.rmdir()
            raise LazyError(f"{name}: {error}") from error
        made = self._folders[name] = _Folder(handle, place, nodes, read)
        asyncio.get_running_loop().add_reader(handle, self._asked, name, made)
        return place

    async def unmount(self, name: str) -> None:
        """See the port."""
        held = self._folders.pop(name, None)
        if held is not None:
            tasks = [*held.answering.values(), *held.blocks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._dead(held)
        await asyncio.to_thread(_removed, self._root / name)

    async def recover(self) -> list[str]:
        """See the port."""
        if not self._root.is_dir():
            return []
        found = sorted(one.name for one in self._root.iterdir() if one.name not in self._folders)
        for name in found:
            await asyncio.to_thread(_removed, self._root / name)
        return found

    @staticmethod
    def _dead(held: _Folder) -> None:
        if held.handle >= 0:
            asyncio.get_running_loop().remove_reader(held.handle)
            os.close(held.handle)  # from now on the kernel answers, with ENOTCONN
            held.handle = -1

    def _asked(self, name: str, held: _Folder) -> None:
        for _ in range(64):
            try:
                asked = os.read(held.handle, _BUFFER)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue  # the asker was interrupted before the request was taken up
                self._dead(held)  # unmounted
                return
            try:
                self._answer(held, asked)
            except Exception:
                _log.exception("a request to %s could not be answered", name)
                self._say(held, _IN.unpack_from(asked)[2], -errno.EIO)

    def _answer(self, held: _Folder, asked: bytes) -> None:
        _, code, unique, number, *_ = _IN.unpack_from(asked)
        body = asked[_IN.size :]
        if code in (_FORGET, _BATCH_FORGET):
            return
        if code == _INTERRUPT:
            task = held.answering.get(struct.unpack_from("<Q", body)[0])
            if task is not None:
                task.cancel()
            return
        if code == _INIT:
            self._say(held, unique, 0, _started(body))
            return
        if code in _CHANGES:
            self._say(held, unique, -errno.EROFS)
            return
        node = held.nodes[number - 1] if 0 < number <= len(held.nodes) else None
        if node is None and code not in (_DESTROY, _STATFS):
            self._say(held, unique, -errno.ESTALE)
            return
        if code == _READ:
            assert node is not None
            _, offset, size = struct.unpack_from("<QQI", body)
            task = asyncio.get_running_loop().create_task(self._read(held, unique, node, offset, size))
            held.answering[unique] = task
            task.add_done_callback(lambda _: held.answering.pop(unique, None))
            return
        self._say(held, unique, *_simple(code, node, body))

    async def _read(self, held: _Folder, unique: int, node: _Node, offset: int, size: int) -> None:
        pieces: list[bytes] = []
        end = min(offset + size, node.size)
        try:
            while offset < end:
                number = offset // _BLOCK
                block = await self._block(held, node, number)
                piece = block[offset - number * _BLOCK : end - number * _BLOCK]
                if not piece:
                    raise OSError(errno.EIO, "less than the file has")
                pieces.append(piece)
                offset += len(piece)
        except asyncio.CancelledError:
            self._say(held, unique, -errno.EINTR)
            raise
        except OSError as error:
            self._say(held, unique, -(error.errno or errno.EIO))
        except Exception:
            _log.exception("%s could not be read", node.path)
            self._say(held, unique, -errno.EIO)
        else:
            self._say(held, unique, 0, b"".join(pieces))

    @staticmethod
    async def _block(held: _Folder, node: _Node, number: int) -> bytes:
        key = (node.number, number)
        task = held.blocks.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            first = number * _BLOCK

            async def fetched() -> bytes:
                async with held.turns:
                    return await held.read(node.path, first, min(first + _BLOCK, node.size))

            task = held.blocks[key] = asyncio.get_running_loop().create_task(fetched())
            task.add_done_callback(lambda _: held.forget_old())
            held.forget_old()
        held.blocks.move_to_end(key)
        return await asyncio.shield(task)

    @staticmethod
    def _say(held: _Folder, unique: int, status: int, content: bytes = b"") -> None:
        if held.handle < 0:
            return
        with contextlib.suppress(OSError):  # ENOENT: nobody waits for it any more
            os.writev(held.handle, [_OUT.pack(_OUT.size + len(content), status, unique), content])


def _tree(files: Mapping[str, int]) -> list[_Node]:
    top = _Node(1, "", inside={})
    nodes = [top]
    for path, size in files.items():
        here = top
        *folders, last = path.split("/")
        for part in (*folders, last):
            if part in ("", ".", "..") or "\0" in part or len(part.encode()) > 255:
                raise ValueError(f"`{path[:200]}` cannot be the name of a file")
        for part in folders:
            assert here.inside is not None
            found = here.inside.get(part)
            if found is None:
                found = here.inside[part] = _Node(len(nodes) + 1, "", inside={})
                nodes.append(found)
            if found.inside is None:
                raise ValueError(f"`{path[:200]}` lies below a file")
            here = found
        assert here.inside is not None
        if last in here.inside:
            raise ValueError(f"`{path[:200]}` occurs twice")
        made = here.inside[last] = _Node(len(nodes) + 1, path, size)
        nodes.append(made)
    return nodes


def _attributes(node: _Node) -> bytes:
    mode = stat.S_IFREG | 0o444 if node.inside is None else stat.S_IFDIR | 0o555
    blocks = -(-node.size // 512)
    return _ATTR.pack(node.number, node.size, blocks, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _started(body: bytes) -> bytes:
    _, minor, ahead, flags = struct.unpack_from("<IIII", body)
    wanted = flags & (_ASYNC_READ | _PARALLEL_DIROPS | _MAX_PAGES)
    return struct.pack(
        "<IIIIHHIIHHII24x", 7, min(minor, 31), max(ahead, 1 << 20), wanted, 64, 48, 4096, 1, 256, 0, 0, 0
    )


def _simple(code: int, node: _Node | None, body: bytes) -> tuple[int, bytes]:
    """Status and content of what can be answered at once."""
    if code == _STATFS:
        return 0, struct.pack("<QQQQQIIII24x", 0, 0, 0, 0, 0, 4096, 255, 4096, 0)
    if node is None:
        return 0, b""
    if code == _LOOKUP:
        found = (node.inside or {}).get(body.split(b"\0", 1)[0].decode("utf-8", "surrogateescape"))
        if found is None:
            return -errno.ENOENT, b""
        return 0, struct.pack("<QQQQII", found.number, 0, _FOREVER, _FOREVER, 0, 0) + _attributes(found)
    if code == _GETATTR:
        return 0, struct.pack("<QII", _FOREVER, 0, 0) + _attributes(node)
    if code in (_OPEN, _OPENDIR):
        if code == _OPEN and struct.unpack_from("<I", body)[0] & os.O_ACCMODE != os.O_RDONLY:
            return -errno.EROFS, b""
        return 0, struct.pack("<QII", 0, _KEEP_CACHE, 0)
    if code == _READDIR:
        _, offset, size = struct.unpack_from("<QQI", body)
        return 0, _listed(node, offset, size)
    if code in (_RELEASE, _RELEASEDIR, _FLUSH, _ACCESS, _DESTROY):
        return 0, b""
    return -errno.ENOSYS, b""


def _listed(node: _Node, offset: int, size: int) -> bytes:
    every = [(".", node), ("..", node), *(node.inside or {}).items()]
    found = b""
    for place, (name, one) in enumerate(every[offset:], offset + 1):
        encoded = name.encode("utf-8", "surrogateescape")
        kind = (stat.S_IFREG if one.inside is None else stat.S_IFDIR) >> 12
        entry = struct.pack("<QQII", one.number, place, len(encoded), kind) + encoded
        entry += b"\0" * (-len(entry) % 8)
        if len(found) + len(entry) > size:
            break
        found += entry
    return found


def _removed(place: Path) -> None:
    for flags in (MNT_FORCE, MNT_DETACH):
        with contextlib.suppress(OSError):
            unmount(str(place), flags)
    with contextlib.suppress(FileNotFoundError):
        place.rmdir()

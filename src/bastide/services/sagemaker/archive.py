"""Archives: made so that the same files give the same bytes, unpacked so that none reaches outside of its folder."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

_MOST_MEMBERS: Final = 100_000
_DEEPEST: Final = 100
"""Folders in each other. What walks deeper meets the limits of paths, of recursion and of open files."""
_CHUNK: Final = 1 << 20
_MOST_HEAD: Final = 4 << 20
"""Bytes that may stand in front of a member: names and attributes are read into memory by tarfile, however long."""

MOVED: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV))
"""What opening says of something that its owner took away or put something else in its place. Everything else says that
the file system does not answer as it should, and then what is there is not known."""


class Unfit(Exception):  # noqa: N818
    """The archive is not one that may be unpacked; the message says why."""


def plain_folder(base: Path, relative: str) -> Path:
    """The folder at `relative` below `base`, whether it is there or not.

    Raises Unfit if something else stands on the way to it: the job owned everything below `base`, and may have left a
    link to where only the platform can read.
    """
    here = base
    for part in relative.split("/"):
        here = here / part
        try:
            mode = here.stat(follow_symlinks=False).st_mode
        except FileNotFoundError:
            break
        if not stat.S_ISDIR(mode):
            raise Unfit(f"`{relative}` is a link or a file, not a folder")
    return base / relative


def opened(base: int, relative: str, flags: int) -> int:
    """A descriptor of what lies at a path below a folder's descriptor; raises OSError, also for a link on the way."""
    *folders, last = relative.split("/")
    here = os.dup(base)
    try:
        for part in folders:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        return os.open(last, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)


def regular(top: int, *, most_bytes: int) -> Iterator[tuple[str, os.stat_result]]:
    """The regular files below a folder's descriptor, with their names in it; whoever owns the folder may change it
    meanwhile. Links, devices and what vanishes are left out.

    Raises OSError where the file system does not answer. Raises Unfit for more than `most_bytes` as they are read: files
    with holes take no room on their volume, and all of it where they are copied to. And for more names than anybody could
    use, folders that are too deep, and names that are no text.
    """
    left, names = most_bytes, 0
    waiting = ["."]
    while waiting:
        folder = waiting.pop()
        try:
            here = opened(top, folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno not in MOVED:
                raise
            continue
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    names += 1
                    if names > _MOST_MEMBERS:
                        raise Unfit(f"it holds more than {_MOST_MEMBERS} files")
                    with contextlib.suppress(FileNotFoundError):
                        told = entry.stat(follow_symlinks=False)
                        inside = stat.S_ISDIR(told.st_mode)
                        if not inside and not stat.S_ISREG(told.st_mode):
                            continue
                        path = entry.name if folder == "." else f"{folder}/{entry.name}"
                        if not _is_text(entry.name):
                            raise Unfit(f"the name {os.fsencode(path)[-200:]!r} in it is not UTF-8")
                        if inside:
                            if path.count("/") > _DEEPEST:
                                raise Unfit(f"its folders are more than {_DEEPEST} deep")
                            waiting.append(path)
                            continue
                        left -= told.st_size
                        if left < 0:
                            raise Unfit(f"it holds more than {most_bytes} bytes")
                        yield path, told
        finally:
            os.close(here)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def files(folder: Path, *, most_bytes: int) -> list[tuple[str, Path]]:
    """The regular files below a folder (see `plain_folder`) with their names in it, sorted; none if it is not there. Raises
    Unfit (see `regular`)."""
    try:
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        return sorted((name, folder / name) for name, _ in regular(top, most_bytes=most_bytes))
    finally:
        os.close(top)


def pack(every: Sequence[tuple[str, Path]], target: Path) -> None:
    """Writes files (see `files`) to a ``.tar.gz``. Times and owners are left out.

    Raises OSError, ENOSPC where there is no room for it.
    """
    try:
        _pack(every, target)
    except OSError as error:
        # Closing what could not be written fails too, of a block half written even with EIO: the first reason counts.
        first: BaseException = error
        while isinstance(first.__context__, OSError):
            first = first.__context__
        raise first from None


def _pack(every: Sequence[tuple[str, Path]], target: Path) -> None:
    with (
        target.open("xb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, path in every:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as file:
                told = os.fstat(handle)
                info = tarfile.TarInfo(name)
                info.size = told.st_size
                info.mode = 0o755 if told.st_mode & 0o111 else 0o644
                tar.addfile(info, file)


class _Bounded(gzip.GzipFile):
    """What tarfile reads from: it may read `left` bytes before somebody allows more."""

    left = _MOST_HEAD

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes; raises Unfit beyond `left`."""
        if size is None or size < 0 or size > self.left:
            raise Unfit(f"a name or an attribute in it is longer than {_MOST_HEAD} bytes")
        self.left -= size
        return super().read(size)


def unpack(path: Path, folder: Path, *, most_bytes: int) -> None:
    """Unpacks a ``.tar.gz`` of plain files and folders into `folder`.

    Raises Unfit for links, devices, names that lead outside, and more than `most_bytes` (a small archive can hold a lot).
    """
    left = most_bytes
    members = 0
    try:
        with _Bounded(path, "rb") as bounded, tarfile.open(fileobj=bounded, mode="r:") as tar:
            while True:
                bounded.left = _MOST_HEAD
                if (info := tar.next()) is None:
                    break
                members += 1
                if members > _MOST_MEMBERS:
                    raise Unfit(f"it holds more than {_MOST_MEMBERS} files")
                if info.size < 0:  # tarfile goes back by as much, and would read the same members without end
                    raise Unfit(f"`{info.name[:200]}` has less than no bytes")
                parts = [part for part in info.name.split("/") if part not in ("", ".")]
                if info.name.startswith("/") or ".." in parts or any("\0" in part for part in parts):
                    raise Unfit(f"`{info.name[:200]}` leads outside of the model's folder")
                target = folder.joinpath(*parts)
                if info.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                if not info.isreg():
                    raise Unfit(f"`{info.name[:200]}` is a link or a device; only plain files and folders may be in it")
                left -= info.size
                if left < 0:
                    raise Unfit(f"it unpacks to more than {most_bytes} bytes")
                target.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(info)
                assert source is not None
                mode = 0o755 if info.mode & 0o111 else 0o644
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
                with os.fdopen(os.open(target, flags, mode), "wb") as file:
                    while piece := source.read(_CHUNK):
                        bounded.left = _MOST_HEAD
                        file.write(piece)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Unfit(f"it is not a tar.gz archive ({type(error).__name__})") from None

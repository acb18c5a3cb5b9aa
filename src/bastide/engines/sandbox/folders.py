"""Folders that strangers fill: a sandbox that wrote there and may still, archives that are unpacked over one another.

They are read and written without following a link to where only the platform gets. A link that leads below a folder when it
is looked at by itself can lead out of it by way of another one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MOST_NAMES: Final = 100_000
_DEEPEST: Final = 100
"""Folders in each other. What walks deeper meets the limits of paths, of recursion and of open files."""

MOVED: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV))
"""What opening says of something that its owner took away or put something else in its place. Everything else says that
the file system does not answer as it should, and then what is there is not known."""


_ONE: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_FOLDER: Final = (errno.ENOTDIR, errno.ELOOP)


class Unfit(Exception):  # noqa: N818
    """A folder or an archive is not one that may be used; the message says why."""


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
            below = os.open(part, _ONE, dir_fd=here)
            os.close(here)
            here = below
        return os.open(last, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)


def top_of(folder: Path) -> int:
    """A descriptor of a folder that is no link; raises OSError."""
    return os.open(folder, _ONE)


def made_folder(top: int, path: str, *, replacing: bool = False, mode: int | None = None) -> int:
    """A descriptor of a folder below a folder's descriptor, made with those above it where they are not there. path:
    relative, without ``.`` and ``..``; empty for `top` itself. replacing: a link or a file on the way is taken away.
    mode: of all of them. Raises NotADirectoryError for a link or a file."""
    here = os.dup(top)
    try:
        for part in path.split("/") if path else ():
            below = _below(here, part, replacing)
            os.close(here)
            here = below
            if mode is not None:
                os.fchmod(here, mode)
    except BaseException:
        os.close(here)
        raise
    return here


def _below(here: int, part: str, replacing: bool) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(part, 0o755, dir_fd=here)
    try:
        return os.open(part, _ONE, dir_fd=here)
    except OSError as error:
        if error.errno not in _NO_FOLDER:
            raise
        if not replacing:
            raise NotADirectoryError(errno.ENOTDIR, "it is a link or a file", part) from None
    os.unlink(part, dir_fd=here)
    os.mkdir(part, 0o755, dir_fd=here)
    return os.open(part, _ONE, dir_fd=here)


def regular(
    top: int, *, most_bytes: int | None = None, most_names: int = MOST_NAMES
) -> Iterator[tuple[str, os.stat_result]]:
    """The regular files below a folder's descriptor, with their names in it; whoever owns the folder may change it
    meanwhile. Links, devices and what vanishes are left out.

    Raises OSError where the file system does not answer. Raises Unfit for more than `most_bytes` as they are read: files
    with holes take no room on their volume, and all of it where they are copied to. And for more names than anybody could
    use, folders that are too deep, and names that are no text.
    """
    read = names = 0
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
                    if names > most_names:
                        raise Unfit(f"it holds more than {most_names} files")
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
                        read += told.st_size
                        if most_bytes is not None and read > most_bytes:
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

"""Folders below one whose content strangers' archives make: made and opened one after the other, no link followed.

A link that leads below such a folder when it is looked at by itself can lead out of it by way of another one; and what one
archive put there, the next one would write through.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_FOLDER: Final = (errno.ENOTDIR, errno.ELOOP)


def top_of(folder: Path) -> int:
    """A descriptor of a folder that is no link."""
    return os.open(folder, _FOLDER)


def made(top: int, path: str, *, replacing: bool = False, mode: int | None = None) -> int:
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
        return os.open(part, _FOLDER, dir_fd=here)
    except OSError as error:
        if error.errno not in _NO_FOLDER:
            raise
        if not replacing:
            raise NotADirectoryError(errno.ENOTDIR, "it is a link or a file", part) from None
    os.unlink(part, dir_fd=here)
    os.mkdir(part, 0o755, dir_fd=here)
    return os.open(part, _FOLDER, dir_fd=here)

"""Archives: made so that the same files give the same bytes, unpacked so that none reaches outside of its folder."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zlib
from pathlib import Path
from typing import Final

_MOST_MEMBERS: Final = 100_000
_CHUNK: Final = 1 << 20


class Unfit(Exception):  # noqa: N818
    """The archive is not one that may be unpacked; the message says why."""


def files(folder: Path) -> list[tuple[str, Path]]:
    """The regular files below a folder with their names in it, sorted; links and devices are left out."""
    found: list[tuple[str, Path]] = []
    for root, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        for name in names:
            path = Path(root) / name
            if stat.S_ISREG(path.stat(follow_symlinks=False).st_mode):
                found.append((str(path.relative_to(folder)), path))
    return sorted(found)


def pack(folder: Path, target: Path) -> int:
    """Writes the regular files below `folder` to a ``.tar.gz``; returns how many. Times and owners are left out."""
    every = files(folder)
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
    return len(every)


def unpack(path: Path, folder: Path, *, most_bytes: int) -> None:
    """Unpacks a ``.tar.gz`` of plain files and folders into `folder`.

    Raises Unfit for links, devices, names that lead outside, and more than `most_bytes` (a small archive can hold a lot).
    """
    left = most_bytes
    members = 0
    try:
        with tarfile.open(path, "r:gz") as tar:
            for info in tar:
                members += 1
                if members > _MOST_MEMBERS:
                    raise Unfit(f"it holds more than {_MOST_MEMBERS} files")
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
                        file.write(piece)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Unfit(f"it is not a tar.gz archive ({type(error).__name__})") from None

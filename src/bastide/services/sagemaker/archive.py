"""Archives: made so that the same files give the same bytes, unpacked so that none reaches outside of its folder."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bastide.engines.sandbox.folders import MOST_NAMES, MOVED, Unfit, opened, plain_folder, regular, top_of

__all__ = ["MOVED", "Unfit", "files", "opened", "pack", "plain_folder", "regular", "unpack"]

_CHUNK: Final = 1 << 20
_MOST_HEAD: Final = 4 << 20
"""Bytes that may stand in front of a member: names and attributes are read into memory by tarfile, however long."""


def files(folder: Path, *, most_bytes: int) -> list[tuple[str, Path]]:
    """The regular files below a folder (see `plain_folder`) with their names in it, sorted; none if it is not there. Raises
    Unfit (see `regular`)."""
    try:
        top = top_of(folder)
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
                if members > MOST_NAMES:
                    raise Unfit(f"it holds more than {MOST_NAMES} files")
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

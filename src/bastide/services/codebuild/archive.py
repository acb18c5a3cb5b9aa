"""Archives and folders that strangers made: unpacked so that nothing reaches outside, read without following a link."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from bastide.engines import zips
from bastide.engines.sandbox.folders import Unfit, made_folder, opened, regular, top_of

__all__ = ["Glob", "Unfit", "flattened", "opened", "pack", "select", "text_of", "top_of", "unpack"]

_CHUNK: Final = 1 << 20
_MOST_ENTRIES: Final = 65_536
_DEEPEST: Final = 100
_MOST_WORK: Final = 200_000_000
"""Of comparing names with patterns: characters of the ones by characters of the others."""


# -- zip -----------------------------------------------------------------------------------------------------------------


def unpack(path: Path, folder: Path, *, most_bytes: int) -> None:
    """Unpacks a .zip into a folder of ours, which others may have been unpacked into; raises Unfit for devices, names and
    links that lead outside, and more than `most_bytes` (a small archive can hold a lot). Links are made last, and nothing
    is written behind one."""
    top = top_of(folder)
    try:
        _unpack(path, top, most_bytes)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        raise Unfit(f"it is no .zip archive that can be read ({type(error).__name__})") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise Unfit("a name in it is both a file and a folder") from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise Unfit("a name in it is too long") from None
    finally:
        os.close(top)


def _unpack(path: Path, top: int, most_bytes: int) -> None:
    left, links, names = most_bytes, dict[str, str](), list[str]()
    with path.open("rb") as packed, zips.opened(packed, _MOST_ENTRIES) as archive:
        entries = archive.infolist()
        if len(entries) > _MOST_ENTRIES:
            raise Unfit(f"it holds more than {_MOST_ENTRIES} files")
        for entry in entries:
            name = _plain(entry.filename)
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if entry.is_dir():
                os.close(made_folder(top, name))
                continue
            if kind not in (0, stat.S_IFREG, stat.S_IFLNK):
                raise Unfit(f"`{name[:200]}` in it is a device: only files, folders and links may be in it")
            if entry.flag_bits & 1:
                raise Unfit(f"`{name[:200]}` in it is encrypted")
            names.append(name)
            if kind == stat.S_IFLNK:
                links[name] = _target(archive, entry, name)
                continue
            mode = 0o755 if (entry.external_attr >> 16) & 0o111 else 0o644
            with archive.open(entry) as source, os.fdopen(_created(top, name, mode), "wb") as file:
                while piece := source.read(_CHUNK):
                    left -= len(piece)
                    if left < 0:
                        raise Unfit(f"it unpacks to more than {most_bytes} bytes")
                    file.write(piece)

    for name in names:
        parts = name.split("/")
        if any("/".join(parts[:count]) in links for count in range(1, len(parts))):
            raise Unfit(f"`{name[:200]}` in it lies behind a link")
    for name, led in links.items():
        above = made_folder(top, posixpath.dirname(name))
        try:
            os.symlink(led, posixpath.basename(name), dir_fd=above)
        finally:
            os.close(above)


def _created(top: int, name: str, mode: int) -> int:
    above = made_folder(top, posixpath.dirname(name))
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(posixpath.basename(name), flags, mode, dir_fd=above)
    finally:
        os.close(above)


def _target(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> str:
    """Where a link leads, which is within the archive."""
    if entry.file_size > 4096:
        raise Unfit(f"the link `{name[:200]}` in it is too long")
    with archive.open(entry) as source:
        target = os.fsdecode(source.read(4097))
    led = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    if not target or "\0" in target or target.startswith("/") or led.split("/")[0] == "..":
        raise Unfit(f"the link `{name[:200]}` in it leads out of the archive's folder")
    return target


def _plain(given: str) -> str:
    parts = given.rstrip("/").split("/")
    if given.startswith("/") or "\\" in given:
        raise Unfit(f"`{given[:200]!r}` leads out of the archive's folder")
    for part in parts:
        if part in ("", ".", "..") or len(os.fsencode(part)) > 255 or any(ord(char) < 32 for char in part):
            raise Unfit(f"`{given[:200]!r}` leads out of the archive's folder")
    if len(parts) > _DEEPEST:
        raise Unfit(f"its folders are more than {_DEEPEST} deep")
    return "/".join(parts)


# -- folderss -------------------------------------------------------------------------------------------------------------


class Glob:
    """A pattern of paths: ``*`` and ``?`` within a folder, ``**`` for any folders, or at the end for all below. What it
    costs to compare grows with the lengths alone, whoever wrote it."""

    def __init__(self, pattern: str) -> None:
        parts = [one for one in pattern.split("/") if one not in ("", ".")]
        self._parts = [one for at, one in enumerate(parts) if one != "**" or at == 0 or parts[at - 1] != "**"]
        self.plain = not any(char in pattern for char in "*?")

    def matches(self, path: str) -> bool:
        """Whether a path is meant, the whole of it."""
        return len(path.split("/")) in self.ends(path)

    def ends(self, path: str) -> set[int]:
        """After how many of a path's parts the pattern can be at its end."""
        parts = path.split("/")
        here = {0}
        for at, one in enumerate(self._parts):
            if one == "**":
                first = min(here, default=len(parts) + 1) + (at == len(self._parts) - 1)
                here = set(range(first, len(parts) + 1))
            else:
                here = {place + 1 for place in here if place < len(parts) and _like(one, parts[place])}
        return here


def _like(pattern: str, text: str) -> bool:
    """Whether a name is like a pattern of ``*`` and ``?``; goes back to the last star alone."""
    at = here = 0
    star, behind = -1, 0
    while here < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, behind, at = at, here, at + 1
        elif at < len(pattern) and pattern[at] in ("?", text[here]):
            at, here = at + 1, here + 1
        elif star >= 0:
            behind += 1
            at, here = star + 1, behind
        else:
            return False
    return all(char == "*" for char in pattern[at:])


def select(top: int, base: str, patterns: Sequence[str], exclude: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The files that patterns mean, by their names: as they are called below the base, and as they lie below `top`.
    Raises Unfit."""
    wanted, spared = [Glob(one) for one in patterns], [Glob(one) for one in exclude]
    # A name without a star that is a folder's means all that is in it.
    wanted += [Glob(f"{one.rstrip('/')}/**") for one in patterns if Glob(one).plain]
    below = Glob(base) if base and base != "." else None
    found, work, lengths = [], 0, sum(map(len, (*patterns, *exclude, base)))
    for path, _ in regular(top, most_names=2 * _MOST_ENTRIES):
        work += len(path) * lengths
        if work > _MOST_WORK:
            raise Unfit("the patterns and the files are too many to be compared")
        names = [path]
        if below is not None:
            parts = path.split("/")
            names = ["/".join(parts[at:]) for at in sorted(below.ends(path)) if at < len(parts)]
        for name in names[:1]:
            if any(one.matches(name) for one in wanted) and not any(one.matches(name) for one in spared):
                found.append((name, path))
    return sorted(found)


def flattened(files: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Files by their last names alone; raises Unfit for two of the same."""
    found: dict[str, str] = {}
    for name, path in files:
        last = name.rpartition("/")[2]
        if last in found:
            raise Unfit(f"discard-paths: there are two files `{last[:200]}`")
        found[last] = path
    return sorted(found.items())


def pack(top: int, files: Sequence[tuple[str, str]], target: Path, *, most_bytes: int) -> None:
    """Writes files to a .zip: the same files give the same bytes. Raises Unfit and OSError."""
    left = most_bytes
    with target.open("xb") as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as made:
        for name, path in files:
            handle = opened(top, path, os.O_RDONLY)
            with os.fdopen(handle, "rb") as file:
                told = os.fstat(handle)
                if not stat.S_ISREG(told.st_mode):
                    raise Unfit(f"`{name[:200]}` is no plain file")
                info = zipfile.ZipInfo(name)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = (stat.S_IFREG | (0o755 if told.st_mode & 0o111 else 0o644)) << 16
                with made.open(info, "w", force_zip64=told.st_size >= 1 << 31) as into:
                    left = _copied(file, into, left)


def _copied(file: IO[bytes], into: IO[bytes], left: int) -> int:
    while piece := file.read(_CHUNK):
        left -= len(piece)
        if left < 0:
            raise Unfit("the files are larger than the build's disk")
        into.write(piece)
    return left


def text_of(top: int, relative: str, most: int) -> bytes | None:
    """The beginning of a plain file below a folder's descriptor; None if it is not there, or no plain file."""
    try:
        handle = opened(top, relative, os.O_RDONLY)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        return file.read(most)

"""Layers of an image, laid over each other in a folder. What is in them is hostile.

Every path is resolved by the kernel as if the folder were the root (openat2, RESOLVE_IN_ROOT), so no link and no ``..``
leads out of it. Devices and FIFOs are left out: a sandbox has its own. Of modes only the owner's bits count, for everybody:
in a sandbox there is one user, who owns what the image's user would; setuid means nothing there.

Source: OCI Image Format Specification 1.1, "Image Layer Filesystem Changeset".
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gzip
import hashlib
import os
import shutil
import stat
import tarfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

_OPENAT2: Final = 437  # the same number on every architecture; linux/openat2.h
_TRIES: Final = 1000
_PAUSE: Final = 0.00002
_IN_ROOT: Final = 0x10 | 0x02  # RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS
_LONGEST_HEADER: Final = 1 << 20
_LONGEST_PATH: Final = 4000
_LONGEST_NAME: Final = 255
_DEEPEST: Final = 128
_MOST_ENTRIES: Final = 1_000_000
_CHUNK: Final = 1 << 20
RATIO: Final = 200
"""A layer may unpack to so many times its size, and some more: gzip itself could do a thousand times."""
SPARE: Final = 64 << 20
WHITEOUT: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Unfit(Exception):  # noqa: N818
    """The image cannot be used; the message tells why, for whoever brought it."""


class Member(tarfile.TarInfo):
    """Headers are read into memory, so they are bounded; a negative size would make the reader run in circles."""

    def _proc_member(self, archive: Any) -> Any:
        heads = (tarfile.XHDTYPE, tarfile.XGLTYPE, b"X", tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if self.size < 0 or (self.type in heads and self.size > _LONGEST_HEADER):
            raise Unfit("a layer has a header of an impossible size")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise Unfit("a layer has a sparse file, which is not supported")
        return super()._proc_member(archive)  # type: ignore[misc]


class Plain:
    """The bytes of a layer unpacked, counted and hashed."""

    def __init__(self, source: IO[bytes], most: int) -> None:
        self._source = source
        self._left = most
        self._seen = hashlib.sha256()

    def read(self, size: int) -> bytes:
        try:
            data = self._source.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Unfit(f"a layer is not whole: {error}") from None
        self._left -= len(data)
        if self._left < 0:
            raise Unfit("a layer unpacks to more than an image may have")
        self._seen.update(data)
        return data

    def digest(self) -> str:
        """Of everything, what was not looked at included."""
        while self.read(_CHUNK):
            pass
        return f"sha256:{self._seen.hexdigest()}"


class Root:
    """A folder that layers are put into. most_bytes: of all of them."""

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        self.handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.size = 0
        """Bytes of the files that were put into it."""
        self._most = most_bytes
        self._entries = 0

    def close(self) -> None:
        """Lets go of the folder."""
        os.close(self.handle)

    # -- paths inside ------------------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        """openat2 with the folder as the root; raises OSError."""
        how = (ctypes.c_uint64 * 3)(flags | os.O_CLOEXEC, 0, _IN_ROOT)
        for again in range(_TRIES):
            found = int(
                _libc.syscall(
                    ctypes.c_long(_OPENAT2),
                    ctypes.c_int(self.handle),
                    ctypes.c_char_p(os.fsencode(path or ".")),
                    how,
                    ctypes.c_size_t(ctypes.sizeof(how)),
                )
            )
            if found >= 0:
                return found
            # While anybody on the machine renames or mounts, the kernel cannot tell where ``..`` leads, and says so.
            if ctypes.get_errno() != errno.EAGAIN:
                break
            time.sleep(again * _PAUSE)
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)

    @contextlib.contextmanager
    def folder(self, path: str, *, make: bool = False) -> Iterator[int]:
        """A folder inside, made with those above if it is not there; raises Unfit."""
        handle = -1
        try:
            try:
                handle = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                if not make or not path:
                    raise
                above, _, name = path.rpartition("/")
                with self.folder(above, make=True) as parent:
                    os.mkdir(name, 0o777, dir_fd=parent)
                    os.chmod(name, 0o777, dir_fd=parent)  # noqa: S103 - only a sandbox sees it
                handle = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise Unfit(f"a layer's path cannot be followed: {path[:200]}: {error.strerror}") from None
        try:
            yield handle
        finally:
            os.close(handle)

    def text(self, path: str, most: int) -> str:
        """A small file inside; empty if it is not there or no file."""
        try:
            handle = self.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return ""
        with os.fdopen(handle, "rb") as file:
            return file.read(most).decode(errors="replace") if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else ""

    # -- layers ------------------------------------------------------------------------------------------------------------

    def put(self, layer: Path, media: str) -> str:
        """Lays a layer over what is there; the digest of it unpacked. Raises Unfit."""
        size = layer.stat().st_size
        most = min(self._most - self.size + SPARE, size * RATIO + SPARE)
        with layer.open("rb") as packed:
            if "zstd" in media:
                raise Unfit("layers compressed with zstd are not supported; push it with gzip")
            head = packed.read(2)
            packed.seek(0)
            source: IO[bytes] = gzip.GzipFile(fileobj=packed) if head == b"\x1f\x8b" else packed  # type: ignore[assignment]
            plain = Plain(source, most)
            try:
                with tarfile.open(fileobj=plain, mode="r|", tarinfo=Member, bufsize=_CHUNK) as archive:  # type: ignore[call-overload]
                    made: set[str] = set()
                    for member in archive:
                        self._entry(archive, member, made)
            except tarfile.TarError as error:
                raise Unfit(f"a layer is not a tar archive: {error}") from None
            except (ValueError, OverflowError, RecursionError) as error:
                raise Unfit(f"a layer cannot be read: {error}") from None
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise Unfit("there is no room for the image") from None
                raise Unfit(f"a layer cannot be unpacked: {error.strerror}") from None
            return plain.digest()

    def _entry(self, archive: tarfile.TarFile, member: tarfile.TarInfo, made: set[str]) -> None:
        self._entries += 1
        if self._entries > _MOST_ENTRIES:
            raise Unfit(f"it has more than {_MOST_ENTRIES} files")
        path = path_of(member.name)
        if not path:
            return
        above, _, name = path.rpartition("/")
        with self.folder(above, make=True) as parent:
            if name == OPAQUE and path not in made:
                made.add(path)  # once more would take away nothing more
                for child in os.listdir(parent):  # noqa: PTH208 - of a descriptor
                    if f"{above}/{child}".lstrip("/") not in made:
                        _remove(child, parent)
            elif name == OPAQUE:
                pass
            elif name.startswith(WHITEOUT):
                hidden = name.removeprefix(WHITEOUT)
                if hidden in ("", ".", ".."):
                    raise Unfit(f"a layer takes away what has no name: {path[:200]}")
                _remove(hidden, parent)
            else:
                self._make(archive, member, name, parent)
                while path and path not in made:
                    made.add(path)
                    path = path.rpartition("/")[0]

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, parent: int) -> None:
        bits = member.mode >> 6 & 7
        mode = bits * 0o111
        if member.isdir():
            try:
                there = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
            except FileNotFoundError:
                there = False
            if not there:
                _remove(name, parent)
                os.mkdir(name, dir_fd=parent)
            handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                os.fchmod(handle, mode)
            finally:
                os.close(handle)
            return
        if member.ischr() or member.isblk() or member.isfifo():
            _remove(name, parent)
            return
        if member.issym():
            if not member.linkname or "\0" in member.linkname or len(os.fsencode(member.linkname)) > _LONGEST_PATH:
                raise Unfit("a layer has a link to what is no path")
            _remove(name, parent)
            os.symlink(member.linkname, name, dir_fd=parent)
        elif member.islnk():
            self._link(path_of(member.linkname), name, parent)
        elif member.isreg():
            _remove(name, parent)
            self.size += member.size
            if self.size > self._most:
                raise Unfit("it unpacks to more than an image may have")
            content = archive.extractfile(member)
            assert content is not None
            handle = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent
            )
            with os.fdopen(handle, "wb") as file:
                shutil.copyfileobj(content, file, _CHUNK)
                os.fchmod(file.fileno(), mode)
                file.flush()
                # What Python compiled is good for a source of that very time.
                at = min(max(0, int(member.mtime)), 1 << 33)
                os.utime(file.fileno(), (at, at))
        else:
            raise Unfit(f"a layer has an entry of an unknown kind: {member.name[:200]}")

    def _link(self, target: str, name: str, parent: int) -> None:
        above, _, last = target.rpartition("/")
        with self.folder(above) as there:
            try:
                kind = os.stat(last, dir_fd=there, follow_symlinks=False).st_mode
            except OSError:
                kind = 0
            if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
                raise Unfit(f"a layer links to what is no file of it: {target[:200]}")
            # Linking a name to itself would remove what is to be linked.
            if os.path.samestat(os.fstat(there), os.fstat(parent)) and last == name:
                return
            _remove(name, parent)
            os.link(last, name, src_dir_fd=there, dst_dir_fd=parent, follow_symlinks=False)


def path_of(name: str) -> str:
    """The path of an entry, without what stands before it; raises Unfit for one that leads upwards."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise Unfit(f"a layer has a path that leads upwards: {name[:200]}")
    if len(os.fsencode(name)) > _LONGEST_PATH or any(len(os.fsencode(one)) > _LONGEST_NAME for one in parts):
        raise Unfit("a layer has a path that is too long")
    if len(parts) > _DEEPEST:
        raise Unfit(f"a layer has a path of more than {_DEEPEST} folders")
    return "/".join(parts)


def _remove(name: str, parent: int) -> None:
    """Whatever is there, following nothing."""
    try:
        kind = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(kind):
        shutil.rmtree(name, dir_fd=parent)
    else:
        os.unlink(name, dir_fd=parent)

"""Which packages an image has, read from its layers as they stream past: nothing is unpacked, run, or written anywhere.

Looked at are the databases of dpkg and apk, and the metadata of Python distributions. Later layers replace and take away
what earlier ones brought. What is in them is hostile: whatever does not read as a package is none, and all is bounded.
Source: deb-control(5), Alpine's package database format, Core metadata, OCI Image Format Specification 1.1.
"""

from __future__ import annotations

import bisect
import gzip
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

from bastide.engines.images.layers import OPAQUE, RATIO, SPARE, WHITEOUT, Member, Plain, Unfit, path_of

_DPKG: Final = "var/lib/dpkg/status"
_APK: Final = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_RELEASE: Final = ("etc/os-release", "usr/lib/os-release")
_RPM: Final = ("var/lib/rpm/", "usr/lib/sysimage/rpm/")
_PYTHON: Final = re.compile(r"[^/]+\.dist-info/METADATA|[^/]+\.egg-info/PKG-INFO")
_MOST_FILE: Final = 64 << 20
_MOST_METADATA: Final = 64 << 10
_MOST_HELD: Final = 256 << 20
_MOST_BYTES: Final = 32 << 30
_MOST_ENTRIES: Final = 2_000_000
_MOST_PACKAGES: Final = 50_000
_MOST_FILES: Final = 20_000
"""Of those that may tell of packages."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,200}")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~!_-]{0,200}")


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """kind: deb, apk or pypi. source: the package that advisories name, of distributions that build several from one."""

    kind: str
    name: str
    version: str
    source: str = ""
    source_version: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class System:
    """The distribution that an image is of, as os-release says it; empty where there is none."""

    id: str = ""
    version: str = ""
    name: str = ""


class _Counted:
    """A source that is read no further than an image may reach."""

    def __init__(self, plain: Plain) -> None:
        self.read = plain.read


class Inventory:
    """Takes layers in, the lowest first; then `packages` and `system` tell."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._names: list[str] = []
        """Of the files, in order: what lies below a folder stands together."""
        self._cleared: set[str] = set()
        """Folders below which a layer has left nothing but its own: doing so again would do nothing, however often."""
        self._held = 0
        self._entries = 0
        self._left = _MOST_BYTES
        self.rpm = False
        """Whether there is a database of rpm, which is not read."""

    def put(self, source: IO[bytes], media: str, size: int) -> None:
        """Lays a layer over what there is; raises Unfit. size: of it as it lies. Blocks."""
        if "zstd" in media:
            raise Unfit("layers compressed with zstd are not read; push it with gzip")
        opened: Any = gzip.GzipFile(fileobj=source) if "gzip" in media else source
        plain = Plain(opened, min(self._left, size * RATIO + SPARE))
        made: set[str] = set()
        self._cleared.clear()
        try:
            with tarfile.open(fileobj=_Counted(plain), mode="r|", tarinfo=Member, bufsize=1 << 20) as archive:  # type: ignore[call-overload]
                for member in archive:
                    self._entry(archive, member, made)
        except tarfile.TarError as error:
            raise Unfit(f"a layer is not a tar archive: {error}") from None
        except (ValueError, OverflowError, RecursionError, OSError) as error:
            raise Unfit(f"a layer cannot be read: {error}") from None

    def _entry(self, archive: tarfile.TarFile, member: tarfile.TarInfo, made: set[str]) -> None:
        self._entries += 1
        if self._entries > _MOST_ENTRIES:
            raise Unfit(f"it has more than {_MOST_ENTRIES} files")
        self._left -= 512 + max(0, member.size)
        if self._left < 0:
            raise Unfit("it unpacks to more than an image may have")
        path = path_of(member.name)
        above, _, name = path.rpartition("/")
        if name == OPAQUE:
            self._forget(f"{above}/" if above else "", made)
        elif name.startswith(WHITEOUT):
            hidden = f"{above}/{name.removeprefix(WHITEOUT)}".lstrip("/")
            self._drop(hidden)
            self._forget(f"{hidden}/", set())
        elif member.isdir():
            self._drop(path)
        else:
            self._drop(path)
            self._forget(f"{path}/", made)  # a file where a folder was
            self.rpm = self.rpm or path.startswith(_RPM)
            most = _wanted(path)
            if most and member.isreg():
                content = archive.extractfile(member)
                assert content is not None
                data = content.read(most)
                self._held += len(data)
                if self._held > _MOST_HELD or len(self._files) >= _MOST_FILES:
                    raise Unfit("its package databases are larger than any")
                self._files[path] = data
                bisect.insort(self._names, path)
                made.add(path)

    def _drop(self, path: str) -> None:
        gone = self._files.pop(path, None)
        if gone is not None:
            self._held -= len(gone)
            del self._names[bisect.bisect_left(self._names, path)]

    def _forget(self, below: str, kept: set[str]) -> None:
        if kept and below in self._cleared:
            return
        found = []
        for at in range(bisect.bisect_left(self._names, below), len(self._names)):
            if not self._names[at].startswith(below):
                break
            found.append(self._names[at])
        if kept and found:
            self._cleared.add(below)
        for path in found:
            if path not in kept:
                self._drop(path)

    # -- what it has ---------------------------------------------------------------------------------------------------

    @property
    def system(self) -> System:
        """The distribution."""
        told: dict[str, str] = {}
        for path in _RELEASE:
            if path in self._files:
                for line in self._files[path][:8192].decode("utf-8", "replace").splitlines():
                    key, _, value = line.partition("=")
                    told.setdefault(key.strip(), value.strip().strip("\"'")[:100])
                break
        if not re.fullmatch(r"[a-z0-9._-]{1,50}", told.get("ID", "")):
            return System()
        version = told.get("VERSION_ID", "")
        return System(told["ID"], version if _VERSION.fullmatch(version) else "", told.get("PRETTY_NAME", ""))

    def packages(self) -> list[Package]:
        """All packages, in order; raises Unfit for more than any image has."""
        found: set[Package] = set()
        for path, raw in self._files.items():
            text = raw.decode("utf-8", "replace")
            if path.startswith(_DPKG):
                found.update(_dpkg(text))
            elif path in _APK:
                found.update(_apk(text))
            elif path not in _RELEASE:
                found.update(_python(text, path))
            if len(found) > _MOST_PACKAGES:
                raise Unfit(f"it has more than {_MOST_PACKAGES} packages")
        return sorted(found)


def _wanted(path: str) -> int:
    """How many bytes of a file are looked at."""
    if path in (_DPKG, *_APK) or (path.startswith(f"{_DPKG}.d/") and not path.endswith(".md5sums")):
        return _MOST_FILE
    if path in _RELEASE:
        return 8192
    parts = path.rsplit("/", 2)[-2:]
    return _MOST_METADATA if len(parts) == 2 and _PYTHON.fullmatch("/".join(parts)) else 0


def _paragraphs(text: str, mark: str) -> Iterator[dict[str, str]]:
    """Paragraphs of `Key: value` lines; what is folded into further lines is left out."""
    told: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            if told:
                yield told
            told = {}
        elif line[0] not in " \t":
            key, found, value = line.partition(mark)
            if found:
                told.setdefault(key, value.strip()[:500])
    if told:
        yield told


def _legal(name: str, version: str) -> bool:
    return bool(_NAME.fullmatch(name) and _VERSION.fullmatch(version))


def _dpkg(text: str) -> Iterator[Package]:
    for one in _paragraphs(text, ":"):
        name, version = one.get("Package", ""), one.get("Version", "")
        status = one.get("Status", "install ok installed").split()
        if not _legal(name, version) or status[-1:] != ["installed"]:
            continue
        source, _, rest = one.get("Source", name).partition(" ")
        source_version = rest.strip("() ") or version
        if not _legal(source, source_version):
            source, source_version = name, version
        yield Package("deb", name, version, source, source_version)


def _apk(text: str) -> Iterator[Package]:
    for one in _paragraphs(text, ":"):
        name, version = one.get("P", ""), one.get("V", "")
        if _legal(name, version):
            source = one.get("o", name)
            yield Package("apk", name, version, source if _NAME.fullmatch(source) else name, version)


def _python(text: str, path: str) -> Iterator[Package]:
    one = next(_paragraphs(text, ":"), {})
    name, version = one.get("Name", ""), one.get("Version", "")
    if _legal(name, version):
        normal = re.sub(r"[-_.]+", "-", name).lower()
        yield Package("pypi", normal, version, normal, version, path)

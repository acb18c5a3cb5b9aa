"""The public package index as the platform's operator gives it: a mirror of files on this machine, an index over the
network, or both; the mirror comes first. Nothing here trusts what it gets: every file has a SHA-256 before it is asked for.

Source: PEP 503, PEP 691 (simple repository API).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import asdict, dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

_ACCEPT: Final = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"
_MOST_PAGE: Final = 32 << 20
_MOST_FILES: Final = 50_000
_SHA: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,250}")
_PIECE: Final = 1 << 20

Fetch = Callable[..., AsyncGenerator[bytes, None]]
"""`Outgoing.stream`: the one rule by which the platform reaches addresses elsewhere."""


class Mismatch(Exception):  # noqa: N818
    """A file has a name that another one has, which was there before."""


@dataclass(frozen=True, slots=True)
class PublicFile:
    """A distribution that the index offers. project: its normal name. where: a URL, or a name below the mirror."""

    name: str
    project: str
    sha256: str
    where: str
    requires_python: str = ""
    yanked: bool = False
    size: int = 0


class PublicIndex:
    """folder: of the mirror. url: of the index's simple pages, empty without one. fetch: what reaches it; it raises
    OSError or the like where it cannot."""

    def __init__(self, folder: Path, url: str = "", fetch: Fetch | None = None) -> None:
        self._folder = folder
        self._url = url.rstrip("/") + "/" if url else ""
        self._fetch = fetch

    def there(self) -> bool:
        """Whether there is one."""
        return bool(self._url) or self._listing.exists()

    @property
    def _listing(self) -> Path:
        return self._folder / "index.json"

    # -- what it offers ------------------------------------------------------------------------------------------------

    async def files(self, project: str) -> list[PublicFile]:
        """The distributions of a project (its normal name). What `fetch` raises, this raises."""
        found = {one.name: one for one in self._mirrored(project)}
        if self._url:
            for one in await self._offered(project):
                found.setdefault(one.name, one)
        return list(found.values())[:_MOST_FILES]

    def _mirrored(self, project: str) -> list[PublicFile]:
        held: dict[str, Any] = read(self._listing).get(project, {})
        return [PublicFile(**one) for one in held.values()]

    async def _offered(self, project: str) -> list[PublicFile]:
        assert self._fetch is not None
        base = urljoin(self._url, f"{project}/")
        pieces = [piece async for piece in self._fetch(base, {"Accept": _ACCEPT}, most=_MOST_PAGE)]
        return parsed(b"".join(pieces), base, project)

    async def content(self, file: PublicFile) -> AsyncIterator[bytes]:
        """The bytes of a file that was offered; whoever reads them compares the hash."""
        if "://" not in file.where:
            with (self._folder / file.where).open("rb") as opened:
                while piece := opened.read(_PIECE):
                    yield piece
            return
        assert self._fetch is not None
        async for piece in self._fetch(file.where, {}, most=8 << 30):
            yield piece

    # -- what the operator loads ---------------------------------------------------------------------------------------

    def load(self, source: Path, name_of: Callable[[str], str]) -> tuple[int, list[str]]:
        """Takes all distributions of a folder over: how many were new, and what was passed over, with why.

        name_of: a project's normal name from a file's, raises Exception for what is no distribution. Raises Mismatch for a
        file that has changed under its name: it was perhaps taken over by somebody already.
        """
        (self._folder / "files").mkdir(mode=0o700, parents=True, exist_ok=True)
        held: dict[str, dict[str, Any]] = read(self._listing)
        new, passed = 0, []
        for path in sorted(source.iterdir()):
            if path.is_symlink() or not path.is_file() or not _NAME.fullmatch(path.name):
                passed.append(f"{path.name}: not a plain file with the name of one")
                continue
            try:
                project = name_of(path.name)
            except Exception as error:
                passed.append(f"{path.name}: {error}")
                continue
            digest = digest_of(path)
            known = held.get(project, {}).get(path.name)
            if known is not None and known["sha256"] != digest:
                raise Mismatch(f"{path.name} is in the mirror already, with other bytes (SHA-256 {known['sha256']})")
            if known is not None:
                continue
            where = f"files/{digest}"
            copy(path, self._folder / where)
            one = PublicFile(path.name, project, digest, where, size=path.stat().st_size)
            held.setdefault(project, {})[path.name] = asdict(one)
            new += 1
        write(self._listing, held)
        return new, passed


def parsed(raw: bytes, base: str, project: str) -> list[PublicFile]:
    """What a simple page offers, as JSON or as HTML; files without a SHA-256 are not offered."""
    try:
        told = json.loads(raw)
        given = [
            (
                str(one["filename"]), str(one["url"]), str((one.get("hashes") or {}).get("sha256") or ""),
                str(one.get("requires-python") or ""), one.get("yanked", False) is not False, int(one.get("size") or 0),
            )
            for one in told["files"]
        ]  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError):
        page = _Page()
        page.feed(raw.decode("utf-8", "replace"))
        given = page.found
    found = []
    for name, url, sha256, python, yanked, size in given[:_MOST_FILES]:
        where = urldefrag(urljoin(base, url)).url
        if _NAME.fullmatch(name) and _SHA.fullmatch(sha256) and urlsplit(where).scheme in ("http", "https"):
            found.append(PublicFile(name, project, sha256, where, python[:200], yanked, size))
    return found


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str, str, bool, int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        href = told.get("href")
        if tag != "a" or not href:
            return
        url, fragment = urldefrag(href)
        name = unquote(urlsplit(url).path.rpartition("/")[2])
        sha256 = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
        self.found.append((name, url, sha256, told.get("data-requires-python") or "", "data-yanked" in told, 0))


def read(path: Path) -> dict[str, Any]:
    """What a listing says; nothing if there is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return found


def write(path: Path, held: Any) -> None:
    """Puts a listing in the place of the one before, whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(held, file)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy(source: Path, target: Path) -> None:
    """Copies a file; it appears whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file, source.open("rb") as opened:
        shutil.copyfileobj(opened, file, _PIECE)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(target)

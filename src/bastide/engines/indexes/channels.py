"""Public conda channels as the platform's operator brings them: mirrors of files on this machine, each a folder of its own.

A channel is taken as others wrote it: `SUBDIR/repodata.json` and the packages that it lists. A package counts if its bytes
have the SHA-256 that is listed; a file never changes under its name. Source: conda documentation, "Channels".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any, Final

from bastide.engines.indexes import Mismatch, copy, digest_of, read, write

SUBDIR: Final = re.compile(r"noarch|[a-z]{3,12}-[a-z0-9_]{1,12}")
PACKAGE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+!-]{0,230}\.(?:conda|tar\.bz2)")
CHANNEL: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,48}")
_PIECE: Final = 1 << 20
_TEXTS: Final = ("name", "version", "build", "license", "license_family", "md5", "noarch", "arch", "platform", "features",
                 "track_features")  # fmt: skip
_NUMBERS: Final = ("build_number", "timestamp")
_LISTS: Final = ("depends", "constrains")


class Channels:
    """folder: of the mirrors."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def there(self, channel: str) -> bool:
        """Whether the operator has brought this channel."""
        return CHANNEL.fullmatch(channel) is not None and (self._folder / channel).is_dir()

    def packages(self, channel: str, subdir: str) -> dict[str, dict[str, Any]]:
        """What a channel lists in a folder of it, by file name. Blocks."""
        if not self.there(channel) or not SUBDIR.fullmatch(subdir):
            return {}
        return read(self._folder / channel / f"{subdir}.json")

    def opened(self, channel: str, sha256: str) -> IO[bytes]:
        """A package's file at its beginning, compared with its hash; raises OSError where it is another. Blocks."""
        file = (self._folder / channel / "files" / sha256).open("rb")
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            file.close()
            raise OSError("its bytes are others than those that were loaded")
        file.seek(0)
        return file

    def load(self, source: Path, channel: str) -> tuple[int, list[str]]:
        """Takes a channel's folder over: how many packages were new, and what was passed over, with why.

        Raises Mismatch for a file that has changed under its name, and ValueError for what is no channel.
        """
        if not CHANNEL.fullmatch(channel):
            raise ValueError(f"a channel is called by small letters, digits and . _ -, as conda-forge, not {channel!r}")
        new, passed, folders = 0, [], [one for one in sorted(source.iterdir()) if (one / "repodata.json").is_file()]
        if not folders:
            raise ValueError(f"{source} is no channel: it has no noarch/repodata.json or the like")
        own = self._folder / channel
        for folder in folders:
            if not SUBDIR.fullmatch(folder.name):
                passed.append(f"{folder.name}: no name of a channel's folder")
                continue
            held = read(own / f"{folder.name}.json")
            told = json.loads((folder / "repodata.json").read_bytes())
            for name, given in {**(told.get("packages") or {}), **(told.get("packages.conda") or {})}.items():
                try:
                    record, path = _record(name, given), folder / name
                    if path.is_symlink() or not path.is_file():
                        continue  # a mirror has not all that its channel lists
                    digest = digest_of(path)
                    if digest != record["sha256"]:
                        raise ValueError(f"its SHA-256 is {digest}, and the channel lists {record['sha256']}")
                except ValueError as error:
                    passed.append(f"{folder.name}/{str(name)[:200]}: {error}")
                    continue
                if name in held and held[name]["sha256"] != digest:
                    raise Mismatch(f"{folder.name}/{name} is in the mirror already, with other bytes")
                if name not in held:
                    (own / "files").mkdir(mode=0o700, parents=True, exist_ok=True)
                    copy(path, own / "files" / digest)
                    held[name] = {**record, "subdir": folder.name, "size": path.stat().st_size}
                    new += 1
            if held:
                write(own / f"{folder.name}.json", held)
        return new, passed


async def pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    """The bytes of an open file, which is closed then."""
    with file:
        while piece := file.read(_PIECE):
            yield piece


def _record(name: Any, given: Any) -> dict[str, Any]:
    """What is known of a package, as far as clients ask for it; raises ValueError."""
    if not isinstance(name, str) or not PACKAGE.fullmatch(name) or not isinstance(given, dict):
        raise ValueError("no package as channels list them")
    found: dict[str, Any] = {one: given[one] for one in _TEXTS if isinstance(given.get(one), str)}
    found |= {one: given[one] for one in _NUMBERS if isinstance(given.get(one), int)}
    for one in _LISTS:
        if isinstance(given.get(one), list):
            found[one] = [str(each) for each in given[one]]
    called = "-".join(str(found.get(one)) for one in ("name", "version", "build"))
    if not name.startswith(f"{called}."):
        raise ValueError(f"it is listed as {called}")
    found["sha256"] = str(given.get("sha256") or "")
    if not re.fullmatch("[0-9a-f]{64}", found["sha256"]):
        raise ValueError("the channel lists no SHA-256 of it")
    return {"build_number": 0, "depends": [], **found}

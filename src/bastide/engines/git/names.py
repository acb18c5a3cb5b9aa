"""Names that git takes: references, and paths within trees."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_REFERENCE: Final = re.compile(r"refs/(?:heads|tags)/(?!-)[^\x00-\x20\x7f~^:?*\[\\]+")
_MOST_REFERENCE: Final = 256 + len("refs/heads/")
_MOST_PATH: Final = 4096
_IGNORED: Final = re.compile("[\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_GIT: Final = re.compile(r"(?i)\.?git(?:~\d+)?[ .]*(?::.*)?")


def legal_reference(name: str) -> bool:
    """Whether a branch or a tag may be called so. Source: git-check-ref-format(1)."""
    if len(name) > _MOST_REFERENCE or not _REFERENCE.fullmatch(name) or ".." in name or "@{" in name:
        return False
    parts = name.split("/")
    return name.isprintable() and all(
        part and part[0] != "." and not part.endswith((".lock", ".")) and part != "@" for part in parts
    )


def legal_path(path: str) -> bool:
    """Whether a file of a tree may lie there: no part leads elsewhere, and none is git's own folder on any system."""
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        return False
    if not raw or len(raw) > _MOST_PATH or "\0" in path:
        return False
    return all(_legal_part(part) for part in path.split("/"))


def _legal_part(part: str) -> bool:
    seen = _IGNORED.sub("", unicodedata.normalize("NFKC", part))
    if part in ("", ".", "..") or len(part.encode()) > 255:
        return False
    found = _GIT.fullmatch(seen)
    return found is None or seen.lower() == "git"

"""Digests of content, as lineage tells versions of data, code and models apart."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import orjson


def of_file(path: Path) -> str:
    """``sha256:...`` of a plain file's content; raises OSError for a link."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def of_files(files: Iterable[tuple[str, Path]]) -> str:
    """``sha256:...`` of a folder's content: of the JSON list of [name, digest], sorted by name. Where the files came from
    and when they were written does not count."""
    every = sorted([name, of_file(path)] for name, path in files)
    return f"sha256:{hashlib.sha256(orjson.dumps(every)).hexdigest()}"

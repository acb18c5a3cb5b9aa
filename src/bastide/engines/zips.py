"""ZIP archives that strangers made. Python reads the list of what an archive holds whole into memory, however long it is,
and makes an object of each entry: a list that is too long is refused before."""

from __future__ import annotations

import zipfile
from typing import IO, Any, Final

_OF_AN_ENTRY: Final = 256
"""Bytes of the list that an entry may have, its name among them, taken together with all others."""
_SPARE: Final = 1 << 16
_SIZE: Final = 5
"""Where the list's length stands in what `zipfile` finds at the end of an archive."""


def opened(file: IO[bytes], most_entries: int) -> zipfile.ZipFile:
    """An archive whose list is no longer than that of so many entries; raises zipfile.BadZipFile."""
    found: Any = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if not found:
        raise zipfile.BadZipFile("it has no end")
    if found[_SIZE] > most_entries * _OF_AN_ENTRY + _SPARE:
        raise zipfile.BadZipFile(f"the list of its files is longer than one of {most_entries} files")
    return zipfile.ZipFile(file)

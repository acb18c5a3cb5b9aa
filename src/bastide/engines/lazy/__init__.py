"""Read-only folders whose files are fetched when somebody reads them.

The port: whoever mounts a folder lists its files at once and gives their content on demand. Which driver does it is settled
in ``main/compose.py``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

Read = Callable[[str, int, int], Awaitable[bytes]]
"""The bytes of a file: its name, the first byte and the one behind the last. Raises OSError, which the reader then gets."""


class LazyError(Exception):
    """The folder could not be mounted; the message is for the operator."""


class Folders(Protocol):
    """All lazy folders of a platform."""

    async def mount(self, name: str, files: Mapping[str, int], read: Read) -> Path:
        """Where a folder lies that has these files: names relative to it with their sizes in bytes. Raises LazyError, and
        ValueError for names that no tree of files can have."""
        ...

    async def unmount(self, name: str) -> None:
        """Removes it; who still reads gets an error. Removing what is not there is fine."""
        ...

    async def recover(self) -> list[str]:
        """To be called before the first mount: removes what an earlier process left; their names."""
        ...


__all__ = ["Folders", "LazyError", "Read"]

"""Bytes at rest. The port; `drivers` are the ways to do it.

Whatever keeps them, what is kept is the same: chunks sealed under a key that the keeper never sees (`sealing`), named by
random ids and never by what users call them. Content comes first and its name, a row of the store, last; what nobody names
is swept at the next start.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from bastide.engines.artifacts.deletions import deletions_held
from bastide.engines.artifacts.place import Place, PlaceError
from bastide.engines.artifacts.sealing import CHUNK, SMALL, Damaged, Unavailable, Written, seal, unseal

__all__ = [
    "CHUNK", "SMALL", "Artifacts", "Copies", "Damaged", "Place", "PlaceError", "Unavailable", "Written",
    "deletions_held", "seal", "unseal",
]  # fmt: skip


class Artifacts(Protocol):
    """Keeps bytes under ids that it gives. Belongs to one process at a time, and there to one event loop."""

    async def write(self, chunks: AsyncIterator[bytes], data_key: bytes, *, digest: str = "md5") -> Written:
        """Writes a stream under `data_key` (32 bytes); kept when this returns.

        digest: the algorithm of `hashlib` that `Written` tells about, none if empty: MD5 costs more than all the rest.

        Whatever ends it before, nothing is left that a sweep does not remove: an error of the stream's, a cancellation,
        OSError of the disk's, Unavailable.
        """
        ...

    async def write_small(self, data: bytes, data_key: bytes, *, digest: str = "md5") -> Written:
        """Writes at most `SMALL` bytes; kept when this returns. Raises OSError, Unavailable."""
        ...

    async def read(self, id: str, data_key: bytes, start: int = 0, end: int | None = None) -> bytes:
        """Bytes `start` to `end` (exclusive; None: all), of which only the chunks that hold them are fetched; raises
        Damaged, FileNotFoundError, and Unavailable."""
        ...

    def open(self, id: str, data_key: bytes, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """The same as a stream. From its first step on it is read to its end, also when it is deleted meanwhile."""
        ...

    async def delete(self, id: str) -> None:
        """Removes what has an id; what is gone is fine. What cannot be removed now is removed later."""
        ...

    async def sweep(self, alive: Callable[[str], bool]) -> int:
        """Removes what was begun and never ended, and what nobody names: what a killed run left. Returns how many.

        For the start, before anything is written: it cannot tell what was left from what grows. While deletions are held
        back it leaves everything to the next start. Raises Unavailable.
        """
        ...

    def close(self) -> None:
        """Ends what runs beside the loop, after what it was given."""
        ...


class Copies(Protocol):
    """The sealed bytes as they lie, for whoever carries them elsewhere: a backup, a restore. Blocks.

    Everything here raises OSError, Unavailable among them.
    """

    def sizes(self) -> dict[str, int]:
        """What is there: sealed bytes by id."""
        ...

    def reading(self, id: str) -> AbstractContextManager[BinaryIO]:
        """The sealed bytes; raises FileNotFoundError."""
        ...

    def bring(self, id: str, sealed: BinaryIO, size: int) -> None:
        """Keeps sealed bytes under the id that they were sealed for."""
        ...

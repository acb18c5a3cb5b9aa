"""Objects' bytes, as S3 keeps and reads them: whoever keeps them may be away, and then S3 is, for a while.

Source: S3 API Reference, "Error responses": ServiceUnavailable, 503, which clients try again.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

from bastide.domain import Refused
from bastide.engines.artifacts import Artifacts, Unavailable, Written
from bastide.kernel import Authorised


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Raises ServiceUnavailable for Unavailable."""
    try:
        yield
    except Unavailable:
        raise Refused(
            "ServiceUnavailable", "The store of objects cannot be reached now. Please try again.", 503
        ) from None


async def write(a: Authorised, chunks: AsyncIterator[bytes], data_key: bytes, digest: str) -> Written:
    """Keeps a stream under `data_key`; digest: see `Artifacts.write`. Raises ServiceUnavailable."""
    with kept():
        return await a.engine(Artifacts).write(chunks, data_key, digest=digest)


async def read(artifacts: Artifacts, id: str, data_key: bytes, start: int, end: int | None) -> AsyncIterator[bytes]:
    """Bytes `start` to `end` of what is kept; raises ServiceUnavailable."""
    with kept():
        async with contextlib.aclosing(artifacts.open(id, data_key, start, end)) as stream:
            async for piece in stream:
                yield piece

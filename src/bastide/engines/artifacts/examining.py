"""What is kept, read and compared with its digest, beside the platform and asking nobody's permission."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from bastide.domain import Refused
from bastide.engines.artifacts import Artifacts, Damaged


async def examined(artifacts: Artifacts, ids: Sequence[str], key: Callable[[], bytes], digest: str) -> tuple[str, bool]:
    """What is wrong with the content of some files, one after the other, empty if its SHA-256 is `digest` (hex); and
    whether it could not be opened, its key being gone. key: unwraps theirs; raises Refused where KMS has it no more, and
    ValueError for a damaged one."""
    try:
        plain = key()
    except Refused:
        return "", True
    except ValueError as error:
        return f"its key is damaged: {error}", False
    seen = hashlib.sha256()
    try:
        for id in ids:
            async for piece in artifacts.open(id, plain):
                seen.update(piece)
    except FileNotFoundError:
        return "its bytes are gone", False
    except (Damaged, ValueError) as error:
        return f"its bytes are damaged: {error}", False
    return "" if seen.hexdigest() == digest else "its bytes are others", False

"""Identifiers of requests and events. Source: RFC 9562, versions 4 and 7."""

from __future__ import annotations

import os

from bastide.domain.clock import Instant

_BATCH = 4096
_pool: list[str] = []


def _random() -> str:
    if not _pool:
        raw = os.urandom(_BATCH).hex()
        _pool.extend([raw[at : at + 32] for at in range(0, len(raw), 32)])
    return _pool.pop()


def timed_id(at: Instant) -> str:
    """A UUID (version 7) as text: ids of later instants sort later, which an index of millions is glad of."""
    text = _random()
    stamp = f"{at // 1000:012x}"
    return f"{stamp[:8]}-{stamp[8:]}-7{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:]}"


def new_id() -> str:
    """A random UUID (version 4) as text. Random bytes are taken from the system for many at once."""
    text = _random()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:]}"

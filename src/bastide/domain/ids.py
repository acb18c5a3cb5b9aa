"""Identifiers of requests and events."""

from __future__ import annotations

import os

_BATCH = 4096
_pool: list[str] = []


def new_id() -> str:
    """A random UUID (version 4) as text. Random bytes are taken from the system for many at once."""
    if not _pool:
        raw = os.urandom(16 * (_BATCH // 16)).hex()
        _pool.extend([raw[at : at + 32] for at in range(0, len(raw), 32)])
    text = _pool.pop()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:]}"

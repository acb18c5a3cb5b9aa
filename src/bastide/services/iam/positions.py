"""Where the statements of a policy stand in its text."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Final

Position = tuple[int, int]
"""Line and column, both from 1."""
_DECODER: Final = json.JSONDecoder()
_SPACE: Final = re.compile(r"[ \t\r\n]*")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _place(text: str, at: int) -> Position:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


@lru_cache(1024)
def statements(text: str) -> tuple[tuple[Position, Position], ...]:
    """The first and the last character of each statement of a document that has been checked."""
    found: list[tuple[Position, Position]] = []
    at = _skip(text, 0) + 1
    while text[at := _skip(text, at)] != "}":
        if text[at] == ",":
            at = _skip(text, at + 1)
        key, at = _DECODER.raw_decode(text, at)
        at = _skip(text, _skip(text, at) + 1)
        if key != "Statement":
            _, at = _DECODER.raw_decode(text, at)
            continue
        many = text[at] == "["
        at += many
        while True:
            at = _skip(text, at)
            _, end = _DECODER.raw_decode(text, at)
            found.append((_place(text, at), _place(text, end - 1)))
            at = _skip(text, end)
            if not many or text[at] == "]":
                at += many
                break
            at += 1
    return tuple(found)

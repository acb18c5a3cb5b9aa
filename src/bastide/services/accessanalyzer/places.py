"""JSON read with the place of everything, so that a finding can point to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_WORD: Final = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DECODER: Final = json.JSONDecoder()
_DEEPEST: Final = 32
Path = tuple["str | int", ...]


class Unreadable(Exception):  # noqa: N818
    """The text is no JSON. at: offset of the fault."""

    def __init__(self, at: int) -> None:
        super().__init__(f"no JSON at {at}")
        self.at = at


@dataclass(slots=True)
class Node:
    """A value. kind: object, array, string or word. value: the text of a string or word. members: of an object, in order,
    each with the place of its key; keys may be there twice."""

    kind: str
    start: int
    end: int
    path: Path
    value: str = ""
    members: list[tuple[str, int, Node]] = field(default_factory=list)
    items: list[Node] = field(default_factory=list)

    def get(self, name: str) -> Node | None:
        """A member of an object, by its exact name."""
        return next((node for key, _, node in self.members if key == name), None)

    def each(self) -> Iterator[Node]:
        """The elements of an array, or the value itself."""
        yield from self.items if self.kind == "array" else (self,)


def read(text: str) -> Node:
    """The text's value; raises Unreadable."""
    node, at = _value(text, _skip(text, 0), (), 0)
    at = _skip(text, at)
    if at != len(text):
        raise Unreadable(at)
    return node


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _string(text: str, at: int) -> tuple[str, int]:
    if not text.startswith('"', at):
        raise Unreadable(at)
    try:
        value, end = _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise Unreadable(error.pos) from None
    return str(value), end


def _value(text: str, at: int, path: Path, depth: int) -> tuple[Node, int]:
    if depth > _DEEPEST:
        raise Unreadable(at)
    if text.startswith("{", at):
        return _object(text, at, path, depth)
    if text.startswith("[", at):
        return _array(text, at, path, depth)
    if text.startswith('"', at):
        value, end = _string(text, at)
        return Node("string", at, end, path, value), end
    found = _WORD.match(text, at)
    if found is None:
        raise Unreadable(at)
    return Node("word", at, found.end(), path, found.group()), found.end()


def _object(text: str, start: int, path: Path, depth: int) -> tuple[Node, int]:
    node = Node("object", start, start, path)
    at = _skip(text, start + 1)
    while not text.startswith("}", at):
        key, end = _string(text, at)
        place, at = at, _skip(text, end)
        if not text.startswith(":", at):
            raise Unreadable(at)
        value, at = _value(text, _skip(text, at + 1), (*path, key), depth + 1)
        node.members.append((key, place, value))
        at = _skip(text, at)
        if text.startswith(",", at):
            at = _skip(text, at + 1)
            if text.startswith("}", at):
                raise Unreadable(at)
        elif not text.startswith("}", at):
            raise Unreadable(at)
    node.end = at + 1
    return node, node.end


def _array(text: str, start: int, path: Path, depth: int) -> tuple[Node, int]:
    node = Node("array", start, start, path)
    at = _skip(text, start + 1)
    while not text.startswith("]", at):
        value, at = _value(text, at, (*path, len(node.items)), depth + 1)
        node.items.append(value)
        at = _skip(text, at)
        if text.startswith(",", at):
            at = _skip(text, at + 1)
            if text.startswith("]", at):
                raise Unreadable(at)
        elif not text.startswith("]", at):
            raise Unreadable(at)
    node.end = at + 1
    return node, node.end


def position(text: str, offset: int) -> dict[str, Any]:
    """Line (from 1), column (from 0) and offset."""
    before = text[:offset]
    return {"line": before.count("\n") + 1, "column": offset - (before.rfind("\n") + 1), "offset": offset}

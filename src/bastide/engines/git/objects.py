"""What git's objects say: commits, entries of trees, differences. Sources: git-diff-tree(1), git-ls-tree(1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

NOTHING: Final = "0" * 40
"""The id of no object."""
ID: Final = re.compile(r"[0-9a-f]{40}")
_PERSON: Final = re.compile(rb"(.*?) ?<([^<>]*)> (-?\d+ [+-]\d{4})")
_TYPES: Final = {0o040000: "tree", 0o160000: "commit", 0o120000: "link"}


@dataclass(frozen=True, slots=True)
class Person:
    """Who wrote or committed. date: seconds since 1970 and the time zone, as git has it."""

    name: str
    email: str
    date: str


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit. more: its further headers."""

    id: str
    tree: str
    parents: tuple[str, ...]
    author: Person
    committer: Person
    message: str
    more: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a tree. mode: as git has it (``100644``). kind: file, link, tree or commit (a submodule)."""

    path: str
    mode: str
    id: str

    @property
    def kind(self) -> str:
        """What it is."""
        return _TYPES.get(int(self.mode, 8) & 0o170000, "file")


@dataclass(frozen=True, slots=True)
class Change:
    """A path that differs: before and after, None where it is not."""

    before: Entry | None
    after: Entry | None


def text(raw: bytes) -> str:
    """What git keeps as bytes; what is no UTF-8 is shown with replacements."""
    return raw.decode("utf-8", "replace")


def path_of(raw: bytes) -> str:
    """A path so that its bytes come back."""
    return raw.decode("utf-8", "surrogateescape")


def person(raw: bytes) -> Person:
    """Who a header names."""
    found = _PERSON.fullmatch(raw)
    if found is None:
        return Person(text(raw), "", "0 +0000")
    return Person(text(found[1]), text(found[2]), found[3].decode())


def commit(id: str, raw: bytes) -> Commit:
    """A commit from its object."""
    head, _, message = raw.partition(b"\n\n")
    tree, parents, more = "", [], []
    people = {b"author": Person("", "", "0 +0000"), b"committer": Person("", "", "0 +0000")}
    for line in head.split(b"\n"):
        name, _, value = line.partition(b" ")
        if name == b"tree" and not tree:
            tree = value.decode("ascii", "replace")
        elif name == b"parent":
            parents.append(value.decode("ascii", "replace"))
        elif name in people:
            people[name] = person(value)
        else:
            more.append(line)
    return Commit(
        id, tree, tuple(parents), people[b"author"], people[b"committer"], text(message), text(b"\n".join(more))
    )


def tree(raw: bytes, folder: str = "") -> list[Entry]:
    """What lies in a folder, from its object; folder: what stands before its paths."""
    found, at = [], 0
    while at < len(raw):
        end = raw.index(b"\0", at)
        mode, _, name = raw[at:end].partition(b" ")
        found.append(Entry(folder + path_of(name), mode.decode().zfill(6), raw[end + 1 : end + 21].hex()))
        at = end + 21
    return found


def entries(raw: bytes, folder: str = "") -> list[Entry]:
    """What ``ls-tree -z`` lists; folder: what stands before its paths."""
    found = []
    for line in raw.split(b"\0"):
        if line:
            head, _, name = line.partition(b"\t")
            mode, _, id = head.decode().split(" ")
            found.append(Entry(folder + path_of(name), mode, id))
    return found


def changes(raw: bytes) -> Iterator[Change]:
    """What ``diff-tree -r -z --raw`` tells."""
    parts = raw.split(b"\0")
    for head, name in zip(parts[::2], parts[1::2], strict=False):
        modes = head.decode().removeprefix(":").split(" ")
        path = path_of(name)
        before = Entry(path, modes[0], modes[2]) if modes[0] != "000000" else None
        after = Entry(path, modes[1], modes[3]) if modes[1] != "000000" else None
        yield Change(before, after)

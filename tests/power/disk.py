"""What a disk could hold after the power went.

A program runs under a recorder (`disk.c`) that writes down every change of its files and every sync. From the record, a
`Disk` builds the folder as it could be found after a loss of power at any moment: what was synced is there; what was not
is there, or not, or in part, in any order that the rules of file systems allow:

- a `fsync` brings what the file held when it began; of later writes each block is kept or lost by itself;
- a name is on the disk when its folder was synced; of later changes of a name any may be the last that is kept
  (`strict`: POSIX promises no more), or they are kept in order, and the sync of a file brings all names before it
  (journalling file systems: ext4, XFS);
- a rename never loses both names.
"""

from __future__ import annotations

import mmap
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).with_name("disk.c")
BLOCK = 4096
OPEN, WRITE, TRUNCATE, SYNC_BEGINS, SYNC_ENDS, RENAME, UNLINK, MKDIR, RMDIR, MAPPED, CLOSE, LINK = range(1, 13)
CREATE_FAILS, WRITE_FAILS, SYNC_FAILS, NAME_FAILS, READ_FAILS, TRUNCATE_FAILS = 1, 2, 4, 8, 16, 32
_CREATED, _EMPTIED = 1, 2
_HEAD = struct.Struct("=IBBHi4xq")
_FAULTS = struct.Struct("=iiiiqq")


def recorder(folder: Path) -> Path:
    """The recorder, compiled."""
    built = folder / "disk.so"
    subprocess.run(
        ["cc", "-O1", "-shared", "-fPIC", "-o", str(built), str(SOURCE), "-lpthread"], check=True, timeout=60
    )
    return built


def recorded(library: Path, root: Path, log: Path, faults: Path | None = None) -> dict[str, str]:
    """The environment of a program whose files below `root` are recorded in `log`."""
    told = {"LD_PRELOAD": str(library), "RECORDED_ROOT": str(root.resolve()), "RECORDED_LOG": str(log)}
    return told if faults is None else {**told, "RECORDED_FAULTS": str(faults)}


class Faults:
    """Says to a running recorder which operations fail, and how."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_FAULTS.size))
        self.path = path
        with path.open("r+b") as file:
            self._room = mmap.mmap(file.fileno(), _FAULTS.size)

    def arm(self, what: int, error: int, after: int = 0, *, once: bool = False) -> None:
        """The operations `what` fail with `error` from the next but `after` on, or that one alone."""
        self._room[:] = _FAULTS.pack(0, what, error, int(once), after, 0)
        self._room[:4] = struct.pack("=i", 1)

    def disarm(self) -> int:
        """Nothing fails any more; returns how often something did."""
        self._room[:4] = struct.pack("=i", 0)
        return int(_FAULTS.unpack(self._room[:])[5])


@dataclass(slots=True)
class Record:
    """One change. at: where its record ends in the log."""

    op: int
    flags: int
    fd: int
    offset: int
    name: str
    data: bytes
    at: int


def records(log: bytes) -> Iterator[Record]:
    """The records of a log, up to one that is not whole."""
    at = 0
    while at + _HEAD.size <= len(log):
        size, op, flags, first, fd, offset = _HEAD.unpack_from(log, at)
        at += _HEAD.size
        if at + size > len(log):
            return
        name, data = log[at : at + first].decode(), log[at + first : at + size]
        at += size
        yield Record(op, flags, fd, offset, "" if name == "." else name, data, at)


@dataclass(eq=False, slots=True)
class _File:
    """kept: what is on the disk for certain. later: changes since, in order: an offset and bytes, or a new size."""

    folder: bool = False
    kept: bytearray = field(default_factory=bytearray)
    later: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self, count: int) -> None:
        for offset, data in self.later[:count]:
            _apply(self.kept, offset, data)
        del self.later[:count]


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        if offset < len(content):
            del content[offset:]
        else:
            content.extend(bytes(offset - len(content)))
        return
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


@dataclass(eq=False, slots=True)
class _Name:
    """What a name stood for since its folder was synced, the synced state first."""

    states: list[_File | None] = field(default_factory=lambda: [None])


class Disk:
    """The folder while the record is played."""

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}
        self._open: dict[int, tuple[str, _File]] = {}
        self._syncs: dict[tuple[int, int], tuple[_File, str, int, dict[str, int], int]] = {}
        self._renames: list[tuple[str, int, str, int]] = []
        self._order: list[tuple[str, int]] = []
        """Changes of names that are not on the disk for certain: the name, and its state then."""
        self._ordered: dict[str, int] = {}
        """For journalling file systems: the state of a name that is there at least."""
        self.mapped: set[str] = set()
        """Files that were mapped to be written past the record."""

    def _now(self, path: str) -> _File | None:
        return self._names.setdefault(path, _Name()).states[-1]

    def _set(self, path: str, file: _File | None) -> int:
        states = self._names.setdefault(path, _Name()).states
        states.append(file)
        self._order.append((path, len(states) - 1))
        return len(states) - 1

    def restarted(self) -> None:
        """Another program goes on: the system is the same, what the earlier one had open is closed."""
        self._open.clear()
        self._syncs.clear()

    def named(self, fd: int) -> str:
        """The path that a descriptor was opened at."""
        return self._open[fd][0]

    def play(self, record: Record) -> None:
        """Takes one change in."""
        match record.op:
            case 1:  # OPEN
                file = self._now(record.name)
                if record.flags & _CREATED or file is None:
                    file = _File(folder=record.name == "" or not record.flags & _CREATED)
                    if record.name:
                        self._set(record.name, file)
                if record.flags & _EMPTIED:
                    file.later.append((0, None))
                self._open[record.fd] = (record.name, file)
            case 2:
                self._open[record.fd][1].later.append((record.offset, record.data))
            case 3:
                self._open[record.fd][1].later.append((record.offset, None))
            case 4:
                path, file = self._open[record.fd]
                names: dict[str, int] = {}
                if file.folder:
                    inside = f"{path}/" if path else ""
                    names = {
                        name: len(held.states) - 1
                        for name, held in self._names.items()
                        if name.startswith(inside) and "/" not in name[len(inside) :]
                    }
                self._syncs[record.fd, record.offset] = (file, path, len(file.later), names, len(self._order))
            case 5:
                file, _, count, names, order = self._syncs.pop((record.fd, record.offset))
                # Another sync of the file may have ended meanwhile and taken some of these.
                for (fd, thread), (other, p, left, n, o) in list(self._syncs.items()):
                    if other is file:
                        self._syncs[fd, thread] = (other, p, max(0, left - count), n, o)
                file.sync(count)
                for path, index in self._order[:order]:
                    self._ordered[path] = max(index, self._ordered.get(path, 0))
                self._settle(names)
            case 6:
                target = record.data.decode()
                moved = self._now(record.name)
                assert moved is not None
                gone = self._set(record.name, None)
                self._renames.append((record.name, gone, target, self._set(target, moved)))
            case 7 | 9:
                self._set(record.name, None)
            case 8:
                self._set(record.name, _File(folder=True))
            case 10:
                self.mapped.add(self._open[record.fd][0])
            case 11:
                self._open.pop(record.fd, None)
            case 12:
                self._set(record.data.decode(), self._now(record.name))
            case _:
                raise ValueError(f"record {record.op}")

    def _settle(self, names: dict[str, int]) -> None:
        """The folder of these names was synced when they had these states."""
        drop: dict[str, int] = {}
        for name, index in names.items():
            if index > 0:
                del self._names[name].states[:index]
                drop[name] = index
        if not drop:
            return
        self._order = [(n, i - drop.get(n, 0)) for n, i in self._order if i > drop.get(n, 0)]
        self._ordered = {n: i - drop.get(n, 0) for n, i in self._ordered.items() if i > drop.get(n, 0)}
        self._renames = [
            (a, i - drop.get(a, 0), b, j - drop.get(b, 0))
            for a, i, b, j in self._renames
            if i > drop.get(a, 0) or j > drop.get(b, 0)
        ]
        # Syncs that run hold states of names too.
        for key, (file, path, count, held, _) in list(self._syncs.items()):
            left = {n: max(0, i - drop.get(n, 0)) for n, i in held.items()}
            self._syncs[key] = (file, path, count, left, 0)

    def _names_kept(self, chance: random.Random, strict: bool) -> dict[str, _File]:
        chosen: dict[str, int] = {}
        if strict:
            for name, held in self._names.items():
                last = len(held.states) - 1
                chosen[name] = 0 if last == 0 else chance.choice((0, last, chance.randint(0, last)))
            moving = True
            while moving:
                moving = False
                for old, gone, new, come in self._renames:
                    if chosen[old] >= gone and chosen[new] < come:
                        chosen[new], moving = come, True
        else:
            chosen = {name: self._ordered.get(name, 0) for name in self._names}
            for name, index in self._order[: chance.choice((0, len(self._order), chance.randint(0, len(self._order))))]:
                chosen[name] = max(index, chosen[name])
        return {name: file for name, i in chosen.items() if (file := self._names[name].states[i]) is not None}

    def lose_power(self, folder: Path, chance: random.Random, *, strict: bool) -> None:
        """Writes into `folder`, which is made, what the disk could hold now."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        kept = self._names_kept(chance, strict)
        way = chance.choice(("none", "all", "some", "blocks"))
        for path in sorted(kept):
            file, place = kept[path], folder / path
            if path == "" or not place.parent.is_dir():
                continue  # with a folder goes what is in it
            if file.folder:
                place.mkdir(mode=0o700)
                continue
            place.write_bytes(_content(file, chance, way))
            place.chmod(0o600)


def _content(file: _File, chance: random.Random, way: str) -> bytes:
    if way == "none" or not file.later:
        return bytes(file.kept)
    content = bytearray(file.kept)
    for offset, data in file.later:
        if way != "all" and chance.random() < 0.5:
            continue
        if data is None or way != "blocks":
            _apply(content, offset, data)
            continue
        at = 0
        while at < len(data):
            end = min(len(data), (offset + at) // BLOCK * BLOCK + BLOCK - offset)
            if chance.random() < 0.5:
                _apply(content, offset + at, data[at:end])
            at = end
    return bytes(content)


def program(library: Path, root: Path, log: Path, *words: str, faults: Path | None = None) -> subprocess.Popen[bytes]:
    """Starts a program under the recorder."""
    return subprocess.Popen(words, env={**os.environ, **recorded(library, root, log, faults)})

"""Three-way merges, file by file, and within files line by line (``git merge-file``).

Source: AWS CodeCommit User Guide, "Resolve conflicts in a pull request"; API Reference, MergeBranchesByThreeWay, for levels
and strategies. Renames are deletions and additions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bastide.engines.git.copies import Copy, Intake
from bastide.engines.git.making import Edit
from bastide.engines.git.objects import Entry
from bastide.engines.git.programs import GitError, TooMuch, answered

_LARGEST: Final = 16 << 20
_MOST_BOTH: Final = 2000
"""Files that are merged line by line, each by a program."""
_SIDES: Final = {"ACCEPT_SOURCE": "--theirs", "ACCEPT_DESTINATION": "--ours"}


@dataclass(slots=True)
class Conflict:
    """A path that both sides changed. numbers: conflicts within the content."""

    path: str
    base: Entry | None
    source: Entry | None
    destination: Entry | None
    numbers: int = 0
    content: bool = False
    mode: bool = False
    type: bool = False
    binary: dict[str, bool] = field(default_factory=dict)


@dataclass(slots=True)
class Merged:
    """edits: what makes the destination's tree the merged one. conflicts: what nobody decided; then nothing is merged."""

    edits: list[Edit] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)


def _same(one: Entry | None, other: Entry | None) -> bool:
    return (one is None and other is None) or (
        one is not None and other is not None and (one.mode, one.id) == (other.mode, other.id)
    )


def taken(path: str, entry: Entry | None) -> Edit:
    """The edit that has a path as an entry says."""
    return Edit(path, entry.mode, id=entry.id) if entry is not None else Edit(path)


async def merge(
    copy: Copy, intake: Intake, base: str | None, source: str, destination: str, *, level: str, strategy: str,
    resolved: Mapping[str, Edit | str] | None = None,
) -> Merged:  # fmt: skip
    """Merges `source` into `destination`. level: FILE_LEVEL or LINE_LEVEL; strategy: NONE, ACCEPT_SOURCE,
    ACCEPT_DESTINATION, AUTOMERGE. resolved: what becomes of paths that are in conflict, an edit or KEEP_BASE, KEEP_SOURCE,
    KEEP_DESTINATION. Raises TooMuch where there is too much to compare, GitError for what is resolved and in no conflict.
    """
    before = await copy.files(base) if base is not None else {}
    theirs, ours = await copy.files(source), await copy.files(destination)
    # Of many files this takes a while, and others are not to wait for it.
    merged, both = await asyncio.to_thread(_told_apart, before, theirs, ours)
    if len(both) > _MOST_BOTH:
        raise TooMuch(f"there are more than {_MOST_BOTH} files that both sides changed")
    decided = dict(resolved or {})
    for path in both:
        b, s, d = before.get(path), theirs.get(path), ours.get(path)
        conflict, edit = await _both(copy, intake, path, b, s, d, level, strategy)
        if conflict is None:
            merged.edits += [edit] if edit is not None else []
            continue
        chosen = decided.pop(path, None)
        if isinstance(chosen, Edit):
            merged.edits.append(chosen)
        elif chosen is not None:
            merged.edits.append(taken(path, {"KEEP_BASE": b, "KEEP_SOURCE": s, "KEEP_DESTINATION": d}[chosen]))
        else:
            merged.conflicts.append(conflict)
    if decided:
        raise GitError(f"nothing is in conflict at {sorted(decided)[0]}")
    await asyncio.to_thread(_crossing, merged, before, theirs, ours)
    return merged


def _told_apart(
    before: Mapping[str, Entry], theirs: Mapping[str, Entry], ours: Mapping[str, Entry]
) -> tuple[Merged, list[str]]:
    """The edits that the source alone made, and the paths that both sides changed, each in its way."""
    merged, both = Merged(), []
    for path in sorted({*theirs, *ours}):
        b, s, d = before.get(path), theirs.get(path), ours.get(path)
        if _same(s, d) or _same(s, b):
            continue
        if _same(d, b):
            merged.edits.append(taken(path, s))
        else:
            both.append(path)
    return merged, both


async def _both(
    copy: Copy, intake: Intake, path: str, b: Entry | None, s: Entry | None, d: Entry | None, level: str, strategy: str
) -> tuple[Conflict | None, Edit | None]:
    """What becomes of a path that both sides changed, each in its way."""
    side = {"ACCEPT_SOURCE": s, "ACCEPT_DESTINATION": d}.get(strategy)
    conflict = Conflict(path, b, s, d)
    whole = strategy in _SIDES and (level == "FILE_LEVEL" or s is None or d is None)
    if whole:
        return None, None if side is d else taken(path, side)
    if s is None or d is None:
        conflict.content = True
        conflict.numbers = 1
        return conflict, None
    if s.kind != "file" or d.kind != "file":
        if strategy in _SIDES:
            return None, None if side is d else taken(path, side)
        conflict.type = s.kind != d.kind
        conflict.content = s.id != d.id
        conflict.numbers = 1
        return conflict, None
    mode = d.mode if b is not None and s.mode == b.mode else s.mode
    conflict.mode = s.mode != d.mode and (b is None or b.mode not in (s.mode, d.mode))
    if conflict.mode and side is not None:
        conflict.mode, mode = False, side.mode
    content: bytes | None = None
    if s.id != d.id and not (b is not None and b.kind == "file" and b.id in (s.id, d.id)):
        content = await _lines(copy, intake, conflict, strategy)
        if content is None and side is not None:
            return None, None if side is d else taken(path, side)
        if level == "FILE_LEVEL" and strategy != "AUTOMERGE":
            conflict.content, conflict.numbers = True, max(1, conflict.numbers)
    if conflict.content or conflict.mode:
        return conflict, None
    if content is not None:
        return None, Edit(path, mode, content)
    id = s.id if b is not None and d.id == b.id else d.id
    return None, Edit(path, mode, id=id)


async def _lines(copy: Copy, intake: Intake, conflict: Conflict, strategy: str) -> bytes | None:
    """The content merged line by line; None where that cannot be. Says in `conflict` what stands against it."""
    assert conflict.source is not None and conflict.destination is not None
    base = conflict.base if conflict.base is not None and conflict.base.kind == "file" else None
    ids = [conflict.destination.id, *([base.id] if base is not None else []), conflict.source.id]
    sizes = await copy.kinds(ids)
    if any(one is None or one[2] > _LARGEST for one in sizes):
        conflict.content, conflict.numbers = True, 1
        return None
    held = await copy.contents(ids)
    parts = {"destination": held[0], "base": held[1] if base is not None else b"", "source": held[-1]}
    conflict.binary = {name: b"\0" in raw[:8000] for name, raw in parts.items()}
    if any(conflict.binary.values()):
        conflict.content, conflict.numbers = True, 1
        return None
    for name, raw in parts.items():
        (intake.folder / name).write_bytes(raw)
    inside = f"/git/{intake.place.own}"
    side = [_SIDES[strategy]] if strategy in _SIDES else []
    names = [f"{inside}/{name}" for name in ("destination", "base", "source")]
    labels = ["-L", "destination", "-L", "base", "-L", "source"]
    code, merged, said = await answered(intake.place, "merge-file", "-p", "-q", *side, *labels, *names)
    if code > 127:
        raise GitError(f"git merge-file failed: {said[:500]}")
    conflict.numbers, conflict.content = code, code > 0
    return merged


def _crossing(merged: Merged, *sides: Mapping[str, Entry]) -> None:
    """Finds files that would lie where folders are."""
    base, theirs, ours = sides
    final = set(ours)
    for edit in merged.edits:
        if edit.content is not None or edit.id:
            final.add(edit.path)
        else:
            final.discard(edit.path)
    folders = {"/".join(parts[:n]) for parts in (path.split("/") for path in final) for n in range(1, len(parts))}
    known = {one.path for one in merged.conflicts}
    for path in sorted(final & folders - known):
        conflict = Conflict(path, base.get(path), theirs.get(path), ours.get(path), 1)
        conflict.type = True
        merged.conflicts.append(conflict)


def unresolved(conflicts: Sequence[Conflict]) -> str:
    """The paths, for a message."""
    return ", ".join(one.path for one in conflicts[:10])

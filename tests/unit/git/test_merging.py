"""Merges are git's: what is merged without a conflict has the tree that git makes of it, and the other way round."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bastide.engines.git import Copy, Edit, Git, Signed, commit, merge
from bastide.engines.git.programs import answered

_PATHS = st.sampled_from(["a", "b", "c/d", "c/e"])
_TEXTS = st.lists(st.sampled_from(["1\n", "2\n", "three\n", "four\n"]), min_size=1, max_size=5).map("".join)
_TREES = st.dictionaries(_PATHS, _TEXTS, max_size=4)


def _whole(path: str, text: str) -> bytes:
    """A file that ends in lines of its own: not every change is a conflict, and no file looks like another one renamed."""
    return (text + "".join(f"line {number} of {path}\n" for number in range(12))).encode()


async def _nothing(_: str) -> AsyncIterator[bytes]:
    yield b""


async def _made(copy: Copy, parents: list[str], before: dict[str, str], after: dict[str, str]) -> str:
    edits = [Edit(path, content=_whole(path, text)) for path, text in after.items()]
    edits += [Edit(path) for path in before if path not in after]
    async with copy.intake() as intake:
        made, _ = await commit(intake, parents, edits, Signed("A", "a@b", 1), f"{parents}{after}")
        if intake.pack is not None:
            intake.join(made)
    return made


async def _both(root: Path, base: dict[str, str], ours: dict[str, str], theirs: dict[str, str]) -> None:
    async def opened() -> Path:
        return root

    async with Git(opened).copy("r", [], _nothing) as copy:
        first = await _made(copy, [], {}, {"kept": "", **base})
        one = await _made(copy, [first], base, ours)
        other = await _made(copy, [first], base, theirs)
        async with copy.intake() as intake:
            merged = await merge(copy, intake, first, other, one, level="LINE_LEVEL", strategy="NONE")
            code, said, _ = await answered(intake.place, "merge-tree", "--write-tree", one, other)
            assert (code == 0) == (not merged.conflicts), (code, said, merged)
            if code == 0:
                edits = merged.edits or [Edit("kept", content=_whole("kept", ""))]
                _, tree = await commit(intake, [one, other], edits, Signed("A", "a@b", 1), "m")
                assert tree == said.decode().split()[0]


@settings(
    max_examples=settings().max_examples // 15,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(base=_TREES, ours=_TREES, theirs=_TREES)
def test_a_merge_is_gits(tmp_path: Path, base: dict[str, str], ours: dict[str, str], theirs: dict[str, str]) -> None:
    asyncio.run(_both(Path(tempfile.mkdtemp(dir=tmp_path)), base, ours, theirs))

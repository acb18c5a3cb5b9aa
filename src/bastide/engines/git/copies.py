"""Working copies: repositories as git wants to see them, made from packs that lie sealed elsewhere.

A copy is a cache in an encrypted folder whose key nobody keeps. It holds packs alone; references are the platform's, and a
program that needs some gets a folder of its own with those that hold at that moment. Packs come in through a folder of
their own, too, and join the others when git has read them and the platform has kept them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bastide.engines.git import objects
from bastide.engines.git.objects import Change, Commit, Entry
from bastide.engines.git.programs import Damaged, GitError, Place, Program, program, run

Fetch = Callable[[str], AsyncIterator[bytes]]
_ROOM: Final = 16 << 30
_ATTRIBUTES: Final = "* -export-ignore -export-subst -text -ident -eol -filter -working-tree-encoding\n"
"""An archive is the tree, whatever its files say of themselves."""
MOST_OBJECTS: Final = 2_000_000
_PIECE: Final = 256 * 1024
_MOST_ENTRIES: Final = 300_000


class Git:
    """Keeps the copies. opened: gives the folder for them, and raises when it cannot be had."""

    def __init__(self, opened: Callable[[], Awaitable[Path]], room: int = _ROOM) -> None:
        self._opened = opened
        self._room = room
        self._root: Path | None = None
        self._opening = asyncio.Lock()
        self._held: dict[str, Copy] = {}

    async def _folder(self) -> Path:
        async with self._opening:
            if self._root is None or not self._root.is_dir():
                self._held.clear()
                self._root = await self._opened()
            return self._root

    @contextlib.asynccontextmanager
    async def copy(self, id: str, packs: Sequence[str], fetch: Fetch) -> AsyncIterator[Copy]:
        """The copy of a repository with these packs. id: letters, digits and hyphens; fetch: reads a pack by its id.

        Raises what `fetch` raises, GitError where git does not take a pack.
        """
        root = await self._folder()
        held = self._held.pop(id, None) or Copy(root / id)
        self._held[id] = held  # the latest used is the last
        held.users += 1
        try:
            await held.complete(packs, fetch)
            yield held
        finally:
            held.users -= 1
            await self._tidy()

    async def forget(self, id: str) -> None:
        """The repository is gone; whoever reads it now reads on."""
        held = self._held.get(id)
        if held is not None:
            held.gone = True
            await self._tidy()

    async def _tidy(self) -> None:
        room = sum(one.bytes for one in self._held.values())
        for id, one in list(self._held.items()):
            if not one.users and (one.gone or room > self._room):
                room -= one.bytes
                del self._held[id]
                trash = one.place.with_name(f"gone-{secrets.token_hex(8)}")
                with contextlib.suppress(FileNotFoundError):
                    one.place.rename(trash)
                await asyncio.to_thread(shutil.rmtree, trash, True)


def _bare(folder: Path, head: str = "refs/heads/none") -> None:
    (folder / "refs").mkdir(parents=True)
    (folder / "HEAD").write_text(f"ref: {head}\n")
    (folder / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")


class Copy:
    """One repository's copy. Ids of objects are checked by whoever asks: 40 hexadecimal digits."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.users = 0
        self.gone = False
        self.bytes = 0
        self._packs: set[str] = set()
        self._lock = asyncio.Lock()
        self._here = Place(place)

    async def complete(self, packs: Sequence[str], fetch: Fetch) -> None:
        """Has these packs, and perhaps others that hold the same."""
        async with self._lock:
            if not self.place.is_dir():
                self._packs.clear()
                for folder in ("objects/pack", "objects/info", "in", "at", "info"):
                    (self.place / folder).mkdir(parents=True)
                (self.place / "info" / "attributes").write_text(_ATTRIBUTES)
                _bare(self.place)
            for pack in packs:
                if pack not in self._packs:
                    async with self.intake() as intake:
                        path = intake.folder / "objects" / "pack" / "came.pack"
                        with path.open("wb") as file:
                            async for piece in fetch(pack):
                                file.write(piece)
                        await run(intake.place, "index-pack", f"/git/{intake.place.own}/objects/pack/came.pack")
                        intake.pack = path
                        intake.join(pack)

    # -- reading -------------------------------------------------------------------------------------------------------

    async def kinds(self, names: Sequence[str], place: Place | None = None) -> list[tuple[str, str, int] | None]:
        """Of each object (an id, or ``ID:PATH``) its id, type and size; None for what is not there.
        place: where they are looked for, an intake's."""
        given = b"".join(name.encode("utf-8", "surrogateescape") + b"\0" for name in names)
        raw = await run(place or self._here, "cat-file", "--batch-check", "-z", input=given)
        found: list[tuple[str, str, int] | None] = []
        lines = raw.split(b"\n")
        at = 0
        for name in names:
            # What is missing is answered with the name, line breaks and all.
            missing = name.encode("utf-8", "surrogateescape") + b" missing"
            count = missing.count(b"\n") + 1
            if b"\n".join(lines[at : at + count]) == missing:
                found.append(None)
                at += count
                continue
            parts = lines[at].split(b" ")
            found.append((parts[0].decode(), parts[1].decode(), int(parts[2])) if len(parts) == 3 else None)
            at += 1
        return found

    async def kind(self, name: str) -> tuple[str, str, int] | None:
        """The same of one."""
        return (await self.kinds([name]))[0]

    async def contents(self, ids: Sequence[str], most: int = 256 << 20) -> list[bytes]:
        """The bytes of objects that are there, all of them `most` at most."""
        if not ids:
            return []
        raw = await run(self._here, "cat-file", "--batch", input="".join(f"{id}\n" for id in ids).encode(), most=most)
        found, at = [], 0
        for _ in ids:
            end = raw.index(b"\n", at)
            size = int(raw[at:end].rsplit(b" ", 1)[1])
            found.append(raw[end + 1 : end + 1 + size])
            at = end + 1 + size + 1
        return found

    async def commits(self, ids: Sequence[str]) -> list[Commit | None]:
        """Commits by their ids, None for what is none."""
        kinds = await self.kinds(ids) if ids else []
        there = [one[0] for one in kinds if one is not None and one[1] == "commit"]
        read = dict(zip(there, await self.contents(there), strict=True))
        return [objects.commit(id, read[id]) if id in read else None for id in ids]

    async def commit(self, id: str) -> Commit | None:
        """A commit by its id."""
        return (await self.commits([id]))[0]

    async def peeled(self, id: str) -> str | None:
        """The commit that a commit or a tag of one stands for."""
        found = await self.kind(f"{id}^{{commit}}")
        return found[0] if found is not None else None

    async def folder(self, commit: str, path: str) -> tuple[str, list[Entry]] | None:
        """A folder's tree and what lies in it, by whole paths; None if there is none. path: without slashes around it."""
        found = await self.kind(f"{commit}:{path}")
        if found is None or found[1] != "tree":
            return None
        raw = await run(self._here, "ls-tree", "-z", found[0])
        return found[0], objects.entries(raw, f"{path}/" if path else "")

    async def entry(self, commit: str, path: str) -> Entry | None:
        """What lies at a path; links are not followed."""
        above, _, _ = path.rpartition("/")
        found = await self.folder(commit, above)
        return next((one for one in found[1] if one.path == path), None) if found is not None else None

    async def files(self, commit: str) -> dict[str, Entry]:
        """Everything in a commit that is no folder, by path; raises GitError for too many."""
        raw = await run(self._here, "ls-tree", "-r", "-z", "--full-tree", commit)
        found = {one.path: one for one in objects.entries(raw)}
        if len(found) > _MOST_ENTRIES:
            raise GitError(f"there are more than {_MOST_ENTRIES} files")
        return found

    async def changes(self, before: str | None, after: str) -> list[Change]:
        """What differs between two trees; before: None for nothing."""
        if before is None:
            held = objects.entries(await run(self._here, "ls-tree", "-r", "-z", "--full-tree", after))
            return [Change(None, one) for one in held]
        raw = await run(self._here, "diff-tree", "-r", "-z", "--raw", "--no-renames", "--full-index", before, after)
        return list(objects.changes(raw))

    async def base(self, one: str, other: str) -> str | None:
        """The best common ancestor of two commits."""
        raw = await run(self._here, "merge-base", one, other, fine=(0, 1))
        return raw.decode().strip() or None

    async def merges(self, tips: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
        """The merge commits below some commits, newest first, with their parents."""
        given = "".join(f"{one}\n" for one in tips).encode()
        raw = await run(self._here, "rev-list", "--min-parents=2", "--parents", "--stdin", input=given)
        rows = [line.split(" ") for line in raw.decode().splitlines()]
        return [(row[0], tuple(row[1:])) for row in rows]

    async def archive(self, commit: str, *, most: int) -> bytes:
        """The commit's tree as a zip; raises GitError for more than `most` bytes."""
        return await run(self._here, "archive", "--format=zip", commit, most=most)

    # -- references, for whoever needs some ----------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def standing(self, head: str, references: Mapping[str, str]) -> AsyncIterator[Place]:
        """A place where these references hold."""
        own = f"at/{secrets.token_hex(8)}"
        folder = self.place / own
        _bare(folder, head)
        (folder / "objects").symlink_to("../../objects")
        lines = [f"{id} {name}\n" for name, id in sorted(references.items(), key=lambda one: one[0].encode())]
        (folder / "packed-refs").write_text("# pack-refs with: sorted \n" + "".join(lines))
        self.users += 1
        try:
            yield Place(self.place, own)
        finally:
            self.users -= 1
            await asyncio.to_thread(shutil.rmtree, folder, True)

    @contextlib.asynccontextmanager
    async def upload(
        self, head: str, references: Mapping[str, str], *arguments: str, protocol: str = ""
    ) -> AsyncIterator[Program]:
        """``git upload-pack`` over these references. protocol: what the client says of its version, checked."""
        variables = {"GIT_PROTOCOL": protocol} if protocol else {}
        async with (
            self.standing(head, references) as place,
            program(place, "upload-pack", "--stateless-rpc", *arguments, f"/git/{place.own}", **variables) as running,
        ):
            yield running

    async def bundle(self, head: str, references: Mapping[str, str], *, most: int) -> bytes:
        """The whole repository as a bundle; raises GitError for more than `most` bytes, or nothing."""
        async with self.standing(head, references) as place:
            return await run(place, "bundle", "create", "-", "--all", "HEAD", most=most)

    # -- what comes in -------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def intake(self) -> AsyncIterator[Intake]:
        """A folder for what comes in; what did not join goes with it."""
        own = f"in/{secrets.token_hex(8)}"
        folder = self.place / own
        (folder / "objects" / "pack").mkdir(parents=True)
        _bare(folder)
        self.users += 1
        try:
            yield Intake(self, folder, Place(self.place, own, objects=True))
        finally:
            self.users -= 1
            await asyncio.to_thread(shutil.rmtree, folder, True)


class Intake:
    """Objects on their way in. pack: the file that holds them, once they are whole; none if nothing is new."""

    def __init__(self, copy: Copy, folder: Path, place: Place) -> None:
        self.copy = copy
        self.folder = folder
        self.place = place
        self.pack: Path | None = None

    async def take(self, pack: AsyncIterator[bytes], most: int) -> None:
        """Takes a pack in: every object is well-formed, and what it names is there. Raises Damaged."""
        async with program(
            self.place, "index-pack", "--stdin", "--fix-thin", "--strict", f"--max-input-size={most}"
        ) as running:
            writing = asyncio.get_running_loop().create_task(running.write(pack))
            try:
                said = b"".join([piece async for piece in running.read()])
                await writing
            finally:
                writing.cancel()
            if await running.ended() != 0:
                raise Damaged(running.said.removeprefix("fatal: ")[:500] or "the pack cannot be read")
        self._found(said.decode("utf-8", "replace").strip().rpartition("\t")[2])

    async def write(self, stream: Iterable[bytes]) -> str:
        """Has ``git fast-import`` make what a stream says and returns what it answers; raises GitError."""
        answer = await run(self.place, "fast-import", "--quiet", "--date-format=raw", input=b"".join(stream))
        made = sorted((self.folder / "objects" / "pack").glob("pack-*.pack"))
        if made:
            name = made[0].name
            try:
                await run(
                    self.place, "index-pack", "--strict", "-o", f"/git/{self.place.own}/checked.idx",
                    f"/git/{self.place.own}/objects/pack/{name}",
                )  # fmt: skip
            except GitError as error:
                raise Damaged(str(error)) from None
            self._found(name.removeprefix("pack-").removesuffix(".pack"))
        return answer.decode().strip()

    async def tree(self, commit: str) -> str:
        """The tree of a commit that was made here."""
        return (await run(self.place, "rev-parse", f"{commit}^{{tree}}")).decode().strip()

    def _found(self, name: str) -> None:
        if objects.ID.fullmatch(name):
            self.pack = self.folder / "objects" / "pack" / f"pack-{name}.pack"

    async def gather(self) -> None:
        """Puts everything that the repository has, and what came in, into one pack, in place of all others."""
        listed = await run(self.place, "cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objectname)")
        name = await run(self.place, "pack-objects", "-q", f"/git/{self.place.own}/objects/pack/all", input=listed)
        self.pack = self.folder / "objects" / "pack" / f"all-{name.decode().strip()}.pack"

    async def content(self) -> AsyncIterator[bytes]:
        """The bytes of the pack."""
        assert self.pack is not None
        descriptor = os.open(self.pack, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            while piece := await asyncio.to_thread(file.read, _PIECE):
                yield piece

    @property
    def size(self) -> int:
        """Bytes of the pack, 0 if nothing is new."""
        return self.pack.lstat().st_size if self.pack is not None else 0

    def join(self, name: str) -> None:
        """The pack is kept under this name; what it holds is the repository's from now on."""
        if self.pack is None:
            return
        target = self.copy.place / "objects" / "pack" / f"pack-{name}"
        for source in (self.pack.with_suffix(".idx"), self.pack):
            held = source.lstat()
            if not stat.S_ISREG(held.st_mode):
                raise GitError("what git left is no file")
            source.chmod(0o400)
        self.copy.bytes += self.pack.lstat().st_size
        # git looks for indices, so the pack is there first.
        self.pack.rename(target.with_suffix(".pack"))
        self.pack.with_suffix(".idx").rename(target.with_suffix(".idx"))
        self.copy._packs.add(name)

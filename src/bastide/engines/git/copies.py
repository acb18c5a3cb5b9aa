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
from bastide.engines.git.programs import Damaged, GitError, Place, Program, TooMuch, program, run

Fetch = Callable[[str], AsyncIterator[bytes]]
_ROOM: Final = 16 << 30
_FETCHES: Final = 32
_PATIENCE: Final = 20.0
"""Seconds that a fetch waits for its turn."""
_ATTRIBUTES: Final = "* -export-ignore -export-subst -text -ident -eol -filter -working-tree-encoding\n"
"""An archive is the tree, whatever its files say of themselves."""
_MARK: Final = "copies"
MOST_OBJECTS: Final = 2_000_000
_TAKING: Final = asyncio.Semaphore(8)
"""Packs that are read at a time: each may need much memory."""
_PIECE: Final = 256 * 1024
_MOST_ENTRIES: Final = 300_000
_MOST_LISTED: Final = 64 << 20
"""Bytes of a list that is read whole."""
_MOST_TREE: Final = 12 << 20


class Busy(GitError):  # noqa: N818
    """As many fetches are under way as there may be; the message says how many."""


class Git:
    """Keeps the copies. opened: gives the folder for them, another if one is lost; raises when none can be had. fetches: so
    many clients are sent something at a time, and half as many of one account."""

    def __init__(
        self,
        opened: Callable[[], Awaitable[Path]],
        room: int = _ROOM,
        fetches: int = _FETCHES,
        patience: float = _PATIENCE,
    ) -> None:
        self._opened = opened
        self._room = room
        self.fetches = fetches
        self.patience = patience
        self._fetching: dict[str, int] = {}
        self._ended = asyncio.Condition()
        self._opening = asyncio.Lock()
        self._held: dict[str, _Held] = {}

    async def _folder(self) -> Path:
        async with self._opening:
            root = await self._opened()
            if not (root / _MARK).exists():
                self._held.clear()
                (root / _MARK).touch()
            return root

    @contextlib.asynccontextmanager
    async def copy(self, id: str, packs: Sequence[str], fetch: Fetch) -> AsyncIterator[Copy]:
        """The copy of a repository with these packs. id: letters, digits and hyphens; fetch: reads a pack by its id.

        Raises what `fetch` raises, GitError where git does not take a pack.
        """
        root = await self._folder()
        held = self._held.pop(id, None) or _Held(root / id)
        self._held[id] = held  # the latest used is the last
        held.users += 1
        try:
            await held.complete(packs, fetch)
            async with contextlib.AsyncExitStack() as open_:
                yield Copy(held, open_)
        finally:
            held.users -= 1
            await self._tidy()

    @contextlib.asynccontextmanager
    async def turn(self, account: str) -> AsyncIterator[None]:
        """Room for one fetch: each is a program and what it holds in memory. Waits for it, and then raises Busy."""

        def free() -> bool:
            own = self._fetching.get(account, 0)
            return own < max(1, self.fetches // 2) and sum(self._fetching.values()) < self.fetches

        async with self._ended:
            try:
                async with asyncio.timeout(self.patience):
                    await self._ended.wait_for(free)
            except TimeoutError:
                raise Busy(
                    f"{self.fetches} fetches at a time, {max(1, self.fetches // 2)} of them of one account"
                ) from None
            self._fetching[account] = self._fetching.get(account, 0) + 1
        try:
            yield
        finally:
            async with self._ended:
                self._fetching[account] -= 1
                if not self._fetching[account]:
                    del self._fetching[account]
                self._ended.notify_all()

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


class _Held:
    """A repository's folder, which all that work on it share."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.users = 0
        self.gone = False
        self.bytes = 0
        self.packs: set[str] = set()
        self._lock = asyncio.Lock()

    async def complete(self, packs: Sequence[str], fetch: Fetch) -> None:
        """Has these packs, and perhaps others that hold the same."""
        async with self._lock:
            if not self.place.is_dir():
                self.packs.clear()
                for folder in ("objects/pack", "objects/info", "in", "at", "info"):
                    (self.place / folder).mkdir(parents=True)
                (self.place / "info" / "attributes").write_text(_ATTRIBUTES)
                _bare(self.place)
            for pack in packs:
                if pack not in self.packs:
                    async with _intake(self) as intake:
                        path = intake.folder / "objects" / "pack" / "came.pack"
                        with path.open("wb") as file:
                            async for piece in fetch(pack):
                                file.write(piece)
                        await run(intake.place, "index-pack", f"/git/{intake.place.own}/objects/pack/came.pack")
                        intake.pack = path
                        intake.join(pack)


@contextlib.asynccontextmanager
async def _intake(held: _Held) -> AsyncIterator[Intake]:
    own = f"in/{secrets.token_hex(8)}"
    folder = held.place / own
    (folder / "objects" / "pack").mkdir(parents=True)
    _bare(folder)
    held.users += 1
    try:
        yield Intake(held, folder, Place(held.place, own, objects=True))
    finally:
        held.users -= 1
        await asyncio.to_thread(shutil.rmtree, folder, True)


class Copy:
    """One repository's copy, for one who works on it. Ids of objects are checked by whoever asks: 40 hexadecimal digits."""

    def __init__(self, held: _Held, open_: contextlib.AsyncExitStack) -> None:
        self._held = held
        self._here = Place(held.place)
        self._open = open_
        self._reading: Program | None = None
        self._asking = asyncio.Lock()

    # -- reading -------------------------------------------------------------------------------------------------------

    async def _asked(self, command: str, name: str, most: int) -> tuple[list[bytes], bytes] | None:
        """What ``cat-file`` answers of an object: id, type and size, and its content if that is asked for."""
        if self._reading is None:
            self._reading = await self._open.enter_async_context(
                program(self._here, "cat-file", "--batch-command", "-z")
            )
        raw = name.encode("utf-8", "surrogateescape")
        missing = raw + b" missing\n"
        await self._reading.send(command.encode() + b" " + raw + b"\0")
        line = await self._reading.line()
        while missing.startswith(line) and line != missing and b"\n" in missing[:-1]:
            line += await self._reading.line()  # what is missing is answered with its name, line breaks and all
        parts = line.split()
        if line == missing or len(parts) != 3 or not parts[2].isdigit():
            return None
        size = int(parts[2])
        if command == "info":
            return parts, b""
        if size > most:
            raise TooMuch(f"an object has more than {most} bytes")
        content = await self._reading.exactly(size + 1)
        return parts, content[:-1]

    async def kind(self, name: str) -> tuple[str, str, int] | None:
        """Of an object (an id, or ``ID:PATH``) its id, type and size; None if it is not there."""
        async with self._asking:
            found = await self._asked("info", name, 0)
        return None if found is None else (found[0][0].decode(), found[0][1].decode(), int(found[0][2]))

    async def kinds(self, names: Sequence[str]) -> list[tuple[str, str, int] | None]:
        """The same of several."""
        return [await self.kind(name) for name in names]

    async def contents(self, ids: Sequence[str], most: int = 64 << 20) -> list[bytes]:
        """The bytes of objects that are there, each of them `most` at most."""
        found = []
        for id in ids:
            async with self._asking:
                one = await self._asked("contents", id, most)
            if one is None:
                raise GitError(f"there is no object {id}")
            found.append(one[1])
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
        raw = (await self.contents([found[0]], _MOST_TREE))[0]
        return found[0], objects.tree(raw, f"{path}/" if path else "")

    async def entry(self, commit: str, path: str) -> Entry | None:
        """What lies at a path; links are not followed."""
        above, _, _ = path.rpartition("/")
        found = await self.folder(commit, above)
        return next((one for one in found[1] if one.path == path), None) if found is not None else None

    async def files(self, commit: str) -> dict[str, Entry]:
        """Everything in a commit that is no folder, by path; raises TooMuch for too many."""
        raw = await self._listed("ls-tree", "-r", "-z", "--full-tree", commit)
        return await asyncio.to_thread(lambda: {one.path: one for one in objects.entries(raw)})

    async def _listed(self, *arguments: str) -> bytes:
        """What lists files; raises TooMuch before anything is made of too many."""
        raw = await run(self._here, *arguments, most=_MOST_LISTED)
        if raw.count(b"\0") > _MOST_ENTRIES * (2 if arguments[0] == "diff-tree" else 1):
            raise TooMuch(f"there are more than {_MOST_ENTRIES} files")
        return raw

    async def changes(self, before: str | None, after: str) -> list[Change]:
        """What differs between two trees; before: None for nothing. Raises TooMuch."""
        if before is None:
            raw = await self._listed("ls-tree", "-r", "-z", "--full-tree", after)
            return await asyncio.to_thread(lambda: [Change(None, one) for one in objects.entries(raw)])
        raw = await self._listed("diff-tree", "-r", "-z", "--raw", "--no-renames", "--full-index", before, after)
        return await asyncio.to_thread(lambda: list(objects.changes(raw)))

    async def base(self, one: str, other: str) -> str | None:
        """The best common ancestor of two commits."""
        raw = await run(self._here, "merge-base", one, other, fine=(0, 1))
        return raw.decode().strip() or None

    async def merges(self, tips: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
        """The merge commits below some commits, newest first, with their parents."""
        given = "".join(f"{one}\n" for one in tips).encode()
        raw = await run(
            self._here, "rev-list", "--min-parents=2", "--parents", "--stdin", input=given, most=_MOST_LISTED
        )
        rows = [line.split(" ") for line in raw.decode().splitlines()]
        return [(row[0], tuple(row[1:])) for row in rows]

    async def archive(self, commit: str, *, most: int) -> bytes:
        """The commit's tree as a zip; raises TooMuch for more than `most` bytes."""
        return await run(self._here, "archive", "--format=zip", commit, most=most)

    # -- references, for whoever needs some ----------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def standing(self, head: str, references: Mapping[str, str]) -> AsyncIterator[Place]:
        """A place where these references hold."""
        own = f"at/{secrets.token_hex(8)}"
        folder = self._held.place / own
        _bare(folder, head)
        (folder / "objects").symlink_to("../../objects")
        lines = [f"{id} {name}\n" for name, id in sorted(references.items(), key=lambda one: one[0].encode())]
        (folder / "packed-refs").write_text("# pack-refs with: sorted \n" + "".join(lines))
        self._held.users += 1
        try:
            yield Place(self._held.place, own)
        finally:
            self._held.users -= 1
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

    def intake(self) -> contextlib.AbstractAsyncContextManager[Intake]:
        """A folder for what comes in; what did not join goes with it."""
        return _intake(self._held)


class Intake:
    """Objects on their way in. pack: the file that holds them, once they are whole; none if nothing is new."""

    def __init__(self, held: _Held, folder: Path, place: Place) -> None:
        self._held = held
        self.folder = folder
        self.place = place
        self.pack: Path | None = None

    async def take(self, pack: AsyncIterator[bytes], most: int) -> None:
        """Takes a pack in: every object is well-formed, and what it names is there. Raises Damaged."""
        async with (
            _TAKING,
            program(
                self.place, "index-pack", "--stdin", "--fix-thin", "--strict", f"--max-input-size={most}"
            ) as running,
        ):
            writing = asyncio.get_running_loop().create_task(running.write(pack))
            try:
                said = b"".join([piece async for piece in running.read()])
                await writing
            finally:
                writing.cancel()
            if await running.ended() != 0:
                raise Damaged(running.said.removeprefix("fatal: ")[:500] or "the pack cannot be read")
        self._found(said.decode("utf-8", "replace").strip().rpartition("\t")[2])

    async def kinds(self, names: Sequence[str]) -> list[tuple[str, str] | None]:
        """Of each object that is there, or came in, its id and type."""
        given = "".join(f"{name}\n" for name in names).encode()
        raw = await run(self.place, "cat-file", "--batch-check=%(objectname) %(objecttype)", input=given)
        found: list[tuple[str, str] | None] = []
        for line in raw.decode("utf-8", "replace").splitlines():
            id, _, type = line.partition(" ")
            found.append((id, type) if type in ("commit", "tag", "tree", "blob") else None)
        return found

    async def write(self, stream: Iterable[bytes], *, strictly: bool) -> str:
        """Has ``git fast-import`` make what a stream says and returns what it answers; raises GitError. strictly: what was
        made is checked like what is pushed; raises Damaged."""
        answer = await run(self.place, "fast-import", "--quiet", "--date-format=raw", input=b"".join(stream))
        made = sorted((self.folder / "objects" / "pack").glob("pack-*.pack"))
        if made:
            name = made[0].name
            if strictly:
                inside = f"/git/{self.place.own}"
                arguments = ("--strict", "-o", f"{inside}/checked.idx", f"{inside}/objects/pack/{name}")
                try:
                    await run(self.place, "index-pack", *arguments)
                except GitError as error:
                    raise Damaged(str(error)) from None
            self._found(name.removeprefix("pack-").removesuffix(".pack"))
        return answer.decode().strip()

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
        target = self._held.place / "objects" / "pack" / f"pack-{name}"
        for source in (self.pack.with_suffix(".idx"), self.pack):
            held = source.lstat()
            if not stat.S_ISREG(held.st_mode):
                raise GitError("what git left is no file")
            source.chmod(0o400)
        self._held.bytes += self.pack.lstat().st_size
        # git looks for indices, so the pack is there first.
        self.pack.rename(target.with_suffix(".pack"))
        self.pack.with_suffix(".idx").rename(target.with_suffix(".idx"))
        self._held.packs.add(name)

"""What git and other services ask: to fetch, to push, to be given a commit's tree or the whole repository.

A push is decided before its pack is read; its objects are checked by git and kept, then the references move in one
transaction with everything else that follows, and only then does git hear of it. Sources: gitprotocol-pack(5),
gitprotocol-http(5); AWS CodeCommit User Guide, "Limit pushes and merges to branches".
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import git
from bastide.kernel import Ask, Asked, Authorised, Output
from bastide.services.codecommit import content
from bastide.services.codecommit.content import STAGED, Opened, Staged, answer, looking, opened
from bastide.services.codecommit.moving import Move, move
from bastide.services.codecommit.noun import (
    HEADS,
    REFERENCE,
    REFERENCES,
    asks,
    named,
    reference,
    references,
    refused,
    repository,
    specified,
)
from bastide.store import Row, Transaction, View

_log = logging.getLogger("bastide.codecommit")
MOST_PUSHED: Final = 2 << 30
"""Bytes of one push. Source: AWS CodeCommit User Guide, "Quotas"."""
_MOST_ARCHIVE: Final = 256 << 20
_MOST_ADVERTISED: Final = 64 << 20
_COLLABORATORS: Final = "the tip of the branch is another by now; fetch first"


@dataclass(slots=True)
class Fetch:
    """What a client of git wants to read. body: its request; None for the references alone. protocol: the version that it
    speaks, as git's variable has it."""

    body: bytes | None = None
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """One reference of a push: where the client believes it stands, and where it shall."""

    name: str
    before: str
    after: str


@dataclass(slots=True)
class Push:
    """What a client of git wants to change. commands: None for the references alone. pack: what follows them."""

    commands: list[Command] | None = None
    pack: AsyncIterator[bytes] | None = None
    atomic: bool = False
    results: dict[str, str] = field(default_factory=dict)


def _told(a: Authorised, row: Row, transferred: bool) -> None:
    """What the record says, as CloudTrail's events of git do (AWS CodeCommit User Guide, "Logging with CloudTrail")."""
    a.call.told = {
        "protocol": "HTTP", "dataTransferred": transferred, "repositoryName": row.name, "repositoryId": row.doc["id"],
    }  # fmt: skip


# -- fetching ------------------------------------------------------------------------------------------------------------


async def _pull(a: Authorised) -> Output:
    wanted = a.call.prepared
    if not isinstance(wanted, Fetch):
        archive: Output = await _archived(a)
        return archive
    stack = contextlib.AsyncExitStack()
    try:
        try:
            await stack.enter_async_context(a.engine(git.Git).turn(a.account))
        except git.Busy as busy:
            raise Refused("ThrottlingException", f"Try again in a moment: this platform serves {busy}.", 429) from None
        here = await stack.enter_async_context(opened(a, lambda view: named(a, view)))
        with a.calls.store.reading() as view:
            row = named(a, view)
            held = references(view, row)
        _told(a, row, wanted.body is not None)
        head = HEADS + (row.doc.get("default") or "main")
        advertise = ["--http-backend-info-refs"] if wanted.body is None else []
        program = await stack.enter_async_context(here.copy.upload(head, held, *advertise, protocol=wanted.protocol))
        if wanted.body is None:
            await program.write([])
            found = bytearray()
            async for piece in program.read():
                found += piece
                if len(found) > _MOST_ADVERTISED:
                    raise refused("InternalFailure", "The repository has more references than can be told.")
            await stack.aclose()
            return {"advertised": bytes(found)}
        await program.write([wanted.body])
        return {"stream": _streamed(program, stack.pop_all())}
    except BaseException:
        await stack.aclose()
        raise


async def _streamed(program: Any, stack: contextlib.AsyncExitStack) -> AsyncGenerator[bytes, None]:
    async with stack:
        async for piece in program.read():
            yield piece
        if await program.ended() != 0:
            _log.warning("git could not send what was asked: %s", program.said[:500])


# -- archives ------------------------------------------------------------------------------------------------------------


def _date(person: git.Person) -> str:
    try:
        return datetime.fromtimestamp(int(person.date.split(" ")[0]), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "1970-01-01T00:00:00Z"


async def _archive(a: Authorised, here: Opened) -> Output:
    given = a.input.get("commitSpecifier")
    with a.calls.store.reading() as view:
        row = named(a, view)
        try:
            id = specified(view, row, given)
        except Refused:
            # Who asks for an archive names a branch, mostly; an id that is not there is looked for below.
            raise refused("BranchDoesNotExist", f"{str(given or 'The default branch')[:200]} does not exist") from None
        held = references(view, row)
        text = str(given or row.doc.get("default") or "")
        name = text.removeprefix(HEADS) if reference(view, row, HEADS + text.removeprefix(HEADS)) else None
    commit = await here.commit(id)
    try:
        if str(a.input.get("format") or "zip") == "bundle":
            archive = await here.copy.bundle(HEADS + (row.doc.get("default") or "main"), held, most=_MOST_ARCHIVE)
        else:
            archive = await here.copy.archive(commit.id, most=_MOST_ARCHIVE)
    except git.GitError as error:
        raise Refused("ValidationException", f"The archive cannot be made: {str(error)[:300]}") from None
    output = {
        "commitId": commit.id, "archive": archive, "message": commit.message, "authorDate": _date(commit.author),
        "committerDate": _date(commit.committer),
    }  # fmt: skip
    return {**output, **({"branchName": name} if name else {})}


_archived: Final = looking(_archive)

REFERENCE.reads("GitPull", asks=asks("GitPull"), before=_pull, inside=True)(answer)
REFERENCE.reads("UploadArchive", asks=asks("UploadArchive"), before=_archived, inside=True)(answer)


# -- pushing -------------------------------------------------------------------------------------------------------------


def _pushed(asked: Asked) -> list[str] | None:
    found: list[str] | None = asked.input.get("references")
    return found


def _fault(view: View, row: Row, one: Command) -> str:
    """Why a reference cannot move so, empty if it can."""
    if not git.legal_reference(one.name):
        return "funny refname; branches and tags are kept, under names that git takes everywhere"
    held = reference(view, row, one.name)
    if (held.doc["object"] if held is not None else git.NOTHING) != one.before:
        return _COLLABORATORS
    if one.after == git.NOTHING and one.name == f"{HEADS}{row.doc.get('default')}":
        return "the default branch cannot be deleted"
    return ""


async def _take(a: Authorised) -> Staged | Output:
    push = a.call.prepared
    if not isinstance(push, Push):
        raise refused("InvalidParameter", "Only git pushes.")
    if push.commands is None:
        with a.calls.store.reading() as view:
            row = named(a, view)
            held = references(view, row)
        _told(a, row, False)
        return {"references": held}
    commands, pack = push.commands, push.pack
    assert pack is not None
    async with content.staging(a, lambda view: named(a, view)) as (here, intake, staged):
        _told(a, here.row, True)
        with a.calls.store.reading() as view:
            push.results = {one.name: _fault(view, here.row, one) for one in commands}
        if any(one.after != git.NOTHING for one in commands):
            try:
                objects, whole = await _counted(pack)
                if objects:
                    await intake.take(whole, MOST_PUSHED)
                else:
                    async for _ in whole:
                        pass
            except git.Damaged as error:
                raise Refused("InvalidPackException", str(error)) from None
        wanted = [one for one in commands if one.after != git.NOTHING and not push.results[one.name]]
        found = await intake.kinds([one.after for one in wanted]) if wanted else []
        for one, kind in zip(wanted, found, strict=True):
            if kind is None:
                push.results[one.name] = "missing necessary objects"
            elif one.name.startswith(HEADS) and kind[1] != "commit":
                push.results[one.name] = "a branch stands for a commit"
    return staged


async def _counted(pack: AsyncIterator[bytes]) -> tuple[int, AsyncIterator[bytes]]:
    """How many objects a pack says that it has, and the pack. Raises Damaged."""
    head = b""
    while len(head) < 12:
        piece = await anext(pack, b"")
        if not piece:
            raise git.Damaged("the pack ends before it begins")
        head += piece
    if head[:4] != b"PACK":
        raise git.Damaged("that is no pack")
    count = int.from_bytes(head[8:12])
    if count > git.MOST_OBJECTS:
        raise git.Damaged(f"the pack has more than {git.MOST_OBJECTS} objects")

    async def whole() -> AsyncIterator[bytes]:
        yield head
        async for piece in pack:
            yield piece

    return count, whole()


@REFERENCE.operation(
    "GitPush",
    asks=[Ask("codecommit:GitPush", repository(), given={REFERENCES: _pushed})],
    before=_take,
    inside=True,
    **STAGED,
)
def push(a: Authorised, tx: Transaction) -> Output:
    if not isinstance(a.staged, Staged):
        found: Output = a.staged
        return found
    wanted: Push = a.call.prepared
    assert wanted.commands is not None
    row = named(a, tx)
    results = {one.name: wanted.results[one.name] or _fault(tx, row, one) for one in wanted.commands}
    if wanted.atomic and any(results.values()):
        results = {name: fault or "atomic push failed" for name, fault in results.items()}

    def plain(id: str) -> str:
        return "" if id == git.NOTHING else id

    moves = [Move(one.name, plain(one.before), plain(one.after)) for one in wanted.commands if not results[one.name]]
    moves = [one for one in moves if one.before != one.after]
    if moves:
        try:
            with tx.savepoint():
                move(a, tx, row, moves)
        except Refused as error:
            return {"results": {name: fault or error.message for name, fault in results.items()}}
        content.name(a, tx, a.staged)
    else:
        a.events += a.staged.events
    return {"results": results}

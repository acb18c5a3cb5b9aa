"""From a call to git: the repository's state of this moment, its data key for the caller, its working copy.

A call that changes something makes its objects first and keeps them, sealed, as a file that nobody names (`Staged`); the
handler's transaction then names the file and moves the branch, if that still is where it was, or nothing happens at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import git
from bastide.engines.artifacts import Artifacts, Damaged, Unavailable
from bastide.kernel import Authorised, Output
from bastide.services.codecommit import noun, sealing
from bastide.services.codecommit.noun import PACK, refused, rows_of
from bastide.store import Event, Row, Transaction, View

_MOST_PACKS: Final = 50
"""More than these are gathered into one."""
MOST_BYTES: Final = 4 << 30
"""Of one repository's packs."""


@dataclass(slots=True)
class Opened:
    """A repository at one moment, with its copy."""

    a: Authorised
    row: Row
    key: bytes
    packs: dict[str, int]
    copy: git.Copy

    @property
    def bytes(self) -> int:
        """Of its packs."""
        return sum(self.packs.values())

    async def commit(self, id: str, wrong: str = "CommitDoesNotExist") -> git.Commit:
        """A commit by the id of one, or of a tag of one; raises the exception `wrong`."""
        peeled = await self.copy.peeled(id)
        found = await self.copy.commit(peeled) if peeled is not None else None
        if found is None:
            raise refused(wrong, f"There is no commit {id}")
        return found


@dataclass(slots=True)
class Staged:
    """What a call made and has not named yet. file, size: the sealed pack, if there is one; gone: files that it takes the
    place of; found: whatever the handler needs; events: what was recorded on the way."""

    repository: str = ""
    file: str = ""
    size: int = 0
    gone: list[str] = field(default_factory=list)
    found: Any = None
    events: list[Event] = field(default_factory=list)
    intake: git.Intake | None = None
    named: bool = False
    open: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    """What stands until the handler has ended."""


@contextlib.contextmanager
def told() -> Any:
    """Says what git could not do in CodeCommit's words."""
    try:
        yield
    except git.TooMuch as error:
        raise refused("MaximumItemsToCompareExceeded", f"The repository has more than is read here: {error}") from None
    except Damaged:
        raise refused("EncryptionIntegrityChecksFailed", "What is kept of the repository is damaged.") from None
    except Unavailable:
        raise Refused("InternalFailure", "The repository cannot be read now. Please try again.", 503) from None


@contextlib.asynccontextmanager
async def opened(a: Authorised, find: Callable[[View], Row]) -> AsyncIterator[Opened]:
    """The repository that `find` finds, opened for the caller."""
    artifacts = a.engine(Artifacts)
    async with contextlib.AsyncExitStack() as stack:
        for attempt in (1, 2):
            with a.calls.store.reading() as view:
                row = find(view)
                key = sealing.opened(a, view, row)
                held = rows_of(view, PACK, "", "", f"{row.doc['id']}/")
            packs = {one.name.rpartition("/")[2]: int(one.doc["size"]) for one in held}
            fetch = partial(sealing.content, artifacts, key)
            try:
                with told():
                    copy = await stack.enter_async_context(a.engine(git.Git).copy(row.doc["id"], list(packs), fetch))
                break
            except FileNotFoundError:
                # Another pack has taken the place of one that was read of.
                if attempt == 2:
                    raise
        with told():
            yield Opened(a, row, key, packs, copy)


@contextlib.asynccontextmanager
async def staging(a: Authorised, find: Callable[[View], Row]) -> AsyncIterator[tuple[Opened, git.Intake, Staged]]:
    """The repository, a folder for new objects, and what the handler will find. What the block put into the folder is kept
    when it ends, sealed, if anything was."""
    async with contextlib.AsyncExitStack() as stack:
        here = await stack.enter_async_context(opened(a, find))
        intake = await stack.enter_async_context(here.copy.intake())
        staged = Staged(here.row.doc["id"], intake=intake)
        yield here, intake, staged
        staged.events = list(a.events)
        if intake.size:
            if here.bytes + intake.size > MOST_BYTES:
                raise refused("RepositoryLimitExceeded", f"A repository has {MOST_BYTES} bytes at most.")
            if len(here.packs) >= _MOST_PACKS:
                await intake.gather()
                staged.gone = list(here.packs)
            written = await a.engine(Artifacts).write(intake.content(), here.key, digest="")
            staged.file, staged.size = written.id, written.size
        staged.open = stack.pop_all()


def name(a: Authorised, tx: Transaction, staged: Staged) -> None:
    """What was made is the repository's from this transaction on; raises Refused where another one has its name by now."""
    if noun.named(a, tx).doc["id"] != staged.repository:
        raise refused("ConcurrentReferenceUpdate", "The repository is another one by now. Please try again.")
    a.events += staged.events
    staged.named = True
    if staged.file:
        doc = {"size": staged.size, "account": a.account, "region": a.region}
        tx.insert(Row(PACK, "", "", f"{staged.repository}/{staged.file}", doc), keep=False)
        for file in staged.gone:
            held = tx.get(PACK, "", "", f"{staged.repository}/{file}")
            if held is not None:
                tx.delete(held, keep=False)


async def undo(a: Authorised) -> None:
    """Forgets what was made in vain."""
    if isinstance(a.staged, Staged):
        await a.staged.open.aclose()
        if a.staged.file:
            await a.engine(Artifacts).delete(a.staged.file)


async def done(a: Authorised, output: Output) -> Output:
    """What was made joins the copy, and files go that another took the place of."""
    staged = a.staged
    if isinstance(staged, Staged):
        if staged.intake is not None and staged.file and staged.named:
            staged.intake.join(staged.file)
        await staged.open.aclose()
        unwanted = staged.gone if staged.named else [staged.file] if staged.file else []
        for file in unwanted:
            await a.engine(Artifacts).delete(file)
    return output


STAGED: Final[Mapping[str, Any]] = {"undo": undo, "after": done}
"""What an operation that makes objects has beside its `before`."""

Look = Callable[[Authorised, Opened], Awaitable[Any]]


def looking(look: Look, find: Callable[[Authorised, View], Row] = noun.named) -> Callable[[Authorised], Awaitable[Any]]:
    """The `before` of an operation that reads content: what `look` returns is the answer."""

    async def before(a: Authorised) -> Any:
        async with opened(a, lambda view: find(a, view)) as here:
            return await look(a, here)

    return before


def answer(a: Authorised, _: View) -> Output:
    """The handler of the same."""
    found: Output = a.staged
    return found

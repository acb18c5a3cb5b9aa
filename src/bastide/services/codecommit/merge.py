"""Merges: of branches, of pull requests, and what would stand against them.

Source: AWS CodeCommit User Guide, "Merge a pull request", "Resolve conflicts"; API Reference, MergeBranchesByThreeWay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import git
from bastide.kernel import Ask, Asked, Authorised, Output, pages
from bastide.services.codecommit import approval, content
from bastide.services.codecommit.commit import LARGEST_FILE, MODES, commit_given, mode_name, path_given
from bastide.services.codecommit.content import STAGED, Opened, Staged, answer, looking
from bastide.services.codecommit.moving import Move, move
from bastide.services.codecommit.noun import (
    HEADS,
    PULL_REQUEST,
    REFERENCE,
    REFERENCES,
    arn_of,
    asks,
    branch,
    branch_name,
    by_id,
    id_of,
    moves,
    named,
    pull_request,
    reference,
    references,
    refused,
)
from bastide.services.codecommit.pull_request import closed, open_one, repository_of, shown
from bastide.services.codecommit.writing import message, signed, whole_folders
from bastide.store import Row, Transaction, View

FAST_FORWARD: Final = "FAST_FORWARD_MERGE"
SQUASH: Final = "SQUASH_MERGE"
THREE_WAY: Final = "THREE_WAY_MERGE"
_MOST_ENTRIES: Final = 100
_PAGE: Final = 100
_TYPES: Final = {"file": "FILE", "link": "SYMBOLIC_LINK", "commit": "GIT_LINK", "tree": "DIRECTORY"}


@dataclass(slots=True)
class _Sides:
    """What is merged: commits, and the best common ancestor of both."""

    source: git.Commit
    destination: git.Commit
    base: str | None

    @property
    def forward(self) -> bool:
        """Whether the destination only has to move."""
        return self.base == self.destination.id


async def _sides(here: Opened, source: str, destination: str) -> _Sides:
    one, other = await here.commit(source), await here.commit(destination)
    return _Sides(one, other, await here.copy.base(other.id, one.id))


def _ways(a: Authorised) -> tuple[str, str]:
    return (
        str(a.input.get("conflictDetailLevel") or "FILE_LEVEL"), str(a.input.get("conflictResolutionStrategy") or "NONE"),
    )  # fmt: skip


def _resolved(a: Authorised) -> dict[str, git.Edit | str]:
    """What the call decides of paths in conflict; raises Refused."""
    given = a.input.get("conflictResolution") or {}
    replaced, gone, modes = (given.get(one) or [] for one in ("replaceContents", "deleteFiles", "setFileModes"))
    if not replaced and not gone and not modes:
        return {}
    if _ways(a)[1] != "AUTOMERGE":
        raise refused("InvalidConflictResolution", "Conflicts are resolved by hand under the strategy AUTOMERGE.")
    if modes:
        raise Refused("ValidationException", "conflictResolution.setFileModes is not supported by Bastide yet.")
    if len(replaced) + len(gone) > _MOST_ENTRIES:
        raise refused("MaximumConflictResolutionEntriesExceeded", f"{_MOST_ENTRIES} entries at a time at most.")
    found: dict[str, git.Edit | str] = {}
    for one in [*replaced, *gone]:
        path = path_given(one["filePath"])
        if path in found:
            raise refused("MultipleConflictResolutionEntries", f"{path} is resolved twice.")
        kind = one.get("replacementType")
        if kind is None:
            found[path] = git.Edit(path)
        elif kind != "USE_NEW_CONTENT":
            found[path] = str(kind)
        else:
            raw = one.get("content")
            if raw is None:
                raise refused("ReplacementContentRequired", f"USE_NEW_CONTENT of {path} needs a content.")
            if len(raw) > LARGEST_FILE:
                raise refused("FileContentSizeLimitExceeded", f"A file has {LARGEST_FILE} bytes at most.")
            found[path] = git.Edit(path, MODES[str(one.get("fileMode") or "NORMAL")], bytes(raw))
    return found


async def _merged(a: Authorised, here: Opened, intake: git.Intake, sides: _Sides, resolved: Any = None) -> git.Merged:
    level, strategy = _ways(a)
    try:
        return await git.merge(
            here.copy,
            intake,
            sides.base,
            sides.source.id,
            sides.destination.id,
            level=level,
            strategy=strategy,
            resolved=resolved,
        )
    except git.GitError as error:
        name = "InvalidConflictResolution"
        if not resolved or isinstance(error, git.TooMuch):
            name = "MaximumItemsToCompareExceeded"
        raise refused(name, str(error)[:300]) from None


# -- what would stand against it -----------------------------------------------------------------------------------------


async def _metadata(here: Opened, conflict: git.Conflict) -> Output:
    sides = {"source": conflict.source, "destination": conflict.destination, "base": conflict.base}
    there = {name: one for name, one in sides.items() if one is not None}
    kinds = await here.copy.kinds([one.id for one in there.values()])
    sizes = {name: found[2] for name, found in zip(there, kinds, strict=True) if found is not None}

    def operation(one: git.Entry | None) -> str:
        return "D" if one is None else "A" if conflict.base is None else "M"

    found: Output = {
        "filePath": conflict.path,
        "fileSizes": {name: sizes.get(name, 0) for name in sides},
        "fileModes": {name: mode_name(one.mode) for name, one in there.items() if one.kind in ("file", "link")},
        "objectTypes": {name: _TYPES[one.kind] for name, one in there.items()},
        "numberOfConflicts": conflict.numbers,
        "isBinaryFile": {name: conflict.binary.get(name, False) for name in sides},
        "contentConflict": conflict.content,
        "fileModeConflict": conflict.mode,
        "objectTypeConflict": conflict.type,
        "mergeOperations": {
            name: operation(one) for name, one in (("source", conflict.source), ("destination", conflict.destination))
        },
    }
    return found


async def _conflicts(a: Authorised, here: Opened) -> Output:
    start = int(pages.position(a, a.input.get("nextToken"), code="InvalidContinuationTokenException") or 0)
    limit = int(a.input.get("maxConflictFiles") or _PAGE)
    if not 1 <= limit <= 1000:
        raise refused("InvalidMaxConflictFiles", "maxConflictFiles is a number from 1 to 1000.")
    sides = await _given(a, here)
    output: Output = {
        "destinationCommitId": sides.destination.id, "sourceCommitId": sides.source.id, "conflictMetadataList": [],
    }  # fmt: skip
    if sides.base:
        output["baseCommitId"] = sides.base
    if a.input["mergeOption"] == FAST_FORWARD:
        return {**output, "mergeable": sides.forward}
    async with here.copy.intake() as intake:
        merged = await _merged(a, here, intake, sides)
    output["conflictMetadataList"] = [await _metadata(here, one) for one in merged.conflicts[start : start + limit]]
    token = pages.seal(a, start + limit) if len(merged.conflicts) > start + limit else None
    return {**output, "mergeable": not merged.conflicts, "nextToken": token}


async def _given(a: Authorised, here: Opened) -> _Sides:
    source, destination = (commit_given(a, here, a.input[f"{one}CommitSpecifier"]) for one in ("source", "destination"))
    return await _sides(here, source, destination)


REFERENCE.reads("GetMergeConflicts", asks=asks("GetMergeConflicts"), before=looking(_conflicts))(answer)


async def _options(a: Authorised, here: Opened) -> Output:
    sides = await _given(a, here)
    options = [FAST_FORWARD] if sides.forward else []
    async with here.copy.intake() as intake:
        if sides.forward or not (await _merged(a, here, intake, sides)).conflicts:
            options += [SQUASH, THREE_WAY]
    return {
        "mergeOptions": options, "sourceCommitId": sides.source.id, "destinationCommitId": sides.destination.id,
        "baseCommitId": sides.base or "",
    }  # fmt: skip


REFERENCE.reads("GetMergeOptions", asks=asks("GetMergeOptions"), before=looking(_options))(answer)


async def _merge_commit(a: Authorised, here: Opened) -> Output:
    sides = await _given(a, here)
    with a.calls.store.reading() as view:
        tips = sorted(set(references(view, here.row, HEADS).values()))
    wanted = {sides.source.id, sides.destination.id}
    output = {"sourceCommitId": sides.source.id, "destinationCommitId": sides.destination.id}
    if sides.base:
        output["baseCommitId"] = sides.base
    for id, parents in await here.copy.merges(tips) if tips else ():
        if set(parents) == wanted:
            return {**output, "mergedCommitId": id}
    return dict(output)


REFERENCE.reads(
    "GetMergeCommit", asks=moves("GetMergeCommit", "destinationCommitSpecifier"), before=looking(_merge_commit)
)(answer)


# -- merging -------------------------------------------------------------------------------------------------------------


async def _make(
    a: Authorised, here: Opened, intake: git.Intake, sides: _Sides, way: str, otherwise: str
) -> tuple[str, str]:
    """The commit that a merge leads to, made if it has to be; and its tree. Raises ManualMergeRequiredException."""
    if way == FAST_FORWARD:
        if not sides.forward:
            raise refused(
                "ManualMergeRequired", "The destination has commits that the source has not; merge another way."
            )
        return sides.source.id, sides.source.tree
    whole_folders(a)
    merged = await _merged(a, here, intake, sides, _resolved(a))
    if merged.conflicts:
        paths = ", ".join(one.path for one in merged.conflicts[:10])
        raise refused("ManualMergeRequired", f"There are conflicts that have to be resolved first: {paths}")
    parents = [sides.destination.id, *([sides.source.id] if way == THREE_WAY else [])]
    try:
        made = await git.commit(intake, parents, merged.edits, signed(a, "authorName"), message(a, otherwise))
    except git.Damaged as error:
        raise refused("InvalidPath", f"git does not take the commit: {str(error)[:300]}") from None
    return made


async def _unreferenced(a: Authorised) -> Staged:
    async with content.staging(a, lambda view: named(a, view)) as (here, intake, staged):
        sides = await _given(a, here)
        staged.found = await _make(a, here, intake, sides, str(a.input["mergeOption"]), "Merge")
    return staged


@REFERENCE.operation(
    "CreateUnreferencedMergeCommit",
    asks=moves("CreateUnreferencedMergeCommit", "destinationCommitSpecifier"),
    before=_unreferenced,
    **STAGED,
)
def create_unreferenced(a: Authorised, tx: Transaction) -> Output:
    commit, tree = a.staged.found
    named(a, tx)
    content.name(a, tx, a.staged)
    return {"commitId": commit, "treeId": tree}


def _target(a: Authorised, view: View, row: Row) -> tuple[str, str]:
    """The branch that a merge of branches moves, and where it stands."""
    given = a.input.get("targetBranch") or a.input["destinationCommitSpecifier"]
    name = branch_name(str(given).removeprefix(HEADS))
    return HEADS + name, str(branch(view, row, name).doc["object"])


def _branches(way: str) -> Callable[[Authorised], Any]:
    async def before(a: Authorised) -> Staged:
        async with content.staging(a, lambda view: named(a, view)) as (here, intake, staged):
            with a.calls.store.reading() as view:
                target, tip = _target(a, view, here.row)
            sides = await _given(a, here)
            if sides.destination.id != tip:
                raise refused("InvalidTargetBranch", f"The destination is not the tip of {target}, which is {tip}")
            names = [str(a.input[f"{one}CommitSpecifier"])[:200] for one in ("source", "destination")]
            made = await _make(a, here, intake, sides, way, f"Merge {names[0]} into {names[1]}")
            staged.found = (target, sides, *made)
        return staged

    return before


def _told(a: Authorised, way: str, sides: _Sides) -> dict[str, str]:
    level, strategy = _ways(a)
    found = {
        "mergeOption": way, "sourceCommitId": sides.source.id, "destinationCommitId": sides.destination.id,
        "conflictDetailsLevel": level, "conflictResolutionStrategy": strategy,
    }  # fmt: skip
    return {**found, **({"baseCommitId": sides.base} if sides.base else {})}


def _merge_branches(way: str) -> Callable[[Authorised, Transaction], Output]:
    def handle(a: Authorised, tx: Transaction) -> Output:
        target, sides, commit, tree = a.staged.found
        content.name(a, tx, a.staged)
        move(a, tx, named(a, tx), [Move(target, sides.destination.id, commit)], merge=_told(a, way, sides))
        return {"commitId": commit, "treeId": tree}

    return handle


for _name, _way in (("FastForward", FAST_FORWARD), ("Squash", SQUASH), ("ThreeWay", THREE_WAY)):
    REFERENCE.operation(
        f"MergeBranchesBy{_name}",
        asks=moves(f"MergeBranchesBy{_name}", "targetBranch", "destinationCommitSpecifier"),
        before=_branches(_way),
        **STAGED,
    )(_merge_branches(_way))


# -- pull requests -------------------------------------------------------------------------------------------------------


def _ready(a: Authorised, view: View) -> tuple[Row, Row]:
    """The pull request of the call and its repository, if it may be merged; raises Refused."""
    row = open_one(a, view)
    repository = repository_of(view, row)
    if named(a, view).doc["id"] != repository.doc["id"]:
        raise refused("RepositoryNotAssociatedWithPullRequest", "The pull request is in another repository.")
    for side in ("source", "destination"):
        if reference(view, repository, row.doc[side]) is None:
            raise refused("ReferenceDoesNotExist", f"There is no {row.doc[side]} any more.")
    given = a.input.get("sourceCommitId")
    if given and id_of(given, "InvalidCommitId") != row.doc["sourceCommit"]:
        raise refused(
            "TipOfSourceReferenceIsDifferent", f"The tip of the source branch is {row.doc['sourceCommit']} by now."
        )
    evaluation = approval.evaluation(row)
    if not evaluation["approved"]:
        names = ", ".join(evaluation["approvalRulesNotSatisfied"])
        raise refused(
            "PullRequestApprovalRulesNotSatisfied", f"The pull request is not approved yet, as these ask: {names}"
        )
    return row, repository


def _pull_request(way: str) -> Callable[[Authorised], Any]:
    async def before(a: Authorised) -> Staged:
        with a.calls.store.reading() as view:
            row, _ = _ready(a, view)
        doc = row.doc
        async with content.staging(a, lambda view: named(a, view)) as (here, intake, staged):
            sides = await _sides(here, doc["sourceCommit"], doc["destinationCommit"])
            words = f"Merge branch '{doc['source'].removeprefix(HEADS)}' into {doc['destination'].removeprefix(HEADS)}"
            staged.found = (sides, *await _make(a, here, intake, sides, way, words))
        return staged

    return before


def _merge_pull_request(way: str) -> Callable[[Authorised, Transaction], Output]:
    def handle(a: Authorised, tx: Transaction) -> Output:
        row, repository = _ready(a, tx)
        sides, commit, _ = a.staged.found
        if (row.doc["sourceCommit"], row.doc["destinationCommit"]) != (sides.source.id, sides.destination.id):
            raise refused("ConcurrentReferenceUpdate", "A branch was changed at the same time. Please try again.")
        content.name(a, tx, a.staged)
        destination = row.doc["destination"]
        merged = {"isMerged": True, "mergedBy": a.caller.arn, "mergeCommitId": commit, "mergeOption": way}
        closed(a, tx, row, merged)
        move(a, tx, repository, [Move(destination, sides.destination.id, commit)], merge=_told(a, way, sides))
        return {"pullRequest": shown(tx, row)}

    return handle


def _destination(asked: Asked) -> str | None:
    call = asked.call
    row = pull_request(asked.view, call.account, call.region, str(asked.input.get("pullRequestId") or ""))
    return None if row is None else str(row.doc["destination"])


def _both(asked: Asked) -> Iterable[str]:
    """The repository that the call names, and the one that the pull request is in."""
    call = asked.call
    row = pull_request(asked.view, call.account, call.region, str(asked.input.get("pullRequestId") or ""))
    held = None if row is None else by_id(asked.view, call.account, call.region, row.doc["repository"])
    found = [f"arn:aws:codecommit:{call.region}:{call.account}:{asked.input.get('repositoryName')}"]
    return dict.fromkeys([*found, *([arn_of(held)] if held is not None else [])])


for _name, _way in (("FastForward", FAST_FORWARD), ("Squash", SQUASH), ("ThreeWay", THREE_WAY)):
    PULL_REQUEST.operation(
        f"MergePullRequestBy{_name}",
        asks=[Ask(f"codecommit:MergePullRequestBy{_name}", _both, given={REFERENCES: _destination})],
        before=_pull_request(_way),
        **STAGED,
    )(_merge_pull_request(_way))

"""Branches: made, shown, listed, deleted."""

from __future__ import annotations

from typing import Any, Final

from bastide.kernel import Authorised, Output, pages
from bastide.services.codecommit.content import Opened, looking
from bastide.services.codecommit.moving import Move, move
from bastide.services.codecommit.noun import (
    HEADS,
    REFERENCE,
    asks,
    branch,
    branch_name,
    id_of,
    moves,
    named,
    reference,
    refused,
)
from bastide.store import Transaction, View

_PAGE: Final = 1000


async def _commit(a: Authorised, here: Opened) -> Any:
    """The commit that a new branch is to stand for, and what was recorded on the way."""
    id = id_of(a.input["commitId"], "InvalidCommitId")
    found = await here.copy.commit(id)
    if found is None:
        raise refused("CommitDoesNotExist", f"There is no commit {id}")
    return found.id, list(a.events)


@REFERENCE.operation("CreateBranch", asks=moves("CreateBranch", "branchName"), before=looking(_commit))
def create(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx)
    commit, events = a.staged
    a.events += events
    name = branch_name(a.input["branchName"])
    if reference(tx, row, HEADS + name) is not None:
        raise refused("BranchNameExists", f"{name} already exists")
    move(a, tx, row, [Move(HEADS + name, "", commit)])
    return {}


@REFERENCE.reads("GetBranch", asks=asks("GetBranch"))
def get(a: Authorised, view: View) -> Output:
    row = named(a, view)
    name = branch_name(a.input.get("branchName"))
    return {"branch": {"branchName": name, "commitId": branch(view, row, name).doc["object"]}}


@REFERENCE.reads("ListBranches", asks=asks("ListBranches"))
def listed(a: Authorised, view: View) -> Output:
    row = named(a, view)
    before = f"{row.doc['id']}/{HEADS}"
    after = pages.position(a, a.input.get("nextToken"), code="InvalidContinuationTokenException")
    rows = view.scan(REFERENCE.key, row.account, row.region, prefix=before, after=after, limit=_PAGE + 1)
    token = pages.seal(a, rows[_PAGE - 1].name) if len(rows) > _PAGE else None
    return {"branches": [one.name.removeprefix(before) for one in rows[:_PAGE]], "nextToken": token}


@REFERENCE.operation("DeleteBranch", asks=moves("DeleteBranch", "branchName"))
def delete(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx)
    name = branch_name(a.input["branchName"])
    held = reference(tx, row, HEADS + name)
    if held is None:
        return {}
    move(a, tx, row, [Move(HEADS + name, held.doc["object"], "")])
    return {"deletedBranch": {"branchName": name, "commitId": held.doc["object"]}}

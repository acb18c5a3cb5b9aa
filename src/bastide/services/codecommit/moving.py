"""A reference moves: its row, what EventBridge is told, what triggers are told, and the pull requests that it belongs to,
in one transaction.

Sources: AWS CodeCommit User Guide, "Monitoring AWS CodeCommit events in Amazon EventBridge", "Manage triggers".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Authorised
from bastide.kernel.happened import tell
from bastide.services.codecommit import trigger
from bastide.services.codecommit.noun import HEADS, REFERENCE, REPOSITORY, arn_of, reference, refused
from bastide.services.codecommit.pull_request import followed
from bastide.store import Row, Transaction

MOST_REFERENCES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Move:
    """A reference and the objects that it stands for before and after; empty where it is not there."""

    name: str
    before: str
    after: str


def move(
    a: Authorised, tx: Transaction, row: Row, moves: list[Move], *, merge: Mapping[str, Any] | None = None
) -> None:
    """Moves references that stand where `Move.before` says; raises ConcurrentReferenceUpdateException where one does not.

    merge: what the event tells of a merge beside.
    """
    for one in moves:
        _move(a, tx, row, one)
    for one in moves:
        _tell(a, tx, row, one, merge or {})
    followed(a, tx, row, {one.name: (one.before, one.after) for one in moves})
    trigger.happened(a, tx, row, moves)


def _move(a: Authorised, tx: Transaction, row: Row, one: Move) -> None:
    held = reference(tx, row, one.name)
    if (held.doc["object"] if held is not None else "") != one.before:
        raise refused("ConcurrentReferenceUpdate", f"{one.name} was changed at the same time. Please try again.")
    key = f"{row.doc['id']}/{one.name}"
    if held is None:
        if _crosses(tx, row, one.name):
            raise refused("BranchNameExists", f"{one.name} would lie below another reference, or another below it.")
        before = f"{row.doc['id']}/"
        if tx.count(
            REFERENCE.key, row.account, row.region, at_or_after=before, before=before[:-1] + "0", limit=MOST_REFERENCES
        ) >= MOST_REFERENCES:  # fmt: skip
            raise Refused("LimitExceededException", f"A repository has {MOST_REFERENCES} references at most.")
        tx.insert(Row(REFERENCE.key, row.account, row.region, key, {"object": one.after}), keep=False)
        if one.name.startswith(HEADS) and not row.doc.get("default"):
            row.doc["default"] = one.name.removeprefix(HEADS)
            REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    elif one.after:
        held.doc["object"] = one.after
        tx.update(held, keep=False)
    else:
        if one.name == f"{HEADS}{row.doc.get('default')}":
            raise refused(
                "DefaultBranchCannotBeDeleted", "The default branch cannot be deleted. Make another branch the default."
            )
        tx.delete(held, keep=False)


def _crosses(tx: Transaction, row: Row, name: str) -> bool:
    """Whether a reference would be a folder of another: git keeps none of both."""
    parts = name.split("/")
    if any(reference(tx, row, "/".join(parts[:n])) is not None for n in range(3, len(parts))):
        return True
    below = f"{row.doc['id']}/{name}/"
    return bool(tx.scan(REFERENCE.key, row.account, row.region, prefix=below, limit=1))


def _tell(a: Authorised, tx: Transaction, row: Row, one: Move, merge: Mapping[str, Any]) -> None:
    kind = "branch" if one.name.startswith(HEADS) else "tag"
    detail = {
        "event": "referenceUpdated"
        if one.before and one.after
        else "referenceCreated"
        if one.after
        else "referenceDeleted",
        "repositoryName": row.name,
        "repositoryId": row.doc["id"],
        "referenceType": kind,
        "referenceName": one.name.split("/", 2)[2],
        "referenceFullName": one.name,
        "callerUserArn": a.caller.arn,
    }
    if one.after:
        detail["commitId"] = one.after
    if one.before:
        detail["oldCommitId"] = one.before
    tell(
        tx, account=row.account, region=row.region, source="aws.codecommit",
        detail_type="CodeCommit Repository State Change", resources=[arn_of(row)], detail={**detail, **merge},
    )  # fmt: skip

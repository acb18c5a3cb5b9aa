"""Attaching service control policies to roots, units and accounts."""

from __future__ import annotations

from typing import Final

from bastide.domain import Refused
from bastide.kernel import Authorised
from bastide.services.organizations.noun import (
    ACCOUNT,
    FULL_ACCESS,
    ROOT,
    TARGET,
    UNIT,
    Noun,
    constraint,
)
from bastide.services.organizations.tree import enabled
from bastide.store import Row, Transaction

_MOST: Final = 5
"""Policies of one type on one target (Organizations User Guide, "Quotas")."""
_KINDS: Final[dict[str, Noun]] = {kind.key: kind for kind in (ROOT, UNIT, ACCOUNT)}


def attach(a: Authorised, tx: Transaction, row: Row, policy: str) -> None:
    """Attaches a policy to a node; raises Refused."""
    held = row.doc["policies"]
    if policy in held:
        raise Refused(
            "DuplicatePolicyAttachmentException", "The selected policy is already attached to the specified target."
        )
    if len(held) >= _MOST:
        raise constraint(
            "You have attached the maximum number of policies to the specified target.",
            "MAX_POLICY_TYPE_ATTACHMENT_LIMIT_EXCEEDED",
        )
    row.doc["policies"] = [*held, policy]
    _KINDS[row.kind].save(a, tx, row)
    tx.insert(Row(TARGET, "", "", f"{policy}/{row.name}", {}), keep=False)


def detach(a: Authorised, tx: Transaction, row: Row, policy: str, *, last: bool = False) -> None:
    """Detaches a policy from a node; raises Refused. last: also if it is the only one."""
    held = row.doc["policies"]
    if policy not in held:
        raise Refused("PolicyNotAttachedException", "The policy isn't attached to the specified target.")
    if len(held) == 1 and not last:
        raise constraint(
            "You cannot remove the last policy attached to the specified target. You must have at least one attached at "
            "all times.",
            "MIN_POLICY_TYPE_ATTACHMENT_LIMIT_EXCEEDED",
        )
    row.doc["policies"] = [one for one in held if one != policy]
    _KINDS[row.kind].save(a, tx, row)
    target = tx.get(TARGET, "", "", f"{policy}/{row.name}")
    if target is not None:
        tx.delete(target, keep=False)


def attach_first(a: Authorised, tx: Transaction, row: Row) -> None:
    """A new node begins with FullAWSAccess while service control policies are enabled."""
    if enabled(tx):
        attach(a, tx, row, FULL_ACCESS)


def _nodes(tx: Transaction) -> list[Row]:
    found: list[Row] = []
    for kind in _KINDS.values():
        after: str | None = None
        while rows := tx.scan(kind.key, "", "", after=after, limit=500):
            found += rows
            after = rows[-1].name
    return found


def attach_everywhere(a: Authorised, tx: Transaction) -> None:
    """FullAWSAccess on every node: service control policies were enabled."""
    for row in _nodes(tx):
        attach(a, tx, row, FULL_ACCESS)


def detach_everywhere(a: Authorised, tx: Transaction) -> None:
    """No policy on any node: service control policies were disabled."""
    for row in _nodes(tx):
        for policy in list(row.doc["policies"]):
            detach(a, tx, row, policy, last=True)

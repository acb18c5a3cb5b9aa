"""Attaching policies to roots, units and accounts."""

from __future__ import annotations

from typing import Final

from bastide.domain import Refused
from bastide.kernel import Authorised
from bastide.services.organizations.noun import (
    ACCOUNT,
    FULL_ACCESS,
    RCP,
    ROOT,
    SCP,
    TAG,
    TARGET,
    TYPES,
    UNIT,
    Noun,
    constraint,
    invalid,
)
from bastide.services.organizations.tree import attached, enabled
from bastide.store import Row, Transaction

_MOST: Final = {SCP: 5, RCP: 5, TAG: 10}
"""Policies of a type on one target, AWS's own included (Organizations User Guide, "Quotas")."""
_KINDS: Final[dict[str, Noun]] = {kind.key: kind for kind in (ROOT, UNIT, ACCOUNT)}


def attach(a: Authorised, tx: Transaction, row: Row, policy: str, type: str) -> None:
    """Attaches a policy to a node; raises Refused."""
    held = attached(row, type)
    if policy in held:
        raise Refused(
            "DuplicatePolicyAttachmentException", "The selected policy is already attached to the specified target."
        )
    if len(held) >= _MOST[type]:
        raise constraint(
            "You have attached the maximum number of policies to the specified target.",
            "MAX_POLICY_TYPE_ATTACHMENT_LIMIT_EXCEEDED",
        )
    row.doc["policies"][type] = [*held, policy]
    _KINDS[row.kind].save(a, tx, row)
    tx.insert(Row(TARGET, "", "", f"{policy}/{row.name}", {}), keep=False)


def detach(a: Authorised, tx: Transaction, row: Row, policy: str, type: str) -> None:
    """Detaches a policy from a node; raises Refused."""
    held = attached(row, type)
    if policy not in held:
        raise Refused("PolicyNotAttachedException", "The policy isn't attached to the specified target.")
    if policy == FULL_ACCESS[RCP]:
        raise invalid("You can't detach the policy RCPFullAWSAccess.", "NON_DETACHABLE_POLICY")
    if len(held) == 1 and type == SCP:
        raise constraint(
            "You cannot remove the last policy attached to the specified target. You must have at least one attached at "
            "all times.",
            "MIN_POLICY_TYPE_ATTACHMENT_LIMIT_EXCEEDED",
        )
    row.doc["policies"][type] = [one for one in held if one != policy]
    _KINDS[row.kind].save(a, tx, row)
    _forget(tx, row, policy)


def _forget(tx: Transaction, row: Row, policy: str) -> None:
    target = tx.get(TARGET, "", "", f"{policy}/{row.name}")
    if target is not None:
        tx.delete(target, keep=False)


def attach_first(a: Authorised, tx: Transaction, row: Row) -> None:
    """A new node begins with AWS's own policy of every type that is enabled and has one."""
    for type, policy in FULL_ACCESS.items():
        if enabled(tx, type):
            attach(a, tx, row, policy, type)


def detach_last(tx: Transaction, row: Row) -> None:
    """Forgets where the policies of a node were attached that is about to go."""
    for type in TYPES:
        for policy in attached(row, type):
            _forget(tx, row, policy)


def _nodes(tx: Transaction) -> list[Row]:
    found: list[Row] = []
    for kind in _KINDS.values():
        after: str | None = None
        while rows := tx.scan(kind.key, "", "", after=after, limit=500):
            found += rows
            after = rows[-1].name
    return found


def attach_everywhere(a: Authorised, tx: Transaction, type: str) -> None:
    """AWS's own policy on every node: the type was enabled."""
    if type in FULL_ACCESS:
        for row in _nodes(tx):
            attach(a, tx, row, FULL_ACCESS[type], type)


def detach_everywhere(a: Authorised, tx: Transaction, type: str) -> None:
    """No policy of the type on any node: it was disabled."""
    for row in _nodes(tx):
        held = attached(row, type)
        if not held:
            continue
        for policy in held:
            _forget(tx, row, policy)
        row.doc["policies"][type] = []
        _KINDS[row.kind].save(a, tx, row)

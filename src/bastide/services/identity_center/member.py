"""Memberships as they are kept: who is in which group."""

from __future__ import annotations

from typing import Final

from bastide.domain import Instant, Refused
from bastide.services.identity_center.instance import Instance, Noun
from bastide.services.identity_center.store import new_resource_id, taken
from bastide.store import Row, Transaction

MEMBERSHIP: Final = Noun("GroupMembership", service="identitystore", arn="membership/{}")
MEMBER: Final = "identitystore:Member"
"""Rows ``USER/GROUP``: the membership's id, and the issuer whose claim made it."""
WITHIN: Final = "identitystore:Within"
"""Rows ``GROUP/USER``: the same, to be walked from the group."""
_MOST_GROUPS: Final = 1000


def join(tx: Transaction, here: Instance, user: str, group: str, now: Instant, event: str, issuer: str = "") -> str:
    """Makes a user a member; returns the membership's id. issuer: whose claim it follows from.

    Raises Refused (ConflictException) for who is a member already."""
    if tx.get(MEMBER, "", "", f"{user}/{group}") is not None:
        raise taken("GroupMembership")
    if len(tx.scan(MEMBER, "", "", prefix=f"{user}/", limit=_MOST_GROUPS)) == _MOST_GROUPS:
        raise Refused("ServiceQuotaExceededException", f"A user may be in at most {_MOST_GROUPS} groups.")
    id = new_resource_id(here)
    doc = {"user": user, "group": group}
    tx.insert(Row(MEMBERSHIP.key, "", "", id, doc, created=now, modified=now), event=event)
    tx.insert(Row(MEMBER, "", "", f"{user}/{group}", {"id": id, "issuer": issuer}), keep=False)
    tx.insert(Row(WITHIN, "", "", f"{group}/{user}", {"id": id}), keep=False)
    return id


def leave(tx: Transaction, user: str, group: str, event: str) -> None:
    """Ends a membership, if there is one."""
    member = tx.get(MEMBER, "", "", f"{user}/{group}")
    if member is None:
        return
    for row in (tx.get(MEMBERSHIP.key, "", "", member.doc["id"]), tx.get(WITHIN, "", "", f"{group}/{user}")):
        if row is not None:
            tx.delete(row, event=event, keep=row.kind == MEMBERSHIP.key)
    tx.delete(member, keep=False)


def leave_all(tx: Transaction, user: str, event: str) -> None:
    """Ends all memberships of a user."""
    for row in tx.scan(MEMBER, "", "", prefix=f"{user}/", limit=_MOST_GROUPS + 1):
        leave(tx, user, row.name.rpartition("/")[2], event)

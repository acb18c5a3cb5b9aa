"""People as an identity provider tells of them, and whether what they were given still stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bastide.domain import Instant, Refused
from bastide.services.identity_center import group as groups
from bastide.services.identity_center import user as users
from bastide.services.identity_center.assignment import ASSIGNMENT, groups_of
from bastide.services.identity_center.instance import Instance
from bastide.services.identity_center.member import MEMBER, join, leave
from bastide.services.identity_center.store import external, holder
from bastide.services.identity_center.user import USER
from bastide.store import Row, Transaction, View

_EVENT: Final = "SignIn"
_MOST_GROUPS: Final = 200


# -- what stands -------------------------------------------------------------------------------------------------------


def enabled(view: View, id: str) -> bool:
    """Whether a user is there and may sign in."""
    row = USER.row(view, id)
    return row is not None and row.status == "ENABLED"


def assigned(view: View, user: str, account: str, permission_set: str) -> bool:
    """Whether a user has a permission set in an account, by name or through a group."""
    if ASSIGNMENT.row(view, f"{account}/{permission_set}/USER/{user}") is not None:
        return True
    return any(
        ASSIGNMENT.row(view, f"{account}/{permission_set}/GROUP/{group}") is not None for group in groups_of(view, user)
    )


_SCOPES: Final = ((USER.key, ""), (MEMBER, ""), (ASSIGNMENT.key, ""))


def stands(view: View, user: str, account: str, permission_set: str) -> bool:
    """Whether what a role session began with still holds: its person is enabled and assigned."""
    return view.memo(
        ("identity-center:stands", user, account, permission_set),
        _SCOPES,
        lambda: enabled(view, user) and assigned(view, user, account, permission_set),
    )


# -- what an identity provider tells -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Person:
    """Whom an identity provider has authenticated. email: one that it vouches for, otherwise empty. groups: None when
    it tells nothing of groups."""

    issuer: str
    subject: str
    name: str
    email: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)
    groups: Sequence[str] | None = None


def _known(view: View, person: Person) -> Row | None:
    """The user that a person is: by the provider's own id, or by an address that the provider vouches for."""
    id = holder(view, external("user", person.issuer, person.subject))
    by_address = id is None and bool(person.email)
    if by_address:
        id = holder(view, f"email/{person.email.lower()}")
    row = USER.row(view, id) if id is not None else None
    if row is not None and by_address and not _has(row, person.email):
        return None
    if row is not None and any(
        one["Issuer"] == person.issuer and one["Id"] != person.subject for one in row.doc.get("ExternalIds", ())
    ):
        return None  # the address went to somebody else at the provider
    return row


def _has(row: Row, email: str) -> bool:
    """Whether a user has an address, in whatever case of the letters A to Z: others may become one of these (the Kelvin
    sign a k), and yet name another mailbox."""
    return any(one.get("Value", "").encode().lower() == email.encode().lower() for one in row.doc.get("Emails", ()))


def welcome(tx: Transaction, here: Instance, person: Person, now: Instant, *, provision: bool) -> Row:
    """The user that a person is, as the provider knows them now: made if `provision` allows it, memberships that follow
    from the provider's claims brought up to date.

    Raises Refused: nobody of that name, disabled, or a name that somebody else has.
    """
    row = _known(tx, person)
    if row is None and not provision:
        raise Refused("AccessDeniedException", "You are not known here. Please ask your administrator for access.", 403)
    known = {"Issuer": person.issuer, "Id": person.subject}
    if row is None:
        doc: dict[str, Any] = {"UserName": person.name, **person.attributes, "ExternalIds": [known]}
        if person.email:
            doc["Emails"] = _emails(person)
        row = users.add(tx, here, doc, now, _EVENT)
    else:
        if row.status != "ENABLED":
            raise Refused("AccessDeniedException", "Your access has been disabled.", 403)
        ids = row.doc.get("ExternalIds", [])
        doc = {**row.doc, **person.attributes, "ExternalIds": ids if known in ids else [*ids, known]}
        held = [one.get("Value", "").lower() for one in row.doc.get("Emails", ())]
        free = holder(tx, f"email/{person.email.lower()}") is None
        if person.email and person.email.lower() not in held and free:
            doc["Emails"] = _emails(person)
        if doc != row.doc:
            users.replace(tx, row, doc, now, _EVENT)
    if person.groups is not None:
        _regroup(tx, here, row.name, person, now)
    return row


def _emails(person: Person) -> list[dict[str, Any]]:
    return [{"Value": person.email, "Type": "work", "Primary": True}]


def _regroup(tx: Transaction, here: Instance, user: str, person: Person, now: Instant) -> None:
    """Memberships that an administrator made stay; those that the provider's claim made follow the claim."""
    wanted = set()
    for name in list(dict.fromkeys(person.groups or ()))[:_MOST_GROUPS]:
        id = holder(tx, external("group", person.issuer, name)) or holder(tx, f"group/{name.lower()}")
        if id is None:
            doc = {"DisplayName": name, "ExternalIds": [{"Issuer": person.issuer, "Id": name}]}
            id = groups.add(tx, here, doc, now, _EVENT).name
        wanted.add(id)
    held: dict[str, str] = {}
    for row in tx.scan(MEMBER, "", "", prefix=f"{user}/", limit=2000):
        held[row.name.rpartition("/")[2]] = row.doc.get("issuer", "")
    for group, issuer in held.items():
        if issuer == person.issuer and group not in wanted:
            leave(tx, user, group, _EVENT)
    for group in sorted(wanted - held.keys()):
        join(tx, here, user, group, now, _EVENT, person.issuer)


def known_as(view: View, issuer: str, subject: str) -> str | None:
    """The id of the user whom a provider knows under a subject."""
    return holder(view, external("user", issuer, subject))

"""What the nouns of Organizations have in common: one organisation a platform, kept under no account.

Ids are AWS's: ``o-`` and 10 letters or digits, ``r-`` and 4, ``ou-``, the root's four, ``-`` and 8, ``p-`` and 8.
Source: Organizations API reference, the patterns of the ids; Service Authorization Reference, "AWS Organizations".
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from bastide.domain import Refused, Tags, tag_map
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, pages
from bastide.store import Row, Transaction, View

SCP: Final = "SERVICE_CONTROL_POLICY"
RCP: Final = "RESOURCE_CONTROL_POLICY"
TAG: Final = "TAG_POLICY"
TYPES: Final = (SCP, RCP, TAG)
"""The policy types that exist here."""
FULL_ACCESS: Final = {SCP: "p-FullAWSAccess", RCP: "p-RCPFullAWSAccess"}
"""The policies of AWS that let everything pass, by type."""
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_MOST_TAGS: Final = 50
_PAGE: Final = 20


class Noun(Kind):
    """A kind whose rows stand under account "" and carry their ARN."""

    def __init__(self, name: str) -> None:
        super().__init__(name, service="organizations", arn=f"{name.lower()}/{{}}", global_=True)

    def row(self, view: View, name: str) -> Row | None:
        """The row, or None."""
        return view.get(self.key, "", "", name)

    def put(self, a: Authorised, tx: Transaction, name: str, doc: dict[str, Any], tags: Tags, status: str = "") -> Row:
        """A new row."""
        row = Row(self.key, "", "", name, doc, status, tags, created=a.now)
        tx.insert(row, event=a.operation.name, request_id=a.request.id)
        self._emit(tx, row, a.operation.name, a.request.id)
        return row

    def save(self, a: Authorised, tx: Transaction, row: Row) -> None:
        """Writes a changed row."""
        self.change(tx, row, a.operation.name, a.request.id)

    def drop(self, a: Authorised, tx: Transaction, row: Row) -> None:
        """Removes a row."""
        self.remove(tx, row, a.operation.name, a.request.id)

    def _emit(self, tx: Transaction, row: Row, event: str, request_id: str) -> None:
        tx.emit(
            self.key,
            {
                "event": event,
                "arn": row.doc.get("Arn", ""),
                "account": "",
                "region": "",
                "name": row.name,
                "status": row.status,
                "request_id": request_id,
            },
        )


ORGANIZATION = Noun("Organization")
ROOT = Noun("Root")
UNIT = Noun("OrganizationalUnit")
ACCOUNT = Noun("Account")
POLICY = Noun("Policy")
REQUEST = Noun("CreateAccountStatus")
RESOURCE_POLICY = Noun("ResourcePolicy")
HANDSHAKE = Noun("Handshake")

SCOPES: Final = tuple((kind.key, "") for kind in (ORGANIZATION, ROOT, UNIT, ACCOUNT, POLICY))
"""Where the tree is read from."""

CHILD: Final = "organizations:Child"
"""Rows ``PARENT/TYPE/ID``, so that the children of a parent are a walk along an index."""
TARGET: Final = "organizations:Target"
"""Rows ``POLICY/TARGET``: where a policy is attached."""
TAKEN: Final = "organizations:Taken"
"""Rows that keep a name from being taken twice: ``email/...``, ``policy/...``, ``unit/PARENT/...``; ``account/...`` is
an account that left the organisation, with its name and address."""
DELEGATED: Final = "organizations:DelegatedAdministrator"
"""Rows ``ACCOUNT/SERVICE``."""
DELEGATED_FOR: Final = "organizations:DelegatedService"
"""The same as ``SERVICE/ACCOUNT``."""


def random_id(prefix: str, length: int) -> str:
    """An id as Organizations makes them."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(length))


# -- the organisation --------------------------------------------------------------------------------------------------


def organisation(view: View) -> Row | None:
    """The organisation, or None; not to be changed."""
    return view.memo("organizations:only", SCOPES[:1], lambda: _only(view, ORGANIZATION))


def root(view: View) -> Row | None:
    """The organisation's root, or None; not to be changed."""
    return view.memo("organizations:root", SCOPES[1:2], lambda: _only(view, ROOT))


def _only(view: View, kind: Noun) -> Row | None:
    found = view.scan(kind.key, "", "", limit=1)
    return found[0] if found else None


def not_in_use() -> Refused:
    """What AWS says to an account that belongs to no organisation."""
    return Refused("AWSOrganizationsNotInUseException", "Your account is not a member of an organization.")


def denied() -> Refused:
    """What AWS says to a member account that asks what only the management account may."""
    return Refused("AccessDeniedException", "You don't have permissions to access this resource.")


def invalid(message: str, reason: str) -> Refused:
    """InvalidInputException."""
    return Refused("InvalidInputException", message, members={"Reason": reason})


def constraint(message: str, reason: str) -> Refused:
    """ConstraintViolationException."""
    return Refused("ConstraintViolationException", message, members={"Reason": reason})


def membership(a: Authorised, view: View) -> Row:
    """The organisation that the caller's account belongs to; raises Refused."""
    found = organisation(view)
    if found is None or ACCOUNT.row(view, a.account) is None:
        raise not_in_use()
    return found


# -- addresses ---------------------------------------------------------------------------------------------------------


_FOLDERS: Final = {
    "r": "root",
    "ou": "ou",
    "p": "policy/service_control_policy",
    "rp": "resourcepolicy",
    "h": "handshake/invite",
}
"""What ids begin with, and their folders in ARNs."""


def address(held: Row, id: str, type: str = "") -> str:
    """The ARN of what has that id. type: of a policy."""
    for of, full in FULL_ACCESS.items():
        if id == full:
            return f"arn:aws:organizations::aws:policy/{of.lower()}/{id}"
    kind, _, below = (_FOLDERS.get(id.partition("-")[0], "account") if "-" in id else "account").partition("/")
    place = "/".join([kind, held.doc["Id"], *([type.lower() or below] if below else []), id])
    return f"arn:aws:organizations::{held.doc['MasterAccountId']}:{place}"


def policy_type(view: View, id: str) -> str:
    """The type of a policy; of one that is not there, the service control policy's."""
    for of, full in FULL_ACCESS.items():
        if id == full:
            return of
    row = view.get(POLICY.key, "", "", id)
    return SCP if row is None else str(row.doc["Type"])


def about(*members: str) -> Callable[[Asked], Iterable[str]]:
    """The ARNs of what the call names by id; without an organisation, ``*``."""

    def named(asked: Asked) -> Iterable[str]:
        held = organisation(asked.view)
        if held is None:
            return ("*",)
        ids = [str(asked.input[one]) for one in members if asked.input.get(one)]
        return [address(held, id, policy_type(asked.view, id) if id.startswith("p-") else "") for id in ids]

    return named


def ask(action: str, *members: str, **given: Any) -> list[Ask]:
    """The one question of most operations. given: condition keys, ``__`` for the colon."""
    where = about(*members) if members else lambda _: ("*",)
    return [Ask(f"organizations:{action}", where, given={key.replace("__", ":"): one for key, one in given.items()})]


# -- tags, pages -------------------------------------------------------------------------------------------------------


def tags_of(a: Authorised, before: Tags | None = None) -> Tags:
    """The tags that a call brings, put over those from before."""
    tags = {**(before or {}), **tag_map(a.input.get("Tags"), code="InvalidInputException")}
    if len(tags) > _MOST_TAGS:
        raise constraint("You have exceeded the number of tags of a resource.", "MAX_TAG_LIMIT_EXCEEDED")
    return tags


def paged(
    a: Authorised,
    view: View,
    kind: str,
    member: str,
    show: Callable[[Row], Any],
    *,
    prefix: str = "",
    status: str = "",
    first: Any = (),
) -> Output:
    """A page of rows in the order of their names, or, of one status, of their creation. first: what comes before them,
    on the first page."""
    size = int(a.input.get("MaxResults") or _PAGE)
    after = pages.position(a, a.input.get("NextToken"), code="InvalidInputException")
    found = [] if after is not None else list(first)
    wanted = max(size - len(found), 0)
    if status:
        behind = tuple(after) if after else None
        rows = view.scan(kind, "", "", order="created", status=status, after=behind, limit=wanted + 1)
    else:
        rows = view.scan(kind, "", "", prefix=prefix, after=after or None, limit=wanted + 1)
    output: Output = {member: found}
    if len(found) + len(rows) > size:
        rows = rows[:wanted]
        last: Any = "" if not rows else [rows[-1].created, rows[-1].name] if status else rows[-1].name
        output["NextToken"] = pages.seal(a, last)
    found += [show(row) for row in rows]
    return output


def sliced(a: Authorised, member: str, found: Sequence[Any]) -> Output:
    """A page of a list that is at hand whole."""
    start = int(pages.position(a, a.input.get("NextToken"), code="InvalidInputException") or 0)
    end = start + int(a.input.get("MaxResults") or _PAGE)
    output: Output = {member: list(found[start:end])}
    if end < len(found):
        output["NextToken"] = pages.seal(a, end)
    return output

"""Users."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from bastide.domain import Refused, tag_list
from bastide.kernel import Ask, Asked, Authorised, Output, unique_id
from bastide.kernel.kind import each
from bastide.services.iam import attachment
from bastide.services.iam.entity import NEW_BOUNDARY, Entity, below, below_path, conflict, new_tags, paged, with_tags
from bastide.services.iam.last_use import LastUse
from bastide.store import Row, Transaction, View

USER = Entity(
    "User",
    "The user with name {name} cannot be found.",
    "User with name {name} already exists.",
    most=5000,
    renamed=True,
)

ENABLED_DEVICE: Final = "iam:EnabledMFADevice"
"""Rows ``USERID/DEVICE`` that tell which MFA devices a user has; the id, because names may change."""

Holding = Callable[[View, Row], str]
Moving = Callable[[Authorised, Transaction, Row, Row], None]

HOLDING: list[Holding] = []
"""What else a user may have: why it cannot be deleted while it has it, or "". The nouns that belong to users add theirs."""
MOVING: list[Moving] = []
"""What else goes with a user that gets another name; called with the rows before and after."""


def shown(row: Row, *, whole: bool) -> Output:
    """A user; whole: with its boundary and tags."""
    doc = row.doc
    found: Output = {
        "Path": doc["Path"],
        "UserName": doc["UserName"],
        "UserId": doc["UserId"],
        "Arn": doc["Arn"],
        "CreateDate": row.created,
    }
    if whole:
        attachment.show_boundary(doc, found)
        if row.tags:
            found["Tags"] = tag_list(row.tags)
    return found


def user_doc(account: str, name: str, path: str) -> dict[str, object]:
    """What is kept of a new user."""
    return {
        "UserName": name,
        "UserId": unique_id("AIDA"),
        "Path": path,
        "Arn": USER.address(account, path, name),
        "inline": {},
        "attached": [],
        "groups": [],
        "boundary": "",
    }


@USER.operation(
    "CreateUser",
    asks=[
        Ask("iam:CreateUser", USER.made, given={NEW_BOUNDARY: each("PermissionsBoundary")}),
        Ask("iam:TagUser", USER.made, when=lambda asked: bool(asked.input.get("Tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    doc = user_doc(a.account, a.input["UserName"], a.input.get("Path") or "/")
    row = USER.make(a, tx, doc, new_tags(a))
    if a.input.get("PermissionsBoundary"):
        attachment.set_boundary(a, tx, row, a.input["PermissionsBoundary"])
        USER.save(a, tx, row)
    return {"User": shown(row, whole=True)}


def own_or_named(asked: Asked) -> Iterable[str]:
    """The user that the call names; without a name, the calling user."""
    if asked.input.get("UserName") is None and asked.call.caller.kind == "User":
        return (asked.call.caller.arn,)
    return USER.this(asked)


def user_name(a: Authorised) -> str:
    """The name of the user that the call is about; raises Refused if nobody is named and no user calls."""
    name = a.input.get("UserName")
    if name is not None:
        return str(name)
    if a.caller.kind != "User":
        raise Refused("ValidationError", "Must specify userName when calling with non-User credentials")
    return a.caller.name


@USER.reads("GetUser", asks=[Ask("iam:GetUser", own_or_named)])
def get(a: Authorised, view: View) -> Output:
    return {"User": shown(USER.seen(view, a.account, user_name(a)), whole=True)}


@USER.reads("ListUsers", asks=[Ask("iam:ListUsers", below(USER))])
def users(a: Authorised, view: View) -> Output:
    return paged(a, view, USER.key, "Users", lambda row: shown(row, whole=False), wanted=below_path(a))


def renamed(kind: Entity) -> Callable[[Asked], Iterable[str]]:
    """An entity and what it is to become: "you must have permission on both the source and the target object" (IAM API
    reference, "UpdateUser", "UpdateGroup")."""

    def about(asked: Asked) -> Iterable[str]:
        name = str(asked.input[kind.named_by])
        held = kind.held(asked.view, asked.call.account, name)
        path = str(asked.input.get("NewPath") or (held.doc["Path"] if held is not None else "/"))
        new = str(asked.input.get(f"New{kind.named_by}") or name)
        return dict.fromkeys((*kind.this(asked), kind.address(asked.call.account, path, new)))

    return about


@USER.operation("UpdateUser", asks=[Ask("iam:UpdateUser", renamed(USER))])
def update(a: Authorised, tx: Transaction) -> Output:
    row = USER.asked_for(a, tx)
    before = Row(row.kind, row.account, "", row.name, row.doc)
    name, path = a.input.get("NewUserName") or row.doc["UserName"], a.input.get("NewPath") or row.doc["Path"]
    after = USER.rename(a, tx, row, name, path)
    attachment.moved(tx, before, after)
    for move in MOVING:
        move(a, tx, before, after)
    return {}


@USER.operation("DeleteUser", asks=[Ask("iam:DeleteUser", USER.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = USER.asked_for(a, tx)
    if tx.scan(ENABLED_DEVICE, a.account, "", prefix=f"{row.doc['UserId']}/", limit=1):
        raise conflict("Cannot delete entity, must delete MFA device first.")
    for holds in HOLDING:
        if why := holds(tx, row):
            raise conflict(why)
    attachment.must_be_bare(row)
    attachment.clear_boundary(a, tx, row)
    USER.remove(tx, row, a.operation.name, a.request.id)
    a.engine(LastUse).forget(tx, a.account, row.doc["UserId"])
    return {}


attachment.declare(USER)
with_tags(USER, USER.asked_for, USER.this)

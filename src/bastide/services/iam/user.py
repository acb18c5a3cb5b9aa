"""Users."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bastide.domain import Refused, tag_list
from bastide.kernel import Ask, Asked, Authorised, Output, unique_id
from bastide.kernel.kind import each
from bastide.services.iam import attachment
from bastide.services.iam.entity import NEW_BOUNDARY, Entity, below_path, conflict, new_tags, paged, with_tags
from bastide.store import Row, Transaction, View

USER = Entity("User", "The user with name {name} cannot be found.", "User with name {name} already exists.")


ENABLED_DEVICE: Final = "iam:EnabledMFADevice"
"""Rows ``USERID/DEVICE`` that tell which MFA devices a user has; the id, because names may change."""


def _shown(row: Row, *, whole: bool) -> Output:
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
    return {"User": _shown(row, whole=True)}


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
    return {"User": _shown(USER.seen(view, a.account, user_name(a)), whole=True)}


def _below(asked: Asked) -> Iterable[str]:
    return (f"arn:aws:iam::{asked.call.account}:user{asked.input.get('PathPrefix') or '/'}",)


@USER.reads("ListUsers", asks=[Ask("iam:ListUsers", _below)])
def users(a: Authorised, view: View) -> Output:
    return paged(a, view, USER.key, "Users", lambda row: _shown(row, whole=False), wanted=below_path(a))


@USER.operation("DeleteUser", asks=[Ask("iam:DeleteUser", USER.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = USER.asked_for(a, tx)
    if tx.scan("iam:AccessKey", a.account, "", prefix=f"{row.name}/", limit=1):
        raise conflict("Cannot delete entity, must delete access keys first.")
    if tx.scan(ENABLED_DEVICE, a.account, "", prefix=f"{row.doc['UserId']}/", limit=1):
        raise conflict("Cannot delete entity, must delete MFA device first.")
    attachment.must_be_bare(row)
    attachment.clear_boundary(a, tx, row)
    USER.remove(tx, row, a.operation.name, a.request.id)
    return {}


attachment.declare(USER, inline_quota=2048)
with_tags(USER, USER.asked_for, USER.this)

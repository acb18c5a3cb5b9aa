"""Roles: whom they trust, how long a session may last."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import tag_list
from bastide.kernel import Ask, Asked, Authorised, Output, unique_id
from bastide.kernel.kind import each
from bastide.policy import Form
from bastide.services.iam import attachment
from bastide.services.iam.entity import (
    NEW_BOUNDARY,
    Entity,
    below_path,
    checked,
    encoded,
    limit,
    modifiable,
    new_tags,
    paged,
    unspaced,
    with_tags,
)
from bastide.store import Row, Transaction, View

ROLE = Entity("Role", "The role with name {name} cannot be found.", "Role with name {name} already exists.")
_TRUST_QUOTA: Final = 4096
"""Characters of a trust policy without white space: the most that AWS raises its quota of 2,048 to."""
_SESSION: Final = 3600


def trust(document: str) -> str:
    """A trust policy; raises Refused (MalformedPolicyDocument, LimitExceeded)."""
    if unspaced(document) > _TRUST_QUOTA:
        raise limit(f"Cannot exceed quota for ACLSizePerRole: {_TRUST_QUOTA}")
    return checked(document, Form.TRUST)


def _shown(row: Row, *, whole: bool) -> Output:
    doc = row.doc
    found: Output = {
        "Path": doc["Path"],
        "RoleName": doc["RoleName"],
        "RoleId": doc["RoleId"],
        "Arn": doc["Arn"],
        "CreateDate": row.created,
        "AssumeRolePolicyDocument": encoded(doc["trust"]),
        "MaxSessionDuration": doc["MaxSessionDuration"],
    }
    if doc["Description"]:
        found["Description"] = doc["Description"]
    if whole:
        attachment.show_boundary(doc, found)
        if row.tags:
            found["Tags"] = tag_list(row.tags)
    return found


@ROLE.operation(
    "CreateRole",
    asks=[
        Ask("iam:CreateRole", ROLE.made, given={NEW_BOUNDARY: each("PermissionsBoundary")}),
        Ask("iam:TagRole", ROLE.made, when=lambda asked: bool(asked.input.get("Tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    name, path = a.input["RoleName"], a.input.get("Path") or "/"
    doc: dict[str, Any] = {
        "RoleName": name,
        "RoleId": unique_id("AROA"),
        "Path": path,
        "Arn": ROLE.address(a.account, path, name),
        "Description": a.input.get("Description") or "",
        "MaxSessionDuration": int(a.input.get("MaxSessionDuration") or _SESSION),
        "trust": trust(a.input["AssumeRolePolicyDocument"]),
        "inline": {},
        "attached": [],
        "boundary": "",
    }
    row = ROLE.make(a, tx, doc, new_tags(a))
    if a.input.get("PermissionsBoundary"):
        attachment.set_boundary(a, tx, row, a.input["PermissionsBoundary"])
        ROLE.save(a, tx, row)
    return {"Role": _shown(row, whole=True)}


@ROLE.reads("GetRole", asks=[Ask("iam:GetRole", ROLE.this)])
def get(a: Authorised, view: View) -> Output:
    return {"Role": _shown(ROLE.seen(view, a.account, a.input["RoleName"]), whole=True)}


def _below(asked: Asked) -> Iterable[str]:
    return (f"arn:aws:iam::{asked.call.account}:role{asked.input.get('PathPrefix') or '/'}",)


@ROLE.reads("ListRoles", asks=[Ask("iam:ListRoles", _below)])
def roles(a: Authorised, view: View) -> Output:
    return paged(a, view, ROLE.key, "Roles", lambda row: _shown(row, whole=False), wanted=below_path(a))


@ROLE.operation("UpdateRole", asks=[Ask("iam:UpdateRole", ROLE.this)])
def update(a: Authorised, tx: Transaction) -> Output:
    row = ROLE.asked_for(a, tx)
    if a.input.get("Description") is not None:
        row.doc["Description"] = a.input["Description"]
    if a.input.get("MaxSessionDuration") is not None:
        row.doc["MaxSessionDuration"] = int(a.input["MaxSessionDuration"])
    ROLE.save(a, tx, row)
    return {}


@ROLE.operation("UpdateAssumeRolePolicy", asks=[Ask("iam:UpdateAssumeRolePolicy", ROLE.this)])
def update_trust(a: Authorised, tx: Transaction) -> Output:
    row = ROLE.asked_for(a, tx)
    row.doc["trust"] = trust(a.input["PolicyDocument"])
    ROLE.save(a, tx, row)
    return {}


@ROLE.operation("DeleteRole", asks=[Ask("iam:DeleteRole", ROLE.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = ROLE.asked_for(a, tx)
    modifiable(a, row.doc, row.doc["RoleName"])
    attachment.must_be_bare(row)
    attachment.clear_boundary(a, tx, row)
    ROLE.drop(a, tx, row)
    return {}


attachment.declare(ROLE, inline_quota=10_240)
with_tags(ROLE, ROLE.asked_for, ROLE.this)

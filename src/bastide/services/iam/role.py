"""Roles: whom they trust, how long a session may last."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused, tag_list
from bastide.kernel import Ask, Authorised, Output, unique_id
from bastide.kernel.kind import each
from bastide.services.iam import attachment, trust
from bastide.services.iam.entity import (
    NEW_BOUNDARY,
    Entity,
    below,
    below_path,
    conflict,
    encoded,
    new_tags,
    paged,
    with_tags,
)
from bastide.services.iam.last_use import LastUse
from bastide.store import Row, Transaction, View

LINKED: Final = "/aws-service-role/"
"""The path of roles that belong to a service (IAM User Guide, "Create a service-linked role")."""
_RESERVED: Final = "/aws-reserved/"
"""The path of roles that services make in an account, such as those of permission sets."""
_SESSION: Final = 3600


def protected(row: Row) -> Refused:
    """The refusal to change a role that belongs to a service."""
    return Refused(
        "UnmodifiableEntity",
        f"Cannot perform the operation on the protected role '{row.doc['RoleName']}' - this role is only modifiable by AWS",
    )


class _Roles(Entity):
    """Roles, of which those of services are not changed by anybody else."""

    def asked_for(self, a: Authorised, view: View) -> Row:
        """The row that the call names, fresh, so that it may be changed; raises Refused (UnmodifiableEntity) for a call
        that changes a role of a service."""
        row = super().asked_for(a, view)
        path = str(row.doc["Path"])
        if a.operation.mutates and (
            path.startswith(LINKED) or (path.startswith(_RESERVED) and a.caller.kind != "Service")
        ):
            raise protected(row)
        return row


ROLE = _Roles("Role", "The role with name {name} cannot be found.", "Role with name {name} already exists.", most=5000)
PROFILE_OF: Final = "iam:InstanceProfileRole"
"""Rows named by a role's row and an instance profile's: which profiles hold the role."""
_HELD: Final = {NEW_BOUNDARY: attachment.held_boundary(ROLE)}


def role_doc(a: Authorised, tx: Transaction, name: str, path: str, document: str) -> dict[str, Any]:
    """What is kept of a new role; raises Refused for what is wrong with its trust policy."""
    return {
        "RoleName": name,
        "RoleId": unique_id("AROA"),
        "Path": path,
        "Arn": ROLE.address(a.account, path, name),
        "Description": a.input.get("Description") or "",
        "MaxSessionDuration": int(a.input.get("MaxSessionDuration") or _SESSION),
        **trust.written(a, tx, document),
        "inline": {},
        "attached": [],
        "boundary": "",
    }


def shown(a: Authorised, view: View, row: Row, *, whole: bool) -> Output:
    """A role; whole: with its boundary, tags and last use."""
    doc = row.doc
    found: Output = {
        "Path": doc["Path"],
        "RoleName": doc["RoleName"],
        "RoleId": doc["RoleId"],
        "Arn": doc["Arn"],
        "CreateDate": row.created,
        "AssumeRolePolicyDocument": encoded(trust.shown(view, doc)),
        "MaxSessionDuration": doc["MaxSessionDuration"],
    }
    if doc["Description"]:
        found["Description"] = doc["Description"]
    if whole:
        attachment.show_boundary(doc, found)
        if row.tags:
            found["Tags"] = tag_list(row.tags)
        use = a.engine(LastUse).latest(view, a.account, doc["RoleId"])
        found["RoleLastUsed"] = {} if use is None else {"LastUsedDate": use.at, "Region": use.region}
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
    if path.startswith(LINKED) or (path.startswith(_RESERVED) and a.caller.kind != "Service"):
        # Service control policies do not bind roles of that path.
        raise Refused("InvalidInput", f"The path {path} is reserved for roles that services make.")
    doc = role_doc(a, tx, name, path, a.input["AssumeRolePolicyDocument"])
    row = ROLE.make(a, tx, doc, new_tags(a))
    if a.input.get("PermissionsBoundary"):
        attachment.set_boundary(a, tx, row, a.input["PermissionsBoundary"])
        ROLE.save(a, tx, row)
    made = shown(a, tx, row, whole=True)
    # A new role's answer has neither, as AWS's.
    return {"Role": {key: value for key, value in made.items() if key not in ("MaxSessionDuration", "RoleLastUsed")}}


@ROLE.reads("GetRole", asks=[Ask("iam:GetRole", ROLE.this, given=_HELD)])
def get(a: Authorised, view: View) -> Output:
    return {"Role": shown(a, view, ROLE.seen(view, a.account, a.input["RoleName"]), whole=True)}


@ROLE.reads("ListRoles", asks=[Ask("iam:ListRoles", below(ROLE))])
def roles(a: Authorised, view: View) -> Output:
    return paged(a, view, ROLE.key, "Roles", lambda row: shown(a, view, row, whole=False), wanted=below_path(a))


def _described(a: Authorised, tx: Transaction) -> Row:
    """The row for a change of its description, which a role of a service may have, too."""
    row = ROLE.need(tx, a.account, str(a.input["RoleName"]))
    linked = str(row.doc["Path"]).startswith(LINKED) and a.input.get("MaxSessionDuration") is None
    return row if linked else ROLE.asked_for(a, tx)


@ROLE.operation("UpdateRole", asks=[Ask("iam:UpdateRole", ROLE.this, given=_HELD)])
def update(a: Authorised, tx: Transaction) -> Output:
    row = _described(a, tx)
    if a.input.get("Description") is not None:
        row.doc["Description"] = a.input["Description"]
    if a.input.get("MaxSessionDuration") is not None:
        row.doc["MaxSessionDuration"] = int(a.input["MaxSessionDuration"])
    ROLE.save(a, tx, row)
    return {}


@ROLE.operation("UpdateRoleDescription", asks=[Ask("iam:UpdateRoleDescription", ROLE.this, given=_HELD)])
def describe(a: Authorised, tx: Transaction) -> Output:
    row = _described(a, tx)
    row.doc["Description"] = a.input["Description"]
    ROLE.save(a, tx, row)
    return {"Role": shown(a, tx, row, whole=True)}


@ROLE.operation("UpdateAssumeRolePolicy", asks=[Ask("iam:UpdateAssumeRolePolicy", ROLE.this, given=_HELD)])
def update_trust(a: Authorised, tx: Transaction) -> Output:
    row = ROLE.asked_for(a, tx)
    row.doc |= trust.written(a, tx, a.input["PolicyDocument"])
    ROLE.save(a, tx, row)
    return {}


@ROLE.operation("DeleteRole", asks=[Ask("iam:DeleteRole", ROLE.this, given=_HELD)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = ROLE.asked_for(a, tx)
    if tx.scan(PROFILE_OF, a.account, "", prefix=f"{row.name}/", limit=1):
        raise conflict("Cannot delete entity, must remove roles from instance profile first.")
    attachment.must_be_bare(row)
    attachment.clear_boundary(a, tx, row)
    ROLE.remove(tx, row, a.operation.name, a.request.id)
    a.engine(LastUse).forget(tx, a.account, row.doc["RoleId"])
    return {}


attachment.declare(ROLE)
with_tags(ROLE, ROLE.asked_for, ROLE.this)

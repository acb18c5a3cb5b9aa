"""Groups of users. What a group's policies say holds for each of its members.

A user keeps the ids of its groups; a row for each pair, under the group's id, lists a group's members.
"""

from __future__ import annotations

from typing import Final

from bastide.kernel import Ask, Authorised, Output, unique_id
from bastide.services.iam import attachment
from bastide.services.iam.entity import Entity, below, below_path, conflict, limit, no_entity, paged, sliced
from bastide.services.iam.user import HOLDING, MOVING, USER, renamed
from bastide.services.iam.user import shown as user_shown
from bastide.store import Row, Transaction, View

GROUP = Entity(
    "Group",
    "The group with name {name} cannot be found.",
    "Group with name {name} already exists.",
    most=500,
    renamed=True,
)
MEMBER: Final = "iam:GroupMember"
"""Rows named by the group's id and the name of the user's row."""
MOST_GROUPS: Final = 10
"""Groups of one user (IAM User Guide, "IAM and AWS STS quotas")."""


def shown(row: Row) -> Output:
    """A group."""
    doc = row.doc
    return {
        "Path": doc["Path"],
        "GroupName": doc["GroupName"],
        "GroupId": doc["GroupId"],
        "Arn": doc["Arn"],
        "CreateDate": row.created,
    }


def groups_of(view: View, user: Row) -> list[Row]:
    """The groups of a user, as it came into them; raises LookupError if one cannot be found."""
    found: list[Row] = []
    for id in user.doc.get("groups", ()):
        row = GROUP.by_id(view, user.account, id)
        if row is None:
            raise LookupError(f"the group {id} of {user.doc['Arn']} is not there")
        found.append(row)
    return found


@GROUP.operation("CreateGroup", asks=[Ask("iam:CreateGroup", GROUP.made)])
def create(a: Authorised, tx: Transaction) -> Output:
    name, path = a.input["GroupName"], a.input.get("Path") or "/"
    doc: dict[str, object] = {
        "GroupName": name,
        "GroupId": unique_id("AGPA"),
        "Path": path,
        "Arn": GROUP.address(a.account, path, name),
        "inline": {},
        "attached": [],
    }
    return {"Group": shown(GROUP.make(a, tx, doc, {}))}


@GROUP.reads("GetGroup", asks=[Ask("iam:GetGroup", GROUP.this)])
def get(a: Authorised, view: View) -> Output:
    row = GROUP.asked_for(a, view)

    def member(pair: Row) -> Output:
        user = view.get(USER.key, a.account, "", pair.name.partition("/")[2])
        assert user is not None
        return user_shown(user, whole=False)

    return {"Group": shown(row), **paged(a, view, MEMBER, "Users", member, prefix=f"{GROUP.id_of(row)}/")}


@GROUP.reads("ListGroups", asks=[Ask("iam:ListGroups", below(GROUP))])
def groups(a: Authorised, view: View) -> Output:
    return paged(a, view, GROUP.key, "Groups", shown, wanted=below_path(a))


@GROUP.reads("ListGroupsForUser", asks=[Ask("iam:ListGroupsForUser", USER.this)])
def for_user(a: Authorised, view: View) -> Output:
    return sliced(a, "Groups", [shown(row) for row in groups_of(view, USER.asked_for(a, view))])


@GROUP.operation("UpdateGroup", asks=[Ask("iam:UpdateGroup", renamed(GROUP))])
def update(a: Authorised, tx: Transaction) -> Output:
    row = GROUP.asked_for(a, tx)
    before = Row(row.kind, row.account, "", row.name, row.doc)
    name, path = a.input.get("NewGroupName") or row.doc["GroupName"], a.input.get("NewPath") or row.doc["Path"]
    attachment.moved(tx, before, GROUP.rename(a, tx, row, name, path))
    return {}


@GROUP.operation("DeleteGroup", asks=[Ask("iam:DeleteGroup", GROUP.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = GROUP.asked_for(a, tx)
    if tx.scan(MEMBER, a.account, "", prefix=f"{GROUP.id_of(row)}/", limit=1):
        raise conflict("Cannot delete entity, must remove users from group first.")
    attachment.must_be_bare(row)
    GROUP.remove(tx, row, a.operation.name, a.request.id)
    return {}


# -- members -----------------------------------------------------------------------------------------------------------


@GROUP.operation("AddUserToGroup", asks=[Ask("iam:AddUserToGroup", GROUP.this)])
def add(a: Authorised, tx: Transaction) -> Output:
    group = GROUP.asked_for(a, tx)
    user = USER.asked_for(a, tx)
    held = user.doc.setdefault("groups", [])
    id = GROUP.id_of(group)
    if id in held:
        return {}
    if len(held) >= MOST_GROUPS:
        raise limit(f"Cannot exceed quota for GroupsPerUser: {MOST_GROUPS}")
    held.append(id)
    USER.save(a, tx, user)
    tx.insert(Row(MEMBER, a.account, "", f"{id}/{user.name}", {}), keep=False)
    return {}


@GROUP.operation("RemoveUserFromGroup", asks=[Ask("iam:RemoveUserFromGroup", GROUP.this)])
def remove(a: Authorised, tx: Transaction) -> Output:
    group = GROUP.asked_for(a, tx)
    user = USER.asked_for(a, tx)
    id = GROUP.id_of(group)
    pair = tx.get(MEMBER, a.account, "", f"{id}/{user.name}")
    if pair is None:
        raise no_entity(f"User {user.doc['UserName']} is not in group {group.doc['GroupName']}.")
    user.doc["groups"].remove(id)
    USER.save(a, tx, user)
    tx.delete(pair, keep=False)
    return {}


def _move(a: Authorised, tx: Transaction, before: Row, after: Row) -> None:
    for id in after.doc.get("groups", ()):
        pair = tx.get(MEMBER, before.account, "", f"{id}/{before.name}")
        if pair is not None:
            tx.delete(pair, keep=False)
        tx.insert(Row(MEMBER, after.account, "", f"{id}/{after.name}", {}), keep=False)


MOVING.append(_move)
HOLDING.append(
    lambda view, user: "Cannot delete entity, must remove users from group first." if user.doc.get("groups") else ""
)
attachment.declare(GROUP, most=attachment.GROUP_ATTACHED, bounded=False)

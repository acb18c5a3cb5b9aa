"""Instance profiles: the containers in which a machine is given a role."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import tag_list
from bastide.kernel import Ask, Authorised, Output, unique_id
from bastide.services.iam.entity import (
    Entity,
    below,
    below_path,
    conflict,
    limit,
    new_tags,
    no_entity,
    paged,
    with_tags,
)
from bastide.services.iam.role import PROFILE_OF, ROLE
from bastide.services.iam.role import shown as role_shown
from bastide.store import Row, Transaction, View

INSTANCE_PROFILE = Entity(
    "InstanceProfile",
    "Instance Profile {name} cannot be found.",
    "Instance Profile {name} already exists.",
    most=5000,
    type="instance-profile",
)
_MOST_ROLES: Final = 1


def shown(a: Authorised, view: View, row: Row, *, whole: bool) -> Output:
    """An instance profile with its role; whole: with its tags."""
    doc = row.doc
    roles = [ROLE.held(view, a.account, name) for name in doc["roles"]]
    found: Output = {
        "Path": doc["Path"],
        "InstanceProfileName": doc["InstanceProfileName"],
        "InstanceProfileId": doc["InstanceProfileId"],
        "Arn": doc["Arn"],
        "CreateDate": row.created,
        "Roles": [role_shown(a, view, role, whole=False) for role in roles if role is not None],
    }
    if whole and row.tags:
        found["Tags"] = tag_list(row.tags)
    return found


def profiles_of(view: View, role: Row) -> list[Row]:
    """The instance profiles that hold a role; as many as there are, which is few."""
    names = [
        pair.name.partition("/")[2]
        for pair in view.scan(PROFILE_OF, role.account, "", prefix=f"{role.name}/", limit=INSTANCE_PROFILE.most)
    ]
    found = [view.get(INSTANCE_PROFILE.key, role.account, "", name) for name in names]
    return [row for row in found if row is not None]


@INSTANCE_PROFILE.operation(
    "CreateInstanceProfile",
    asks=[
        Ask("iam:CreateInstanceProfile", INSTANCE_PROFILE.made),
        Ask("iam:TagInstanceProfile", INSTANCE_PROFILE.made, when=lambda asked: bool(asked.input.get("Tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    name, path = a.input["InstanceProfileName"], a.input.get("Path") or "/"
    doc: dict[str, Any] = {
        "InstanceProfileName": name,
        "InstanceProfileId": unique_id("AIPA"),
        "Path": path,
        "Arn": INSTANCE_PROFILE.address(a.account, path, name),
        "roles": [],
    }
    return {"InstanceProfile": shown(a, tx, INSTANCE_PROFILE.make(a, tx, doc, new_tags(a)), whole=True)}


@INSTANCE_PROFILE.reads("GetInstanceProfile", asks=[Ask("iam:GetInstanceProfile", INSTANCE_PROFILE.this)])
def get(a: Authorised, view: View) -> Output:
    return {"InstanceProfile": shown(a, view, INSTANCE_PROFILE.asked_for(a, view), whole=True)}


@INSTANCE_PROFILE.reads("ListInstanceProfiles", asks=[Ask("iam:ListInstanceProfiles", below(INSTANCE_PROFILE))])
def profiles(a: Authorised, view: View) -> Output:
    return paged(
        a,
        view,
        INSTANCE_PROFILE.key,
        "InstanceProfiles",
        lambda row: shown(a, view, row, whole=False),
        wanted=below_path(a),
    )


@INSTANCE_PROFILE.reads("ListInstanceProfilesForRole", asks=[Ask("iam:ListInstanceProfilesForRole", ROLE.this)])
def for_role(a: Authorised, view: View) -> Output:
    role = ROLE.asked_for(a, view)

    def show(pair: Row) -> Output:
        row = view.get(INSTANCE_PROFILE.key, a.account, "", pair.name.partition("/")[2])
        assert row is not None
        return shown(a, view, row, whole=False)

    return paged(a, view, PROFILE_OF, "InstanceProfiles", show, prefix=f"{role.name}/")


@INSTANCE_PROFILE.operation("DeleteInstanceProfile", asks=[Ask("iam:DeleteInstanceProfile", INSTANCE_PROFILE.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = INSTANCE_PROFILE.asked_for(a, tx)
    if row.doc["roles"]:
        raise conflict("Cannot delete entity, must remove roles from instance profile first.")
    INSTANCE_PROFILE.remove(tx, row, a.operation.name, a.request.id)
    return {}


@INSTANCE_PROFILE.operation(
    "AddRoleToInstanceProfile",
    asks=[
        Ask("iam:AddRoleToInstanceProfile", INSTANCE_PROFILE.this),
        Ask("iam:PassRole", ROLE.this, given={"iam:PassedToService": lambda asked: "ec2.amazonaws.com"}),
    ],
)
def add(a: Authorised, tx: Transaction) -> Output:
    row = INSTANCE_PROFILE.asked_for(a, tx)
    role = ROLE.asked_for(a, tx)
    if len(row.doc["roles"]) >= _MOST_ROLES:
        raise limit(f"Cannot exceed quota for InstanceSessionsPerInstanceProfile: {_MOST_ROLES}")
    row.doc["roles"].append(role.doc["RoleName"])
    INSTANCE_PROFILE.save(a, tx, row)
    tx.insert(Row(PROFILE_OF, a.account, "", f"{role.name}/{row.name}", {}), keep=False)
    return {}


@INSTANCE_PROFILE.operation(
    "RemoveRoleFromInstanceProfile", asks=[Ask("iam:RemoveRoleFromInstanceProfile", INSTANCE_PROFILE.this)]
)
def remove(a: Authorised, tx: Transaction) -> Output:
    row = INSTANCE_PROFILE.asked_for(a, tx)
    name = str(a.input["RoleName"])
    if name not in row.doc["roles"]:
        raise no_entity(ROLE.told_missing.format(name=name))
    row.doc["roles"].remove(name)
    INSTANCE_PROFILE.save(a, tx, row)
    pair = tx.get(PROFILE_OF, a.account, "", f"{name.lower()}/{row.name}")
    if pair is not None:
        tx.delete(pair, keep=False)
    return {}


with_tags(INSTANCE_PROFILE, INSTANCE_PROFILE.asked_for, INSTANCE_PROFILE.this)

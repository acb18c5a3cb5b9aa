"""Groups of the identity store, and who is in them."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Instant
from bastide.kernel import Asked, Authorised, Output
from bastide.services.identity_center import user as users
from bastide.services.identity_center.instance import Instance, Noun, invalid, paged
from bastide.services.identity_center.member import MEMBER, MEMBERSHIP, WITHIN, join, leave
from bastide.services.identity_center.store import (
    alternate,
    ask,
    bare,
    claim,
    every,
    external,
    holder,
    in_store,
    member_id,
    missing,
    new_resource_id,
    one,
    only_filter,
    operate,
    revised,
)
from bastide.store import Row, Transaction, View

GROUP: Final = Noun("Group", service="identitystore", arn="group/{}")
_ATTRIBUTES: Final = ("DisplayName", "Description")


# -- groups ------------------------------------------------------------------------------------------------------------


def _claims(doc: dict[str, Any]) -> dict[str, str]:
    found = {f"group/{doc['DisplayName'].lower()}": "DisplayName"}
    for known in doc.get("ExternalIds", ()):
        found[external("group", known["Issuer"], known["Id"])] = "ExternalId"
    return found


def add(tx: Transaction, here: Instance, doc: dict[str, Any], now: Instant, event: str, request: str = "") -> Row:
    """A new group; raises Refused (ConflictException) when its name is taken."""
    row = Row(GROUP.key, "", "", new_resource_id(here), doc, created=now, modified=now)
    claim(tx, row.name, {}, _claims(doc))
    tx.insert(row, event=event, request_id=request)
    return row


def find(view: View, id: str) -> Row:
    """The row, fresh; raises Refused (ResourceNotFoundException)."""
    row = GROUP.row(view, bare(id))
    if row is None:
        raise missing("GROUP", bare(id))
    return row


def _shown(here: Instance, row: Row) -> Output:
    found = {name: row.doc[name] for name in (*_ATTRIBUTES, "ExternalIds") if row.doc.get(name)}
    return {
        **found,
        "IdentityStoreId": here.store,
        "GroupId": row.name,
        "GroupArn": GROUP.arn("", "", row.name),
        "Revision": str(row.generation),
        "CreatedAt": row.created,
        "UpdatedAt": row.modified,
    }


def _named(here: Instance, row: Row) -> Output:
    return {name: found for name, found in _shown(here, row).items() if name in _NAMED}


_NAMED: Final = ("IdentityStoreId", "GroupId", "GroupArn", "Revision")


def _create(a: Authorised, tx: Transaction, here: Instance) -> Output:
    doc = {name: a.input[name] for name in _ATTRIBUTES if a.input.get(name)}
    if "DisplayName" not in doc:
        raise invalid("DisplayName is a required attribute.")
    row = add(tx, here, doc, a.now, a.operation.name, a.request.id)
    a.touched.append(GROUP.arn("", "", row.name))
    return _named(here, find(tx, row.name))


def _describe(a: Authorised, view: View, here: Instance) -> Output:
    return _shown(here, find(view, a.input["GroupId"]))


def _update(a: Authorised, tx: Transaction, here: Instance) -> Output:
    row = find(tx, a.input["GroupId"])
    revised(a, row)
    doc = operate(row.doc, a.input["Operations"], _ATTRIBUTES)
    if not doc.get("DisplayName") or not all(isinstance(doc.get(name, ""), str) for name in _ATTRIBUTES):
        raise invalid("A group needs a DisplayName, and its attributes are texts.")
    claim(tx, row.name, _claims(row.doc), _claims(doc))
    row.doc = doc
    GROUP.save(a, tx, row)
    return _named(here, find(tx, row.name))


def _delete(a: Authorised, tx: Transaction, here: Instance) -> Output:
    row = find(tx, a.input["GroupId"])
    revised(a, row)
    while rows := tx.scan(WITHIN, "", "", prefix=f"{row.name}/", limit=500):
        for within in rows:
            leave(tx, within.name.rpartition("/")[2], row.name, a.operation.name)
    claim(tx, row.name, _claims(row.doc), {})
    GROUP.drop(a, tx, row)
    return {}


def _list(a: Authorised, view: View, here: Instance) -> Output:
    name = only_filter(a, "DisplayName")
    if name is not None:
        id = holder(view, f"group/{name.lower()}")
        return {"Groups": [_shown(here, find(view, id))] if id is not None else []}
    return paged(a, view, GROUP.key, "Groups", lambda row: _shown(here, row))


def _id(a: Authorised, view: View, here: Instance) -> Output:
    id = alternate(a, view, "group", {"displayname": "group"})
    if id is None:
        raise missing("GROUP", "")
    return {"IdentityStoreId": here.store, "GroupId": id, "GroupArn": GROUP.arn("", "", id)}


GROUP.operation("CreateGroup", asks=ask("CreateGroup"))(in_store(_create))
GROUP.reads("DescribeGroup", asks=ask("DescribeGroup", group=one("GroupId")))(in_store(_describe))
GROUP.operation("UpdateGroup", asks=ask("UpdateGroup", group=one("GroupId")))(in_store(_update))
GROUP.operation("DeleteGroup", asks=ask("DeleteGroup", group=one("GroupId")))(in_store(_delete))
GROUP.reads("ListGroups", asks=ask("ListGroups", group=every))(in_store(_list))
GROUP.reads("GetGroupId", asks=ask("GetGroupId", group=every))(in_store(_id))


# -- memberships -------------------------------------------------------------------------------------------------------


def _membership(here: Instance, id: str, user: str, group: str) -> Output:
    return {
        "IdentityStoreId": here.store,
        "MembershipId": id,
        "MembershipArn": MEMBERSHIP.arn("", "", id),
        "GroupId": group,
        "MemberId": {"UserId": user},
    }


def _user(a: Authorised) -> str:
    found = a.input["MemberId"].get("UserId")
    if found is None:
        raise invalid("MemberId must name a user.")
    return bare(found)


def _join(a: Authorised, tx: Transaction, here: Instance) -> Output:
    group = find(tx, a.input["GroupId"]).name
    user = users.find(tx, _user(a)).name
    id = join(tx, here, user, group, a.now, a.operation.name)
    return {"IdentityStoreId": here.store, "MembershipId": id, "MembershipArn": MEMBERSHIP.arn("", "", id)}


def _held(view: View, id: str) -> Row:
    row = MEMBERSHIP.row(view, bare(id))
    if row is None:
        raise missing("GROUP_MEMBERSHIP", bare(id))
    return row


def _leave(a: Authorised, tx: Transaction, here: Instance) -> Output:
    row = _held(tx, a.input["MembershipId"])
    leave(tx, row.doc["user"], row.doc["group"], a.operation.name)
    return {}


def _describe_membership(a: Authorised, view: View, here: Instance) -> Output:
    row = _held(view, a.input["MembershipId"])
    found = _membership(here, row.name, row.doc["user"], row.doc["group"])
    return {**found, "CreatedAt": row.created, "UpdatedAt": row.modified}


def _membership_id(a: Authorised, view: View, here: Instance) -> Output:
    group, user = find(view, a.input["GroupId"]).name, users.find(view, _user(a)).name
    row = view.get(MEMBER, "", "", f"{user}/{group}")
    if row is None:
        raise missing("GROUP_MEMBERSHIP", "")
    id = row.doc["id"]
    return {"IdentityStoreId": here.store, "MembershipId": id, "MembershipArn": MEMBERSHIP.arn("", "", id)}


def _members(a: Authorised, view: View, here: Instance) -> Output:
    group = find(view, a.input["GroupId"]).name

    def show(row: Row) -> Output:
        return _membership(here, row.doc["id"], row.name.rpartition("/")[2], group)

    return paged(a, view, WITHIN, "GroupMemberships", show, prefix=f"{group}/")


def _memberships(a: Authorised, view: View, here: Instance) -> Output:
    user = users.find(view, _user(a)).name

    def show(row: Row) -> Output:
        return _membership(here, row.doc["id"], user, row.name.rpartition("/")[2])

    return paged(a, view, MEMBER, "GroupMemberships", show, prefix=f"{user}/")


def _is_member(a: Authorised, view: View, here: Instance) -> Output:
    user = users.find(view, _user(a)).name
    groups = [find(view, id).name for id in a.input["GroupIds"]]
    return {
        "Results": [
            {
                "GroupId": group,
                "MemberId": {"UserId": user},
                "MembershipExists": view.get(MEMBER, "", "", f"{user}/{group}") is not None,
            }
            for group in groups
        ]
    }


def _of_membership(member: str) -> Any:
    """The user or group of the membership that a call names."""

    def read(asked: Asked) -> list[str]:
        row = MEMBERSHIP.row(asked.view, bare(str(asked.input["MembershipId"])))
        return [str(row.doc[member])] if row is not None else []

    return read


_THIS: Final = {
    "group": _of_membership("group"),
    "membership": one("MembershipId"),
    "user": _of_membership("user"),
}
MEMBERSHIP.operation("CreateGroupMembership", asks=ask("CreateGroupMembership", group=one("GroupId"), user=member_id))(
    in_store(_join)
)
MEMBERSHIP.operation("DeleteGroupMembership", asks=ask("DeleteGroupMembership", **_THIS))(in_store(_leave))
MEMBERSHIP.reads("DescribeGroupMembership", asks=ask("DescribeGroupMembership", **_THIS))(
    in_store(_describe_membership)
)
MEMBERSHIP.reads(
    "GetGroupMembershipId",
    asks=ask("GetGroupMembershipId", group=one("GroupId"), membership=every, user=member_id),
)(in_store(_membership_id))
MEMBERSHIP.reads("ListGroupMemberships", asks=ask("ListGroupMemberships", group=one("GroupId"), membership=every))(
    in_store(_members)
)
MEMBERSHIP.reads(
    "ListGroupMembershipsForMember", asks=ask("ListGroupMembershipsForMember", membership=every, user=member_id)
)(in_store(_memberships))


def _groups(asked: Asked) -> list[str]:
    return [str(id) for id in asked.input["GroupIds"]]


MEMBERSHIP.reads("IsMemberInGroups", asks=ask("IsMemberInGroups", group=_groups, membership=every, user=member_id))(
    in_store(_is_member)
)

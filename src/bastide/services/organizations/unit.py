"""Organizational units, and who stands below whom."""

from __future__ import annotations

from typing import Final

from bastide.domain import Refused
from bastide.kernel import Authorised, Output
from bastide.services.organizations.attachment import attach_first, detach_last
from bastide.services.organizations.delegation import in_management
from bastide.services.organizations.noun import (
    ACCOUNT,
    CHILD,
    TAKEN,
    UNIT,
    address,
    ask,
    constraint,
    paged,
    random_id,
    root,
    tags_of,
)
from bastide.services.organizations.tree import node, path
from bastide.store import Row, Taken, Transaction, View

_DEEPEST: Final = 5
"""Levels of units below the root (Organizations User Guide, "Quotas")."""


def parent(view: View, id: str, code: str = "ParentNotFoundException") -> Row:
    """A root or unit; raises Refused."""
    row = None if "-" not in id else node(view, id)
    if row is None:
        raise Refused(code, "You specified a parent that doesn't exist.")
    return row


def _unit(view: View, id: str) -> Row:
    row = UNIT.row(view, id)
    if row is None:
        raise Refused("OrganizationalUnitNotFoundException", "You specified an organizational unit that doesn't exist.")
    return row


def _path(view: View, held: Row, id: str) -> str:
    return "/".join([held.doc["Id"], *(row.name for row in path(view, id))]) + "/"


def _shown(view: View, held: Row, row: Row) -> Output:
    found = {name: row.doc[name] for name in ("Id", "Arn", "Name")}
    return {**found, "Path": _path(view, held, row.name)}


def _take_name(tx: Transaction, above: str, name: str, id: str) -> None:
    try:
        tx.insert(Row(TAKEN, "", "", f"unit/{above}/{name}", {"id": id}), keep=False)
    except Taken:
        raise Refused("DuplicateOrganizationalUnitException", "An OU with the same name already exists.") from None


def _create(a: Authorised, tx: Transaction, held: Row) -> Output:
    above = parent(tx, a.input["ParentId"])
    if len(path(tx, above.name)) > _DEEPEST:
        raise constraint("You have exceeded the depth of the OU tree.", "OU_DEPTH_LIMIT_EXCEEDED")
    top = root(tx)
    assert top is not None
    id = random_id(f"ou-{top.name[2:]}-", 8)
    name = a.input["Name"]
    _take_name(tx, above.name, name, id)
    doc = {"Id": id, "Arn": address(held, id), "Name": name, "parent": above.name, "policies": {}}
    row = UNIT.put(a, tx, id, doc, tags_of(a))
    tx.insert(Row(CHILD, "", "", f"{above.name}/ORGANIZATIONAL_UNIT/{id}", {}), keep=False)
    attach_first(a, tx, row)
    return {"OrganizationalUnit": _shown(tx, held, row)}


def _describe(a: Authorised, view: View, held: Row) -> Output:
    return {"OrganizationalUnit": _shown(view, held, _unit(view, a.input["OrganizationalUnitId"]))}


def _below(a: Authorised, view: View, held: Row) -> Output:
    above = parent(view, a.input["ParentId"])

    def show(row: Row) -> Output:
        return _shown(view, held, _unit(view, row.name.rpartition("/")[2]))

    return paged(a, view, CHILD, "OrganizationalUnits", show, prefix=f"{above.name}/ORGANIZATIONAL_UNIT/")


def _rename(a: Authorised, tx: Transaction, held: Row) -> Output:
    row, name = _unit(tx, a.input["OrganizationalUnitId"]), a.input.get("Name")
    if name is not None and name != row.doc["Name"]:
        above = row.doc["parent"]
        _take_name(tx, above, name, row.name)
        before = tx.get(TAKEN, "", "", f"unit/{above}/{row.doc['Name']}")
        if before is not None:
            tx.delete(before, keep=False)
        row.doc["Name"] = name
        UNIT.save(a, tx, row)
    return {"OrganizationalUnit": _shown(tx, held, row)}


def _delete(a: Authorised, tx: Transaction, held: Row) -> Output:
    row = _unit(tx, a.input["OrganizationalUnitId"])
    if tx.scan(CHILD, "", "", prefix=f"{row.name}/", limit=1):
        raise Refused(
            "OrganizationalUnitNotEmptyException",
            "The specified OU is not empty. Move all accounts to another root or to other OUs, remove all child OUs, "
            "and try the operation again.",
        )
    detach_last(tx, row)
    for kind, name in (
        (CHILD, f"{row.doc['parent']}/ORGANIZATIONAL_UNIT/{row.name}"),
        (TAKEN, f"unit/{row.doc['parent']}/{row.doc['Name']}"),
    ):
        beside = tx.get(kind, "", "", name)
        if beside is not None:
            tx.delete(beside, keep=False)
    UNIT.drop(a, tx, row)
    return {}


def _children(a: Authorised, view: View, held: Row) -> Output:
    above, kind = parent(view, a.input["ParentId"]), a.input["ChildType"]
    return paged(
        a,
        view,
        CHILD,
        "Children",
        lambda row: {"Id": row.name.rpartition("/")[2], "Type": kind},
        prefix=f"{above.name}/{kind}/",
    )


def _parents(a: Authorised, view: View, held: Row) -> Output:
    id = a.input["ChildId"]
    row = UNIT.row(view, id) if id.startswith("ou-") else ACCOUNT.row(view, id)
    if row is None:
        raise Refused("ChildNotFoundException", "You specified a child that doesn't exist.")
    above = row.doc["parent"]
    return {"Parents": [{"Id": above, "Type": "ROOT" if above.startswith("r-") else "ORGANIZATIONAL_UNIT"}]}


UNIT.operation("CreateOrganizationalUnit", asks=ask("CreateOrganizationalUnit", "ParentId"))(in_management(_create))
UNIT.reads("DescribeOrganizationalUnit", asks=ask("DescribeOrganizationalUnit", "OrganizationalUnitId"))(
    in_management(_describe)
)
UNIT.reads("ListOrganizationalUnitsForParent", asks=ask("ListOrganizationalUnitsForParent", "ParentId"))(
    in_management(_below)
)
UNIT.operation("UpdateOrganizationalUnit", asks=ask("UpdateOrganizationalUnit", "OrganizationalUnitId"))(
    in_management(_rename)
)
UNIT.operation("DeleteOrganizationalUnit", asks=ask("DeleteOrganizationalUnit", "OrganizationalUnitId"))(
    in_management(_delete)
)
UNIT.reads("ListChildren", asks=ask("ListChildren", "ParentId"))(in_management(_children))
UNIT.reads("ListParents", asks=ask("ListParents", "ChildId"))(in_management(_parents))

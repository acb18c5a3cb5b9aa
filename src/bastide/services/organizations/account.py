"""Member accounts: making them, moving them, finding them.

Source: Organizations User Guide, "Creating a member account in an organization" (the role, its trust and its policy).
"""

from __future__ import annotations

import json
import secrets
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Authorised, Output, service_caller
from bastide.services.organizations.attachment import attach_first
from bastide.services.organizations.noun import (
    ACCOUNT,
    CHILD,
    REQUEST,
    TAKEN,
    address,
    ask,
    in_management,
    paged,
    root,
    tags_of,
)
from bastide.services.organizations.tree import path
from bastide.services.organizations.unit import parent
from bastide.store import Row, Taken, Transaction, View

_SERVICE: Final = "organizations.amazonaws.com"
_ROLE: Final = "OrganizationAccountAccessRole"
_ADMINISTRATOR: Final = "arn:aws:iam::aws:policy/AdministratorAccess"


def _shown(view: View, held: Row, row: Row) -> Output:
    doc = row.doc
    found: Output = {name: doc[name] for name in ("Id", "Arn", "Email", "Name", "JoinedMethod", "JoinedTimestamp")}
    above = "/".join([held.doc["Id"], *(one.name for one in path(view, row.name))])
    return {**found, "Status": row.status, "State": row.status, "Paths": [f"{above}/"]}


def _account(view: View, id: str) -> Row:
    row = ACCOUNT.row(view, id)
    if row is None:
        raise Refused("AccountNotFoundException", "You specified an account that doesn't exist.")
    return row


def _new_id(view: View) -> str:
    while True:
        id = str(secrets.randbelow(9 * 10**11) + 10**11)
        if ACCOUNT.row(view, id) is None:
            return id


def _create(a: Authorised, tx: Transaction, held: Row) -> Output:
    """Makes the account at once, so the request that AWS works off later has succeeded when it is answered."""
    tags = tags_of(a)
    top = root(tx)
    assert top is not None
    id = _new_id(tx)
    request = f"car-{secrets.token_hex(16)}"
    status: dict[str, Any] = {
        "Id": request,
        "AccountName": a.input["AccountName"],
        "RequestedTimestamp": a.now,
        "CompletedTimestamp": a.now,
    }
    try:
        tx.insert(Row(TAKEN, "", "", f"email/{a.input['Email'].lower()}", {"id": id}), keep=False)
    except Taken:
        status |= {"State": "FAILED", "FailureReason": "EMAIL_ALREADY_EXISTS"}
        REQUEST.put(a, tx, request, status, {}, "FAILED")
        return {"CreateAccountStatus": status}
    doc = {
        "Id": id,
        "Arn": address(held, id),
        "Email": a.input["Email"],
        "Name": a.input["AccountName"],
        "JoinedMethod": "CREATED",
        "JoinedTimestamp": a.now,
        "parent": top.name,
        "policies": [],
    }
    row = ACCOUNT.put(a, tx, id, doc, tags, "ACTIVE")
    tx.insert(Row(CHILD, "", "", f"{top.name}/ACCOUNT/{id}", {}), keep=False)
    attach_first(a, tx, row)
    _first_role(a, tx, id)
    status |= {"State": "SUCCEEDED", "AccountId": id}
    REQUEST.put(a, tx, request, status, {}, "SUCCEEDED")
    a.touched.append(doc["Arn"])
    return {"CreateAccountStatus": status}


def _first_role(a: Authorised, tx: Transaction, account: str) -> None:
    """The role by which the management account enters, made by the service itself inside the new account."""
    name = a.input.get("RoleName") or _ROLE
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{a.account}:root"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    founder = service_caller(_SERVICE, account)
    for operation, given in (
        ("CreateRole", {"RoleName": name, "AssumeRolePolicyDocument": json.dumps(trust)}),
        ("AttachRolePolicy", {"RoleName": name, "PolicyArn": _ADMINISTRATOR}),
    ):
        a.calls.forward(a, tx, "iam", operation, given, _SERVICE, {}, caller=founder)


def _status(a: Authorised, view: View, held: Row) -> Output:
    row = REQUEST.row(view, a.input["CreateAccountRequestId"])
    if row is None:
        raise Refused(
            "CreateAccountStatusNotFoundException",
            "We can't find an create account request with the CreateAccountRequestId that you specified.",
        )
    return {"CreateAccountStatus": row.doc}


def _list(a: Authorised, view: View, held: Row) -> Output:
    return paged(a, view, ACCOUNT.key, "Accounts", lambda row: _shown(view, held, row))


def _describe(a: Authorised, view: View, held: Row) -> Output:
    return {"Account": _shown(view, held, _account(view, a.input["AccountId"]))}


def _below(a: Authorised, view: View, held: Row) -> Output:
    above = parent(view, a.input["ParentId"])

    def show(row: Row) -> Output:
        return _shown(view, held, _account(view, row.name.rpartition("/")[2]))

    return paged(a, view, CHILD, "Accounts", show, prefix=f"{above.name}/ACCOUNT/")


def _move(a: Authorised, tx: Transaction, held: Row) -> Output:
    row = _account(tx, a.input["AccountId"])
    source = parent(tx, a.input["SourceParentId"], "SourceParentNotFoundException")
    destination = parent(tx, a.input["DestinationParentId"], "DestinationParentNotFoundException")
    if row.doc["parent"] != source.name:
        raise Refused("SourceParentNotFoundException", "You specified a source parent that doesn't hold the account.")
    if source.name == destination.name:
        raise Refused("DuplicateAccountException", "That account is already present in the specified destination.")
    before = tx.get(CHILD, "", "", f"{source.name}/ACCOUNT/{row.name}")
    if before is not None:
        tx.delete(before, keep=False)
    tx.insert(Row(CHILD, "", "", f"{destination.name}/ACCOUNT/{row.name}", {}), keep=False)
    row.doc["parent"] = destination.name
    ACCOUNT.save(a, tx, row)
    return {}


ACCOUNT.operation("CreateAccount", asks=ask("CreateAccount"))(in_management(_create))
REQUEST.reads("DescribeCreateAccountStatus", asks=ask("DescribeCreateAccountStatus"))(in_management(_status))
ACCOUNT.reads("ListAccounts", asks=ask("ListAccounts"))(in_management(_list))
ACCOUNT.reads("DescribeAccount", asks=ask("DescribeAccount", "AccountId"))(in_management(_describe))
ACCOUNT.reads("ListAccountsForParent", asks=ask("ListAccountsForParent", "ParentId"))(in_management(_below))
ACCOUNT.operation("MoveAccount", asks=ask("MoveAccount", "AccountId", "SourceParentId", "DestinationParentId"))(
    in_management(_move)
)

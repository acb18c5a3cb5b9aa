"""Member accounts: making them, moving them, finding them.

Source: Organizations User Guide, "Creating a member account in an organization" (the role, its trust and its policy).
"""

from __future__ import annotations

import json
import secrets
from typing import Any, Final

from bastide.domain import Refused, Tags
from bastide.kernel import Authorised, Output, service_caller
from bastide.services.organizations.attachment import attach_first, detach_last
from bastide.services.organizations.delegation import in_management
from bastide.services.organizations.noun import (
    ACCOUNT,
    CHILD,
    DELEGATED,
    REQUEST,
    TAKEN,
    address,
    ask,
    constraint,
    membership,
    paged,
    root,
    tags_of,
)
from bastide.services.organizations.tree import path, untrusted
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
        if ACCOUNT.row(view, id) is None and view.get(TAKEN, "", "", f"account/{id}") is None:
            return id


def _create(a: Authorised, tx: Transaction, held: Row) -> Output:
    """Makes the account at once, so the request that AWS works off later has succeeded when it is answered."""
    tags = tags_of(a)
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
    row = join(a, tx, held, id, {"Email": a.input["Email"], "Name": a.input["AccountName"]}, "CREATED", tags)
    _first_role(a, tx, id)
    status |= {"State": "SUCCEEDED", "AccountId": id}
    REQUEST.put(a, tx, request, status, {}, "SUCCEEDED")
    a.touched.append(row.doc["Arn"])
    return {"CreateAccountStatus": status}


def join(a: Authorised, tx: Transaction, held: Row, id: str, known: dict[str, str], method: str, tags: Tags) -> Row:
    """An account becomes a member, below the root. known: its Email and Name. method: CREATED or INVITED."""
    top = root(tx)
    assert top is not None
    doc = {
        "Id": id,
        "Arn": address(held, id),
        **known,
        "JoinedMethod": method,
        "JoinedTimestamp": a.now,
        "parent": top.name,
        "policies": {},
    }
    row = ACCOUNT.put(a, tx, id, doc, tags, "ACTIVE")
    tx.insert(Row(CHILD, "", "", f"{top.name}/ACCOUNT/{id}", {}), keep=False)
    attach_first(a, tx, row)
    return row


def _leave(a: Authorised, tx: Transaction, held: Row, row: Row) -> Output:
    """An account is a member no more: it stands alone, with all that it holds."""
    if row.name == held.doc["MasterAccountId"]:
        raise Refused(
            "MasterCannotLeaveOrganizationException", "You can't remove a management account from an organization."
        )
    if row.status != "ACTIVE":
        raise constraint("A closed account stays where it is.", "ACCOUNT_CANNOT_LEAVE_ORGANIZATION")
    if tx.scan(DELEGATED, "", "", prefix=f"{row.name}/", limit=1):
        raise constraint(
            "You can't remove an account that is a delegated administrator. Deregister it first.",
            "CANNOT_REMOVE_DELEGATED_ADMINISTRATOR_FROM_ORG",
        )
    known = {"Email": row.doc["Email"], "Name": row.doc["Name"], "Untrusted": untrusted(tx, row.name)}
    detach_last(tx, row)
    child = tx.get(CHILD, "", "", f"{row.doc['parent']}/ACCOUNT/{row.name}")
    if child is not None:
        tx.delete(child, keep=False)
    tx.insert(Row(TAKEN, "", "", f"account/{row.name}", known), keep=False)
    a.touched.append(row.doc["Arn"])
    ACCOUNT.drop(a, tx, row)
    return {}


def _removed(a: Authorised, tx: Transaction, held: Row) -> Output:
    return _leave(a, tx, held, _account(tx, a.input["AccountId"]))


def leave(a: Authorised, tx: Transaction) -> Output:
    """The caller's own account leaves."""
    held = membership(a, tx)
    return _leave(a, tx, held, _account(tx, a.account))


def _close(a: Authorised, tx: Transaction, held: Row) -> Output:
    """From now on nobody in the account may do anything, and nobody anything to what it owns."""
    row = _account(tx, a.input["AccountId"])
    if row.name == held.doc["MasterAccountId"]:
        raise constraint("You can't close the management account.", "CANNOT_CLOSE_MANAGEMENT_ACCOUNT")
    if row.status != "ACTIVE":
        raise Refused("AccountAlreadyClosedException", "You attempted to close an account that is already closed.")
    row.status = "SUSPENDED"
    ACCOUNT.save(a, tx, row)
    return {}


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


def _statuses(a: Authorised, view: View, held: Row) -> Output:
    states = a.input.get("States") or ["SUCCEEDED", "FAILED", "IN_PROGRESS"]
    output = paged(a, view, REQUEST.key, "CreateAccountStatuses", lambda row: row.doc)
    # A page may hold fewer than were asked for, even none: AWS says so of its own lists, too.
    shown = [one for one in output["CreateAccountStatuses"] if one["State"] in states]
    return {**output, "CreateAccountStatuses": shown}


ACCOUNT.operation("CreateAccount", asks=ask("CreateAccount"))(in_management(_create))
REQUEST.reads("DescribeCreateAccountStatus", asks=ask("DescribeCreateAccountStatus"))(in_management(_status))
ACCOUNT.reads("ListAccounts", asks=ask("ListAccounts"))(in_management(_list))
ACCOUNT.reads("DescribeAccount", asks=ask("DescribeAccount", "AccountId"))(in_management(_describe))
ACCOUNT.reads("ListAccountsForParent", asks=ask("ListAccountsForParent", "ParentId"))(in_management(_below))
ACCOUNT.operation("MoveAccount", asks=ask("MoveAccount", "AccountId", "SourceParentId", "DestinationParentId"))(
    in_management(_move)
)
ACCOUNT.operation("CloseAccount", asks=ask("CloseAccount", "AccountId"))(in_management(_close))
ACCOUNT.operation("RemoveAccountFromOrganization", asks=ask("RemoveAccountFromOrganization", "AccountId"))(
    in_management(_removed)
)
ACCOUNT.operation("LeaveOrganization", asks=ask("LeaveOrganization"))(leave)
REQUEST.reads("ListCreateAccountStatus", asks=ask("ListCreateAccountStatus"))(in_management(_statuses))

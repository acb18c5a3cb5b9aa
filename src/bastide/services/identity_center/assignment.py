"""Assignments: who has which permission set where, and the roles that the permission sets become there.

A role is made by Identity Center itself, through IAM's own operations, inside the account; nobody else may change it. It
goes with the last assignment. Requests are worked off at once, so that their status is final when it is first told.
Source: IAM Identity Center User Guide, "How permission sets work"; IAM User Guide, "AWSReservedSSO" roles' path.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable
from typing import Any, Final

from bastide.domain import Refused, timed_id
from bastide.kernel import Ask, Asked, Authorised, Output, service_caller
from bastide.services.identity_center.instance import (
    PRINCIPAL,
    Instance,
    Noun,
    ask,
    denied,
    in_center,
    invalid,
    missing,
    paged,
    sliced,
)
from bastide.services.identity_center.permission_set import PLACE, PROVISIONED, arn_of, find, seconds
from bastide.store import Row, Taken, Transaction, View

ASSIGNMENT: Final = Noun("AccountAssignment", service="sso-admin", arn="assignment/{}", arn_service="sso")
"""Rows ``ACCOUNT/SET/TYPE/PRINCIPAL``."""
HELD: Final = "sso-admin:Held"
"""Rows ``PRINCIPAL/ACCOUNT/SET``: the same, to be walked from the principal."""
STATUS: Final = "sso-admin:Status"
"""Rows ``creation|deletion|provisioning/REQUEST``."""
ROLE_PATH: Final = "/aws-reserved/sso.amazonaws.com/"
_INLINE: Final = "AwsSSOInlinePolicy"
_TRUST: Final = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": PRINCIPAL},
                "Action": ["sts:AssumeRole", "sts:SetContext", "sts:TagSession"],
            }
        ],
    }
)
"""AWS has a SAML provider of its own here; the sessions come from Identity Center alone either way."""


# -- roles -------------------------------------------------------------------------------------------------------------


def _policy_arn(account: str, reference: dict[str, str]) -> str:
    return f"arn:aws:iam::{account}:policy{reference['Path']}{reference['Name']}"


def _boundary_arn(account: str, boundary: dict[str, Any]) -> str:
    if not boundary:
        return ""
    customer = boundary.get("CustomerManagedPolicyReference")
    return str(boundary["ManagedPolicyArn"]) if customer is None else _policy_arn(account, customer)


def _iam(a: Authorised, tx: Transaction, account: str) -> Callable[..., Output]:
    """IAM's operations in an account, called by Identity Center itself."""
    caller = service_caller(PRINCIPAL, account)

    def act(operation: str, **given: Any) -> Output:
        return a.calls.forward(a, tx, "iam", operation, given, PRINCIPAL, {}, caller=caller)

    return act


def _provision(a: Authorised, tx: Transaction, here: Instance, account: str, row: Row) -> None:
    """Makes the role what the permission set is now; raises Refused as IAM does."""
    iam = _iam(a, tx, account)
    doc = row.doc
    duration = seconds(doc["SessionDuration"])
    held = tx.get(PROVISIONED, "", "", f"{account}/{row.name}")
    if held is None:
        name = f"AWSReservedSSO_{doc['Name']}_{secrets.token_hex(8)}"
        role = iam(
            "CreateRole",
            RoleName=name,
            Path=ROLE_PATH,
            AssumeRolePolicyDocument=_TRUST,
            MaxSessionDuration=duration,
            Description=doc["Description"],
        )["Role"]
        known = {"role": name, "arn": role["Arn"], "version": doc["version"], "seconds": duration}
        tx.insert(Row(PROVISIONED, "", "", f"{account}/{row.name}", known), keep=False)
        tx.insert(Row(PLACE, "", "", f"{row.name}/{account}", {}), keep=False)
        inline, attached, boundary = {}, [], ""
    else:
        name = held.doc["role"]
        found = tx.get("iam:Role", account, "", name.lower())
        if found is None:
            raise missing(f"The role {name} is not there any more.")
        inline, attached, boundary = found.doc["inline"], list(found.doc["attached"]), found.doc["boundary"]
        iam("UpdateRole", RoleName=name, MaxSessionDuration=duration, Description=doc["Description"])
        held.doc |= {"version": doc["version"], "seconds": duration}
        tx.update(held, keep=False)
    # The boundary first: what is added must not hold for a moment without it.
    wanted = _boundary_arn(account, doc["boundary"])
    if wanted and wanted != boundary:
        iam("PutRolePermissionsBoundary", RoleName=name, PermissionsBoundary=wanted)
    policies = [*doc["managed"], *(_policy_arn(account, one) for one in doc["customer"])]
    for arn in attached:
        if arn not in policies:
            iam("DetachRolePolicy", RoleName=name, PolicyArn=arn)
    for arn in policies:
        if arn not in attached:
            iam("AttachRolePolicy", RoleName=name, PolicyArn=arn)
    if doc["inline"]:
        if inline.get(_INLINE) != doc["inline"]:
            iam("PutRolePolicy", RoleName=name, PolicyName=_INLINE, PolicyDocument=doc["inline"])
    elif _INLINE in inline:
        iam("DeleteRolePolicy", RoleName=name, PolicyName=_INLINE)
    if boundary and not wanted:
        iam("DeleteRolePermissionsBoundary", RoleName=name)


def _unprovision(a: Authorised, tx: Transaction, account: str, id: str) -> None:
    """Takes the role away; its sessions end with it."""
    iam = _iam(a, tx, account)
    held = tx.get(PROVISIONED, "", "", f"{account}/{id}")
    if held is None:
        return
    name = held.doc["role"]
    role = tx.get("iam:Role", account, "", name.lower())
    if role is not None:
        for arn in list(role.doc["attached"]):
            iam("DetachRolePolicy", RoleName=name, PolicyArn=arn)
        for policy in list(role.doc["inline"]):
            iam("DeleteRolePolicy", RoleName=name, PolicyName=policy)
        iam("DeleteRole", RoleName=name)
    tx.delete(held, keep=False)
    place = tx.get(PLACE, "", "", f"{id}/{account}")
    if place is not None:
        tx.delete(place, keep=False)


# -- requests and their status -----------------------------------------------------------------------------------------


def _settle(
    a: Authorised, tx: Transaction, kind: str, told: dict[str, Any], work: Callable[[], None]
) -> dict[str, Any]:
    """Does the work of a request and keeps how it ended; what failed half-way is undone."""
    status: dict[str, Any] = {"RequestId": timed_id(a.now), "CreatedDate": a.now, **told}
    try:
        with tx.savepoint():
            work()
        status["Status"] = "SUCCEEDED"
    except Refused as refused:
        status |= {"Status": "FAILED", "FailureReason": f"{refused.code}: {refused.message}"}
    tx.insert(Row(STATUS, "", "", f"{kind}/{status['RequestId']}", status, status["Status"]), keep=False)
    return status


def _status_of(kind: str, member: str, given: str) -> Callable[[Authorised, View, Instance], Output]:
    def describe(a: Authorised, view: View, here: Instance) -> Output:
        row = view.get(STATUS, "", "", f"{kind}/{a.input[given]}")
        if row is None:
            raise missing(f"Request {a.input[given]} not found.")
        return {member: row.doc}

    return describe


def _statuses(kind: str, member: str) -> Callable[[Authorised, View, Instance], Output]:
    def listed(a: Authorised, view: View, here: Instance) -> Output:
        wanted = (a.input.get("Filter") or {}).get("Status")
        return paged(
            a,
            view,
            STATUS,
            member,
            lambda row: {name: row.doc[name] for name in ("Status", "RequestId", "CreatedDate")},
            prefix=f"{kind}/",
            wanted=lambda row: wanted is None or row.doc["Status"] == wanted,
        )

    return listed


# -- assigning ---------------------------------------------------------------------------------------------------------


def _account(view: View, id: str) -> None:
    row = view.get("organizations:Account", "", "", id)
    if row is None or row.status != "ACTIVE":
        raise missing(f"Account {id} is not an active account of the organization.")


def _principal(view: View, type: str, id: str) -> None:
    if view.get("identitystore:User" if type == "USER" else "identitystore:Group", "", "", id) is None:
        raise missing(f"{type} {id} not found in the identity store.")


def _told(a: Authorised) -> dict[str, Any]:
    names = ("TargetId", "TargetType", "PermissionSetArn", "PrincipalType", "PrincipalId")
    return {name: a.input[name] for name in names}


def _name(a: Authorised, row: Row) -> str:
    return f"{a.input['TargetId']}/{row.name}/{a.input['PrincipalType']}/{a.input['PrincipalId']}"


def _create(a: Authorised, tx: Transaction, here: Instance) -> Output:
    row = find(tx, here, a.input["PermissionSetArn"])
    account, principal = a.input["TargetId"], a.input["PrincipalId"]
    _account(tx, account)
    if account == here.account != a.account:
        raise denied(a)  # a delegated administrator must not reach into the account that delegated
    _principal(tx, a.input["PrincipalType"], principal)

    def work() -> None:
        if tx.get(PROVISIONED, "", "", f"{account}/{row.name}") is None:
            _provision(a, tx, here, account, row)
        try:
            tx.insert(Row(ASSIGNMENT.key, "", "", _name(a, row), {}, created=a.now), event=a.operation.name)
        except Taken:
            return  # it is assigned: what was asked for holds
        tx.insert(Row(HELD, "", "", f"{principal}/{account}/{row.name}", {}), keep=False)

    return {"AccountAssignmentCreationStatus": _settle(a, tx, "creation", _told(a), work)}


def _delete(a: Authorised, tx: Transaction, here: Instance) -> Output:
    row = find(tx, here, a.input["PermissionSetArn"])
    account, principal = a.input["TargetId"], a.input["PrincipalId"]
    if account == here.account != a.account:
        raise denied(a)
    assigned = ASSIGNMENT.row(tx, _name(a, row))
    if assigned is None:
        raise missing("The account assignment does not exist.")

    def work() -> None:
        tx.delete(assigned, event=a.operation.name)
        held = tx.get(HELD, "", "", f"{principal}/{account}/{row.name}")
        if held is not None:
            tx.delete(held, keep=False)
        if not tx.scan(ASSIGNMENT.key, "", "", prefix=f"{account}/{row.name}/", limit=1):
            _unprovision(a, tx, account, row.name)

    return {"AccountAssignmentDeletionStatus": _settle(a, tx, "deletion", _told(a), work)}


def _list(a: Authorised, view: View, here: Instance) -> Output:
    row = find(view, here, a.input["PermissionSetArn"])
    account = a.input["AccountId"]

    def show(one: Row) -> Output:
        _, _, type, principal = one.name.split("/")
        return {
            "AccountId": account,
            "PermissionSetArn": a.input["PermissionSetArn"],
            "PrincipalType": type,
            "PrincipalId": principal,
        }

    return paged(a, view, ASSIGNMENT.key, "AccountAssignments", show, prefix=f"{account}/{row.name}/")


def groups_of(view: View, user: str) -> list[str]:
    """Ids of the groups that a user is in."""
    found: list[str] = []
    while True:
        after = f"{user}/{found[-1]}" if found else None
        rows = view.scan("identitystore:Member", "", "", prefix=f"{user}/", after=after, limit=500)
        found += [row.name.rpartition("/")[2] for row in rows]
        if len(rows) < 500:
            return found


def held_by(view: View, principal: str, account: str = "") -> list[tuple[str, str]]:
    """Account and permission set of a principal's own assignments, in order."""
    found: list[tuple[str, str]] = []
    prefix, after = f"{principal}/{account}", None
    while True:
        rows = view.scan(HELD, "", "", prefix=prefix, after=after, limit=500)
        for row in rows:
            after = row.name
            _, where, id = row.name.split("/")
            found.append((where, id))
        if len(rows) < 500:
            return found


def _for_principal(a: Authorised, view: View, here: Instance) -> Output:
    """A user's also through groups, as AWS lists them."""
    type, principal = a.input["PrincipalType"], a.input["PrincipalId"]
    _principal(view, type, principal)
    account = (a.input.get("Filter") or {}).get("AccountId") or ""
    whole = [(type, principal)]
    if type == "USER":
        whole += [("GROUP", group) for group in groups_of(view, principal)]
    found = [
        {
            "AccountId": where,
            "PermissionSetArn": arn_of(here, id),
            "PrincipalType": kind,
            "PrincipalId": one,
        }
        for kind, one in whole
        for where, id in held_by(view, one, account)
    ]
    return sliced(a, "AccountAssignments", found)


ASSIGNMENT.operation("CreateAccountAssignment", asks=ask("CreateAccountAssignment", "account", "instance", "set"))(
    in_center(_create)
)
ASSIGNMENT.operation("DeleteAccountAssignment", asks=ask("DeleteAccountAssignment", "account", "instance", "set"))(
    in_center(_delete)
)
ASSIGNMENT.reads("ListAccountAssignments", asks=ask("ListAccountAssignments", "account", "instance", "set"))(
    in_center(_list)
)
ASSIGNMENT.reads("ListAccountAssignmentsForPrincipal", asks=ask("ListAccountAssignmentsForPrincipal"))(
    in_center(_for_principal)
)
for _verb, _kind in (("Creation", "creation"), ("Deletion", "deletion")):
    _operation = f"DescribeAccountAssignment{_verb}Status"
    ASSIGNMENT.reads(_operation, asks=ask(_operation))(
        in_center(_status_of(_kind, f"AccountAssignment{_verb}Status", f"AccountAssignment{_verb}RequestId"))
    )
    _operation = f"ListAccountAssignment{_verb}Status"
    ASSIGNMENT.reads(_operation, asks=ask(_operation))(in_center(_statuses(_kind, f"AccountAssignments{_verb}Status")))


# -- provisioning ------------------------------------------------------------------------------------------------------


def _places(view: View, id: str) -> list[str]:
    found: list[str] = []
    while True:
        after = f"{id}/{found[-1]}" if found else None
        rows = view.scan(PLACE, "", "", prefix=f"{id}/", after=after, limit=500)
        found += [row.name.rpartition("/")[2] for row in rows]
        if len(rows) < 500:
            return found


def _provision_set(a: Authorised, tx: Transaction, here: Instance) -> Output:
    row = find(tx, here, a.input["PermissionSetArn"])
    told: dict[str, Any] = {"PermissionSetArn": a.input["PermissionSetArn"]}
    if a.input["TargetType"] == "AWS_ACCOUNT":
        account = a.input.get("TargetId")
        if not account:
            raise invalid("TargetId is required when TargetType is AWS_ACCOUNT.")
        if tx.get(PROVISIONED, "", "", f"{account}/{row.name}") is None:
            raise missing(f"The permission set is not provisioned to account {account}.")
        accounts, told = [account], {**told, "AccountId": account}
    else:
        accounts = _places(tx, row.name)

    def work() -> None:
        for account in accounts:
            _provision(a, tx, here, account, row)

    return {"PermissionSetProvisioningStatus": _settle(a, tx, "provisioning", told, work)}


def _target(asked: Asked) -> Iterable[str]:
    return (f"arn:aws:sso:::account/{asked.input.get('TargetId') or '*'}",)


ASSIGNMENT.operation(
    "ProvisionPermissionSet",
    asks=[Ask("sso:ProvisionPermissionSet", _target), *ask("ProvisionPermissionSet", "instance", "set")],
)(in_center(_provision_set))
ASSIGNMENT.reads("DescribePermissionSetProvisioningStatus", asks=ask("DescribePermissionSetProvisioningStatus"))(
    in_center(_status_of("provisioning", "PermissionSetProvisioningStatus", "ProvisionPermissionSetRequestId"))
)
ASSIGNMENT.reads("ListPermissionSetProvisioningStatus", asks=ask("ListPermissionSetProvisioningStatus"))(
    in_center(_statuses("provisioning", "PermissionSetsProvisioningStatus"))
)


def _wanted(a: Authorised, view: View) -> Callable[[str, str], bool]:
    """Whether the role of a set in an account is as the call's ProvisioningStatus wants it."""
    status = a.input.get("ProvisioningStatus")

    def wanted(account: str, id: str) -> bool:
        if status is None:
            return True
        held = view.get(PROVISIONED, "", "", f"{account}/{id}")
        row = view.get("sso-admin:PermissionSet", "", "", id)
        latest = held is not None and row is not None and held.doc["version"] == row.doc["version"]
        return bool(latest) is (status == "LATEST_PERMISSION_SET_PROVISIONED")

    return wanted


def _sets_of_account(a: Authorised, view: View, here: Instance) -> Output:
    account, wanted = a.input["AccountId"], _wanted(a, view)
    return paged(
        a,
        view,
        PROVISIONED,
        "PermissionSets",
        lambda row: arn_of(here, row.name.rpartition("/")[2]),
        prefix=f"{account}/",
        wanted=lambda row: wanted(account, row.name.rpartition("/")[2]),
    )


def _accounts_of_set(a: Authorised, view: View, here: Instance) -> Output:
    id, wanted = find(view, here, a.input["PermissionSetArn"]).name, _wanted(a, view)
    return paged(
        a,
        view,
        PLACE,
        "AccountIds",
        lambda row: row.name.rpartition("/")[2],
        prefix=f"{id}/",
        wanted=lambda row: wanted(row.name.rpartition("/")[2], id),
    )


ASSIGNMENT.reads(
    "ListPermissionSetsProvisionedToAccount", asks=ask("ListPermissionSetsProvisionedToAccount", "account", "instance")
)(in_center(_sets_of_account))
ASSIGNMENT.reads(
    "ListAccountsForProvisionedPermissionSet",
    asks=ask("ListAccountsForProvisionedPermissionSet", "instance", "set"),
)(in_center(_accounts_of_set))

"""The organisation itself and its root."""

from __future__ import annotations

from typing import Any

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, anything
from bastide.kernel.kind import each
from bastide.services.organizations.attachment import attach_everywhere, detach_everywhere
from bastide.services.organizations.delegation import in_management
from bastide.services.organizations.noun import (
    ACCOUNT,
    CHILD,
    ORGANIZATION,
    ROOT,
    SCP,
    TYPES,
    address,
    ask,
    denied,
    invalid,
    membership,
    organisation,
    random_id,
    root,
    sliced,
)
from bastide.store import Row, Transaction, View

_SERVICE_LINKED = "arn:aws:iam::{}:role/aws-service-role/organizations.amazonaws.com/AWSServiceRoleForOrganizations"


_MEMBERS = ("Id", "Arn", "FeatureSet", "MasterAccountArn", "MasterAccountId", "MasterAccountEmail")


def _shown(row: Row) -> Output:
    found = {name: row.doc[name] for name in _MEMBERS}
    return {**found, "AvailablePolicyTypes": [{"Type": SCP, "Status": "ENABLED"}]}


def _linked(asked: Asked) -> tuple[str]:
    return (_SERVICE_LINKED.format(asked.call.account),)


@ORGANIZATION.operation(
    "CreateOrganization",
    asks=[
        Ask("organizations:CreateOrganization", anything),
        Ask(
            "iam:CreateServiceLinkedRole",
            _linked,
            given={"iam:AWSServiceName": lambda _: "organizations.amazonaws.com"},
        ),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    if a.account != a.calls.home:
        raise denied()
    if organisation(tx) is not None:
        raise Refused("AlreadyInOrganizationException", "The AWS account is already a member of an organization.")
    if (a.input.get("FeatureSet") or "ALL") != "ALL":
        raise invalid("Organizations without all features are not supported by Bastide.", "INVALID_ENUM")
    id = random_id("o-", 10)
    email = f"management@{a.account}.bastide.internal"
    master = f"arn:aws:organizations::{a.account}:account/{id}/{a.account}"
    held = ORGANIZATION.put(
        a,
        tx,
        id,
        {
            "Id": id,
            "Arn": f"arn:aws:organizations::{a.account}:organization/{id}",
            "FeatureSet": "ALL",
            "MasterAccountArn": master,
            "MasterAccountId": a.account,
            "MasterAccountEmail": email,
        },
        {},
    )
    top = random_id("r-", 4)
    ROOT.put(a, tx, top, {"Id": top, "Arn": address(held, top), "Name": "Root", "PolicyTypes": [], "policies": {}}, {})
    ACCOUNT.put(
        a,
        tx,
        a.account,
        {
            "Id": a.account,
            "Arn": master,
            "Email": email,
            "Name": "management",
            "JoinedMethod": "INVITED",
            "JoinedTimestamp": a.now,
            "parent": top,
            "policies": {},
        },
        {},
        "ACTIVE",
    )
    tx.insert(Row(CHILD, "", "", f"{top}/ACCOUNT/{a.account}", {}), keep=False)
    return {"Organization": _shown(held)}


@ORGANIZATION.reads("DescribeOrganization", asks=[Ask("organizations:DescribeOrganization", anything)])
def describe(a: Authorised, view: View) -> Output:
    return {"Organization": _shown(membership(a, view))}


# -- the root ----------------------------------------------------------------------------------------------------------


def _root_shown(row: Row) -> Output:
    return {name: row.doc[name] for name in ("Id", "Arn", "Name", "PolicyTypes")}


def _roots(a: Authorised, view: View, held: Row) -> Output:
    top = root(view)
    return sliced(a, "Roots", [] if top is None else [_root_shown(top)])


ROOT.reads("ListRoots", asks=ask("ListRoots"))(in_management(_roots))


def _fresh(a: Authorised, tx: Transaction) -> Row:
    if a.input["PolicyType"] not in TYPES:
        raise Refused(
            "PolicyTypeNotAvailableForOrganizationException",
            "Policies of this type are not supported by Bastide yet.",
        )
    row = ROOT.row(tx, a.input["RootId"])
    if row is None:
        raise Refused("RootNotFoundException", "You specified a root that doesn't exist.")
    return row


def _types(row: Row) -> list[str]:
    return [one["Type"] for one in row.doc["PolicyTypes"]]


def _enable(a: Authorised, tx: Transaction, held: Row) -> Output:
    row, type = _fresh(a, tx), a.input["PolicyType"]
    if type in _types(row):
        raise Refused("PolicyTypeAlreadyEnabledException", "The specified policy type is already enabled.")
    row.doc["PolicyTypes"].append({"Type": type, "Status": "ENABLED"})
    ROOT.save(a, tx, row)
    attach_everywhere(a, tx, type)
    return {"Root": _root_shown(row)}


def _disable(a: Authorised, tx: Transaction, held: Row) -> Output:
    row, type = _fresh(a, tx), a.input["PolicyType"]
    if type not in _types(row):
        raise Refused("PolicyTypeNotEnabledException", "This operation can be performed only for enabled policy types.")
    row.doc["PolicyTypes"] = [one for one in row.doc["PolicyTypes"] if one["Type"] != type]
    ROOT.save(a, tx, row)
    detach_everywhere(a, tx, type)
    return {"Root": _root_shown(row)}


_type: dict[str, Any] = {"organizations__PolicyType": each("PolicyType")}
ROOT.operation("EnablePolicyType", asks=ask("EnablePolicyType", "RootId", **_type))(in_management(_enable))
ROOT.operation("DisablePolicyType", asks=ask("DisablePolicyType", "RootId", **_type))(in_management(_disable))

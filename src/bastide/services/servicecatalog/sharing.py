"""Portfolios shared with accounts, which accept them, and with an organisation or its parts, which accept for them.

Source: Service Catalog API Reference, "CreatePortfolioShare", "AcceptPortfolioShare"; Administrator Guide, "Sharing a
Portfolio".
"""

from __future__ import annotations

import re
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Authorised, Output, anything
from bastide.services.servicecatalog.noun import (
    CONTAINS,
    MOST,
    PORTFOLIO,
    PRINCIPAL,
    absent,
    ask,
    drop,
    invalid,
    keep,
    named,
    new,
    sliced,
)
from bastide.services.servicecatalog.paths import OFFER, SHARE, TO_NODE, TRUSTED, imported, own
from bastide.services.servicecatalog.portfolio import shown
from bastide.store import Row, Transaction, View

ASKED: Final = "servicecatalog:ShareAsked"
"""By the token that a share with a node is asked after by."""
_DELEGATED: Final = "organizations:DelegatedAdministrator"
_ACCOUNT: Final = "organizations:Account"
_UNIT: Final = "organizations:OrganizationalUnit"
_ID: Final = re.compile(r"\d{12}")
_NODE: Final = {
    "ORGANIZATION": re.compile(r"o-[a-z0-9]{10,32}"),
    "ORGANIZATIONAL_UNIT": re.compile(r"ou-[a-z0-9]{4,32}-[a-z0-9]{8,32}"),
    "ACCOUNT": _ID,
}
_TYPES: Final = {"ACCOUNT": "ORGANIZATION_MEMBER_ACCOUNT"}
"""A member account that is named as a node, among the kinds of shares."""


def _trusted(view: View) -> bool:
    return view.get(TRUSTED, "", "", PRINCIPAL) is not None


def _whom(a: Authorised, view: View) -> tuple[str, str, bool]:
    """Kind, id, and whether it is a node of the organisation; raises Refused."""
    account, node = a.input.get("AccountId"), a.input.get("OrganizationNode")
    if bool(account) == bool(node):
        raise invalid("Please give either AccountId or OrganizationNode.")
    if account:
        if not _ID.fullmatch(account) or account == a.account:
            raise invalid("AccountId is the id of another account.")
        return "ACCOUNT", account, False
    assert node is not None
    type, value = node.get("Type"), str(node.get("Value") or "")
    if type not in _NODE or not _NODE[type].fullmatch(value):
        raise invalid("OrganizationNode names an organisation (o-...), a unit of it (ou-...) or an account.")
    delegate = view.get(_DELEGATED, "", "", f"{a.account}/{PRINCIPAL}") is not None
    if a.account != a.calls.home and not delegate:
        raise Refused(
            "OperationNotSupportedException",
            "Only the management account and delegated administrators share with nodes of the organisation.",
        )
    if not _trusted(view):
        raise Refused(
            "InvalidStateException", "Sharing with the organisation is off; EnableAWSOrganizationsAccess turns it on."
        )
    place = a.calls.organisation.place(view, a.account)
    known = {
        "ORGANIZATION": lambda: place is not None and place[0] == value,
        "ORGANIZATIONAL_UNIT": lambda: view.get(_UNIT, "", "", value) is not None,
        "ACCOUNT": lambda: view.get(_ACCOUNT, "", "", value) is not None,
    }
    if not known[type]():
        raise absent("Organization node", value)
    return _TYPES.get(type, type), value, True


def _told(a: Authorised, tx: Transaction, portfolio: str, value: str) -> str:
    token = f"share-{new('t')[2:]}"
    tx.insert(Row(ASKED, a.account, a.region, token, {"portfolio": portfolio, "value": value}), keep=False)
    return token


@PORTFOLIO.operation("CreatePortfolioShare", asks=ask("CreatePortfolioShare", named(PORTFOLIO, "PortfolioId")))
def create(a: Authorised, tx: Transaction) -> Output:
    row = own(a, tx, a.input["PortfolioId"])
    type, value, node = _whom(a, tx)
    if any(one.doc["source"] for one in tx.scan(CONTAINS, a.account, a.region, prefix=f"{row.name}/", limit=MOST * 5)):
        raise invalid("The portfolio has products that were shared with this account; they cannot be shared on.")
    doc: dict[str, Any] = {
        "type": type, "value": value, "options": bool(a.input.get("ShareTagOptions")),
        "principals": bool(a.input.get("SharePrincipals")),
    }  # fmt: skip
    keep(a, tx, SHARE, f"{row.name}/{type}/{value}", doc)
    if node:
        keep_node(a, tx, f"{value}/{row.name}", {"owner": a.account, "type": type})
        return {"PortfolioShareToken": _told(a, tx, row.name, value)}
    keep(a, tx, OFFER, row.name, {"owner": a.account, "accepted": False}, account=value)
    return {}


def keep_node(a: Authorised, tx: Transaction, name: str, doc: dict[str, Any]) -> None:
    """Notes that a node has a portfolio."""
    if tx.get(TO_NODE, "", a.region, name) is None:
        tx.insert(Row(TO_NODE, "", a.region, name, doc), keep=False)


def _share(a: Authorised, view: View) -> Row:
    row = own(a, view, a.input["PortfolioId"])
    type, value, _ = _whom(a, view)
    found = view.get(SHARE, a.account, a.region, f"{row.name}/{type}/{value}")
    if found is None:
        raise absent("Share", f"of {row.name} with {value}")
    return found


@PORTFOLIO.operation("UpdatePortfolioShare", asks=ask("UpdatePortfolioShare", named(PORTFOLIO, "PortfolioId")))
def update(a: Authorised, tx: Transaction) -> Output:
    found = _share(a, tx)
    for member, key in (("ShareTagOptions", "options"), ("SharePrincipals", "principals")):
        if a.input.get(member) is not None:
            found.doc[key] = a.input[member]
    tx.update(found, event=a.operation.name, request_id=a.request.id)
    return {
        "PortfolioShareToken": _told(a, tx, a.input["PortfolioId"], found.doc["value"]), "Status": "COMPLETED",
    }  # fmt: skip


@PORTFOLIO.operation("DeletePortfolioShare", asks=ask("DeletePortfolioShare", named(PORTFOLIO, "PortfolioId")))
def delete(a: Authorised, tx: Transaction) -> Output:
    found = _share(a, tx)
    portfolio, type, value = found.name.split("/")
    drop(a, tx, found)
    if type == "ACCOUNT":
        offer = tx.get(OFFER, value, a.region, portfolio)
        if offer is not None:
            drop(a, tx, offer)
        return {}
    beside = tx.get(TO_NODE, "", a.region, f"{value}/{portfolio}")
    if beside is not None:
        tx.delete(beside, keep=False)
    return {"PortfolioShareToken": _told(a, tx, portfolio, value)}


# -- the other side ----------------------------------------------------------------------------------------------------


def _offer(a: Authorised, view: View) -> Row:
    type = a.input.get("PortfolioShareType")
    if type == "AWS_SERVICECATALOG":
        raise invalid("PortfolioShareType: there are no portfolios of AWS here.")
    found = view.get(OFFER, a.account, a.region, a.input["PortfolioId"])
    if found is None or type == "AWS_ORGANIZATIONS":
        raise absent("Share", f"of {a.input['PortfolioId']} with this account")
    return found


@PORTFOLIO.operation("AcceptPortfolioShare", asks=ask("AcceptPortfolioShare", named(PORTFOLIO, "PortfolioId")))
def accept(a: Authorised, tx: Transaction) -> Output:
    found = imported(a.calls, tx, a.account, a.region).get(a.input["PortfolioId"])
    if found is not None and found.how == "AWS_ORGANIZATIONS":
        return {}  # the organisation has accepted it
    offer = _offer(a, tx)
    offer.doc["accepted"] = True
    tx.update(offer, event=a.operation.name, request_id=a.request.id)
    return {}


@PORTFOLIO.operation("RejectPortfolioShare", asks=ask("RejectPortfolioShare", named(PORTFOLIO, "PortfolioId")))
def reject(a: Authorised, tx: Transaction) -> Output:
    offer = _offer(a, tx)
    offer.doc["accepted"] = False
    tx.update(offer, event=a.operation.name, request_id=a.request.id)
    return {}


@PORTFOLIO.reads("ListAcceptedPortfolioShares", asks=ask("ListAcceptedPortfolioShares", anything))
def accepted(a: Authorised, view: View) -> Output:
    wanted = a.input.get("PortfolioShareType") or "IMPORTED"
    there = imported(a.calls, view, a.account, a.region).values()
    rows = [PORTFOLIO.get(view, one.owner, a.region, one.portfolio) for one in there if one.how == wanted]
    return sliced(a, "PortfolioDetails", [(row.name, shown(row)) for row in rows if row is not None])


# -- what is shared ----------------------------------------------------------------------------------------------------


def _rows(a: Authorised, view: View) -> list[Row]:
    row = own(a, view, a.input["PortfolioId"])
    return view.scan(SHARE, a.account, a.region, prefix=f"{row.name}/", limit=1000)


@PORTFOLIO.reads("ListPortfolioAccess", asks=ask("ListPortfolioAccess", named(PORTFOLIO, "PortfolioId")))
def access(a: Authorised, view: View) -> Output:
    if a.input.get("OrganizationParentId"):
        raise invalid(
            "OrganizationParentId is not supported by Bastide yet; ListOrganizationPortfolioAccess tells nodes."
        )
    found = [(one.name, one.doc["value"]) for one in _rows(a, view) if one.doc["type"] == "ACCOUNT"]
    return sliced(a, "AccountIds", found)


@PORTFOLIO.reads("ListOrganizationPortfolioAccess", asks=ask("ListOrganizationPortfolioAccess", anything))
def node_access(a: Authorised, view: View) -> Output:
    type = a.input["OrganizationNodeType"]
    wanted = _TYPES.get(type, type)
    found = [
        (one.name, {"Type": type, "Value": one.doc["value"]}) for one in _rows(a, view) if one.doc["type"] == wanted
    ]
    return sliced(a, "OrganizationNodes", found)


@PORTFOLIO.reads("DescribePortfolioShares", asks=ask("DescribePortfolioShares", named(PORTFOLIO, "PortfolioId")))
def shares(a: Authorised, view: View) -> Output:
    found = []
    for one in _rows(a, view):
        doc = one.doc
        if doc["type"] != a.input["Type"]:
            continue
        offer = view.get(OFFER, doc["value"], a.region, a.input["PortfolioId"]) if doc["type"] == "ACCOUNT" else None
        told = {
            "PrincipalId": doc["value"], "Type": doc["type"], "ShareTagOptions": doc["options"],
            "SharePrincipals": doc["principals"],
            "Accepted": doc["type"] != "ACCOUNT" or (offer is not None and offer.doc["accepted"]),
        }  # fmt: skip
        found.append((one.name, told))
    return sliced(a, "PortfolioShareDetails", found)


@PORTFOLIO.reads("DescribePortfolioShareStatus", asks=ask("DescribePortfolioShareStatus", anything))
def status(a: Authorised, view: View) -> Output:
    token = a.input["PortfolioShareToken"]
    found = view.get(ASKED, a.account, a.region, token)
    if found is None:
        raise absent("Portfolio share token", token)
    return {
        "PortfolioShareToken": token, "PortfolioId": found.doc["portfolio"],
        "OrganizationNodeValue": found.doc["value"], "Status": "COMPLETED", "ShareDetails": {"SuccessfulShares": []},
    }  # fmt: skip


# -- the organisation --------------------------------------------------------------------------------------------------


@PORTFOLIO.operation("EnableAWSOrganizationsAccess", asks=ask("EnableAWSOrganizationsAccess", anything))
def enable(a: Authorised, tx: Transaction) -> Output:
    a.forward(tx, "organizations", "EnableAWSServiceAccess", {"ServicePrincipal": PRINCIPAL}, PRINCIPAL)
    return {}


@PORTFOLIO.operation("DisableAWSOrganizationsAccess", asks=ask("DisableAWSOrganizationsAccess", anything))
def disable(a: Authorised, tx: Transaction) -> Output:
    a.forward(tx, "organizations", "DisableAWSServiceAccess", {"ServicePrincipal": PRINCIPAL}, PRINCIPAL)
    return {}


@PORTFOLIO.reads("GetAWSOrganizationsAccessStatus", asks=ask("GetAWSOrganizationsAccessStatus", anything))
def organisation_access(a: Authorised, view: View) -> Output:
    return {"AccessStatus": "ENABLED" if _trusted(view) else "DISABLED"}

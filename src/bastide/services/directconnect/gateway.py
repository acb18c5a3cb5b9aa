"""Direct Connect gateways: what lies between virtual interfaces and the gateways of VPCs, in all regions."""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Iterable
from typing import Final

from bastide.engines.network import Transit, Vpc
from bastide.kernel import Ask, Asked, Authorised, Output, anything
from bastide.kernel.circuits import Gateways, lead, unlead
from bastide.services.directconnect.noun import (
    GATEWAY,
    INTERFACE,
    any_or,
    interfaces,
    located,
    paged,
    settling,
    tags_of,
    tags_shown,
    wrong,
)
from bastide.store import Row, Transaction, View

_ASN: Final = 64512


def _shown(row: Row) -> Output:
    return {
        "directConnectGatewayId": row.name,
        "directConnectGatewayName": row.doc["Name"],
        "amazonSideAsn": row.doc["Asn"],
        "ownerAccount": row.account,
        "directConnectGatewayState": "available",
        "tags": tags_shown(row),
    }


@GATEWAY.operation("CreateDirectConnectGateway", asks=[Ask("directconnect:CreateDirectConnectGateway", anything)])
def create(a: Authorised, tx: Transaction) -> Output:
    doc = {
        "Name": a.input["directConnectGatewayName"], "Asn": a.input.get("amazonSideAsn") or _ASN, "Associations": {},
    }  # fmt: skip
    row = GATEWAY.create(a, tx, str(uuid.uuid4()), doc, tags=tags_of(a.input))
    return {"directConnectGateway": _shown(row)}


@GATEWAY.reads(
    "DescribeDirectConnectGateways", asks=[Ask("directconnect:DescribeDirectConnectGateways", any_or(GATEWAY))]
)
def describe(a: Authorised, view: View) -> Output:
    if a.input.get("directConnectGatewayId"):
        return {"directConnectGateways": [_shown(GATEWAY.named(a, view))]}
    return paged(a, view, GATEWAY, "directConnectGateways", _shown)


@GATEWAY.operation("DeleteDirectConnectGateway", asks=[Ask("directconnect:DeleteDirectConnectGateway", GATEWAY.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = GATEWAY.named(a, tx)
    if row.doc["Associations"] or interfaces(tx, row.name):
        raise wrong(f"{row.name} has associations or virtual interfaces; delete them first.")
    told = {**_shown(row), "directConnectGatewayState": "deleting"}
    GATEWAY.remove(tx, row, a.operation.name, a.request.id)
    return {"directConnectGateway": told}


# -- associations ------------------------------------------------------------------------------------------------------


def _association(row: Row, id: str, state: str = "associated") -> Output:
    one = row.doc["Associations"][id]
    virtual = one["Type"] == "virtualPrivateGateway"
    return {
        "associationId": one["Id"],
        "associationState": state,
        "directConnectGatewayId": row.name,
        "directConnectGatewayOwnerAccount": row.account,
        "associatedGateway": {"id": id, "type": one["Type"], "ownerAccount": row.account, "region": one["Region"]},
        "allowedPrefixesToDirectConnectGateway": [{"cidr": cidr} for cidr in one["Prefixes"]],
        **({"virtualGatewayId": id, "virtualGatewayRegion": one["Region"]} if virtual else {}),
    }


def _named(a: Authorised) -> str:
    return str(a.input.get("gatewayId") or a.input.get("virtualGatewayId") or "")


def _prefixes(a: Authorised) -> list[str]:
    found = []
    for one in a.input.get("addAllowedPrefixesToDirectConnectGateway") or ():
        text = str(one.get("cidr") or "")
        try:
            found.append(str(ipaddress.IPv4Network(text)))
        except ValueError:
            raise wrong(f"{text[:64]} is no IPv4 network.") from None
    return sorted(set(found))


@GATEWAY.operation(
    "CreateDirectConnectGatewayAssociation",
    asks=[Ask("directconnect:CreateDirectConnectGatewayAssociation", GATEWAY.this)],
    **settling(lambda a, view: a.engine(Gateways).concerned(view, a.region, _named(a))),
)
def associate(a: Authorised, tx: Transaction) -> Output:
    row, id = GATEWAY.named(a, tx), _named(a)
    kind = a.engine(Gateways).kind(a, tx, id)
    prefixes = _prefixes(a)
    if kind == "transitGateway" and not prefixes:
        raise wrong("An association with a transit gateway needs addAllowedPrefixesToDirectConnectGateway.")
    if id in row.doc["Associations"]:
        raise wrong(f"{row.name} is associated with {id} already.")
    types = {one["Type"] for one in row.doc["Associations"].values()}
    types |= {
        "transitGateway" if one.doc["Type"] == "transit" else "virtualPrivateGateway"
        for one in interfaces(tx, row.name)
    }
    if types - {kind}:
        raise wrong(f"{row.name} is used for interfaces and gateways of the other kind.")
    held = {"Id": str(uuid.uuid4()), "Type": kind, "Region": a.region, "Prefixes": prefixes}
    row.doc["Associations"] = {**row.doc["Associations"], id: held}
    GATEWAY.change(tx, row, a.operation.name, a.request.id)
    lead(tx, id, row.name, {"Account": row.account, "Prefixes": prefixes})
    a.engine(Gateways).attach(a, tx, id, row.name)
    return {"directConnectGatewayAssociation": _association(row, id, "associating")}


def _of_association(a: Authorised, view: View) -> tuple[Row | None, str]:
    """The gateway and the id of the one that it is associated with, as a call names both."""
    wanted, other = a.input.get("associationId"), str(a.input.get("virtualGatewayId") or "")
    if a.input.get("directConnectGatewayId"):
        rows: Iterable[Row | None] = [GATEWAY.get(view, a.account, "", str(a.input["directConnectGatewayId"]))]
    else:
        rows = view.scan(GATEWAY.key, a.account, "", limit=500)
    for row in rows:
        for id, one in row.doc["Associations"].items() if row is not None else ():
            if one["Id"] == wanted or (not wanted and id == other):
                return row, id
    return None, ""


def _asked(asked: Asked) -> Iterable[str]:
    call = asked.call
    if call.input.get("directConnectGatewayId"):
        return GATEWAY.this(asked)
    wanted = call.input.get("associationId")
    for row in asked.view.scan(GATEWAY.key, call.account, "", limit=500):
        if any(one["Id"] == wanted for one in row.doc["Associations"].values()):
            return (GATEWAY.arn(call.account, "", row.name),)
    return ("*",)


def _concerned(a: Authorised, view: View) -> Iterable[Vpc | Transit]:
    row, id = _of_association(a, view)
    return [] if row is None else a.engine(Gateways).concerned(view, row.doc["Associations"][id]["Region"], id)


@GATEWAY.operation(
    "DeleteDirectConnectGatewayAssociation",
    asks=[Ask("directconnect:DeleteDirectConnectGatewayAssociation", _asked)],
    **settling(_concerned),
)
def dissociate(a: Authorised, tx: Transaction) -> Output:
    row, id = _of_association(a, tx)
    if row is None:
        raise wrong("There is no such association.")
    if (region := row.doc["Associations"][id]["Region"]) != a.region:
        raise wrong(f"{id} is in {region}; ask there.")
    told = _association(row, id, "disassociating")
    row.doc["Associations"] = {key: one for key, one in row.doc["Associations"].items() if key != id}
    GATEWAY.change(tx, row, a.operation.name, a.request.id)
    unlead(tx, id, row.name)
    a.engine(Gateways).detach(a, tx, id, row.name)
    return {"directConnectGatewayAssociation": told}


@GATEWAY.reads(
    "DescribeDirectConnectGatewayAssociations",
    asks=[Ask("directconnect:DescribeDirectConnectGatewayAssociations", any_or(GATEWAY))],
)
def associations(a: Authorised, view: View) -> Output:
    other = str(a.input.get("associatedGatewayId") or a.input.get("virtualGatewayId") or "")
    rows = view.scan(GATEWAY.key, a.account, "", limit=500)
    found = [
        _association(row, id)
        for row in rows
        if a.input.get("directConnectGatewayId") in (None, "", row.name)
        for id, one in row.doc["Associations"].items()
        if other in ("", id) and a.input.get("associationId") in (None, "", one["Id"])
    ]
    return {"directConnectGatewayAssociations": found}


# -- tags --------------------------------------------------------------------------------------------------------------


def _tagged(asked: Asked) -> Iterable[str]:
    given = asked.input.get("resourceArns") or [asked.input.get("resourceArn")]
    return [str(one) for one in given if one] or ("*",)


@INTERFACE.operation("TagResource", asks=[Ask("directconnect:TagResource", _tagged)])
def tag(a: Authorised, tx: Transaction) -> Output:
    kind, row = located(a, tx, str(a.input["resourceArn"]))
    row.tags = tags_of(a.input, row.tags)
    kind.change(tx, row, a.operation.name, a.request.id)
    return {}


@INTERFACE.operation("UntagResource", asks=[Ask("directconnect:UntagResource", _tagged)])
def untag(a: Authorised, tx: Transaction) -> Output:
    kind, row = located(a, tx, str(a.input["resourceArn"]))
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["tagKeys"]}
    kind.change(tx, row, a.operation.name, a.request.id)
    return {}


@INTERFACE.reads("DescribeTags", asks=[Ask("directconnect:DescribeTags", _tagged)])
def tags(a: Authorised, view: View) -> Output:
    arns = [str(one) for one in a.input["resourceArns"]]
    return {"resourceTags": [{"resourceArn": one, "tags": tags_shown(located(a, view, one)[1])} for one in arns]}

"""Attachments of transit gateways: VPCs of any account that the gateway is shared with. VPN connections make their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.engines.network import Transit, Vpc
from bastide.kernel import Authorised, Output
from bastide.services.ec2 import noun
from bastide.services.ec2.noun import ask, creating, invalid, sliced
from bastide.services.ec2.nouns import SUBNET, TRANSIT_ATTACHMENT, VPC
from bastide.services.ec2.transit_noun import (
    ALIVE,
    ATTACHED,
    attachments,
    belongs,
    concerned,
    gateway,
    gateway_arn,
    gone,
    owned_attachment,
    seen_attachment,
    seen_gateway,
    transit,
    visible,
)
from bastide.store import Row, Transaction, View

PENDING: Final = "pendingAcceptance"
_OPTIONS: Final = {
    "DnsSupport": "enable", "SecurityGroupReferencingSupport": "disable", "Ipv6Support": "disable",
    "ApplianceModeSupport": "disable",
}  # fmt: skip
_LACKING: Final = ("SecurityGroupReferencingSupport", "Ipv6Support", "ApplianceModeSupport")


def new_attachment(
    a: Authorised, tx: Transaction, tgw: Row, kind: str, resource: str, doc: dict[str, Any], inside: Iterable[str]
) -> Row:
    """An attachment, in force at once where the gateway's owner made it or takes all."""
    accepted = tgw.account == a.account or tgw.doc["Options"]["AutoAcceptSharedAttachments"] == "enable"
    row = TRANSIT_ATTACHMENT.put(
        a,
        tx,
        TRANSIT_ATTACHMENT.new_id(),
        {
            "Tgw": tgw.name, "TgwOwner": tgw.account, "Type": kind, "Resource": resource, "Table": "", "Propagates": [],
            **doc,
        },
        inside,
        None if kind == "vpc" else {},
    )  # fmt: skip
    belongs(tx, row)
    tx.insert(Row(ATTACHED, "", a.region, f"{tgw.name}/{row.name}", {}), keep=False)
    row.status = PENDING
    if accepted:
        accept_row(tgw, row)
    TRANSIT_ATTACHMENT.save(a, tx, row)
    return row


def accept_row(tgw: Row, row: Row) -> None:
    """Has an attachment be in force, with the gateway's defaults."""
    row.status = ALIVE
    if tgw.doc["Options"]["DefaultRouteTableAssociation"] == "enable":
        row.doc["Table"] = tgw.doc["Table"]
    if tgw.doc["Options"]["DefaultRouteTablePropagation"] == "enable":
        row.doc["Propagates"] = [tgw.doc["Table"]]


def drop_attachment(a: Authorised, tx: Transaction, row: Row) -> None:
    """Takes an attachment away. Static routes to it stay, as blackholes."""
    held = tx.get(ATTACHED, "", row.region, f"{row.doc['Tgw']}/{row.name}")
    if held is not None:
        tx.delete(held, keep=False)
    gone(tx, row)
    TRANSIT_ATTACHMENT.drop(a, tx, row)


def _shown(row: Row) -> Output:
    return {
        "TransitGatewayAttachmentId": row.name,
        "TransitGatewayId": row.doc["Tgw"],
        "VpcId": row.doc["Resource"],
        "VpcOwnerId": row.account,
        "State": row.status,
        "SubnetIds": row.doc["Subnets"],
        "CreationTime": row.created // MICROS * MICROS,
        "Options": row.doc["Options"],
        "Tags": noun.tags_shown(row),
    }


def _both(a: Authorised, view: View) -> list[str | Vpc | Transit]:
    return [str(a.input["VpcId"]), *transit(view, a.region, str(a.input["TransitGatewayId"]))]


def _of(a: Authorised, view: View) -> list[Vpc | Transit]:
    return concerned(view, a.region, str(a.input["TransitGatewayAttachmentId"]))


@TRANSIT_ATTACHMENT.does(
    "CreateTransitGatewayVpcAttachment",
    asks=creating(
        TRANSIT_ATTACHMENT,
        "CreateTransitGatewayVpcAttachment",
        ask("CreateTransitGatewayVpcAttachment", gateway_arn),
        ask("CreateTransitGatewayVpcAttachment", VPC.ids("VpcId")),
        ask("CreateTransitGatewayVpcAttachment", SUBNET.ids("SubnetIds")),
    ),
    settles=_both,
)
def create(a: Authorised, tx: Transaction) -> Output:
    noun.capable(a)
    given = a.input.get("Options") or {}
    options = {**_OPTIONS, **{key: given[key] for key in _OPTIONS if given.get(key)}}
    for member in _LACKING:
        if options[member] != "disable":
            raise Refused("UnsupportedOperation", f"{member} is not supported by Bastide yet.")
    tgw = seen_gateway(a, tx, a.input["TransitGatewayId"])
    vpc = VPC.held(a, tx, a.input["VpcId"])
    zones: set[str] = set()
    names = list(dict.fromkeys(a.input["SubnetIds"]))
    if not names:
        raise noun.missing("SubnetIds")
    for name in names:
        subnet = SUBNET.held(a, tx, name)
        if subnet.doc["VpcId"] != vpc.name:
            raise invalid(f"Subnet {name} and VPC {vpc.name} belong to different networks.")
        if subnet.doc["Zone"] in zones:
            raise Refused("DuplicateSubnetsInSameZone", "Duplicate Subnets for same AZ")
        zones.add(subnet.doc["Zone"])
    for other in attachments(tx, a.region, tgw.name):
        if other.doc["Resource"] == vpc.name:
            raise Refused(
                "DuplicateTransitGatewayAttachment",
                f"{tgw.name} has non-deleted Transit Gateway Attachments with same VPC ID.",
            )
    doc = {"Subnets": names, "Options": options}
    row = new_attachment(a, tx, tgw, "vpc", vpc.name, doc, [vpc.name, *names])
    return {"TransitGatewayVpcAttachment": {**_shown(row), "State": "pending" if row.status == ALIVE else PENDING}}


def _all(a: Authorised, view: View) -> list[Row]:
    """Those that the caller's account made, and those of its gateways."""
    found = {row.name: row for row in view.scan(TRANSIT_ATTACHMENT.key, a.account, a.region, limit=500)}
    for tgw in visible(a, view):
        if tgw.account == a.account:
            found |= {row.name: row for row in attachments(view, a.region, tgw.name)}
    return [found[id] for id in sorted(found)]


_FIELDS: Final[dict[str, noun.Field]] = {
    "transit-gateway-attachment-id": noun.name,
    "transit-gateway-id": noun.doc("Tgw"),
    "state": lambda view, row: row.status,
}


def _chosen(a: Authorised, view: View, fields: dict[str, noun.Field]) -> list[Row]:
    named = a.input.get("TransitGatewayAttachmentIds")
    chosen = noun.filters(a, {**_FIELDS, **fields})
    rows = [seen_attachment(a, view, str(id)) for id in dict.fromkeys(named)] if named else _all(a, view)
    return [row for row in rows if chosen(view, row)]


@TRANSIT_ATTACHMENT.tells(
    "DescribeTransitGatewayVpcAttachments", asks=[ask("DescribeTransitGatewayVpcAttachments", noun.anything)]
)
def describe(a: Authorised, view: View) -> Output:
    rows = [row for row in _chosen(a, view, {"vpc-id": noun.doc("Resource")}) if row.doc["Type"] == "vpc"]
    return sliced(a, "TransitGatewayVpcAttachments", [_shown(row) for row in rows])


@TRANSIT_ATTACHMENT.tells(
    "DescribeTransitGatewayAttachments", asks=[ask("DescribeTransitGatewayAttachments", noun.anything)]
)
def describe_all(a: Authorised, view: View) -> Output:
    fields: dict[str, noun.Field] = {
        "resource-id": noun.doc("Resource"), "resource-type": noun.doc("Type"), "resource-owner-id": noun.owner,
        "transit-gateway-owner-id": noun.doc("TgwOwner"),
        "association.transit-gateway-route-table-id": lambda view, row: row.doc["Table"] or None,
        "association.state": lambda view, row: "associated" if row.doc["Table"] else None,
    }  # fmt: skip
    found: list[Output] = []
    for row in _chosen(a, view, fields):
        one: Output = {
            "TransitGatewayAttachmentId": row.name,
            "TransitGatewayId": row.doc["Tgw"],
            "TransitGatewayOwnerId": row.doc["TgwOwner"],
            "ResourceOwnerId": row.account,
            "ResourceType": row.doc["Type"],
            "ResourceId": row.doc["Resource"],
            "State": row.status,
            "CreationTime": row.created // MICROS * MICROS,
            "Tags": noun.tags_shown(row),
        }
        if row.doc["Table"]:
            one["Association"] = {"TransitGatewayRouteTableId": row.doc["Table"], "State": "associated"}
        found.append(one)
    return sliced(a, "TransitGatewayAttachments", found)


def _pending(a: Authorised, tx: Transaction) -> Row:
    row = owned_attachment(a, tx, str(a.input["TransitGatewayAttachmentId"]))
    if row.status != PENDING:
        raise Refused("IncorrectState", f"{row.name} is in invalid state")
    return row


@TRANSIT_ATTACHMENT.does(
    "AcceptTransitGatewayVpcAttachment",
    asks=[ask("AcceptTransitGatewayVpcAttachment", TRANSIT_ATTACHMENT.ids("TransitGatewayAttachmentId"))],
    settles=_of,
)
def accept(a: Authorised, tx: Transaction) -> Output:
    row = _pending(a, tx)
    tgw = gateway(tx, a.region, row.doc["Tgw"])
    assert tgw is not None
    accept_row(tgw, row)
    TRANSIT_ATTACHMENT.save(a, tx, row)
    return {"TransitGatewayVpcAttachment": {**_shown(row), "State": "pending"}}


@TRANSIT_ATTACHMENT.does(
    "RejectTransitGatewayVpcAttachment",
    asks=[ask("RejectTransitGatewayVpcAttachment", TRANSIT_ATTACHMENT.ids("TransitGatewayAttachmentId"))],
)
def reject(a: Authorised, tx: Transaction) -> Output:
    row = _pending(a, tx)
    drop_attachment(a, tx, row)
    return {"TransitGatewayVpcAttachment": {**_shown(row), "State": "rejecting"}}


@TRANSIT_ATTACHMENT.does(
    "DeleteTransitGatewayVpcAttachment",
    asks=[ask("DeleteTransitGatewayVpcAttachment", TRANSIT_ATTACHMENT.ids("TransitGatewayAttachmentId"))],
    settles=_of,
)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = seen_attachment(a, tx, str(a.input["TransitGatewayAttachmentId"]))
    if row.doc["Type"] != "vpc":
        raise invalid(f"{row.name} is no attachment of a VPC; delete the VPN connection.")
    drop_attachment(a, tx, row)
    return {"TransitGatewayVpcAttachment": {**_shown(row), "State": "deleting"}}

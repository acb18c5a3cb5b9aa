"""Transit gateways. Packets cross one only from attachment to attachment, as its route tables say: docs/network.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import MICROS, Arn, Refused
from bastide.kernel import Authorised, Output, shares
from bastide.services.ec2 import noun, transit_noun
from bastide.services.ec2.noun import ask, creating, invalid, sliced
from bastide.services.ec2.nouns import TRANSIT_GATEWAY, TRANSIT_TABLE
from bastide.store import Row, Transaction, View

_DEFAULTS: Final = {
    "AutoAcceptSharedAttachments": "disable",
    "DefaultRouteTableAssociation": "enable",
    "DefaultRouteTablePropagation": "enable",
    "VpnEcmpSupport": "enable",
    "DnsSupport": "enable",
    "SecurityGroupReferencingSupport": "disable",
    "MulticastSupport": "disable",
}
_ONLY: Final = {"SecurityGroupReferencingSupport": "disable", "MulticastSupport": "disable"}
"""What is not there, whatever is asked."""
_MOST: Final = 5
"""An account and region; AWS's default quota."""


def shown(row: Row) -> Output:
    """A gateway as it is described."""
    options: dict[str, Any] = dict(row.doc["Options"])
    for default, id in (
        ("DefaultRouteTableAssociation", "AssociationDefaultRouteTableId"),
        ("DefaultRouteTablePropagation", "PropagationDefaultRouteTableId"),
    ):
        if options[default] == "enable":
            options[id] = row.doc["Table"]
    return {
        "TransitGatewayId": row.name,
        "TransitGatewayArn": TRANSIT_GATEWAY.arn(row.account, row.region, row.name),
        "OwnerId": row.account,
        "State": "available",
        "Description": row.doc["Description"],
        "CreationTime": row.created // MICROS * MICROS,
        "Options": options,
        "Tags": noun.tags_shown(row),
    }


def new_table(a: Authorised, tx: Transaction, gateway: str, *, default: bool, tags: Mapping[str, str] | None) -> Row:
    """A new route table of a gateway."""
    doc = {"Tgw": gateway, "Default": default, "Routes": {}}
    return TRANSIT_TABLE.put(a, tx, TRANSIT_TABLE.new_id(), doc, [gateway], None if tags is None else dict(tags))


@TRANSIT_GATEWAY.does("CreateTransitGateway", asks=creating(TRANSIT_GATEWAY, "CreateTransitGateway"))
def create(a: Authorised, tx: Transaction) -> Output:
    noun.capable(a)
    given = a.input.get("Options") or {}
    if given.get("TransitGatewayCidrBlocks"):
        raise Refused("UnsupportedOperation", "TransitGatewayCidrBlocks is not supported by Bastide yet.")
    options = {**_DEFAULTS, **{key: given[key] for key in _DEFAULTS if given.get(key)}}
    for key, value in _ONLY.items():
        if options[key] != value:
            raise Refused("UnsupportedOperation", f"{key} is not supported by Bastide yet.")
    options["AmazonSideAsn"] = int(given.get("AmazonSideAsn") or 64512)
    if len(tx.scan(TRANSIT_GATEWAY.key, a.account, a.region, limit=_MOST)) == _MOST:
        raise Refused("TransitGatewayLimitExceeded", "The maximum number of transit gateways has been reached.")
    id = TRANSIT_GATEWAY.new_id()
    defaults = "enable" in (options["DefaultRouteTableAssociation"], options["DefaultRouteTablePropagation"])
    table = new_table(a, tx, id, default=True, tags={}).name if defaults else ""
    doc = {
        "Description": a.input.get("Description") or "",
        "Options": options,
        "Table": table,
    }
    row = TRANSIT_GATEWAY.put(a, tx, id, doc)
    transit_noun.belongs(tx, row)
    return {"TransitGateway": {**shown(row), "State": "pending"}}


@TRANSIT_GATEWAY.tells("DescribeTransitGateways", asks=[ask("DescribeTransitGateways", noun.anything)])
def describe(a: Authorised, view: View) -> Output:
    rows = transit_noun.visible(a, view)
    named = a.input.get("TransitGatewayIds")
    if named:
        held = {row.name: row for row in rows}
        rows = [held.get(str(id)) or TRANSIT_GATEWAY.held(a, view, str(id)) for id in dict.fromkeys(named)]
    chosen = noun.filters(
        a,
        {
            "transit-gateway-id": noun.name,
            "owner-id": noun.owner,
            "state": noun.fixed("available"),
            **{
                f"options.{name}": lambda view, row, key=key: str(row.doc["Options"][key])  # type: ignore[misc]
                for name, key in (
                    ("amazon-side-asn", "AmazonSideAsn"),
                    ("auto-accept-shared-attachments", "AutoAcceptSharedAttachments"),
                    ("default-route-table-association", "DefaultRouteTableAssociation"),
                    ("default-route-table-propagation", "DefaultRouteTablePropagation"),
                    ("dns-support", "DnsSupport"),
                    ("vpn-ecmp-support", "VpnEcmpSupport"),
                )
            },
        },
    )
    return sliced(a, "TransitGateways", [shown(row) for row in rows if chosen(view, row)])


@TRANSIT_GATEWAY.does(
    "DeleteTransitGateway",
    asks=[ask("DeleteTransitGateway", TRANSIT_GATEWAY.ids("TransitGatewayId"))],
    settles=lambda a, view: transit_noun.transit(view, a.region, str(a.input["TransitGatewayId"])),
)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = TRANSIT_GATEWAY.held(a, tx, a.input["TransitGatewayId"])
    if transit_noun.attachments(tx, a.region, row.name):
        raise Refused("IncorrectState", f"{row.name} has non-deleted Transit Gateway Attachments.")
    tables = TRANSIT_TABLE.inside(tx, a.account, a.region, row.name)
    if any(not one.doc["Default"] for one in tables):
        raise Refused("IncorrectState", f"{row.name} has non-deleted Transit Gateway Route Tables.")
    if shares.is_shared(tx, Arn.parse(TRANSIT_GATEWAY.arn(a.account, a.region, row.name))):
        raise invalid(f"{row.name} is in a resource share; take it out of there first.")
    for one in tables:
        TRANSIT_TABLE.drop(a, tx, one)
    transit_noun.gone(tx, row)
    TRANSIT_GATEWAY.drop(a, tx, row)
    return {"TransitGateway": {**shown(row), "State": "deleting"}}

"""Routes of a VPC's tables: to a transit gateway that the VPC is attached to, to its internet gateway, to its virtual
private gateway or to a NAT gateway.

Other targets (peerings, interfaces, appliances) do not exist here and are refused.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from bastide.domain import Refused
from bastide.kernel import Authorised, Output
from bastide.services.ec2 import internet_gateway, noun, vpn_gateway
from bastide.services.ec2.noun import ask, invalid, unsupported
from bastide.services.ec2.nouns import INTERNET_GATEWAY, NAT_GATEWAY, ROUTE_TABLE, VPC, VPN_GATEWAY
from bastide.services.ec2.route_table import nat_stands, vpc_of_table, way_out
from bastide.services.ec2.transit_table import cidr_of
from bastide.store import Row, Transaction

_LACKING: Final = (
    "DestinationPrefixListId", "DestinationIpv6CidrBlock", "VpcEndpointId", "LocalGatewayId", "CarrierGatewayId",
    "CoreNetworkArn", "OdbNetworkArn", "EgressOnlyInternetGatewayId", "InstanceId", "NetworkInterfaceId",
    "VpcPeeringConnectionId", "LocalTarget",
)  # fmt: skip
_MOST: Final = 50
"""A table; AWS's default quota for routes that are not propagated."""


def _target(a: Authorised, tx: Transaction, table: Row) -> str:
    """The gateway that a route leads to; raises Refused for one that the VPC has not."""
    unsupported(a, *_LACKING)
    given = [str(a.input[name]) for name in ("GatewayId", "NatGatewayId", "TransitGatewayId") if a.input.get(name)]
    if len(given) != 1:
        raise Refused(
            "InvalidParameterCombination",
            "Exactly one of GatewayId, NatGatewayId and TransitGatewayId has to be given.",
        )
    id = given[0]
    if a.input.get("TransitGatewayId"):
        if way_out(tx, table, id) is None:
            raise Refused(
                "InvalidTransitGatewayID.NotFound",
                f"The transitGateway ID '{id}' does not exist, or {table.doc['VpcId']} is not attached to it.",
            )
        return id
    if a.input.get("NatGatewayId"):
        NAT_GATEWAY.held(a, tx, id)
        if not nat_stands(tx, table, id):
            raise Refused("InvalidNatGatewayID.NotFound", f"{table.doc['VpcId']} has no NAT gateway {id} that works.")
        return id
    if id.startswith("vgw-"):
        VPN_GATEWAY.held(a, tx, id)
        if not vpn_gateway.attached(tx, table, id):
            raise invalid(f"route table {table.name} and network gateway {id} belong to different networks")
        return id
    if not id.startswith("igw-"):
        raise Refused("InvalidGatewayID.NotFound", f"The gateway ID '{id[:64]}' does not exist")
    INTERNET_GATEWAY.held(a, tx, id)
    if not internet_gateway.attached(tx, table, id):
        raise invalid(f"route table {table.name} and network gateway {id} belong to different networks")
    return id


def _destination(a: Authorised, tx: Transaction, table: Row) -> str:
    if not a.input.get("DestinationCidrBlock"):
        raise noun.missing("destinationCidrBlock")
    cidr = cidr_of(str(a.input["DestinationCidrBlock"]))
    local = ipaddress.IPv4Network(VPC.held(a, tx, table.doc["VpcId"]).doc["CidrBlock"])
    if ipaddress.IPv4Network(cidr).subnet_of(local):
        raise invalid(
            f"The destination CIDR block {cidr} is equal to or more specific than one of this VPC's CIDR blocks."
        )
    return cidr


@ROUTE_TABLE.does("CreateRoute", asks=[ask("CreateRoute", ROUTE_TABLE.ids("RouteTableId"))], settles=vpc_of_table)
def create(a: Authorised, tx: Transaction) -> Output:
    table = ROUTE_TABLE.held(a, tx, a.input["RouteTableId"])
    id = _target(a, tx, table)
    cidr = _destination(a, tx, table)
    held = table.doc.get("Routes", {})
    if cidr in held:
        raise Refused("RouteAlreadyExists", f"The route identified by {cidr} already exists.")
    if len(held) >= _MOST:
        raise Refused("RouteLimitExceeded", f"The route table has the maximum of {_MOST} routes.")
    table.doc["Routes"] = {**held, cidr: id}
    ROUTE_TABLE.save(a, tx, table)
    return {"Return": True}


@ROUTE_TABLE.does("ReplaceRoute", asks=[ask("ReplaceRoute", ROUTE_TABLE.ids("RouteTableId"))], settles=vpc_of_table)
def replace(a: Authorised, tx: Transaction) -> Output:
    table = ROUTE_TABLE.held(a, tx, a.input["RouteTableId"])
    id = _target(a, tx, table)
    table.doc["Routes"] = {**table.doc.get("Routes", {}), _existing(a, table): id}
    ROUTE_TABLE.save(a, tx, table)
    return {}


def _existing(a: Authorised, table: Row) -> str:
    if not a.input.get("DestinationCidrBlock"):
        raise noun.missing("destinationCidrBlock")
    cidr = cidr_of(str(a.input["DestinationCidrBlock"]))
    if cidr not in table.doc.get("Routes", {}):
        raise Refused(
            "InvalidRoute.NotFound", f"no route with destination-cidr-block {cidr} in route table {table.name}"
        )
    return cidr


@ROUTE_TABLE.does("DeleteRoute", asks=[ask("DeleteRoute", ROUTE_TABLE.ids("RouteTableId"))], settles=vpc_of_table)
def delete(a: Authorised, tx: Transaction) -> Output:
    unsupported(a, "DestinationPrefixListId", "DestinationIpv6CidrBlock")
    table = ROUTE_TABLE.held(a, tx, a.input["RouteTableId"])
    gone = _existing(a, table)
    table.doc["Routes"] = {key: value for key, value in table.doc["Routes"].items() if key != gone}
    ROUTE_TABLE.save(a, tx, table)
    return {}

"""Virtual private gateways: a VPC's own end of VPN connections and of Direct Connect, without a transit gateway.

The engine has one as a gateway with two kinds of joints: the VPC, named by the gateway's id, and what leads elsewhere, each
by its own id. A VPC's table leads there by a route, or by what it has propagated from the connections.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from bastide.domain import Refused
from bastide.engines.network import Transit, Vpc
from bastide.engines.network.links import Links
from bastide.kernel import Asked, Authorised, Output
from bastide.kernel.circuits import circuits, sources
from bastide.services.ec2 import noun
from bastide.services.ec2.noun import ask, creating, describes, invalid, naming, unsupported
from bastide.services.ec2.nouns import ROUTE_TABLE, VPC, VPN_CONNECTION, VPN_GATEWAY
from bastide.services.ec2.transit_noun import belongs, declared, gone, transit
from bastide.store import Row, Transaction, View

_IPSEC: Final = "ipsec.1"
_ASN: Final = 64512


def _shown(a: Authorised, view: View, row: Row) -> Output:
    vpc = row.doc["VpcId"]
    return {
        "VpnGatewayId": row.name,
        "State": "available",
        "Type": _IPSEC,
        "AmazonSideAsn": row.doc["Asn"],
        "VpcAttachments": [{"VpcId": vpc, "State": "attached"}] if vpc else [],
        "Tags": noun.tags_shown(row),
    }


@VPN_GATEWAY.does("CreateVpnGateway", asks=creating(VPN_GATEWAY, "CreateVpnGateway"))
def create(a: Authorised, tx: Transaction) -> Output:
    noun.capable(a)
    unsupported(a, "AvailabilityZone")
    if a.input["Type"] != _IPSEC:
        raise invalid(f"Value ({str(a.input['Type'])[:64]}) for parameter type is invalid.")
    row = VPN_GATEWAY.put(a, tx, VPN_GATEWAY.new_id(), {"VpcId": "", "Asn": a.input.get("AmazonSideAsn") or _ASN})
    belongs(tx, row)
    return {"VpnGateway": _shown(a, tx, row)}


describes(
    VPN_GATEWAY, "DescribeVpnGateways", "VpnGateways", "VpnGatewayIds", _shown,
    {
        "vpn-gateway-id": noun.name, "state": noun.fixed("available"), "type": noun.fixed(_IPSEC),
        "amazon-side-asn": lambda view, row: str(row.doc["Asn"]),
        "attachment.vpc-id": lambda view, row: row.doc["VpcId"] or None,
        "attachment.state": lambda view, row: "attached" if row.doc["VpcId"] else None,
    },
)  # fmt: skip


def _both(a: Authorised, view: View) -> list[str | Vpc | Transit]:
    return [str(a.input["VpcId"]), *transit(view, a.region, str(a.input["VpnGatewayId"]))]


@VPN_GATEWAY.does("AttachVpnGateway", asks=naming("AttachVpnGateway", VPN_GATEWAY, VPC), settles=_both)
def attach(a: Authorised, tx: Transaction) -> Output:
    row = VPN_GATEWAY.held(a, tx, a.input["VpnGatewayId"])
    vpc = VPC.held(a, tx, a.input["VpcId"])
    if row.doc["VpcId"] not in ("", vpc.name):
        raise Refused("IncorrectState", f"{row.name} is attached to {row.doc['VpcId']}")
    other = of_vpc(tx, vpc)
    if other is not None and other.name != row.name:
        raise invalid(f"{vpc.name} has the virtual private gateway {other.name} already")
    _moved(a, tx, row, vpc.name)
    return {"VpcAttachment": {"VpcId": vpc.name, "State": "attaching"}}


@VPN_GATEWAY.does("DetachVpnGateway", asks=naming("DetachVpnGateway", VPN_GATEWAY, VPC), settles=_both)
def detach(a: Authorised, tx: Transaction) -> Output:
    row = VPN_GATEWAY.held(a, tx, a.input["VpnGatewayId"])
    if not row.doc["VpcId"] or row.doc["VpcId"] != a.input["VpcId"]:
        raise Refused(
            "InvalidVpnGatewayAttachment.NotFound",
            f"The attachment with vpn gateway ID '{row.name}' and vpc ID '{a.input['VpcId']}' does not exist",
        )
    _moved(a, tx, row, "")
    return {}


def _moved(a: Authorised, tx: Transaction, row: Row, vpc: str) -> None:
    VPN_GATEWAY.drop(a, tx, row)
    VPN_GATEWAY.put(a, tx, row.name, {**row.doc, "VpcId": vpc}, [vpc] if vpc else [], dict(row.tags))


@VPN_GATEWAY.does("DeleteVpnGateway", asks=naming("DeleteVpnGateway", VPN_GATEWAY))
def delete(a: Authorised, tx: Transaction) -> Output:
    row = VPN_GATEWAY.held(a, tx, a.input["VpnGatewayId"])
    if row.doc["VpcId"] or VPN_CONNECTION.any_inside(tx, a.account, a.region, row.name) or sources(tx, row.name):
        raise Refused("IncorrectState", f"The vpnGateway '{row.name}' is in use.")
    gone(tx, row)
    VPN_GATEWAY.drop(a, tx, row)
    return {}


# -- routes ------------------------------------------------------------------------------------------------------------


def _propagation(asked: Asked) -> Iterable[str]:
    return (VPN_GATEWAY.arn(asked.call.account, asked.call.region, str(asked.input["GatewayId"])),)


def _vpc_of_table(a: Authorised, view: View) -> list[str]:
    row = ROUTE_TABLE.get(view, a.account, a.region, str(a.input["RouteTableId"]))
    return [] if row is None else [row.doc["VpcId"]]


@VPN_GATEWAY.does(
    "EnableVgwRoutePropagation",
    asks=[*naming("EnableVgwRoutePropagation", ROUTE_TABLE), ask("EnableVgwRoutePropagation", _propagation)],
    settles=_vpc_of_table,
)
def enable(a: Authorised, tx: Transaction) -> Output:
    table = ROUTE_TABLE.held(a, tx, a.input["RouteTableId"])
    row = VPN_GATEWAY.held(a, tx, a.input["GatewayId"])
    if not attached(tx, table, row.name):
        raise Refused("Gateway.NotAttached", f"resource {row.name} is not attached to network {table.doc['VpcId']}")
    table.doc["Propagating"] = list(dict.fromkeys([*table.doc.get("Propagating", ()), row.name]))
    ROUTE_TABLE.save(a, tx, table)
    return {}


@VPN_GATEWAY.does(
    "DisableVgwRoutePropagation",
    asks=[*naming("DisableVgwRoutePropagation", ROUTE_TABLE), ask("DisableVgwRoutePropagation", _propagation)],
    settles=_vpc_of_table,
)
def disable(a: Authorised, tx: Transaction) -> Output:
    table = ROUTE_TABLE.held(a, tx, a.input["RouteTableId"])
    table.doc["Propagating"] = [one for one in table.doc.get("Propagating", ()) if one != a.input["GatewayId"]]
    ROUTE_TABLE.save(a, tx, table)
    return {}


def of_vpc(view: View, vpc: Row) -> Row | None:
    """The gateway that is attached to a VPC."""
    return next(iter(VPN_GATEWAY.inside(view, vpc.account, vpc.region, vpc.name)), None)


def attached(view: View, table: Row, id: str) -> bool:
    """Whether a gateway is attached to the VPC of a route table."""
    row = VPN_GATEWAY.get(view, table.account, table.region, id)
    return row is not None and row.doc["VpcId"] == table.doc["VpcId"]


def routes(view: View, row: Row, links: Links) -> dict[str, str]:
    """Where a gateway leads: by CIDR the circuit or the connection. What would be learnt is what the operator declared:
    circuits go first, then static routes, then what connections would tell."""
    found: dict[str, str] = {}
    for circuit in circuits(view, row.name):
        end = links.find(circuit.connection)
        for cidr in () if end is None else end.far.ranges:
            found.setdefault(cidr, circuit.interface)
    connections = VPN_CONNECTION.inside(view, row.account, row.region, row.name)
    for one in sorted(connections, key=lambda one: (not one.doc["StaticOnly"], one.created, one.name)):
        far = None if one.doc["StaticOnly"] else declared(view, one, links)
        for cidr in one.doc.get("Routes", ()) if far is None else far.far.ranges:
            found.setdefault(cidr, one.name)
    return found


def propagated(view: View, table: Row, links: Links) -> dict[str, str]:
    """By CIDR the gateway that a VPC's table has it from; a route of the table itself goes before."""
    found: dict[str, str] = {}
    vpc = VPC.get(view, table.account, table.region, table.doc["VpcId"])
    local = None if vpc is None else ipaddress.IPv4Network(vpc.doc["CidrBlock"])
    for id in table.doc.get("Propagating", ()):
        row = VPN_GATEWAY.get(view, table.account, table.region, id)
        if row is None or row.doc["VpcId"] != table.doc["VpcId"] or local is None:
            continue
        for cidr in routes(view, row, links):
            if cidr not in table.doc.get("Routes", {}) and not ipaddress.IPv4Network(cidr).subnet_of(local):
                found.setdefault(cidr, id)
    return found

"""VPN connections: IPsec to a device at an address that the operator declared, and nothing in the clear.

Of a customer gateway whose address is not declared nobody knows where it is: its connections are DOWN, and packets to them
are lost. For one that is declared this side listens; the device has to speak with the keys of the connection's
configuration. What comes and goes by it are the declared ranges alone (docs/network.md).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from bastide.domain import MICROS, Refused
from bastide.engines.network import Networks, Telemetry, Transit, Vpc
from bastide.engines.network.links import Links
from bastide.kernel import Authorised, Output
from bastide.services.ec2 import noun, vpn_tunnel
from bastide.services.ec2.noun import creating, describes, invalid, naming, unsupported
from bastide.services.ec2.nouns import (
    CUSTOMER_GATEWAY,
    TRANSIT_ATTACHMENT,
    TRANSIT_GATEWAY,
    VPN_CONNECTION,
    VPN_GATEWAY,
)
from bastide.services.ec2.transit_attachment import drop_attachment, new_attachment
from bastide.services.ec2.transit_noun import declared, transit
from bastide.services.ec2.transit_table import cidr_of
from bastide.store import Row, Transaction, View

_IPSEC: Final = "ipsec.1"


def _gateway(row: Row) -> Output:
    return {
        "CustomerGatewayId": row.name,
        "BgpAsn": row.doc["BgpAsn"],
        "IpAddress": row.doc["IpAddress"],
        "DeviceName": row.doc["DeviceName"],
        "State": "available",
        "Type": _IPSEC,
        "Tags": noun.tags_shown(row),
    }


@CUSTOMER_GATEWAY.does("CreateCustomerGateway", asks=creating(CUSTOMER_GATEWAY, "CreateCustomerGateway"))
def create_gateway(a: Authorised, tx: Transaction) -> Output:
    unsupported(a, "CertificateArn")
    text = str(a.input.get("IpAddress") or a.input.get("PublicIp") or "")
    try:
        address = str(ipaddress.IPv4Address(text))
    except ValueError:
        raise invalid(f"Value ({text[:64]}) for parameter ipAddress is invalid. Invalid IPv4 address.") from None
    doc = {
        "IpAddress": address,
        "BgpAsn": str(a.input.get("BgpAsnExtended") or a.input.get("BgpAsn") or 65000),
        "DeviceName": a.input.get("DeviceName") or "",
    }
    row = CUSTOMER_GATEWAY.put(a, tx, CUSTOMER_GATEWAY.new_id(), doc)
    return {"CustomerGateway": _gateway(row)}


describes(
    CUSTOMER_GATEWAY, "DescribeCustomerGateways", "CustomerGateways", "CustomerGatewayIds",
    lambda a, view, row: _gateway(row),
    {
        "customer-gateway-id": noun.name, "ip-address": noun.doc("IpAddress"), "bgp-asn": noun.doc("BgpAsn"),
        "device-name": noun.doc("DeviceName"), "state": noun.fixed("available"), "type": noun.fixed(_IPSEC),
    },
)  # fmt: skip


@CUSTOMER_GATEWAY.does("DeleteCustomerGateway", asks=naming("DeleteCustomerGateway", CUSTOMER_GATEWAY))
def delete_gateway(a: Authorised, tx: Transaction) -> Output:
    row = CUSTOMER_GATEWAY.held(a, tx, a.input["CustomerGatewayId"])
    if VPN_CONNECTION.any_inside(tx, a.account, a.region, row.name):
        raise Refused("IncorrectState", f"The customer gateway '{row.name}' is in use.")
    CUSTOMER_GATEWAY.drop(a, tx, row)
    return {}


# -- connections -------------------------------------------------------------------------------------------------------

_WITHOUT_EFFECT: Final = ("ipv4", "standard", "0.0.0.0/0", "PublicIpv4")
"""Values of options that ask for what is so anyway."""


def _attachment(view: View, row: Row) -> Row | None:
    held = TRANSIT_ATTACHMENT.inside(view, row.account, row.region, row.name)
    return held[0] if held else None


def _shown(a: Authorised, view: View, row: Row) -> Output:
    gateway = CUSTOMER_GATEWAY.held(a, view, row.doc["CustomerGatewayId"])
    link = declared(view, row, a.engine(Links))
    attachment = _attachment(view, row)
    held = a.engine(Networks).tunnels(row.name if attachment is None else attachment.name)
    keys = {one["Outside"]: vpn_tunnel.key_of(one, a.calls.sealer) for one in row.doc.get("Tunnels", ())}
    owner = "VpnGatewayId" if row.doc.get("Vgw") else "TransitGatewayId"
    telemetry = []
    for one in row.doc.get("Tunnels", ()):
        now = held.get(one["Outside"], Telemetry())
        accepted = len(row.doc.get("Routes", ())) if row.doc["StaticOnly"] else len(link.far.ranges) if link else 0
        telemetry.append(
            {
                "AcceptedRouteCount": accepted if now.up else 0,
                "LastStatusChange": (now.since or row.created) // MICROS * MICROS,
                "OutsideIpAddress": one["Outside"],
                "Status": "UP" if now.up else "DOWN",
                "StatusMessage": _told(row, link is not None, bool(held), now.up),
            }
        )
    return {
        "VpnConnectionId": row.name,
        "CustomerGatewayId": row.doc["CustomerGatewayId"],
        owner: row.doc.get("Vgw") or row.doc["Tgw"],
        "CustomerGatewayConfiguration": vpn_tunnel.configuration(row, gateway.doc["IpAddress"], a.calls.sealer),
        "Type": _IPSEC,
        "Category": "VPN",
        "State": "available",
        **({} if row.doc.get("Vgw") else {"GatewayAssociationState": "associated"}),
        "Options": {
            "StaticRoutesOnly": row.doc["StaticOnly"],
            "EnableAcceleration": False,
            "TunnelInsideIpVersion": "ipv4",
            "LocalIpv4NetworkCidr": "0.0.0.0/0",
            "RemoteIpv4NetworkCidr": "0.0.0.0/0",
            "OutsideIpAddressType": "PublicIpv4",
            "TunnelOptions": [vpn_tunnel.shown(one, keys[one["Outside"]]) for one in row.doc.get("Tunnels", ())],
        },
        "Routes": [
            {"DestinationCidrBlock": one, "Source": "Static", "State": "available"} for one in row.doc.get("Routes", ())
        ],
        "VgwTelemetry": telemetry,
        "Tags": noun.tags_shown(row),
    }


def _told(row: Row, link: bool, listening: bool, up: bool) -> str:
    if not link:
        return "the operator has declared no such gateway"
    if row.doc.get("Vgw") and not listening:
        return "the virtual private gateway is attached to no VPC, or the place of the peer is not there"
    return "" if up else "IPSEC IS DOWN"


@VPN_CONNECTION.does(
    "CreateVpnConnection",
    asks=creating(
        VPN_CONNECTION,
        "CreateVpnConnection",
        *naming("CreateVpnConnection", CUSTOMER_GATEWAY, TRANSIT_GATEWAY, VPN_GATEWAY),
    ),
    settles=lambda a, view: transit(
        view, a.region, str(a.input.get("TransitGatewayId") or a.input.get("VpnGatewayId") or "")
    ),
)
def create(a: Authorised, tx: Transaction) -> Output:
    noun.capable(a, ipsec=True)
    unsupported(a, "VpnConcentratorId", "PreSharedKeyStorage")
    if a.input["Type"] != _IPSEC:
        raise invalid(f"Value ({str(a.input['Type'])[:64]}) for parameter type is invalid.")
    if bool(a.input.get("TransitGatewayId")) == bool(a.input.get("VpnGatewayId")):
        raise Refused("InvalidParameterCombination", "Either TransitGatewayId or VpnGatewayId has to be given.")
    options = dict(a.input.get("Options") or {})
    static = bool(options.pop("StaticRoutesOnly", False))
    tunnels = options.pop("TunnelOptions", None) or ()
    meant = {key: one for key, one in options.items() if one not in (None, False, [], "", *_WITHOUT_EFFECT)}
    if meant:
        raise Refused("UnsupportedOperation", f"Bastide's connections do not have {', '.join(sorted(meant))}.")
    gateway = CUSTOMER_GATEWAY.held(a, tx, a.input["CustomerGatewayId"])
    id = VPN_CONNECTION.new_id()
    doc = {"CustomerGatewayId": gateway.name, "StaticOnly": static, "Tgw": "", "Vgw": "", "Routes": []}
    if a.input.get("VpnGatewayId"):
        vgw = VPN_GATEWAY.held(a, tx, a.input["VpnGatewayId"])
        doc |= {"Vgw": vgw.name, "Tunnels": vpn_tunnel.made(a, tx, id, tunnels)}
        row = VPN_CONNECTION.put(a, tx, id, doc, [gateway.name, vgw.name])
    else:
        tgw = TRANSIT_GATEWAY.held(a, tx, a.input["TransitGatewayId"])
        doc |= {"Tgw": tgw.name, "Tunnels": vpn_tunnel.made(a, tx, id, tunnels)}
        row = VPN_CONNECTION.put(a, tx, id, doc, [gateway.name])
        new_attachment(a, tx, tgw, "vpn", row.name, {"StaticOnly": static, "Subnets": []}, [row.name])
    return {"VpnConnection": {**_shown(a, tx, row), "State": "pending"}}


describes(
    VPN_CONNECTION, "DescribeVpnConnections", "VpnConnections", "VpnConnectionIds", _shown,
    {
        "vpn-connection-id": noun.name, "customer-gateway-id": noun.doc("CustomerGatewayId"),
        "transit-gateway-id": lambda view, row: row.doc["Tgw"] or None,
        "vpn-gateway-id": lambda view, row: row.doc.get("Vgw") or None,
        "state": noun.fixed("available"), "type": noun.fixed(_IPSEC),
        "option.static-routes-only": lambda view, row: str(row.doc["StaticOnly"]).lower(),
        "route.destination-cidr-block": lambda view, row: list(row.doc.get("Routes", ())),
    },
)  # fmt: skip


def _of(a: Authorised, view: View) -> Iterable[Transit | Vpc]:
    row = VPN_CONNECTION.get(view, a.account, a.region, str(a.input["VpnConnectionId"]))
    if row is None:
        return
    vgw = VPN_GATEWAY.get(view, row.account, row.region, row.doc.get("Vgw") or "")
    if vgw is not None and vgw.doc["VpcId"]:
        yield Vpc(vgw.account, vgw.region, vgw.doc["VpcId"])
    yield from transit(view, a.region, row.doc.get("Vgw") or row.doc["Tgw"])


@VPN_CONNECTION.does("DeleteVpnConnection", asks=naming("DeleteVpnConnection", VPN_CONNECTION), settles=_of)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = VPN_CONNECTION.held(a, tx, a.input["VpnConnectionId"])
    held = _attachment(tx, row)
    if held is not None:
        drop_attachment(a, tx, held)
    vpn_tunnel.dropped(tx, row)
    VPN_CONNECTION.drop(a, tx, row)
    return {}


# -- static routes -----------------------------------------------------------------------------------------------------


def _with_routes(a: Authorised, tx: Transaction) -> tuple[Row, str]:
    """The connection that a call names and the range; raises Refused for one that has its routes from elsewhere."""
    row = VPN_CONNECTION.held(a, tx, a.input["VpnConnectionId"])
    if not row.doc["StaticOnly"] or not row.doc.get("Vgw"):
        why = "its transit gateway's tables have the routes" if row.doc["Tgw"] else "it is not for static routes alone"
        raise Refused("InvalidVpnConnection.InvalidType", f"{row.name} takes no static routes: {why}.")
    return row, cidr_of(str(a.input["DestinationCidrBlock"]))


@VPN_CONNECTION.does("CreateVpnConnectionRoute", asks=naming("CreateVpnConnectionRoute", VPN_CONNECTION), settles=_of)
def create_route(a: Authorised, tx: Transaction) -> Output:
    row, cidr = _with_routes(a, tx)
    row.doc["Routes"] = sorted({*row.doc["Routes"], cidr})
    VPN_CONNECTION.save(a, tx, row)
    return {}


@VPN_CONNECTION.does("DeleteVpnConnectionRoute", asks=naming("DeleteVpnConnectionRoute", VPN_CONNECTION), settles=_of)
def delete_route(a: Authorised, tx: Transaction) -> Output:
    row, cidr = _with_routes(a, tx)
    if cidr not in row.doc["Routes"]:
        raise Refused("InvalidRoute.NotFound", f"The VPN connection {row.name} has no route {cidr}")
    row.doc["Routes"] = [one for one in row.doc["Routes"] if one != cidr]
    VPN_CONNECTION.save(a, tx, row)
    return {}

"""VPN connections as declared links: a customer gateway names by its address what the operator says stands there.

No tunnel is made and no peer looked for. A connection whose customer gateway is not declared is DOWN, and packets to it
are lost; one that is declared leads into the operator's namespace, to the declared ranges alone (docs/network.md). It is
attached to a transit gateway; virtual private gateways do not exist here.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from bastide.domain import MICROS, Refused
from bastide.engines.network import Networks, Transit
from bastide.engines.network.links import Links
from bastide.kernel import Authorised, Output
from bastide.services.ec2 import noun
from bastide.services.ec2.noun import ask, creating, describes, invalid, unsupported
from bastide.services.ec2.nouns import CUSTOMER_GATEWAY, TRANSIT_ATTACHMENT, TRANSIT_GATEWAY, VPN_CONNECTION
from bastide.services.ec2.transit_attachment import drop_attachment, new_attachment
from bastide.services.ec2.transit_noun import transit
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


@CUSTOMER_GATEWAY.does(
    "DeleteCustomerGateway", asks=[ask("DeleteCustomerGateway", CUSTOMER_GATEWAY.ids("CustomerGatewayId"))]
)
def delete_gateway(a: Authorised, tx: Transaction) -> Output:
    row = CUSTOMER_GATEWAY.held(a, tx, a.input["CustomerGatewayId"])
    if VPN_CONNECTION.any_inside(tx, a.account, a.region, row.name):
        raise Refused("IncorrectState", f"The customer gateway '{row.name}' is in use.")
    CUSTOMER_GATEWAY.drop(a, tx, row)
    return {}


# -- connections -------------------------------------------------------------------------------------------------------


def _attachment(view: View, row: Row) -> Row | None:
    held = TRANSIT_ATTACHMENT.inside(view, row.account, row.region, row.name)
    return held[0] if held else None


def _shown(a: Authorised, view: View, row: Row) -> Output:
    gateway = CUSTOMER_GATEWAY.get(view, row.account, row.region, row.doc["CustomerGatewayId"])
    link = None if gateway is None else a.engine(Links).by_gateway(gateway.doc["IpAddress"])
    attachment = _attachment(view, row)
    stands = link is not None and attachment is not None and a.engine(Networks).linked(attachment.name)
    told = "declared as " + link.far.name if link is not None else "the operator has declared no such gateway"
    telemetry = {
        "AcceptedRouteCount": len(link.far.ranges) if link is not None and not row.doc["StaticOnly"] else 0,
        "LastStatusChange": row.created // MICROS * MICROS,
        "OutsideIpAddress": gateway.doc["IpAddress"] if gateway is not None else "",
        "Status": "UP" if stands else "DOWN",
        "StatusMessage": told,
    }
    return {
        "VpnConnectionId": row.name,
        "CustomerGatewayId": row.doc["CustomerGatewayId"],
        "TransitGatewayId": row.doc["Tgw"],
        "Type": _IPSEC,
        "Category": "VPN",
        "State": "available",
        "GatewayAssociationState": "associated",
        "Options": {"StaticRoutesOnly": row.doc["StaticOnly"], "EnableAcceleration": False},
        "Routes": [],
        "VgwTelemetry": [telemetry],
        "Tags": noun.tags_shown(row),
    }


@VPN_CONNECTION.does(
    "CreateVpnConnection",
    asks=creating(
        VPN_CONNECTION,
        "CreateVpnConnection",
        ask("CreateVpnConnection", CUSTOMER_GATEWAY.ids("CustomerGatewayId")),
        ask("CreateVpnConnection", TRANSIT_GATEWAY.ids("TransitGatewayId")),
    ),
    settles=lambda a, view: transit(view, a.region, str(a.input.get("TransitGatewayId") or "")),
)
def create(a: Authorised, tx: Transaction) -> Output:
    noun.capable(a)
    unsupported(a, "VpnGatewayId", "VpnConcentratorId", "PreSharedKeyStorage")
    if a.input["Type"] != _IPSEC:
        raise invalid(f"Value ({str(a.input['Type'])[:64]}) for parameter type is invalid.")
    if not a.input.get("TransitGatewayId"):
        raise noun.missing("transitGatewayId")
    options = dict(a.input.get("Options") or {})
    static = bool(options.pop("StaticRoutesOnly", False))
    meant = {key: value for key, value in options.items() if value not in (None, False, [], "", "ipv4", "standard")}
    if meant:
        raise Refused("UnsupportedOperation", f"Bastide makes no tunnels, so {', '.join(sorted(meant))} has no effect.")
    gateway = CUSTOMER_GATEWAY.held(a, tx, a.input["CustomerGatewayId"])
    tgw = TRANSIT_GATEWAY.held(a, tx, a.input["TransitGatewayId"])
    doc = {"CustomerGatewayId": gateway.name, "Tgw": tgw.name, "StaticOnly": static}
    row = VPN_CONNECTION.put(a, tx, VPN_CONNECTION.new_id(), doc, [gateway.name])
    new_attachment(a, tx, tgw, "vpn", row.name, {"StaticOnly": static, "Subnets": []}, [row.name])
    return {"VpnConnection": {**_shown(a, tx, row), "State": "pending"}}


describes(
    VPN_CONNECTION, "DescribeVpnConnections", "VpnConnections", "VpnConnectionIds", _shown,
    {
        "vpn-connection-id": noun.name, "customer-gateway-id": noun.doc("CustomerGatewayId"),
        "transit-gateway-id": noun.doc("Tgw"), "state": noun.fixed("available"), "type": noun.fixed(_IPSEC),
        "option.static-routes-only": lambda view, row: str(row.doc["StaticOnly"]).lower(),
    },
)  # fmt: skip


def _of(a: Authorised, view: View) -> list[Transit]:
    row = VPN_CONNECTION.get(view, a.account, a.region, str(a.input["VpnConnectionId"]))
    return [] if row is None else transit(view, a.region, row.doc["Tgw"])


@VPN_CONNECTION.does(
    "DeleteVpnConnection",
    asks=[ask("DeleteVpnConnection", VPN_CONNECTION.ids("VpnConnectionId"))],
    settles=_of,
)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = VPN_CONNECTION.held(a, tx, a.input["VpnConnectionId"])
    held = _attachment(tx, row)
    if held is not None:
        drop_attachment(a, tx, held)
    VPN_CONNECTION.drop(a, tx, row)
    return {}

"""Premises: an account's own end of what leads to networks of the company's own, by VPN or by Direct Connect."""

from __future__ import annotations

from typing import Any, Final

from bastide.landing.blueprint import Blueprint, Premises
from bastide.landing.words import camel

Template = dict[str, Any]
_HTTPS: Final = 443
_ASN: Final = 65000


def of(blueprint: Blueprint, account: str) -> list[Premises]:
    """Those that an account reaches."""
    return [one for one in blueprint.premises if account in one.accounts]


def template(blueprint: Blueprint, account: str) -> Template:
    """A gateway of the account's VPC and what leads from it to each of the premises. Keys of tunnels are made by EC2, and
    told in the connection's configuration to who may read it."""
    word = camel(account)
    vpc = {"Ref": f"{word}VpcId"}
    made: Template = {
        "Gateway": {"Type": "AWS::EC2::VPNGateway", "Properties": {"Type": "ipsec.1"}},
        "Attached": {
            "Type": "AWS::EC2::VPCGatewayAttachment",
            "Properties": {"VpcId": vpc, "VpnGatewayId": {"Ref": "Gateway"}},
        },
        "Propagated": {
            "Type": "AWS::EC2::VPNGatewayRoutePropagation",
            "DependsOn": ["Attached"],
            "Properties": {"RouteTableIds": [{"Ref": f"{word}Routes"}], "VpnGatewayId": {"Ref": "Gateway"}},
        },
    }
    outputs: Template = {}
    for one in of(blueprint, account):
        name = camel(one.name)
        made |= _vpn(name, one) if one.gateway else _circuit(blueprint, name, one)
        outputs[f"{word}{name}"] = {"Value": {"Ref": f"{name}Link"}}
        for number, range_ in enumerate(one.ranges):
            for port in one.ports:
                if port != _HTTPS:  # jobs may call what they like by HTTPS; their network says what they reach
                    made[f"{name}Range{number}Port{port}"] = _lets(word, one, range_, port)
    return {"Resources": made, "Outputs": outputs}


def _vpn(name: str, one: Premises) -> Template:
    made: Template = {
        f"{name}Device": {
            "Type": "AWS::EC2::CustomerGateway",
            "Properties": {"Type": "ipsec.1", "IpAddress": one.gateway, "BgpAsn": _ASN},
        },
        f"{name}Link": {
            "Type": "AWS::EC2::VPNConnection",
            "Properties": {
                "Type": "ipsec.1",
                "CustomerGatewayId": {"Ref": f"{name}Device"},
                "VpnGatewayId": {"Ref": "Gateway"},
                "StaticRoutesOnly": True,
            },
        },
    }
    for number, range_ in enumerate(one.ranges):
        made[f"{name}Route{number}"] = {
            "Type": "AWS::EC2::VPNConnectionRoute",
            "Properties": {"VpnConnectionId": {"Ref": f"{name}Link"}, "DestinationCidrBlock": range_},
        }
    return made


def _circuit(blueprint: Blueprint, name: str, one: Premises) -> Template:
    return {
        f"{name}Link": {
            "Type": "AWS::DirectConnect::Connection",
            "Properties": {
                "ConnectionName": f"{blueprint.name}-{one.name}",
                "Location": one.location,
                "Bandwidth": one.bandwidth,
            },
        },
        f"{name}Interface": {
            "Type": "AWS::DirectConnect::PrivateVirtualInterface",
            "DependsOn": ["Attached"],
            "Properties": {
                "ConnectionId": {"Fn::GetAtt": [f"{name}Link", "ConnectionId"]},
                "VirtualInterfaceName": f"{blueprint.name}-{one.name}",
                "Vlan": one.vlan,
                "VirtualGatewayId": {"Ref": "Gateway"},
                "BgpPeers": [{"AddressFamily": "ipv4", "Asn": str(_ASN)}],
            },
        },
    }


def _lets(word: str, one: Premises, range_: str, port: int) -> Template:
    return {
        "Type": "AWS::EC2::SecurityGroupEgress",
        "Properties": {
            "GroupId": {"Ref": f"{word}Jobs"},
            "IpProtocol": "tcp",
            "FromPort": port,
            "ToPort": port,
            "CidrIp": range_,
            "Description": f"Premises {one.name}",
        },
    }

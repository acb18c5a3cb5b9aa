"""The transit gateway: accounts reach Shared Services and premises, and not each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from bastide.landing.blueprint import Blueprint
from bastide.landing.words import camel

Template = dict[str, Any]
HUB: Final = "shared-services"


def joined(blueprint: Blueprint) -> list[str]:
    """The accounts whose networks are joined, the hub first."""
    return [HUB, *(name for name, one in blueprint.accounts.items() if one.network and name != HUB)]


def gateway(blueprint: Blueprint) -> Template:
    """The gateway, shared with the organisation, and a table for the hub and one for the others."""
    made: Template = {
        "Transit": {
            "Type": "AWS::EC2::TransitGateway",
            "Properties": {
                "Description": f"Joins the networks of {blueprint.name}",
                "AutoAcceptSharedAttachments": "enable",
                "DefaultRouteTableAssociation": "disable",
                "DefaultRouteTablePropagation": "disable",
            },
        },
        "Share": {
            "Type": "AWS::RAM::ResourceShare",
            "Properties": {
                "Name": f"{blueprint.name}-transit",
                "AllowExternalPrincipals": False,
                "Principals": ["arn:aws:organizations::${ManagementAccount}:organization/${OrganizationId}"],
                "ResourceArns": [{"Fn::GetAtt": ["Transit", "TransitGatewayArn"]}],
            },
        },
    }
    for name in ("HubTable", "SpokeTable"):
        made[name] = {
            "Type": "AWS::EC2::TransitGatewayRouteTable",
            "Properties": {"TransitGatewayId": {"Ref": "Transit"}},
        }
    outputs = {name: {"Value": {"Ref": name}} for name in ("HubTable", "SpokeTable")}
    return {"Resources": made, "Outputs": {"TransitGateway": {"Value": {"Ref": "Transit"}}, **outputs}}


def attachment(blueprint: Blueprint, account: str) -> Template:
    """An account's VPC, attached; its subnets are led to the hub, and the hub's to all."""
    word = camel(account)
    others = joined(blueprint)[1:] if account == HUB else [HUB]
    made: Template = {
        "Joint": {
            "Type": "AWS::EC2::TransitGatewayAttachment",
            "Properties": {
                "TransitGatewayId": {"Ref": "TransitGateway"},
                "VpcId": {"Ref": f"{word}VpcId"},
                "SubnetIds": [{"Ref": f"{word}Subnet1"}, {"Ref": f"{word}Subnet2"}],
            },
        }
    }
    for other in others:
        made[f"To{camel(other)}"] = {
            "Type": "AWS::EC2::Route",
            "DependsOn": ["Joint"],
            "Properties": {
                "RouteTableId": {"Ref": f"{word}Routes"},
                "DestinationCidrBlock": blueprint.accounts[other].network,
                "TransitGatewayId": {"Ref": "TransitGateway"},
            },
        }
    return {"Resources": made, "Outputs": {f"{word}Joint": {"Value": {"Ref": "Joint"}}}}


def ways(blueprint: Blueprint) -> Template:
    """Which attachment is led where: a path that no table gives does not exist."""
    return {"Resources": dict(_ways(blueprint))}


def _ways(blueprint: Blueprint) -> Iterator[tuple[str, Template]]:
    for account in joined(blueprint):
        word = camel(account)
        own, other = ("HubTable", "SpokeTable") if account == HUB else ("SpokeTable", "HubTable")
        for verb, table in (("Association", own), ("Propagation", other)):
            yield (
                f"{word}{verb}",
                {
                    "Type": f"AWS::EC2::TransitGatewayRouteTable{verb}",
                    "Properties": {
                        "TransitGatewayRouteTableId": {"Ref": table},
                        "TransitGatewayAttachmentId": {"Ref": f"{word}Joint"},
                    },
                },
            )

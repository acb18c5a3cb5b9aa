"""EC2's types of what leads out of a VPC, and RAM's shares."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.services.cloudformation.resource import Action, Resource, Type, is_gone
from bastide.services.cloudformation.types.network import arn_of, lacking, retag, tagged
from bastide.services.cloudformation.types.regular import at, calls_of


def _made(operation: str, kind: str, result: str, *names: str, attributes: dict[str, str], fixed: Any = None) -> Action:
    """Creates by a call that takes properties as they are; the first attribute is Ref."""

    async def create(r: Resource) -> None:
        asked = {**(fixed or {}), **r.only(*names), **tagged(r, kind)}
        told = at(await r.do(operation, asked, key="create"), result)
        r.thing.attributes = {name: told[member] for name, member in attributes.items()}
        r.thing.physical = str(next(iter(r.thing.attributes.values())))

    return create


def _dropped(operation: str, member: str) -> Action:
    async def delete(r: Resource) -> None:
        await r.drop(operation, {member: r.physical})

    return delete


# -- internet gateways and routes --------------------------------------------------------------------------------------


_ATTACHED: Final = {"InternetGatewayId": ("InternetGateway", "IGW"), "VpnGatewayId": ("VpnGateway", "VGW")}


def _which(given: Any) -> str:
    """The property that names the gateway."""
    named = [name for name in _ATTACHED if given(name)]
    if len(named) != 1:
        raise Refused("ValidationError", "Either InternetGatewayId or VpnGatewayId must be provided.")
    return named[0]


async def _attach(r: Resource) -> None:
    name = _which(r.get)
    word, kind = _ATTACHED[name]
    await r.do(f"Attach{word}", r.only("VpcId", name))
    r.thing.physical = f"{kind}|{r.get('VpcId')}"
    r.thing.attributes = {"AttachmentType": kind}


async def _reattach(r: Resource) -> None:
    name = _which(r.old.get)
    await r.do(f"Detach{_ATTACHED[name][0]}", {"VpcId": r.get("VpcId"), name: r.old.get(name)})
    await _attach(r)


async def _detach(r: Resource) -> None:
    name = _which(r.get)
    try:
        await r.drop(f"Detach{_ATTACHED[name][0]}", r.only("VpcId", name))
    except Refused as refused:
        if refused.code not in ("Gateway.NotAttached", "InvalidVpnGatewayAttachment.NotFound"):
            raise


_TARGETS: Final = (
    "VpcEndpointId", "LocalGatewayId", "CarrierGatewayId", "CoreNetworkArn", "EgressOnlyInternetGatewayId", "InstanceId",
    "NetworkInterfaceId", "VpcPeeringConnectionId", "DestinationPrefixListId",
    "DestinationIpv6CidrBlock",
)  # fmt: skip
_ROUTE: Final = ("RouteTableId", "DestinationCidrBlock", "GatewayId", "NatGatewayId", "TransitGatewayId")


async def _create_route(r: Resource) -> None:
    lacking(r, *_TARGETS)
    await r.do("CreateRoute", r.only(*_ROUTE), key="create")
    r.thing.physical = f"{r.get('RouteTableId')}|{r.get('DestinationCidrBlock')}"
    r.thing.attributes = {"CidrBlock": r.get("DestinationCidrBlock")}


async def _update_route(r: Resource) -> None:
    lacking(r, *_TARGETS)
    await r.do("ReplaceRoute", r.only(*_ROUTE))


async def _delete_route(r: Resource) -> None:
    await r.drop("DeleteRoute", r.only("RouteTableId", "DestinationCidrBlock"))


# -- transit gateways --------------------------------------------------------------------------------------------------

_OPTIONS: Final = (
    "AmazonSideAsn", "AutoAcceptSharedAttachments", "DefaultRouteTableAssociation", "DefaultRouteTablePropagation",
    "DnsSupport", "MulticastSupport", "SecurityGroupReferencingSupport", "TransitGatewayCidrBlocks", "VpnEcmpSupport",
)  # fmt: skip


async def _create_gateway(r: Resource) -> None:
    lacking(r, "AssociationDefaultRouteTableId", "PropagationDefaultRouteTableId", "EncryptionSupport")
    options = r.only(*_OPTIONS)
    asked = {**r.only("Description"), **({"Options": options} if options else {}), **tagged(r, "transit-gateway")}
    made = (await r.do("CreateTransitGateway", asked, key="create"))["TransitGateway"]
    r.thing.physical = made["TransitGatewayId"]
    r.thing.attributes = {"Id": r.physical, "TransitGatewayArn": made["TransitGatewayArn"]}


async def _create_attachment(r: Resource) -> None:
    lacking(r, "AddSubnetIds", "RemoveSubnetIds")
    asked = r.only("TransitGatewayId", "VpcId", "SubnetIds", "Options")
    asked |= tagged(r, "transit-gateway-attachment")
    made = (await r.do("CreateTransitGatewayVpcAttachment", asked, key="create"))["TransitGatewayVpcAttachment"]
    r.thing.physical = made["TransitGatewayAttachmentId"]
    r.thing.attributes = {"Id": r.physical}


_PAIR: Final = ("TransitGatewayRouteTableId", "TransitGatewayAttachmentId")


def _paired(operation: str) -> Action:
    async def create(r: Resource) -> None:
        await r.do(operation, r.only(*_PAIR), key="create")
        r.thing.physical = "_".join(str(r.get(name)) for name in _PAIR)

    return create


def _parted(operation: str) -> Action:
    async def delete(r: Resource) -> None:
        await r.drop(operation, r.only(*_PAIR))

    return delete


async def _create_transit_route(r: Resource) -> None:
    await r.do("CreateTransitGatewayRoute", r.only("DestinationCidrBlock", "Blackhole", *_PAIR), key="create")
    r.thing.physical = f"{r.get('TransitGatewayRouteTableId')}_{r.get('DestinationCidrBlock')}"


async def _delete_transit_route(r: Resource) -> None:
    await r.drop("DeleteTransitGatewayRoute", r.only("DestinationCidrBlock", "TransitGatewayRouteTableId"))


# -- links to elsewhere ------------------------------------------------------------------------------------------------


_VPN: Final = ("CustomerGatewayId", "TransitGatewayId", "VpnGatewayId", "Type")
_VPN_OPTIONS: Final = {"StaticRoutesOnly": "StaticRoutesOnly", "VpnTunnelOptionsSpecifications": "TunnelOptions"}
"""Properties, and the options that they are."""


async def _create_vpn(r: Resource) -> None:
    told = {name for name in r.properties if r.get(name) not in (None, False, [], {})}
    lacking(r, *sorted(told - {*_VPN, *_VPN_OPTIONS, "Tags"}))
    asked = {**r.only(*_VPN), **tagged(r, "vpn-connection")}
    options = {option: r.get(name) for name, option in _VPN_OPTIONS.items() if r.get(name)}
    if options:
        asked["Options"] = options
    made = (await r.do("CreateVpnConnection", asked, key="create"))["VpnConnection"]
    r.thing.physical = made["VpnConnectionId"]
    r.thing.attributes = {"VpnConnectionId": r.physical}


async def _read_vpn(r: Resource) -> dict[str, Any] | None:
    told = await r.seen("DescribeVpnConnections", {"VpnConnectionIds": [r.physical]})
    if not told or not told["VpnConnections"]:
        return None
    held = told["VpnConnections"][0]
    return {name: held[name] for name in _VPN if held.get(name)} | {
        "StaticRoutesOnly": held["Options"]["StaticRoutesOnly"]
    }


async def _read_vpn_route(r: Resource) -> dict[str, Any] | None:
    asked = {"VpnConnectionIds": [r.get("VpnConnectionId")]}
    told = await r.seen("DescribeVpnConnections", asked)
    routes = told["VpnConnections"][0]["Routes"] if told and told["VpnConnections"] else []
    there = any(one["DestinationCidrBlock"] == r.get("DestinationCidrBlock") for one in routes)
    return r.only("VpnConnectionId", "DestinationCidrBlock") if there else None


async def _create_vpn_route(r: Resource) -> None:
    await r.do("CreateVpnConnectionRoute", r.only("VpnConnectionId", "DestinationCidrBlock"), key="create")
    r.thing.physical = f"{r.get('VpnConnectionId')}|{r.get('DestinationCidrBlock')}"


async def _delete_vpn_route(r: Resource) -> None:
    await r.drop("DeleteVpnConnectionRoute", r.only("VpnConnectionId", "DestinationCidrBlock"))


async def _propagate(r: Resource) -> None:
    for table in r.get("RouteTableIds") or ():
        await r.do("EnableVgwRoutePropagation", {"GatewayId": r.get("VpnGatewayId"), "RouteTableId": table})
    r.thing.physical = str(r.get("VpnGatewayId"))
    r.thing.attributes = {"Id": r.physical}


async def _repropagate(r: Resource) -> None:
    for table in set(r.old.get("RouteTableIds") or ()) - set(r.get("RouteTableIds") or ()):
        await r.drop("DisableVgwRoutePropagation", {"GatewayId": r.get("VpnGatewayId"), "RouteTableId": table})
    await _propagate(r)


async def _stop_propagating(r: Resource) -> None:
    for table in r.get("RouteTableIds") or ():
        await r.drop("DisableVgwRoutePropagation", {"GatewayId": r.get("VpnGatewayId"), "RouteTableId": table})


# -- flow logs ---------------------------------------------------------------------------------------------------------

_FLOW_LOG: Final = (
    "ResourceType", "TrafficType", "LogGroupName", "LogDestinationType", "LogDestination", "DeliverLogsPermissionArn",
    "LogFormat", "MaxAggregationInterval", "DestinationOptions",
)  # fmt: skip


async def _create_flow_log(r: Resource) -> None:
    lacking(r, "DeliverCrossAccountRole", "TagFieldSpecifications")
    asked = {"ResourceIds": [r.get("ResourceId")], **r.only(*_FLOW_LOG), **tagged(r, "vpc-flow-log")}
    made = await r.do("CreateFlowLogs", asked, key="create")
    for one in made.get("Unsuccessful") or ():
        raise Refused(one["Error"]["Code"], one["Error"]["Message"])
    r.thing.physical = made["FlowLogIds"][0]
    r.thing.attributes = {"Id": r.physical}


async def _delete_flow_log(r: Resource) -> None:
    answer = await r.do("DeleteFlowLogs", {"FlowLogIds": [r.physical]})
    for one in answer.get("Unsuccessful") or ():
        refused = Refused(one["Error"]["Code"], one["Error"]["Message"])
        if not is_gone(refused):
            raise refused


# -- shares ------------------------------------------------------------------------------------------------------------


def _members(r: Resource) -> dict[str, list[str]]:
    return {"principals": list(r.get("Principals") or ()), "resourceArns": list(r.get("ResourceArns") or ())}


def _ram_tags(r: Resource) -> list[dict[str, str]]:
    return [{"key": one["Key"], "value": one["Value"]} for one in r.tags()]


async def _create_share(r: Resource) -> None:
    lacking(r, "Sources", "ResourceShareConfiguration")
    asked: dict[str, Any] = {"name": r.get("Name"), **{key: one for key, one in _members(r).items() if one}}
    if r.get("AllowExternalPrincipals") is not None:
        asked["allowExternalPrincipals"] = r.get("AllowExternalPrincipals")
    if r.get("PermissionArns"):
        asked["permissionArns"] = r.get("PermissionArns")
    if r.tags():
        asked["tags"] = _ram_tags(r)
    made = (await r.do("CreateResourceShare", asked, key="create"))["resourceShare"]
    r.thing.physical = made["resourceShareArn"]
    r.thing.attributes = {"Arn": r.physical}


async def _update_share(r: Resource) -> None:
    lacking(r, "Sources", "ResourceShareConfiguration")
    named = {"resourceShareArn": r.physical}
    if r.changed("Name", "AllowExternalPrincipals"):
        external = r.get("AllowExternalPrincipals")
        more = {} if external is None else {"allowExternalPrincipals": external}
        await r.do("UpdateResourceShare", {**named, "name": r.get("Name"), **more})
    before = {"principals": r.old.get("Principals") or [], "resourceArns": r.old.get("ResourceArns") or []}
    new = {key: [one for one in now if one not in before[key]] for key, now in _members(r).items()}
    gone = {key: [one for one in held if one not in _members(r)[key]] for key, held in before.items()}
    if any(new.values()):
        await r.do("AssociateResourceShare", {**named, **{key: one for key, one in new.items() if one}})
    if any(gone.values()):
        await r.do("DisassociateResourceShare", {**named, **{key: one for key, one in gone.items() if one}})
    left = {one["Key"] for one in r.old.get("Tags") or ()} - {one["key"] for one in _ram_tags(r)}
    if left:
        await r.do("UntagResource", {**named, "tagKeys": sorted(left)})
    if r.changed("Tags") and r.tags():
        await r.do("TagResource", {**named, "tags": _ram_tags(r)})


_TAGS: Final = ("CreateTags", "DeleteTags")
_ATTACHING: Final = calls_of(
    "ec2", ["CreateTransitGatewayVpcAttachment", "DeleteTransitGatewayVpcAttachment", *_TAGS]
)  # fmt: skip
_SHARING: Final = (
    "CreateResourceShare", "DeleteResourceShare", "UpdateResourceShare", "AssociateResourceShare",
    "DisassociateResourceShare", "TagResource", "UntagResource",
)  # fmt: skip

TYPES: Final = (
    Type("AWS::EC2::InternetGateway", "ec2",
         _made("CreateInternetGateway", "internet-gateway", "InternetGateway",
               attributes={"InternetGatewayId": "InternetGatewayId"}),
         _dropped("DeleteInternetGateway", "InternetGatewayId"), retag, None,
         calls_of("ec2", ["CreateInternetGateway", "DeleteInternetGateway", *_TAGS]), frozenset(),
         arn_of("internet-gateway")),
    Type("AWS::EC2::VPCGatewayAttachment", "ec2", _attach, _detach, _reattach, None,
         calls_of("ec2", ["AttachInternetGateway", "DetachInternetGateway", "AttachVpnGateway", "DetachVpnGateway"])),
    Type("AWS::EC2::Route", "ec2", _create_route, _delete_route, _update_route, None,
         calls_of("ec2", ["CreateRoute", "DeleteRoute", "ReplaceRoute"])),
    Type("AWS::EC2::TransitGateway", "ec2", _create_gateway, _dropped("DeleteTransitGateway", "TransitGatewayId"),
         retag, None, calls_of("ec2", ["CreateTransitGateway", "DeleteTransitGateway", *_TAGS]),
         frozenset({*_OPTIONS, "Description"}), arn_of("transit-gateway")),
    *(
        Type(f"AWS::EC2::{name}", "ec2", _create_attachment,
             _dropped("DeleteTransitGatewayVpcAttachment", "TransitGatewayAttachmentId"), retag, None, _ATTACHING,
             frozenset({"SubnetIds", "Options"}), arn_of("transit-gateway-attachment"))
        for name in ("TransitGatewayAttachment", "TransitGatewayVpcAttachment")
    ),
    Type("AWS::EC2::TransitGatewayRouteTable", "ec2",
         _made("CreateTransitGatewayRouteTable", "transit-gateway-route-table", "TransitGatewayRouteTable",
               "TransitGatewayId", attributes={"TransitGatewayRouteTableId": "TransitGatewayRouteTableId"}),
         _dropped("DeleteTransitGatewayRouteTable", "TransitGatewayRouteTableId"), retag, None,
         calls_of("ec2", ["CreateTransitGatewayRouteTable", "DeleteTransitGatewayRouteTable", *_TAGS]),
         frozenset(), arn_of("transit-gateway-route-table")),
    Type("AWS::EC2::TransitGatewayRouteTableAssociation", "ec2", _paired("AssociateTransitGatewayRouteTable"),
         _parted("DisassociateTransitGatewayRouteTable"), None, None,
         calls_of("ec2", ["AssociateTransitGatewayRouteTable", "DisassociateTransitGatewayRouteTable"])),
    Type("AWS::EC2::TransitGatewayRouteTablePropagation", "ec2",
         _paired("EnableTransitGatewayRouteTablePropagation"), _parted("DisableTransitGatewayRouteTablePropagation"),
         None, None,
         calls_of("ec2", ["EnableTransitGatewayRouteTablePropagation", "DisableTransitGatewayRouteTablePropagation"])),
    Type("AWS::EC2::TransitGatewayRoute", "ec2", _create_transit_route, _delete_transit_route, None, None,
         calls_of("ec2", ["CreateTransitGatewayRoute", "DeleteTransitGatewayRoute"])),
    Type("AWS::EC2::CustomerGateway", "ec2",
         _made("CreateCustomerGateway", "customer-gateway", "CustomerGateway", "BgpAsn", "BgpAsnExtended", "IpAddress",
               "CertificateArn", "Type", "DeviceName", attributes={"CustomerGatewayId": "CustomerGatewayId"}),
         _dropped("DeleteCustomerGateway", "CustomerGatewayId"), retag, None,
         calls_of("ec2", ["CreateCustomerGateway", "DeleteCustomerGateway", *_TAGS]), frozenset(),
         arn_of("customer-gateway")),
    Type("AWS::EC2::VPNConnection", "ec2", _create_vpn, _dropped("DeleteVpnConnection", "VpnConnectionId"), retag,
         _read_vpn,
         calls_of("ec2", ["CreateVpnConnection", "DeleteVpnConnection", *_TAGS]),
         frozenset({"CustomerGatewayId", "TransitGatewayId", "VpnGatewayId", *_VPN_OPTIONS}), arn_of("vpn-connection")),
    Type("AWS::EC2::VPNGateway", "ec2",
         _made("CreateVpnGateway", "vpn-gateway", "VpnGateway", "Type", "AmazonSideAsn",
               attributes={"VPNGatewayId": "VpnGatewayId"}),
         _dropped("DeleteVpnGateway", "VpnGatewayId"), retag, None,
         calls_of("ec2", ["CreateVpnGateway", "DeleteVpnGateway", *_TAGS]), frozenset(), arn_of("vpn-gateway")),
    Type("AWS::EC2::VPNConnectionRoute", "ec2", _create_vpn_route, _delete_vpn_route, None, _read_vpn_route,
         calls_of("ec2", ["CreateVpnConnectionRoute", "DeleteVpnConnectionRoute"])),
    Type("AWS::EC2::VPNGatewayRoutePropagation", "ec2", _propagate, _stop_propagating, _repropagate, None,
         calls_of("ec2", ["EnableVgwRoutePropagation", "DisableVgwRoutePropagation"])),
    Type("AWS::EC2::FlowLog", "ec2", _create_flow_log, _delete_flow_log, retag, None,
         calls_of("ec2", ["CreateFlowLogs", "DeleteFlowLogs", *_TAGS]), frozenset(), arn_of("vpc-flow-log")),
    Type("AWS::RAM::ResourceShare", "ram", _create_share, _dropped("DeleteResourceShare", "resourceShareArn"),
         _update_share, None, calls_of("ram", _SHARING), frozenset({"PermissionArns"}), lambda r: r.physical),
)  # fmt: skip
"""Types of what connects networks."""

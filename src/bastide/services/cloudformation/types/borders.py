"""EC2's types of what stands at a network's borders: public addresses, NAT gateways, network ACLs; and DHCP options."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.services.cloudformation.resource import Resource, Type, is_gone
from bastide.services.cloudformation.types.network import arn_of, lacking, retag, tagged
from bastide.services.cloudformation.types.regular import calls_of

_TAGS: Final = ("CreateTags", "DeleteTags")


async def _retag_address(r: Resource) -> None:
    physical, r.thing.physical = r.physical, r.thing.attributes["AllocationId"]
    try:
        await retag(r)
    finally:
        r.thing.physical = physical


async def _allocate(r: Resource) -> None:
    lacking(r, "InstanceId", "TransferAddress", "Address", "IpamPoolId")
    asked = r.only("Domain", "NetworkBorderGroup", "PublicIpv4Pool")
    made = await r.do("AllocateAddress", {**asked, **tagged(r, "elastic-ip")}, key="create")
    r.thing.physical = made["PublicIp"]
    r.thing.attributes = {"PublicIp": made["PublicIp"], "AllocationId": made["AllocationId"]}


async def _release(r: Resource) -> None:
    await r.drop("ReleaseAddress", {"AllocationId": r.thing.attributes["AllocationId"]})


async def _associate_address(r: Resource) -> None:
    lacking(r, "InstanceId")
    asked = r.only("AllocationId", "NetworkInterfaceId", "PrivateIpAddress")
    if r.get("EIP"):
        asked["PublicIp"] = r.get("EIP")
    made = await r.do("AssociateAddress", asked, key="create")
    r.thing.physical = made["AssociationId"]
    r.thing.attributes = {"Id": made["AssociationId"]}


async def _disassociate_address(r: Resource) -> None:
    await r.drop("DisassociateAddress", {"AssociationId": r.physical})


# -- NAT gateways ------------------------------------------------------------------------------------------------------

_NAT: Final = (
    "AvailabilityMode", "AvailabilityZoneAddresses", "MaxDrainDurationSeconds", "SecondaryAllocationIds",
    "SecondaryPrivateIpAddressCount", "SecondaryPrivateIpAddresses", "VpcId",
)  # fmt: skip


async def _create_nat(r: Resource) -> None:
    lacking(r, *_NAT)
    asked = r.only("AllocationId", "SubnetId", "ConnectivityType", "PrivateIpAddress")
    made = (await r.do("CreateNatGateway", {**asked, **tagged(r, "natgateway")}, key="create"))["NatGateway"]
    r.thing.physical = made["NatGatewayId"]
    r.thing.attributes = {
        "NatGatewayId": made["NatGatewayId"],
        "EniId": made["NatGatewayAddresses"][0]["NetworkInterfaceId"],
    }
    await r.until(lambda: _nat_stands(r))


async def _nat_stands(r: Resource) -> bool:
    told = await r.read("DescribeNatGateways", {"NatGatewayIds": [r.physical]})
    held = told["NatGateways"][0]
    if held["State"] == "failed":
        raise Refused(held["FailureCode"], held["FailureMessage"])
    return bool(held["State"] == "available")


async def _delete_nat(r: Resource) -> None:
    await r.drop("DeleteNatGateway", {"NatGatewayId": r.physical})


# -- DHCP options ------------------------------------------------------------------------------------------------------

_OPTIONS: Final = {
    "DomainName": "domain-name", "DomainNameServers": "domain-name-servers", "NtpServers": "ntp-servers",
    "NetbiosNameServers": "netbios-name-servers", "NetbiosNodeType": "netbios-node-type",
    "Ipv6AddressPreferredLeaseTime": "ipv6-address-preferred-lease-time",
}  # fmt: skip


async def _create_options(r: Resource) -> None:
    held = []
    for name, key in _OPTIONS.items():
        value = r.get(name)
        if value not in (None, []):
            values = [str(one) for one in value] if isinstance(value, list) else [str(value)]
            held.append({"Key": key, "Values": values})
    made = await r.do("CreateDhcpOptions", {"DhcpConfigurations": held, **tagged(r, "dhcp-options")}, key="create")
    r.thing.physical = made["DhcpOptions"]["DhcpOptionsId"]
    r.thing.attributes = {"DhcpOptionsId": r.physical}


async def _delete_options(r: Resource) -> None:
    await r.drop("DeleteDhcpOptions", {"DhcpOptionsId": r.physical})


async def _associate_options(r: Resource) -> None:
    await r.do("AssociateDhcpOptions", r.only("DhcpOptionsId", "VpcId"))
    r.thing.physical = f"{r.get('DhcpOptionsId')}|{r.get('VpcId')}"


async def _part_options(r: Resource) -> None:
    told = await r.seen("DescribeVpcs", {"VpcIds": [r.get("VpcId")]})
    if told and told["Vpcs"] and told["Vpcs"][0]["DhcpOptionsId"] == r.get("DhcpOptionsId"):
        await r.drop("AssociateDhcpOptions", {"DhcpOptionsId": "default", "VpcId": r.get("VpcId")})


# -- network ACLs ------------------------------------------------------------------------------------------------------


async def _create_acl(r: Resource) -> None:
    asked = {**r.only("VpcId"), **tagged(r, "network-acl")}
    made = (await r.do("CreateNetworkAcl", asked, key="create"))["NetworkAcl"]
    r.thing.physical = made["NetworkAclId"]
    r.thing.attributes = {"Id": r.physical}


async def _delete_acl(r: Resource) -> None:
    await r.drop("DeleteNetworkAcl", {"NetworkAclId": r.physical})


def _entry(r: Resource) -> dict[str, Any]:
    asked = r.only("NetworkAclId", "RuleNumber", "RuleAction", "CidrBlock", "Ipv6CidrBlock", "PortRange")
    asked |= {"Protocol": str(r.get("Protocol")), "Egress": bool(r.get("Egress", False))}
    if r.get("Icmp"):
        asked["IcmpTypeCode"] = r.get("Icmp")
    return asked


async def _create_entry(r: Resource) -> None:
    await r.do("CreateNetworkAclEntry", _entry(r), key="create")
    r.thing.physical = r.name(255)
    r.thing.attributes = {"Id": r.physical}


async def _update_entry(r: Resource) -> None:
    await r.do("ReplaceNetworkAclEntry", _entry(r))


async def _delete_entry(r: Resource) -> None:
    asked = {**r.only("NetworkAclId", "RuleNumber"), "Egress": bool(r.get("Egress", False))}
    await r.drop("DeleteNetworkAclEntry", asked)


async def _associated(r: Resource, filters: list[dict[str, Any]]) -> dict[str, Any] | None:
    told = await r.read("DescribeNetworkAcls", {"Filters": filters})
    return next(iter(told["NetworkAcls"]), None)


async def _associate_acl(r: Resource) -> None:
    subnet = r.get("SubnetId")
    now = await _associated(r, [{"Name": "association.subnet-id", "Values": [subnet]}])
    if now is None:
        raise Refused("InvalidSubnetID.NotFound", f"The subnet ID '{subnet}' does not exist")
    id = next(one["NetworkAclAssociationId"] for one in now["Associations"] if one["SubnetId"] == subnet)
    asked = {"AssociationId": id, **r.only("NetworkAclId")}
    made = await r.do("ReplaceNetworkAclAssociation", asked, key="create")
    r.thing.physical = made["NewAssociationId"]
    r.thing.attributes = {"AssociationId": r.physical}


async def _part_acl(r: Resource) -> None:
    held = await _associated(r, [{"Name": "association.association-id", "Values": [r.physical]}])
    if held is None:
        return
    own = [{"Name": "vpc-id", "Values": [held["VpcId"]]}, {"Name": "default", "Values": ["true"]}]
    default = await _associated(r, own)
    if default is None:
        return
    try:
        asked = {"AssociationId": r.physical, "NetworkAclId": default["NetworkAclId"]}
        await r.do("ReplaceNetworkAclAssociation", asked, key="delete")
    except Refused as refused:
        if not is_gone(refused):
            raise


TYPES: Final = (
    Type("AWS::EC2::EIP", "ec2", _allocate, _release, _retag_address, None,
         calls_of("ec2", ["AllocateAddress", "ReleaseAddress", *_TAGS]), frozenset({"PublicIpv4Pool", "InstanceId"}),
         lambda r: f"arn:aws:ec2:{r.stack.region}:{r.stack.account}:elastic-ip/{r.thing.attributes['AllocationId']}"),
    Type("AWS::EC2::EIPAssociation", "ec2", _associate_address, _disassociate_address, None, None,
         calls_of("ec2", ["AssociateAddress", "DisassociateAddress"])),
    Type("AWS::EC2::NatGateway", "ec2", _create_nat, _delete_nat, retag, None,
         calls_of("ec2", ["CreateNatGateway", "DeleteNatGateway", "DescribeNatGateways", *_TAGS]), frozenset(_NAT),
         arn_of("natgateway")),
    Type("AWS::EC2::DHCPOptions", "ec2", _create_options, _delete_options, retag, None,
         calls_of("ec2", ["CreateDhcpOptions", "DeleteDhcpOptions", *_TAGS]), frozenset(), arn_of("dhcp-options")),
    Type("AWS::EC2::VPCDHCPOptionsAssociation", "ec2", _associate_options, _part_options, None, None,
         calls_of("ec2", ["AssociateDhcpOptions", "DescribeVpcs"]), frozenset({"VpcId"})),
    Type("AWS::EC2::NetworkAcl", "ec2", _create_acl, _delete_acl, retag, None,
         calls_of("ec2", ["CreateNetworkAcl", "DeleteNetworkAcl", *_TAGS]), frozenset(), arn_of("network-acl")),
    Type("AWS::EC2::NetworkAclEntry", "ec2", _create_entry, _delete_entry, _update_entry, None,
         calls_of("ec2", ["CreateNetworkAclEntry", "DeleteNetworkAclEntry", "ReplaceNetworkAclEntry"])),
    Type("AWS::EC2::SubnetNetworkAclAssociation", "ec2", _associate_acl, _part_acl, None, None,
         calls_of("ec2", ["ReplaceNetworkAclAssociation", "DescribeNetworkAcls"])),
)  # fmt: skip
"""Types of what stands at a network's borders."""

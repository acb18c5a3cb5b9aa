"""EC2's types: what a network is made of."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.services.cloudformation.resource import Resource, Type, is_gone
from bastide.services.cloudformation.types.identity import document
from bastide.services.cloudformation.types.regular import calls_of

_IP: Final = ("IpProtocol", "FromPort", "ToPort", "CidrIp", "CidrIpv6", "Description")


def tagged(r: Resource, kind: str) -> dict[str, Any]:
    """The stack's tags and the resource's own, as a creation takes them."""
    tags = r.tags()
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": tags}]} if tags else {}


async def retag(r: Resource) -> None:
    """Makes the tags those that are wanted now."""
    before = {one["Key"]: str(one["Value"]) for one in r.old.get("Tags") or ()}
    after = {one["Key"]: one["Value"] for one in r.tags()}
    gone = sorted(set(before) - set(after))
    if gone:
        await r.do("DeleteTags", {"Resources": [r.physical], "Tags": [{"Key": key} for key in gone]})
    if before != after and after:
        await r.do(
            "CreateTags", {"Resources": [r.physical], "Tags": [{"Key": k, "Value": v} for k, v in after.items()]}
        )


def lacking(r: Resource, *names: str) -> None:
    """Raises Refused for a property that would have no effect; one that asks for what is so anyway is none."""
    found = [name for name in names if r.get(name) not in (None, False, "default", [], {})]
    if found:
        raise Refused("ValidationError", f"Bastide's networks do not have {', '.join(found)} yet; leave it out.")


# -- VPCs and subnets --------------------------------------------------------------------------------------------------


async def _create_vpc(r: Resource) -> None:
    lacking(r, "Ipv4IpamPoolId", "Ipv4NetmaskLength", "VpcEncryptionControl")
    asked = {**r.only("CidrBlock", "InstanceTenancy"), **tagged(r, "vpc")}
    made = (await r.do("CreateVpc", asked, key="create"))["Vpc"]
    r.thing.physical = made["VpcId"]
    await _dns(r)
    inside = [{"Name": "vpc-id", "Values": [r.physical]}, {"Name": "group-name", "Values": ["default"]}]
    groups = (await r.read("DescribeSecurityGroups", {"Filters": inside}))["SecurityGroups"]
    own = [{"Name": "vpc-id", "Values": [r.physical]}, {"Name": "default", "Values": ["true"]}]
    acls = (await r.read("DescribeNetworkAcls", {"Filters": own}))["NetworkAcls"]
    r.thing.attributes = {
        "VpcId": made["VpcId"],
        "CidrBlock": made["CidrBlock"],
        "CidrBlockAssociations": [one["AssociationId"] for one in made.get("CidrBlockAssociationSet") or ()],
        "Ipv6CidrBlocks": [],
        "DefaultSecurityGroup": groups[0]["GroupId"] if groups else "",
        "DefaultNetworkAcl": acls[0]["NetworkAclId"] if acls else "",
    }


async def _dns(r: Resource) -> None:
    # Names of hosts need support of DNS, so what is switched on goes first and what is switched off last.
    order = ("EnableDnsSupport", "EnableDnsHostnames")
    wanted = {"EnableDnsSupport": True, "EnableDnsHostnames": False}
    now = {name: r.get(name, wanted[name]) for name in order}
    before = {name: r.old.get(name, wanted[name]) for name in order}
    for name in order if now["EnableDnsSupport"] else reversed(order):
        if now[name] != before[name]:
            await r.do("ModifyVpcAttribute", {"VpcId": r.physical, name: {"Value": now[name]}})


async def _update_vpc(r: Resource) -> None:
    await _dns(r)
    await retag(r)


async def _delete_vpc(r: Resource) -> None:
    await r.drop("DeleteVpc", {"VpcId": r.physical})


async def _read_vpc(r: Resource) -> dict[str, Any] | None:
    told = await r.seen("DescribeVpcs", {"VpcIds": [r.physical]})
    if not told or not told["Vpcs"]:
        return None
    found: dict[str, Any] = {"CidrBlock": told["Vpcs"][0]["CidrBlock"]}
    for name, member in (("enableDnsSupport", "EnableDnsSupport"), ("enableDnsHostnames", "EnableDnsHostnames")):
        if member in r.properties:
            asked = await r.read("DescribeVpcAttribute", {"VpcId": r.physical, "Attribute": name})
            found[member] = asked[member]["Value"]
    return found


async def _create_subnet(r: Resource) -> None:
    lacking(
        r, "AssignIpv6AddressOnCreation", "Ipv6CidrBlock", "Ipv6Native", "OutpostArn", "EnableDns64",
        "Ipv4IpamPoolId", "Ipv6IpamPoolId", "PrivateDnsNameOptionsOnLaunch",
    )  # fmt: skip
    asked = r.only("VpcId", "CidrBlock", "AvailabilityZone", "AvailabilityZoneId")
    made = (await r.do("CreateSubnet", {**asked, **tagged(r, "subnet")}, key="create"))["Subnet"]
    r.thing.physical = made["SubnetId"]
    r.thing.attributes = {
        "SubnetId": made["SubnetId"],
        "VpcId": made["VpcId"],
        "CidrBlock": made["CidrBlock"],
        "AvailabilityZone": made["AvailabilityZone"],
        "Ipv6CidrBlocks": [],
    }
    if _true(r.get("MapPublicIpOnLaunch")):
        await _map(r)


def _true(value: Any) -> bool:
    return str(value).lower() == "true"


async def _map(r: Resource) -> None:
    asked = {"SubnetId": r.physical, "MapPublicIpOnLaunch": {"Value": _true(r.get("MapPublicIpOnLaunch"))}}
    await r.do("ModifySubnetAttribute", asked, key="map")


async def _update_subnet(r: Resource) -> None:
    if r.changed("MapPublicIpOnLaunch"):
        await _map(r)
    await retag(r)


async def _delete_subnet(r: Resource) -> None:
    await r.drop("DeleteSubnet", {"SubnetId": r.physical})


async def _create_table(r: Resource) -> None:
    made = await r.do("CreateRouteTable", {**r.only("VpcId"), **tagged(r, "route-table")}, key="create")
    r.thing.physical = made["RouteTable"]["RouteTableId"]
    r.thing.attributes = {"RouteTableId": r.physical}


async def _delete_table(r: Resource) -> None:
    await r.drop("DeleteRouteTable", {"RouteTableId": r.physical})


async def _associate(r: Resource) -> None:
    made = await r.do("AssociateRouteTable", r.only("RouteTableId", "SubnetId"), key="create")
    r.thing.physical = made["AssociationId"]
    r.thing.attributes = {"Id": made["AssociationId"]}


async def _reassociate(r: Resource) -> None:
    asked = {"AssociationId": r.physical, **r.only("RouteTableId")}
    made = await r.do("ReplaceRouteTableAssociation", asked)
    r.thing.physical = made["NewAssociationId"]
    r.thing.attributes = {"Id": made["NewAssociationId"]}


async def _disassociate(r: Resource) -> None:
    await r.drop("DisassociateRouteTable", {"AssociationId": r.physical})


# -- security groups ---------------------------------------------------------------------------------------------------


def _permission(rule: dict[str, Any], *, egress: bool) -> dict[str, Any]:
    """A rule as the API takes it."""
    told = {"Description": rule["Description"]} if rule.get("Description") else {}
    made: dict[str, Any] = {
        name: rule[name] for name in ("IpProtocol", "FromPort", "ToPort") if rule.get(name) is not None
    }
    group = rule.get("DestinationSecurityGroupId" if egress else "SourceSecurityGroupId")
    prefix = rule.get("DestinationPrefixListId" if egress else "SourcePrefixListId")
    if rule.get("CidrIp"):
        made["IpRanges"] = [{"CidrIp": rule["CidrIp"], **told}]
    if rule.get("CidrIpv6"):
        made["Ipv6Ranges"] = [{"CidrIpv6": rule["CidrIpv6"], **told}]
    if group:
        owner = rule.get("SourceSecurityGroupOwnerId")
        made["UserIdGroupPairs"] = [{"GroupId": group, **({"UserId": owner} if owner else {}), **told}]
    if prefix:
        made["PrefixListIds"] = [{"PrefixListId": prefix, **told}]
    if rule.get("SourceSecurityGroupName"):
        raise Refused("ValidationError", "SourceSecurityGroupName: in a VPC groups go by SourceSecurityGroupId.")
    return made


def _rules(properties: dict[str, Any], member: str) -> list[dict[str, Any]]:
    return [_permission(one, egress=member.endswith("Egress")) for one in properties.get(member) or ()]


async def _create_group(r: Resource) -> None:
    asked = {
        "GroupName": r.name(255, given=r.get("GroupName")),
        "Description": r.get("GroupDescription"),
        **r.only("VpcId"),
    }
    made = await r.do("CreateSecurityGroup", {**asked, **tagged(r, "security-group")}, key="create")
    r.thing.physical = made["GroupId"]
    r.thing.attributes = {"GroupId": made["GroupId"], "Id": made["GroupId"], **r.only("VpcId")}
    if r.get("SecurityGroupEgress") is not None:
        everywhere = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        await r.do("RevokeSecurityGroupEgress", {"GroupId": r.physical, "IpPermissions": [everywhere]}, key="default")
    await _group_rules(r)


async def _group_rules(r: Resource) -> None:
    for member, word in (("SecurityGroupIngress", "Ingress"), ("SecurityGroupEgress", "Egress")):
        before, after = _rules(r.old, member), _rules(r.properties, member)
        gone = [one for one in before if one not in after]
        new = [one for one in after if one not in before]
        if gone:
            await r.drop(f"RevokeSecurityGroup{word}", {"GroupId": r.physical, "IpPermissions": gone})
        if new:
            await r.do(f"AuthorizeSecurityGroup{word}", {"GroupId": r.physical, "IpPermissions": new})


async def _update_group(r: Resource) -> None:
    await _group_rules(r)
    await retag(r)


async def _delete_group(r: Resource) -> None:
    await r.drop("DeleteSecurityGroup", {"GroupId": r.physical})


async def _read_group(r: Resource) -> dict[str, Any] | None:
    told = await r.seen("DescribeSecurityGroups", {"GroupIds": [r.physical]})
    if not told or not told["SecurityGroups"]:
        return None
    held = told["SecurityGroups"][0]
    found: dict[str, Any] = {"GroupDescription": held["Description"]}
    for member, key in (("SecurityGroupIngress", "IpPermissions"), ("SecurityGroupEgress", "IpPermissionsEgress")):
        if member not in r.properties:
            continue
        wanted = {_flat(one) for rule in _rules(r.properties, member) for one in _single(rule)}
        has = {_flat(one) for rule in held.get(key) or () for one in _single(rule)}
        found[member] = r.get(member) if wanted <= has else [dict(one) for one in sorted(has)]
    return found


def _single(rule: dict[str, Any]) -> list[dict[str, Any]]:
    base = {name: rule.get(name) for name in ("IpProtocol", "FromPort", "ToPort") if rule.get(name) is not None}
    ranges = [{**base, "CidrIp": one["CidrIp"]} for one in rule.get("IpRanges") or ()]
    groups = [{**base, "Group": one["GroupId"]} for one in rule.get("UserIdGroupPairs") or ()]
    return ranges + groups + [{**base, "List": one["PrefixListId"]} for one in rule.get("PrefixListIds") or ()]


def _flat(rule: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, str(value)) for key, value in rule.items()))


def _rule_type(word: str) -> Type:
    egress = word == "Egress"

    async def create(r: Resource) -> None:
        asked = {"GroupId": r.get("GroupId"), "IpPermissions": [_permission(r.properties, egress=egress)]}
        made = await r.do(f"AuthorizeSecurityGroup{word}", asked, key="create")
        r.thing.physical = made["SecurityGroupRules"][0]["SecurityGroupRuleId"]
        r.thing.attributes = {"Id": r.physical}

    async def delete(r: Resource) -> None:
        asked = {"GroupId": r.get("GroupId"), "SecurityGroupRuleIds": [r.physical]}
        await r.drop(f"RevokeSecurityGroup{word}", asked)

    calls = calls_of("ec2", [f"AuthorizeSecurityGroup{word}", f"RevokeSecurityGroup{word}"])
    every = frozenset({*_IP, "SourceSecurityGroupId", "DestinationSecurityGroupId", "GroupId"})
    return Type(f"AWS::EC2::SecurityGroup{word}", "ec2", create, delete, None, None, calls, every)


# -- endpoints and interfaces ------------------------------------------------------------------------------------------


async def _create_endpoint(r: Resource) -> None:
    asked = r.only(
        "VpcId", "ServiceName", "VpcEndpointType", "RouteTableIds", "SubnetIds", "SecurityGroupIds", "PrivateDnsEnabled",
        "IpAddressType", "DnsOptions",
    )  # fmt: skip
    if asked.get("VpcEndpointType") != "Interface":
        asked.pop("PrivateDnsEnabled", None)
    else:
        asked.setdefault("PrivateDnsEnabled", False)
    if r.get("PolicyDocument") is not None:
        asked["PolicyDocument"] = document(r.get("PolicyDocument"))
    made = await r.do("CreateVpcEndpoint", {**asked, **tagged(r, "vpc-endpoint")}, key="create")
    r.thing.physical = made["VpcEndpoint"]["VpcEndpointId"]
    await r.until(lambda: _available(r))


async def _endpoint(r: Resource) -> dict[str, Any] | None:
    told = await r.seen("DescribeVpcEndpoints", {"VpcEndpointIds": [r.physical]})
    found = (told or {}).get("VpcEndpoints") or [None]
    held: dict[str, Any] | None = found[0]
    return held


async def _available(r: Resource) -> bool:
    held = await _endpoint(r)
    if held is None or held["State"] in ("failed", "rejected"):
        raise Refused("NotStabilized", f"The VPC endpoint {r.physical} did not become available.")
    entries = [f"{one.get('HostedZoneId', '')}:{one['DnsName']}" for one in held.get("DnsEntries") or ()]
    r.thing.attributes = {
        "Id": r.physical,
        "CreationTimestamp": str(held["CreationTimestamp"]),
        "DnsEntries": entries,
        "NetworkInterfaceIds": list(held.get("NetworkInterfaceIds") or ()),
    }
    return bool(held["State"] == "available")


async def _update_endpoint(r: Resource) -> None:
    asked: dict[str, Any] = {}
    if r.changed("PolicyDocument"):
        if r.get("PolicyDocument") is None:
            asked["ResetPolicy"] = True
        else:
            asked["PolicyDocument"] = document(r.get("PolicyDocument"))
    if r.changed("PrivateDnsEnabled"):
        asked["PrivateDnsEnabled"] = r.get("PrivateDnsEnabled") or False
    for member, stem in (
        ("RouteTableIds", "RouteTableIds"),
        ("SubnetIds", "SubnetIds"),
        ("SecurityGroupIds", "SecurityGroupIds"),
    ):
        before, after = set(r.old.get(member) or ()), set(r.get(member) or ())
        if after - before:
            asked[f"Add{stem}"] = sorted(after - before)
        if before - after:
            asked[f"Remove{stem}"] = sorted(before - after)
    if asked:
        await r.do("ModifyVpcEndpoint", {"VpcEndpointId": r.physical, **asked})
    await retag(r)
    await r.until(lambda: _available(r))


async def _delete_endpoint(r: Resource) -> None:
    answer = await r.do("DeleteVpcEndpoints", {"VpcEndpointIds": [r.physical]})
    for one in answer.get("Unsuccessful") or ():
        error = one["Error"]
        refused = Refused(error["Code"], error["Message"])
        if not is_gone(refused):
            raise refused

    async def gone() -> bool:
        return await _endpoint(r) is None

    await r.until(gone)


async def _read_endpoint(r: Resource) -> dict[str, Any] | None:
    held = await _endpoint(r)
    if held is None:
        return None
    names = ("PrivateDnsEnabled", "ServiceName", "VpcEndpointType", "VpcId")
    found: dict[str, Any] = {name: held[name] for name in names if name in held}
    for member in ("RouteTableIds", "SubnetIds"):
        if set(held.get(member) or ()) != set(r.get(member) or ()):
            found[member] = list(held.get(member) or ())
    return found


async def _create_interface(r: Resource) -> None:
    lacking(r, "SourceDestCheck", "Ipv6Addresses", "PrivateIpAddresses", "Ipv6AddressCount", "InterfaceType")
    asked = r.only("SubnetId", "Description", "PrivateIpAddress")
    if r.get("GroupSet"):
        asked["Groups"] = r.get("GroupSet")
    made = await r.do("CreateNetworkInterface", {**asked, **tagged(r, "network-interface")}, key="create")
    held = made["NetworkInterface"]
    r.thing.physical = held["NetworkInterfaceId"]
    r.thing.attributes = {
        "Id": r.physical,
        "PrimaryPrivateIpAddress": held["PrivateIpAddress"],
        "SecondaryPrivateIpAddresses": [],
        "VpcId": held["VpcId"],
    }


async def _update_interface(r: Resource) -> None:
    named = {"NetworkInterfaceId": r.physical}
    if r.changed("GroupSet"):
        await r.do("ModifyNetworkInterfaceAttribute", {**named, "Groups": r.get("GroupSet")})
    await retag(r)


async def _delete_interface(r: Resource) -> None:
    await r.drop("DeleteNetworkInterface", {"NetworkInterfaceId": r.physical})


_ENDPOINT: Final = ["CreateVpcEndpoint", "DeleteVpcEndpoints", "ModifyVpcEndpoint", "DescribeVpcEndpoints"]
_GROUP: Final = [
    "CreateSecurityGroup",
    "DeleteSecurityGroup",
    "AuthorizeSecurityGroupIngress",
    "AuthorizeSecurityGroupEgress",
]


def arn_of(kind: str) -> Any:
    """What finds the ARN of a resource of EC2."""
    return lambda r: f"arn:aws:ec2:{r.stack.region}:{r.stack.account}:{kind}/{r.physical}"


TYPES: Final = (
    Type("AWS::EC2::VPC", "ec2", _create_vpc, _delete_vpc, _update_vpc, _read_vpc,
         calls_of("ec2", ["CreateVpc", "DeleteVpc", "ModifyVpcAttribute", "CreateTags"]),
         frozenset({"InstanceTenancy"}), arn_of("vpc")),
    Type("AWS::EC2::Subnet", "ec2", _create_subnet, _delete_subnet, _update_subnet, None,
         calls_of("ec2", ["CreateSubnet", "DeleteSubnet", "ModifySubnetAttribute", "CreateTags"]), frozenset(),
         arn_of("subnet")),
    Type("AWS::EC2::RouteTable", "ec2", _create_table, _delete_table, retag, None,
         calls_of("ec2", ["CreateRouteTable", "DeleteRouteTable", "CreateTags"]), frozenset(), arn_of("route-table")),
    Type("AWS::EC2::SubnetRouteTableAssociation", "ec2", _associate, _disassociate, _reassociate, None,
         calls_of("ec2", ["AssociateRouteTable", "DisassociateRouteTable", "ReplaceRouteTableAssociation"])),
    Type("AWS::EC2::SecurityGroup", "ec2", _create_group, _delete_group, _update_group, _read_group,
         calls_of("ec2", [*_GROUP, "RevokeSecurityGroupIngress", "RevokeSecurityGroupEgress", "CreateTags"]),
         frozenset(), arn_of("security-group")),
    _rule_type("Ingress"),
    _rule_type("Egress"),
    Type("AWS::EC2::VPCEndpoint", "ec2", _create_endpoint, _delete_endpoint, _update_endpoint, _read_endpoint,
         calls_of("ec2", _ENDPOINT), frozenset(), arn_of("vpc-endpoint")),
    Type("AWS::EC2::NetworkInterface", "ec2", _create_interface, _delete_interface, _update_interface, None,
         calls_of("ec2", ["CreateNetworkInterface", "DeleteNetworkInterface", "ModifyNetworkInterfaceAttribute"]),
         frozenset({"Description"}), arn_of("network-interface")),
)  # fmt: skip
"""EC2's types."""

"""Subnets, and the addresses in them.

As in every VPC the first four addresses and the last are taken: network, router, DNS, a reserve, broadcast.
"""

from __future__ import annotations

import ipaddress
import secrets
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Authorised, Output
from bastide.services.ec2 import noun
from bastide.services.ec2.network_acl_noun import associate, part
from bastide.services.ec2.noun import ask, creating, describes, fixed, invalid, missing, unsupported
from bastide.services.ec2.nouns import NETWORK_INTERFACE, SUBNET, TRANSIT_ATTACHMENT, VPC
from bastide.services.ec2.places import zone_id, zones
from bastide.services.ec2.route_table import leave
from bastide.services.ec2.vpc import block
from bastide.store import Row, Transaction

ADDRESS: Final = "ec2:Address"
"""Rows ``SUBNET/ADDRESS``: which addresses are taken."""
_RESERVED: Final = 5
_MOST_SUBNETS: Final = 200


def _zone(a: Authorised) -> str:
    by_id = {zone_id(one): one for one in zones(a.region)}
    given, id = a.input.get("AvailabilityZone"), a.input.get("AvailabilityZoneId")
    if given and id:
        raise Refused("InvalidParameterCombination", "You may specify an Availability Zone or its ID, not both.")
    if id:
        given = by_id.get(id, id)
    if not given:
        return zones(a.region)[0]
    if given not in zones(a.region):
        raise invalid(
            f"Value ({given[:64]}) for parameter availabilityZone is invalid. Subnets can currently only be created in the "
            f"following availability zones: {', '.join(zones(a.region))}."
        )
    return str(given)


@SUBNET.does(
    "CreateSubnet",
    asks=creating(
        SUBNET, "CreateSubnet", ask("CreateSubnet", VPC.ids("VpcId")),
        ec2__AvailabilityZone=lambda asked: asked.input.get("AvailabilityZone"),
        ec2__Vpc=lambda asked: VPC.arn(asked.call.account, asked.call.region, str(asked.input["VpcId"])),
    ),
)  # fmt: skip
def create(a: Authorised, tx: Transaction) -> Output:
    unsupported(
        a, "Ipv6CidrBlock", "OutpostArn", "Ipv6Native", "Ipv4IpamPoolId", "Ipv4NetmaskLength", "Ipv6IpamPoolId",
        "Ipv6NetmaskLength",
    )  # fmt: skip
    vpc = VPC.held(a, tx, a.input["VpcId"])
    text = a.input.get("CidrBlock")
    if not text:
        raise missing("cidrBlock")
    found = block(text, "InvalidSubnet.Range")
    if not found.subnet_of(ipaddress.IPv4Network(vpc.doc["CidrBlock"])):
        raise Refused("InvalidSubnet.Range", f"The CIDR '{text}' is invalid.")
    others = SUBNET.inside(tx, a.account, a.region, vpc.name)
    if len(others) >= _MOST_SUBNETS:
        raise Refused("SubnetLimitExceeded", "The maximum number of subnets has been reached.")
    for other in others:
        if found.overlaps(ipaddress.IPv4Network(other.doc["CidrBlock"])):
            raise Refused("InvalidSubnet.Conflict", f"The CIDR '{text}' conflicts with another subnet")
    row = SUBNET.put(
        a, tx, SUBNET.new_id(),
        {"VpcId": vpc.name, "CidrBlock": str(found), "Zone": _zone(a), "Table": None, "Taken": 0, "MapPublic": False},
        inside=[vpc.name],
    )  # fmt: skip
    if vpc.doc.get("Acl"):
        associate(a, tx, row, vpc.doc["Acl"])
    return {"Subnet": _shown(row)}


def _free(row: Row) -> int:
    return int(ipaddress.IPv4Network(row.doc["CidrBlock"]).num_addresses) - _RESERVED - int(row.doc["Taken"])


def _shown(row: Row) -> dict[str, Any]:
    return {
        "SubnetId": row.name,
        "SubnetArn": SUBNET.arn(row.account, row.region, row.name),
        "VpcId": row.doc["VpcId"],
        "OwnerId": row.account,
        "State": "available",
        "CidrBlock": row.doc["CidrBlock"],
        "AvailableIpAddressCount": _free(row),
        "AvailabilityZone": row.doc["Zone"],
        "AvailabilityZoneId": zone_id(row.doc["Zone"]),
        "DefaultForAz": False,
        "MapPublicIpOnLaunch": bool(row.doc.get("MapPublic")),
        "AssignIpv6AddressOnCreation": False,
        "Ipv6CidrBlockAssociationSet": [],
        "Tags": noun.tags_shown(row),
    }


describes(
    SUBNET, "DescribeSubnets", "Subnets", "SubnetIds", lambda a, view, row: _shown(row),
    {
        "subnet-id": noun.name, "vpc-id": noun.doc("VpcId"), "owner-id": noun.owner, "state": fixed("available"),
        "cidr": noun.doc("CidrBlock"), "cidr-block": noun.doc("CidrBlock"), "cidrBlock": noun.doc("CidrBlock"),
        "availability-zone": noun.doc("Zone"), "availabilityZone": noun.doc("Zone"),
        "availability-zone-id": lambda view, row: zone_id(row.doc["Zone"]),
        "available-ip-address-count": lambda view, row: str(_free(row)),
        "default-for-az": fixed("false"),
        "map-public-ip-on-launch": lambda view, row: "true" if row.doc.get("MapPublic") else "false",
        "subnet-arn": lambda view, row: SUBNET.arn(row.account, row.region, row.name),
    },
)  # fmt: skip


@SUBNET.does("ModifySubnetAttribute", asks=[ask("ModifySubnetAttribute", SUBNET.ids("SubnetId"))])
def modify_attribute(a: Authorised, tx: Transaction) -> Output:
    """Of an instance, which alone would have a public address from it, there is none here; other network interfaces have
    none from it on AWS, either."""
    unsupported(
        a, "AssignIpv6AddressOnCreation", "MapCustomerOwnedIpOnLaunch", "CustomerOwnedIpv4Pool", "EnableDns64",
        "PrivateDnsHostnameTypeOnLaunch", "EnableResourceNameDnsARecordOnLaunch",
        "EnableResourceNameDnsAAAARecordOnLaunch", "EnableLniAtDeviceIndex", "DisableLniAtDeviceIndex",
    )  # fmt: skip
    row = SUBNET.held(a, tx, a.input["SubnetId"])
    value = (a.input.get("MapPublicIpOnLaunch") or {}).get("Value")
    if value is None:
        raise missing("mapPublicIpOnLaunch.Value")
    row.doc["MapPublic"] = bool(value)
    SUBNET.save(a, tx, row)
    return {}


@SUBNET.does("DeleteSubnet", asks=[ask("DeleteSubnet", SUBNET.ids("SubnetId"))])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = SUBNET.held(a, tx, a.input["SubnetId"])
    if any(kind.any_inside(tx, a.account, a.region, row.name) for kind in (NETWORK_INTERFACE, TRANSIT_ATTACHMENT)):
        raise Refused("DependencyViolation", f"The subnet '{row.name}' has dependencies and cannot be deleted.")
    leave(a, tx, row)
    part(a, tx, row)
    SUBNET.drop(a, tx, row)
    return {}


# -- addresses ---------------------------------------------------------------------------------------------------------


def router(row: Row) -> str:
    """The address of a subnet's router, its second."""
    return str(ipaddress.IPv4Network(row.doc["CidrBlock"])[1])


def take_address(a: Authorised, tx: Transaction, subnet: Row, wanted: str | None = None) -> str:
    """An address of a subnet that nothing has; raises Refused if there is none or the one wanted is taken."""
    network = ipaddress.IPv4Network(subnet.doc["CidrBlock"])
    prefix = f"{subnet.name}/"
    vpc = VPC.held(a, tx, subnet.doc["VpcId"])
    never = {
        network[0],
        network[1],
        network[2],
        network[3],
        network[-1],
        ipaddress.IPv4Network(vpc.doc["CidrBlock"])[2],
    }
    if wanted:
        try:
            found = ipaddress.IPv4Address(wanted)
        except ValueError:
            raise invalid(f"invalid value for parameter address: {wanted[:64]}") from None
        if found not in network or found in never:
            raise invalid("Address does not fall within the subnet's address range")
        if tx.get(ADDRESS, a.account, a.region, f"{prefix}{found}") is not None:
            raise Refused("InvalidIPAddress.InUse", "The specified address is already in use.")
    else:
        if _free(subnet) <= 0:
            raise _full(subnet)
        found = network[4 + secrets.randbelow(network.num_addresses - _RESERVED)]
        for _ in range(network.num_addresses):
            if found not in never and tx.get(ADDRESS, a.account, a.region, f"{prefix}{found}") is None:
                break
            found = found + 1 if found + 1 in network else network[4]
        else:
            raise _full(subnet)
    tx.insert(Row(ADDRESS, a.account, a.region, f"{prefix}{found}", {}), keep=False)
    subnet.doc["Taken"] += 1
    SUBNET.save(a, tx, subnet)
    return str(found)


def _full(subnet: Row) -> Refused:
    return Refused(
        "InsufficientFreeAddressesInSubnet",
        f"The specified subnet does not have enough free addresses to satisfy the request: {subnet.name}",
    )


def give_back_address(a: Authorised, tx: Transaction, subnet: str, address: str) -> None:
    """Nothing has the address any more."""
    held = tx.get(ADDRESS, a.account, a.region, f"{subnet}/{address}")
    row = SUBNET.get(tx, a.account, a.region, subnet)
    if held is not None and row is not None:
        tx.delete(held, keep=False)
        row.doc["Taken"] -= 1
        SUBNET.save(a, tx, row)

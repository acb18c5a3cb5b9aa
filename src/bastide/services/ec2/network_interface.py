"""Network interfaces: those of VPC endpoints, and those that something in a subnet is attached to.

`bastide network run` makes one by this API, so that who may put something into a subnet is a question of policy; plugging
it in is a deed of the machine's administrator. An interface is ``in-use`` while something really is attached.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.network import Networks
from bastide.kernel import Authorised, Output, once
from bastide.services.ec2 import noun
from bastide.services.ec2.address_noun import associated, release
from bastide.services.ec2.noun import ask, creating, describes, parameter, unsupported
from bastide.services.ec2.nouns import NETWORK_INTERFACE, SECURITY_GROUP, SUBNET, VPC
from bastide.services.ec2.places import zone_id
from bastide.services.ec2.subnet import give_back_address, take_address
from bastide.store import Row, Transaction, View

MOST_GROUPS: Final = 5
"""An interface; AWS's default quota."""
_UNSUPPORTED: Final = (
    "Ipv4Prefixes", "Ipv4PrefixCount", "Ipv6Prefixes", "Ipv6PrefixCount", "EnablePrimaryIpv6",
    "ConnectionTrackingSpecification", "Operator", "PrivateIpAddresses", "SecondaryPrivateIpAddressCount",
    "Ipv6Addresses", "Ipv6AddressCount",
)  # fmt: skip


def groups_of(a: Authorised, view: View, vpc: str, given: Sequence[str] | None) -> list[str]:
    """The security groups that an interface in a VPC gets: those given, or the VPC's default; raises Refused for one that
    lies elsewhere."""
    if not given:
        return [VPC.held(a, view, vpc).doc["Default"]]
    found = list(dict.fromkeys(given))
    if len(found) > MOST_GROUPS:
        raise Refused(
            "SecurityGroupsPerInterfaceLimitExceeded",
            "The maximum number of security groups per interface has been reached.",
        )
    for id in found:
        if SECURITY_GROUP.held(a, view, id).doc["VpcId"] != vpc:
            raise parameter(f"Security group {id} and VPC {vpc} belong to different networks.")
    return found


def new_interface(
    a: Authorised,
    tx: Transaction,
    subnet: str,
    groups: Sequence[str],
    description: str,
    *,
    endpoint: str = "",
    wanted: str = "",
) -> Row:
    """A new interface with an address of the subnet. endpoint: the VPC endpoint, or NAT gateway, it belongs to."""
    held = SUBNET.held(a, tx, subnet)
    address = take_address(a, tx, held, wanted or None)
    return NETWORK_INTERFACE.put(
        a, tx, NETWORK_INTERFACE.new_id(),
        {
            "VpcId": held.doc["VpcId"], "SubnetId": subnet, "Zone": held.doc["Zone"], "Address": address,
            "Groups": list(groups), "Description": description, "Endpoint": endpoint,
        },
        [held.doc["VpcId"], subnet, *groups],
        {} if endpoint else None,
    )  # fmt: skip


def drop_interface(a: Authorised, tx: Transaction, row: Row) -> None:
    """Removes an interface; its address is free, and its public address is nobody's."""
    release(a, tx, row)
    give_back_address(a, tx, row.doc["SubnetId"], row.doc["Address"])
    NETWORK_INTERFACE.drop(a, tx, row)


def regroup(a: Authorised, tx: Transaction, row: Row, groups: Sequence[str]) -> Row:
    """Gives an interface other groups."""
    doc = {**row.doc, "Groups": list(groups)}
    NETWORK_INTERFACE.drop(a, tx, row)
    return NETWORK_INTERFACE.put(a, tx, row.name, doc, [doc["VpcId"], doc["SubnetId"], *groups], dict(row.tags))


@NETWORK_INTERFACE.does(
    "CreateNetworkInterface",
    asks=creating(
        NETWORK_INTERFACE,
        "CreateNetworkInterface",
        ask("CreateNetworkInterface", SUBNET.ids("SubnetId")),
        ask("CreateNetworkInterface", SECURITY_GROUP.ids("Groups")),
        ec2__Subnet=lambda asked: SUBNET.arn(asked.call.account, asked.call.region, str(asked.input["SubnetId"])),
    ),
)
def create(a: Authorised, tx: Transaction) -> Output:
    unsupported(a, *_UNSUPPORTED)
    if a.input.get("InterfaceType", "interface") != "interface":
        raise Refused("UnsupportedOperation", "Interfaces are of the type interface.")
    noun.capable(a)

    def make() -> Output:
        subnet = SUBNET.held(a, tx, a.input["SubnetId"])
        groups = groups_of(a, tx, subnet.doc["VpcId"], a.input.get("Groups"))
        row = new_interface(
            a, tx, subnet.name, groups, a.input.get("Description") or "", wanted=a.input.get("PrivateIpAddress") or ""
        )
        return {
            "NetworkInterface": {**_shown(a, tx, row), "Status": "pending"},
            "ClientToken": a.input.get("ClientToken"),
        }

    return once(a, tx, a.input.get("ClientToken"), make, code="IdempotentParameterMismatch")


def _mac(address: str) -> str:
    """A locally administered MAC that follows from the address."""
    return "02:00:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed)


def _status(a: Authorised, row: Row) -> str:
    return "in-use" if row.doc["Endpoint"] or a.engine(Networks).attached(row.name) else "available"


def _type(row: Row) -> str:
    owner = row.doc["Endpoint"]
    return "interface" if not owner else "nat_gateway" if owner.startswith("nat-") else "vpc_endpoint"


def _shown(a: Authorised, view: View, row: Row) -> dict[str, Any]:
    doc = row.doc
    names = {id: SECURITY_GROUP.get(view, row.account, row.region, id) for id in doc["Groups"]}
    domain = "ec2.internal" if row.region == "us-east-1" else f"{row.region}.compute.internal"
    return {
        "NetworkInterfaceId": row.name,
        "VpcId": doc["VpcId"],
        "SubnetId": doc["SubnetId"],
        "AvailabilityZone": doc["Zone"],
        "AvailabilityZoneId": zone_id(doc["Zone"]),
        "OwnerId": row.account,
        "Description": doc["Description"],
        "InterfaceType": _type(row),
        "Association": associated(view, row),
        "Status": _status(a, row),
        "MacAddress": _mac(doc["Address"]),
        "PrivateIpAddress": doc["Address"],
        "PrivateIpAddresses": [
            {"Primary": True, "PrivateIpAddress": doc["Address"], "Association": associated(view, row)}
        ],
        "PrivateDnsName": f"ip-{doc['Address'].replace('.', '-')}.{domain}",
        "Groups": [
            {"GroupId": id, "GroupName": held.doc["GroupName"]} for id, held in names.items() if held is not None
        ],
        "RequesterManaged": bool(doc["Endpoint"]),
        "SourceDestCheck": True,
        "TagSet": noun.tags_shown(row),
    }


describes(
    NETWORK_INTERFACE, "DescribeNetworkInterfaces", "NetworkInterfaces", "NetworkInterfaceIds", _shown,
    {
        "network-interface-id": noun.name, "vpc-id": noun.doc("VpcId"), "subnet-id": noun.doc("SubnetId"),
        "availability-zone": noun.doc("Zone"), "owner-id": noun.owner, "group-id": noun.doc("Groups"),
        "description": noun.doc("Description"), "private-ip-address": noun.doc("Address"),
        "addresses.private-ip-address": noun.doc("Address"),
        "interface-type": lambda view, row: _type(row),
        "association.public-ip": lambda view, row: (associated(view, row) or {}).get("PublicIp"),
        "association.allocation-id": lambda view, row: (associated(view, row) or {}).get("AllocationId"),
        "requester-managed": lambda view, row: "true" if row.doc["Endpoint"] else "false",
        "mac-address": lambda view, row: _mac(row.doc["Address"]),
    },
)  # fmt: skip


def _vpc_of(a: Authorised, view: View) -> Iterable[str]:
    row = NETWORK_INTERFACE.get(view, a.account, a.region, str(a.input["NetworkInterfaceId"]))
    return [] if row is None else [row.doc["VpcId"]]


@NETWORK_INTERFACE.does(
    "DeleteNetworkInterface", asks=[ask("DeleteNetworkInterface", NETWORK_INTERFACE.ids("NetworkInterfaceId"))]
)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = NETWORK_INTERFACE.held(a, tx, a.input["NetworkInterfaceId"])
    if row.doc["Endpoint"]:
        raise Refused("OperationNotPermitted", "You are not allowed to manage 'ela-attach' attachments.")
    if a.engine(Networks).attached(row.name):
        raise Refused("InvalidNetworkInterface.InUse", f"The network interface '{row.name}' is currently in use.")
    drop_interface(a, tx, row)
    return {}


@NETWORK_INTERFACE.does(
    "ModifyNetworkInterfaceAttribute",
    asks=[
        ask("ModifyNetworkInterfaceAttribute", NETWORK_INTERFACE.ids("NetworkInterfaceId")),
        ask("ModifyNetworkInterfaceAttribute", SECURITY_GROUP.ids("Groups")),
    ],
    settles=_vpc_of,
)
def modify(a: Authorised, tx: Transaction) -> Output:
    given = {key for key, value in a.input.items() if value is not None} - {"NetworkInterfaceId", "DryRun"}
    if given != {"Groups"}:
        raise Refused("UnsupportedOperation", "Of an interface, only the groups can be modified by Bastide yet.")
    row = NETWORK_INTERFACE.held(a, tx, a.input["NetworkInterfaceId"])
    if row.doc["Endpoint"]:
        raise Refused("OperationNotPermitted", "You are not allowed to manage 'ela-attach' attachments.")
    regroup(a, tx, row, groups_of(a, tx, row.doc["VpcId"], a.input["Groups"]))
    return {}

"""VPCs and their attributes. A new one has its main route table and its default security group.

Network ACLs, DHCP options, IPv6 and default VPCs do not exist here: nothing of them is shown.
"""

from __future__ import annotations

import ipaddress
import secrets
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Authorised, Output
from bastide.services.ec2 import noun
from bastide.services.ec2.flow_log import drop_log
from bastide.services.ec2.network_acl_noun import new_acl
from bastide.services.ec2.noun import ask, creating, describes, fixed, invalid, unsupported
from bastide.services.ec2.nouns import FLOW_LOG, NETWORK_ACL, ROUTE_TABLE, SECURITY_GROUP, VPC
from bastide.services.ec2.route_table import new_table
from bastide.services.ec2.security_group import drop_group, new_group
from bastide.services.ec2.services import PUBLIC
from bastide.store import Row, Transaction, View

MOST_VPCS: Final = 5
"""A region; AWS's default quota "VPCs per Region"."""
_NEVER: Final = tuple(
    ipaddress.IPv4Network(one) for one in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", PUBLIC)
)
_OWN: Final = ("vpc-endpoint", "network-interface", "subnet", "internet-gateway", "transit-gateway-attachment")
"""What has to be gone before a VPC goes."""


def block(text: str, code: str) -> ipaddress.IPv4Network:
    """A CIDR block between /16 and /28, in canonical form; raises Refused with `code`."""
    try:
        found = ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        raise invalid(
            f"Value ({text[:64]}) for parameter cidrBlock is invalid. This is not a valid CIDR block."
        ) from None
    if "/" not in text:
        raise invalid(f"Value ({text[:64]}) for parameter cidrBlock is invalid. This is not a valid CIDR block.")
    if not 16 <= found.prefixlen <= 28:
        raise Refused(code, f"The CIDR '{text}' is invalid.")
    return found


@VPC.does("CreateVpc", asks=creating(VPC, "CreateVpc"))
def create(a: Authorised, tx: Transaction) -> Output:
    unsupported(
        a, "Ipv6Pool", "Ipv6CidrBlock", "Ipv4IpamPoolId", "Ipv4NetmaskLength", "Ipv6IpamPoolId", "Ipv6NetmaskLength",
        "Ipv6CidrBlockNetworkBorderGroup", "VpcEncryptionControl", "AmazonProvidedIpv6CidrBlock",
    )  # fmt: skip
    if a.input.get("InstanceTenancy", "default") != "default":
        raise Refused("UnsupportedOperation", "VPCs are of the tenancy default.")
    text = a.input.get("CidrBlock")
    if not text:
        raise Refused("MissingParameter", "Either 'cidrBlock' or 'ipv4IpamPoolId' should be provided.")
    found = block(text, "InvalidVpc.Range")
    if any(found.overlaps(one) for one in _NEVER):
        raise Refused("InvalidVpc.Range", f"The CIDR '{found}' is reserved and cannot be used for a VPC.")
    if len(tx.scan(VPC.key, a.account, a.region, limit=MOST_VPCS)) == MOST_VPCS:
        raise Refused("VpcLimitExceeded", "The maximum number of VPCs has been reached.")
    id = VPC.new_id()
    main = new_table(a, tx, id, main=True, tags={})
    group = new_group(a, tx, id, "default", "default VPC security group", tags={}, own=True)
    acl = new_acl(a, tx, id, default=True, tags={})
    row = VPC.put(
        a,
        tx,
        id,
        {
            "CidrBlock": str(found),
            "Association": f"vpc-cidr-assoc-0{secrets.token_hex(8)}",
            "DnsSupport": True,
            "DnsHostnames": False,
            "Main": main.name,
            "Default": group.name,
            "Acl": acl.name,
        },
    )
    return {"Vpc": {**_shown(row), "State": "pending"}}


def _shown(row: Row) -> dict[str, Any]:
    return {
        "VpcId": row.name,
        "OwnerId": row.account,
        "State": "available",
        "CidrBlock": row.doc["CidrBlock"],
        "CidrBlockAssociationSet": [
            {
                "AssociationId": row.doc["Association"],
                "CidrBlock": row.doc["CidrBlock"],
                "CidrBlockState": {"State": "associated"},
            }
        ],
        "InstanceTenancy": "default",
        "DhcpOptionsId": row.doc.get("Dhcp") or "default",
        "IsDefault": False,
        "Tags": noun.tags_shown(row),
    }


describes(
    VPC, "DescribeVpcs", "Vpcs", "VpcIds", lambda a, view, row: _shown(row),
    {
        "vpc-id": noun.name, "owner-id": noun.owner, "cidr": noun.doc("CidrBlock"), "cidr-block": noun.doc("CidrBlock"),
        "cidr-block-association.cidr-block": noun.doc("CidrBlock"),
        "cidr-block-association.association-id": noun.doc("Association"),
        "cidr-block-association.state": fixed("associated"), "state": fixed("available"), "is-default": fixed("false"),
        "dhcp-options-id": lambda view, row: row.doc.get("Dhcp") or "default",
    },
)  # fmt: skip


@VPC.does("DeleteVpc", asks=[ask("DeleteVpc", VPC.ids("VpcId"))])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = VPC.held(a, tx, a.input["VpcId"])
    tables = ROUTE_TABLE.inside(tx, a.account, a.region, row.name)
    groups = SECURITY_GROUP.inside(tx, a.account, a.region, row.name)
    acls = NETWORK_ACL.inside(tx, a.account, a.region, row.name)
    held = any(tx.scan(noun.IN, a.account, a.region, prefix=f"{row.name}/{type}/", limit=1) for type in _OWN)
    if held or len(tables) > 1 or len(groups) > 1 or len(acls) > 1:
        raise Refused("DependencyViolation", f"The vpc '{row.name}' has dependencies and cannot be deleted.")
    for log in FLOW_LOG.inside(tx, a.account, a.region, row.name):
        drop_log(a, tx, log)
    for table in tables:
        ROUTE_TABLE.drop(a, tx, table)
    for acl in acls:
        NETWORK_ACL.drop(a, tx, acl)
    for group in groups:
        drop_group(a, tx, group)
    VPC.drop(a, tx, row)
    return {}


_ATTRIBUTES: Final = {"EnableDnsSupport": "DnsSupport", "EnableDnsHostnames": "DnsHostnames"}


@VPC.does(
    "ModifyVpcAttribute",
    asks=[ask("ModifyVpcAttribute", VPC.ids("VpcId"))],
    settles=lambda a, view: [a.input["VpcId"]],
)
def modify_attribute(a: Authorised, tx: Transaction) -> Output:
    unsupported(a, "EnableNetworkAddressUsageMetrics")
    row = VPC.held(a, tx, a.input["VpcId"])
    given = [name for name in _ATTRIBUTES if a.input.get(name) is not None]
    if not given:
        raise noun.missing("enableDnsSupport or enableDnsHostnames")
    if len(given) > 1:
        raise Refused("InvalidParameterCombination", "Only one attribute can be modified at a time")
    value = a.input[given[0]].get("Value")
    if value is None:
        raise noun.missing(f"{given[0]}.Value")
    row.doc[_ATTRIBUTES[given[0]]] = bool(value)
    VPC.save(a, tx, row)
    return {}


@VPC.tells("DescribeVpcAttribute", asks=[ask("DescribeVpcAttribute", VPC.ids("VpcId"))])
def describe_attribute(a: Authorised, view: View) -> Output:
    row = VPC.held(a, view, a.input["VpcId"])
    wanted = str(a.input["Attribute"])
    name = wanted[:1].upper() + wanted[1:]
    if name == "EnableNetworkAddressUsageMetrics":
        return {"VpcId": row.name, name: {"Value": False}}  # there are no such metrics
    if name not in _ATTRIBUTES:
        raise invalid(f"Value ({wanted[:64]}) for parameter attribute is invalid.")
    return {"VpcId": row.name, name: {"Value": row.doc[_ATTRIBUTES[name]]}}

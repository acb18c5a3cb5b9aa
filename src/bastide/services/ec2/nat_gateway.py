"""NAT gateways: an interface in a subnet with a public address, by which other subnets reach the internet.

What is there is what an internet gateway leads to; a NAT gateway needs a route to one in its own subnet. Source: VPC User
Guide, "NAT gateways".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bastide.domain import Refused
from bastide.kernel import Authorised, Output, once
from bastide.services.ec2 import internet_gateway, noun
from bastide.services.ec2.address_noun import allocation_of, take
from bastide.services.ec2.network_interface import drop_interface, new_interface
from bastide.services.ec2.noun import ask, creating, describes, missing, unsupported
from bastide.services.ec2.nouns import ADDRESS, NAT_GATEWAY, NETWORK_INTERFACE, SUBNET
from bastide.store import Row, Transaction, View

_MOST: Final = 5
"""A zone; AWS's default quota."""
_LACKING: Final = (
    "AvailabilityMode", "VpcId", "AvailabilityZoneAddresses", "SecondaryAllocationIds", "SecondaryPrivateIpAddresses",
    "SecondaryPrivateIpAddressCount",
)  # fmt: skip


def _vpc_of_subnet(a: Authorised, view: View) -> Iterable[str]:
    row = SUBNET.get(view, a.account, a.region, str(a.input.get("SubnetId") or ""))
    return [] if row is None else [row.doc["VpcId"]]


@NAT_GATEWAY.does(
    "CreateNatGateway",
    asks=creating(
        NAT_GATEWAY,
        "CreateNatGateway",
        ask("CreateNatGateway", SUBNET.ids("SubnetId")),
        ask("CreateNatGateway", ADDRESS.ids("AllocationId")),
    ),
    settles=_vpc_of_subnet,
)
def create(a: Authorised, tx: Transaction) -> Output:
    unsupported(a, *_LACKING)
    if a.input.get("ConnectivityType", "public") != "public":
        raise Refused(
            "UnsupportedOperation", "NAT gateways are public: a transit gateway translates no addresses here."
        )
    if not a.input.get("SubnetId"):
        raise missing("subnetId")
    if not a.input.get("AllocationId"):
        raise missing("allocationId")
    noun.capable(a)

    def make() -> Output:
        subnet = SUBNET.held(a, tx, a.input["SubnetId"])
        address = ADDRESS.held(a, tx, a.input["AllocationId"])
        if address.doc["Association"]:
            raise Refused(
                "Resource.AlreadyAssociated",
                f"Elastic IP address [{address.name}] is already associated",
            )
        vpc = subnet.doc["VpcId"]
        others = [
            one for one in NAT_GATEWAY.inside(tx, a.account, a.region, vpc) if one.doc["Zone"] == subnet.doc["Zone"]
        ]
        if len(others) >= _MOST:
            raise Refused("NatGatewayLimitExceeded", f"The maximum number of NAT gateways in a zone is {_MOST}.")
        stands = bool(internet_gateway.of_vpc(tx, a.account, a.region, vpc))
        id = NAT_GATEWAY.new_id()
        interface = new_interface(
            a, tx, subnet.name, (), f"Interface for NAT Gateway {id}", endpoint=id,
            wanted=a.input.get("PrivateIpAddress") or "",
        )  # fmt: skip
        if stands:
            take(a, tx, address, interface)
        doc = {
            "VpcId": vpc, "SubnetId": subnet.name, "Zone": subnet.doc["Zone"], "Interface": interface.name,
            "At": a.request.at,
        }  # fmt: skip
        row = NAT_GATEWAY.put(a, tx, id, doc, [vpc])
        row.status = "available" if stands else "failed"
        NAT_GATEWAY.save(a, tx, row)
        shown = {**_shown(a, tx, row), "State": "pending", "FailureCode": None, "FailureMessage": None}
        return {"NatGateway": shown, "ClientToken": a.input.get("ClientToken")}

    return once(a, tx, a.input.get("ClientToken"), make, code="IdempotentParameterMismatch")


def _shown(a: Authorised, view: View, row: Row) -> Output:
    doc = row.doc
    interface = NETWORK_INTERFACE.get(view, row.account, row.region, doc["Interface"])
    address = None if interface is None else allocation_of(view, interface)
    held: Output = {"NetworkInterfaceId": doc["Interface"], "IsPrimary": True, "Status": "succeeded"}
    if interface is not None:
        held["PrivateIp"] = interface.doc["Address"]
    if address is not None:
        held |= {
            "PublicIp": address.doc["Address"], "AllocationId": address.name, "AssociationId": address.doc["Association"],
        }  # fmt: skip
    failed = row.status == "failed"
    return {
        "NatGatewayId": row.name,
        "VpcId": doc["VpcId"],
        "SubnetId": doc["SubnetId"],
        "State": row.status,
        "ConnectivityType": "public",
        "CreateTime": doc["At"],
        "NatGatewayAddresses": [held],
        "FailureCode": "Gateway.NotAttached" if failed else None,
        "FailureMessage": f"Network {doc['VpcId']} has no Internet gateway attached" if failed else None,
        "Tags": noun.tags_shown(row),
    }


describes(
    NAT_GATEWAY, "DescribeNatGateways", "NatGateways", "NatGatewayIds", _shown,
    {
        "nat-gateway-id": noun.name, "vpc-id": noun.doc("VpcId"), "subnet-id": noun.doc("SubnetId"),
        "state": lambda view, row: row.status,
    },
)  # fmt: skip


def _vpc_of(a: Authorised, view: View) -> Iterable[str]:
    row = NAT_GATEWAY.get(view, a.account, a.region, str(a.input["NatGatewayId"]))
    return [] if row is None else [row.doc["VpcId"]]


@NAT_GATEWAY.does("DeleteNatGateway", asks=[ask("DeleteNatGateway", NAT_GATEWAY.ids("NatGatewayId"))], settles=_vpc_of)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = NAT_GATEWAY.held(a, tx, a.input["NatGatewayId"])
    interface = NETWORK_INTERFACE.get(tx, a.account, a.region, row.doc["Interface"])
    if interface is not None:
        drop_interface(a, tx, interface)
    NAT_GATEWAY.drop(a, tx, row)
    return {"NatGatewayId": row.name}

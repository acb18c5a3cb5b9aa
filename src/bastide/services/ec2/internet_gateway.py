"""Internet gateways. As on AWS they pass what comes from an interface with a public address, or by a NAT gateway.

The internet that they lead to has the platform's own services, at the addresses that a VPC's DNS tells, and nothing else.
"""

from __future__ import annotations

from bastide.domain import Refused
from bastide.kernel import Authorised, Output
from bastide.services.ec2 import noun
from bastide.services.ec2.noun import ask, creating, describes, naming
from bastide.services.ec2.nouns import ADDRESS, INTERNET_GATEWAY, VPC
from bastide.store import Row, Transaction, View


def _shown(a: Authorised, view: View, row: Row) -> Output:
    vpc = row.doc["VpcId"]
    return {
        "InternetGatewayId": row.name,
        "OwnerId": row.account,
        "Attachments": [{"VpcId": vpc, "State": "available"}] if vpc else [],
        "Tags": noun.tags_shown(row),
    }


@INTERNET_GATEWAY.does("CreateInternetGateway", asks=creating(INTERNET_GATEWAY, "CreateInternetGateway"))
def create(a: Authorised, tx: Transaction) -> Output:
    row = INTERNET_GATEWAY.put(a, tx, INTERNET_GATEWAY.new_id(), {"VpcId": ""})
    return {"InternetGateway": _shown(a, tx, row)}


describes(
    INTERNET_GATEWAY, "DescribeInternetGateways", "InternetGateways", "InternetGatewayIds", _shown,
    {
        "internet-gateway-id": noun.name, "owner-id": noun.owner,
        "attachment.vpc-id": lambda view, row: row.doc["VpcId"] or None,
        "attachment.state": lambda view, row: "available" if row.doc["VpcId"] else None,
    },
)  # fmt: skip


def _moved(a: Authorised, tx: Transaction, row: Row, vpc: str) -> None:
    """Puts a gateway into a VPC, or out of it."""
    INTERNET_GATEWAY.drop(a, tx, row)
    INTERNET_GATEWAY.put(a, tx, row.name, {"VpcId": vpc}, [vpc] if vpc else [], dict(row.tags))


@INTERNET_GATEWAY.does(
    "AttachInternetGateway",
    asks=naming("AttachInternetGateway", INTERNET_GATEWAY, VPC),
    settles=noun.vpc_named,
)
def attach(a: Authorised, tx: Transaction) -> Output:
    row = INTERNET_GATEWAY.held(a, tx, a.input["InternetGatewayId"])
    vpc = VPC.held(a, tx, a.input["VpcId"])
    if row.doc["VpcId"]:
        raise Refused(
            "Resource.AlreadyAssociated", f"resource {row.name} is already attached to network {row.doc['VpcId']}"
        )
    if INTERNET_GATEWAY.any_inside(tx, a.account, a.region, vpc.name):
        raise noun.invalid(f"Network {vpc.name} already has an internet gateway attached")
    _moved(a, tx, row, vpc.name)
    return {}


@INTERNET_GATEWAY.does(
    "DetachInternetGateway",
    asks=naming("DetachInternetGateway", INTERNET_GATEWAY, VPC),
    settles=noun.vpc_named,
)
def detach(a: Authorised, tx: Transaction) -> Output:
    row = INTERNET_GATEWAY.held(a, tx, a.input["InternetGatewayId"])
    if not row.doc["VpcId"] or row.doc["VpcId"] != a.input["VpcId"]:
        raise Refused("Gateway.NotAttached", f"resource {row.name} is not attached to network {a.input['VpcId']}")
    if ADDRESS.any_inside(tx, a.account, a.region, row.doc["VpcId"]):
        raise Refused(
            "DependencyViolation",
            f"Network {row.doc['VpcId']} has some mapped public address(es). Please unmap those public address(es) before "
            "detaching the gateway.",
        )
    _moved(a, tx, row, "")
    return {}


@INTERNET_GATEWAY.does(
    "DeleteInternetGateway", asks=[ask("DeleteInternetGateway", INTERNET_GATEWAY.ids("InternetGatewayId"))]
)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = INTERNET_GATEWAY.held(a, tx, a.input["InternetGatewayId"])
    if row.doc["VpcId"]:
        raise Refused(
            "DependencyViolation", f"The internetGateway '{row.name}' has dependencies and cannot be deleted."
        )
    INTERNET_GATEWAY.drop(a, tx, row)
    return {}


def of_vpc(view: View, account: str, region: str, vpc: str) -> str:
    """The gateway that is attached to a VPC; empty without one."""
    return next((one.name for one in INTERNET_GATEWAY.inside(view, account, region, vpc)), "")


def attached(view: View, table: Row, id: str) -> bool:
    """Whether a gateway is attached to the VPC of a route table."""
    row = INTERNET_GATEWAY.get(view, table.account, table.region, id)
    return row is not None and row.doc["VpcId"] == table.doc["VpcId"]

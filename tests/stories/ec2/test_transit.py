"""VPCs that reach each other through a transit gateway, as route tables and groups say: real packets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, Running
from tests.stories.ec2.conftest import Inside, Vpc, make_vpc

HTTPS = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443}
STS = ("sts", "get_caller_identity")


def refused(call: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**given)
    return str(error.value.response["Error"]["Code"])


def address(vpc: Vpc) -> str:
    """Of the client in a VPC."""
    inside = [{"Name": "vpc-id", "Values": [vpc.id]}, {"Name": "description", "Values": ["bastide network run"]}]
    return str(vpc.ec2.describe_network_interfaces(Filters=inside)["NetworkInterfaces"][0]["PrivateIpAddress"])


def reached(client: Inside, there: str, port: int = 443) -> bool:
    """Whether a packet arrives and an answer comes back: nobody listens, so it is refused."""
    code, _ = client.ask(("connect", there, {"port": port}), patience=0.3)[0]
    assert code in ("ConnectionRefusedError", "TimeoutError"), code
    return code == "ConnectionRefusedError"


def open_to(vpc: Vpc, cidr: str, group: str = "") -> None:
    vpc.ec2.authorize_security_group_ingress(
        GroupId=group or vpc.group, IpPermissions=[{**HTTPS, "IpRanges": [{"CidrIp": cidr}]}]
    )


@dataclass
class Two:
    """A transit gateway without default tables, shared with another account, and a VPC of each with a client; not attached
    yet."""

    account: Account
    tgw: str
    a: Vpc
    b: Vpc
    in_a: Inside
    in_b: Inside
    address_a: str
    address_b: str
    attached: dict[str, str] = field(default_factory=dict)

    @property
    def ec2(self) -> Any:
        return self.account.client("ec2")


@pytest.fixture(scope="module")
def two(platform: Running) -> Iterator[Two]:
    account = platform.account()
    a, b = make_vpc(account, "10.1.0.0/16"), make_vpc(platform.account(), "10.2.0.0/16")
    options = {"DefaultRouteTableAssociation": "disable", "DefaultRouteTablePropagation": "disable"}
    made = account.client("ec2").create_transit_gateway(Options=options)["TransitGateway"]
    tgw = made["TransitGatewayId"]
    platform.client("ram").enable_sharing_with_aws_organization()
    account.client("ram").create_resource_share(
        name="gateway", resourceArns=[made["TransitGatewayArn"]], principals=[b.account.id]
    )
    with a.inside() as in_a, b.inside() as in_b:
        for one in (in_a, in_b):
            assert one.one("resolve", "localhost")[0] == ""
        yield Two(account, tgw, a, b, in_a, in_b, address(a), address(b))


@pytest.mark.control("NET-02")
def test_packets_pass_only_where_every_table_says_so_and_groups_let_them(two: Two) -> None:
    ec2, a, b = two.ec2, two.a, two.b
    open_to(b, "10.1.0.0/16")

    def passes() -> bool:
        return reached(two.in_a, two.address_b)

    assert not passes()
    route = {"RouteTableId": a.main_table(), "DestinationCidrBlock": "10.2.0.0/16", "TransitGatewayId": two.tgw}
    back = {"RouteTableId": b.main_table(), "DestinationCidrBlock": "10.0.0.0/8", "TransitGatewayId": two.tgw}
    assert refused(ec2.create_route, **route) == "InvalidTransitGatewayID.NotFound"
    ids = []
    for vpc in (a, b):
        made = vpc.ec2.create_transit_gateway_vpc_attachment(
            TransitGatewayId=two.tgw, VpcId=vpc.id, SubnetIds=[vpc.subnet]
        )["TransitGatewayVpcAttachment"]
        ids.append(made["TransitGatewayAttachmentId"])
    attached_a, attached_b = ids
    ec2.create_route(**route)
    assert refused(b.ec2.create_route, **back) == "InvalidTransitGatewayID.NotFound"  # not accepted yet
    ec2.accept_transit_gateway_vpc_attachment(TransitGatewayAttachmentId=attached_b)
    shown = ec2.describe_transit_gateway_vpc_attachments(TransitGatewayAttachmentIds=ids)
    assert [(one["State"], one["VpcOwnerId"]) for one in shown["TransitGatewayVpcAttachments"]] == [
        ("available", a.account.id),
        ("available", b.account.id),
    ]
    b.ec2.create_route(**back)
    assert not passes()  # the gateway has no tables yet
    tables = [
        ec2.create_transit_gateway_route_table(TransitGatewayId=two.tgw)["TransitGatewayRouteTable"][
            "TransitGatewayRouteTableId"
        ]
        for _ in ids
    ]
    for table, attachment in zip(tables, ids, strict=True):
        ec2.associate_transit_gateway_route_table(
            TransitGatewayRouteTableId=table, TransitGatewayAttachmentId=attachment
        )
    assert not passes()
    ec2.enable_transit_gateway_route_table_propagation(
        TransitGatewayRouteTableId=tables[0], TransitGatewayAttachmentId=attached_b
    )
    assert not passes()  # no way back
    ec2.create_transit_gateway_route(
        TransitGatewayRouteTableId=tables[1],
        DestinationCidrBlock="10.1.0.0/16",
        TransitGatewayAttachmentId=attached_a,
    )
    assert passes()
    found = ec2.search_transit_gateway_routes(
        TransitGatewayRouteTableId=tables[0], Filters=[{"Name": "type", "Values": ["propagated"]}]
    )["Routes"]
    assert [(one["DestinationCidrBlock"], one["State"]) for one in found] == [("10.2.0.0/16", "active")]

    # A group on either end, a port beside, the other way round.
    assert not reached(two.in_a, two.address_b, 444)
    assert not reached(two.in_b, two.address_a)
    b.ec2.revoke_security_group_ingress(
        GroupId=b.group, IpPermissions=[{**HTTPS, "IpRanges": [{"CidrIp": "10.1.0.0/16"}]}]
    )
    assert not passes()
    open_to(b, "10.1.0.0/16")
    everywhere = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.revoke_security_group_egress(GroupId=a.group, IpPermissions=[everywhere])
    assert not passes()
    ec2.authorize_security_group_egress(GroupId=a.group, IpPermissions=[everywhere])
    assert passes()

    # Blackholes: the longest prefix counts.
    ec2.create_transit_gateway_route(
        TransitGatewayRouteTableId=tables[0], DestinationCidrBlock="10.2.1.0/24", Blackhole=True
    )
    assert not passes()
    ec2.delete_transit_gateway_route(TransitGatewayRouteTableId=tables[0], DestinationCidrBlock="10.2.1.0/24")
    assert passes()
    b.ec2.delete_route(RouteTableId=b.main_table(), DestinationCidrBlock="10.0.0.0/8")
    assert not passes()
    b.ec2.create_route(**back)

    # An endpoint of the other VPC serves who gets there, as a call from that VPC's endpoint.
    made = b.interface("sts")["VpcEndpointId"]
    inside = [{"Name": "vpc-id", "Values": [b.id]}, {"Name": "interface-type", "Values": ["vpc_endpoint"]}]
    there = b.ec2.describe_network_interfaces(Filters=inside)["NetworkInterfaces"][0]["PrivateIpAddress"]
    url = {"_client": {"endpoint_url": f"https://{there}", "verify": False}}
    assert two.in_a.one(*STS, url)[0] == ""
    b.ec2.delete_vpc_endpoints(VpcEndpointIds=[made])

    # Who leaves takes its routes along.
    ec2.disable_transit_gateway_route_table_propagation(
        TransitGatewayRouteTableId=tables[0], TransitGatewayAttachmentId=attached_b
    )
    assert not passes()
    ec2.create_transit_gateway_route(
        TransitGatewayRouteTableId=tables[0],
        DestinationCidrBlock="0.0.0.0/0",
        TransitGatewayAttachmentId=attached_b,
    )
    assert passes()
    assert refused(ec2.delete_transit_gateway, TransitGatewayId=two.tgw) == "IncorrectState"
    b.ec2.delete_transit_gateway_vpc_attachment(TransitGatewayAttachmentId=attached_b)
    assert not passes()
    gone = ec2.search_transit_gateway_routes(
        TransitGatewayRouteTableId=tables[0], Filters=[{"Name": "state", "Values": ["blackhole"]}]
    )["Routes"]
    assert [one["DestinationCidrBlock"] for one in gone] == ["0.0.0.0/0"]
    routes = b.ec2.describe_route_tables(RouteTableIds=[b.main_table()])["RouteTables"][0]["Routes"]
    assert {one["State"] for one in routes if "TransitGatewayId" in one} == {"blackhole"}
    ec2.delete_transit_gateway_vpc_attachment(TransitGatewayAttachmentId=attached_a)
    for table in tables:
        ec2.delete_transit_gateway_route_table(TransitGatewayRouteTableId=table)
    for vpc, cidr in ((a, "10.2.0.0/16"), (b, "10.0.0.0/8")):
        vpc.ec2.delete_route(RouteTableId=vpc.main_table(), DestinationCidrBlock=cidr)

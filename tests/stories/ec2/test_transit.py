"""VPCs that reach each other through a transit gateway, as route tables and groups say: real packets."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import PROGRAM, Account, Running, allow
from tests.stories.ec2.conftest import Inside, Vpc, make_vpc
from tests.stories.ec2.device import BY_CIRCUIT, GATEWAY, HOST, PROXY, Device, device
from tests.waiting import until

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
    """A packet arrives and an answer comes back: nobody listens, so it is refused."""
    return client.ask(("connect", there, {"port": port}), patience=10.0)[0][0] == "ConnectionRefusedError"


def lost(client: Inside, there: str, port: int = 443) -> bool:
    """Nothing comes back, not in the time in which it else does."""
    return client.ask(("connect", there, {"port": port}), patience=0.1)[0][0] == "TimeoutError"


def why(vpc: Vpc, source: str, destination: str, port: int = 443) -> tuple[bool, dict[str, Any]]:
    """What `bastide network why` says: whether it passes, and the last hop."""
    told = subprocess.run(
        [*PROGRAM, "network", "why", "--data", str(vpc.account.platform.data), "--account", vpc.account.id, source,
         destination, str(port), "--format", "json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.stdout, told.stderr
    found = json.loads(told.stdout)
    assert told.returncode == (0 if found["passes"] else 1)
    return found["passes"], found["hops"][-1]


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

    def lost_here() -> bool:
        return lost(two.in_a, two.address_b)

    assert lost_here()
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
    assert lost_here()  # the gateway has no tables yet
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
    assert lost_here()
    ec2.enable_transit_gateway_route_table_propagation(
        TransitGatewayRouteTableId=tables[0], TransitGatewayAttachmentId=attached_b
    )
    assert lost_here()
    said, last = why(a, two.address_a, two.address_b)
    assert (said, last["what"], last["where"]) == (False, "transit route table back", tables[1])
    ec2.create_transit_gateway_route(
        TransitGatewayRouteTableId=tables[1],
        DestinationCidrBlock="10.1.0.0/16",
        TransitGatewayAttachmentId=attached_a,
    )
    assert passes() and why(a, two.address_a, two.address_b)[0]
    found = ec2.search_transit_gateway_routes(
        TransitGatewayRouteTableId=tables[0], Filters=[{"Name": "type", "Values": ["propagated"]}]
    )["Routes"]
    assert [(one["DestinationCidrBlock"], one["State"]) for one in found] == [("10.2.0.0/16", "active")]

    # A group on either end, a port beside, the other way round.
    assert lost(two.in_a, two.address_b, 444)
    assert lost(two.in_b, two.address_a)
    b.ec2.revoke_security_group_ingress(
        GroupId=b.group, IpPermissions=[{**HTTPS, "IpRanges": [{"CidrIp": "10.1.0.0/16"}]}]
    )
    assert lost_here()
    open_to(b, "10.1.0.0/16")
    everywhere = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.revoke_security_group_egress(GroupId=a.group, IpPermissions=[everywhere])
    assert lost_here()
    ec2.authorize_security_group_egress(GroupId=a.group, IpPermissions=[everywhere])
    assert passes()

    # Blackholes: the longest prefix counts.
    ec2.create_transit_gateway_route(
        TransitGatewayRouteTableId=tables[0], DestinationCidrBlock="10.2.1.0/24", Blackhole=True
    )
    assert lost_here()
    ec2.delete_transit_gateway_route(TransitGatewayRouteTableId=tables[0], DestinationCidrBlock="10.2.1.0/24")
    assert passes()
    b.ec2.delete_route(RouteTableId=b.main_table(), DestinationCidrBlock="10.0.0.0/8")
    assert lost_here()
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
    assert lost_here()
    ec2.create_transit_gateway_route(
        TransitGatewayRouteTableId=tables[0],
        DestinationCidrBlock="0.0.0.0/0",
        TransitGatewayAttachmentId=attached_b,
    )
    assert passes()
    assert refused(ec2.delete_transit_gateway, TransitGatewayId=two.tgw) == "IncorrectState"
    b.ec2.delete_transit_gateway_vpc_attachment(TransitGatewayAttachmentId=attached_b)
    assert lost_here()
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


@pytest.fixture(scope="module")
def office(platform: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """What stands on premises, declared twice: as the range 10.200.0.0/16, and as the way to everything."""
    links = platform.data / "links.json"
    with device(tmp_path_factory.mktemp("office")) as made:
        links.write_text(json.dumps(made.links))
        yield made
    links.unlink()


def telemetry(ec2: Any, connection: str) -> list[str]:
    """Of both tunnels of a connection."""
    shown = ec2.describe_vpn_connections(VpnConnectionIds=[connection])["VpnConnections"][0]
    return [one["Status"] for one in shown["VgwTelemetry"]]


def fetched(client: Inside, there: str) -> str:
    """The page of a host."""
    code, answer = client.ask(("fetch", there), patience=20.0)[0]
    assert not code, answer
    return str(answer)


@pytest.mark.control("ACC-08")
@pytest.mark.control("NET-01")
@pytest.mark.control("NET-03")
def test_what_the_operator_declared_is_reached_by_routes_alone(two: Two, office: Device) -> None:
    ec2, a = two.ec2, two.a

    def arrives(there: str) -> bool:
        return fetched(two.in_a, there) == f"on premises, to {two.address_a}"

    def missed(there: str) -> bool:
        return lost(two.in_a, there, 80)

    joint = ec2.create_transit_gateway_vpc_attachment(TransitGatewayId=two.tgw, VpcId=a.id, SubnetIds=[a.subnet])[
        "TransitGatewayVpcAttachment"
    ]["TransitGatewayAttachmentId"]
    outward, back = (
        ec2.create_transit_gateway_route_table(TransitGatewayId=two.tgw)["TransitGatewayRouteTable"][
            "TransitGatewayRouteTableId"
        ]
        for _ in range(2)
    )
    ec2.associate_transit_gateway_route_table(TransitGatewayRouteTableId=outward, TransitGatewayAttachmentId=joint)
    ec2.enable_transit_gateway_route_table_propagation(
        TransitGatewayRouteTableId=back, TransitGatewayAttachmentId=joint
    )
    table = a.main_table()
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=a.id)
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="10.200.0.0/15", TransitGatewayId=two.tgw)

    def link(address: str) -> tuple[str, str, str]:
        """A connection with its attachment, which goes by the table that leads back: customer gateway, connection,
        attachment."""
        side = ec2.create_customer_gateway(Type="ipsec.1", BgpAsn=65000, IpAddress=address)["CustomerGateway"]
        made = ec2.create_vpn_connection(
            Type="ipsec.1", CustomerGatewayId=side["CustomerGatewayId"], TransitGatewayId=two.tgw
        )["VpnConnection"]["VpnConnectionId"]
        found = ec2.describe_transit_gateway_attachments(Filters=[{"Name": "resource-id", "Values": [made]}])
        attachment = found["TransitGatewayAttachments"][0]["TransitGatewayAttachmentId"]
        ec2.associate_transit_gateway_route_table(
            TransitGatewayRouteTableId=back, TransitGatewayAttachmentId=attachment
        )
        return side["CustomerGatewayId"], made, attachment

    def comes_up(connection: str, behind: str) -> None:
        shown = ec2.describe_vpn_connections(VpnConnectionIds=[connection])["VpnConnections"][0]
        assert office.connect(shown["CustomerGatewayConfiguration"], behind)
        until(lambda: telemetry(ec2, connection) == ["UP", "DOWN"])

    nowhere, to_office = link("203.0.113.99"), link(GATEWAY)
    assert telemetry(ec2, nowhere[1]) == telemetry(ec2, to_office[1]) == ["DOWN", "DOWN"]
    assert missed(HOST)  # the gateway's table leads nowhere yet
    ec2.create_transit_gateway_route(
        TransitGatewayRouteTableId=outward, DestinationCidrBlock="10.200.0.0/15", TransitGatewayAttachmentId=nowhere[2]
    )
    assert missed(HOST)  # nobody declared what is there
    ec2.replace_transit_gateway_route(
        TransitGatewayRouteTableId=outward,
        DestinationCidrBlock="10.200.0.0/15",
        TransitGatewayAttachmentId=to_office[2],
    )
    assert missed(HOST)  # the tunnel is down, and there is no other path
    said, last = why(a, two.address_a, HOST)
    assert (said, last["what"], last["where"]) == (False, "vpn", to_office[2])
    comes_up(to_office[1], "10.200.0.0/15")
    assert arrives(HOST) and why(a, two.address_a, HOST)[0]
    assert missed(BY_CIRCUIT)  # a route leads there, but it is not declared to be there
    said, last = why(a, two.address_a, BY_CIRCUIT)
    assert (said, last["what"], last["where"]) == (False, "attachment", to_office[2])
    assert missed("192.0.2.80")

    # Who works in the account makes no way out.
    a.account.role("workload", allow("sagemaker:*", "ec2:Describe*"))
    workload = a.account.client("ec2", a.account.as_role("workload"))
    assert refused(workload.create_internet_gateway) == "UnauthorizedOperation"
    assert refused(workload.create_route, RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway) == (
        "UnauthorizedOperation"
    )

    # The internet: not through an internet gateway, which leads to AWS's services alone; through the corporate network
    # where the default route leads there.
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    assert missed("192.0.2.80")
    ec2.replace_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", TransitGatewayId=two.tgw)
    assert missed("192.0.2.80")
    to_proxy = link(PROXY)
    comes_up(to_proxy[1], "192.0.2.80/32")
    ec2.enable_transit_gateway_route_table_propagation(
        TransitGatewayRouteTableId=outward, TransitGatewayAttachmentId=to_proxy[2]
    )
    assert arrives("192.0.2.80")
    assert arrives(HOST)
    ec2.delete_vpn_connection(VpnConnectionId=to_proxy[1])
    assert missed("192.0.2.80")

    office.disconnect()
    for one in (nowhere, to_office):
        ec2.delete_vpn_connection(VpnConnectionId=one[1])
    for one in (nowhere, to_office, to_proxy):
        ec2.delete_customer_gateway(CustomerGatewayId=one[0])
    ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=a.id)
    ec2.delete_transit_gateway_vpc_attachment(TransitGatewayAttachmentId=joint)
    for one in ("10.200.0.0/15", "0.0.0.0/0"):
        ec2.delete_route(RouteTableId=table, DestinationCidrBlock=one)


@pytest.mark.control("NET-01")
def test_a_tunnel_of_the_vpcs_own_gateway_is_the_only_path_and_ends_with_its_connection(
    two: Two, office: Device
) -> None:
    ec2, a = two.ec2, two.a
    table = a.main_table()
    made = ec2.create_vpn_gateway(Type="ipsec.1")["VpnGateway"]["VpnGatewayId"]
    ec2.attach_vpn_gateway(VpnGatewayId=made, VpcId=a.id)
    side = ec2.create_customer_gateway(Type="ipsec.1", BgpAsn=65000, IpAddress=GATEWAY)["CustomerGateway"]
    asked = {"Type": "ipsec.1", "CustomerGatewayId": side["CustomerGatewayId"], "VpnGatewayId": made}
    assert refused(ec2.create_vpn_connection, **asked, TransitGatewayId=two.tgw) == "InvalidParameterCombination"
    weak = {"TunnelOptions": [{"PreSharedKey": "short"}]}
    assert refused(ec2.create_vpn_connection, **asked, Options=weak) == "InvalidParameterValue"
    options = {
        "PreSharedKey": "A.key_of_ours",
        "Phase1DHGroupNumbers": [{"Value": 14}],
        "TunnelInsideCidr": "169.254.77.0/30",
    }
    shown = ec2.create_vpn_connection(**asked, Options={"StaticRoutesOnly": True, "TunnelOptions": [options]})[
        "VpnConnection"
    ]
    id, configuration = shown["VpnConnectionId"], shown["CustomerGatewayConfiguration"]
    ec2.create_vpn_connection_route(VpnConnectionId=id, DestinationCidrBlock="10.200.0.0/16")
    ec2.enable_vgw_route_propagation(GatewayId=made, RouteTableId=table)
    told = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]
    assert told["PropagatingVgws"] == [{"GatewayId": made}]
    assert [(one["DestinationCidrBlock"], one["State"]) for one in told["Routes"] if one.get("GatewayId") == made] == [
        ("10.200.0.0/16", "active")
    ]

    # Who has another key is not let in, and in the clear nothing passes.
    assert not office.connect(configuration, "10.200.0.0/15", key="another_key")
    assert lost(two.in_a, HOST, 80)
    assert why(a, two.address_a, HOST)[1]["what"] == "vpn"
    assert office.connect(configuration, "10.200.0.0/15")
    until(lambda: telemetry(ec2, id) == ["UP", "DOWN"])
    assert fetched(two.in_a, HOST) == f"on premises, to {two.address_a}"

    ec2.disable_vgw_route_propagation(GatewayId=made, RouteTableId=table)
    assert lost(two.in_a, HOST, 80)
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="10.200.0.0/16", GatewayId=made)
    assert fetched(two.in_a, HOST) and why(a, two.address_a, HOST)[0]

    ec2.delete_vpn_connection(VpnConnectionId=id)
    assert lost(two.in_a, HOST, 80)
    office.disconnect()
    assert refused(ec2.describe_vpn_connections, VpnConnectionIds=[id]) == "InvalidVpnConnectionID.NotFound"
    ec2.delete_route(RouteTableId=table, DestinationCidrBlock="10.200.0.0/16")
    assert refused(ec2.delete_vpn_gateway, VpnGatewayId=made) == "IncorrectState"
    ec2.detach_vpn_gateway(VpnGatewayId=made, VpcId=a.id)
    ec2.delete_vpn_gateway(VpnGatewayId=made)
    ec2.delete_customer_gateway(CustomerGatewayId=side["CustomerGatewayId"])


@pytest.mark.control("NET-01")
def test_a_circuit_leads_where_interfaces_and_gateways_do(two: Two, office: Device) -> None:
    ec2, a, dx = two.ec2, two.a, two.account.client("directconnect")
    table = a.main_table()
    asked = {"location": dx.describe_locations()["locations"][0]["locationCode"], "bandwidth": "1Gbps"}
    made = dx.create_connection(**asked, connectionName="head office")["connectionId"]

    def state() -> str:
        return str(dx.describe_connections(connectionId=made)["connections"][0]["connectionState"])

    assert state() == "pending"
    links = a.account.platform.data / "links.json"
    links.write_text(json.dumps([*office.links, office.circuit(made)]))
    assert state() == "available"

    # Private: by a Direct Connect gateway to the VPC's own.
    own = ec2.create_vpn_gateway(Type="ipsec.1")["VpnGateway"]["VpnGatewayId"]
    ec2.attach_vpn_gateway(VpnGatewayId=own, VpcId=a.id)
    ec2.enable_vgw_route_propagation(GatewayId=own, RouteTableId=table)
    private, transit = (
        dx.create_direct_connect_gateway(directConnectGatewayName=name)["directConnectGateway"][
            "directConnectGatewayId"
        ]
        for name in ("private", "transit")
    )
    new = {"virtualInterfaceName": "one", "vlan": 101, "asn": 65000}
    bare = {"connectionId": made, "newPrivateVirtualInterface": {**new, "directConnectGatewayId": private}}
    wrong = {
        "connectionId": made,
        "newPrivateVirtualInterface": {**new, "virtualGatewayId": own, "authKey": "a-bgp-key"},
    }
    assert refused(dx.create_private_virtual_interface, **wrong) == "DirectConnectClientException"
    interface = dx.create_private_virtual_interface(**bare)["virtualInterfaceId"]
    assert refused(dx.create_private_virtual_interface, **bare) == "DirectConnectClientException"  # the VLAN is taken
    assert lost(two.in_a, BY_CIRCUIT, 80)
    dx.create_direct_connect_gateway_association(directConnectGatewayId=private, gatewayId=own)
    assert fetched(two.in_a, BY_CIRCUIT) == f"on premises, to {two.address_a}"
    assert why(a, two.address_a, BY_CIRCUIT)[0]
    routes = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
    assert [one["DestinationCidrBlock"] for one in routes if one.get("GatewayId") == own] == ["10.201.0.0/16"]
    assert refused(dx.delete_connection, connectionId=made) == "DirectConnectClientException"
    dx.delete_virtual_interface(virtualInterfaceId=interface)
    assert lost(two.in_a, BY_CIRCUIT, 80)
    dx.delete_direct_connect_gateway_association(directConnectGatewayId=private, virtualGatewayId=own)
    ec2.disable_vgw_route_propagation(GatewayId=own, RouteTableId=table)
    ec2.detach_vpn_gateway(VpnGatewayId=own, VpcId=a.id)
    ec2.delete_vpn_gateway(VpnGatewayId=own)

    # Transit: an attachment of the transit gateway, whose tables lead there; the other side is told of the prefixes alone.
    joint = ec2.create_transit_gateway_vpc_attachment(TransitGatewayId=two.tgw, VpcId=a.id, SubnetIds=[a.subnet])[
        "TransitGatewayVpcAttachment"
    ]["TransitGatewayAttachmentId"]
    prefixes = [{"cidr": "10.1.0.0/16"}]
    dx.create_direct_connect_gateway_association(
        directConnectGatewayId=transit, gatewayId=two.tgw, addAllowedPrefixesToDirectConnectGateway=prefixes
    )
    [attached] = ec2.describe_transit_gateway_attachments(Filters=[{"Name": "resource-id", "Values": [transit]}])[
        "TransitGatewayAttachments"
    ]
    assert attached["ResourceType"] == "direct-connect-gateway"
    way = ec2.create_transit_gateway_route_table(TransitGatewayId=two.tgw)["TransitGatewayRouteTable"][
        "TransitGatewayRouteTableId"
    ]
    for id in (joint, attached["TransitGatewayAttachmentId"]):
        ec2.associate_transit_gateway_route_table(TransitGatewayRouteTableId=way, TransitGatewayAttachmentId=id)
        ec2.enable_transit_gateway_route_table_propagation(
            TransitGatewayRouteTableId=way, TransitGatewayAttachmentId=id
        )
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="10.201.0.0/16", TransitGatewayId=two.tgw)
    assert lost(two.in_a, BY_CIRCUIT, 80)
    new |= {"vlan": 102, "directConnectGatewayId": transit}
    interface = dx.create_transit_virtual_interface(connectionId=made, newTransitVirtualInterface=new)[
        "virtualInterface"
    ]["virtualInterfaceId"]
    assert fetched(two.in_a, BY_CIRCUIT) == f"on premises, to {two.address_a}"
    dx.delete_virtual_interface(virtualInterfaceId=interface)
    assert lost(two.in_a, BY_CIRCUIT, 80)
    dx.delete_direct_connect_gateway_association(directConnectGatewayId=transit, virtualGatewayId=two.tgw)
    ec2.delete_route(RouteTableId=table, DestinationCidrBlock="10.201.0.0/16")
    ec2.delete_transit_gateway_vpc_attachment(TransitGatewayAttachmentId=joint)
    ec2.delete_transit_gateway_route_table(TransitGatewayRouteTableId=way)
    for one in (private, transit):
        dx.delete_direct_connect_gateway(directConnectGatewayId=one)
    dx.delete_connection(connectionId=made)
    links.write_text(json.dumps(office.links))

"""What stands at the borders of subnets and VPCs: NAT gateways, public addresses, network ACLs, DHCP options."""

from __future__ import annotations

import json
import socket
import subprocess
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bastide.store.directory import DataDirectory
from tests.platform import PROGRAM, REGION, Account, allow
from tests.stories.ec2.conftest import Inside, Vpc, make_vpc
from tests.waiting import until

STS = ("sts", "get_caller_identity")


def refused(call: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**given)
    return str(error.value.response["Error"]["Code"])


def why(vpc: Vpc, source: str, destination: str) -> tuple[bool, list[dict[str, Any]]]:
    """What `bastide network why` asks the platform: whether it passes, and the hops."""
    packet = {"destination": destination, "protocol": "tcp", "port": 443}
    asked = {"account": vpc.account.id, "region": REGION, "vpc": vpc.id, "interface": source, "packet": packet}
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(DataDirectory(vpc.account.platform.data).attaching))
        link.sendall(json.dumps(asked).encode() + b"\n")
        hops = json.loads(link.makefile("rb").readline())["hops"]
    return all(one["passes"] for one in hops), hops


def came_from(account: Account, answer: dict[str, Any]) -> str:
    """The address that a call came from, by its record, if it came through no endpoint."""
    trail, id = account.client("cloudtrail"), answer["ResponseMetadata"]["RequestId"]
    asked = [{"AttributeKey": "EventName", "AttributeValue": "GetCallerIdentity"}]

    def look() -> Any:
        events = trail.lookup_events(LookupAttributes=asked)["Events"]
        records = [json.loads(one["CloudTrailEvent"]) for one in events]
        return next((one for one in records if one["requestID"] == id), None)

    record = until(look)
    assert "vpcEndpointId" not in record
    return str(record["sourceIPAddress"])


def interface_of(vpc: Vpc, subnet: str) -> dict[str, Any]:
    """The interface of the client in a subnet."""
    wanted = [{"Name": "subnet-id", "Values": [subnet]}, {"Name": "description", "Values": ["bastide network run"]}]
    return dict(vpc.ec2.describe_network_interfaces(Filters=wanted)["NetworkInterfaces"][0])


def entry(vpc: Vpc, acl: str, number: int, action: str, first: int, last: int, *, egress: bool) -> None:
    vpc.ec2.create_network_acl_entry(
        NetworkAclId=acl, RuleNumber=number, Protocol="6", RuleAction=action, Egress=egress, CidrBlock="0.0.0.0/0",
        PortRange={"From": first, "To": last},
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(platform: Any) -> Any:
    """A VPC with options of its own for DHCP, and a client in it."""
    vpc = make_vpc(platform.account())
    names = [{"Key": "domain-name-servers", "Values": ["AmazonProvidedDNS"]}]
    options = vpc.ec2.create_dhcp_options(DhcpConfigurations=names)["DhcpOptions"]["DhcpOptionsId"]
    vpc.ec2.associate_dhcp_options(DhcpOptionsId=options, VpcId=vpc.id)
    with vpc.inside() as inside:
        assert inside.one("resolve", "localhost")[0] == ""
        yield vpc, inside


def reaches(inside: Inside) -> dict[str, Any]:
    """What a call that gets through is answered. Names are asked for once, and not long, so it is asked again."""
    return dict(until(lambda: answer if not (found := inside.ask(STS))[0][0] and (answer := found[0][1]) else None))


def test_what_leaves_by_a_nat_gateway_comes_from_its_address(place: tuple[Vpc, Inside]) -> None:
    """A private subnet whose route goes to a NAT gateway reaches what an internet gateway leads to, and an ACL that keeps
    no state is asked at every border, also for the answer."""
    vpc, inside = place
    ec2 = vpc.ec2
    outside = until(lambda: inside.one("resolve", "sts.us-east-1.amazonaws.com")[1])[0]

    def lost() -> bool:
        return inside.lost(("connect", outside))

    public = ec2.create_subnet(VpcId=vpc.id, CidrBlock="10.0.2.0/24")["Subnet"]["SubnetId"]
    allocated = ec2.allocate_address(Domain="vpc")
    without = ec2.create_nat_gateway(SubnetId=public, AllocationId=allocated["AllocationId"])["NatGateway"][
        "NatGatewayId"
    ]
    found = ec2.describe_nat_gateways(NatGatewayIds=[without])["NatGateways"][0]
    assert (found["State"], found["FailureCode"]) == ("failed", "Gateway.NotAttached")
    ec2.delete_nat_gateway(NatGatewayId=without)
    assert refused(ec2.describe_nat_gateways, NatGatewayIds=[without]) == "NatGatewayNotFound"
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc.id)
    nat = ec2.create_nat_gateway(SubnetId=public, AllocationId=allocated["AllocationId"])["NatGateway"]["NatGatewayId"]
    ec2.get_waiter("nat_gateway_available").wait(NatGatewayIds=[nat])

    # A route to it from the client's subnet, and none from its own to the internet: nothing passes.
    ec2.create_route(RouteTableId=vpc.main_table(), DestinationCidrBlock="0.0.0.0/0", NatGatewayId=nat)
    table = ec2.create_route_table(VpcId=vpc.id)["RouteTable"]["RouteTableId"]
    ec2.associate_route_table(RouteTableId=table, SubnetId=public)
    here = interface_of(vpc, vpc.subnet)["NetworkInterfaceId"]
    assert lost()
    passes, hops = why(vpc, here, "sts.us-east-1.amazonaws.com")
    assert not passes and nat in hops[-1]["why"] and "no route to an internet gateway" in hops[-1]["why"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    assert came_from(vpc.account, reaches(inside)) == allocated["PublicIp"]
    passes, hops = why(vpc, here, "sts.us-east-1.amazonaws.com")
    assert passes and ("nat gateway", nat) in {(one["what"], one["where"]) for one in hops}
    assert why(vpc, here, "93.184.215.14")[1][-1]["what"] == "nat gateway"

    # A policy tells it from everybody else.
    there = {"Condition": {"IpAddress": {"aws:SourceIp": f"{allocated['PublicIp']}/32"}}}
    vpc.account.role(
        "auditor", {"Version": "2012-10-17", "Statement": [{**allow("s3:ListAllMyBuckets")["Statement"][0], **there}]}
    )
    keys = vpc.account.as_role("auditor")
    listed = ("s3", "list_buckets", {"_keys": [keys.access_key, keys.secret, keys.token]})
    assert until(lambda: inside.ask(listed)[0][0] == "")
    assert refused(vpc.account.client("s3", keys).list_buckets) == "AccessDenied"

    # The subnet gets an ACL of its own, which lets nothing pass until it says so: out, and in again.
    acl = ec2.create_network_acl(VpcId=vpc.id)["NetworkAcl"]["NetworkAclId"]
    mine = [{"Name": "association.subnet-id", "Values": [vpc.subnet]}]
    held = ec2.describe_network_acls(Filters=mine)["NetworkAcls"][0]
    assert held["IsDefault"] and [one["RuleNumber"] for one in held["Entries"]] == [100, 32767, 100, 32767]
    association = next(one for one in held["Associations"] if one["SubnetId"] == vpc.subnet)
    ec2.replace_network_acl_association(AssociationId=association["NetworkAclAssociationId"], NetworkAclId=acl)
    assert [one["NetworkAclId"] for one in ec2.describe_network_acls(Filters=mine)["NetworkAcls"]] == [acl]

    def stopped(what: str) -> bool:
        """Nothing arrives, and `why` names the ACL."""
        last = why(vpc, here, "sts.us-east-1.amazonaws.com")[1][-1]
        return lost() and (last["what"], last["where"]) == (what, acl)

    assert stopped("network acl")
    entry(vpc, acl, 100, "allow", 443, 443, egress=True)
    assert stopped("network acl back")
    entry(vpc, acl, 100, "allow", 1024, 65535, egress=False)
    reaches(inside)
    entry(vpc, acl, 90, "deny", 443, 443, egress=True)
    assert stopped("network acl")
    assert refused(ec2.delete_network_acl, NetworkAclId=acl) == "DependencyViolation"
    ec2.delete_network_acl_entry(NetworkAclId=acl, RuleNumber=90, Egress=True)
    reaches(inside)

    # The gateway's subnet has borders, too.
    other = ec2.create_network_acl(VpcId=vpc.id)["NetworkAcl"]["NetworkAclId"]
    theirs = ec2.describe_network_acls(Filters=[{"Name": "association.subnet-id", "Values": [public]}])["NetworkAcls"][
        0
    ]
    moved = next(one["NetworkAclAssociationId"] for one in theirs["Associations"] if one["SubnetId"] == public)
    moved = ec2.replace_network_acl_association(AssociationId=moved, NetworkAclId=other)["NewAssociationId"]
    assert lost()
    assert why(vpc, here, "sts.us-east-1.amazonaws.com")[1][-1]["where"] == other
    for egress in (True, False):
        entry(vpc, other, 100, "allow", 443, 443, egress=egress)
        entry(vpc, other, 110, "allow", 1024, 65535, egress=egress)
    reaches(inside)

    # What is in use stays; what is gone leads nowhere.
    assert refused(ec2.release_address, AllocationId=allocated["AllocationId"]) == "InvalidIPAddress.InUse"
    assert refused(ec2.detach_internet_gateway, InternetGatewayId=gateway, VpcId=vpc.id) == "DependencyViolation"
    ec2.delete_nat_gateway(NatGatewayId=nat)
    assert lost()
    routes = ec2.describe_route_tables(RouteTableIds=[vpc.main_table()])["RouteTables"][0]["Routes"]
    assert [one["State"] for one in routes if one.get("NatGatewayId") == nat] == ["blackhole"]

    # An interface's own public address, where its subnet's route leads to the internet gateway.
    ec2.replace_route(RouteTableId=vpc.main_table(), DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    assert lost()
    assert why(vpc, here, "sts.us-east-1.amazonaws.com")[1][-1]["why"].endswith("has no public address")
    given = ec2.associate_address(AllocationId=allocated["AllocationId"], NetworkInterfaceId=here)["AssociationId"]
    assert came_from(vpc.account, reaches(inside)) == allocated["PublicIp"]
    assert interface_of(vpc, vpc.subnet)["Association"]["PublicIp"] == allocated["PublicIp"]
    ec2.disassociate_address(AssociationId=given)
    assert lost()
    ec2.release_address(AllocationId=allocated["AllocationId"])
    ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc.id)


def test_a_subnet_is_told_of_its_domain_and_servers(place: tuple[Vpc, Inside]) -> None:
    vpc, _ = place
    ec2 = vpc.ec2
    before = ec2.describe_vpcs(VpcIds=[vpc.id])["Vpcs"][0]["DhcpOptionsId"]
    assert refused(ec2.delete_dhcp_options, DhcpOptionsId=before) == "DependencyViolation"
    own = [
        {"Key": "domain-name-servers", "Values": ["10.0.1.53", "AmazonProvidedDNS"]},
        {"Key": "domain-name", "Values": ["bank.example"]},
    ]
    other = ec2.create_dhcp_options(DhcpConfigurations=own)["DhcpOptions"]["DhcpOptionsId"]
    ec2.associate_dhcp_options(DhcpOptionsId=other, VpcId=vpc.id)
    ec2.delete_dhcp_options(DhcpOptionsId=before)
    ran = subprocess.run(
        [*PROGRAM, "network", "run", "--data", str(vpc.account.platform.data), "--account", vpc.account.id, "--subnet",
         vpc.subnet, "--", "cat", "/etc/resolv.conf"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout.splitlines()[:-1] == ["nameserver 10.0.1.53", "nameserver 10.0.0.2", "search bank.example"]
    ec2.associate_dhcp_options(DhcpOptionsId="default", VpcId=vpc.id)
    ec2.delete_dhcp_options(DhcpOptionsId=other)
    clock = [{"Key": "ntp-servers", "Values": ["10.0.1.53"]}]
    assert refused(ec2.create_dhcp_options, DhcpConfigurations=clock) == "UnsupportedOperation"
    wrong = [{"Key": "domain-name", "Values": ["bank.example\nnameserver 192.0.2.1"]}]
    assert refused(ec2.create_dhcp_options, DhcpConfigurations=wrong) == "InvalidParameterValue"


def test_entries_and_addresses_that_cannot_be(place: tuple[Vpc, Inside]) -> None:
    vpc, _ = place
    ec2 = vpc.ec2
    acl = ec2.create_network_acl(VpcId=vpc.id)["NetworkAcl"]["NetworkAclId"]
    good: dict[str, Any] = {
        "NetworkAclId": acl, "RuleNumber": 10, "Protocol": "tcp", "RuleAction": "allow", "Egress": False,
        "CidrBlock": "10.0.0.5/16", "PortRange": {"From": 1, "To": 2},
    }  # fmt: skip
    ec2.create_network_acl_entry(**good)
    for changed, code in (
        ({}, "NetworkAclEntryAlreadyExists"),
        ({"RuleNumber": 0}, "InvalidParameterValue"),
        ({"RuleNumber": 32767}, "InvalidParameterValue"),
        ({"RuleNumber": 11, "RuleAction": "maybe"}, "InvalidParameterValue"),
        ({"RuleNumber": 11, "Protocol": "ipip"}, "InvalidParameterValue"),
        ({"RuleNumber": 11, "CidrBlock": "10.0.0.0"}, "InvalidParameterValue"),
        ({"RuleNumber": 11, "PortRange": {"From": 2, "To": 1}}, "InvalidParameterValue"),
        ({"RuleNumber": 11, "Protocol": "1"}, "MissingParameter"),
    ):
        assert refused(ec2.create_network_acl_entry, **{**good, **changed}) == code, changed
    ec2.replace_network_acl_entry(**{**good, "Protocol": "1", "IcmpTypeCode": {"Type": 8, "Code": -1}})
    shown = ec2.describe_network_acls(NetworkAclIds=[acl])["NetworkAcls"][0]["Entries"][1]
    assert (shown["CidrBlock"], shown["Protocol"], shown["IcmpTypeCode"]["Type"]) == ("10.0.0.0/16", "1", 8)
    missing = {"NetworkAclId": acl, "RuleNumber": 12, "Egress": False}
    assert refused(ec2.delete_network_acl_entry, **missing) == "InvalidNetworkAclEntry.NotFound"
    ec2.delete_network_acl(NetworkAclId=acl)
    address = ec2.allocate_address()["AllocationId"]
    assert refused(ec2.associate_address, AllocationId=address, InstanceId="i-1") == "InvalidInstanceID.NotFound"
    eni = ec2.create_network_interface(SubnetId=vpc.subnet)["NetworkInterface"]["NetworkInterfaceId"]
    assert refused(ec2.associate_address, AllocationId=address, NetworkInterfaceId=eni) == "Gateway.NotAttached"
    assert refused(ec2.create_nat_gateway, SubnetId=vpc.subnet, ConnectivityType="private") == "UnsupportedOperation"
    ec2.delete_network_interface(NetworkInterfaceId=eni)
    ec2.release_address(AllocationId=address)
    assert refused(ec2.release_address, AllocationId=address) == "InvalidAllocationID.NotFound"
    ids = [ec2.allocate_address()["AllocationId"] for _ in range(5 - len(ec2.describe_addresses()["Addresses"]))]
    assert refused(ec2.allocate_address) == "AddressLimitExceeded"
    for one in ids:
        ec2.release_address(AllocationId=one)

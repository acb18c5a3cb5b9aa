"""Endpoints as a client inside a VPC meets them: real names, real packets."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import PROGRAM, REGION, Account, Running, allow
from tests.stories.ec2.conftest import Inside, Science, Vpc, make_vpc

STS = ("sts", "get_caller_identity")
HTTPS = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443}


def refused(call: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**given)
    return str(error.value.response["Error"]["Code"])


@pytest.mark.control("NET-04")
def test_a_call_succeeds_through_an_endpoint_and_cannot_connect_without(science: Science) -> None:
    vpc, inside = science.vpc, science.inside
    made = vpc.interface("sts")["VpcEndpointId"]
    assert vpc.ec2.describe_vpc_endpoints(VpcEndpointIds=[made])["VpcEndpoints"][0]["State"] == "available"
    code, answer = inside.one(*STS)
    assert not code, answer
    assert answer["Account"] == vpc.account.id
    assert vpc.ec2.delete_vpc_endpoints(VpcEndpointIds=[made])["Unsuccessful"] == []
    assert inside.ask(STS, patience=0.3)[0][0] == "ConnectTimeoutError"
    assert refused(vpc.ec2.describe_vpc_endpoints, VpcEndpointIds=[made]) == "InvalidVpcEndpointId.NotFound"
    record = _record(vpc.account, "GetCallerIdentity", answer["ResponseMetadata"]["RequestId"])
    assert record["vpcEndpointId"] == made
    assert ipaddress.ip_address(record["sourceIPAddress"]) in ipaddress.ip_network(vpc.cidr)


def _record(account: Account, name: str, request: str) -> dict[str, Any]:
    trail = account.client("cloudtrail")
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = trail.lookup_events(LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": name}])["Events"]
        for one in found:
            record: dict[str, Any] = json.loads(one["CloudTrailEvent"])
            if record["requestID"] == request:
                return record
        time.sleep(0.05)
    raise AssertionError(f"no record of {request}")


@pytest.mark.control("NET-05")
def test_a_security_group_decides_who_may_connect(science: Science) -> None:
    vpc, inside = science.vpc, science.inside
    ec2 = vpc.ec2
    guard = ec2.create_security_group(VpcId=vpc.id, GroupName="guard", Description="of the endpoint")["GroupId"]
    mine = ec2.create_security_group(VpcId=vpc.id, GroupName="mine", Description="of the client")["GroupId"]
    made = vpc.interface("sts", SecurityGroupIds=[guard])
    found = ec2.describe_network_interfaces(NetworkInterfaceIds=made["NetworkInterfaceIds"])["NetworkInterfaces"][0]
    address = found["PrivateIpAddress"]
    assert ipaddress.ip_address(address) in ipaddress.ip_network(vpc.cidr)
    assert (found["InterfaceType"], found["Status"], found["Groups"][0]["GroupId"]) == ("vpc_endpoint", "in-use", guard)
    ec2.modify_network_interface_attribute(NetworkInterfaceId=science.interface, Groups=[mine])
    assert inside.lost(STS)
    rule = {**HTTPS, "IpRanges": [{"CidrIp": vpc.cidr}]}
    ec2.authorize_security_group_ingress(GroupId=guard, IpPermissions=[rule])
    assert inside.one(*STS)[0] == ""
    ec2.revoke_security_group_ingress(GroupId=guard, IpPermissions=[rule])
    assert inside.lost(STS)
    for near in (
        {**HTTPS, "FromPort": 444, "ToPort": 500, "IpRanges": [{"CidrIp": vpc.cidr}]},
        {**HTTPS, "IpRanges": [{"CidrIp": "10.0.2.0/24"}]},
        {**HTTPS, "IpProtocol": "udp", "IpRanges": [{"CidrIp": vpc.cidr}]},
        {**HTTPS, "UserIdGroupPairs": [{"GroupId": vpc.group}]},
    ):
        ec2.authorize_security_group_ingress(GroupId=guard, IpPermissions=[near])
    assert inside.lost(STS)
    peer = {**HTTPS, "UserIdGroupPairs": [{"GroupId": mine}]}
    ec2.authorize_security_group_ingress(GroupId=guard, IpPermissions=[peer])
    assert inside.one(*STS)[0] == ""
    # What the client's own group does not let out never arrives.
    everywhere = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.revoke_security_group_egress(GroupId=mine, IpPermissions=[everywhere])
    assert inside.lost(STS)
    ec2.authorize_security_group_egress(GroupId=mine, IpPermissions=[{**HTTPS, "IpRanges": [{"CidrIp": vpc.cidr}]}])
    assert inside.one(*STS)[0] == ""


@pytest.mark.control("NET-05")
def test_no_path_from_a_subnet_without_a_route_and_no_group_of_another_vpc(science: Science) -> None:
    vpc, inside = science.vpc, science.inside
    made = vpc.interface("sts")
    address = vpc.ec2.describe_network_interfaces(NetworkInterfaceIds=made["NetworkInterfaceIds"])
    address = address["NetworkInterfaces"][0]["PrivateIpAddress"]
    other = make_vpc(vpc.account, "10.1.0.0/16")
    with other.inside() as elsewhere:
        assert inside.one("connect", address)[0] == ""
        assert elsewhere.lost(("connect", address), STS)
        # Nothing of the machine is reachable, and nothing beyond it.
        assert inside.one("connect", "127.0.0.1")[0] == "ConnectionRefusedError"
        assert inside.lost(("connect", "192.0.2.1"), ("connect", "198.18.0.1"))
        assert inside.one("resolve", "example.com")[0] == "gaierror"
    for group, code in ((other.group, "InvalidParameter"), ("sg-0123456789abcdef0", "InvalidGroup.NotFound")):
        with pytest.raises(ClientError) as error:
            vpc.interface("logs", SecurityGroupIds=[group])
        assert error.value.response["Error"]["Code"] == code
    assert len(vpc.ec2.describe_vpc_endpoints()["VpcEndpoints"]) == 1


@pytest.mark.control("XVE-01", "XVE-05")
def test_an_interface_endpoint_for_s3_serves_its_own_region_under_its_policy(science: Science) -> None:
    vpc, inside = science.vpc, science.inside
    near, far = (f"{word}-{uuid.uuid4().hex[:10]}" for word in ("near", "far"))
    s3 = vpc.account.client("s3")
    s3.create_bucket(Bucket=near)
    elsewhere = vpc.account.client("s3", region_name="eu-west-1")
    elsewhere.create_bucket(Bucket=far, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    listing = ("s3", "list_objects_v2", {"Bucket": near})
    beyond = ("s3", "list_objects_v2", {"Bucket": far, "_client": {"region_name": "eu-west-1"}})
    assert inside.lost(listing)
    made = vpc.interface("s3")["VpcEndpointId"]
    assert inside.one(*listing)[0] == ""
    assert inside.one(*beyond)[0] == "EndpointConnectionError"  # no name of another region is known
    assert inside.one("s3", "list_objects_v2", {"Bucket": far})[0] == "EndpointConnectionError"  # it was sent there
    # A bucket that demands the endpoint is reached by no other way.
    demands = {"StringNotEquals": {"aws:SourceVpce": made}}
    arns = [f"arn:aws:s3:::{near}", f"arn:aws:s3:::{near}/*"]
    statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:ListBucket", "Resource": arns, "Condition": demands}
    s3.put_bucket_policy(Bucket=near, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    assert inside.one(*listing)[0] == ""
    assert refused(s3.list_objects_v2, Bucket=near) == "AccessDenied"
    vpc.ec2.delete_vpc_endpoints(VpcEndpointIds=[made])
    assert inside.lost(listing)


def test_two_clients_of_a_vpc_reach_each_other_as_their_groups_say(science: Science) -> None:
    vpc, other = science.vpc, science.inside
    ec2 = vpc.ec2
    closed = ec2.create_security_group(VpcId=vpc.id, GroupName="closed", Description="nothing in")["GroupId"]
    with vpc.inside(closed) as one:
        assert one.one("resolve", "localhost")[0] == ""
        held = ec2.describe_network_interfaces(Filters=[{"Name": "vpc-id", "Values": [vpc.id]}])["NetworkInterfaces"]
        assert [each["Status"] for each in held] == ["in-use"] * 2
        by_group = {each["Groups"][0]["GroupId"]: each["PrivateIpAddress"] for each in held}
        # A packet that arrives finds no listener and is refused; one that is dropped times out.
        ec2.authorize_security_group_ingress(
            GroupId=vpc.group, IpPermissions=[{**HTTPS, "UserIdGroupPairs": [{"GroupId": closed}]}]
        )
        assert one.one("connect", by_group[vpc.group])[0] == "ConnectionRefusedError"
        assert one.lost(("connect", by_group[vpc.group], {"port": 22}))
        assert other.lost(("connect", by_group[closed]))
        assert refused(ec2.delete_network_interface, NetworkInterfaceId=held[0]["NetworkInterfaceId"]) == (
            "InvalidNetworkInterface.InUse"
        )
    rule = {**HTTPS, "UserIdGroupPairs": [{"GroupId": closed}]}
    ec2.revoke_security_group_ingress(GroupId=vpc.group, IpPermissions=[rule])
    left = ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert [each["NetworkInterfaceId"] for each in left] == [science.interface]


def _bucket(account: Account, name: str) -> str:
    name = f"{name}-{account.id}"
    s3 = account.client("s3")
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"content")
    return name


@pytest.mark.control("NET-06")
def test_a_gateway_endpoint_is_the_target_of_a_route(science: Science) -> None:
    vpc, inside = science.vpc, science.inside
    ec2, name = vpc.ec2, f"com.amazonaws.{REGION}.s3"
    bucket = _bucket(vpc.account, "routed")
    look = ("s3", "list_objects_v2", {"Bucket": bucket})
    main = vpc.main_table()
    table = ec2.create_route_table(VpcId=vpc.id)["RouteTable"]["RouteTableId"]
    made = ec2.create_vpc_endpoint(VpcId=vpc.id, ServiceName=name, RouteTableIds=[table])["VpcEndpoint"]
    prefix = ec2.describe_prefix_lists(Filters=[{"Name": "prefix-list-name", "Values": [name]}])["PrefixLists"][0]
    _, addresses = inside.one("resolve", "s3.us-east-1.amazonaws.com")
    assert all(ipaddress.ip_address(one) in ipaddress.ip_network(prefix["Cidrs"][0]) for one in addresses)
    assert inside.lost(look)
    association = ec2.associate_route_table(RouteTableId=table, SubnetId=vpc.subnet)["AssociationId"]
    routes = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
    assert {(one.get("DestinationPrefixListId"), one["GatewayId"]) for one in routes} == {
        (None, "local"),
        (prefix["PrefixListId"], made["VpcEndpointId"]),
    }
    code, answer = inside.one(*look)
    assert not code, answer
    assert answer["Contents"][0]["Key"] == "k"
    # By its region's name and through the client's default, bucket names in the host or in the path.
    again = [
        (*look[:2], {**look[2], "_client": {"endpoint_url": url}})
        for url in ("https://s3.us-east-1.amazonaws.com", "https://s3.amazonaws.com")
    ]
    assert [code for code, _ in inside.ask(*again)] == ["", ""]
    ec2.disassociate_route_table(AssociationId=association)
    assert inside.lost(look)
    ec2.modify_vpc_endpoint(VpcEndpointId=made["VpcEndpointId"], AddRouteTableIds=[main])
    assert inside.one(*look)[0] == ""
    # What leaves by the route is filtered like all else: the group may name the prefix list.
    everywhere = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.revoke_security_group_egress(GroupId=vpc.group, IpPermissions=[everywhere])
    assert inside.lost(look)
    to = {**HTTPS, "PrefixListIds": [{"PrefixListId": prefix["PrefixListId"]}]}
    ec2.authorize_security_group_egress(GroupId=vpc.group, IpPermissions=[to])
    assert inside.one(*look)[0] == ""
    ec2.revoke_security_group_egress(GroupId=vpc.group, IpPermissions=[to])
    ec2.authorize_security_group_egress(GroupId=vpc.group, IpPermissions=[everywhere])
    ec2.modify_vpc_endpoint(VpcEndpointId=made["VpcEndpointId"], RemoveRouteTableIds=[main, table])
    assert inside.lost(look)
    given = {"VpcId": vpc.id, "VpcEndpointType": "Gateway"}
    assert refused(ec2.create_vpc_endpoint, **given, ServiceName="com.amazonaws.us-east-1.sts") == "InvalidParameter"
    assert refused(ec2.create_vpc_endpoint, **given, ServiceName="com.amazonaws.us-east-1.no") == "InvalidServiceName"


def test_each_subnet_goes_by_its_own_gateway_endpoint(science: Science) -> None:
    vpc, one = science.vpc, science.inside
    ec2 = vpc.ec2
    bucket = _bucket(vpc.account, "two")
    second = ec2.create_subnet(VpcId=vpc.id, CidrBlock="10.0.2.0/24")["Subnet"]["SubnetId"]
    table = ec2.create_route_table(VpcId=vpc.id)["RouteTable"]["RouteTableId"]
    ec2.associate_route_table(RouteTableId=table, SubnetId=second)
    closed = json.dumps(allow("s3:PutObject", Principal="*"))
    given = {"VpcId": vpc.id, "ServiceName": f"com.amazonaws.{REGION}.s3"}
    ec2.create_vpc_endpoint(**given, RouteTableIds=[vpc.main_table()])
    ec2.create_vpc_endpoint(**given, RouteTableIds=[table], PolicyDocument=closed)
    assert refused(ec2.create_vpc_endpoint, **given, RouteTableIds=[table]) == "RouteAlreadyExists"
    look = ("s3", "list_objects_v2", {"Bucket": bucket})
    with vpc.inside(subnet=second) as other:
        assert one.one(*look)[0] == ""
        assert other.one(*look)[0] == "AccessDenied"


@pytest.mark.control("NET-07")
def test_the_endpoint_policy_restricts_what_lies_behind(science: Science, neighbour: Account, mission: Path) -> None:
    vpc, inside = science.vpc, science.inside
    listed, second, other = (_bucket(vpc.account, name) for name in ("listed", "second", "other"))
    foreign = _bucket(neighbour, "foreign")
    everybody = allow("s3:GetObject", "s3:PutObject", resource=f"arn:aws:s3:::{foreign}/*", Principal="*")
    s3 = neighbour.client("s3")
    s3.put_public_access_block(Bucket=foreign, PublicAccessBlockConfiguration={"BlockPublicPolicy": False})
    s3.put_bucket_policy(
        Bucket=foreign, Policy=json.dumps(everybody).replace('"*"', f'{{"AWS": "{vpc.account.id}"}}', 1)
    )
    text = (mission / "policies" / "11-vpc-endpoint-s3.json").read_text()
    text = text.replace("<BUCKET_NAME_1>", listed).replace("<BUCKET_NAME_2>", second)
    made = vpc.ec2.create_vpc_endpoint(
        VpcId=vpc.id, ServiceName=f"com.amazonaws.{REGION}.s3", RouteTableIds=[vpc.main_table()]
    )["VpcEndpoint"]

    def read(bucket: str) -> tuple[str, str, dict[str, str]]:
        return ("s3", "get_object", {"Bucket": bucket, "Key": "k"})

    def write(bucket: str) -> tuple[str, str, dict[str, str]]:
        return ("s3", "put_object", {"Bucket": bucket, "Key": "new", "Body": "x"})

    every = (listed, second, other, foreign)
    calls = [*map(read, every), *map(write, every)]
    assert [code for code, _ in inside.ask(*calls)] == [""] * 8
    vpc.ec2.modify_vpc_endpoint(VpcEndpointId=made["VpcEndpointId"], PolicyDocument=text)
    answers = inside.ask(*calls)
    assert [code for code, _ in answers] == ["", "", "AccessDenied", "AccessDenied"] * 2
    assert "VPC endpoint policy" in answers[2][1]
    for bucket in every:
        assert vpc.account.client("s3").get_object(Bucket=bucket, Key="k")["Body"].read() == b"content"
    shown = vpc.ec2.describe_vpc_endpoints()["VpcEndpoints"][0]["PolicyDocument"]
    assert json.loads(shown) == json.loads(text)


def test_a_bucket_that_only_an_endpoint_leads_to(science: Science) -> None:
    vpc, inside = science.vpc, science.inside
    bucket = _bucket(vpc.account, "private")
    made = vpc.ec2.create_vpc_endpoint(
        VpcId=vpc.id, ServiceName=f"com.amazonaws.{REGION}.s3", RouteTableIds=[vpc.main_table()]
    )["VpcEndpoint"]["VpcEndpointId"]
    where = [f"arn:aws:s3:::{bucket}/*"]
    statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": where}
    only = {**statement, "Condition": {"StringNotEquals": {"aws:SourceVpce": made}}}
    s3 = vpc.account.client("s3")
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [only]}))
    read = {"Bucket": bucket, "Key": "k"}
    assert inside.one("s3", "get_object", read)[1]["Body"] == "content"
    assert refused(s3.get_object, **read) == "AccessDenied"


def test_a_killed_command_leaves_nothing_attached(science: Science) -> None:
    vpc = science.vpc
    made = Inside(vpc, vpc.subnet, (), None)
    assert made.one("resolve", "localhost")[0] == ""
    described = [{"Name": "description", "Values": ["bastide network run"]}]

    def states() -> list[str]:
        found = vpc.ec2.describe_network_interfaces(Filters=described)["NetworkInterfaces"]
        return sorted(one["Status"] for one in found)

    assert states() == ["in-use", "in-use"]
    made.running.kill()
    made.running.communicate()
    until = time.monotonic() + 60
    while states() != ["available", "in-use"]:
        assert time.monotonic() < until, states()
        time.sleep(0.05)


@pytest.mark.control("NET-08")
def test_endpoints_for_s3_and_the_sagemaker_api(science: Science) -> None:
    vpc, inside = science.vpc, science.inside
    bucket = _bucket(vpc.account, "science")
    api = vpc.interface("sagemaker.api")["VpcEndpointId"]
    s3 = vpc.ec2.create_vpc_endpoint(
        VpcId=vpc.id, ServiceName=f"com.amazonaws.{REGION}.s3", RouteTableIds=[vpc.main_table()]
    )["VpcEndpoint"]["VpcEndpointId"]
    look, jobs = ("s3", "list_objects_v2", {"Bucket": bucket}), ("sagemaker", "list_training_jobs")
    name = ("resolve", "api.sagemaker.us-east-1.amazonaws.com")
    (first, _), (second, _), (_, addresses) = inside.ask(look, jobs, name)
    assert (first, second) == ("", "")
    assert all(ipaddress.ip_address(one) in ipaddress.ip_network(vpc.cidr) for one in addresses)
    vpc.ec2.delete_vpc_endpoints(VpcEndpointIds=[s3])
    assert inside.lost(look) and inside.one(*jobs)[0] == ""
    vpc.ec2.create_vpc_endpoint(
        VpcId=vpc.id, ServiceName=f"com.amazonaws.{REGION}.s3", RouteTableIds=[vpc.main_table()]
    )
    vpc.ec2.delete_vpc_endpoints(VpcEndpointIds=[api])
    assert inside.lost(jobs) and inside.one(*look)[0] == ""


@pytest.mark.control("NET-11")
def test_endpoints_for_sts_cloudwatch_and_cloudtrail(science: Science) -> None:
    """NET-11: each of the four, and none without its endpoint."""
    vpc, inside = science.vpc, science.inside
    made = {name: vpc.interface(name)["VpcEndpointId"] for name in ("sts", "logs", "monitoring", "cloudtrail")}
    role = vpc.account.role("Reader")
    logs = vpc.account.client("logs")
    logs.create_log_group(logGroupName="g")
    logs.create_log_stream(logGroupName="g", logStreamName="s")
    line = {"timestamp": int(time.time() * 1000), "message": "from inside"}
    calls = {
        "sts": ("sts", "assume_role", {"RoleArn": role, "RoleSessionName": "inside"}),
        "logs": ("logs", "put_log_events", {"logGroupName": "g", "logStreamName": "s", "logEvents": [line]}),
        "monitoring": (
            "cloudwatch",
            "put_metric_data",
            {"Namespace": "n", "MetricData": [{"MetricName": "m", "Value": 1}]},
        ),
        "cloudtrail": ("cloudtrail", "lookup_events", {"MaxResults": 1}),
    }
    answers = inside.ask(*calls.values())
    assert [code for code, _ in answers] == ["", "", "", ""], answers
    everywhere = {"_client": {"endpoint_url": "https://sts.amazonaws.com"}}
    assert inside.lost((*STS, everywhere))
    for name, call in calls.items():
        vpc.ec2.delete_vpc_endpoints(VpcEndpointIds=[made.pop(name)])
        assert inside.lost(call)
        assert all(inside.one(*calls[one])[0] == "" for one in made)
    assert logs.get_log_events(logGroupName="g", logStreamName="s")["events"][0]["message"] == "from inside"
    assert vpc.account.client("cloudwatch").list_metrics()["Metrics"][0]["Namespace"] == "n"
    names = {"sts": "AssumeRole", "cloudtrail": "LookupEvents"}
    for (_, answer), name in zip(answers, calls, strict=True):
        if name in names:
            record = _record(vpc.account, names[name], answer["ResponseMetadata"]["RequestId"])
            assert record["vpcEndpointId"].startswith("vpce-0")


def test_private_names_follow_the_attributes_and_an_endpoint_has_names_of_its_own(science: Science) -> None:
    vpc, inside = science.vpc, science.inside
    ec2 = vpc.ec2
    assert vpc.interface("sts", PrivateDnsEnabled=True)["PrivateDnsEnabled"]
    with pytest.raises(ClientError, match="conflicting DNS domain"):
        vpc.interface("sts")
    made = vpc.interface("logs", PrivateDnsEnabled=False)
    own = [one["DnsName"] for one in made["DnsEntries"]]
    assert len(own) == 2 and all(name.endswith(".logs.us-east-1.vpce.amazonaws.com") for name in own)
    groups = ("logs", "describe_log_groups")
    assert inside.lost(groups)
    for name in own:
        code, answer = inside.one(*groups, {"_client": {"endpoint_url": f"https://{name}"}})
        assert not code, answer
    ec2.modify_vpc_attribute(VpcId=vpc.id, EnableDnsHostnames={"Value": False})
    assert inside.lost(STS)
    with pytest.raises(ClientError, match="Enabling private DNS requires both"):
        ec2.modify_vpc_endpoint(VpcEndpointId=made["VpcEndpointId"], PrivateDnsEnabled=True)
    ec2.modify_vpc_attribute(VpcId=vpc.id, EnableDnsHostnames={"Value": True})
    ec2.modify_vpc_endpoint(VpcEndpointId=made["VpcEndpointId"], PrivateDnsEnabled=True)
    assert [code for code, _ in inside.ask(STS, groups)] == ["", ""]
    ec2.modify_vpc_attribute(VpcId=vpc.id, EnableDnsSupport={"Value": False})
    assert inside.one("resolve", "sts.us-east-1.amazonaws.com")[0] == "gaierror"
    ec2.modify_vpc_attribute(VpcId=vpc.id, EnableDnsSupport={"Value": True})
    assert inside.one(*STS)[0] == ""


def test_an_endpoint_leads_to_its_service_and_region_alone(science: Science) -> None:
    vpc, inside = science.vpc, science.inside
    vpc.interface("sts")
    own = "https://sts.us-east-1.amazonaws.com"
    for service, method, region in (
        ("logs", "describe_log_groups", "us-east-1"),
        ("s3", "list_buckets", "us-east-1"),
        ("iam", "list_roles", "us-east-1"),
        ("ec2", "describe_vpcs", "us-east-1"),
        ("sts", "get_caller_identity", "eu-west-1"),
    ):
        told = {"_client": {"endpoint_url": own, "region_name": region}}
        code, message = inside.one(service, method, told)
        assert code in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"), (service, code, message)
        assert "does not lead to" in message


def test_what_the_policy_sees_of_a_call_through_an_endpoint(science: Science) -> None:
    """Each key is there with its value, aws:SourceIp is not, and a header that says otherwise changes nothing."""
    vpc, inside = science.vpc, science.inside
    made = vpc.interface("sts")["VpcEndpointId"]
    keys = {
        "aws:SourceVpce": made,
        "aws:SourceVpc": vpc.id,
        "aws:VpceAccount": vpc.account.id,
    }
    org = vpc.account.platform.client("organizations").describe_organization()["Organization"]["Id"]
    conditions = {
        "StringEquals": {**keys, "aws:VpceOrgID": org, "aws:RequestedRegion": REGION},
        "IpAddress": {"aws:VpcSourceIp": vpc.cidr},
        "Null": {"aws:SourceIp": "true", "aws:VpceOrgPaths": "false"},
    }
    target = vpc.account.role("Target")
    vpc.account.role("Caller", allow("sts:AssumeRole", Condition=conditions))
    held = vpc.account.as_role("Caller")
    call = {"RoleArn": target, "RoleSessionName": "inside", "_headers": {"X-Forwarded-For": "203.0.113.7"}}
    code, answer = inside.one("sts", "assume_role", {**call, "_keys": [held.access_key, held.secret, held.token]})
    assert not code, answer
    outside = vpc.account.client("sts", held)
    assert refused(outside.assume_role, RoleArn=target, RoleSessionName="outside") == "AccessDenied"


def test_a_connection_outlives_its_rule_and_ends_with_its_endpoint(science: Science) -> None:
    vpc, inside = science.vpc, science.inside
    group = vpc.ec2.create_security_group(VpcId=vpc.id, GroupName="brief", Description="for a while")["GroupId"]
    rule = {**HTTPS, "IpRanges": [{"CidrIp": vpc.cidr}]}
    vpc.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    made = vpc.interface("sts", SecurityGroupIds=[group])["VpcEndpointId"]
    kept = (*STS, {"_keep": "brief"})
    assert inside.ask(kept, patience=1.0)[0][0] == ""
    vpc.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])
    assert inside.lost(STS) and inside.one(*kept)[0] == ""
    vpc.ec2.delete_vpc_endpoints(VpcEndpointIds=[made])
    assert inside.one(*kept)[0] in ("ConnectTimeoutError", "ConnectionClosedError")


def run(vpc: Vpc, *words: str, role: str = "OrganizationAccountAccessRole") -> subprocess.CompletedProcess[str]:
    data = str(vpc.account.platform.data)
    return subprocess.run(
        [*PROGRAM, "network", "run", "--data", data, "--account", vpc.account.id, "--role", role, *words],
        capture_output=True, text=True, timeout=60, check=False, input="given",
    )  # fmt: skip


def test_a_program_in_a_subnet_finds_what_an_aws_client_needs(science: Science) -> None:
    vpc = science.vpc
    vpc.interface("sts")
    names = ("PATH", "HOME", "LANG")
    bare = {name: os.environ[name] for name in names if name in os.environ}
    asks = "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'], boto3.session.Session().region_name)"
    words = ["--account", vpc.account.id, "--subnet", vpc.subnet, "--", sys.executable, "-c", asks]
    done = subprocess.run(
        [*PROGRAM, "network", "run", "--data", str(vpc.account.platform.data), *words],
        capture_output=True, text=True, timeout=60, check=False, env=bare | {"AWS_ENDPOINT_URL": vpc.account.platform.url},
    )  # fmt: skip
    assert done.stdout.split() == [
        f"arn:aws:sts::{vpc.account.id}:assumed-role/OrganizationAccountAccessRole/bastide-network", REGION
    ], done.stderr  # fmt: skip


def test_only_who_may_make_an_interface_puts_a_program_into_a_subnet(science: Science) -> None:
    vpc = science.vpc
    before = vpc.ec2.describe_network_interfaces()["NetworkInterfaces"]
    done = run(vpc, "--subnet", vpc.subnet, "--", "sh", "-c", "cat; cat /etc/resolv.conf; exit 7")
    assert (done.returncode, done.stdout.splitlines()[0]) == (7, "givennameserver 10.0.0.2")
    assert "nameserver 10.0.0.2" not in Path("/etc/resolv.conf").read_text()
    assert run(vpc, "--subnet", vpc.subnet, "--", "no-such-program").returncode == 127
    trust = {"AWS": f"arn:aws:iam::{vpc.account.platform.client('sts').get_caller_identity()['Account']}:root"}
    vpc.account.role("Outsider", allow("ec2:Describe*"), trust=trust)
    done = run(vpc, "--subnet", vpc.subnet, "--", "true", role="Outsider")
    assert (done.returncode, "ec2:CreateNetworkInterface" in done.stderr) == (1, True)
    done = run(vpc, "--subnet", "subnet-0123456789abcdef0", "--", "true")
    assert (done.returncode, "does not exist" in done.stderr) == (1, True)
    assert vpc.ec2.describe_network_interfaces()["NetworkInterfaces"] == before


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    running = Running(tmp_path_factory.mktemp("restarted") / "data")
    running.start()
    running.found()
    yield running
    running.stop()


def test_a_platform_that_was_killed_makes_its_networks_again(restarted: Running) -> None:
    """Beside another platform on the same machine, with the same addresses."""
    vpc = make_vpc(restarted.account())
    vpc.interface("sts")
    ec2, hub = vpc.ec2, make_vpc(vpc.account, "10.1.0.0/16")
    there = hub.interface("kms")["NetworkInterfaceIds"]
    there = ec2.describe_network_interfaces(NetworkInterfaceIds=there)["NetworkInterfaces"][0]["PrivateIpAddress"]
    everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}
    ec2.authorize_security_group_ingress(GroupId=hub.group, IpPermissions=[everything])
    gateway = ec2.create_transit_gateway()["TransitGateway"]["TransitGatewayId"]
    for one in (vpc, hub):
        ec2.create_transit_gateway_vpc_attachment(TransitGatewayId=gateway, VpcId=one.id, SubnetIds=[one.subnet])
        ec2.create_route(RouteTableId=one.main_table(), DestinationCidrBlock="10.0.0.0/8", TransitGatewayId=gateway)
    with vpc.inside() as inside:
        assert inside.one(*STS)[0] == inside.one("connect", there)[0] == ""
        assert restarted.process is not None
        restarted.kill()
        assert inside.one(*STS)[0] != ""
    restarted.launch()
    with vpc.inside() as inside:
        code, answer = inside.one(*STS)
        assert not code, answer
        assert inside.one("connect", there)[0] == ""
    left = vpc.ec2.describe_network_interfaces(Filters=[{"Name": "interface-type", "Values": ["interface"]}])
    for one in left["NetworkInterfaces"]:
        assert one["Status"] == "available"
        vpc.ec2.delete_network_interface(NetworkInterfaceId=one["NetworkInterfaceId"])


def test_without_networks_endpoints_are_refused_not_pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.platform.PROGRAM", ["setpriv", "--bounding-set", "-sys_admin", *PROGRAM])
    running = Running(tmp_path / "data")
    running.start()
    try:
        ec2 = running.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
        for call, given in (
            (ec2.create_vpc_endpoint, {"VpcId": vpc, "ServiceName": f"com.amazonaws.{REGION}.s3"}),
            (ec2.create_network_interface, {"SubnetId": subnet}),
        ):
            with pytest.raises(ClientError, match="it lacks network namespaces") as error:
                call(**given)
            assert error.value.response["Error"]["Code"] == "UnsupportedOperation"
        assert ec2.describe_vpc_endpoints()["VpcEndpoints"] == []
        assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    finally:
        running.stop()

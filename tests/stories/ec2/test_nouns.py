"""The nouns: shapes, ids, filters, tags, dry runs, and what may not be."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from botocore import xform_name
from botocore.exceptions import ClientError

from tests.platform import REGION, Account, allow
from tests.stories.ec2.conftest import Vpc


def refused(call: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**given)
    return str(error.value.response["Error"]["Code"])


def named(resource: str, **tags: str) -> list[dict[str, Any]]:
    return [{"ResourceType": resource, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]


def test_a_new_vpc_has_a_main_table_and_a_default_group(vpc: Vpc) -> None:
    ec2 = vpc.ec2
    assert re.fullmatch(r"vpc-[0-9a-f]{17}", vpc.id)
    shown = ec2.describe_vpcs(VpcIds=[vpc.id])["Vpcs"][0]
    assert (shown["CidrBlock"], shown["State"], shown["IsDefault"]) == ("10.0.0.0/16", "available", False)
    assert ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"] == []
    of = [{"Name": "vpc-id", "Values": [vpc.id]}]
    table = ec2.describe_route_tables(Filters=of)["RouteTables"][0]
    assert [one["GatewayId"] for one in table["Routes"]] == ["local"] and table["Associations"][0]["Main"]
    group = ec2.describe_security_groups(Filters=of)["SecurityGroups"][0]
    assert group["GroupName"] == "default"
    assert group["IpPermissions"][0]["UserIdGroupPairs"][0]["GroupId"] == group["GroupId"]
    assert group["IpPermissionsEgress"][0]["IpRanges"] == [{"CidrIp": "0.0.0.0/0"}]
    rules = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group["GroupId"]]}])
    assert sorted(one["IsEgress"] for one in rules["SecurityGroupRules"]) == [False, True]
    attribute = ec2.describe_vpc_attribute(VpcId=vpc.id, Attribute="enableDnsSupport")
    assert attribute["EnableDnsSupport"] == {"Value": True}
    subnet = ec2.describe_subnets(SubnetIds=[vpc.subnet])["Subnets"][0]
    assert (subnet["AvailableIpAddressCount"], subnet["AvailabilityZone"]) == (251, "us-east-1a")
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    assert [one["ZoneId"] for one in zones] == ["use1-az1", "use1-az2", "use1-az3"]
    regions = ec2.describe_regions(Filters=[{"Name": "region-name", "Values": ["eu-*"]}])["Regions"]
    assert [one["RegionName"] for one in regions] == ["eu-central-1", "eu-west-1"]
    assert refused(ec2.describe_regions, RegionNames=["mars-1"]) == "InvalidParameterValue"


def test_what_does_not_fit_is_refused_with_its_code(vpc: Vpc) -> None:
    ec2 = vpc.ec2
    for cidr, code in (
        ("10.0.0.0/8", "InvalidVpc.Range"),
        ("10.0.0.0/29", "InvalidVpc.Range"),
        ("127.0.0.0/16", "InvalidVpc.Range"),
        ("198.19.0.0/16", "InvalidVpc.Range"),
        ("10.0.0.0", "InvalidParameterValue"),
        ("no", "InvalidParameterValue"),
    ):
        assert refused(ec2.create_vpc, CidrBlock=cidr) == code, cidr
    assert refused(ec2.create_vpc) == "MissingParameter"
    for cidr, code in (
        ("10.0.1.128/25", "InvalidSubnet.Conflict"),
        ("10.1.0.0/24", "InvalidSubnet.Range"),
        ("10.0.2.0/30", "InvalidSubnet.Range"),
    ):
        assert refused(ec2.create_subnet, VpcId=vpc.id, CidrBlock=cidr) == code, cidr
    missing = "0123456789abcdef0"
    for call, given, code in (
        (ec2.describe_vpcs, {"VpcIds": [f"vpc-{missing}"]}, "InvalidVpcID.NotFound"),
        (ec2.delete_vpc, {"VpcId": f"vpc-{missing}"}, "InvalidVpcID.NotFound"),
        (ec2.delete_subnet, {"SubnetId": f"subnet-{missing}"}, "InvalidSubnetID.NotFound"),
        (ec2.delete_route_table, {"RouteTableId": f"rtb-{missing}"}, "InvalidRouteTableID.NotFound"),
        (ec2.disassociate_route_table, {"AssociationId": f"rtbassoc-{missing}"}, "InvalidAssociationID.NotFound"),
        (ec2.delete_security_group, {"GroupId": f"sg-{missing}"}, "InvalidGroup.NotFound"),
        (ec2.modify_vpc_endpoint, {"VpcEndpointId": f"vpce-{missing}"}, "InvalidVpcEndpointId.NotFound"),
        (ec2.delete_network_interface, {"NetworkInterfaceId": f"eni-{missing}"}, "InvalidNetworkInterfaceID.NotFound"),
        (ec2.describe_prefix_lists, {"PrefixListIds": ["pl-01234567"]}, "InvalidPrefixListId.NotFound"),
        (ec2.create_tags, {"Resources": ["i-1"], "Tags": [{"Key": "a", "Value": "b"}]}, "InvalidID"),
        (ec2.delete_security_group, {"GroupId": vpc.group}, "CannotDelete"),
        (ec2.delete_vpc, {"VpcId": vpc.id}, "DependencyViolation"),
        (ec2.describe_vpcs, {"Filters": [{"Name": "colour", "Values": ["red"]}]}, "InvalidParameterValue"),
        (ec2.create_security_group, {"GroupName": "g", "Description": "d"}, "VPCIdNotSpecified"),
    ):
        assert refused(call, **given) == code, (call, given)
    gone = ec2.delete_vpc_endpoints(VpcEndpointIds=[f"vpce-{missing}"])["Unsuccessful"][0]
    assert gone["Error"]["Code"] == "InvalidVpcEndpointId.NotFound"


def test_endpoints_that_cannot_be(vpc: Vpc) -> None:
    ec2 = vpc.ec2
    second = ec2.create_subnet(VpcId=vpc.id, CidrBlock="10.0.2.0/24")["Subnet"]["SubnetId"]
    with pytest.raises(ClientError, match="DuplicateSubnetsInSameZone"):
        vpc.interface("sts", SubnetIds=[vpc.subnet, second])
    for policy in ("{", "{}", '{"Version":"2012-10-17","Statement":[]}', json.dumps(allow("s3:*"))):
        with pytest.raises(ClientError, match="InvalidPolicyDocument"):
            vpc.interface("sts", PolicyDocument=policy)
    long = json.dumps(allow("sts:*", Principal="*", Sid="x" * 20_480))
    with pytest.raises(ClientError, match="InvalidPolicyDocument"):
        vpc.interface("sts", PolicyDocument=long)
    assert refused(ec2.create_vpc_endpoint, VpcId=vpc.id, ServiceName="com.amazonaws.us-east-1.sts",
                   VpcEndpointType="Gateway") == "InvalidParameter"  # fmt: skip
    for name in ("com.amazonaws.eu-west-1.sts", "com.amazonaws.us-east-1.dynamodb", "sts"):
        assert refused(
            ec2.create_vpc_endpoint, VpcId=vpc.id, ServiceName=name, VpcEndpointType="Interface"
        ) == "InvalidServiceName"  # fmt: skip
    assert ec2.describe_vpc_endpoints()["VpcEndpoints"] == []
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    names = ec2.describe_vpc_endpoint_services()["ServiceNames"]
    assert {f"com.amazonaws.{REGION}.{one}" for one in ("s3", "sts", "logs", "sagemaker.api")} < set(names)
    again = {"VpcId": vpc.id, "ServiceName": "com.amazonaws.us-east-1.sts", "VpcEndpointType": "Interface"}
    first = ec2.create_vpc_endpoint(**again, ClientToken="once")["VpcEndpoint"]["VpcEndpointId"]
    assert ec2.create_vpc_endpoint(**again, ClientToken="once")["VpcEndpoint"]["VpcEndpointId"] == first
    other = {**again, "ServiceName": "com.amazonaws.us-east-1.logs"}
    assert refused(ec2.create_vpc_endpoint, **other, ClientToken="once") == "IdempotentParameterMismatch"


def test_rules_come_once_and_go_by_what_they_say_or_by_id(vpc: Vpc) -> None:
    ec2 = vpc.ec2
    group = ec2.create_security_group(VpcId=vpc.id, GroupName="g", Description="d")["GroupId"]
    web = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "10.0.0.5/16"}]}
    made = ec2.authorize_security_group_ingress(
        GroupId=group, IpPermissions=[web], TagSpecifications=named("security-group-rule", a="b")
    )["SecurityGroupRules"][0]
    assert (made["CidrIpv4"], made["Tags"]) == ("10.0.0.0/16", [{"Key": "a", "Value": "b"}])
    assert refused(ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[web]) == (
        "InvalidPermission.Duplicate"
    )
    bad: list[tuple[dict[str, Any], str]] = [
        ({**web, "FromPort": 90}, "InvalidParameterValue"),
        ({**web, "ToPort": 70_000}, "InvalidParameterValue"),
        ({**web, "IpProtocol": "ipip"}, "InvalidParameterValue"),
        ({**web, "IpRanges": [{"CidrIp": "10.0.0.0/33"}]}, "InvalidParameterValue"),
        ({**web, "IpRanges": []}, "MissingParameter"),
        ({**web, "IpRanges": [], "UserIdGroupPairs": [{"GroupId": "sg-0123456789abcdef0"}]}, "InvalidGroup.NotFound"),
        ({**web, "IpRanges": [], "PrefixListIds": [{"PrefixListId": "pl-1"}]}, "InvalidPrefixListId.NotFound"),
    ]
    for permission, code in bad:
        assert refused(ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[permission]) == code
    flat = {"IpProtocol": "6", "FromPort": 443, "ToPort": 443, "CidrIp": "0.0.0.0/0"}
    ec2.authorize_security_group_ingress(GroupId=group, **flat)
    with pytest.raises(ClientError, match="RulesPerSecurityGroupLimitExceeded"):
        many = [{"CidrIp": f"10.{number}.0.0/16"} for number in range(1, 60)]
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[{**web, "IpRanges": many}])
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[web])
    assert (
        refused(ec2.revoke_security_group_ingress, GroupId=group, IpPermissions=[web]) == "InvalidPermission.NotFound"
    )
    left = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])["SecurityGroupRules"]
    ids = [one["SecurityGroupRuleId"] for one in left if not one["IsEgress"]]
    ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=ids)
    peer = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=vpc.group, IpPermissions=[peer])
    assert refused(ec2.delete_security_group, GroupId=group) == "DependencyViolation"
    ec2.revoke_security_group_ingress(GroupId=vpc.group, IpPermissions=[peer])
    ec2.delete_security_group(GroupId=group)


def test_filters_pages_and_tags(account: Account) -> None:
    ec2 = account.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=named("vpc", Name="science*one", team="a"))["Vpc"]
    id = vpc["VpcId"]
    for number in range(6):
        ec2.create_subnet(
            VpcId=id, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"us-east-1{'abc'[number % 3]}",
            TagSpecifications=named("subnet", Name=f"n-{number}"),
        )  # fmt: skip

    def names(*filters: tuple[str, str]) -> list[str]:
        given = [{"Name": name, "Values": [value]} for name, value in filters]
        found = ec2.describe_subnets(Filters=given)["Subnets"]
        return sorted(tag["Value"] for one in found for tag in one["Tags"])

    assert names(("tag:Name", "n-?"), ("availability-zone", "*c")) == ["n-2", "n-5"]
    assert names(("tag:Name", "N-1")) == [] and names(("tag-key", "Na*")) == [f"n-{number}" for number in range(6)]
    assert ec2.describe_vpcs(Filters=[{"Name": "tag:Name", "Values": [r"science\*one"]}])["Vpcs"][0]["VpcId"] == id
    assert ec2.describe_vpcs(Filters=[{"Name": "tag:Name", "Values": [r"science\*"]}])["Vpcs"] == []
    pages = list(ec2.get_paginator("describe_subnets").paginate(PaginationConfig={"PageSize": 5}))
    assert [len(page["Subnets"]) for page in pages] == [5, 1]
    ec2.create_tags(Resources=[id], Tags=[{"Key": "team", "Value": "b"}, {"Key": "stage", "Value": "x"}])
    ec2.delete_tags(Resources=[id], Tags=[{"Key": "Name"}, {"Key": "stage", "Value": "other"}])
    mine = [{"Name": "resource-id", "Values": [id]}]
    found = {one["Key"]: one["Value"] for one in ec2.describe_tags(Filters=mine)["Tags"]}
    assert found == {"team": "b", "stage": "x"}
    assert refused(ec2.create_tags, Resources=[id], Tags=[{"Key": "aws:x", "Value": ""}]) == "InvalidParameterValue"
    many = [{"Key": f"k{number}", "Value": ""} for number in range(49)]
    assert refused(ec2.create_tags, Resources=[id], Tags=many) == "TagLimitExceeded"
    wrong = named("subnet", a="b")
    assert refused(ec2.create_vpc, CidrBlock="10.1.0.0/16", TagSpecifications=wrong) == "InvalidParameterValue"


def test_main_tables_are_replaced_and_everything_can_be_taken_down(vpc: Vpc) -> None:
    ec2 = vpc.ec2
    made = ec2.create_route_table(VpcId=vpc.id)["RouteTable"]["RouteTableId"]
    main = ec2.describe_route_tables(RouteTableIds=[vpc.main_table()])["RouteTables"][0]
    association = main["Associations"][0]["RouteTableAssociationId"]
    assert refused(ec2.disassociate_route_table, AssociationId=association) == "InvalidParameterValue"
    assert refused(ec2.delete_route_table, RouteTableId=main["RouteTableId"]) == "DependencyViolation"
    ec2.replace_route_table_association(AssociationId=association, RouteTableId=made)
    assert vpc.main_table() == made
    ec2.delete_route_table(RouteTableId=main["RouteTableId"])
    other = ec2.create_route_table(VpcId=vpc.id)["RouteTable"]["RouteTableId"]
    own = ec2.associate_route_table(RouteTableId=other, SubnetId=vpc.subnet)["AssociationId"]
    assert refused(ec2.associate_route_table, RouteTableId=made, SubnetId=vpc.subnet) == "Resource.AlreadyAssociated"
    moved = ec2.replace_route_table_association(AssociationId=own, RouteTableId=made)["NewAssociationId"]
    ec2.disassociate_route_table(AssociationId=moved)
    ec2.associate_route_table(RouteTableId=other, SubnetId=vpc.subnet)
    interface = ec2.create_network_interface(SubnetId=vpc.subnet, PrivateIpAddress="10.0.1.77")["NetworkInterface"]
    assert (interface["PrivateIpAddress"], interface["Groups"][0]["GroupId"]) == ("10.0.1.77", vpc.group)
    for address, code in (("10.0.1.77", "InvalidIPAddress.InUse"), ("10.0.1.1", "InvalidParameterValue")):
        assert refused(ec2.create_network_interface, SubnetId=vpc.subnet, PrivateIpAddress=address) == code
    assert refused(ec2.delete_subnet, SubnetId=vpc.subnet) == "DependencyViolation"
    ec2.delete_network_interface(NetworkInterfaceId=interface["NetworkInterfaceId"])
    assert ec2.describe_subnets()["Subnets"][0]["AvailableIpAddressCount"] == 251
    ec2.delete_subnet(SubnetId=vpc.subnet)
    assert refused(ec2.delete_vpc, VpcId=vpc.id) == "DependencyViolation"
    ec2.delete_route_table(RouteTableId=other)
    ec2.delete_vpc(VpcId=vpc.id)
    assert ec2.describe_vpcs()["Vpcs"] == []
    assert ec2.describe_security_group_rules()["SecurityGroupRules"] == []
    assert [ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["State"] for _ in range(5)] == ["pending"] * 5
    assert refused(ec2.create_vpc, CidrBlock="10.0.0.0/16") == "VpcLimitExceeded"


def test_a_dry_run_asks_and_does_nothing(account: Account) -> None:
    ec2 = account.client("ec2")
    assert refused(ec2.create_vpc, CidrBlock="10.0.0.0/16", DryRun=True) == "DryRunOperation"
    assert ec2.describe_vpcs()["Vpcs"] == []
    account.role("Nobody", allow("ec2:DescribeVpcs"))
    nobody = account.client("ec2", account.as_role("Nobody"))
    assert refused(nobody.create_vpc, CidrBlock="10.0.0.0/16", DryRun=True) == "UnauthorizedOperation"
    assert refused(nobody.describe_vpcs, DryRun=True) == "DryRunOperation"


def test_policies_speak_of_what_is_made_and_of_what_it_is_made_in(vpc: Vpc) -> None:
    ec2, account = vpc.ec2, vpc.account
    where = f"arn:aws:ec2:{REGION}:{account.id}"
    ec2.create_tags(Resources=[vpc.id], Tags=[{"Key": "team", "Value": "science"}])
    statements = [
        {"Action": "ec2:CreateVpcEndpoint", "Resource": f"{where}:vpc/*",
         "Condition": {"StringEquals": {"aws:ResourceTag/team": "science", "ec2:VpcID": vpc.id}}},
        {"Action": "ec2:CreateVpcEndpoint", "Resource": f"{where}:vpc-endpoint/*",
         "Condition": {"StringLike": {"ec2:VpceServiceName": "com.amazonaws.*.sts", "ec2:VpceServiceOwner": "amazon"},
                       "StringEquals": {"aws:RequestTag/owner": "me", "ec2:Region": REGION}}},
        {"Action": "ec2:CreateVpcEndpoint", "Resource": [f"{where}:subnet/*", f"{where}:security-group/*"],
         "Condition": {"ArnEquals": {"ec2:Vpc": f"{where}:vpc/{vpc.id}"}}},
        {"Action": "ec2:CreateTags", "Resource": f"{where}:vpc-endpoint/*",
         "Condition": {"StringEquals": {"ec2:CreateAction": "CreateVpcEndpoint"}}},
    ]  # fmt: skip
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **one} for one in statements]}
    account.role("Maker", document)
    maker = account.client("ec2", account.as_role("Maker"))
    good = {
        "VpcId": vpc.id, "VpcEndpointType": "Interface", "ServiceName": f"com.amazonaws.{REGION}.sts",
        "SubnetIds": [vpc.subnet], "SecurityGroupIds": [vpc.group],
        "TagSpecifications": named("vpc-endpoint", owner="me"), "DryRun": True,
    }  # fmt: skip
    assert refused(maker.create_vpc_endpoint, **good) == "DryRunOperation"
    for change in (
        {"ServiceName": f"com.amazonaws.{REGION}.logs"},
        {"TagSpecifications": named("vpc-endpoint", owner="you")},
        {"TagSpecifications": []},
    ):
        assert refused(maker.create_vpc_endpoint, **{**good, **change}) == "UnauthorizedOperation"
    assert refused(maker.create_tags, Resources=["vpce-0123456789abcdef0"], Tags=[{"Key": "a", "Value": "b"}]) == (
        "UnauthorizedOperation"
    )
    ec2.create_tags(Resources=[vpc.id], Tags=[{"Key": "team", "Value": "other"}])
    assert refused(maker.create_vpc_endpoint, **good) == "UnauthorizedOperation"


def test_each_condition_key_is_there_with_its_value(vpc: Vpc) -> None:
    """A key that is not filled makes the first policy deny; one with another value makes the second allow."""
    ec2, account = vpc.ec2, vpc.account
    where = f"arn:aws:ec2:{REGION}:{account.id}"
    network, subnet = f"{where}:vpc/{vpc.id}", f"{where}:subnet/{vpc.subnet}"
    interface = ec2.create_network_interface(SubnetId=vpc.subnet)["NetworkInterface"]["NetworkInterfaceId"]
    endpoint = vpc.interface("sts")["VpcEndpointId"]
    zone, region, table = "us-east-1a", ("ec2:Region", REGION), vpc.main_table()
    service = [("ec2:VpceServiceName", f"com.amazonaws.{REGION}.sts"), ("ec2:VpceServiceOwner", "amazon")]
    within = [("ec2:Vpc", network), ("ec2:AvailabilityZone", zone)]
    make = {"SubnetId": vpc.subnet, "Groups": [vpc.group]}
    cases: list[tuple[str, dict[str, Any], str, list[tuple[str, str]]]] = [
        ("DeleteVpc", {"VpcId": vpc.id}, "vpc", [("ec2:VpcID", vpc.id), ("ec2:Tenancy", "default"), region]),
        ("DeleteSubnet", {"SubnetId": vpc.subnet}, "subnet", [("ec2:SubnetID", vpc.subnet), *within, region]),
        ("DeleteRouteTable", {"RouteTableId": table}, "route-table", [("ec2:RouteTableID", table), within[0], region]),
        ("DeleteSecurityGroup", {"GroupId": vpc.group}, "security-group",
         [("ec2:SecurityGroupID", vpc.group), within[0], region]),
        ("DeleteVpcEndpoints", {"VpcEndpointIds": [endpoint]}, "vpc-endpoint", [*service, region]),
        ("DeleteNetworkInterface", {"NetworkInterfaceId": interface}, "network-interface",
         [("ec2:NetworkInterfaceID", interface), ("ec2:Subnet", subnet), *within, region]),
        ("CreateNetworkInterface", make, "network-interface", [("ec2:Subnet", subnet), region]),
        ("CreateNetworkInterface", make, "subnet", [("ec2:SubnetID", vpc.subnet), *within]),
        ("CreateNetworkInterface", make, "security-group", [("ec2:SecurityGroupID", vpc.group), within[0]]),
        ("CreateSubnet", {"VpcId": vpc.id, "CidrBlock": "10.0.9.0/24", "AvailabilityZone": zone}, "subnet",
         [*within, region]),
        ("CreateSecurityGroup", {"VpcId": vpc.id, "GroupName": "g", "Description": "d"}, "security-group",
         [within[0], region]),
    ]  # fmt: skip
    account.role("Bound", allow("ec2:*"))
    iam, held = account.client("iam"), account.client("ec2", account.as_role("Bound"))

    def answered(call: str, given: dict[str, Any], *conditions: dict[str, Any], resource: str) -> str:
        denied = [
            {"Effect": "Deny", "Action": f"ec2:{call}", "Resource": f"{where}:{resource}/*", "Condition": one}
            for one in conditions
        ]
        document = {"Version": "2012-10-17", "Statement": denied}
        iam.put_role_policy(RoleName="Bound", PolicyName="bound", PolicyDocument=json.dumps(document))
        return refused(getattr(held, xform_name(call)), **given, DryRun=True)

    for call, given, resource, keys in cases:
        others = [{"StringNotEquals": {key: value}} for key, value in keys]
        assert answered(call, given, *others, resource=resource) == "DryRunOperation", (call, keys)
        for key, value in keys:
            same = {"StringEquals": {key: value}}
            assert answered(call, given, same, resource=resource) == "UnauthorizedOperation", (call, key)

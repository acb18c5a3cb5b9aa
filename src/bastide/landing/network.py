"""An account's network: private subnets, endpoints with policies, and where users find their ids."""

from __future__ import annotations

import ipaddress
from typing import Any

from bastide.landing.blueprint import Blueprint
from bastide.landing.words import account_word, camel, filled, words


def network(blueprint: Blueprint, account: str) -> dict[str, Any]:
    """The VPC of an account: no way to the internet, and to AWS through endpoints only."""
    range_ = blueprint.accounts[account].network
    vpc: dict[str, Any] = {"Ref": "Vpc"}
    made: dict[str, Any] = {
        "Vpc": {
            "Type": "AWS::EC2::VPC",
            "Properties": {
                "CidrBlock": range_,
                "EnableDnsSupport": True,
                "EnableDnsHostnames": True,
                "Tags": _named(blueprint, account),
            },
        },
        "Routes": {"Type": "AWS::EC2::RouteTable", "Properties": {"VpcId": vpc}},
        "Jobs": {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {
                "GroupDescription": "Jobs, models and notebooks",
                "VpcId": vpc,
                "SecurityGroupEgress": [
                    {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "CidrIp": "0.0.0.0/0", "Description": "AWS"}
                ],
            },
        },
        "BetweenJobs": {
            "Type": "AWS::EC2::SecurityGroupIngress",
            "Properties": {
                "GroupId": {"Fn::GetAtt": ["Jobs", "GroupId"]},
                "SourceSecurityGroupId": {"Fn::GetAtt": ["Jobs", "GroupId"]},
                "IpProtocol": "-1",
                "Description": "Hosts of a job",
            },
        },
        "BetweenJobsOut": {
            "Type": "AWS::EC2::SecurityGroupEgress",
            "Properties": {
                "GroupId": {"Fn::GetAtt": ["Jobs", "GroupId"]},
                "DestinationSecurityGroupId": {"Fn::GetAtt": ["Jobs", "GroupId"]},
                "IpProtocol": "-1",
                "Description": "Hosts of a job",
            },
        },
        "Endpoints": {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {
                "GroupDescription": "Endpoints of AWS services",
                "VpcId": vpc,
                "SecurityGroupIngress": [
                    {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "CidrIp": range_, "Description": "The VPC"}
                ],
            },
        },
    }
    halves = ipaddress.IPv4Network(range_).subnets(prefixlen_diff=1)
    for number, half in enumerate(halves):
        made[f"Subnet{number + 1}"] = {
            "Type": "AWS::EC2::Subnet",
            "Properties": {
                "VpcId": vpc,
                "CidrBlock": str(half),
                "AvailabilityZone": {"Fn::Select": [number, {"Fn::GetAZs": ""}]},
            },
        }
        made[f"Subnet{number + 1}Routes"] = {
            "Type": "AWS::EC2::SubnetRouteTableAssociation",
            "Properties": {"SubnetId": {"Ref": f"Subnet{number + 1}"}, "RouteTableId": {"Ref": "Routes"}},
        }
    made["S3Endpoint"] = {
        "Type": "AWS::EC2::VPCEndpoint",
        "Properties": {
            "VpcId": vpc,
            "VpcEndpointType": "Gateway",
            "ServiceName": f"com.amazonaws.{blueprint.region}.s3",
            "RouteTableIds": [{"Ref": "Routes"}],
            "PolicyDocument": s3_policy(blueprint, account),
        },
    }
    for service in blueprint.endpoints:
        made[f"{camel(service)}Endpoint"] = {
            "Type": "AWS::EC2::VPCEndpoint",
            "Properties": {
                "VpcId": vpc,
                "VpcEndpointType": "Interface",
                "ServiceName": f"com.amazonaws.{blueprint.region}.{service}",
                "PrivateDnsEnabled": True,
                "SubnetIds": [{"Ref": "Subnet1"}, {"Ref": "Subnet2"}],
                "SecurityGroupIds": [{"Fn::GetAtt": ["Endpoints", "GroupId"]}],
                "PolicyDocument": _ours_only(),
            },
        }
    told: dict[str, Any] = {
        "accounts/shared-services": {"Ref": "SharedServicesAccount"},
        "network/vpc": vpc,
        "network/subnets": {"Fn::Join": [",", [{"Ref": "Subnet1"}, {"Ref": "Subnet2"}]]},
        "network/security-group": {"Fn::GetAtt": ["Jobs", "GroupId"]},
    }
    for key, value in told.items():
        made[f"Told{camel(key)}"] = {
            "Type": "AWS::SSM::Parameter",
            "Properties": {"Name": f"/{blueprint.name}/{key}", "Type": "String", "Value": value},
        }
    word = camel(account)
    outputs = {f"{word}VpcId": {"Value": vpc}}
    outputs |= {f"{word}{name}": {"Value": {"Ref": name}} for name in ("S3Endpoint", "Subnet1", "Subnet2", "Routes")}
    outputs[f"{word}Jobs"] = {"Value": {"Fn::GetAtt": ["Jobs", "GroupId"]}}
    return {"Resources": made, "Outputs": outputs}


def _named(blueprint: Blueprint, account: str) -> list[dict[str, str]]:
    return [{"Key": "Name", "Value": f"{blueprint.name}-{account}"}]


def s3_policy(blueprint: Blueprint, account: str) -> dict[str, Any]:
    """What passes the S3 endpoint: the landing zone's buckets for its own principals, and ECR's, which hold layers."""
    here = f"${{{account_word(account)}}}"
    buckets = ["<ARTIFACTS>", "<MODELS>", "<PUBLISHED>", f"<NAME>-data-{here}"]
    if account == "data-management":
        buckets.append("<LAKE>")
    if account == "data-science":
        buckets += [f"<NAME>-team-{team.name}-{here}" for team in blueprint.teams]
    statement = {
        "Sid": "ListedBuckets",
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:DeleteObject", "s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket", "s3:PutObject"],
        "Resource": [arn for one in buckets for arn in (f"arn:aws:s3:::{one}", f"arn:aws:s3:::{one}/*")],
        "Condition": {"StringEquals": {"aws:PrincipalOrgID": ["${OrganizationId}"]}},
    }
    layers = {
        "Sid": "LayersOfImages",
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject"],
        "Resource": ["arn:aws:s3:::prod-<HOME>-starport-layer-bucket/*"],
    }
    found: dict[str, Any] = filled({"Version": "2012-10-17", "Statement": [statement, layers]}, words(blueprint))
    return found


def _ours_only() -> dict[str, Any]:
    statement = {
        "Sid": "OurPrincipals",
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["*"],
        "Resource": ["*"],
        "Condition": {"StringEquals": {"aws:PrincipalOrgID": ["${OrganizationId}"]}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}

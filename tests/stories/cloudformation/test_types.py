"""Every row of the table makes, changes and removes: two templates of the same resources, one after the other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.platform import HOME, Account, Running, allow
from tests.stories.cloudformation.stacks import Stacks

LAMBDA = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": ["lambda.amazonaws.com", "states.amazonaws.com"]},
            "Action": "sts:AssumeRole",
        }
    ],
}
POLICY = allow("s3:GetObject")
MACHINE = {"StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}}


def _at(name: str) -> dict[str, Any]:
    return {"Fn::GetAtt": name.split(".", 1)}


def _ref(name: str) -> dict[str, Any]:
    return {"Ref": name}


_NOTHING = [
    {
        "IncludeManagementEvents": False,
        "DataResources": [{"Type": "AWS::S3::Object", "Values": ["arn:aws:s3:::a-bucket-that-nobody-reads/"]}],
    }
]
"""What a trail selects that delivers no file into a bucket that has to be empty at the end, however long that takes."""


ANALYZER = "156813124566.dkr.ecr.us-east-1.amazonaws.com/sagemaker-model-monitor-analyzer"
_BATCH = {
    "DataCapturedDestinationS3Uri": "s3://captured/here",
    "DatasetFormat": {"Csv": {"Header": True}},
    "LocalPath": "/opt/ml/processing/input",
}
_REPORTS = {"S3Uri": "s3://captured/reports", "LocalPath": "/opt/ml/processing/output", "S3UploadMode": "EndOfJob"}
_CLUSTER = {"ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.t3.medium", "VolumeSizeInGB": 1}}


def _trusting(service: str) -> dict[str, Any]:
    trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [trust]}


def _account(word: str) -> dict[str, Any]:
    """Types of an ordinary account; `word` is what changes."""
    tags = [{"Key": "word", "Value": word}]
    return {
        "User": (
            "AWS::IAM::User",
            {"Policies": [{"PolicyName": word, "PolicyDocument": POLICY}], "Groups": [_ref("People")], "Tags": tags},
        ),
        "People": ("AWS::IAM::Group", {"Policies": [{"PolicyName": word, "PolicyDocument": POLICY}]}),
        "Access": (
            "AWS::IAM::AccessKey",
            {"UserName": _ref("User"), "Status": "Active" if word == "one" else "Inactive"},
        ),
        "UserOwn": (
            "AWS::IAM::UserPolicy",
            {"UserName": _ref("User"), "PolicyName": "own", "PolicyDocument": allow(f"s3:Get{word}*")},
        ),
        "GroupOwn": (
            "AWS::IAM::GroupPolicy",
            {"GroupName": _ref("People"), "PolicyName": "own", "PolicyDocument": allow(f"s3:Get{word}*")},
        ),
        "Role": ("AWS::IAM::Role", {"AssumeRolePolicyDocument": LAMBDA, "Description": word, "Tags": tags}),
        "RoleOwn": (
            "AWS::IAM::RolePolicy",
            {
                "RoleName": _ref("Role"),
                "PolicyName": "own",
                "PolicyDocument": allow("logs:*", "sqs:*", "sns:*", "lambda:*"),
            },
        ),
        "Several": (
            "AWS::IAM::Policy",
            {
                "PolicyName": "several",
                "PolicyDocument": allow(f"s3:List{word}*"),
                "Roles": [_ref("Role")],
                "Users": [_ref("User")],
            },
        ),
        "Managed": ("AWS::IAM::ManagedPolicy", {"PolicyDocument": allow(f"s3:List{word}*"), "Roles": [_ref("Role")]}),
        "Profile": ("AWS::IAM::InstanceProfile", {"Roles": [_ref("Role")]}),
        "Queue": ("AWS::SQS::Queue", {"VisibilityTimeout": 30 if word == "one" else 60, "Tags": tags}),
        "QueuePolicy": (
            "AWS::SQS::QueuePolicy",
            {
                "Queues": [_ref("Queue")],
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Sid": word,
                            "Effect": "Allow",
                            "Principal": {"Service": "sns.amazonaws.com"},
                            "Action": "sqs:SendMessage",
                            "Resource": _at("Queue.Arn"),
                        }
                    ],
                },
            },
        ),
        "Topic": ("AWS::SNS::Topic", {"DisplayName": word, "Tags": tags}),
        "TopicPolicy": (
            "AWS::SNS::TopicPolicy",
            {
                "Topics": [_ref("Topic")],
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Sid": word,
                            "Effect": "Allow",
                            "Principal": {"Service": "events.amazonaws.com"},
                            "Action": "sns:Publish",
                            "Resource": _ref("Topic"),
                        }
                    ],
                },
            },
        ),
        "Subscription": (
            "AWS::SNS::Subscription",
            {
                "TopicArn": _ref("Topic"),
                "Protocol": "sqs",
                "Endpoint": _at("Queue.Arn"),
                "RawMessageDelivery": word == "one",
            },
        ),
        "Bus": ("AWS::Events::EventBus", {"Name": "bus", "Tags": tags}),
        "BusPolicy": (
            "AWS::Events::EventBusPolicy",
            {
                "EventBusName": _ref("Bus"),
                "StatementId": "s",
                "Statement": {
                    "Effect": "Allow",
                    "Principal": {"AWS": {"Fn::Sub": "arn:aws:iam::${AWS::AccountId}:root"}},
                    "Action": "events:PutEvents",
                    "Resource": _at("Bus.Arn"),
                },
            },
        ),
        "Rule": (
            "AWS::Events::Rule",
            {
                "EventBusName": _ref("Bus"),
                "EventPattern": {"source": [word]},
                "Targets": [{"Id": word, "Arn": _at("Queue.Arn")}],
            },
        ),
        "Archive": (
            "AWS::Events::Archive",
            {
                "SourceArn": _at("Bus.Arn"),
                "RetentionDays": 1 if word == "one" else 2,
                "EventPattern": {"source": [word]},
            },
        ),
        "Partner": (
            "AWS::Events::Connection",
            {
                "AuthorizationType": "API_KEY",
                "Description": word,
                "AuthParameters": {"ApiKeyAuthParameters": {"ApiKeyName": "k", "ApiKeyValue": word}},
            },
        ),
        "Abroad": (
            "AWS::Events::ApiDestination",
            {
                "ConnectionArn": _at("Partner.Arn"),
                "HttpMethod": "POST",
                "InvocationEndpoint": "https://example.com/hook",
                "InvocationRateLimitPerSecond": 1 if word == "one" else 2,
            },
        ),
        "Schedule": (
            "AWS::Scheduler::Schedule",
            {
                "FlexibleTimeWindow": {"Mode": "OFF"},
                "ScheduleExpression": "rate(1 day)" if word == "one" else "rate(2 days)",
                "GroupName": _ref("Schedules"),
                "Target": {"Arn": _at("Queue.Arn"), "RoleArn": _at("Scheduling.Arn")},
            },
        ),
        "Scheduling": (
            "AWS::IAM::Role",
            {
                "AssumeRolePolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Allow",
                            "Principal": {"Service": "scheduler.amazonaws.com"},
                            "Action": "sts:AssumeRole",
                        }
                    ],
                }
            },
        ),
        "Schedules": ("AWS::Scheduler::ScheduleGroup", {"Tags": tags}),
        "Lines": ("AWS::Logs::LogGroup", {"RetentionInDays": 7 if word == "one" else 14, "Tags": tags}),
        "Stream": ("AWS::Logs::LogStream", {"LogGroupName": _ref("Lines")}),
        "Filter": (
            "AWS::Logs::MetricFilter",
            {
                "LogGroupName": _ref("Lines"),
                "FilterPattern": word,
                "MetricTransformations": [{"MetricName": "m", "MetricNamespace": "n", "MetricValue": "1"}],
            },
        ),
        "Alarm": (
            "AWS::CloudWatch::Alarm",
            {
                "MetricName": "m",
                "Namespace": "n",
                "ComparisonOperator": "GreaterThanThreshold",
                "EvaluationPeriods": 1,
                "Period": 60,
                "Statistic": "Sum",
                "Threshold": 1 if word == "one" else 2,
                "Tags": tags,
                "AlarmActions": [_ref("Topic")],
            },
        ),
        "Both": (
            "AWS::CloudWatch::CompositeAlarm",
            {"AlarmRule": {"Fn::Sub": "ALARM(${Alarm})"}, "AlarmDescription": word},
        ),
        "Board": (
            "AWS::CloudWatch::Dashboard",
            {
                "DashboardBody": json.dumps(
                    {
                        "widgets": [
                            {"type": "text", "x": 0, "y": 0, "width": 3, "height": 3, "properties": {"markdown": word}}
                        ]
                    }
                )
            },
        ),
        "Machine": (
            "AWS::StepFunctions::StateMachine",
            {"RoleArn": _at("Role.Arn"), "Definition": {**MACHINE, "Comment": word}, "Tags": tags},
        ),
        "Version": (
            "AWS::StepFunctions::StateMachineVersion",
            {"StateMachineArn": _ref("Machine"), "StateMachineRevisionId": _at("Machine.StateMachineRevisionId")},
        ),
        "Alias": (
            "AWS::StepFunctions::StateMachineAlias",
            {
                "Name": "live",
                "Description": word,
                "RoutingConfiguration": [{"StateMachineVersionArn": _ref("Version"), "Weight": 100}],
            },
        ),
        "Activity": ("AWS::StepFunctions::Activity", {"Name": "activity", "Tags": tags}),
        "Card": (
            "AWS::SageMaker::ModelCard",
            {
                "ModelCardName": "card",
                "ModelCardStatus": "Draft",
                "Content": {"ModelOverview": {"ModelDescription": word}},
                "Tags": tags,
            },
        ),
        "Packages": ("AWS::SageMaker::ModelPackageGroup", {"ModelPackageGroupName": "packages", "Tags": tags}),
        "Monitor": ("AWS::IAM::Role", {"AssumeRolePolicyDocument": _trusting("sagemaker.amazonaws.com")}),
        "Monitored": (
            "AWS::SageMaker::DataQualityJobDefinition",
            {
                "JobDefinitionName": f"quality-{word}",
                "DataQualityAppSpecification": {"ImageUri": ANALYZER},
                "DataQualityJobInput": {"BatchTransformInput": _BATCH},
                "DataQualityJobOutputConfig": {"MonitoringOutputs": [{"S3Output": _REPORTS}]},
                "JobResources": _CLUSTER,
                "RoleArn": _at("Monitor.Arn"),
                "Tags": [{"Key": "word", "Value": "fixed"}],
            },
        ),
        "Hourly": (
            "AWS::SageMaker::MonitoringSchedule",
            {
                "MonitoringScheduleName": "hourly",
                "MonitoringScheduleConfig": {
                    "MonitoringJobDefinitionName": f"quality-{word}",
                    "MonitoringType": "DataQuality",
                    "ScheduleConfig": {
                        "ScheduleExpression": f"cron(0 {1 if word == 'one' else 2} ? * * *)",
                    },
                },
                "Tags": tags,
            },
            ["Monitored"],
        ),
        "Daily": (
            "AWS::SageMaker::MonitoringSchedule",
            {
                "MonitoringScheduleName": "daily",
                "MonitoringScheduleConfig": {
                    "MonitoringJobDefinition": {
                        "MonitoringAppSpecification": {"ImageUri": ANALYZER},
                        "MonitoringInputs": [{"BatchTransformInput": _BATCH}],
                        "MonitoringOutputConfig": {"MonitoringOutputs": [{"S3Output": _REPORTS}]},
                        "MonitoringResources": _CLUSTER,
                        "Environment": {"WORD": word},
                        "RoleArn": _at("Monitor.Arn"),
                    },
                },
            },
        ),
        "Repository": (
            "AWS::ECR::Repository",
            {"ImageTagMutability": "MUTABLE" if word == "one" else "IMMUTABLE", "Tags": tags},
        ),
        "Secret": ("AWS::SecretsManager::Secret", {"SecretString": word, "Description": word, "Tags": tags}),
        "SecretPolicy": (
            "AWS::SecretsManager::ResourcePolicy",
            {
                "SecretId": _ref("Secret"),
                "ResourcePolicy": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Sid": word,
                            "Effect": "Deny",
                            "Principal": {"AWS": _at("Role.Arn")},
                            "Action": "secretsmanager:GetSecretValue",
                            "Resource": "*",
                        }
                    ],
                },
            },
        ),
        "Key": ("AWS::KMS::Key", {"Description": word, "Tags": tags}),
        "Named": ("AWS::KMS::Alias", {"AliasName": "alias/named", "TargetKeyId": _ref("Key")}),
        "Bucket": (
            "AWS::S3::Bucket",
            {
                "VersioningConfiguration": {"Status": "Enabled" if word == "one" else "Suspended"},
                "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
                "Tags": tags,
            },
        ),
        "BucketPolicy": (
            "AWS::S3::BucketPolicy",
            {
                "Bucket": _ref("Bucket"),
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Sid": word,
                            "Effect": "Deny",
                            "Principal": "*",
                            "Action": "s3:DeleteBucket",
                            "Resource": _at("Bucket.Arn"),
                            "Condition": {"StringEquals": {"aws:PrincipalArn": _at("Role.Arn")}},
                        }
                    ],
                },
            },
        ),
        "Network": ("AWS::EC2::VPC", {"CidrBlock": "10.8.0.0/16", "EnableDnsHostnames": word == "one", "Tags": tags}),
        "Subnet": (
            "AWS::EC2::Subnet",
            {
                "VpcId": _ref("Network"),
                "CidrBlock": {"Fn::Select": [0, {"Fn::Cidr": [_at("Network.CidrBlock"), 2, 8]}]},
                "AvailabilityZone": {"Fn::Select": [0, {"Fn::GetAZs": ""}]},
                "Tags": tags,
            },
        ),
        "Table": ("AWS::EC2::RouteTable", {"VpcId": _ref("Network"), "Tags": tags}),
        "Routed": (
            "AWS::EC2::SubnetRouteTableAssociation",
            {"RouteTableId": _ref("Table"), "SubnetId": _ref("Subnet")},
        ),
        "Wall": (
            "AWS::EC2::SecurityGroup",
            {
                "GroupDescription": "w",
                "VpcId": _ref("Network"),
                "SecurityGroupIngress": [
                    {"IpProtocol": "tcp", "FromPort": 1 if word == "one" else 2, "ToPort": 9, "CidrIp": "10.0.0.0/8"}
                ],
                "SecurityGroupEgress": [{"IpProtocol": "-1", "CidrIp": "10.0.0.0/8"}],
            },
        ),
        "In": (
            "AWS::EC2::SecurityGroupIngress",
            {
                "GroupId": _ref("Wall"),
                "IpProtocol": "tcp",
                "FromPort": 443,
                "ToPort": 443,
                "SourceSecurityGroupId": _ref("Wall"),
            },
        ),
        "Out": (
            "AWS::EC2::SecurityGroupEgress",
            {
                "GroupId": _ref("Wall"),
                "IpProtocol": "tcp",
                "FromPort": 443,
                "ToPort": 443,
                "DestinationSecurityGroupId": _ref("Wall"),
            },
        ),
        "Interface": (
            "AWS::EC2::NetworkInterface",
            {"SubnetId": _ref("Subnet"), "GroupSet": [_ref("Wall")], "Description": word},
        ),
        "Trail": (
            "AWS::CloudTrail::Trail",
            {"S3BucketName": _ref("Trails"), "IsLogging": word == "one", "EventSelectors": _NOTHING, "Tags": tags},
            ["TrailsPolicy"],
        ),
        "Trails": ("AWS::S3::Bucket", {}),
        "TrailsPolicy": (
            "AWS::S3::BucketPolicy",
            {
                "Bucket": _ref("Trails"),
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Allow",
                            "Principal": {"Service": "cloudtrail.amazonaws.com"},
                            "Action": "s3:GetBucketAcl",
                            "Resource": _at("Trails.Arn"),
                        },
                        {
                            "Effect": "Allow",
                            "Principal": {"Service": "cloudtrail.amazonaws.com"},
                            "Action": "s3:PutObject",
                            "Resource": {"Fn::Sub": "${Trails.Arn}/*"},
                        },
                    ],
                },
            },
        ),
    }


def _connected(word: str) -> dict[str, Any]:
    """What leads out of a network, and names in it."""
    tags = [{"Key": "word", "Value": word}]
    through = {"TransitGatewayRouteTableId": _ref("Ways"), "TransitGatewayAttachmentId": _ref("Joint")}
    return {
        "Network": ("AWS::EC2::VPC", {"CidrBlock": "10.8.0.0/16"}),
        "Subnet": ("AWS::EC2::Subnet", {"VpcId": _ref("Network"), "CidrBlock": "10.8.1.0/24"}),
        "Table": ("AWS::EC2::RouteTable", {"VpcId": _ref("Network")}),
        "Out1": ("AWS::EC2::InternetGateway", {"Tags": tags}),
        "Gate": ("AWS::EC2::VPCGatewayAttachment", {"VpcId": _ref("Network"), "InternetGatewayId": _ref("Out1")}),
        "Transit": ("AWS::EC2::TransitGateway", {"DefaultRouteTableAssociation": "disable", "Tags": tags}),
        "Joint": (
            "AWS::EC2::TransitGatewayAttachment",
            {
                "TransitGatewayId": _ref("Transit"),
                "VpcId": _ref("Network"),
                "SubnetIds": [_ref("Subnet")],
                "Tags": tags,
            },
        ),
        "Default": (
            "AWS::EC2::Route",
            {
                "RouteTableId": _ref("Table"),
                "DestinationCidrBlock": "0.0.0.0/0",
                **({"GatewayId": _ref("Out1")} if word == "one" else {"TransitGatewayId": _ref("Transit")}),
            },
            ["Gate", "Joint"],
        ),
        "Address": ("AWS::EC2::EIP", {"Domain": "vpc", "Tags": tags}),
        "Own": ("AWS::EC2::EIP", {"Domain": "vpc"}),
        "Interface": ("AWS::EC2::NetworkInterface", {"SubnetId": _ref("Subnet")}),
        "Given": (
            "AWS::EC2::EIPAssociation",
            {"AllocationId": _at("Own.AllocationId"), "NetworkInterfaceId": _ref("Interface")},
            ["Gate"],
        ),
        "Nat": (
            "AWS::EC2::NatGateway",
            {"AllocationId": _at("Address.AllocationId"), "SubnetId": _ref("Subnet"), "Tags": tags},
            ["Gate"],
        ),
        "ByNat": (
            "AWS::EC2::Route",
            {"RouteTableId": _ref("Table"), "DestinationCidrBlock": "198.18.0.0/15", "NatGatewayId": _ref("Nat")},
        ),
        "Options": (
            "AWS::EC2::DHCPOptions",
            {"DomainName": f"{word}.example", "DomainNameServers": ["AmazonProvidedDNS"], "Tags": tags},
        ),
        "TheirDns": (
            "AWS::EC2::VPCDHCPOptionsAssociation",
            {"VpcId": _ref("Network"), "DhcpOptionsId": _ref("Options")},
        ),
        "Acl": ("AWS::EC2::NetworkAcl", {"VpcId": _ref("Network"), "Tags": tags}),
        "Entry": (
            "AWS::EC2::NetworkAclEntry",
            {
                "NetworkAclId": _ref("Acl"),
                "RuleNumber": 100,
                "Protocol": 6,
                "RuleAction": "allow",
                "CidrBlock": "10.0.0.0/8",
                "PortRange": {"From": 443, "To": 443 if word == "one" else 444},
            },
        ),
        "UnderAcl": (
            "AWS::EC2::SubnetNetworkAclAssociation",
            {"SubnetId": _ref("Subnet"), "NetworkAclId": _ref("Acl")},
        ),
        "Ways": ("AWS::EC2::TransitGatewayRouteTable", {"TransitGatewayId": _ref("Transit"), "Tags": tags}),
        "Associated": ("AWS::EC2::TransitGatewayRouteTableAssociation", through),
        "Told": ("AWS::EC2::TransitGatewayRouteTablePropagation", through),
        "Way": (
            "AWS::EC2::TransitGatewayRoute",
            {
                "TransitGatewayRouteTableId": _ref("Ways"),
                "DestinationCidrBlock": "10.7.0.0/16" if word == "one" else "10.9.0.0/16",
                **({"Blackhole": True} if word == "one" else {"TransitGatewayAttachmentId": _ref("Joint")}),
            },
        ),
        "Elsewhere": (
            "AWS::EC2::CustomerGateway",
            {"Type": "ipsec.1", "IpAddress": "203.0.113.10", "BgpAsn": 65000, "Tags": tags},
        ),
        "Link": (
            "AWS::EC2::VPNConnection",
            {
                "Type": "ipsec.1",
                "CustomerGatewayId": _ref("Elsewhere"),
                "TransitGatewayId": _ref("Transit"),
                "StaticRoutesOnly": word == "one",
                "Tags": tags,
            },
        ),
        "OwnEnd": ("AWS::EC2::VPNGateway", {"Type": "ipsec.1", "Tags": tags}),
        "OwnEndHere": ("AWS::EC2::VPCGatewayAttachment", {"VpcId": _ref("Network"), "VpnGatewayId": _ref("OwnEnd")}),
        "OwnLink": (
            "AWS::EC2::VPNConnection",
            {
                "Type": "ipsec.1",
                "CustomerGatewayId": _ref("Elsewhere"),
                "VpnGatewayId": _ref("OwnEnd"),
                "StaticRoutesOnly": True,
                "VpnTunnelOptionsSpecifications": [
                    {"PreSharedKey": "a_key.of_ours", "IKEVersions": [{"Value": "ikev2"}]}
                ],
            },
        ),
        "Beyond": (
            "AWS::EC2::VPNConnectionRoute",
            {
                "VpnConnectionId": _ref("OwnLink"),
                "DestinationCidrBlock": "10.11.0.0/16" if word == "one" else "10.12.0.0/16",
            },
        ),
        "Propagated": (
            "AWS::EC2::VPNGatewayRoutePropagation",
            {"RouteTableIds": [_ref("Table")], "VpnGatewayId": _ref("OwnEnd")},
            ["OwnEndHere"],
        ),
        "Circuit": (
            "AWS::DirectConnect::Connection",
            {"ConnectionName": word, "Location": "Bastide", "Bandwidth": "1Gbps", "Tags": tags},
        ),
        "Between": ("AWS::DirectConnect::DirectConnectGateway", {"DirectConnectGatewayName": "between", "Tags": tags}),
        "Private": (
            "AWS::DirectConnect::PrivateVirtualInterface",
            {
                "ConnectionId": _at("Circuit.ConnectionId"),
                "VirtualInterfaceName": "private",
                "Vlan": 101 if word == "one" else 102,
                "DirectConnectGatewayId": _at("Between.DirectConnectGatewayId"),
                "BgpPeers": [{"AddressFamily": "ipv4", "Asn": "65000"}],
                "Tags": tags,
            },
        ),
        "Joined": (
            "AWS::DirectConnect::DirectConnectGatewayAssociation",
            {"DirectConnectGatewayId": _at("Between.DirectConnectGatewayId"), "AssociatedGatewayId": _ref("OwnEnd")},
        ),
        "Flows": (
            "AWS::EC2::FlowLog",
            {
                "ResourceId": _ref("Network"),
                "ResourceType": "VPC",
                "TrafficType": "ALL" if word == "one" else "REJECT",
                "LogDestinationType": "s3",
                "LogDestination": "arn:aws:s3:::flows-of-types",
                "Tags": tags,
            },
        ),
        "Names": (
            "AWS::Route53::HostedZone",
            {
                "Name": "types.bank",
                "HostedZoneConfig": {"Comment": word},
                "VPCs": [{"VPCRegion": _ref("AWS::Region"), "VPCId": _ref("Network")}],
                "HostedZoneTags": tags,
            },
        ),
        "Name": (
            "AWS::Route53::RecordSet",
            {
                "HostedZoneId": _ref("Names"),
                "Name": "a.types.bank",
                "Type": "A",
                "TTL": "60",
                "ResourceRecords": ["10.8.0.1" if word == "one" else "10.8.0.2"],
            },
        ),
        "Shared": (
            "AWS::RAM::ResourceShare",
            {"Name": f"share-{word}", "ResourceArns": [_at("Transit.TransitGatewayArn")], "Tags": tags},
        ),
    }


def _function(word: str) -> dict[str, Any]:
    """What belongs to a function."""
    code = f"def handler(event, context):\n    return '{word}'\n"
    return {
        "Role": (
            "AWS::IAM::Role",
            {
                "AssumeRolePolicyDocument": LAMBDA,
                "Policies": [{"PolicyName": "p", "PolicyDocument": allow("logs:*", "sqs:*")}],
            },
        ),
        "Function": (
            "AWS::Lambda::Function",
            {
                "Runtime": "python3.11",
                "Handler": "index.handler",
                "Role": _at("Role.Arn"),
                "Code": {"ZipFile": code},
                "Environment": {"Variables": {"WORD": word}},
                "Tags": [{"Key": "word", "Value": word}],
            },
        ),
        f"Version{word}": ("AWS::Lambda::Version", {"FunctionName": _ref("Function"), "Description": word}),
        "Alias": (
            "AWS::Lambda::Alias",
            {"FunctionName": _ref("Function"), "Name": "live", "FunctionVersion": _at(f"Version{word}.Version")},
        ),
        "Permission": (
            "AWS::Lambda::Permission",
            {"FunctionName": _ref("Alias"), "Action": "lambda:InvokeFunction", "Principal": "events.amazonaws.com"},
        ),
        "Invoking": (
            "AWS::Lambda::EventInvokeConfig",
            {
                "FunctionName": _ref("Function"),
                "Qualifier": "$LATEST",
                "MaximumRetryAttempts": 1 if word == "one" else 2,
            },
        ),
        "Queue": ("AWS::SQS::Queue", {"VisibilityTimeout": 60}),
        "Mapping": (
            "AWS::Lambda::EventSourceMapping",
            {
                "FunctionName": _ref("Function"),
                "EventSourceArn": _at("Queue.Arn"),
                "BatchSize": 1 if word == "one" else 5,
            },
        ),
    }


def _organisation(word: str) -> dict[str, Any]:
    """What only the management account has."""
    content = {"Version": "2012-10-17", "Statement": [{"Sid": word, "Effect": "Allow", "Action": "*", "Resource": "*"}]}
    return {
        "Unit": (
            "AWS::Organizations::OrganizationalUnit",
            {"Name": f"types-{word}", "ParentId": {"Ref": "Root"}, "Tags": [{"Key": "word", "Value": word}]},
        ),
        "Guard": (
            "AWS::Organizations::Policy",
            {"Name": "types-guard", "Type": "SERVICE_CONTROL_POLICY", "Content": content, "TargetIds": [_ref("Unit")]},
        ),
    }


def _template(rows: dict[str, Any], **more: Any) -> str:
    resources = {}
    for name, row in rows.items():
        resources[name] = {"Type": row[0], "Properties": row[1], **({"DependsOn": row[2]} if len(row) > 2 else {})}
    return json.dumps({**more, "Resources": resources})


def _through(stacks: Stacks, name: str, first: str, second: str, **more: Any) -> None:
    made = stacks.create(name, first, **more)
    assert made["StackStatus"] == "CREATE_COMPLETE", [one for one in stacks.story(name) if "FAILED" in one[1]]
    changed = stacks.update(name, second, **more)
    assert changed["StackStatus"] == "UPDATE_COMPLETE", [
        one for one in stacks.story(name) if one[1].endswith("_FAILED")
    ][::-1]
    id = stacks.delete(name)["StackId"]
    left = [one for one in stacks.story(id) if "FAILED" in one[1]]
    assert stacks.get(id)["StackStatus"] == "DELETE_COMPLETE" and not left, left


@pytest.mark.parametrize("rows", [_account, _connected, _function])
def test_rows_of_an_account(account: Account, rows: Any) -> None:
    _through(Stacks(account), "types", _template(rows("one")), _template(rows("two")))


def test_rows_of_the_management_account(platform: Running) -> None:
    stacks = Stacks(Account(platform, HOME, "management", platform.administrator))
    root = platform.client("organizations").list_roots()["Roots"][0]["Id"]
    more = {"Parameters": [{"ParameterKey": "Root", "ParameterValue": root}]}
    declared = {"Parameters": {"Root": {"Type": "String"}}}
    first, second = (_template(_organisation(word), **declared) for word in ("one", "two"))
    _through(stacks, "types", first, second, **more)

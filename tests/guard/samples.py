"""Requests that bring every condition key of SageMaker's and S3's operations, and the values that they must give, written
down by hand; and what is counted where a parameter is left out."""

from __future__ import annotations

import re
from typing import Any

ACCOUNT = "111122223333"
REGION = "us-east-1"
BUCKET = "a-bucket"
OTHER = "b-bucket"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/name"

Sample = tuple[dict[str, Any], dict[str, Any]]
Samples = dict[tuple[str, str], list[Sample]]


def _arn(resource: str) -> str:
    return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{resource}"


MADE_BY = {
    "CreateVpc": "vpc",
    "CreateSubnet": "subnet",
    "CreateSecurityGroup": "security-group",
    "CreateRouteTable": "route-table",
    "CreateVpcEndpoint": "vpc-endpoint",
    "CreateNetworkInterface": "network-interface",
    "CreateInternetGateway": "internet-gateway",
    "CreateTransitGateway": "transit-gateway",
    "CreateTransitGatewayVpcAttachment": "transit-gateway-attachment",
    "CreateTransitGatewayRouteTable": "transit-gateway-route-table",
    "CreateCustomerGateway": "customer-gateway",
    "CreateVpnConnection": "vpn-connection",
    "CreateVpnGateway": "vpn-gateway",
    "CreateFlowLogs": "vpc-flow-log",
    "AllocateAddress": "elastic-ip",
    "CreateNatGateway": "natgateway",
    "CreateDhcpOptions": "dhcp-options",
    "CreateNetworkAcl": "network-acl",
    "AuthorizeSecurityGroupIngress": "security-group-rule",
    "AuthorizeSecurityGroupEgress": "security-group-rule",
}
"""What operations of EC2 make, as TagSpecifications name it."""

_VPC = {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
_TAGS = [{"Key": "team", "Value": "red"}]
_IN_VPC = {"sagemaker:vpcsubnets": ("subnet-1", "subnet-2"), "sagemaker:vpcsecuritygroupids": ("sg-1",)}

_NETWORK = {"EnableNetworkIsolation": True, "EnableInterContainerTrafficEncryption": True, "VpcConfig": _VPC}
_CLUSTER = {"InstanceType": "ml.m5.large", "VolumeKmsKeyId": "volume-key", "InstanceCount": 1, "VolumeSizeInGB": 1}
_MONITORED = {
    **_IN_VPC,
    "sagemaker:instancetypes": ("ml.m5.large",),
    "sagemaker:volumekmskey": "volume-key",
    "sagemaker:outputkmskey": "output-key",
    "sagemaker:networkisolation": "true",
    "sagemaker:intercontainertrafficencryption": "true",
    "sagemaker:maxruntimeinseconds": "77",
}
_UNMONITORED = {
    "sagemaker:volumekmskey": None,
    "sagemaker:outputkmskey": None,
    "sagemaker:vpcsubnets": None,
    "sagemaker:vpcsecuritygroupids": None,
    "sagemaker:networkisolation": "false",
    "sagemaker:intercontainertrafficencryption": "false",
    "sagemaker:maxruntimeinseconds": "86400",
}


def _definition(type: str) -> Samples:
    """Of the creation of a job definition."""
    kind = "-".join(re.findall("[A-Z][a-z]+", type)).lower()
    operation, name = f"Create{type}JobDefinition", {"JobDefinitionName": "d"}
    whole = {
        **name,
        "JobResources": {"ClusterConfig": _CLUSTER},
        f"{type}JobOutputConfig": {"MonitoringOutputs": [], "KmsKeyId": "output-key"},
        "NetworkConfig": _NETWORK,
        "StoppingCondition": {"MaxRuntimeInSeconds": 77},
    }
    passed = {
        "iam:passedtoservice": "sagemaker.amazonaws.com",
        "iam:associatedresourcearn": _arn(f"{kind}-job-definition/d"),
    }
    return {
        (operation, f"sagemaker:{operation}"): [(whole, _MONITORED), (name, _UNMONITORED)],
        (operation, "iam:PassRole"): [({**name, "RoleArn": ROLE}, passed)],
        (operation, "sagemaker:AddTags"): [({**name, "Tags": _TAGS}, {"sagemaker:taggingaction": operation})],
    }


def _schedule(operation: str) -> Samples:
    """Of the creation of a monitoring schedule, and of its update."""
    name = {"MonitoringScheduleName": "s"}

    def inline(**definition: Any) -> dict[str, Any]:
        return {**name, "MonitoringScheduleConfig": {"MonitoringJobDefinition": definition}}

    whole = inline(
        MonitoringResources={"ClusterConfig": _CLUSTER},
        MonitoringOutputConfig={"MonitoringOutputs": [], "KmsKeyId": "output-key"},
        NetworkConfig=_NETWORK,
        StoppingCondition={"MaxRuntimeInSeconds": 77},
    )
    passed = {
        "iam:passedtoservice": "sagemaker.amazonaws.com", "iam:associatedresourcearn": _arn("monitoring-schedule/s"),
    }  # fmt: skip
    return {
        (operation, f"sagemaker:{operation}"): [(whole, _MONITORED), (inline(), _UNMONITORED)],
        (operation, "iam:PassRole"): [(inline(RoleArn=ROLE), passed)],
    }


SAGEMAKER: Samples = {
    **_definition("DataQuality"),
    **_definition("ModelQuality"),
    **_definition("ModelBias"),
    **_definition("ModelExplainability"),
    **_schedule("CreateMonitoringSchedule"),
    **_schedule("UpdateMonitoringSchedule"),
    ("CreateMonitoringSchedule", "sagemaker:AddTags"): [
        (
            {"MonitoringScheduleName": "s", "Tags": _TAGS},
            {"sagemaker:taggingaction": "CreateMonitoringSchedule"},
        )
    ],
    ("CreateTrainingJob", "sagemaker:CreateTrainingJob"): [
        (
            {
                "TrainingJobName": "j",
                "RoleArn": ROLE,
                "InputDataConfig": [
                    {
                        "ChannelName": "c",
                        "DataSource": {
                            "FileSystemDataSource": {
                                "FileSystemId": "fs-1",
                                "FileSystemAccessMode": "ro",
                                "FileSystemType": "EFS",
                                "DirectoryPath": "/data",
                            }
                        },
                    }
                ],
                "OutputDataConfig": {"S3OutputPath": "s3://b/o", "KmsKeyId": "output-key"},
                "ResourceConfig": {
                    "InstanceType": "ml.m5.large",
                    "InstanceGroups": [{"InstanceType": "ml.p3.2xlarge", "InstanceCount": 1, "InstanceGroupName": "g"}],
                    "VolumeKmsKeyId": "volume-key",
                    "KeepAlivePeriodInSeconds": 600,
                },
                "StoppingCondition": {"MaxRuntimeInSeconds": 77},
                "VpcConfig": _VPC,
                "EnableNetworkIsolation": True,
                "EnableInterContainerTrafficEncryption": True,
                "RemoteDebugConfig": {"EnableRemoteDebug": True},
                "Tags": _TAGS,
            },
            {
                **_IN_VPC,
                "sagemaker:filesystemid": ("fs-1",),
                "sagemaker:filesystemaccessmode": ("ro",),
                "sagemaker:filesystemtype": ("EFS",),
                "sagemaker:filesystemdirectorypath": ("/data",),
                "sagemaker:outputkmskey": "output-key",
                "sagemaker:volumekmskey": "volume-key",
                "sagemaker:instancetypes": ("ml.m5.large", "ml.p3.2xlarge"),
                "sagemaker:keepaliveperiod": "600",
                "sagemaker:maxruntimeinseconds": "77",
                "sagemaker:networkisolation": "true",
                "sagemaker:intercontainertrafficencryption": "true",
                "sagemaker:enableremotedebug": "true",
            },
        ),
        (
            {"TrainingJobName": "j", "ResourceConfig": {"InstanceType": "ml.m5.large"}},
            {
                "sagemaker:volumekmskey": None,
                "sagemaker:outputkmskey": None,
                "sagemaker:vpcsubnets": None,
                "sagemaker:vpcsecuritygroupids": None,
                "sagemaker:keepaliveperiod": None,
                "sagemaker:filesystemid": None,
                "sagemaker:networkisolation": "false",
                "sagemaker:intercontainertrafficencryption": "false",
                "sagemaker:enableremotedebug": "false",
                "sagemaker:maxruntimeinseconds": "86400",
                "sagemaker:instancetypes": ("ml.m5.large",),
            },
        ),
    ],
    ("UpdateTrainingJob", "sagemaker:UpdateTrainingJob"): [
        (
            {
                "TrainingJobName": "j",
                "ProfilerRuleConfigurations": [
                    {"RuleConfigurationName": "r", "RuleEvaluatorImage": "i", "InstanceType": "ml.t3.medium"}
                ],
                "ResourceConfig": {"KeepAlivePeriodInSeconds": 0},
                "RemoteDebugConfig": {"EnableRemoteDebug": False},
            },
            {
                "sagemaker:instancetypes": ("ml.t3.medium",),
                "sagemaker:keepaliveperiod": "0",
                "sagemaker:enableremotedebug": "false",
            },
        ),
        (
            {"TrainingJobName": "j"},
            {
                "sagemaker:instancetypes": None,
                "sagemaker:keepaliveperiod": None,
                "sagemaker:enableremotedebug": None,
            },
        ),
    ],
    ("CreateTrainingJob", "iam:PassRole"): [
        (
            {"TrainingJobName": "j", "RoleArn": ROLE},
            {
                "iam:passedtoservice": "sagemaker.amazonaws.com",
                "iam:associatedresourcearn": _arn("training-job/j"),
            },
        )
    ],
    ("CreateTrainingJob", "sagemaker:AddTags"): [
        ({"TrainingJobName": "j", "Tags": _TAGS}, {"sagemaker:taggingaction": "CreateTrainingJob"})
    ],
    ("CreateHyperParameterTuningJob", "sagemaker:CreateHyperParameterTuningJob"): [
        (
            {
                "HyperParameterTuningJobName": "t",
                "TrainingJobDefinition": {
                    "RoleArn": ROLE,
                    "InputDataConfig": [
                        {
                            "ChannelName": "c",
                            "DataSource": {
                                "FileSystemDataSource": {
                                    "FileSystemId": "fs-1",
                                    "FileSystemAccessMode": "ro",
                                    "FileSystemType": "EFS",
                                    "DirectoryPath": "/data",
                                }
                            },
                        }
                    ],
                    "OutputDataConfig": {"S3OutputPath": "s3://b/o", "KmsKeyId": "output-key"},
                    "HyperParameterTuningResourceConfig": {
                        "InstanceConfigs": [
                            {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
                            {"InstanceType": "ml.p3.2xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1},
                        ],
                        "VolumeKmsKeyId": "volume-key",
                    },
                    "StoppingCondition": {"MaxRuntimeInSeconds": 77},
                    "VpcConfig": _VPC,
                    "EnableNetworkIsolation": True,
                    "EnableInterContainerTrafficEncryption": True,
                },
                "Tags": _TAGS,
            },
            {
                **_IN_VPC,
                "sagemaker:filesystemid": ("fs-1",),
                "sagemaker:filesystemaccessmode": ("ro",),
                "sagemaker:filesystemtype": ("EFS",),
                "sagemaker:filesystemdirectorypath": ("/data",),
                "sagemaker:outputkmskey": "output-key",
                "sagemaker:volumekmskey": "volume-key",
                "sagemaker:instancetypes": ("ml.m5.large", "ml.p3.2xlarge"),
                "sagemaker:maxruntimeinseconds": "77",
                "sagemaker:networkisolation": "true",
                "sagemaker:intercontainertrafficencryption": "true",
            },
        ),
        (
            {
                "HyperParameterTuningJobName": "t",
                "TrainingJobDefinitions": [
                    {
                        "ResourceConfig": {"InstanceType": "ml.m5.large", "VolumeKmsKeyId": "volume-key"},
                        "VpcConfig": _VPC,
                    },
                    {"HyperParameterTuningResourceConfig": {"InstanceType": "ml.p3.2xlarge"}},
                ],
            },
            {
                **_IN_VPC,
                "sagemaker:volumekmskey": "volume-key",
                "sagemaker:outputkmskey": None,
                "sagemaker:filesystemid": None,
                "sagemaker:networkisolation": "false",
                "sagemaker:intercontainertrafficencryption": "false",
                "sagemaker:maxruntimeinseconds": "86400",
                "sagemaker:instancetypes": ("ml.m5.large", "ml.p3.2xlarge"),
            },
        ),
    ],
    ("CreateHyperParameterTuningJob", "iam:PassRole"): [
        (
            {"HyperParameterTuningJobName": "t", "TrainingJobDefinition": {"RoleArn": ROLE}},
            {
                "iam:passedtoservice": "sagemaker.amazonaws.com",
                "iam:associatedresourcearn": _arn("hyper-parameter-tuning-job/t"),
            },
        )
    ],
    ("CreateHyperParameterTuningJob", "sagemaker:AddTags"): [
        (
            {"HyperParameterTuningJobName": "t", "Tags": _TAGS},
            {"sagemaker:taggingaction": "CreateHyperParameterTuningJob"},
        )
    ],
    ("CreateProcessingJob", "sagemaker:CreateProcessingJob"): [
        (
            {
                "ProcessingJobName": "p",
                "ProcessingResources": {
                    "ClusterConfig": {"InstanceType": "ml.m5.large", "VolumeKmsKeyId": "volume-key", "InstanceCount": 1}
                },
                "ProcessingOutputConfig": {"Outputs": [], "KmsKeyId": "output-key"},
                "NetworkConfig": {
                    "EnableNetworkIsolation": True,
                    "EnableInterContainerTrafficEncryption": True,
                    "VpcConfig": _VPC,
                },
                "StoppingCondition": {"MaxRuntimeInSeconds": 77},
            },
            {
                **_IN_VPC,
                "sagemaker:instancetypes": ("ml.m5.large",),
                "sagemaker:volumekmskey": "volume-key",
                "sagemaker:outputkmskey": "output-key",
                "sagemaker:networkisolation": "true",
                "sagemaker:intercontainertrafficencryption": "true",
                "sagemaker:maxruntimeinseconds": "77",
            },
        ),
        (
            {"ProcessingJobName": "p"},
            {
                "sagemaker:volumekmskey": None,
                "sagemaker:outputkmskey": None,
                "sagemaker:vpcsubnets": None,
                "sagemaker:vpcsecuritygroupids": None,
                "sagemaker:networkisolation": "false",
                "sagemaker:intercontainertrafficencryption": "false",
                "sagemaker:maxruntimeinseconds": "86400",
            },
        ),
    ],
    ("CreateProcessingJob", "iam:PassRole"): [
        (
            {"ProcessingJobName": "p", "RoleArn": ROLE},
            {
                "iam:passedtoservice": "sagemaker.amazonaws.com",
                "iam:associatedresourcearn": _arn("processing-job/p"),
            },
        )
    ],
    ("CreateProcessingJob", "sagemaker:AddTags"): [
        ({"ProcessingJobName": "p", "Tags": _TAGS}, {"sagemaker:taggingaction": "CreateProcessingJob"})
    ],
    ("CreateTransformJob", "sagemaker:CreateTransformJob"): [
        (
            {
                "TransformJobName": "t",
                "ModelName": "m",
                "TransformResources": {
                    "InstanceType": "ml.m5.large",
                    "InstanceCount": 1,
                    "VolumeKmsKeyId": "volume-key",
                },
                "TransformOutput": {"S3OutputPath": "s3://b/out", "KmsKeyId": "output-key"},
            },
            {
                "sagemaker:instancetypes": ("ml.m5.large",),
                "sagemaker:volumekmskey": "volume-key",
                "sagemaker:outputkmskey": "output-key",
                "sagemaker:modelarn": _arn("model/m"),
            },
        ),
        (
            {"TransformJobName": "t", "ModelName": "m"},
            {"sagemaker:volumekmskey": None, "sagemaker:outputkmskey": None},
        ),
    ],
    ("CreateTransformJob", "sagemaker:AddTags"): [
        (
            {"TransformJobName": "t", "ModelName": "m", "Tags": _TAGS},
            {"sagemaker:taggingaction": "CreateTransformJob"},
        )
    ],
    ("CreateModel", "sagemaker:CreateModel"): [
        (
            {
                "ModelName": "m",
                "Tags": _TAGS,
                "EnableNetworkIsolation": True,
                "VpcConfig": _VPC,
                "PrimaryContainer": {"ModelPackageName": _arn("model-package/g/1")},
            },
            {
                **_IN_VPC,
                "sagemaker:networkisolation": "true",
                "bastide:modelpackagearn": (_arn("model-package/g/1"),),
            },
        ),
        (
            {"ModelName": "m", "PrimaryContainer": {"Image": "i"}},
            {
                "sagemaker:networkisolation": "false",
                "sagemaker:vpcsubnets": None,
                "sagemaker:vpcsecuritygroupids": None,
                "bastide:modelpackagearn": None,
            },
        ),
    ],
    ("CreateModel", "iam:PassRole"): [
        (
            {"ModelName": "m", "ExecutionRoleArn": ROLE},
            {"iam:passedtoservice": "sagemaker.amazonaws.com", "iam:associatedresourcearn": _arn("model/m")},
        )
    ],
    ("CreateModel", "sagemaker:AddTags"): [
        ({"ModelName": "m", "Tags": _TAGS}, {"sagemaker:taggingaction": "CreateModel"})
    ],
    ("CreateEndpointConfig", "sagemaker:CreateEndpointConfig"): [
        (
            {
                "EndpointConfigName": "c",
                "ProductionVariants": [
                    {"VariantName": "a", "ModelName": "m", "InstanceType": "ml.t2.medium", "AcceleratorType": "ml.eia1"}
                ],
                "ShadowProductionVariants": [
                    {
                        "VariantName": "b",
                        "ModelName": "n",
                        "ServerlessConfig": {"MaxConcurrency": 5, "MemorySizeInMB": 2048},
                    }
                ],
                "KmsKeyId": "volume-key",
                "EnableNetworkIsolation": True,
                "VpcConfig": _VPC,
            },
            {
                **_IN_VPC,
                "sagemaker:instancetypes": ("ml.t2.medium",),
                "sagemaker:acceleratortypes": ("ml.eia1",),
                "sagemaker:modelarn": (_arn("model/m"), _arn("model/n")),
                "sagemaker:volumekmskey": "volume-key",
                "sagemaker:networkisolation": "true",
                "sagemaker:serverlessmaxconcurrency": ("5",),
                "sagemaker:serverlessmemorysize": ("2048",),
            },
        ),
        (
            {"EndpointConfigName": "c", "ProductionVariants": [{"VariantName": "a", "ModelName": "m"}]},
            {
                "sagemaker:instancetypes": None,
                "sagemaker:acceleratortypes": None,
                "sagemaker:volumekmskey": None,
                "sagemaker:networkisolation": "false",
                "sagemaker:vpcsubnets": None,
            },
        ),
    ],
    ("CreateEndpointConfig", "iam:PassRole"): [
        (
            {"EndpointConfigName": "c", "ExecutionRoleArn": ROLE},
            {
                "iam:passedtoservice": "sagemaker.amazonaws.com",
                "iam:associatedresourcearn": _arn("endpoint-config/c"),
            },
        )
    ],
    ("CreateEndpointConfig", "sagemaker:AddTags"): [
        ({"EndpointConfigName": "c", "Tags": _TAGS}, {"sagemaker:taggingaction": "CreateEndpointConfig"})
    ],
    ("CreateEndpoint", "sagemaker:AddTags"): [
        (
            {"EndpointName": "e", "EndpointConfigName": "c", "Tags": _TAGS},
            {"sagemaker:taggingaction": "CreateEndpoint"},
        )
    ],
    ("CreateModelPackageGroup", "sagemaker:AddTags"): [
        ({"ModelPackageGroupName": "g", "Tags": _TAGS}, {"sagemaker:taggingaction": "CreateModelPackageGroup"})
    ],
    ("CreateModelPackage", "sagemaker:CreateModelPackage"): [
        (
            {
                "ModelPackageGroupName": "g",
                "ModelApprovalStatus": "Approved",
                "ModelLifeCycle": {"Stage": "Dev", "StageStatus": "Done"},
                "CustomerMetadataProperties": {"Owner": "ann"},
            },
            {
                "sagemaker:modelapprovalstatus": "Approved",
                "sagemaker:modellifecycle:stage": "Dev",
                "sagemaker:modellifecycle:stagestatus": "Done",
                "sagemaker:customermetadataproperties/owner": "ann",
            },
        ),
        (
            {"ModelPackageGroupName": "g"},
            {"sagemaker:modelapprovalstatus": "PendingManualApproval", "sagemaker:modellifecycle:stage": None},
        ),
    ],
    ("CreateModelPackage", "sagemaker:AddTags"): [
        ({"ModelPackageGroupName": "g", "Tags": _TAGS}, {"sagemaker:taggingaction": "CreateModelPackage"})
    ],
    ("UpdateModelPackage", "sagemaker:UpdateModelPackage"): [
        (
            {
                "ModelPackageArn": _arn("model-package/g/1"),
                "ModelApprovalStatus": "Rejected",
                "ModelLifeCycle": {"Stage": "Prod", "StageStatus": "Open"},
                "CustomerMetadataProperties": {"Owner": "bob"},
                "CustomerMetadataPropertiesToRemove": ["a", "b"],
            },
            {
                "sagemaker:modelapprovalstatus": "Rejected",
                "sagemaker:modellifecycle:stage": "Prod",
                "sagemaker:modellifecycle:stagestatus": "Open",
                "sagemaker:customermetadataproperties/owner": "bob",
                "sagemaker:customermetadatapropertiestoremove": ("a", "b"),
                "sagemaker:currentmodellifecyclestage": "Dev",
                "sagemaker:currentmodellifecyclestagestatus": "Done",
                "sagemaker:currentcustomermetadataproperties/owner": "ann",
            },
        ),
        ({"ModelPackageArn": _arn("model-package/g/1")}, {"sagemaker:modelapprovalstatus": None}),
    ],
}

RUNTIME: Samples = {
    ("InvokeEndpoint", "sagemaker:InvokeEndpoint"): [
        ({"EndpointName": "e", "Body": b"", "TargetModel": "m.tar.gz"}, {"sagemaker:targetmodel": "m.tar.gz"}),
        ({"EndpointName": "e", "Body": b""}, {"sagemaker:targetmodel": None}),
    ]
}

_BUS = f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/default"
_PATTERN = (
    '{"source": ["aws.health"], "detail-type": ["Health"], "detail": {"service": ["EC2"], "eventTypeCode": ["code"],'
    ' "userIdentity": {"principalId": ["AIDA"]}}}'
)
_TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:name"
_STREAM = {
    "TopicArn": _TOPIC,
    "Protocol": "firehose",
    "Endpoint": f"arn:aws:firehose:{REGION}:{ACCOUNT}:deliverystream/s",
}
SNS: Samples = {
    ("Subscribe", "iam:PassRole"): [
        (
            {**_STREAM, "Attributes": {"SubscriptionRoleArn": ROLE}},
            {"iam:passedtoservice": "sns.amazonaws.com", "iam:associatedresourcearn": _TOPIC},
        )
    ],
    ("SetSubscriptionAttributes", "iam:PassRole"): [
        (
            {
                "SubscriptionArn": f"{_TOPIC}:id",
                "AttributeName": "SubscriptionRoleArn",
                "AttributeValue": ROLE,
            },
            {"iam:passedtoservice": "sns.amazonaws.com", "iam:associatedresourcearn": f"{_TOPIC}:id"},
        )
    ],
}

EVENTS: Samples = {
    ("PutRule", "events:PutRule"): [
        (
            {"Name": "r", "EventPattern": _PATTERN},
            {
                "events:source": ("aws.health",),
                "events:detail-type": ("Health",),
                "events:detail.service": ("EC2",),
                "events:detail.eventtypecode": ("code",),
                "events:detail.useridentity.principalid": ("AIDA",),
                "events:creatoraccount": ACCOUNT,
            },
        )
    ],
    ("PutTargets", "events:PutTargets"): [
        ({"Rule": "r", "Targets": [{"Id": "1", "Arn": _BUS, "RoleArn": ROLE}]}, {"events:targetarn": (_BUS,)})
    ],
    ("PutTargets", "iam:PassRole"): [
        (
            {"Rule": "r", "Targets": [{"Id": "1", "Arn": _BUS, "RoleArn": ROLE}]},
            {"iam:passedtoservice": "events.amazonaws.com"},
        )
    ],
    ("PutEvents", "events:PutEvents"): [
        (
            {"Entries": [{"Source": "s", "DetailType": "d", "Detail": "{}"}]},
            {"events:source": ("s",), "events:detail-type": ("d",), "events:eventbusinvocation": "false"},
        )
    ],
}

_MACHINE = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:m"
_QUALIFIED = {"states:statemachinequalifier": "prod"}
_UNQUALIFIED = {"states:statemachinequalifier": None}
STATES: Samples = {
    ("CreateStateMachine", "iam:PassRole"): [
        (
            {"name": "m", "definition": "{}", "roleArn": ROLE},
            {"iam:passedtoservice": "states.amazonaws.com", "iam:associatedresourcearn": _MACHINE},
        )
    ],
    ("CreateStateMachineAlias", "states:CreateStateMachineAlias"): [
        (
            {
                "name": "prod",
                "routingConfiguration": [{"stateMachineVersionArn": f"{_MACHINE}:1", "weight": 100}],
            },
            _QUALIFIED,
        )
    ],
    **{
        (name, f"states:{name}"): [({member: f"{_MACHINE}:prod"}, _QUALIFIED), ({member: _MACHINE}, _UNQUALIFIED)]
        for name, member in (
            ("StartExecution", "stateMachineArn"),
            ("StartSyncExecution", "stateMachineArn"),
            ("DescribeStateMachine", "stateMachineArn"),
            ("ListExecutions", "stateMachineArn"),
            ("ListStateMachineAliases", "stateMachineArn"),
            ("DescribeStateMachineAlias", "stateMachineAliasArn"),
            ("UpdateStateMachineAlias", "stateMachineAliasArn"),
            ("DeleteStateMachineAlias", "stateMachineAliasArn"),
            ("DeleteStateMachineVersion", "stateMachineVersionArn"),
        )
    },
}

_SIGNED = {
    "s3:authtype": "REST-HEADER",
    "s3:resourceaccount": ACCOUNT,
    "s3:signatureage": "2000",
    "s3:signatureversion": "AWS4-HMAC-SHA256",
    "s3:tlsversion": "1.3",
    "s3:x-amz-content-sha256": "UNSIGNED-PAYLOAD",
}
_UNTIL = 1_000_000_000_000 + 3 * 86_400_000_000
_RETAINED = {
    "s3:object-lock-mode": "GOVERNANCE",
    "s3:object-lock-retain-until-date": "1970-01-15T13:46:40Z",
    "s3:object-lock-remaining-retention-days": "3",
}
_WRITTEN = {
    "ServerSideEncryption": "aws:kms",
    "SSEKMSKeyId": "the-key",
    "SSECustomerAlgorithm": "AES256",
    "ACL": "private",
    "GrantFullControl": "id=1",
    "GrantRead": "id=2",
    "GrantReadACP": "id=3",
    "GrantWriteACP": "id=4",
    "ObjectLockLegalHoldStatus": "ON",
    "ObjectLockMode": "GOVERNANCE",
    "ObjectLockRetainUntilDate": _UNTIL,
    "StorageClass": "GLACIER",
    "WebsiteRedirectLocation": "/there",
    "Tagging": "team=red&size=L",
}
_SAID = {
    **_SIGNED,
    "s3:x-amz-server-side-encryption": "aws:kms",
    "s3:x-amz-server-side-encryption-aws-kms-key-id": "the-key",
    "s3:x-amz-server-side-encryption-customer-algorithm": "AES256",
    "s3:x-amz-acl": "private",
    "s3:x-amz-grant-full-control": "id=1",
    "s3:x-amz-grant-read": "id=2",
    "s3:x-amz-grant-read-acp": "id=3",
    "s3:x-amz-grant-write-acp": "id=4",
    "s3:object-lock-legal-hold": "ON",
    **_RETAINED,
    "s3:x-amz-storage-class": "GLACIER",
    "s3:x-amz-website-redirect-location": "/there",
    "s3:requestobjecttag/team": "red",
    "s3:requestobjecttag/size": "L",
    "s3:requestobjecttagkeys": ("team", "size"),
}
_CONDITIONS = {"IfMatch": '"e"', "IfNoneMatch": "*"}
_CONDITIONED = {"s3:if-match": '"e"', "s3:if-none-match": "*"}
_KEY = {"Bucket": BUCKET, "Key": "name"}
_THERE = {**_SIGNED, "s3:existingobjecttag/class": "old"}


def s3(version: str, upload: str, held: str) -> Samples:
    """The same of S3. version: of the object `name`, tagged class=old; upload: begun with aws:kms and `the-key`; held: of
    the object `held`, retained in governance mode."""
    named = {**_KEY, "VersionId": version}
    versioned = {**_THERE, "s3:versionid": version}
    part = {**_KEY, "UploadId": upload, "PartNumber": 1, "SSECustomerAlgorithm": "AES256"}
    of_part = {
        **_SIGNED,
        "s3:x-amz-server-side-encryption": "aws:kms",
        "s3:x-amz-server-side-encryption-aws-kms-key-id": "the-key",
        "s3:x-amz-server-side-encryption-customer-algorithm": "AES256",
        "s3:objectcreationoperation": "false",
    }
    tags = {"TagSet": [{"Key": "team", "Value": "red"}]}
    tagged = {"s3:requestobjecttag/team": "red", "s3:requestobjecttagkeys": ("team",)}
    source, old = f"{BUCKET}/name", f"{BUCKET}/name?versionId={version}"
    to = {"Bucket": OTHER, "Key": "to"}
    locked = {"Bucket": BUCKET, "Key": "held", "VersionId": held}
    return {
        ("CreateBucket", "s3:CreateBucket"): [
            (
                {
                    "Bucket": "new-bucket",
                    "ACL": "private",
                    "BucketNamespace": "global",
                    "GrantFullControl": "id=1",
                    "GrantRead": "id=2",
                    "GrantReadACP": "id=3",
                    "GrantWrite": "id=4",
                    "GrantWriteACP": "id=5",
                    "ObjectOwnership": "ObjectWriter",
                    "CreateBucketConfiguration": {"LocationConstraint": "eu-west-1", "Tags": _TAGS},
                },
                {
                    **_SIGNED,
                    "s3:x-amz-acl": "private",
                    "s3:x-amz-bucket-namespace": "global",
                    "s3:x-amz-grant-full-control": "id=1",
                    "s3:x-amz-grant-read": "id=2",
                    "s3:x-amz-grant-read-acp": "id=3",
                    "s3:x-amz-grant-write": "id=4",
                    "s3:x-amz-grant-write-acp": "id=5",
                    "s3:x-amz-object-ownership": "ObjectWriter",
                    "s3:locationconstraint": "eu-west-1",
                    "aws:requesttag/team": "red",
                    "aws:tagkeys": ("team",),
                },
            ),
            ({"Bucket": "new-bucket"}, {"s3:x-amz-acl": None, "s3:locationconstraint": None, "aws:tagkeys": None}),
        ],
        ("CreateBucket", "s3:TagResource"): [
            (
                {"Bucket": "new-bucket", "CreateBucketConfiguration": {"Tags": _TAGS}},
                {**_SIGNED, "aws:requesttag/team": "red", "aws:tagkeys": ("team",)},
            )
        ],
        ("PutObject", "s3:PutObject"): [
            (
                {**_KEY, **_WRITTEN, **_CONDITIONS},
                {**_SAID, **_CONDITIONED, "s3:objectcreationoperation": "true", "s3:existingobjecttag/class": None},
            ),
            (_KEY, {"s3:x-amz-server-side-encryption": None, "s3:x-amz-acl": None, "s3:if-none-match": None}),
        ],
        ("PutObject", "s3:PutObjectTagging"): [
            (
                {**_KEY, "Tagging": "team=red"},
                {**_THERE, "s3:requestobjecttag/team": "red", "s3:requestobjecttagkeys": ("team",)},
            )
        ],
        ("CreateMultipartUpload", "s3:PutObject"): [
            ({**_KEY, **_WRITTEN}, {**_SAID, "s3:objectcreationoperation": "false"})
        ],
        ("CreateMultipartUpload", "s3:PutObjectTagging"): [
            (
                {**_KEY, "Tagging": "team=red"},
                {**_THERE, "s3:requestobjecttag/team": "red", "s3:requestobjecttagkeys": ("team",)},
            )
        ],
        ("UploadPart", "s3:PutObject"): [(part, of_part)],
        ("UploadPartCopy", "s3:PutObject"): [
            ({**part, "CopySource": source}, {**of_part, "s3:x-amz-copy-source": source})
        ],
        ("UploadPartCopy", "s3:GetObject"): [({**part, "CopySource": source}, _THERE)],
        ("UploadPartCopy", "s3:GetObjectVersion"): [({**part, "CopySource": old}, versioned)],
        ("CompleteMultipartUpload", "s3:PutObject"): [
            ({**part, **_CONDITIONS}, {**of_part, **_CONDITIONED, "s3:objectcreationoperation": "true"})
        ],
        ("CopyObject", "s3:PutObject"): [
            (
                {
                    **to,
                    **_WRITTEN,
                    **_CONDITIONS,
                    "CopySource": source,
                    "MetadataDirective": "REPLACE",
                    "TaggingDirective": "REPLACE",
                },
                {
                    **_SAID,
                    **_CONDITIONED,
                    "s3:objectcreationoperation": "true",
                    "s3:x-amz-copy-source": source,
                    "s3:x-amz-metadata-directive": "REPLACE",
                },
            ),
            ({**to, "CopySource": source}, {"s3:requestobjecttag/class": "old"}),
            ({**to, "CopySource": f"/{BUCKET}/n%61me"}, {"s3:x-amz-copy-source": source}),
        ],
        ("CopyObject", "s3:PutObjectTagging"): [
            (
                {**_KEY, "CopySource": f"{BUCKET}/name", "TaggingDirective": "REPLACE", "Tagging": "team=red"},
                {**_THERE, "s3:requestobjecttag/team": "red", "s3:requestobjecttagkeys": ("team",)},
            )
        ],
        ("CopyObject", "s3:GetObject"): [({**to, "CopySource": source}, _THERE)],
        ("CopyObject", "s3:GetObjectVersion"): [({**to, "CopySource": old}, versioned)],
        ("CopyObject", "s3:GetObjectTagging"): [({**to, "CopySource": source}, _THERE)],
        ("CopyObject", "s3:GetObjectVersionTagging"): [({**to, "CopySource": old}, versioned)],
        ("GetObject", "s3:GetObject"): [(_KEY, {**_THERE, "s3:versionid": None})],
        ("GetObject", "s3:GetObjectVersion"): [(named, versioned)],
        ("HeadObject", "s3:GetObject"): [(_KEY, _THERE)],
        ("HeadObject", "s3:GetObjectVersion"): [(named, versioned)],
        ("GetObjectAttributes", "s3:GetObject"): [(_KEY, _THERE)],
        ("GetObjectAttributes", "s3:GetObjectAttributes"): [(_KEY, _THERE)],
        ("GetObjectAttributes", "s3:GetObjectVersion"): [(named, versioned)],
        ("GetObjectAttributes", "s3:GetObjectVersionAttributes"): [(named, versioned)],
        ("GetObjectAcl", "s3:GetObjectAcl"): [(_KEY, _THERE)],
        ("GetObjectAcl", "s3:GetObjectVersionAcl"): [(named, versioned)],
        ("GetObjectTagging", "s3:GetObjectTagging"): [(_KEY, _THERE)],
        ("GetObjectTagging", "s3:GetObjectVersionTagging"): [(named, versioned)],
        ("PutObjectTagging", "s3:PutObjectTagging"): [({**_KEY, "Tagging": tags}, {**_THERE, **tagged})],
        ("PutObjectTagging", "s3:PutObjectVersionTagging"): [({**named, "Tagging": tags}, {**versioned, **tagged})],
        ("DeleteObjectTagging", "s3:DeleteObjectTagging"): [(_KEY, _THERE)],
        ("DeleteObjectTagging", "s3:DeleteObjectVersionTagging"): [(named, versioned)],
        ("DeleteObject", "s3:DeleteObject"): [
            ({**_KEY, "IfMatch": '"e"'}, {**_SIGNED, "s3:if-match": '"e"', "s3:existingobjecttag/class": None})
        ],
        ("DeleteObject", "s3:BypassGovernanceRetention"): [
            ({**locked, "BypassGovernanceRetention": True}, _SIGNED),
        ],
        ("PutObjectRetention", "s3:BypassGovernanceRetention"): [
            ({**locked, "BypassGovernanceRetention": True}, _SIGNED),
        ],
        ("PutObjectRetention", "s3:PutObjectRetention"): [
            ({**_KEY, "Retention": {"Mode": "GOVERNANCE", "RetainUntilDate": _UNTIL}}, {**_SIGNED, **_RETAINED}),
            ({**_KEY, "Retention": {}}, {"s3:object-lock-mode": None, "s3:object-lock-retain-until-date": None}),
        ],
        ("PutObjectLegalHold", "s3:PutObjectLegalHold"): [
            ({**_KEY, "LegalHold": {"Status": "ON"}}, {**_SIGNED, "s3:object-lock-legal-hold": "ON"})
        ],
        **{
            (operation, f"s3:PutObject{what}"): [({**_KEY, "CopySource": source, **_WRITTEN}, {**_SIGNED, **keys})]
            for operation in ("PutObject", "CopyObject", "CreateMultipartUpload")
            for what, keys in (("Retention", _RETAINED), ("LegalHold", {"s3:object-lock-legal-hold": "ON"}))
        },
        ("DeleteObject", "s3:DeleteObjectVersion"): [(named, {**_SIGNED, "s3:versionid": version})],
        **{
            (operation, action): [
                (
                    {"Bucket": BUCKET, "Prefix": "a/", "Delimiter": "/", "MaxKeys": 7},
                    {**_SIGNED, "s3:prefix": "a/", "s3:delimiter": "/", "s3:max-keys": "7"},
                ),
                ({"Bucket": BUCKET}, {"s3:prefix": None, "s3:delimiter": None, "s3:max-keys": None}),
                ({"Bucket": BUCKET, "Prefix": ""}, {"s3:prefix": ""}),
            ]
            for operation, action in (
                ("ListObjects", "s3:ListBucket"),
                ("ListObjectsV2", "s3:ListBucket"),
                ("ListObjectVersions", "s3:ListBucketVersions"),
            )
        },
        ("ListBuckets", "s3:ListAllMyBuckets"): [({}, _SIGNED)],
    }


CATALOG: Samples = {
    (name, f"servicecatalog:{name}"): [
        (
            {"AccessLevelFilter": {"Key": level, "Value": "self"}},
            {f"servicecatalog:{level.lower()}level": "self"},
        )
        for level in ("User", "Role", "Account")
    ]
    for name in (
        "ListProvisionedProductPlans",
        "ListRecordHistory",
        "ScanProvisionedProducts",
        "SearchProvisionedProducts",
    )
}

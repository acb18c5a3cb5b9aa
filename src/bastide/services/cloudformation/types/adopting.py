"""How resources that are there already are found, to be imported into a stack: by the identifier that a person gives.

Source: CloudFormation User Guide, "Import AWS resources into a CloudFormation stack"; the types' ``primaryIdentifier``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bastide.services.cloudformation.resource import Resource
from bastide.services.cloudformation.types.regular import at


@dataclass(frozen=True, slots=True)
class Adoption:
    """How a type's resources are found.

    identifier: the property that names one. operation, member: the call that tells of it, and its member that is given the
    identifier. facts: attributes, by their paths in the answer. made: further ones, of the identifier and the region.
    names: the property that has the name where the identifier is an ARN, and what stands before the name in that.
    """

    identifier: str
    operation: str
    member: str
    facts: Mapping[str, str] = field(default_factory=dict)
    made: Callable[[str, str], dict[str, Any]] | None = None
    several: bool = False
    names: tuple[str, str] = ("", "")


def _bucket(name: str, region: str) -> dict[str, Any]:
    return {
        "Arn": f"arn:aws:s3:::{name}", "DomainName": f"{name}.s3.amazonaws.com",
        "RegionalDomainName": f"{name}.s3.{region}.amazonaws.com",
        "DualStackDomainName": f"{name}.s3.dualstack.{region}.amazonaws.com",
        "WebsiteURL": f"http://{name}.s3-website-{region}.amazonaws.com",
    }  # fmt: skip


def _of_iam(noun: str) -> Adoption:
    return Adoption(
        f"{noun}Name", f"Get{noun}", f"{noun}Name",
        {f"{noun}Name": f"{noun}.{noun}Name", "Arn": f"{noun}.Arn", f"{noun}Id": f"{noun}.{noun}Id"},
    )  # fmt: skip


def _of_sagemaker(noun: str, kind: str) -> Adoption:
    name, arn = f"{noun}Name", f"{noun}Arn"
    return Adoption(arn, f"Describe{noun}", name, {arn: arn, name: name}, names=(name, f":{kind}/"))


ADOPTIONS: Final[dict[str, Adoption]] = {
    "AWS::ECR::Repository": Adoption(
        "RepositoryName", "DescribeRepositories", "repositoryNames",
        {"Arn": "repositories.0.repositoryArn", "RepositoryUri": "repositories.0.repositoryUri"}, several=True,
    ),
    "AWS::IAM::Group": _of_iam("Group"),
    "AWS::IAM::Role": _of_iam("Role"),
    "AWS::IAM::User": _of_iam("User"),
    "AWS::KMS::Key": Adoption(
        "KeyId", "DescribeKey", "KeyId", {"Arn": "KeyMetadata.Arn", "KeyId": "KeyMetadata.KeyId"}
    ),
    "AWS::Lambda::Function": Adoption(
        "FunctionName", "GetFunction", "FunctionName",
        {"Arn": "Configuration.FunctionArn", "FunctionName": "Configuration.FunctionName"},
    ),
    "AWS::S3::Bucket": Adoption("BucketName", "HeadBucket", "Bucket", made=_bucket),
    "AWS::SNS::Topic": Adoption(
        "TopicArn", "GetTopicAttributes", "TopicArn", {"TopicArn": "Attributes.TopicArn"}, names=("TopicName", ":"),
    ),
    "AWS::SQS::Queue": Adoption(
        "QueueUrl", "GetQueueAttributes", "QueueUrl", made=lambda url, _: {"QueueUrl": url}, names=("QueueName", "/"),
    ),
    "AWS::SSM::Parameter": Adoption(
        "Name", "GetParameter", "Name",
        {"Type": "Parameter.Type", "Value": "Parameter.Value", "Name": "Parameter.Name"},
    ),
    "AWS::SageMaker::EndpointConfig": _of_sagemaker("EndpointConfig", "endpoint-config"),
    "AWS::SageMaker::Endpoint": _of_sagemaker("Endpoint", "endpoint"),
    "AWS::SageMaker::Model": _of_sagemaker("Model", "model"),
    "AWS::SageMaker::ModelPackageGroup": _of_sagemaker("ModelPackageGroup", "model-package-group"),
    "AWS::SecretsManager::Secret": Adoption("Id", "DescribeSecret", "SecretId", {"Id": "ARN"}),
    "AWS::StepFunctions::StateMachine": Adoption(
        "Arn", "DescribeStateMachine", "stateMachineArn",
        {"Arn": "stateMachineArn", "Name": "name", "StateMachineRevisionId": "revisionId"},
    ),
}  # fmt: skip
"""The types that can be imported."""
_BY_NAME: Final = ("AWS::SageMaker::",)


async def adopt(r: Resource, identifier: str) -> bool:
    """Fills in what a resource that is there is called and has; False if there is none. Raises Refused."""
    how = ADOPTIONS[r.thing.type]
    member, mark = how.names
    named = identifier
    if member:
        named = identifier.rpartition(mark)[2]
        if r.get(member) is not None and r.get(member) != named:
            return False
    elif how.identifier in r.properties and r.get(how.identifier) != identifier:
        return False
    asked = named if r.thing.type.startswith(_BY_NAME) else identifier
    told = await r.seen(how.operation, {how.member: [asked] if how.several else asked})
    if told is None:
        return False
    r.thing.attributes = dict(how.made(identifier, r.stack.region)) if how.made is not None else {}
    for name, path in how.facts.items():
        if (value := at(told, path)) is not None:
            r.thing.attributes[name] = value
    if member:
        r.thing.attributes[member] = named
    if r.thing.type == "AWS::SQS::Queue":
        arn = (await r.read("GetQueueAttributes", {"QueueUrl": identifier, "AttributeNames": ["QueueArn"]}))[
            "Attributes"
        ]
        r.thing.attributes["Arn"] = arn["QueueArn"]
    r.thing.physical = identifier
    return True

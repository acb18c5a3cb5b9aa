"""Keys, buckets, repositories, model package groups and topics, with the policies that `data/resources.yaml` gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bastide.landing.blueprint import Blueprint
from bastide.landing.guardrails import document
from bastide.landing.words import account_word, camel, filled, renamed, source, words

Template = dict[str, Any]


def policies(blueprint: Blueprint, kind: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Policies of a kind of resources: their name in the package's data, the account, and the entry, filled in."""
    given = words(blueprint)
    for name, entry in source("resources").items():
        if entry["kind"] == kind:
            account = entry["account"]
            yield name, account, filled(entry, given, **renamed(account), ThisKeyArn=f"{name}Arn")


def foundation(blueprint: Blueprint, account: str) -> Template:
    """An account's keys."""
    made: Template = {"Resources": {}, "Outputs": {}}
    for name, where, entry in policies(blueprint, "key"):
        if where != account:
            continue
        made["Resources"][name] = {
            "Type": "AWS::KMS::Key",
            "DeletionPolicy": "Delete",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "Description": f"{blueprint.name}: {name}",
                **(
                    {"KeySpec": entry["spec"], "KeyUsage": "SIGN_VERIFY"}
                    if "spec" in entry
                    else {"EnableKeyRotation": True}
                ),
                "PendingWindowInDays": 7,
                "KeyPolicy": document(entry["statements"]),
            },
        }
        alias = f"alias/{blueprint.name}-{name.removesuffix('Key').lower()}"
        made["Resources"][f"{name}Alias"] = {
            "Type": "AWS::KMS::Alias",
            "Properties": {"AliasName": alias, "TargetKeyId": {"Ref": name}},
        }
        made["Outputs"][f"{name}Arn"] = {"Value": {"Fn::GetAtt": [name, "Arn"]}}
        if name == f"{camel(account)}Key":
            made["Resources"]["ToldKey"] = {
                "Type": "AWS::SSM::Parameter",
                "Properties": {
                    "Name": f"/{blueprint.name}/key",
                    "Type": "String",
                    "Value": {"Fn::GetAtt": [name, "Arn"]},
                },
            }
    return made


def _bucket(name: str, key: str) -> dict[str, Any]:
    """A bucket that is private, versioned and encrypted under a key of the landing zone."""
    encryption = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": f"${{{key}Arn}}"}
    properties = {
        "BucketName": name,
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": encryption}],
        },
        "VersioningConfiguration": {"Status": "Enabled"},
        "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        "PublicAccessBlockConfiguration": {
            "BlockPublicAcls": True,
            "BlockPublicPolicy": True,
            "IgnorePublicAcls": True,
            "RestrictPublicBuckets": True,
        },
    }
    return {
        "Type": "AWS::S3::Bucket",
        "DeletionPolicy": "Delete",  # a bucket with something in it is not deleted; `destroy` empties them when told so
        "UpdateReplacePolicy": "Retain",
        "Properties": properties,
    }


def platform(blueprint: Blueprint, account: str) -> Template:
    """An account's buckets, repositories and groups."""
    made: Template = {"Resources": {}}
    given = words(blueprint)
    word = account_word(account)
    named = {
        "ArtifactBucket": ("<ARTIFACTS>", "ArtifactKey"),
        "ModelBucket": ("<MODELS>", "ModelKey"),
        "PublishedBucket": ("<PUBLISHED>", "DataManagementKey"),
        "LogBucket": ("<LOGS>", "LogKey"),
        "DataBucket": (f"<NAME>-data-${{{word}}}", "DataScienceKey"),
        "TestDataBucket": (f"<NAME>-data-${{{word}}}", "TestKey"),
    }

    def add(logical: str, name: str, key: str, statements: Any) -> None:
        made["Resources"][logical] = _bucket(filled(name, given), key)
        made["Resources"][f"{logical}Policy"] = {
            "Type": "AWS::S3::BucketPolicy",
            "Properties": {"Bucket": {"Ref": logical}, "PolicyDocument": document(statements)},
        }

    for name, where, entry in policies(blueprint, "bucket"):
        if where == account:
            add(name, *named[name], entry["statements"])
    if account == "data-management":
        add("LakeBucket", "<LAKE>", "DataManagementKey", _transport("<LAKE>", given))
    if account == "data-science":
        for team in blueprint.teams:
            bucket = f"<NAME>-team-{team.name}-${{{word}}}"
            add(f"Team{camel(team.name)}Bucket", bucket, "DataScienceKey", _transport(bucket, given))
    if account == "shared-services" and "products" in blueprint.delivery:
        bucket = f"<NAME>-products-${{{word}}}"
        add("ProductBucket", bucket, "ModelKey", _transport(bucket, given))
    if account == "shared-services" and "images" in blueprint.delivery:
        bucket = f"<NAME>-images-${{{word}}}"
        add("ImageBucket", bucket, "ModelKey", _transport(bucket, given))
    if account == "shared-services":
        _shared(blueprint, made["Resources"])
    return made


def _transport(bucket: str, given: Mapping[str, Any]) -> Any:
    """The one statement of buckets that nobody else's account reaches."""
    statement = {
        "Sid": "DenyInsecureTransport",
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:*"],
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return filled([statement], given)


def _shared(blueprint: Blueprint, made: dict[str, Any]) -> None:
    given = words(blueprint)
    shared = "${SharedServicesAccount}"
    [(_, _, repository)] = policies(blueprint, "repository")
    for team in blueprint.teams:
        for image in team.images:
            made[camel(f"image-{team.name}-{image}")] = {
                "Type": "AWS::ECR::Repository",
                "Properties": {
                    "RepositoryName": f"{team.name}/{image}",
                    "ImageTagMutability": "IMMUTABLE",
                    "EncryptionConfiguration": {"EncryptionType": "KMS", "KmsKey": "${ModelKeyArn}"},
                    "RepositoryPolicyText": document(repository["statements"]),
                    **({"ImageScanningConfiguration": {"ScanOnPush": True}} if "images" in blueprint.delivery else {}),
                    "EmptyOnDelete": True,
                    "Tags": [{"Key": "CreatedBy", "Value": "SageMaker"}, *team.tags],
                },
            }
        for model in team.models:
            arn = f"arn:aws:sagemaker:{blueprint.region}:{shared}"
            own = {"GROUP": f"{arn}:model-package-group/{model}", "PACKAGES": f"{arn}:model-package/{model}/*"}
            policy = filled(source("resources")["ModelGroup"], {**given, **own})
            made[camel(f"models-{model}")] = {
                "Type": "AWS::SageMaker::ModelPackageGroup",
                "Properties": {
                    "ModelPackageGroupName": model,
                    "ModelPackageGroupDescription": f"Models of {team.name}",
                    "ModelPackageGroupPolicy": document(policy["statements"]),
                    "Tags": [{"Key": "team", "Value": team.name}],
                },
            }
    made["ReleaseApproval"] = {
        "Type": "AWS::SNS::Topic",
        "Properties": {"TopicName": f"{blueprint.name}-release-approval", "KmsMasterKeyId": "alias/aws/sns"},
    }

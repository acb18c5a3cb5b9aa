"""Resources that are there already are taken into a stack, which has them from then on as if it had made them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account
from tests.stories.cloudformation.stacks import Stacks, parameter, template


def _kept(type: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {"Type": type, "DeletionPolicy": "Retain", "Properties": properties}


def _named(name: str, value: str) -> dict[str, Any]:
    return _kept("AWS::SSM::Parameter", {"Type": "String", "Name": name, "Value": value})


def _import(type: str, logical: str, **identifier: str) -> dict[str, Any]:
    return {"ResourceType": type, "LogicalResourceId": logical, "ResourceIdentifier": identifier}


def test_resources_are_imported(account: Account) -> None:
    stacks, ssm, iam = Stacks(account), account.client("ssm"), account.client("iam")
    client, bucket = stacks.client, f"old-{account.id}"
    trust = {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}]}  # fmt: skip
    iam.create_role(RoleName="old", AssumeRolePolicyDocument=json.dumps(trust))
    ssm.put_parameter(Name="old", Type="String", Value="one")
    account.client("s3").create_bucket(Bucket=bucket)
    group = account.client("sagemaker").create_model_package_group(ModelPackageGroupName="old")["ModelPackageGroupArn"]
    resources = {
        "P": _named("old", "one"),
        "R": _kept("AWS::IAM::Role", {"RoleName": "old", "AssumeRolePolicyDocument": trust}),
        "B": _kept("AWS::S3::Bucket", {"BucketName": bucket}),
        "G": _kept("AWS::SageMaker::ModelPackageGroup", {"ModelPackageGroupName": "old"}),
    }
    wanted = [
        _import("AWS::SSM::Parameter", "P", Name="old"), _import("AWS::IAM::Role", "R", RoleName="old"),
        _import("AWS::S3::Bucket", "B", BucketName=bucket),
        _import("AWS::SageMaker::ModelPackageGroup", "G", ModelPackageGroupArn=group),
    ]  # fmt: skip

    def change(name: str, body: str, wanted: list[dict[str, Any]], stack: str = "s") -> list[dict[str, Any]]:
        client.create_change_set(
            StackName=stack, ChangeSetName=name, ChangeSetType="IMPORT", TemplateBody=body, ResourcesToImport=wanted,
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )  # fmt: skip
        told = client.describe_change_set(StackName=stack, ChangeSetName=name)
        return [one["ResourceChange"] for one in told["Changes"]]

    def refused(*given: Any, **more: Any) -> str:
        with pytest.raises(ClientError) as caught:
            change(*given, **more)
        return str(caught.value.response["Error"]["Message"])

    changes = change("first", template(resources), wanted)
    assert {one["LogicalResourceId"]: (one["Action"], one["PhysicalResourceId"]) for one in changes} == {
        "P": ("Import", "old"), "R": ("Import", "old"), "B": ("Import", bucket), "G": ("Import", group),
    }  # fmt: skip
    assert stacks.get("s")["StackStatus"] == "REVIEW_IN_PROGRESS"
    client.execute_change_set(StackName="s", ChangeSetName="first")
    assert stacks.settled("s")["StackStatus"] == "IMPORT_COMPLETE", stacks.story("s")
    assert stacks.physical("s") == {"P": "old", "R": "old", "B": bucket, "G": group}
    assert ("P", "IMPORT_COMPLETE", "Resource import completed.") in stacks.story("s")
    # What else a template may not do meanwhile.
    more = {**resources, "Q": _named("more", "q")}
    [extra] = [_import("AWS::SSM::Parameter", "Q", Name="more")]
    assert refused("x", template(more), wanted[:1]).startswith("Resources [P] passed in ResourceToImport are already")
    both = {**more, "N": parameter("new")}
    assert refused("x", template(both), [extra]) == "Resources [N] is missing from ResourceToImport list"
    other = {**more, "P": _named("old", "two")}
    assert refused("x", template(other), [extra]).startswith("You have modified resources [P] in your template")
    loose = {**resources, "Q": parameter("q")}
    assert "DeletionPolicy" in refused("x", template(loose), [extra])
    assert "modify or add [Outputs]" in refused("x", template(more, Outputs={"O": {"Value": "v"}}), [extra])
    assert refused(
        "x", template({"A": _named("old", "one")}), [_import("AWS::SSM::Parameter", "A", Name="old")], stack="t"
    ) == ("Resource old already exists in the stack s.")
    assert "[Name]" in refused("x", template(more), [_import("AWS::SSM::Parameter", "Q", Path="more")])
    topic = [_import("AWS::EC2::VPC", "Q", VpcId="vpc-1")]
    assert refused("x", template(more), topic) == "ResourceTypes [AWS::EC2::VPC] are not supported for Import"
    # One that is not there: the stack is as it was.
    change("lost", template(more), [extra])
    client.execute_change_set(StackName="s", ChangeSetName="lost")
    assert stacks.settled("s")["StackStatus"] == "IMPORT_ROLLBACK_COMPLETE", stacks.story("s")
    assert "Q" not in stacks.physical("s")
    ssm.put_parameter(Name="more", Type="String", Value="q")
    change("again", template(more), [extra])
    client.execute_change_set(StackName="s", ChangeSetName="again")
    assert stacks.settled("s")["StackStatus"] == "IMPORT_COMPLETE", stacks.story("s")
    # From now on they are the stack's, which changes and removes them.
    held = {**more, "P": {**_named("old", "two"), "DeletionPolicy": "Delete"}}
    held["N"] = parameter({"Fn::GetAtt": ["R", "Arn"]})
    assert stacks.update("s", template(held))["StackStatus"] == "UPDATE_COMPLETE", stacks.story("s")
    assert stacks.value("old") == "two"
    assert stacks.value(stacks.physical("s")["N"]) == f"arn:aws:iam::{account.id}:role/old"
    assert stacks.delete("s")["StackStatus"] == "DELETE_COMPLETE", stacks.story("s")
    assert stacks.value("old") is None and stacks.value("more") == "q" and iam.get_role(RoleName="old")

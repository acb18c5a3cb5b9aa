"""The paper's own templates: a state machine whose definition lies in another account's bucket, with the paper's roles."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.cloudformation.stacks import Stacks

BOTH = ("s3:GetObject", "s3:GetObjectVersion")


def _filled(mission: Path, name: str, **given: str) -> str:
    text = (mission / "policies" / name).read_text()
    for key, value in {"REGION": "us-east-1", **given}.items():
        text = text.replace(f"<{key}>", value)
    return text


def _definition(shared: Account, test: Account, text: str, *, readable: bool = True) -> str:
    """A bucket of Shared Services that the test account's stacks may read from."""
    name, s3 = f"artifacts-{shared.id}", shared.client("s3")
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="machine.asl.json", Body=text.encode())
    if readable:
        statement = {
            "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{test.id}:root"}, "Action": list(BOTH),
            "Resource": f"arn:aws:s3:::{name}/*",
        }  # fmt: skip
        s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    return name


def _roles(mission: Path, test: Account, bucket: str) -> tuple[str, str]:
    """The stack's role as the paper has it, and a role for the state machine."""
    iam = test.client("iam")
    trust = _filled(mission, "82-trust-cloudformation-roles.json", ACCOUNT_ID=test.id)
    arn: str = iam.create_role(RoleName="cloudformation", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    policy = _filled(
        mission, "76-cloudformation-role-test.json", TEST_ACCOUNT_ID=test.id, STATE_MACHINE_ROLE_NAME="machine",
        ARTIFACT_BUCKET_NAME=bucket, SHARED_SERVICES_ACCOUNT_ID="111122223333", ARTIFACT_KEY_ID="k",
    )  # fmt: skip
    iam.put_role_policy(RoleName="cloudformation", PolicyName="p", PolicyDocument=policy)
    more = allow("ec2:DescribeSubnets", "ec2:DescribeSecurityGroups", "states:PublishStateMachineVersion")
    iam.put_role_policy(RoleName="cloudformation", PolicyName="more", PolicyDocument=json.dumps(more))
    return arn, test.role("machine", allow("sagemaker:*"), trust={"Service": "states.amazonaws.com"})


def _network(test: Account) -> dict[str, str]:
    ec2 = test.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.9.{n}.0/24", AvailabilityZone=f"us-east-1{z}")["Subnet"]["SubnetId"]
        for n, z in enumerate("ab")
    ]
    group = ec2.create_security_group(VpcId=vpc, GroupName="jobs", Description="jobs")["GroupId"]
    return {"SubnetId1": subnets[0], "SubnetId2": subnets[1], "SecurityGroupId": group}


def _given(template: dict[str, Any], **given: str) -> list[dict[str, str]]:
    values = {
        name: given.get(
            name, f"arn:aws:iam::111122223333:role/{name}" if name.endswith("RoleArn") else f"s3://b/{name}"
        )
        for name, one in template["Parameters"].items()
        if "Default" not in one or name in given
    }
    return [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]


@pytest.mark.control("PEX-05")
@pytest.mark.control("PEX-03", lacking="the pipeline's action")
def test_a_state_machine_from_a_definition_in_shared_services(
    mission: Path, account: Account, neighbour: Account
) -> None:
    shared, test, stacks = neighbour, account, Stacks(account)
    definition = (mission / "policies" / "62-training-state-machine.asl.json").read_text()
    bucket = _definition(shared, test, definition)
    role, machine = _roles(mission, test, bucket)
    body = (mission / "policies" / "61-cloudformation-training-state-machine.json").read_text()
    template = json.loads(body)
    network = _network(test)
    given = _given(
        template, **network, DefinitionBucket=bucket, DefinitionKey="machine.asl.json", StateMachineRoleArn=machine,
        Project="mortgages", Owner="risk", TrainingImageURL="image:1",
    )  # fmt: skip
    assert stacks.client.validate_template(TemplateBody=body)["Parameters"]
    made = stacks.create("train", body, Parameters=given, RoleARN=role)
    assert made["StackStatus"] == "CREATE_COMPLETE", stacks.story("train")
    arn = stacks.outputs("train")["StateMachineARN"]
    told = test.client("stepfunctions").describe_state_machine(stateMachineArn=arn)
    assert told["roleArn"] == machine and told["type"] == "STANDARD" and arn.endswith(":SM-train-Step_Function")
    assert (
        not re.search(r"\$\{\w", told["definition"])
        and "image:1" in told["definition"]
        and network["SubnetId2"] in told["definition"]
    )
    tags = {
        one["key"]: one["value"] for one in test.client("stepfunctions").list_tags_for_resource(resourceArn=arn)["tags"]
    }
    assert tags["project"] == "mortgages" and tags["environment"] == "test"
    with pytest.raises(ClientError, match="No updates are to be performed"):
        stacks.update("train", body, Parameters=given, RoleARN=role)
    changed = [
        {**one, "ParameterValue": "image:2"} if one["ParameterKey"] == "TrainingImageURL" else one for one in given
    ]
    assert stacks.update("train", body, Parameters=changed)["StackStatus"] == "UPDATE_COMPLETE", stacks.story("train")
    assert "image:2" in test.client("stepfunctions").describe_state_machine(stateMachineArn=arn)["definition"]
    # A definition that is none, or that the stack's role may not read, undoes everything.
    shared.client("s3").put_object(Bucket=bucket, Key="machine.asl.json", Body=b'{"StartAt": "Nowhere", "States": {}}')
    again = [
        {**one, "ParameterValue": "image:3"} if one["ParameterKey"] == "TrainingImageURL" else one for one in given
    ]
    assert stacks.update("train", body, Parameters=again)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE", stacks.story(
        "train"
    )
    assert "image:2" in test.client("stepfunctions").describe_state_machine(stateMachineArn=arn)["definition"]
    del template["Resources"]["MyStateMachine"]["Properties"]["RoleArn"]
    with pytest.raises(ClientError, match="RoleArn"):
        stacks.create("norole", json.dumps(template), Parameters=given, RoleARN=role)


@pytest.mark.control("PEX-05", lacking="what the definition runs")
@pytest.mark.parametrize(("text", "readable"), [('{"StartAt": "Nowhere", "States": {}}', True), ("", False)])
def test_a_definition_that_cannot_be_ends_in_nothing(
    mission: Path, account: Account, neighbour: Account, text: str, readable: bool
) -> None:
    stacks = Stacks(account)
    bucket = _definition(neighbour, account, text, readable=readable)
    role, machine = _roles(mission, account, bucket)
    body = (mission / "policies" / "61-cloudformation-training-state-machine.json").read_text()
    given = _given(
        json.loads(body), **_network(account), DefinitionBucket=bucket, DefinitionKey="machine.asl.json",
        StateMachineRoleArn=machine, Project="p", Owner="o",
    )  # fmt: skip
    assert stacks.create("train", body, Parameters=given, RoleARN=role)["StackStatus"] == "ROLLBACK_COMPLETE"
    [reason] = [
        reason
        for name, status, reason in stacks.story("train")
        if (name, status) == ("MyStateMachine", "CREATE_FAILED")
    ]
    assert (
        ("AccessDenied" in reason) if not readable else ("InvalidDefinition" in reason or "SCHEMA" in reason.upper())
    ), reason


def test_a_template_that_names_what_is_not_there_makes_nothing(mission: Path, account: Account) -> None:
    """The notebook of the paper, with a domain in its place: it says so before anything is made."""
    stacks, network = Stacks(account), _network(account)
    body = (mission / "policies" / "85-cloudformation-notebook-lifecycle.json").read_text()
    body = body.replace('"AWS::SageMaker::NotebookInstance"', '"AWS::SageMaker::Domain"')
    place = {"SubnetId": network["SubnetId1"], "SecurityGroupIds": network["SecurityGroupId"], "SubnetIds": "a,b"}
    with pytest.raises(ClientError, match=r"Unrecognized resource types: .*AWS::SageMaker::Domain"):
        stacks.client.create_stack(StackName="n", TemplateBody=body, Parameters=_given(json.loads(body), **place))
    assert not stacks.client.list_stacks()["StackSummaries"]

"""The roles of people, each with this role alone: what it opens, and what it does not.

Services that do not exist yet are named with each citation; what is refused of them is decided before they are looked for.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import Account, Keys, Running, allow
from tests.stories.lambda_.conftest import archive

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"


def refused(wanted: str, call: Any, **given: Any) -> str:
    """The message of a call that must be refused with that code."""
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**given)
    assert error.value.response["Error"]["Code"] == wanted, error.value
    return str(error.value.response["Error"]["Message"])


def bucket_of(account: Account, *keys: str) -> str:
    """A bucket with an object under each key."""
    name = f"persona-{uuid.uuid4().hex[:12]}"
    s3 = account.client("s3")
    s3.create_bucket(Bucket=name)
    for key in keys:
        s3.put_object(Bucket=name, Key=key, Body=key.encode())
    return name


def persona(account: Account, name: str, *policies: dict[str, Any]) -> None:
    """A role of these policies."""
    account.role(name)
    for number, policy in enumerate(policies):
        account.client("iam").put_role_policy(RoleName=name, PolicyName=f"p{number}", PolicyDocument=json.dumps(policy))


def model(role: str) -> dict[str, Any]:
    return {"ModelName": f"m-{uuid.uuid4().hex[:8]}", "ExecutionRoleArn": role, "PrimaryContainer": {"Image": IMAGE}}


@pytest.mark.control("USR-01", lacking="Studio and Athena")
def test_a_data_scientist_looks_and_reads_and_administers_nothing(
    account: Account, neighbour: Account, mission: Path
) -> None:
    """neighbour is production: the role's session ends at its account's border."""
    bucket = bucket_of(account, "team/a.csv")
    look = json.loads((mission / "policies" / "01-console-read-only.json").read_text())
    read = allow("s3:GetObject", "s3:ListBucket", resource=[f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/team/*"])
    persona(account, "DataScientist", look, read)
    keys = account.as_role("DataScientist")
    assert account.client("sagemaker", keys).list_training_jobs()["TrainingJobSummaries"] == []
    assert account.client("s3", keys).get_object(Bucket=bucket, Key="team/a.csv")["Body"].read() == b"team/a.csv"
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    refused("AccessDenied", account.client("iam", keys).create_role, RoleName="x", AssumeRolePolicyDocument=trust)
    refused("UnauthorizedOperation", account.client("ec2", keys).create_vpc, CidrBlock="10.0.0.0/16")
    refused_pipeline = _handed(account, keys, f"arn:aws:iam::{account.id}:role/DataScientist", "p")["pipeline"]
    refused("AccessDeniedException", refused_pipeline)
    sagemaker = account.client("sagemaker", keys)
    refused("AccessDeniedException", sagemaker.create_endpoint, EndpointName="e", EndpointConfigName="c")
    neighbour.role("DataScientist", allow("sagemaker:CreateEndpoint"))
    production = f"arn:aws:iam::{neighbour.id}:role/DataScientist"
    refused("AccessDenied", account.client("sts", keys).assume_role, RoleArn=production, RoleSessionName="ds")


@pytest.mark.control("USR-03", lacking="Glue, EMR, Athena, RDS and the feature store")
def test_a_data_engineer_writes_data_and_deploys_nothing(account: Account) -> None:
    bucket = bucket_of(account)
    own = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    persona(account, "DataEngineer", allow("s3:GetObject", "s3:PutObject", "s3:ListBucket", resource=own))
    keys = account.as_role("DataEngineer")
    s3 = account.client("s3", keys)
    s3.put_object(Bucket=bucket, Key="lake/a.csv", Body=b"1,2")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    sagemaker = account.client("sagemaker", keys)
    refused("AccessDeniedException", sagemaker.create_endpoint, EndpointName="e", EndpointConfigName="c")
    wide = {"RoleName": "DataEngineer", "PolicyName": "more", "PolicyDocument": json.dumps(allow("*"))}
    refused("AccessDenied", account.client("iam", keys).put_role_policy, **wide)


@pytest.mark.control("USR-04", lacking="the catalogue's databases")
def test_teams_of_data_engineers_keep_to_their_prefixes(account: Account) -> None:
    bucket = bucket_of(account, "one/a", "two/a")
    for team in ("one", "two"):
        listing = allow(
            "s3:ListBucket", resource=f"arn:aws:s3:::{bucket}", Condition={"StringLike": {"s3:prefix": f"{team}/*"}}
        )
        work = allow("s3:GetObject", "s3:PutObject", resource=f"arn:aws:s3:::{bucket}/{team}/*")
        persona(account, f"DataEngineer-{team}", listing, work)
    s3 = account.client("s3", account.as_role("DataEngineer-one"))
    s3.put_object(Bucket=bucket, Key="one/b", Body=b"b")
    assert s3.list_objects_v2(Bucket=bucket, Prefix="one/")["KeyCount"] == 2
    refused("AccessDenied", s3.get_object, Bucket=bucket, Key="two/a")
    refused("AccessDenied", s3.put_object, Bucket=bucket, Key="two/b", Body=b"b")
    refused("AccessDenied", s3.list_objects_v2, Bucket=bucket, Prefix="two/")
    refused("AccessDenied", s3.list_objects_v2, Bucket=bucket)
    other = f"arn:aws:iam::{account.id}:role/DataEngineer-two"
    refused(
        "AccessDenied",
        account.client("sts", account.as_role("DataEngineer-one")).assume_role,
        RoleArn=other,
        RoleSessionName="one",
    )


SERVICES = ("codebuild", "codepipeline", "cloudformation", "lambda", "sagemaker", "states")
"""Those that an MLOps engineer's roles are for."""
PASS = {"Type": "Pass", "End": True}
STACK = {
    "Resources": {"G": {"Type": "AWS::SageMaker::ModelPackageGroup", "Properties": {"ModelPackageGroupName": "g"}}}
}


def _handed(account: Account, keys: Keys, role: str, name: str) -> dict[str, Callable[[], Any]]:
    """A call of each service that hands it a role."""

    def client(service: str) -> Any:
        return account.client(service, keys)

    where = {"S3Bucket": "none", "S3ObjectKey": "code.zip"}
    source = {
        "name": "S", "actionTypeId": {"category": "Source", "owner": "AWS", "provider": "S3", "version": "1"},
        "configuration": where, "outputArtifacts": [{"name": "Code"}],
    }  # fmt: skip
    approval = {
        "name": "A",
        "actionTypeId": {"category": "Approval", "owner": "AWS", "provider": "Manual", "version": "1"},
    }
    pipeline = {
        "name": name, "roleArn": role, "artifactStore": {"type": "S3", "location": "none"},
        "stages": [{"name": "Source", "actions": [source]}, {"name": "Approve", "actions": [approval]}],
    }  # fmt: skip
    spec = '{"version": "0.2", "phases": {"build": {"commands": ["true"]}}}'
    computer = {"type": "LINUX_CONTAINER", "image": "aws/codebuild/standard:7.0", "computeType": "BUILD_GENERAL1_SMALL"}
    training = {
        "TrainingJobName": name, "RoleArn": role, "OutputDataConfig": {"S3OutputPath": "s3://none/out"},
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "ResourceConfig": {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }  # fmt: skip
    return {
        "training": lambda: client("sagemaker").create_training_job(**training),
        "model": lambda: client("sagemaker").create_model(**model(role)),
        "pipeline": lambda: client("codepipeline").create_pipeline(pipeline=pipeline),
        "project": lambda: client("codebuild").create_project(
            name=name, source={"type": "NO_SOURCE", "buildspec": spec}, artifacts={"type": "NO_ARTIFACTS"},
            environment=computer, serviceRole=role,
        ),
        "stack": lambda: client("cloudformation").create_stack(
            StackName=name, TemplateBody=json.dumps(STACK), RoleARN=role
        ),
        "function": lambda: client("lambda").create_function(
            FunctionName=name, Runtime="python3.11", Handler="index.handler", Role=role,
            Code={"ZipFile": archive(index="def handler(event, context): pass")},
        ),
        "machine": lambda: client("stepfunctions").create_state_machine(
            name=name, roleArn=role, definition=json.dumps({"StartAt": "P", "States": {"P": PASS}})
        ),
    }  # fmt: skip


@pytest.mark.control("USR-05")
def test_an_mlops_engineer_passes_the_roles_of_the_list_alone(platform: Running, account: Account) -> None:
    experiments = bucket_of(account, "k")
    trust = {"Service": [f"{one}.amazonaws.com" for one in SERVICES]}
    passable, other = (
        account.role(name, allow("sagemaker:*", "s3:GetObject"), trust=trust)
        for name in ("Execution", "Administrative")
    )
    operations = (
        "sagemaker:CreateModel", "sagemaker:CreateTrainingJob", "codepipeline:CreatePipeline", "codebuild:CreateProject",
        "cloudformation:CreateStack", "lambda:CreateFunction", "states:CreateStateMachine", "ecr:CreateRepository",
        "cloudwatch:PutDashboard",
    )  # fmt: skip
    condition = {"StringEquals": {"iam:PassedToService": trust["Service"]}}
    persona(account, "MLOps", allow(*operations), allow("iam:PassRole", resource=passable, Condition=condition))
    keys = account.as_role("MLOps")
    for what, call in _handed(account, keys, other, "other").items():
        with pytest.raises(botocore.exceptions.ClientError) as error:
            call()
        told = error.value.response["Error"]
        assert told["Code"].startswith("AccessDenied"), (what, told)
        assert "iam:PassRole" in told["Message"] and other in told["Message"], (what, told)
    for call in _handed(account, keys, passable, "own").values():
        call()
    account.client("ecr", keys).create_repository(repositoryName="own")
    board = {"widgets": [{"type": "text", "width": 1, "height": 1, "properties": {"markdown": "models"}}]}
    account.client("cloudwatch", keys).put_dashboard(DashboardName="own", DashboardBody=json.dumps(board))
    refused("AccessDenied", account.client("s3", keys).get_object, Bucket=experiments, Key="k")
    [scp] = [
        one
        for one in platform.client("organizations").list_policies(Filter="SERVICE_CONTROL_POLICY")["Policies"]
        if one["Name"] == "FullAWSAccess"
    ]
    organizations = account.client("organizations", keys)
    refused("AccessDeniedException", organizations.update_policy, PolicyId=scp["Id"], Name="x")

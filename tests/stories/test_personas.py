"""The roles of people, each with this role alone: what it opens, and what it does not.

Services that do not exist yet are named with each citation; what is refused of them is decided before they are looked for.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import Account, Running, allow

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
SERVICE = {"Service": "sagemaker.amazonaws.com"}


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


@pytest.mark.control("USR-01", lacking="Studio, Athena and CodePipeline")
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


@pytest.mark.control("USR-05", lacking="pipelines, builds, stacks, images, functions, state machines and dashboards")
def test_an_mlops_engineer_passes_the_roles_of_the_list_alone(platform: Running, account: Account) -> None:
    experiments = bucket_of(account, "k")
    passable, other = (
        account.role(name, allow("s3:GetObject"), trust=SERVICE) for name in ("ModelExecution", "Administrative")
    )
    persona(
        account,
        "MLOps",
        allow("sagemaker:CreateModel", "sagemaker:CreateEndpointConfig", "sagemaker:DescribeModel"),
        allow(
            "iam:PassRole",
            resource=passable,
            Condition={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        ),
    )
    keys = account.as_role("MLOps")
    sagemaker = account.client("sagemaker", keys)
    made = model(passable)
    sagemaker.create_model(**made)
    assert sagemaker.describe_model(ModelName=made["ModelName"])["ExecutionRoleArn"] == passable
    message = refused("AccessDeniedException", sagemaker.create_model, **model(other))
    assert "iam:PassRole" in message and other in message
    refused("AccessDenied", account.client("s3", keys).get_object, Bucket=experiments, Key="k")
    [scp] = [
        one
        for one in platform.client("organizations").list_policies(Filter="SERVICE_CONTROL_POLICY")["Policies"]
        if one["Name"] == "FullAWSAccess"
    ]
    organizations = account.client("organizations", keys)
    refused("AccessDeniedException", organizations.update_policy, PolicyId=scp["Id"], Name="x")

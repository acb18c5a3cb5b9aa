"""The paper's policies for SageMaker attached to roles, both ways: what complies works, the rest is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.sagemaker.conftest import IMAGE, Workshop
from tests.stories.sagemaker.test_job_role import SERVICE, policy

RESOURCES = {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}


def refused(call: Callable[..., Any], **given: Any) -> str:
    """The message of a refusal by policy."""
    with pytest.raises(ClientError) as error:
        call(**given)
    found: dict[str, str] = error.value.response["Error"]
    assert found["Code"] in ("AccessDeniedException", "AccessDenied"), found
    return found["Message"]


def tags(**given: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in given.items()]


def role(account: Account, name: str, **policies: Any) -> Any:
    """SageMaker as a role sees it that has these inline policies."""
    account.role(name)
    for one, document in policies.items():
        account.client("iam").put_role_policy(RoleName=name, PolicyName=one, PolicyDocument=json.dumps(document))
    return account.client("sagemaker", account.as_role(name))


def processing(workshop: Workshop, **more: Any) -> dict[str, Any]:
    cluster = {**RESOURCES, **more.pop("cluster", {})}
    return {
        "ProcessingJobName": workshop.name("p"),
        "ProcessingResources": {"ClusterConfig": cluster},
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["true"]},
        "RoleArn": workshop.role,
        **more,
    }


# GRD-01 asks this of every document; those of notebooks and Studio wait for their operations, 24 for jobs with a network.
@pytest.mark.parametrize(
    ("document", "offends", "complies"),
    [
        ("22-guardrail-job-volume-encryption", {}, {"ResourceConfig": {**RESOURCES, "VolumeKmsKeyId": "KEY"}}),
        (
            "23-guardrail-inter-container-encryption",
            {"EnableInterContainerTrafficEncryption": False},
            {"EnableInterContainerTrafficEncryption": True},
        ),
        ("25-guardrail-network-isolation", {"EnableNetworkIsolation": False}, {"EnableNetworkIsolation": True}),
    ],
)
@pytest.mark.control("GRD-01", lacking="the documents about notebooks and Studio, and jobs in a VPC")
def test_a_guardrail_on_a_role_binds_that_role(
    workshop: Workshop, mission: Path, document: str, offends: dict[str, Any], complies: dict[str, Any]
) -> None:
    account = workshop.account
    free = allow("sagemaker:*", "iam:PassRole")
    bound = role(account, "Bound", free=free, guardrail=policy(mission, f"{document}.json"))
    others = role(account, "Free", free=free)
    key = account.client("kms").create_key()["KeyMetadata"]["Arn"]
    text = json.dumps(complies).replace("KEY", key)
    workshop.sagemaker = bound
    for given in ({}, offends):
        message = refused(workshop.train, script="", **given)
        assert "explicit deny in an identity-based policy" in message and "sagemaker:CreateTrainingJob" in message
    name = workshop.train("", **json.loads(text))
    workshop.sagemaker = others
    free_name = workshop.train("", **offends)
    for one in (name, free_name):
        job = workshop.trained(one)
        if not job["EnableNetworkIsolation"]:  # one in isolation runs, and does not reach this script
            assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")


def test_processing_jobs_are_bound_by_the_volume_guardrail_too(workshop: Workshop, mission: Path) -> None:
    guardrail = policy(mission, "22-guardrail-job-volume-encryption.json")
    bound = role(workshop.account, "Bound", free=allow("sagemaker:*", "iam:PassRole"), guardrail=guardrail)
    refused(bound.create_processing_job, **processing(workshop))
    key = workshop.account.client("kms").create_key()["KeyMetadata"]["Arn"]
    bound.create_processing_job(**processing(workshop, cluster={"VolumeKmsKeyId": key}))


def test_the_vpc_guardrail_decides_before_networks_are_looked_for(workshop: Workshop, mission: Path) -> None:
    """What complies passes the policy, and is then told that there is no such subnet."""
    guardrail = policy(mission, "24-guardrail-vpc-deployment.json")
    bound = role(workshop.account, "Bound", free=allow("sagemaker:*", "iam:PassRole"), guardrail=guardrail)
    workshop.sagemaker = bound
    config = {"Subnets": ["subnet-0123"], "SecurityGroupIds": ["sg-0123"]}
    container = {"Image": IMAGE}
    model = {"ModelName": "m", "ExecutionRoleArn": workshop.role, "PrimaryContainer": container}
    refused(workshop.train, script="")
    refused(bound.create_processing_job, **processing(workshop))
    refused(bound.create_model, **model)
    calls: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (workshop.train, {"script": "", "VpcConfig": config}),
        (bound.create_processing_job, processing(workshop, NetworkConfig={"VpcConfig": config})),
        (bound.create_model, {**model, "VpcConfig": config}),
    ]
    for call, given in calls:
        with pytest.raises(ClientError) as error:
            call(**given)
        assert error.value.response["Error"]["Code"] == "ValidationException"


def deployable(workshop: Workshop) -> None:
    """A model and a configuration that can be deployed, made by the administrator."""
    client = workshop.sagemaker
    client.create_model(ModelName="m", ExecutionRoleArn=workshop.role, PrimaryContainer={"Image": IMAGE})
    client.create_endpoint_config(EndpointConfigName="c", ProductionVariants=variants())


def variants() -> list[dict[str, Any]]:
    return [{"VariantName": "v", "ModelName": "m", "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1}]


@pytest.mark.control("GRD-14")
def test_endpoints_in_development_carry_the_environment_tag(workshop: Workshop, mission: Path) -> None:
    deployable(workshop)
    guardrail = policy(mission, "31-guardrail-endpoint-environment-tag.json")
    bound = role(workshop.account, "Deployer", free=allow("sagemaker:*"), guardrail=guardrail)
    for given in ({}, {"environment": "test"}, {"Environment": "prod"}, {"environment": "Dev"}, {"stage": "dev"}):
        extra = {"Tags": tags(**given)} if given else {}
        message = refused(bound.create_endpoint, EndpointName="e", EndpointConfigName="c", **extra)
        assert "explicit deny in an identity-based policy" in message
    assert workshop.sagemaker.list_endpoints()["Endpoints"] == []
    for name, key in (("one", "environment"), ("two", "ENVIRONMENT")):
        bound.create_endpoint(EndpointName=name, EndpointConfigName="c", Tags=tags(**{key: "dev"}))
    found = workshop.sagemaker.list_endpoints()["Endpoints"]
    assert {one["EndpointName"] for one in found} == {"one", "two"}


@pytest.mark.control("TAG-08")
def test_endpoints_carry_a_team_of_the_pattern(workshop: Workshop, mission: Path) -> None:
    deployable(workshop)
    bound = role(workshop.account, "Scientist", team=policy(mission, "50-endpoint-team-tag.json"))
    config = {"ProductionVariants": variants()}
    for given in ([], tags(team="delta"), tags(owner="alpha"), tags(team="alphabet")):
        refused(bound.create_endpoint_config, EndpointConfigName="x", **config, Tags=given)
        refused(bound.create_endpoint, EndpointName="x", EndpointConfigName="c", Tags=given)
    bound.create_endpoint_config(EndpointConfigName="mine", **config, Tags=tags(team="Alpha"))
    arn = bound.create_endpoint(EndpointName="e", EndpointConfigName="mine", Tags=tags(team="Alpha"))["EndpointArn"]
    message = refused(bound.add_tags, ResourceArn=arn, Tags=tags(team="bravo"))
    assert "sagemaker:AddTags" in message and "no identity-based policy allows" in message
    refused(bound.add_tags, ResourceArn=arn, Tags=tags(team="Alpha"))
    assert workshop.sagemaker.list_tags(ResourceArn=arn)["Tags"] == tags(team="Alpha")


@pytest.mark.control("USR-02")
def test_one_teams_data_and_jobs_are_out_of_reach_of_another(workshop: Workshop) -> None:
    account, admin = workshop.account, workshop.sagemaker
    iam, s3 = account.client("iam"), workshop.s3
    own = {"StringEquals": {"aws:ResourceTag/team": "${aws:PrincipalTag/team}"}}
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"],
             "Resource": ["arn:aws:s3:::${aws:PrincipalTag/team}-" + account.id + suffix for suffix in ("", "/*")]},
            {"Effect": "Allow", "Action": ["sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob"],
             "Resource": "*", "Condition": own},
        ],
    }  # fmt: skip
    people: dict[str, Any] = {}
    jobs: dict[str, str] = {}
    for team in ("alpha", "bravo"):
        s3.create_bucket(Bucket=f"{team}-{account.id}")
        s3.put_object(Bucket=f"{team}-{account.id}", Key="data", Body=team.encode())
        iam.create_user(UserName=team)
        trusted = {"AWS": f"arn:aws:iam::{account.id}:user/{team}"}
        account.role(f"Scientist-{team}", document, trust=trusted, Tags=tags(team=team))
        issued = iam.create_access_key(UserName=team)["AccessKey"]
        people[team] = type(account.keys)(issued["AccessKeyId"], issued["SecretAccessKey"])
        jobs[team] = workshop.train("import time; time.sleep(60)", Tags=tags(team=team))
    arn = f"arn:aws:iam::{account.id}:role/Scientist-"
    alpha = account.platform.assume(f"{arn}alpha", people["alpha"])
    reader, mine = account.client("s3", alpha), account.client("sagemaker", alpha)
    assert reader.get_object(Bucket=f"alpha-{account.id}", Key="data")["Body"].read() == b"alpha"
    refused(reader.get_object, Bucket=f"bravo-{account.id}", Key="data")
    refused(reader.list_objects_v2, Bucket=f"bravo-{account.id}")
    refused(mine.stop_training_job, TrainingJobName=jobs["bravo"])
    refused(mine.describe_training_job, TrainingJobName=jobs["bravo"])
    sts = account.client("sts", people["alpha"])
    refused(sts.assume_role, RoleArn=f"{arn}bravo", RoleSessionName="other")
    # It is the live tag that counts: when the other team's job becomes alpha's, and while its own is not.
    job = f"arn:aws:sagemaker:us-east-1:{account.id}:training-job/"
    admin.add_tags(ResourceArn=job + jobs["alpha"], Tags=tags(team="bravo"))
    refused(mine.stop_training_job, TrainingJobName=jobs["alpha"])
    admin.add_tags(ResourceArn=job + jobs["alpha"], Tags=tags(team="alpha"))
    mine.stop_training_job(TrainingJobName=jobs["alpha"])
    admin.stop_training_job(TrainingJobName=jobs["bravo"])
    assert workshop.trained(jobs["alpha"])["TrainingJobStatus"] == "Stopped"


@pytest.mark.control("SVR-02")
def test_what_a_person_may_and_what_the_execution_role_may_are_two_things(workshop: Workshop, mission: Path) -> None:
    """Two sessions, two decisions; the notebook itself is in tests/stories/mission/test_notebooks.py."""
    account = workshop.account
    run = policy(
        mission,
        "06-notebook-execution-role-run-jobs.json",
        ACCOUNT_ID=account.id,
        SAGEMAKER_TRAINING_EXECUTION_ROLE_ARN=workshop.role,
    )
    person = role(account, "Person", look=policy(mission, "01-console-read-only.json"), assume=allow("sts:AssumeRole"))
    execution = account.role("NotebookExecution", run, trust=SERVICE)
    refused(_as(workshop, person).train, script="")
    keys = account.as_role("Person")
    refused(account.client("sts", keys).assume_role, RoleArn=execution, RoleSessionName="other")
    account.role("Runs", run)
    runner = account.client("sagemaker", account.as_role("Runs"))
    name = _as(workshop, runner).train("", Tags=tags(team="alpha"))
    assert person.describe_training_job(TrainingJobName=name)["TrainingJobName"] == name
    refused(runner.describe_training_job, TrainingJobName=name)


def _as(workshop: Workshop, sagemaker: Any) -> Workshop:
    return Workshop(workshop.account, workshop.bucket, workshop.role, sagemaker, workshop.s3)

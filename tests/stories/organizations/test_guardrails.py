"""The paper's guardrails as service control policies of an organisational unit."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, Running, allow
from tests.stories.ec2.conftest import make_vpc
from tests.stories.sagemaker.conftest import Workshop, workshop_of
from tests.stories.sagemaker.test_job_network import config, grant_vpc

NAMES = (
    "20-guardrail-notebook-volume-encryption",
    "21-guardrail-studio-efs-encryption",
    "22-guardrail-job-volume-encryption",
    "23-guardrail-inter-container-encryption",
    "24-guardrail-vpc-deployment",
    "25-guardrail-network-isolation",
    "26-guardrail-api-source-ip",
    "27-guardrail-presigned-url-source-ip",
    "28-guardrail-notebook-direct-internet",
    "29-guardrail-studio-vpc-only",
    "30-guardrail-notebook-root-access",
    "31-guardrail-endpoint-environment-tag",
    "32-guardrail-studio-domain-tags",
    "33-guardrail-notebook-instance-types",
    "34-guardrail-studio-instance-types",
)
FILLED = {"<ALLOWED_PUBLIC_CIDR>": "198.51.100.0/24", "<DATA_SCIENCE_VPC_ID>": "vpc-0123456789abcdef0"}
SCP = "SERVICE_CONTROL_POLICY"


def content(mission: Path, name: str, **other: str) -> str:
    text = (mission / "policies" / f"{name}.json").read_text()
    for key, value in {**FILLED, **other}.items():
        text = text.replace(key, value)
    assert "<" not in text
    return text


class Unit:
    """An organisational unit of its own."""

    def __init__(self, platform: Running) -> None:
        self.org = platform.client("organizations")
        self.root = self.org.list_roots()["Roots"][0]["Id"]
        made = self.org.create_organizational_unit(ParentId=self.root, Name=f"unit-{uuid.uuid4().hex[:8]}")
        self.id = made["OrganizationalUnit"]["Id"]

    def attach(self, text: str) -> str:
        given = {"Name": f"guardrail-{uuid.uuid4().hex[:8]}", "Description": "", "Type": SCP, "Content": text}
        made: dict[str, Any] = self.org.create_policy(**given)["Policy"]
        assert json.loads(made["Content"]) == json.loads(text)
        self.org.attach_policy(PolicyId=made["PolicySummary"]["Id"], TargetId=self.id)
        arn: str = made["PolicySummary"]["Arn"]
        return arn

    def take(self, account: Account) -> None:
        self.org.move_account(AccountId=account.id, SourceParentId=self.root, DestinationParentId=self.id)


@pytest.fixture
def unit(platform: Running) -> Unit:
    return Unit(platform)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_accepted(unit: Unit, mission: Path, name: str) -> None:
    arn = unit.attach(content(mission, name))
    found = unit.org.list_policies_for_target(TargetId=unit.id, Filter=SCP)["Policies"]
    assert arn in [one["Arn"] for one in found]


def refusal(workshop: Workshop, **more: Any) -> dict[str, str]:
    with pytest.raises(ClientError) as refused:
        workshop.train("", **more)
    error: dict[str, str] = refused.value.response["Error"]
    return error


def bound(unit: Unit, account: Account, text: str) -> tuple[Workshop, str]:
    """A workshop whose account an SCP binds, and that policy's ARN."""
    workshop = workshop_of(account)
    unit.take(account)
    workshop.train("", TrainingJobName="before")
    return workshop, unit.attach(text)


def denied(workshop: Workshop, policy: str, **more: Any) -> None:
    error = refusal(workshop, **more)
    assert error["Code"] == "AccessDeniedException"
    assert "explicit deny in a service control policy" in error["Message"] and policy in error["Message"]
    assert "sagemaker:CreateTrainingJob" in error["Message"]


RESOURCES = {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}


def test_volume_encryption(unit: Unit, account: Account, mission: Path) -> None:
    workshop, policy = bound(unit, account, content(mission, "22-guardrail-job-volume-encryption"))
    denied(workshop, policy)
    key = account.client("kms").create_key()["KeyMetadata"]["Arn"]
    workshop.trained(workshop.train("", ResourceConfig={**RESOURCES, "VolumeKmsKeyId": key}))


def test_network_isolation(unit: Unit, account: Account, mission: Path) -> None:
    workshop, policy = bound(unit, account, content(mission, "25-guardrail-network-isolation"))
    denied(workshop, policy, EnableNetworkIsolation=False)
    denied(workshop, policy)
    workshop.trained(workshop.train("", EnableNetworkIsolation=True))


def test_inter_container_encryption(unit: Unit, account: Account, mission: Path) -> None:
    workshop, policy = bound(unit, account, content(mission, "23-guardrail-inter-container-encryption"))
    denied(workshop, policy, EnableInterContainerTrafficEncryption=False)
    denied(workshop, policy)
    job = workshop.trained(workshop.train("", EnableInterContainerTrafficEncryption=True))
    assert job["EnableInterContainerTrafficEncryption"] is True


def test_vpc_deployment(unit: Unit, account: Account, mission: Path) -> None:
    workshop, policy = bound(unit, account, content(mission, "24-guardrail-vpc-deployment"))
    denied(workshop, policy)
    grant_vpc(workshop)
    vpc = make_vpc(account)
    vpc.ec2.create_vpc_endpoint(
        VpcId=vpc.id, ServiceName="com.amazonaws.us-east-1.s3", RouteTableIds=[vpc.main_table()]
    )
    job = workshop.trained(workshop.train("", VpcConfig=config(vpc)))
    assert job["TrainingJobStatus"] == "Completed" and job["VpcConfig"] == config(vpc)


def test_source_addresses(unit: Unit, account: Account, mission: Path) -> None:
    workshop, policy = bound(unit, account, content(mission, "26-guardrail-api-source-ip"))
    denied(workshop, policy)
    unit.org.detach_policy(PolicyId=policy.rpartition("/")[2], TargetId=unit.id)
    near = content(mission, "26-guardrail-api-source-ip", **{"198.51.100.0/24": "127.0.0.0/8"})
    unit.attach(near)
    workshop.trained(workshop.train(""))


def test_the_environment_tag_of_endpoints(unit: Unit, account: Account, mission: Path) -> None:
    unit.take(account)
    policy = unit.attach(content(mission, "31-guardrail-endpoint-environment-tag"))
    account.role("Deployer", allow("sagemaker:*"))
    sagemaker = account.client("sagemaker", account.as_role("Deployer"))
    for tags in ([], [{"Key": "environment", "Value": "prod"}]):
        with pytest.raises(ClientError) as refused:
            sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="none", Tags=tags)
        error = refused.value.response["Error"]
        assert error["Code"] == "AccessDeniedException" and policy in error["Message"]
    with pytest.raises(ClientError) as refused:
        tags = [{"Key": "environment", "Value": "dev"}]
        sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="none", Tags=tags)
    assert refused.value.response["Error"]["Code"] == "ValidationException"
